"""One round of `tests/bench/fleet_trouble`: real pods with several workers, a real Redis, and trouble."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.bench.fleet_trouble import troubles
from tests.bench.fleet_trouble.rounds import play
from tests.bench.fleet_trouble.world import MOST_PROBES, world
from tests.support.redis_server import needs_redis

pytestmark = [pytest.mark.process, needs_redis]


async def test_after_deaths_a_hung_redis_and_a_reload_all_are_one_with_one_probe(tmp_path: Path) -> None:
    """Permits last longer than the test: one of a process that gets no turn on the machine is not free meanwhile."""
    befall = (troubles.worker_dies, troubles.control_dies, troubles.redis_hangs, troubles.reload)
    short = {"within_seconds": 0.0, "most_seconds": 0.2}
    async with world(tmp_path, pods=2, max_wait_seconds=300) as one:
        found = await play(one, random.Random(1), befall, **short, is_prober_killed=False)
        while not found.is_linked:
            found = await play(
                one, random.Random(2), (troubles.redis_forgets,), **short, is_prober_killed=False
            )
        assert found.most_probes == MOST_PROBES
        assert not one.strange_answers()
        assert not await one.cuts_without_reason()
