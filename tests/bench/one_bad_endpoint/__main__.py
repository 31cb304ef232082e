"""Run all rows and print the table.

    python -m tests.bench.one_bad_endpoint [--only TEXT] [--runs N] [--seconds N] [--markdown]

Twenty clients in a closed loop, good answers of about 20 ms, all defaults. The requests may be sent again, as a GET
without a body; the good answers to others, that are sent once, have a column of their own. Exit code 1 if a breaker
opened where an endpoint was well, or did not where none was.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from tests.bench.one_bad_endpoint.rows import Row, rows_with
from tests.bench.one_bad_endpoint.world import Run, Seen


def p99(seconds: list[float]) -> float:
    ordered = sorted(seconds)
    return ordered[len(ordered) * 99 // 100] if ordered else 0.0


def cells(row: Row, runs: list[Seen], sent_once: list[Seen], seconds: float) -> list[str]:
    opened = [run.opened_after for run in runs if run.opened_after < 1e9]
    return [
        row.name,
        *(f"{100 * median(run.share for run in one):.2f} %" for one in (runs, sent_once)),
        f"{1000 * median(p99(run.seconds) for run in runs):.0f} ms",
        f"{median(run.to_bad for run in runs) / seconds:.2f}/s",
        f"{len(opened)} of {len(runs)}"
        + (f", after {1000 * max(opened):.0f} ms" if row.is_upstreams else ""),
    ]


def is_right(row: Row, runs: list[Seen]) -> bool:
    opened = sum(run.opened_after < 1e9 for run in runs)
    return opened == (len(runs) if row.is_upstreams else 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.one_bad_endpoint", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="of trouble, in virtual time")
    parser.add_argument("--markdown", action="store_true", help="the table as it stands in the README")
    options = parser.parse_args()
    rows = rows_with(options.only)
    are_right = []
    head = ["situation", "good answers", "sent once", "p99", "load on the bad ones", "breaker opened"]
    if options.markdown:
        print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
    for row in rows:
        runs, sent_once = (
            [
                Run(row, seed, is_repeatable=is_repeatable).go(options.seconds)
                for seed in range(1, options.runs + 1)
            ]
            for is_repeatable in (True, False)
        )
        are_right += [is_right(row, runs), is_right(row, sent_once)]
        told = cells(row, runs, sent_once, options.seconds)
        if options.markdown:
            print(f"| {' | '.join(told)} |", flush=True)
        else:
            print(
                "  ".join(f"{cell:<36}" if not n else f"{cell:>16}" for n, cell in enumerate(told)),
                flush=True,
            )
    return int(not all(are_right))


if __name__ == "__main__":
    sys.exit(main())
