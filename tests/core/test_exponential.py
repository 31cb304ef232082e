"""Exponential buckets: where values fall, and that no way of putting them together loses or moves one."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import totals
from sidecar.core.exponential import (
    EMPTY,
    MAX_BUCKETS,
    SCALE,
    ZERO_THRESHOLD,
    ExponentialBuckets,
    added,
    at_scale,
    grown,
    merged,
)
from sidecar.core.numbers import Histogram, Numbers
from tests.telemetry.fakes import FakeAttempt, FakeExchange, count_ended

LONGEST = 2.0**26 / 2 ** (1 / 8)
"""Nearly two years; what is longer shares the bucket above."""
SECONDS = st.floats(min_value=ZERO_THRESHOLD, max_value=LONGEST, exclude_min=True)
DURATIONS = st.lists(
    st.one_of(SECONDS, st.floats(min_value=0.001, max_value=1.0), st.floats(0.0, ZERO_THRESHOLD)),
    max_size=300,
)
ALL_OVER = [1.5e-6 * 1.0905**step for step in range(340)]
"""One for nearly each bucket that there is."""


def recorded(values: list[float], at_once: int = 128) -> ExponentialBuckets:
    """As a row does it: some at a time."""
    buckets = EMPTY
    for start in range(0, len(values), at_once):
        buckets = added(buckets, sorted(values[start : start + at_once]))
    return buckets


def is_in(value: float, index: int, scale: int) -> bool:
    """Whether `base ** (index - 1) < value <= base ** index`, without rounding: all to the power of 2 ** scale."""
    power = Fraction(value) ** (2**scale)
    return Fraction(2) ** (index - 1) < power <= Fraction(2) ** index


def is_near_a_bound(value: float, scale: int) -> bool:
    """Within what a float can say of an irrational bound."""
    sides = {index_of(one, scale) for one in (nextafter(value, 0.0), value, nextafter(value, inf))}
    return len(sides) > 1


def index_of(value: float, scale: int) -> int:
    """By exact arithmetic."""
    power = Fraction(value) ** (2**scale)
    index = power.numerator.bit_length() - power.denominator.bit_length()
    while not power <= Fraction(2) ** index:
        index += 1
    while power <= Fraction(2) ** (index - 1):
        index -= 1
    return index


@given(SECONDS)
def test_a_value_is_in_the_bucket_whose_bounds_it_is_between(value: float) -> None:
    ((index, count),) = added(EMPTY, [value]).counts.items()
    assert count == 1
    assert is_in(value, index, SCALE) or is_near_a_bound(value, SCALE)


@pytest.mark.parametrize(
    ("value", "index"),
    [(1.0, 0), (nextafter(1.0, 2.0), 1), (2.0, 8), (0.5, -8), (nextafter(0.5, 1.0), -7), (1.5, 5)],
)
def test_upper_bounds_are_inclusive(value: float, index: int) -> None:
    assert added(EMPTY, [value]) == ExponentialBuckets(SCALE, 0, {index: 1})


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, -inf, 5e-324, ZERO_THRESHOLD])
def test_what_is_not_over_a_microsecond_is_zero(value: float) -> None:
    assert added(EMPTY, [value]) == ExponentialBuckets(SCALE, 1, {})


@pytest.mark.parametrize("value", [2.0**26, 1e300, inf])
def test_what_took_longer_than_anything_counts_as_the_longest(value: float) -> None:
    buckets = added(EMPTY, [1.0, value])
    assert buckets == ExponentialBuckets(SCALE, 0, {0: 1, 26 * 8: 1})


def test_what_is_no_number_holds_nothing_up() -> None:
    """No clock tells one; a loop that never ended would be the worst of answers."""
    for values in ([float("nan")], [0.5, float("nan"), 1.0], [float("nan"), 1.0]):
        assert added(EMPTY, values).total == len(values)


@given(DURATIONS)
def test_everything_is_counted_once(values: list[float]) -> None:
    buckets = recorded(values)
    assert buckets.total == len(values)
    assert buckets.zeros == sum(value <= ZERO_THRESHOLD for value in values)
    assert 0 not in buckets.counts.values()


@given(DURATIONS, st.integers(1, 128))
def test_how_many_are_recorded_at_a_time_changes_nothing(values: list[float], at_once: int) -> None:
    assert recorded(values, at_once) == recorded(values, 300)


@given(DURATIONS, DURATIONS, st.booleans())
def test_merged_parts_are_what_one_would_have_recorded(
    one: list[float], other: list[float], is_spread: bool
) -> None:
    if is_spread:  # what is recorded later comes to a coarser scale
        one = ALL_OVER + one
    assert merged(recorded(one), recorded(other)) == recorded(one + other)
    assert merged(recorded(other), recorded(one)) == recorded(one + other)
    assert merged(recorded(one), EMPTY) == recorded(one)


@given(DURATIONS, DURATIONS, st.booleans())
def test_what_has_come_since_is_the_difference(
    before: list[float], since: list[float], is_spread: bool
) -> None:
    earlier = recorded(before)
    since = since + (ALL_OVER if is_spread else [])
    now = merged(earlier, recorded(since))
    more = grown(earlier, now)
    assert more is not None
    assert more == at_scale(recorded(since), now.scale)
    assert more.total == len(since)


@given(DURATIONS, DURATIONS, st.booleans())
def test_nothing_has_come_since_what_was_no_earlier_state(
    one: list[float], other: list[float], is_spread: bool
) -> None:
    """What is told as growth adds up to the later one, whatever stands before it."""
    before, now = recorded(one), recorded(other + (ALL_OVER if is_spread else []))
    more = grown(before, now)
    if more is not None:
        assert min(more.zeros, *more.counts.values(), 0) == 0
        assert merged(before, more) == now


@given(DURATIONS, DURATIONS, st.integers(-4, SCALE), st.integers(-4, SCALE))
def test_different_scales_meet_at_the_coarser_one(
    one: list[float], other: list[float], own_scale: int, other_scale: int
) -> None:
    coarse = min(own_scale, other_scale)
    both = merged(at_scale(recorded(one), own_scale), at_scale(recorded(other), other_scale))
    assert both == at_scale(recorded(one + other), coarse)


@given(SECONDS, st.integers(-4, SCALE))
def test_a_value_stays_between_its_bounds_at_every_scale(value: float, scale: int) -> None:
    ((index, _),) = at_scale(added(EMPTY, [value]), scale).counts.items()
    base = 2.0 ** (2.0**-scale)
    assert base ** (index - 1) * (1 - 1e-12) < value <= base**index * (1 + 1e-12)


@given(DURATIONS, st.integers(0, 7))
def test_a_coarser_scale_keeps_all_counts(values: list[float], steps: int) -> None:
    buckets = recorded(values)
    coarser = at_scale(buckets, buckets.scale - steps)
    assert (coarser.total, coarser.zeros) == (buckets.total, buckets.zeros)
    assert len(coarser.counts) <= len(buckets.counts)


def test_too_many_buckets_go_to_the_scale_below_and_values_follow_them() -> None:
    fine = recorded(ALL_OVER[:MAX_BUCKETS])
    assert (fine.scale, len(fine.counts)) == (SCALE, MAX_BUCKETS)
    whole = recorded(ALL_OVER)
    assert whole.scale < SCALE
    assert len(whole.counts) <= MAX_BUCKETS
    assert whole.total == len(ALL_OVER)
    ((index, _),) = added(whole, [1.0]).counts.items() - whole.counts.items()
    assert index == 0


@given(DURATIONS, DURATIONS)
def test_there_are_never_more_buckets_than_that(one: list[float], other: list[float]) -> None:
    for extra in ([], ALL_OVER):
        both = merged(recorded(one + extra), recorded(other))
        assert len(both.counts) <= MAX_BUCKETS
        assert both.scale >= 1, "two scales below the first there are not so many"


def test_a_row_that_is_changed_leaves_what_a_reader_has_as_it_was() -> None:
    row = Histogram((0.01, 1.0), is_exponential=True)
    row.add([0.5])
    before = row.state
    row.add([0.5, 0.02])
    assert before[2] == ExponentialBuckets(SCALE, 0, {-8: 1})
    assert row.state[2] is not None
    assert row.state[2].total == sum(row.counts) == 3


def test_both_durations_are_kept_in_them_and_nothing_else_is() -> None:
    numbers = Numbers(is_exponential=True)
    count_ended(numbers, FakeExchange(attempts=(FakeAttempt(), FakeAttempt(resend=1))))
    (route,) = numbers.routes()
    route.fold()
    rows = [*route.server.values(), *route.client.values()]
    assert [row.state[2].total for row in rows if row.state[2] is not None] == [1, 2]
    assert {row.state[2] for row in route.budgets.values()} == {None}


def test_without_the_option_nothing_of_them_is_there() -> None:
    numbers = Numbers()
    count_ended(numbers, FakeExchange())
    (route,) = numbers.routes()
    route.fold()
    assert {row.state[2] for row in route.server.values()} == {None}


def test_workers_of_different_scales_add_up() -> None:
    fine, coarse = Numbers(is_exponential=True), Numbers(is_exponential=True)
    for seconds in ALL_OVER:
        count_ended(coarse, FakeExchange(started=0.0, ended=seconds, attempts=()))
    for _ in range(3):
        count_ended(fine, FakeExchange(started=0.0, ended=0.5, attempts=()))
    parts = [totals.states_of(one) for one in (fine, coarse)]
    whole = totals.summed(parts, fine)
    (row,) = whole.routes()[0].server.values()
    counts, _, buckets = row.state
    assert buckets is not None
    assert buckets.scale < SCALE
    assert buckets.total == sum(counts) == len(ALL_OVER) + 3
    twice = totals.summed([totals.states_of(whole)], fine)
    assert [one.state for one in twice.routes()[0].server.values()] == [row.state]


def test_a_sum_with_a_part_that_kept_none_has_none() -> None:
    """Their count would not be that of the row."""
    with_them, without = Numbers(is_exponential=True), Numbers()
    for one in (with_them, without):
        count_ended(one, FakeExchange())
    whole = totals.summed([totals.states_of(with_them), totals.states_of(without)], with_them)
    (row,) = whole.routes()[0].server.values()
    assert row.state[2] is None
    assert sum(row.counts) == 2
