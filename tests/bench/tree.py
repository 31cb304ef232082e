"""How soon a tree of calls stops: python -m tests.bench.tree.

Four instrumented services with a sidecar each (`tests/process/chain.py`). A client gives half a second to a work that
takes longer, and another client leaves. Other work on the machine only ever adds to the times: the best of each
counts.

Prints one figure a line, with what it may be at most. Exit code 1 if one is over.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.bench.reload import Figure
from tests.process.chain import Chain, running_chain

TRIES = 5
SETTLED_SECONDS = 0.1
"""After the answer: by then nobody may be at work."""


async def half_a_second(chain: Chain) -> tuple[float, int, int]:
    """Milliseconds to the answer, requests that are served a moment later, milliseconds left at the last hop."""
    loop, run = asyncio.get_running_loop(), chain.new_run()
    started = loop.time()
    target = f"/work?run={run}&seconds=1.2"
    async with chain.client("GET", target, "x-request-timeout-ms: 500\r\n") as answer:
        await answer.readline()
        answered = loop.time()
        await asyncio.sleep(SETTLED_SECONDS)
        after = await chain.served(run)
    await chain.is_over(run)
    budgets = [one.budget_ms for one in after]
    return (answered - started) * 1000, sum(not one.end for one in after), min(budgets)


async def cut(chain: Chain) -> float:
    """Milliseconds from a client's leaving to the end of the last connection of its tree."""
    loop, run = asyncio.get_running_loop(), chain.new_run()
    async with chain.client("GET", f"/work?run={run}&seconds=1.2"):
        await chain.reached_the_end(run)
        closed = loop.time()
    await chain.until(run, lambda requests: not any(one.is_connected for one in requests))
    return (loop.time() - closed) * 1000


async def measure(chain: Chain) -> list[Figure]:
    answers = [await half_a_second(chain) for _ in range(TRIES)]
    cuts = [await cut(chain) for _ in range(TRIES)]
    return [
        Figure("half a second was answered after, ms", min(one[0] for one in answers), 520),
        Figure("requests still served 100 ms later", min(one[1] for one in answers), 0),
        Figure("of 500 ms, spent at four hops, ms", 500 - max(one[2] for one in answers), 150),
        Figure("a tree without its client was cut after, ms", min(cuts), 100),
    ]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, running_chain(Path(name)) as chain:
        found = asyncio.run(measure(chain))
    print("\n".join(map(str, found)))
    return 0 if all(figure.value <= figure.most for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
