"""What breakers hold in memory, measured: the bounds that `breaker.py` states."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import BreakerPolicy, CandidatePolicy, WindowPolicy, WindowType
from sidecar.core.transition import Cause

MIB = 1024 * 1024
BREAKERS = 1_000
BUSY = BreakerPolicy(consecutive_failures=0, minimum_calls=10**6)


class Measured:
    bytes_held = 0


@contextmanager
def traced() -> Iterator[Measured]:
    measured = Measured()
    gc.collect()
    tracemalloc.start()
    try:
        yield measured
        gc.collect()
        measured.bytes_held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def cause(number: int) -> Cause:
    return Cause(b"%032x" % number, b"%016x" % number, b"%036x" % number)


def warm(subject: Breaker) -> None:
    """Fill the window, and the causes with ids that no other breaker shares."""
    for number in range(120):
        now = number / 12
        verdict = Verdict.FAILURE if number % 3 == 0 else Verdict.SUCCESS
        subject.settle(subject.admit(now), verdict, 0.1, now, cause(id(subject) + number))


@pytest.mark.parametrize(
    "policy",
    [
        BUSY,
        replace(BUSY, window=WindowPolicy(WindowType.COUNT, 100)),
        replace(BUSY, candidate=CandidatePolicy(slow_call_seconds=1.0)),
    ],
    ids=["time", "count", "candidate"],
)
def test_thousand_busy_breakers_take_at_most_ten_mebibytes(policy: BreakerPolicy) -> None:
    rng = random.Random(1)
    with traced() as measured:
        breakers = [Breaker("route", "upstream", policy, rng, 0.0) for _ in range(BREAKERS)]
        for breaker in breakers:
            warm(breaker)
    print(f"{measured.bytes_held / BREAKERS:.0f} bytes a breaker")
    assert measured.bytes_held <= 10 * MIB


def test_breaker_that_flapped_for_hours_stays_within_its_stated_bound() -> None:
    with traced() as measured:
        breaker = Breaker("r", "u", BreakerPolicy(consecutive_failures=32), random.Random(1), 0.0)
        for cycle in range(150):
            now = cycle * 1000.0
            for number in range(32):
                breaker.settle(breaker.admit(now), Verdict.FAILURE, 0.1, now, cause(cycle * 100 + number))
            breaker.settle(breaker.admit(now + 500), Verdict.SUCCESS, 0.1, now + 500, cause(cycle))
    print(f"{measured.bytes_held} bytes")
    assert measured.bytes_held <= 200 * 1024
