"""One round: trouble, peace, and what has to hold then.

1. The upstream fails, and processes, Redis and ways have their troubles, while clients ask.
2. All of it is over. Once all processes are linked again, all refuse.
3. The upstream is well, and holds what reaches it: never more than `max_calls` probes of all together, though each
   pod refuses requests that could be one. Who probes may be killed: another one probes, once the permit is free.
4. It answers: every breaker closes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.fleet_trouble.troubles import Trouble
from tests.bench.fleet_trouble.world import World


@dataclass(frozen=True)
class Found:
    """What came of a round."""

    most_probes: int
    """At once, of all together."""
    is_linked: bool
    """Nobody lost the Redis while a probe was out: only then there is a bound. A process that gets no turn on the
    machine for some seconds has lost it."""
    free_seconds: float
    """From the death of who probed until the next probe; 0: it was let live."""
    closed_seconds: float
    """From the good probe until all were closed."""


async def play(
    world: World,
    rng: random.Random,
    troubles: Sequence[Trouble],
    *,
    within_seconds: float,
    most_seconds: float,
    is_prober_killed: bool,
) -> Found:
    """A round with these troubles. They begin by chance `within_seconds`, and each lasts `most_seconds` at most."""

    async def befall(trouble: Trouble, begin: float, seconds: float) -> None:
        if begin:
            await asyncio.sleep(begin)
        await trouble(world, rng, seconds)

    async with asyncio.TaskGroup() as group:
        for trouble in troubles:
            begin, seconds = rng.uniform(0.0, within_seconds), rng.uniform(0.0, most_seconds)
            group.create_task(befall(trouble, begin, seconds))
        await asyncio.sleep(0)  # who dies at once has no permit, since nothing has failed yet
        world.service.is_failing = True
    await world.peace()
    await world.all_refuse()
    lost_links = await world.lost_links()
    world.service.hold()
    await world.service.until_held(1)
    await world.refusals()
    is_linked = await world.lost_links() == lost_links
    free_seconds = 0.0
    if is_prober_killed:
        free_seconds = await world.kill_who_probes()
        await world.refusals()
    most_probes = world.service.most_held
    closed_seconds = await world.all_are_closed()
    await world.peace()
    return Found(most_probes, is_linked, free_seconds, closed_seconds)
