"""What befalls the processes of a fleet, the Redis between them and their ways to it. Whom is by seeded chance."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable

from tests.bench.fleet_trouble.world import WORKERS, World
from tests.support.edits import rename_over

Trouble = Callable[[World, random.Random, float], Awaitable[None]]
"""It lasts so many seconds."""
LATE_SECONDS = 0.1


async def worker_dies(world: World, rng: random.Random, _: float) -> None:
    rng.choice(world.members).kill(str(rng.randint(1, WORKERS)))


async def control_dies(world: World, rng: random.Random, _: float) -> None:
    rng.choice(world.members).kill("control")


async def worker_hangs(world: World, rng: random.Random, seconds: float) -> None:
    await _hang(world, rng, str(rng.randint(1, WORKERS)), seconds)


async def control_hangs(world: World, rng: random.Random, seconds: float) -> None:
    await _hang(world, rng, "control", seconds)


async def _hang(world: World, rng: random.Random, name: str, seconds: float) -> None:
    member = rng.choice(world.members)
    member.signal(name, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    member.signal(name, signal.SIGCONT)


async def reload(world: World, rng: random.Random, _: float) -> None:
    one = rng.choice(world.members).pod
    rename_over(one.file, f"{one.file.read_text()}# again\n")
    one.running.process.send_signal(signal.SIGHUP)


async def redis_dies(world: World, _: random.Random, seconds: float) -> None:
    await world.server.kill()
    await asyncio.sleep(seconds)
    await world.server.start()


async def redis_hangs(world: World, _: random.Random, seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):  # it is dead at that moment
        world.server.hang()
    await asyncio.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        world.server.go_on()


async def redis_forgets(world: World, _: random.Random, _seconds: float) -> None:
    with contextlib.suppress(OSError):  # it is dead, or hangs
        await world.server.ask("FLUSHALL")


async def way_is_long(world: World, rng: random.Random, seconds: float) -> None:
    way = rng.choice(world.members).way
    way.delay_seconds = LATE_SECONDS
    await asyncio.sleep(seconds)
    way.delay_seconds = 0.0


async def way_is_cut(world: World, rng: random.Random, seconds: float) -> None:
    """Swallowed, and then reset: what was sent meanwhile never arrives."""
    way = rng.choice(world.members).way
    way.is_cut = True
    await asyncio.sleep(seconds)
    way.is_cut = False
    way.break_off()


async def upstream_is_well(world: World, _: random.Random, seconds: float) -> None:
    world.service.is_failing = False
    await asyncio.sleep(seconds)
    world.service.is_failing = True


TROUBLES: tuple[Trouble, ...] = (
    worker_dies, control_dies, worker_hangs, control_hangs, reload, redis_dies, redis_hangs, redis_forgets,
    way_is_long, way_is_cut, upstream_is_well,
)  # fmt: skip
