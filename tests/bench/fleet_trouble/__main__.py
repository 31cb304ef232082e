"""Breakers of several pods in trouble, as real processes: python -m tests.bench.fleet_trouble.

    python -m tests.bench.fleet_trouble [--rounds 20] [--pods 2] [--seed 1]

Pods of two workers each meet in a real Redis, an upstream fails, and clients never stop asking. In each round workers
and control processes die or hang, configurations are loaded again, the Redis dies, hangs or forgets all, messages are
late or lost on the way to it: which of these, whom and when, is by seeded chance, and the machine's own comes on top.

`rounds.py` says what has to hold then. Exit code 1 where it did not: more probes at once than `max_calls`; a permit
that was lost for longer than `max_wait` and the second in which whoever was refused asks again; breakers that were
not closed a second after the good probe; a connection that was cut though no worker of its pod has died; an answer
that nobody gives. After a minute without an outcome it shows all breakers, and ends. A process that has died too
often of late is let live (0.00 s).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.bench.fleet_trouble.rounds import Found, play
from tests.bench.fleet_trouble.troubles import TROUBLES
from tests.bench.fleet_trouble.world import MOST_PROBES, World, world

ROUND_SECONDS = 60.0
"""Against hanging; a round takes about eight."""
MAX_WAIT_SECONDS = 2
AGAIN_SECONDS = 1.0
"""A process that was refused a permit asks again after that."""
CLOSED_SECONDS = 1.0
MOST_TROUBLES = 5
WITHIN_SECONDS, MOST_SECONDS = 2.0, 1.5


def problems(found: Found) -> list[str]:
    """What should not be so."""
    told = []
    if found.is_linked and found.most_probes > MOST_PROBES:
        told.append(f"{found.most_probes} probes at once")
    if found.free_seconds > MAX_WAIT_SECONDS + AGAIN_SECONDS:
        told.append(f"a permit was lost for {found.free_seconds:.2f} s")
    if found.closed_seconds > CLOSED_SECONDS:
        told.append(f"all were closed after {found.closed_seconds:.2f} s")
    return told


async def show(one: World) -> None:
    for number, member in enumerate(one.members):
        told = await member.pod.ask("/breakers")
        print(f"pod {number}: {told['breakers'][0]}\n  {(await member.pod.ask('/status'))['fleet']}")


async def rounds(one: World, options: argparse.Namespace) -> bool:
    """Whether all that has to hold has held."""
    rng, is_good = random.Random(options.seed), True
    print("| round | troubles | probes at once | permit free after | all closed after | |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number in range(options.rounds):
        troubles = rng.sample(TROUBLES, rng.randint(1, MOST_TROUBLES))
        names = ", ".join(trouble.__name__ for trouble in troubles)
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                found = await play(
                    one,
                    rng,
                    troubles,
                    within_seconds=WITHIN_SECONDS,
                    most_seconds=MOST_SECONDS,
                    is_prober_killed=True,
                )
        except TimeoutError:
            print(f"round {number} has no end: {names}")
            await show(one)
            return False
        told = problems(found)
        is_good &= not told
        free, closed = f"{found.free_seconds:.2f} s", f"{found.closed_seconds:.2f} s"
        cells = str(number), names, str(found.most_probes), free, closed, "; ".join(told) or "ok"
        print(f"| {' | '.join(cells)} |", flush=True)
    cuts, strange = await one.cuts_without_reason(), one.strange_answers()
    answers = sum(sum(member.statuses.values()) for member in one.members)
    print(
        f"{answers} answers, {sum(strange.values())} of them strange; {cuts} connections cut without a reason"
    )
    return is_good and not cuts and not strange


async def run(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        async with world(Path(name), options.pods, MAX_WAIT_SECONDS) as one:
            return await rounds(one, options)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pods", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    return 0 if asyncio.run(run(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
