"""What the dashboard costs with 1,000 routes: python -m tests.bench.dashboard [--rounds 8] [--seconds 5].

A sidecar process, alone on its core, serves as fast as it can in rounds that take turns: one without a dashboard, and
one while its admin listener is asked each second what an open page asks (`/status`, `/routes?since=`, and
`/breakers` for the fifty rows in sight). Once all requests are for one route, and once they go round all of them,
where the page asks for the routes less often (`pauseMs` in `needs.js`). Then Chromium opens the page.

Prints one figure a line, with what it may be at most. Exit code 1 if one is over.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import install
from tests.bench.load import CONNECTIONS, HOST, SCENARIOS, LoadError, run_load
from tests.bench.machine import Cores, cpu_seconds, pick_cores
from tests.bench.reload import Figure
from tests.bench.targets import await_ok, get, pinned
from tests.bench.telemetry_process import ROUTES, Variant
from tests.support.browser import CHROMIUM, opened
from tests.support.ports import free_ports

PAGE_ROWS = 50
PERIOD_SECONDS = 1.0
STATUS_ASKED = 50
PAINTS = 5
LOOKS = 7
LOOKS_IN_ROUND = 2
NOISE_PERCENT = 5
"""By which two rounds of the same kind differ: throughput shows what is worse, the shares of a core the rest."""
ROW_SECONDS = 0.008
"""Pause before the next look at the routes, for each row of the last one: as the page does."""


class Poller:
    """Asks what the page asks, once a second, in a thread."""

    def __init__(self, admin: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", admin)
        self._over = threading.Event()
        self._cursor = ""
        self._next_routes = 0.0
        names = "&".join(f"route=bench{number}" for number in range(PAGE_ROWS))
        self._breakers = f"/breakers?{names}"
        self.rows = 0
        self.looks = 0

    def run(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            self.turn()
        self._connection.close()

    def stop(self) -> None:
        self._over.set()

    def turn(self) -> None:
        self._ask("/status")
        if time.monotonic() >= self._next_routes:
            self.look()
        self._ask(self._breakers)

    def look(self) -> None:
        """At the routes."""
        text = self._ask(f"/routes?since={self._cursor}")
        found = re.search(rb'"cursor":"([^"]+)"', text)
        assert found is not None
        if self._cursor:
            rows = text.count(b'"duration_counts"')
            self._next_routes = time.monotonic() + rows * ROW_SECONDS
            self.rows += rows
            self.looks += 1
        self._cursor = found[1].decode()

    def _ask(self, path: str) -> bytes:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        assert answer.status == 200, path
        return answer.read()


@contextmanager
def polled(admin: int) -> Iterator[Poller]:
    poller = Poller(admin)
    poller.turn()  # the whole, which a page reads when it is opened
    thread = threading.Thread(target=poller.run)
    thread.start()
    try:
        yield poller
    finally:
        poller.stop()
        thread.join()


def one_route(port: int, core: int, seconds: float) -> float:
    """Requests a second, all for one route."""
    load = run_load(SCENARIOS[0], port=port, core=core, seconds=seconds)
    return load.requests / load.seconds


def all_routes(port: int, core: int, seconds: float) -> float:
    """Requests a second, for each of the thousand routes in turn."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as paths:
        paths.write("".join(f"http://{HOST}/route-{number}\n" for number in range(1, ROUTES)))
        paths.flush()
        command = [
            "taskset",
            "-c",
            str(core),
            "h2load",
            "--h1",
            f"-c{CONNECTIONS}",
            "-t1",
            f"-D{seconds:.0f}",
        ]
        command += [f"--connect-to=127.0.0.1:{port}", "-i", paths.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"([\d.]+) req/s", done.stdout)
    failed = re.search(r"(\d+) failed", done.stdout)
    if found is None or failed is None or int(failed[1]):
        raise LoadError(done.stdout)
    return float(found[1])


def throughput(
    load: Callable[[int, int, float], float], ports: list[int], cores: Cores, rounds: int, seconds: float
) -> tuple[list[float], list[Poller]]:
    """Throughput with polling over that without, of each pair of rounds; the pairs take turns in who begins."""
    port, admin, _ = ports
    ratios, pollers = [], []
    load(port, cores.load, 1.0)
    for number in range(rounds):
        found = {}
        for is_polled in (number % 2 == 0, number % 2 == 1):
            if is_polled:
                with polled(admin) as poller:
                    found[True] = load(port, cores.load, seconds)
                pollers.append(poller)
            else:
                found[False] = load(port, cores.load, seconds)
        ratios.append(found[True] / found[False])
    return ratios, pollers


def idle_share(admin: int, pid: int, seconds: float) -> float:
    """Share of a core that polling takes from a process that does nothing else."""
    with polled(admin):
        before = cpu_seconds([pid])
        time.sleep(seconds)
        whole = cpu_seconds([pid]) - before
    before = cpu_seconds([pid])
    time.sleep(seconds)
    return (whole - (cpu_seconds([pid]) - before)) / seconds


def busy_share(port: int, admin: int, pid: int) -> float:
    """Share of a core that looking at the routes takes where each of them has changed before each look."""
    poller = Poller(admin)
    poller.look()
    costs = []
    for _ in range(LOOKS):
        for number in range(ROUTES):
            get(port, f"/route-{number}" if number else "/api/small")
        before = cpu_seconds([pid])
        poller.look()
        costs.append(cpu_seconds([pid]) - before)
    assert poller.rows == LOOKS * ROUTES
    return statistics.median(costs) / (ROUTES * ROW_SECONDS)


def status_seconds(admin: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", admin)
    taken = []
    for _ in range(STATUS_ASKED):
        began = time.perf_counter()
        connection.request("GET", "/status")
        assert json.loads(connection.getresponse().read())["routes"] == ROUTES
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken


async def paints(admin: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the navigation to the first contentful paint, and to the first rows, with an empty cache."""
    first, rows = [], []
    for _ in range(PAINTS):
        async with opened("about:blank") as (page, _):
            await page.add_init_script(
                "new MutationObserver((_, me) => { if (document.querySelector('#main tbody tr')) "
                "{ window.rowsAt = performance.now(); me.disconnect(); } })"
                ".observe(document, {childList: true, subtree: true})"
            )
            await page.goto(f"http://127.0.0.1:{admin}/")
            await page.locator("#main tbody tr").first.wait_for()
            first.append(
                await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            )
            rows.append(await page.evaluate("window.rowsAt"))
    return first, rows


def measure(options: argparse.Namespace) -> list[Figure]:
    cores = pick_cores()
    figures = []
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        directory = Path(name)
        upstream, *ports = free_ports(4)
        file = directory / "sidecar.yaml"
        file.write_text(Variant("dashboard", routes=ROUTES).file(ports, upstream, 0))
        app = [sys.executable, "-m", "tests.bench.upstream", str(upstream)]
        proxy = [sys.executable, "-m", "sidecar", "run", str(file)]
        with (
            pinned(app, core=cores.load, log=directory / "upstream.log") as served,
            pinned(proxy, core=cores.proxy, log=directory / "sidecar.log") as process,
        ):
            await_ok(served, upstream, "/api/small")
            await_ok(process, ports[2], "/readyz")
            share = idle_share(ports[1], process.pid, options.seconds * 2)
            figures.append(
                Figure("share of a core that polling takes, nothing else happens, %", share * 100, 1)
            )
            share += busy_share(ports[0], ports[1], process.pid)
            figures.append(Figure("and where all routes have changed at each look, %", share * 100, 1))
            whole = LOOKS_IN_ROUND * ROUTES * ROW_SECONDS  # so that a round has no more looks than its share
            for what, load, seconds in (
                ("one route", one_route, options.seconds),
                (f"all {ROUTES} routes", all_routes, whole),
            ):
                ratios, pollers = throughput(load, ports, cores, options.rounds, seconds)
                lost = (1 - statistics.median(ratios)) * 100
                spread = f"{100 - 100 * max(ratios):.1f} to {100 - 100 * min(ratios):.1f}"
                figures.append(Figure(f"throughput lost, load on {what}, % ({spread})", lost, NOISE_PERCENT))
                looks, rows = sum(one.looks for one in pollers), sum(one.rows for one in pollers)
                print(
                    f"{what}: {looks} looks in {options.rounds * seconds:.0f} s, {rows / looks:.0f} rows each"
                )
            taken = status_seconds(ports[1])
            figures.append(Figure("/status, ms, median", statistics.median(taken) * 1000, 50))
            figures.append(Figure("/status, ms, slowest", max(taken) * 1000, 50))
            if CHROMIUM is not None:
                first, rows_at = asyncio.run(paints(ports[1]))
                figures.append(Figure("first contentful paint, ms, slowest", max(first), 1000))
                figures.append(Figure("first rows, ms, slowest", max(rows_at), 1000))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    install.ensure({"wrk", "h2load"}, allowed=True)
    figures = measure(options)
    print("\n".join(map(str, figures)))
    return 0 if all(figure.value <= figure.most for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
