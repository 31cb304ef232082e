"""Fleets of 10 to 10,000 replicas in virtual time: breakers that act as one beside the same breakers, each alone.

    python -m tests.bench.fleet_model [--only TEXT] [--sizes 10,100,1000]

The first table has the situations; the second one outage for fleets of several sizes, with what a store has to bear.
Ten thousand replicas take a minute of CPU time, as much as all others together. Chance is seeded: the same tables
each time. The rules and breakers are the real ones; what the store is, and how a process reads, is `world.py`.
"""

from __future__ import annotations

import argparse

from tests.bench.fleet_model.situations import SITUATIONS, SIZES, Result, of_size, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet_model", description=__doc__)
    parser.add_argument("--only", default="", help="situations whose name contains this")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="of the second table; empty: none")
    options = parser.parse_args()
    print("| situation | | opened | all open after | failed | probes | refused though it was well |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for situation in SITUATIONS:
        if options.only in situation.name:
            for is_shared in (True, False):
                print(_row(run(situation, is_shared=is_shared)), flush=True)
    if options.sizes:
        print()
        print(
            "| replicas | all open after (alone) | failed (alone) | probes (alone)"
            " | writes/s calm | writes/s worst | reads/s worst | read MB/s |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in filter(None, options.sizes.split(",")):
        situation = of_size(int(size))
        print(_size_row(run(situation, is_shared=True), run(situation, is_shared=False)), flush=True)


def _row(result: Result) -> str:
    counts, situation = result.counts, result.situation
    last = f"{result.last_open_seconds:.2f} s" if result.opened else "never"
    cells = (
        situation.name,
        "as one" if result.is_shared else "each alone",
        f"{result.opened} of {situation.replicas}",
        last,
        str(result.failed),
        str(counts.probes),
        str(counts.wrongly_refused),
    )
    return f"| {' | '.join(cells)} |"


def _size_row(one: Result, alone: Result) -> str:
    counts, seconds = one.counts, 12.0 + one.situation.trouble_seconds + one.situation.after_seconds
    last = f"{one.last_open_seconds:.1f} s" if one.opened == one.situation.replicas else f"{one.opened} open"
    others = (
        f"{alone.last_open_seconds:.1f} s"
        if alone.opened == one.situation.replicas
        else f"{alone.opened} of {one.situation.replicas} ever"
    )
    cells = (
        f"{one.situation.replicas:,}",
        f"{last} ({others})",
        f"{one.failed} ({alone.failed})",
        f"{counts.probes} ({alone.counts.probes})",
        f"{one.writes_before:.1f}",
        str(one.writes_most),
        str(one.reads_most),
        f"{counts.bytes_read / seconds / 1e6:.2f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
