"""What breakers hold in memory, measured: the bounds that `breaker/front.py` states."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.contract import IS_COMPILED
from sidecar.core.history import ARCHIVED, KEPT, Archive
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import BreakerPolicy, CandidatePolicy, WindowPolicy, WindowType
from sidecar.core.transition import Cause
from tests.core.breaker_calls import settle

MIB = 1024 * 1024
BUILD = 1.1 if IS_COMPILED else 1.0
"""A compiled object has no smaller numbers than 8 bytes, and shares none: up to a tenth more."""
BREAKERS = 40
FEW, MORE = 50, 150
"""Both fill what an archive keeps once, so from one to the other only what each breaker has is added."""
FLAPS = 3
"""Of three transitions each: more than are kept."""
THOUSAND = 1000
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
        settle(subject.admit(now), verdict, 0.1, now, cause(id(subject) + number))


@pytest.mark.parametrize(
    ("policy", "mebibytes"),
    [
        (BUSY, 13),
        (replace(BUSY, window=WindowPolicy(WindowType.COUNT, 100)), 12),
        (replace(BUSY, candidate=CandidatePolicy(slow_call_seconds=1.0)), 17),
    ],
    ids=["time", "count", "candidate"],
)
def test_busy_breaker_takes_a_thousandth_of_what_is_stated_at_most(
    policy: BreakerPolicy, mebibytes: int
) -> None:
    rng = random.Random(1)
    warm(
        Breaker("route", "upstream", policy, rng, 0.0)
    )  # what the first one of all leaves behind is nobody's
    with traced() as measured:
        breakers = [Breaker("route", "upstream", policy, rng, 0.0) for _ in range(BREAKERS)]
        for breaker in breakers:
            warm(breaker)
    print(f"{measured.bytes_held / BREAKERS:.0f} bytes a breaker")
    assert measured.bytes_held / BREAKERS <= BUILD * mebibytes * MIB / THOUSAND


def test_breaker_that_flapped_for_hours_stays_within_its_stated_bound() -> None:
    with traced() as measured:
        breaker = Breaker("r", "u", BreakerPolicy(consecutive_failures=32), random.Random(1), 0.0)
        for cycle in range(150):
            now = cycle * 1000.0
            for number in range(32):
                settle(breaker.admit(now), Verdict.FAILURE, 0.1, now, cause(cycle * 100 + number))
            settle(breaker.admit(now + 500), Verdict.SUCCESS, 0.1, now + 500, cause(cycle))
    print(f"{measured.bytes_held} bytes")
    assert measured.bytes_held <= BUILD * 220 * 1024


def flap(subject: Breaker, cycle: int, failures: int) -> None:
    """Trip it, let its wait pass, and let a probe close it again."""
    now = cycle * 1000.0
    for number in range(failures):
        settle(subject.admit(now), Verdict.FAILURE, 0.1, now, cause(id(subject) + cycle + number))
    settle(subject.admit(now + 500), Verdict.SUCCESS, 0.1, now + 500, cause(cycle))


def fail_again(subject: Breaker, cycle: int, failures: int) -> None:
    """After its last flap, as far as it stays closed: what fails is remembered, too."""
    now = cycle * 1000.0 + 600
    for number in range(failures - 1):
        settle(subject.admit(now), Verdict.FAILURE, 0.1, now, cause(id(subject) + number))


def bytes_of_flapping(number: int, failures: int) -> int:
    """What so many breakers hold that share an archive and have all flapped."""
    rng = random.Random(1)
    policy = BreakerPolicy(consecutive_failures=failures, minimum_calls=10**6)
    with traced() as measured:
        archive = Archive()
        breakers = [Breaker("route", "upstream", policy, rng, 0.0, archive) for _ in range(number)]
        for cycle in range(FLAPS):
            for breaker in breakers:
                flap(breaker, cycle, failures)
        for breaker in breakers:
            fail_again(breaker, FLAPS - 1, failures)
    return measured.bytes_held


@pytest.mark.parametrize("failures", [5, 32], ids=["five failures trip", "32 failures trip"])
def test_thousand_flapping_breakers_take_no_more_than_stated(failures: int) -> None:
    bytes_of_flapping(1, failures)  # what the first one of all leaves behind is nobody's
    few, more = (bytes_of_flapping(number, failures) for number in (FEW, MORE))
    thousand = few + (THOUSAND - FEW) * (more - few) / (MORE - FEW)
    print(f"{thousand / MIB:.1f} MiB")
    assert thousand <= BUILD * 17 * MIB


def test_archive_leaves_each_breaker_its_last_transitions_and_all_of_them_bounded() -> None:
    archive = Archive()
    rng = random.Random(1)
    policy = BreakerPolicy(consecutive_failures=1, candidate=None)
    quiet = Breaker("quiet", "u", policy, rng, 0.0, archive)
    flap(quiet, 0, 1)
    busy = [Breaker("busy", "u", policy, rng, 0.0, archive) for _ in range(100)]
    for cycle in range(40):
        for breaker in busy:
            flap(breaker, cycle, 1)
    assert [one.sequence for one in quiet.history] == [1, 2, 3]
    for breaker in busy:
        numbers = [one.sequence for one in breaker.history]
        assert numbers == list(range(121 - len(numbers), 121))
        assert len(numbers) >= KEPT
    assert sum(len(one.history) for one in busy) <= ARCHIVED + KEPT * len(busy)
