"""The times in which the loop was held, and how much of a span they cover."""

from __future__ import annotations

import pytest

from sidecar.core.held import KEPT, SHARE, HeldTimes


def test_nothing_was_held_at_first() -> None:
    held = HeldTimes()
    assert held.seconds(0.0, 100.0) == 0.0
    assert not held.blinds(0.8, 100.0)


def test_only_what_lies_within_the_span_is_counted() -> None:
    held = HeldTimes()
    held.note(1.0, 1.3)
    held.note(2.0, 2.5)
    assert held.seconds(0.0, 10.0) == pytest.approx(0.8)
    assert held.seconds(1.2, 2.1) == pytest.approx(0.1 + 0.1)
    assert held.seconds(2.5, 10.0) == 0.0


@pytest.mark.parametrize(
    ("begin", "blinds"), [(10.0 - 0.8 * SHARE - 0.001, True), (10.0 - 0.8 * SHARE + 0.001, False)]
)
def test_more_than_a_quarter_makes_blind(begin: float, blinds: bool) -> None:
    held = HeldTimes()
    held.note(begin, 10.0)
    assert held.blinds(0.8, 10.0) is blinds


def test_what_was_long_ago_makes_nobody_blind() -> None:
    held = HeldTimes()
    held.note(1.0, 2.0)
    assert held.blinds(0.8, 2.5)
    assert not held.blinds(0.8, 2.85)


def test_turns_that_follow_each_other_are_one_time() -> None:
    held = HeldTimes()
    for number in range(10 * KEPT):
        held.note(number * 0.03, (number + 1) * 0.03)
    assert held.seconds(0.0, 100.0) == pytest.approx(10 * KEPT * 0.03)


def test_only_the_last_ones_are_kept() -> None:
    held = HeldTimes()
    for number in range(3 * KEPT):
        held.note(number * 1.0, number + 0.1)
    assert held.seconds(0.0, 1e6) == pytest.approx(KEPT * 0.1)
