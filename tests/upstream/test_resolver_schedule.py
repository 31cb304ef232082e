"""How long the resolver means to wait: on virtual time, in which nothing comes between a look-up and its plan."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from sidecar.upstream.lookup import Answer, LookupFailed
from sidecar.upstream.resolver import NameView, Resolver, ResolverTimes
from tests.upstream.resolver_stage import PAYMENTS, QUICK, Changes, answer, running

TINY = 1e-6
"""What a float may lose of a sum with the uptime of the machine."""


async def planned_waits(script: list[bool], times: ResolverTimes) -> tuple[list[float], NameView]:
    """Let look-ups succeed or fail as `script` says; return how long the resolver meant to wait after each."""
    waits: list[float] = []
    done = asyncio.Event()
    asked_at = 0.0

    async def lookup(name: str) -> Answer:
        nonlocal asked_at
        if asked_at:
            waits.append(resolver.view()[0].next_lookup_at - asked_at)
        if len(waits) == len(script):
            done.set()
            await asyncio.get_running_loop().create_future()
        asked_at = asyncio.get_running_loop().time()
        if not script[len(waits)]:
            raise LookupFailed("timeout")
        return answer("10.0.0.1")

    resolver = Resolver(Changes(), lookup=lookup, times=times, rng=random.Random(1))
    resolver.watch(PAYMENTS)
    async with running(resolver):
        await done.wait()
        (view,) = resolver.view()
    return waits, view


async def test_failures_back_off_with_jitter_and_a_ceiling() -> None:
    times = replace(QUICK, first_retry=0.02, max_first_retry=0.1)
    waits, view = await planned_waits([False] * 6, times)
    for wait, longest in zip(waits, (0.02, 0.04, 0.08, 0.1, 0.1, 0.1), strict=True):
        assert longest / 2 - TINY <= wait <= longest + TINY
    assert len({round(wait, 3) for wait in waits[3:]}) > 1
    assert (view.failures, view.consecutive_failures, view.last_error) == (6, 6, "timeout")


async def test_back_off_starts_anew_after_a_good_answer() -> None:
    times = replace(QUICK, min_ttl=0.05, retry=0.02, max_retry=10.0)
    waits, view = await planned_waits([True, False, False, False, True, False, True], times)
    for wait, longest in zip(waits, (0.05, 0.02, 0.04, 0.08, 0.05, 0.02, 0.05), strict=True):
        assert longest / 2 - TINY <= wait <= longest + TINY
    assert (view.failures, view.consecutive_failures, view.last_error) == (4, 0, None)
