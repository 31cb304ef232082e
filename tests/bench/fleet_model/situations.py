"""What the model plays: an outage, parts of the fleet that are cut off, errors at low rates, and a store that
fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from sidecar.core.snapshot import BreakerPolicy
from tests.bench.fleet_model.world import Counts, Node, World

BEFORE_SECONDS = 12.0
"""All is well, so that each window is full."""


@dataclass(frozen=True)
class Situation:
    """One fleet and what befalls it."""

    name: str
    replicas: int
    rate: float
    """Calls a second of each."""
    trouble_seconds: float
    after_seconds: float
    is_well: Callable[[World, int, bool], bool]
    """Of the world, the replica's number and whether there is trouble: whether its call is served."""
    begin: Callable[[World], None] = lambda world: None
    """What else happens when the trouble begins."""


@dataclass(frozen=True)
class Result:
    """What came of it."""

    situation: Situation
    is_shared: bool
    counts: Counts
    failed: int
    """Calls since the trouble began."""
    opened: int
    """Replicas whose breaker has opened since."""
    last_open_seconds: float
    """After the trouble began, until the last of these was open."""
    writes_before: float
    """A second, while all was well."""
    writes_most: int
    """In the worst second."""
    reads_most: int


def run(
    situation: Situation, *, is_shared: bool, seed: int = 1, policy: BreakerPolicy | None = None
) -> Result:
    """Play it once."""
    world = World(policy or BreakerPolicy(), seed=seed, is_shared=is_shared)
    numbers: dict[Node, int] = {}
    for number in range(situation.replicas):
        numbers[world.add(f"r{number}")] = number
    world.set_replicas()
    begins, ends = BEFORE_SECONDS, BEFORE_SECONDS + situation.trouble_seconds
    world.is_well = lambda node, now: situation.is_well(world, numbers[node], begins <= now < ends)
    whole = ends + situation.after_seconds
    for node in numbers:
        node.traffic(situation.rate, whole)
    world.run(begins)
    counts = world.counts
    writes_before, failed_before = counts.writes / begins, counts.failed
    for node in numbers:
        node.opened_at = None
    situation.begin(world)
    writes_most = reads_most = 0
    while world.now < whole:
        writes, reads = counts.writes, counts.reads
        world.run(world.now + 1.0)
        writes_most = max(writes_most, counts.writes - writes)
        reads_most = max(reads_most, counts.reads - reads)
    opened = [node.opened_at for node in numbers if node.opened_at is not None]
    last = max(opened, default=-inf) - begins
    failed = counts.failed - failed_before
    return Result(
        situation, is_shared, counts, failed, len(opened), last, writes_before, writes_most, reads_most
    )


def _outage(world: World, number: int, is_trouble: bool) -> bool:
    return not is_trouble


def _half(world: World, number: int, is_trouble: bool) -> bool:
    return not is_trouble or number % 2 == 0


def _first(world: World, number: int, is_trouble: bool) -> bool:
    return not is_trouble or number > 0


def _one_in_ten(world: World, number: int, is_trouble: bool) -> bool:
    return world.rng.random() >= 0.1


def _unlink_half(world: World) -> None:
    for node in world.nodes[::2]:
        node.unlink()
        world.at(BEFORE_SECONDS + 20.0, node.link)


def _restart_one_in_ten(world: World) -> None:
    for place, node in enumerate(world.nodes[::10]):
        world.at(BEFORE_SECONDS + 1.0 + place * 0.2, node.die)


def _flush(world: World) -> None:
    world.at(BEFORE_SECONDS + 3.0, world.flush)


SITUATIONS = (
    Situation("outage of 30 s, 20 × 10 calls/s", 20, 10.0, 30.0, 25.0, _outage),
    Situation("outage, 50 × 1 call/s", 50, 1.0, 30.0, 25.0, _outage),
    Situation("outage, 50 × 0.2 calls/s", 50, 0.2, 30.0, 25.0, _outage),
    Situation("outage, a route that 5 of 50 use, 2 calls/s each", 5, 2.0, 30.0, 25.0, _outage),
    Situation("half cut off, 50 × 10 calls/s", 50, 10.0, 20.0, 15.0, _half),
    Situation("half cut off, 50 × 1 call/s", 50, 1.0, 20.0, 15.0, _half),
    Situation("one cut off, 50 × 5 calls/s", 50, 5.0, 20.0, 15.0, _first),
    Situation("one cut off, 50 × 0.2 calls/s", 50, 0.2, 30.0, 15.0, _first),
    Situation("10 % errors, 50 × 0.5 calls/s", 50, 0.5, 30.0, 0.0, _one_in_ten),
    Situation("10 % errors, 20 × 10 calls/s", 20, 10.0, 30.0, 0.0, _one_in_ten),
    Situation("outage, half without the store", 20, 5.0, 30.0, 25.0, _outage, _unlink_half),
    Situation("outage, every tenth replica dies", 50, 1.0, 30.0, 25.0, _outage, _restart_one_in_ten),
    Situation("outage, FLUSHALL in it", 20, 5.0, 30.0, 25.0, _outage, _flush),
)

SIZES = (10, 30, 100, 300, 1_000, 3_000, 10_000)


def of_size(replicas: int, rate: float = 0.2) -> Situation:
    """The same outage for a fleet of any size. `rate`: calls a second of each replica."""
    return Situation(f"{replicas} replicas", replicas, rate, 12.0, 12.0, _outage)
