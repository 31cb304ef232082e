"""When a second try is begun, how many there are in any window, and what a cut one says of the times."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.breaker.durations import KEPT, Durations
from sidecar.core.hedge import LEAST_SECONDS, MOST_KEPT, P95_SHARE, Hedging
from sidecar.core.snapshot import HedgePolicy


def durations(*seconds: float) -> Durations:
    found = Durations()
    for one in seconds:
        found.add(one)
    return found


def test_a_duration_is_what_it_says_and_bounds_nothing() -> None:
    hedging = Hedging(HedgePolicy(after=0.05), Durations())
    assert (hedging.after, hedging.fresh_until) == (0.05, inf)
    assert all(hedging.take(0) for _ in range(100))


def test_the_p95_is_unknown_before_twenty_answers_and_looked_up_ten_times_a_second() -> None:
    known = durations(*[0.1] * 19)
    hedging = Hedging(HedgePolicy(), known)
    assert hedging.fresh_until < 0.0
    assert hedging.look(0.0) == inf
    known.add(0.3)
    assert (hedging.after, hedging.fresh_until) == (inf, 0.1)
    assert hedging.look(0.1) == pytest.approx(0.3)
    for _ in range(KEPT):
        known.add(0.0001)
    assert hedging.after == pytest.approx(0.3)
    assert hedging.look(0.2) == LEAST_SECONDS


@given(st.lists(st.sampled_from(["put", "put", "put", "take", "give"]), max_size=400))
def test_in_no_window_there_are_more_than_its_share_and_what_is_kept(calls: list[str]) -> None:
    hedging = Hedging(HedgePolicy(), Durations())
    taken: list[int] = []
    """By call: 1 for a token taken, -1 for one given back; with the requests before it."""
    puts: list[int] = []
    held = 0
    for call in calls:
        puts.append(call == "put")
        taken.append(0)
        if call == "take" and hedging.take(sum(puts)):
            taken[-1], held = 1, held + 1
        elif call == "give" and held:
            hedging.give_back()
            taken[-1], held = -1, held - 1
    for begin in range(0, len(calls), 7):
        for end in range(begin, len(calls) + 1, 7):
            assert sum(taken[begin:end]) <= P95_SHARE * sum(puts[begin:end]) + MOST_KEPT + 1e-9


def test_over_a_long_time_under_six_of_a_hundred() -> None:
    hedging = Hedging(HedgePolicy(), Durations())
    sent = 0
    for number in range(100_000):
        sent += hedging.take(number + 1)
    assert sent < 6_000


def test_what_was_cut_counts_as_at_least_so_long() -> None:
    known = durations(*[0.01] * 90, *[0.1] * 10)
    known.add_at_least(0.05)  # it may have taken any time from there on
    assert len(known) == 100
    known.add_at_least(0.2)
    assert len(known) == 101


def test_hedges_do_not_draw_their_own_p95_down() -> None:
    """One of ten takes ten times as long, and is always cut at the p95 of then."""
    known = durations(*[0.01] * 90, *[0.1] * 10)
    for number in range(5_000):
        p95 = known.p95()
        assert p95 is not None
        if number % 10:
            known.add(0.01)
        else:
            known.add_at_least(p95)
            known.add(0.01)  # the hedge's own
    assert known.p95() == pytest.approx(0.1)


def test_the_quick_ones_that_lose_say_nothing() -> None:
    known = durations(*[0.1] * 100)
    for _ in range(1000):
        known.add_at_least(0.001)
    assert known.p95() == pytest.approx(0.1)
