"""How long one peer can hold the loop: python -m tests.bench.hold [--mebibytes 4] [NAME ...].

For each kind of tiny piece that a client or an upstream can send, the CPU time of the longest turn of the loop while
they flow, on uvloop as in production, and how many turns a neighbour waited for its answer. CPU time leaves out what
other programs do meanwhile; no turn may take more than 20 ms of it.

NAME: only the kinds with this text in their name. Prints a line a kind. Exit code 1 if one is over the limit.
"""

from __future__ import annotations

import argparse
import gc
import sys

import uvloop

from tests.scenarios.stage import app_routes
from tests.support.proxy import running
from tests.support.tiny import KINDS, Milliseconds, Work, app_for, flooded

MOST_MS = 20.0
ROUTE = 'match: {path: {regex: "/quick|/flood|/tunnel"}}, timeouts: {request: 60s}'


async def measured(name: str, flood_bytes: int) -> Work:
    """One flood through a sidecar of its own."""
    with app_for(name, flood_bytes) as app:
        async with running(app_routes(app.port, route=ROUTE, upstream=KINDS[name].upstream)) as worker:
            gc.collect()
            gc.freeze()
            return await flooded(worker, name, app, flood_bytes, Milliseconds)


def main() -> int:
    """One kind after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--mebibytes", type=float, default=4.0, help="of each flood")
    options = parser.parse_args()
    flood_bytes = int(options.mebibytes * 1024 * 1024)
    is_over = False
    print(
        f"{'longest turn':>14} {'all turns':>12} {'taken':>9} {'passed on':>10} {'neighbour':>18}"
        f" {'errors':>7}  kind"
    )
    for name in KINDS:
        if options.names and not any(part in name for part in options.names):
            continue
        work = uvloop.run(measured(name, flood_bytes))
        is_over = is_over or work.most > MOST_MS or bool(work.problems)
        neighbour = f"{work.neighbour_answers} ({work.neighbour_turns} turns)"
        print(
            f"{work.most:11.1f} ms {work.total:9.0f} ms {work.read_bytes / 1e6:6.2f} MB"
            f" {work.passed_bytes / 1e6:7.2f} MB {neighbour:>18} {len(work.problems):>7}  {name}",
            flush=True,
        )
    return int(is_over)


if __name__ == "__main__":
    sys.exit(main())
