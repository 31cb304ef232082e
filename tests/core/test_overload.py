"""When a loop cannot keep up, and what it does then: a standing queue and not a spike, in steps, with an end."""

from __future__ import annotations

import pytest

from sidecar.core.overload import (
    CALM_FOR_SECONDS,
    CALM_SECONDS,
    LATE_SECONDS,
    LEAST,
    REFUSING_SHARE,
    SAVED_SECONDS,
    Change,
    LeastTurn,
    Overload,
    Refusals,
)


def windows(*turns: float) -> list[float]:
    """What these turns, one behind the other, come to."""
    least, now, found = LeastTurn(), 100.0, []
    for seconds in turns:
        now += seconds
        value = least.add(seconds, now)
        if value is not None:
            found.append(value)
    return found


def test_each_window_of_100_ms_tells_its_shortest_turn() -> None:
    assert windows(*[0.03] * 4, *[0.03, 0.002, 0.03, 0.03, 0.03]) == [0.03, 0.002]


def test_one_long_turn_is_no_window() -> None:
    assert windows(0.3) == []
    assert windows(0.3, 0.001) == []
    assert windows(0.3, 0.001, 0.001) == [0.001]


def test_three_long_turns_are_a_standing_queue() -> None:
    assert windows(0.3, 0.2, 0.25) == [0.2]


def test_a_window_begins_anew_when_nobody_measured_for_long() -> None:
    least = LeastTurn()
    assert least.add(0.001, 1.0) is None
    assert [least.add(0.03, 50.0 + number * 0.03) for number in range(4)].count(None) >= 2


def begun() -> Overload:
    state = Overload()
    assert state.begin(100.0) is Change.BEGAN
    assert state.begin(100.0) is None
    return state


def test_admission_falls_and_rises_by_tenths_and_never_to_nothing() -> None:
    state, now, seen = begun(), 100.0, []
    for _ in range(12):
        now += 0.1
        state.window(LATE_SECONDS + 0.001, now, is_anybody_waiting=True)
        seen.append(state.admission)
    assert seen == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, LEAST, LEAST, LEAST, LEAST]
    state.window(CALM_SECONDS, now, is_anybody_waiting=True)
    assert state.admission == LEAST  # between the two nothing changes
    state.window(CALM_SECONDS - 0.001, now, is_anybody_waiting=True)
    assert state.admission == 0.2


@pytest.mark.parametrize(("least", "is_waiting"), [(CALM_SECONDS, False), (0.001, True)])
def test_it_lasts_while_turns_are_long_or_anybody_waits(least: float, is_waiting: bool) -> None:
    state = begun()
    for number in range(100):
        assert state.window(least, 100.0 + number * 0.1, is_anybody_waiting=is_waiting) is None
    assert state.is_on


def test_it_ends_when_it_was_calm_for_half_a_second_on_end() -> None:
    state = begun()
    assert state.window(0.001, 100.1, is_anybody_waiting=False) is None
    assert state.window(0.015, 100.2, is_anybody_waiting=False) is None  # begins anew
    assert state.window(0.001, 100.3, is_anybody_waiting=False) is None
    assert state.window(0.001, 100.3 + CALM_FOR_SECONDS - 0.01, is_anybody_waiting=False) is None
    assert state.window(0.001, 100.3 + CALM_FOR_SECONDS, is_anybody_waiting=False) is Change.ENDED
    assert not state.is_on
    assert state.window(1.0, 200.0, is_anybody_waiting=True) is None  # while it is off nothing happens


def test_refusals_take_a_tenth_of_the_time_and_no_more() -> None:
    refusals = Refusals(100.0)
    refusals.costs(seconds_of_a_forward=100e-6)  # 50 µs each
    granted = sum(refusals.take(1_000, 100.0 + number / 1000) for number in range(1, 1001))
    assert granted == pytest.approx(REFUSING_SHARE / 50e-6, rel=0.01)
    assert refusals.count == granted


def test_unused_time_for_refusals_is_not_saved_up_for_long() -> None:
    refusals = Refusals(100.0)
    refusals.costs(seconds_of_a_forward=100e-6)
    assert refusals.take(10_000, 1_000.0) == int(SAVED_SECONDS / 50e-6)
    assert refusals.take(10_000, 1_000.0) == 0
