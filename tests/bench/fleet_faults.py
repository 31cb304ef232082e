"""Requests while the Redis of a fleet is ill: python -m tests.bench.fleet_faults [--rounds 4] [--seconds 3].

Two sidecars, each the only one of its fleet and with a Redis of its own, share a core and an upstream; the load is on
the other core. Both serve the same fixed rate at the same time (`--rps 400` each), a request to the one always in the
middle between two to the other. Then the Redis of one of them falls ill, from its first second to the last, and the
same again with their parts exchanged. Whatever else the machine does meanwhile meets both.

Each turn is cut into slices. In each, p50 and p99 of the sidecar whose Redis is ill are divided by those of its twin
in the same seconds, and so is the CPU time of the loop for each request. A pair is a slice of either turn, and its
ratio the geometric mean of both: what the sidecars differ by from the start falls out. Told are the median of all
pairs, and in brackets where the true median is with 95 % certainty (by the order of the pairs alone, whatever their
distribution). The row `none` is the same with both Redis well: it tells how small an effect this run can show.

What it does not see: what a sidecar with an ill Redis takes from its twin, since they share a core. A request waits
for the other's work only if that is going on when it comes, and the CPU time tells how much work it is. Exit code 1
if a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from tests.bench.load import quantile
from tests.bench.machine import pick_cores
from tests.bench.program import say
from tests.bench.redis_faults import FAULTS, LINKED_SECONDS, PASSWORD, Fault
from tests.support.ports import free_ports
from tests.support.process import admin, sidecar
from tests.support.redis_server import RedisServer, redis_server
from tests.support.relay import Relay, relay
from tests.support.traffic import Traffic, traffic

CONNECTIONS = 16
"""To each sidecar."""
NONE = "none"
FIGURES = ("p50", "p99", "CPU")
CERTAINTY = 0.95
MOST_TOLD = 10
"""Failures, in words."""


@dataclass(frozen=True)
class Twin:
    """One of the two sidecars."""

    pid: int
    admin: int
    server: RedisServer
    way: Relay
    record: Traffic

    async def is_alone(self) -> bool:
        """What it says of itself."""
        _, text = await admin(self.admin, "GET", "/status")
        return bool(json.loads(text)["fleet"]["is_alone"])

    def loop_cpu_us(self) -> float:
        """Of the thread with the event loop, since it began (/proc/PID/schedstat, in ns)."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e3


@dataclass
class Found:
    """All turns with one fault."""

    ratios: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIGURES})
    """Of each pair."""
    requests: int = 0
    failed: int = 0
    turns: int = 0
    alone: int = 0
    """Turns at the end of which the ill one said that it was alone."""

    def row(self, name: str) -> str:
        cells = [f"{self.failed} of {self.requests}", f"{self.alone} of {self.turns}"]
        for ratios in self.ratios.values():
            low, high = bounds(ratios)
            cells.append(f"{statistics.median(ratios):.3f} ({low:.3f}–{high:.3f})")
        return f"| {name} | {' | '.join(cells)} |"


def bounds(values: list[float]) -> tuple[float, float]:
    """Where the median of what these are a sample of lies with 95 % certainty; of fewer than six, with less."""
    ordered, left_out, tail = sorted(values), 0, 0.0
    for count in range(len(ordered) // 2):
        tail += math.comb(len(ordered), count) / 2 ** len(ordered)
        if tail > (1 - CERTAINTY) / 2:
            break
        left_out = count
    return ordered[left_out], ordered[-1 - left_out]


async def turn(
    ill: Twin, well: Twin, fault: Fault | None, options: argparse.Namespace, found: Found
) -> list[list[float]]:
    """The ratios of each slice."""
    before = len(ill.record.failures)
    slices = []
    async with contextlib.nullcontext() if fault is None else fault(ill.server, ill.way):
        for one in (ill, well):
            one.record.take_seconds()
        for _ in range(options.slices):
            began = [one.loop_cpu_us() for one in (ill, well)]
            await asyncio.sleep(options.seconds)
            used = [one.loop_cpu_us() for one in (ill, well)]
            taken = [[int(1e6 * each) for each in one.record.take_seconds()] for one in (ill, well)]
            figures = [
                [quantile(each, 0.5), quantile(each, 0.99), (end - start) / len(each)]
                for each, start, end in zip(taken, began, used, strict=True)
            ]
            slices.append([one / other for one, other in zip(*figures, strict=True)])
            found.requests += len(taken[0])
        found.alone += await ill.is_alone()
    await asyncio.sleep(LINKED_SECONDS)
    found.failed += len(ill.record.failures) - before
    found.turns += 1
    return slices


async def run(options: argparse.Namespace, folder: Path) -> bool:
    faults: dict[str, Fault | None] = {NONE: None, **FAULTS}
    wanted = options.faults.split(",") if options.faults else list(FAULTS)
    found = {name: Found() for name in (NONE, *wanted)}
    async with twins(options.rps, folder) as (one, other):
        await asyncio.sleep(LINKED_SECONDS)
        for number in range(options.rounds):
            for name, each in found.items():
                first = await turn(one, other, faults[name], options, each)
                second = await turn(other, one, faults[name], options, each)
                for pair in zip(first, second, strict=True):
                    for figure, ratios in zip(each.ratios.values(), zip(*pair, strict=True), strict=True):
                        figure.append(math.sqrt(math.prod(ratios)))
                say(f"round {number + 1}: {each.row(name)}")
        failures = one.record.failures + other.record.failures
        asked = one.record.requests + other.record.requests
    print("| its Redis | failed | alone at the end | p50 ÷ the twin's | p99 ÷ | CPU a request ÷ |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, each in found.items():
        print(each.row(name))
    print(f"{asked} requests in all, {len(failures)} failed")
    for failure in failures[:MOST_TOLD]:
        print(failure)
    return not failures


@asynccontextmanager
async def twins(rps: float, folder: Path) -> AsyncIterator[tuple[Twin, Twin]]:
    """Both under load."""
    cores = pick_cores()
    os.sched_setaffinity(0, {cores.load})  # what is started from here on inherits it
    (app,) = free_ports(1)
    upstream = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.upstream", str(app))
    try:
        async with (
            twin(folder, "one", app, cores.proxy, rps, 0.0) as one,
            twin(folder, "other", app, cores.proxy, rps, 0.5) as other,
        ):
            yield one, other
    finally:
        upstream.kill()
        await upstream.wait()


@asynccontextmanager
async def twin(folder: Path, name: str, app: int, core: int, rps: float, phase: float) -> AsyncIterator[Twin]:
    """`phase`: of its requests, in the time between two of them."""
    inbound, probes, admin_port = free_ports(3)
    file = folder / f"{name}.yaml"
    async with redis_server(folder) as server, relay(server.port) as way:
        file.write_text(configuration(inbound, probes, admin_port, app, way.port))
        async with sidecar(file, probes, folder / f"{name}.log") as running:
            pid = running.process.pid
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {core})
            first_at = (math.ceil(asyncio.get_running_loop().time() * rps) + phase) / rps
            async with traffic(
                inbound, ["/app"], connections=CONNECTIONS, per_second=rps, first_at=first_at
            ) as record:
                yield Twin(pid, admin_port, server, way, record)


def configuration(inbound: int, probes: int, admin_port: int, app: int, redis: int) -> str:
    return f"""
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}", max_connection_age: off}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin_port}"}}
telemetry: {{service_name: bench, access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
share: {{redis: {{url: "redis://default:{PASSWORD}@127.0.0.1:{redis}"}}}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}}}
routes: [{{name: app, upstream: app, circuit_breaker: {{scope: fleet}}}}]
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--slices", type=int, default=5, help="of each turn")
    parser.add_argument("--seconds", type=float, default=3.0, help="a slice")
    parser.add_argument("--rps", type=float, default=400.0, help="to each sidecar")
    parser.add_argument("--faults", help=", ".join(FAULTS) + "; without, all of them")
    options = parser.parse_args()
    gc.freeze()
    gc.disable()  # a collection in the client would be in a p99
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as folder:
        return 0 if uvloop.run(run(options, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
