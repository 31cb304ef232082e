"""The sliding windows: exact against a list of everything that ever happened, and bounded."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.breaker.window import (
    BUCKETS,
    FAILED,
    PENDING,
    SILENT,
    SLOW,
    CountWindow,
    TimeWindow,
    new_window,
)
from sidecar.core.snapshot import MAX_COUNT_SIZE, WindowPolicy, WindowType

MARKS = st.sampled_from([0, 0, FAILED, SLOW, FAILED | SLOW, SLOW | PENDING, SILENT])


def numbers(window: TimeWindow | CountWindow) -> tuple[int, int, int]:
    return window.total, window.failed, window.slow


def everything(window: TimeWindow | CountWindow) -> tuple[int, ...]:
    return window.total, window.failed, window.slow, window.pending, window.silent


def counted(marks: list[int]) -> tuple[int, ...]:
    kinds = FAILED, SLOW, PENDING, SILENT
    return sum(not m & SILENT for m in marks), *(sum(bool(m & kind) for m in marks) for kind in kinds)


# What happens: a call with its mark, or (second) another mark for one of the calls so far, or neither.
CHANGES = st.tuples(st.integers(0, 30), MARKS)


@given(
    size=st.integers(1, 20),
    events=st.lists(MARKS | CHANGES, max_size=80),
    clear_at=st.none() | st.integers(0, 80),
)
def test_count_window_holds_exactly_the_last_calls(
    size: int, events: list[int | tuple[int, int]], clear_at: int | None
) -> None:
    window = CountWindow(size)
    seen: list[int] = []
    places: list[int] = []
    for number, event in enumerate(events):
        if number == clear_at:
            window.clear(0.0)
            seen.clear()
            places.clear()
        if isinstance(event, int):
            places.append(window.add(0.0, event))
            seen.append(event)
        elif event[0] < len(seen):
            chosen, mark = event
            is_in = window.change(places[chosen], seen[chosen], mark, 0.0)
            assert is_in == (chosen >= len(seen) - size)
            seen[chosen] = mark if is_in else seen[chosen]
        assert everything(window) == counted(seen[-size:])


STEPS = st.integers(0, 400) | st.sampled_from([1_000, 8_191, 8_192, 8_193, 40_000])


@given(
    size=st.sampled_from([0.25, 1.0, 8.0, 64.0]),
    start=st.integers(0, 10**8),
    events=st.lists(st.tuples(STEPS, st.none() | MARKS | CHANGES), max_size=60),
)
def test_time_window_holds_exactly_what_its_buckets_cover(
    size: float, start: int, events: list[tuple[int, int | tuple[int, int] | None]]
) -> None:
    # Powers of two all over, so that neither side rounds and each border is hit exactly.
    width = size / BUCKETS
    origin = start / 1024
    window = TimeWindow(size, origin)
    seen: list[tuple[int, int]] = []
    places: list[int] = []
    elapsed = 0
    for step, event in events:
        elapsed += step
        now = origin + elapsed / 1024
        bucket = int((elapsed / 1024) / width)
        if isinstance(event, int):
            places.append(window.add(now, event))
            seen.append((bucket, event))
        elif event is not None and event[0] < len(seen):
            chosen, mark = event
            at, old = seen[chosen]
            is_in = window.change(places[chosen], old, mark, now)
            assert is_in == (at > bucket - BUCKETS)
            seen[chosen] = (at, mark if is_in else old)
        else:
            window.expire(now)
        assert everything(window) == counted([m for b, m in seen if b > bucket - BUCKETS])


@given(size=st.floats(0.001, 1e5), start=st.floats(0, 1e7), steps=st.lists(st.floats(0, 3e4), max_size=50))
def test_time_window_never_loses_or_keeps_a_call_against_its_promise(
    size: float, start: float, steps: list[float]
) -> None:
    window = TimeWindow(size, start)
    seen: list[float] = []
    now = start
    for step in steps:
        now += step * size / 1e4
        window.add(now, FAILED)
        seen.append(now)
        slack = 1e-6 * size + 4e-9 * (1 + start / 1e7)
        at_least = sum(now - at < size * (1 - 1 / BUCKETS) - slack for at in seen)
        at_most = sum(now - at <= size + slack for at in seen)
        assert at_least <= window.total <= at_most
        assert window.failed == window.total


def test_call_is_in_the_window_until_its_size_is_over() -> None:
    window = TimeWindow(10.0, 100.0)
    window.add(100.0, FAILED)
    window.expire(109.999)
    assert numbers(window) == (1, 1, 0)
    window.expire(110.0)
    assert numbers(window) == (0, 0, 0)


def test_call_leaves_at_most_one_bucket_early() -> None:
    window = TimeWindow(64.0, 0.0)
    window.add(0.999, SLOW)
    window.expire(63.999)
    assert numbers(window) == (1, 0, 1)
    window.expire(64.0)
    assert numbers(window) == (0, 0, 0)


def test_long_silence_empties_a_time_window_at_the_cost_of_one_turn() -> None:
    window = TimeWindow(1.0, 0.0)
    for call in range(200):
        window.add(call / 100, FAILED)
    window.add(1e9, 0)
    assert numbers(window) == (1, 0, 0)


def test_clock_that_stands_or_steps_back_counts_in_the_current_bucket() -> None:
    window = TimeWindow(10.0, 100.0)
    window.add(105.0, 0)
    window.add(105.0, FAILED)
    window.add(104.0, FAILED)
    assert numbers(window) == (3, 2, 0)


@pytest.mark.parametrize("size", [0, MAX_COUNT_SIZE + 1])
def test_count_window_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size} calls: it must be 1 to 10000"):
        new_window(WindowPolicy(WindowType.COUNT, size), 0.0)


def test_time_window_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="must be above zero"):
        new_window(WindowPolicy(WindowType.TIME, 0.0), 0.0)


def test_windows_take_the_memory_they_state() -> None:
    small, large = CountWindow(100), CountWindow(MAX_COUNT_SIZE)
    assert sys.getsizeof(small._ring) <= 100 + 64
    assert sys.getsizeof(large._ring) <= MAX_COUNT_SIZE + 64
    time = TimeWindow(10.0, 0.0)
    assert len(time._rings) * time._rings.itemsize == 1280
