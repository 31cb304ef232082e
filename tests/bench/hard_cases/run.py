"""One situation, one breaker, some seeds: what was seen."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any

from sidecar.core.snapshot import BreakerPolicy
from tests.bench.hard_cases.others import Envoy, Gobreaker, Resilience4j
from tests.bench.hard_cases.ours import Ours
from tests.bench.hard_cases.situations import Result, Situation
from tests.bench.hard_cases.world import Proxy, Subject, Upstream, World

BREAKERS: dict[str, Callable[[dict[str, Any], int], Subject]] = {
    "sidecar": Ours,
    "resilience4j": lambda policy, seed: Resilience4j(_wait(policy)),
    "Envoy": lambda policy, seed: Envoy(_wait(policy)),
    "gobreaker": lambda policy, seed: Gobreaker(_wait(policy)),
}


def _wait(policy: dict[str, Any]) -> float:
    return float(policy.get("open_seconds", BreakerPolicy().open_seconds))


def run(situation: Situation, breaker: str) -> list[Result]:
    """The results of all seeds. The other breakers run five at most: they are here to be compared with."""
    runs = situation.runs if breaker == "sidecar" else min(situation.runs, 5)
    return [run_once(situation, breaker, seed) for seed in range(1, runs + 1)]


def run_once(situation: Situation, breaker: str, seed: int) -> Result:
    world = World(seed)
    count = 0

    def make(upstream: Upstream, timeout: float = 15.0, connections: float = inf) -> Proxy:
        nonlocal count
        count += 1
        return Proxy(
            world, BREAKERS[breaker](situation.policy, seed * 100 + count), upstream, timeout, connections
        )

    proxy = situation.build(world, make)
    trouble = situation.trouble or (inf, inf)
    proxy.is_well = lambda now: not trouble[0] <= now < trouble[1]
    world.run(situation.until)
    return _result(proxy, situation)


def _result(proxy: Proxy, situation: Situation) -> Result:
    begins, ends = situation.trouble or (0.0, 0.0)
    states = proxy.states
    openings = [at for (_, before), (at, after) in pairwise(states) if before == "closed"]
    at, state = states[-1]
    closed_after = 0.0
    if openings:
        closed_after = max(0.0, at - ends) if state == "closed" else inf
    first = next((at for at in openings if at >= begins), inf)
    total = proxy.group("")
    return Result(
        opened_after=first - begins,
        closed_after=closed_after,
        openings=len(openings),
        lost=total.lost,
        wrongly_refused=total.refused_at_once,
        groups=proxy.counts,
    )
