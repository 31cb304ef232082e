"""What looking costs, with 1,000 routes: python -m tests.bench.admin [--rounds 10] [--seconds 3].

A sidecar on one core serves wrk's requests from another. While it is idle, how long the admin API takes to answer
is measured, and how much CPU time an answer takes, by many of them. Then rounds of load alternate with and without a
client that asks for `/status` once a second, and one that asks for everything that `sidecar status --watch` shows.

Prints one figure a line, with what it may be at most. Exit code 1 if one is over.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import math
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

from tests.bench.load import HOST, SCENARIOS, flat_out
from tests.bench.machine import Cores, cpu_seconds, pick_cores, tree
from tests.bench.reload import Figure
from tests.bench.targets import await_ok, pinned
from tests.support.ports import free_ports

ROUTES = 1000
ANSWERS = 200
"""Of each resource, for its latency and CPU time."""
STATUS = ("/status",)
WATCH = ("/status", "/routes", "/breakers", "/upstreams")
CONTROL = "nobody"
MOST_STATUS_MS, MOST_SHARE = 50.0, 1.0


def written(inbound: int, admin: int, probes: int, upstream: int) -> str:
    """A thousand routes, of which wrk's requests take the last."""
    lines = [
        "version: 1",
        "telemetry: {access_log: {format: 'off'}}",
        f"listeners: {{inbound: {{address: '127.0.0.1:{inbound}'}}}}",
        f"admin: {{address: '127.0.0.1:{admin}'}}",
        f"probes: {{address: '127.0.0.1:{probes}'}}",
        "upstreams:",
        *(f"  u{n}: {{endpoints: ['127.0.0.1:{upstream}']}}" for n in range(ROUTES)),
        "routes:",
        *(f"- {{name: r{n}, match: {{hosts: [h{n}.test]}}, upstream: u{n}}}" for n in range(ROUTES - 1)),
        f"- {{name: load, match: {{hosts: [{HOST}], path: {{prefix: /api}}}}, upstream: u{ROUTES - 1}}}",
    ]
    return "\n".join(lines) + "\n"


def ask(admin: int, path: str) -> float:
    """Milliseconds until an answer was read."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body[:200]
    return (time.perf_counter() - began) * 1000


def idle(process: Popen[bytes], admin: int) -> list[Figure]:
    """Latency and CPU time of each resource that is polled."""
    found = []
    for path in WATCH:
        pids = tree(process.pid)
        before = cpu_seconds(pids)
        took = sorted(ask(admin, path) for _ in range(ANSWERS))
        cpu_ms = (cpu_seconds(pids) - before) * 1000 / ANSWERS
        most = MOST_STATUS_MS if path == "/status" else math.inf
        found.append(Figure(f"{path}: median ms", statistics.median(took), most))
        found.append(Figure(f"{path}: slowest of {ANSWERS}, ms", took[-1], most))
        share = MOST_SHARE if path == "/status" else math.inf
        found.append(Figure(f"{path}: CPU time of one a second, % of a core", cpu_ms / 10, share))
    return found


@contextlib.contextmanager
def polled(admin: int, paths: tuple[str, ...]) -> Iterator[None]:
    """Ask for `paths` once a second, from the first moment to the end of the block."""
    is_over = threading.Event()

    def poll() -> None:
        while True:
            for path in paths:
                ask(admin, path)
            if is_over.wait(1.0):
                return

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def under_load(
    process: Popen[bytes], inbound: int, admin: int, cores: Cores, options: argparse.Namespace
) -> list[Figure]:
    """CPU time of the proxy for each request, that of the answers included.

    Rounds alternate, and which kind is first changes, so that drift falls on all. The second nobody says how far
    apart two medians of the same are: a difference below that is none, and the CPU time of an answer says more.
    """
    kinds: dict[str, tuple[str, ...]] = {CONTROL: (), "nobody again": (), "/status": STATUS, "a watch": WATCH}
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    pids = tree(process.pid)
    for number in range(options.rounds):
        order = list(kinds)
        for kind in order[number % len(order) :] + order[: number % len(order)]:
            before = cpu_seconds(pids)
            with polled(admin, kinds[kind]) if kinds[kind] else contextlib.nullcontext():
                load = flat_out(SCENARIOS[0], port=inbound, core=cores.load, seconds=options.seconds)
            costs[kind].append((cpu_seconds(pids) - before) * 1e6 / load.requests)
            rates[kind].append(load.requests / load.seconds)
    base, rate = statistics.median(costs[CONTROL]), statistics.median(rates[CONTROL])
    found = [Figure(f"requests a second, asked by {CONTROL}", rate)]
    for kind in list(kinds)[1:]:
        found += [
            Figure(f"{kind}: CPU time a request, % more", (statistics.median(costs[kind]) / base - 1) * 100),
            Figure(f"{kind}: requests a second, % fewer", (1 - statistics.median(rates[kind]) / rate) * 100),
        ]
    return found


def main(options: argparse.Namespace) -> int:
    cores = pick_cores()
    inbound, admin, probes, upstream = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        folder = Path(name)
        file = folder / "sidecar.yaml"
        file.write_text(written(inbound, admin, probes, upstream))
        command = [sys.executable, "-m", "sidecar", "run", str(file)]
        app = [sys.executable, "-m", "tests.bench.upstream", str(upstream)]
        with (
            pinned(app, core=cores.load, log=folder / "upstream.log") as origin,
            pinned(command, core=cores.proxy, log=folder / "sidecar.log") as process,
        ):
            await_ok(origin, upstream, "/api/small")
            await_ok(process, probes, "/readyz")
            time.sleep(1.0)
            found = idle(process, admin)
            found += under_load(process, inbound, admin, cores, options)
    print("\n".join(map(str, found)))
    return 0 if all(figure.value <= figure.most for figure in found) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    sys.exit(main(parser.parse_args()))
