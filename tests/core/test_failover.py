"""How much of its load an upstream keeps: at the boundaries, and whatever becomes of its endpoints."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.failover import RAMP_SECONDS, Failover, FailoverPhase, Supply, taker
from sidecar.core.snapshot import BackAfter, FailoverPolicy

POLICY = FailoverPolicy(("dr",))
SECONDS = POLICY.back.seconds


def away(usable: int = 0, count: int = 10) -> Failover:
    subject = Failover(POLICY, 0.0)
    assert subject.look(Supply(usable, count), 0.0)
    return subject


@pytest.mark.parametrize(("usable", "kept"), [(10, 1.0), (8, 1.0), (5, 1.0), (4, 0.56), (1, 0.14), (0, 0.0)])
def test_it_keeps_all_until_half_is_left_and_then_1_4_times_what_is_usable(usable: int, kept: float) -> None:
    subject = Failover(POLICY, 0.0)
    subject.look(Supply(usable, 10), 0.0)
    assert subject.kept == pytest.approx(kept)
    assert (subject.phase is FailoverPhase.AWAY) is (kept < 1.0)


def test_an_upstream_without_addresses_keeps_nothing() -> None:
    assert away(0, 0).kept == 0.0


def test_the_load_goes_over_further_at_once_as_more_endpoints_go() -> None:
    subject = away(4)
    assert not subject.look(Supply(2, 10), 0.01)
    assert subject.kept == pytest.approx(0.28)


def test_it_comes_back_after_30_s_and_over_30_s() -> None:
    subject = away()
    subject.look(Supply(10, 10), 1.0)
    subject.look(Supply(10, 10), 1.0 + SECONDS)
    assert subject.kept == 0.0
    subject.look(Supply(10, 10), 1.0 + SECONDS + RAMP_SECONDS / 3)
    assert subject.kept == pytest.approx(1 / 3)
    assert not subject.look(Supply(10, 10), 1.0 + SECONDS + RAMP_SECONDS - 0.001)
    assert subject.look(Supply(10, 10), 1.0 + SECONDS + RAMP_SECONDS)
    assert (subject.phase, subject.kept) == (FailoverPhase.HOME, 1.0)


def test_seventy_percent_are_enough_to_have_all_back() -> None:
    subject = away()
    for second in range(1, 62):
        subject.look(Supply(7, 10), float(second))
    assert subject.phase is FailoverPhase.HOME


def test_less_than_that_brings_back_what_it_bears_and_no_more() -> None:
    subject = away()
    for second in range(1, 1000):
        subject.look(Supply(6, 10), float(second))
    assert (subject.phase, subject.kept) == (FailoverPhase.AWAY, pytest.approx(0.84))


def test_one_look_after_a_long_time_is_as_good_as_many() -> None:
    one, many = away(), away()
    one.look(Supply(10, 10), 1.0)
    one.look(Supply(10, 10), 46.0)
    for second in range(1, 47):
        many.look(Supply(10, 10), float(second))
    assert one.kept == pytest.approx(many.kept)
    assert one.kept == pytest.approx(0.5)


def test_what_comes_and_goes_each_5_s_stays_away() -> None:
    subject = away()
    changes = sum(
        subject.look(Supply(10 if step // 10 % 2 else 0, 10), step / 2.0) for step in range(1, 2000)
    )
    assert (changes, subject.kept) == (0, 0.0)


def test_a_fall_in_the_midst_of_the_return_begins_it_anew() -> None:
    subject = away()
    for second in range(1, 50):
        subject.look(Supply(10, 10), float(second))
    assert 0.5 < subject.kept < 0.7
    subject.look(Supply(1, 10), 50.0)
    assert subject.kept == pytest.approx(0.14)
    subject.look(Supply(10, 10), 51.0)
    subject.look(Supply(10, 10), 51.0 + SECONDS)
    assert subject.kept == pytest.approx(0.14)


supplies = st.tuples(st.integers(0, 10), st.floats(0.0, 45.0))
policies = st.builds(
    lambda below, more, seconds: FailoverPolicy(("dr",), below, BackAfter(min(below + more, 1.0), seconds)),
    st.floats(0.05, 1.0), st.floats(0.0, 0.5), st.sampled_from([0.0, 1.0, 30.0, 120.0]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(policies, st.lists(supplies, max_size=60))
def test_it_never_flaps_and_never_locks_anybody_out(
    policy: FailoverPolicy, story: list[tuple[int, float]]
) -> None:
    subject, now = Failover(policy, 0.0), 0.0
    left_at, kept = 0.0, 1.0
    for usable, seconds in story:
        now += seconds
        was_home, supply = subject.phase is FailoverPhase.HOME, Supply(usable, 10)
        has_changed = subject.look(supply, now)
        is_home = subject.phase is FailoverPhase.HOME
        assert has_changed == (was_home != is_home)
        # It rises no faster than the ramp, whatever comes.
        assert subject.kept <= kept + seconds / RAMP_SECONDS + 1e-9
        if was_home and not is_home:
            assert supply.ratio < policy.below
            left_at = now
        if is_home and not was_home:
            assert now - left_at >= policy.back.seconds
        if not is_home and not usable:
            assert subject.kept == 0.0
        kept = subject.kept
    end = now + 2 * policy.back.seconds + 2 * RAMP_SECONDS + 1.0
    while now < end:
        now += 0.5
        subject.look(Supply(10, 10), now)
    assert (subject.phase, subject.kept) == (FailoverPhase.HOME, 1.0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), min_size=1, max_size=4), st.integers(0, 10)
)
def test_nobody_with_fewer_usable_endpoints_takes_over(others: list[tuple[int, int]], own: int) -> None:
    rng = random.Random(1)
    named = [(number, Supply(min(usable, count), count)) for number, (usable, count) in enumerate(others)]
    able = {number for number, supply in named if supply.usable and supply.usable >= own}
    for _ in range(20):
        chosen = taker(named, Supply(own, 10), rng)
        assert chosen is None or chosen in able
        if able and (not own or any(supply.share >= 1.0 for number, supply in named if number in able)):
            assert chosen is not None


def test_each_takes_what_it_bears_and_leaves_the_rest_to_the_next() -> None:
    rng = random.Random(7)
    others = [("a", Supply(5, 10)), ("b", Supply(10, 10))]
    counts = Counter(taker(others, Supply(0, 10), rng) for _ in range(10_000))
    assert 6_700 < counts["a"] < 7_300
    assert counts["a"] + counts["b"] == 10_000
    assert set(counts) == {"a", "b"}


def test_what_the_last_one_does_not_bear_stays_with_an_upstream_that_can_serve_it() -> None:
    rng = random.Random(7)
    counts = Counter(taker([("a", Supply(5, 10))], Supply(3, 10), rng) for _ in range(10_000))
    assert 6_700 < counts["a"] < 7_300
    assert counts[None] + counts["a"] == 10_000
    assert taker([("a", Supply(1, 10))], Supply(0, 10), rng) == "a"
