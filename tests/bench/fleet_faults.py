"""Requests while the Redis of a fleet is ill: python -m tests.bench.fleet_faults [--rounds 8] [--seconds 1.5].

One sidecar process of a fleet serves a fixed rate (`--rps 400`). In short turns, all in one run, its Redis is well,
killed, well, hung (SIGSTOP), well, slow (100 ms each way), well, flushed each second, and so on. Prints for each how
many requests failed, and p50, p99 and the CPU time of the sidecar's loop for each request, beside those of the turns
with a well Redis that came right before. Exit code 1 if a request failed.

Honest when the well turns agree among themselves: `well p99` has the quartiles of theirs. Where these are apart by
more than a tenth, other work on the machine is in the p99, and the CPU time alone tells something.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import quantile
from tests.support.ports import free_ports
from tests.support.process import sidecar
from tests.support.redis_server import RedisServer, redis_server
from tests.support.relay import Relay, relay
from tests.support.traffic import Traffic, traffic

CONNECTIONS = 16
SETTLE_SECONDS = 2.5
"""A hung Redis is told to be slow after two seconds: failures count from the beginning, the p99 from then on."""


@asynccontextmanager
async def killed(server: RedisServer, _between: Relay) -> AsyncIterator[None]:
    await server.kill()
    yield
    await server.start()


@asynccontextmanager
async def hung(server: RedisServer, _between: Relay) -> AsyncIterator[None]:
    server.hang()
    yield
    server.go_on()


@asynccontextmanager
async def slow(_server: RedisServer, between: Relay) -> AsyncIterator[None]:
    between.delay_seconds = 0.1
    yield
    between.delay_seconds = 0.0


@asynccontextmanager
async def flushed(server: RedisServer, _between: Relay) -> AsyncIterator[None]:
    async def flush() -> None:
        while True:
            await server.ask("FLUSHALL")
            await asyncio.sleep(1.0)

    task = asyncio.create_task(flush())
    yield
    task.cancel()
    await asyncio.wait([task])


Fault = Callable[[RedisServer, Relay], AbstractAsyncContextManager[None]]
FAULTS: tuple[Fault, ...] = (killed, hung, slow, flushed)


@dataclass
class Turns:
    """What came of all turns of one kind."""

    p99_us: list[float] = field(default_factory=list)
    """Of each turn."""
    us: list[int] = field(default_factory=list)
    """Of each request."""
    cpu_us: float = 0.0
    failed: int = 0

    async def measure(self, record: Traffic, pid: int, seconds: float) -> None:
        """One more turn."""
        record.take_seconds()
        failed, cpu = len(record.failures), _loop_cpu_us(pid)
        await asyncio.sleep(seconds)
        taken = [int(1e6 * one) for one in record.take_seconds()]
        self.us += taken
        self.p99_us.append(quantile(taken, 0.99))
        self.cpu_us += _loop_cpu_us(pid) - cpu
        self.failed += len(record.failures) - failed

    def quantile(self, share: float) -> float:
        return quantile(sorted(self.us), share)

    @property
    def cpu_each_us(self) -> float:
        return self.cpu_us / len(self.us)


def _loop_cpu_us(pid: int) -> float:
    """Of the thread with the event loop, since it began (/proc/PID/schedstat, in ns)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3


async def run(options: argparse.Namespace, folder: Path) -> bool:
    inbound, probes, admin, app = free_ports(4)
    upstream = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.upstream", str(app))
    file = folder / "sidecar.yaml"
    failed = 0
    try:
        async with redis_server(folder) as server, relay(server.port) as between:
            file.write_text(configuration(inbound, probes, admin, app, between.port))
            async with (
                sidecar(file, probes, folder / "log") as running,
                traffic(inbound, ["/app"], connections=CONNECTIONS, per_second=options.rps) as record,
            ):
                await asyncio.sleep(SETTLE_SECONDS)
                found = {fault: (Turns(), Turns()) for fault in FAULTS}
                pid = running.process.pid
                for _ in range(options.rounds):
                    for fault, (well, ill) in found.items():
                        await well.measure(record, pid, options.seconds)
                        async with fault(server, between):
                            before = len(record.failures)
                            await asyncio.sleep(SETTLE_SECONDS)
                            ill.failed += len(record.failures) - before
                            await ill.measure(record, pid, options.seconds)
                        await asyncio.sleep(SETTLE_SECONDS)
                for fault, (well, ill) in found.items():
                    print(told(getattr(fault, "__name__", "?"), well, ill))
                print(f"{record.requests} requests in all, {len(record.failures)} failed")
                failed = len(record.failures)
    finally:
        upstream.kill()
        await upstream.wait()
    return failed == 0


def told(name: str, well: Turns, ill: Turns) -> str:
    """A line of the report."""
    pairs = [(ill.quantile(share), well.quantile(share)) for share in (0.5, 0.99)]
    pairs.append((ill.cpu_each_us, well.cpu_each_us))
    cells = [
        f"{label} {one:.0f}/{other:.0f} µs ({one / other:.2f} ×)"
        for label, (one, other) in zip(("p50", "p99", "CPU a request"), pairs, strict=True)
    ]
    low, _, high = statistics.quantiles(well.p99_us, n=4)
    return f"{name}: {ill.failed} failed; {', '.join(cells)}; well p99 {low:.0f} to {high:.0f}"


def configuration(inbound: int, probes: int, admin: int, app: int, redis: int) -> str:
    return f"""
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{service_name: bench, access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
share: {{redis: {{url: "redis://127.0.0.1:{redis}"}}}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}}}
routes: [{{name: app, upstream: app, circuit_breaker: {{scope: fleet}}}}]
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rps", type=float, default=400.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(run(options, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
