"""How far the throughput of workers adds up: python -m tests.bench.worker_shares [--rounds 5] [--share 0.15].

On a machine whose cores the load and the upstream need too, two workers cannot answer twice as much as one, whatever
they do. Here the kernel gives each worker the same part of a core (`cpu.max` of cgroups), too little for what is
asked of it, and load and upstream have what is left. One, two and four workers in turns: what do they answer
together, and what CPU time does each request take? 64 connections for each worker, a GET of 256 B from an upstream.

It shows what workers lose by sharing: connections that the kernel divides unevenly, the shared table of live
requests, what control asks them, locks of the kernel. It does not show what whole cores lose to each other beyond
that, such as caches and the memory's bandwidth. One worker is one process with control's work in it; of more,
control and supervisor have no limit, and their time is told beside it.

A turn in which a worker had less than 97 % of its share, since other work was in the way, is thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contained import share_of_core
from tests.bench.machine import cpu_seconds, tree
from tests.bench.program import say
from tests.bench.workers import HEADER, wrk
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.workers import Pod

COUNTS = (1, 2, 4)
CONFIG = (
    HEADER
    + """\
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}}}
routes: [{{name: app, upstream: app}}]
"""
)
CONNECTIONS = 64
"""For each worker."""
WARM_SECONDS = 1
LEAST = 0.97
"""Of its share, that a worker must have had."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What so many workers did in one round."""

    per_second: float
    had: list[float]
    """Of a core, by each worker."""
    beside: float
    """Of a core, by all other processes of the pod."""

    @property
    def us_each(self) -> float:
        """CPU time of all processes for a request."""
        return (sum(self.had) + self.beside) / self.per_second * 1e6


async def turn(folder: Path, count: int, app: int, options: argparse.Namespace) -> Turn:
    """A new sidecar, so that its connections are divided anew."""
    inbound, probes = free_ports(2)
    file = folder / "sidecar.yaml"
    file.write_text(CONFIG.format(workers=count, inbound=inbound, probes=probes, app=app))
    async with sidecar(file, probes, folder / "log") as running:
        root = running.process.pid
        workers = [root] if count == 1 else await _workers(running, count)
        await asyncio.to_thread(wrk, inbound, WARM_SECONDS, CONNECTIONS * count)
        beside = [pid for pid in tree(root) if pid not in workers]
        with ExitStack() as limits:
            for pid in workers:
                limits.enter_context(share_of_core(pid, options.share))
            began, before = time.monotonic(), [cpu_seconds([pid]) for pid in (*workers, *beside)]
            answered = await asyncio.to_thread(wrk, inbound, options.seconds, CONNECTIONS * count)
            took = time.monotonic() - began
            used = [cpu_seconds([pid]) for pid in (*workers, *beside)]
    had = [(end - start) / took for start, end in zip(before, used, strict=True)]
    return Turn(answered / took, had[:count], sum(had[count:]))


async def _workers(running: Running, count: int) -> list[int]:
    await running.logged('"process.started"', times=1 + count)
    return [pid for name, pid in Pod(running, Path(), 0, 0).pids().items() if name != "control"]


async def compare(folder: Path, options: argparse.Namespace) -> list[dict[int, Turn]]:
    """Of each round, the turns that count."""
    (app,) = free_ports(1)
    upstream = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.upstream", str(app))
    rounds = []
    try:
        for number in range(options.rounds):
            turns = {count: await turn(folder, count, app, options) for count in COUNTS}
            rounds.append(
                {count: one for count, one in turns.items() if min(one.had) >= LEAST * options.share}
            )
            say(f"round {number + 1}: {', '.join(f'{one.per_second:.0f}/s' for one in turns.values())}")
    finally:
        upstream.kill()
        await upstream.wait()
    return rounds


def told(rounds: list[dict[int, Turn]], count: int) -> str:
    """A row: medians, and in brackets the smallest and the largest of the rounds."""
    turns = [(one[count], one[1]) for one in rounds if count in one and 1 in one]
    if not turns:
        return f"| {count} | 0 | | | | | |"
    together = [many.per_second / single.per_second for many, single in turns]
    cells = [
        f"{len(turns)}",
        f"{statistics.median(many.per_second for many, _ in turns):.0f}",
        f"{statistics.median(together):.2f} ({min(together):.2f}–{max(together):.2f})",
        f"{statistics.median(sum(many.had) for many, _ in turns):.3f}",
        f"{statistics.median(many.beside for many, _ in turns):.3f}",
        f"{statistics.median(many.us_each for many, _ in turns):.1f}",
    ]
    return f"| {count} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.15, help="of a core, for each worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        rounds = asyncio.run(compare(Path(name), options))
    print(f"{options.rounds} rounds of {options.seconds} s, for each worker {options.share} of a core")
    print(
        "| workers | rounds that count | requests/s | × one | cores they had | cores beside | CPU µs a request |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count in COUNTS:
        print(told(rounds, count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
