"""How long an ill Redis holds a sidecar's event loop: python -m tests.bench.fleet_holds [--rounds 4] [--seconds 4].

One sidecar of a fleet in this process, without traffic; its Redis is well, killed, well, hung, well, and so on
through all of `redis_faults.py`. A beat each millisecond takes the CPU time that the thread of the loop has used
the one before: what all else on the loop took without a pause, and a request waits for it that comes at this moment.
Other work on the machine is not in it, but for what sharing a core costs, in all turns alike.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import uvloop

from sidecar.runtime import memory
from tests.bench.load import quantile
from tests.bench.redis_faults import FAULTS, LINKED_SECONDS
from tests.process.fleet import Flaky, configuration, replica
from tests.support.redis_server import redis_server
from tests.support.relay import relay

BEAT_SECONDS = 0.001


async def beat(held_us: list[int]) -> None:
    """Add the CPU time between any two beats."""
    last = time.thread_time_ns()
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        now = time.thread_time_ns()
        held_us.append((now - last) // 1000)
        last = now


def told(name: str, ill: list[int], well: list[int]) -> str:
    """A line of the report."""
    cells = []
    for share, label in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "longest")):
        one, other = (quantile(sorted(each), share) for each in (ill, well))
        cells.append(f"{label} {one:.0f}/{other:.0f} µs ({one / max(1.0, other):.2f} ×)")
    return f"{name}: {', '.join(cells)}"


async def run(options: argparse.Namespace, folder: Path) -> None:
    found: dict[str, tuple[list[int], list[int]]] = {}
    held_us: list[int] = []

    async def turn() -> list[int]:
        held_us.clear()
        await asyncio.sleep(options.seconds)
        return list(held_us)

    async with (
        redis_server(folder) as server,
        relay(server.port) as between,
        Flaky().serving() as app,
        replica("r0", configuration(app.port, between.port)) as one,
    ):
        await one.call()
        memory.settle_all()
        beating = asyncio.create_task(beat(held_us))
        for _ in range(options.rounds):
            for name, fault in FAULTS.items():
                ill, well = found.setdefault(name, ([], []))
                well += await turn()
                async with fault(server, between):
                    ill += await turn()
                await asyncio.sleep(LINKED_SECONDS)
        beating.cancel()
    for name, (ill, well) in found.items():
        print(told(name, ill, well))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as folder:
        uvloop.run(run(options, Path(folder)))


if __name__ == "__main__":
    main()
