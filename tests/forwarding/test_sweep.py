"""The sweep expires everything once, when it is due, whatever its neighbours do; and it runs only while it has to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from sidecar.forwarding.sweep import MOST_EMPTY, OWN_TIMER_SECONDS, TICKS_PER_SECOND, Expiring, Sweep
from tests.support.by_hand import HandLoop


class Item:
    def __init__(self, due: float, then: Callable[[], None] = lambda: None) -> None:
        self.due = due
        self.bucket: set[Expiring] | None = None
        self.expired: list[float] = []
        self.abandoned = 0
        self._then = then

    def expire(self, now: float) -> None:
        self.expired.append(now)
        self._then()

    def abandon(self) -> None:
        self.abandoned += 1


def new_sweep() -> tuple[Sweep, HandLoop]:
    loop = HandLoop()
    return Sweep(cast(asyncio.AbstractEventLoop, loop), loop.time), loop


def add(sweep: Sweep, loop: HandLoop, seconds: float, then: Callable[[], None] = lambda: None) -> Item:
    item = Item(loop.now + seconds, then)
    sweep.add(item, loop.now)
    return item


@pytest.mark.parametrize(
    "seconds", [0.0, 0.001, OWN_TIMER_SECONDS - 0.001, OWN_TIMER_SECONDS, 0.125, 0.1251, 15.0, 15.0149]
)
@pytest.mark.parametrize("after", [0.0, 0.0137])
def test_an_item_expires_once_and_when_it_is_due(seconds: float, after: float) -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)  # the sweep is running already
    loop.advance(after)
    item = add(sweep, loop, seconds)
    loop.advance(30.0)
    assert item.expired == [pytest.approx(item.due, abs=1e-6)]
    assert item.expired[0] >= item.due
    assert item.bucket is None


def test_an_item_whose_time_is_up_already_expires_in_the_next_turn() -> None:
    sweep, loop = new_sweep()
    item = add(sweep, loop, -5.0)
    assert item.expired == []
    loop.advance(0.0)
    assert item.expired == [loop.now]


@pytest.mark.parametrize("seconds", [0.05, 5.0])
def test_a_removed_item_does_not_expire(seconds: float) -> None:
    sweep, loop = new_sweep()
    item = add(sweep, loop, seconds)
    Sweep.remove(item)
    Sweep.remove(item)
    loop.advance(10.0)
    assert (item.expired, item.bucket, len(sweep)) == ([], None, 0)


def test_of_two_that_are_due_together_the_first_may_remove_the_second() -> None:
    sweep, loop = new_sweep()
    items: list[Item] = []

    def remove_the_others() -> None:
        for item in items:
            Sweep.remove(item)

    due = int((loop.now + 5.0) * TICKS_PER_SECOND) / TICKS_PER_SECOND  # one bucket, and due when it is swept
    items += [Item(due, remove_the_others) for _ in range(3)]
    for item in items:
        sweep.add(item, loop.now)
    loop.advance(10.0)
    assert sorted(len(item.expired) for item in items) == [0, 0, 1]


def test_an_item_may_be_added_again_when_it_expires() -> None:
    sweep, loop = new_sweep()
    item = Item(loop.now + 1.0)

    def again() -> None:
        if len(item.expired) < 3:
            item.due = loop.now + 1.0
            sweep.add(item, loop.now)

    item._then = again
    sweep.add(item, loop.now)
    start = loop.now
    loop.advance(60.0)
    assert [round(at - start, 6) for at in item.expired] == [1.0, 2.0, 3.0]


def test_who_lies_down_in_the_latest_bucket_expires_when_due_and_does_not_stay() -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 0.3)
    first = add(sweep, loop, 1.0)
    for share in (0.0, 0.5, 0.999):
        item = Item(sweep.latest_from + share / TICKS_PER_SECOND)
        assert sweep.latest_from <= item.due < sweep.latest_until
        item.bucket = sweep.latest
        sweep.latest.add(item)
    assert sweep.latest is first.bucket
    items = [cast(Item, item) for item in sweep.latest]
    loop.advance(2.0)
    assert [item.expired for item in items] == [[pytest.approx(item.due, abs=1e-6)] for item in items]
    assert (len(items), sweep.latest, sweep.latest_until) == (4, set(), 0.0)


def test_nothing_runs_while_there_is_nothing_to_sweep() -> None:
    sweep, loop = new_sweep()
    assert loop.timers == 0
    add(sweep, loop, 1.0)
    loop.advance(2.0)
    assert (loop.timers, len(sweep)) == (0, 0)
    item = add(sweep, loop, 1.0)
    loop.advance(2.0)
    assert len(item.expired) == 1


def firings(loop: HandLoop, seconds: float) -> int:
    """How many timers fire in that time."""
    before = loop.fired
    loop.advance(seconds)
    return loop.fired - before


@pytest.mark.parametrize("seconds", [15.0, 60.0, 3600.0])
def test_while_nobody_comes_it_looks_the_less_often_the_more_time_there_is(seconds: float) -> None:
    sweep, loop = new_sweep()
    item = add(sweep, loop, seconds)
    assert firings(loop, 1.0) <= 3
    assert firings(loop, seconds) < 250
    assert item.expired == [pytest.approx(item.due, abs=1e-6)]
    assert loop.timers == 0


def test_as_long_as_somebody_comes_it_looks_forty_times_a_second() -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    loop.advance(10.0)  # it rests
    count = 0
    for _ in range(40):
        count += firings(loop, 0.025)
        Sweep.remove(add(sweep, loop, 15.0))
    assert count >= 38


def test_who_comes_while_it_rests_lies_down_nowhere_without_waking_it() -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    loop.advance(10.0)
    assert sweep.latest_until == 0.0
    item = add(sweep, loop, 0.3)
    loop.advance(0.3)
    assert item.expired == [pytest.approx(item.due, abs=1e-6)]


def test_a_stop_while_it_rests_is_known_to_a_twentieth_of_the_time_that_was_left() -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 10.0)
    loop.advance(2.0)
    stopped = loop.now
    hold(loop, 4.0)
    loop.advance(0.0)
    assert sweep.pace.held.seconds(stopped, loop.now) >= 4.0 - 8.0 / 20


def test_a_stop_is_known_where_another_timer_is_handled_before_the_sweep() -> None:
    """It was due first, and somebody comes from it: the sweep's own timer is about to fire."""
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    loop.advance(10.0)  # it rests
    stopped = loop.now
    loop.call_later(0.01, lambda: add(sweep, loop, 5.0))
    hold(loop, 10.0)
    loop.advance(0.1)
    assert sweep.pace.held.seconds(stopped, loop.now) >= 5.0


@pytest.mark.parametrize("seconds", [OWN_TIMER_SECONDS / 2, 0.8])
def test_a_stop_is_known_to_a_tick_while_a_deadline_is_near(seconds: float) -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    loop.advance(10.0)  # it rests
    item = add(sweep, loop, seconds)
    loop.advance(seconds - OWN_TIMER_SECONDS / 4)
    stopped = loop.now
    hold(loop, 0.2)
    loop.advance(0.0)
    assert len(item.expired) == 1
    assert sweep.pace.held.seconds(stopped, loop.now) >= 0.2 - 1 / TICKS_PER_SECOND


def test_requests_with_short_deadlines_alone_keep_it_awake() -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    loop.advance(10.0)  # it rests
    add(sweep, loop, OWN_TIMER_SECONDS / 2)
    hold(loop, 0.04)
    loop.advance(0.0)
    assert loop.timers >= 3  # each turn is measured from now on: beside the sweep's and the item's own


def test_who_lies_down_where_one_has_left_within_the_sweep_expires() -> None:
    sweep, loop = new_sweep()

    def come_and_leave() -> None:
        Sweep.remove(add(sweep, loop, 1.0))

    loop.advance(0.02)
    item = Item(1000.425, come_and_leave)  # the beginning of a tick, 5 ms after a sweep that is so much late
    sweep.add(item, loop.now)
    loop.advance(0.39)
    hold(loop, 0.016)
    loop.advance(0.0)
    assert (len(item.expired), item.expired[0]) == (1, loop.now)
    other = Item(loop.now + 1.0)
    if sweep.latest_from <= other.due < sweep.latest_until:
        other.bucket = sweep.latest
        sweep.latest.add(other)
    else:
        sweep.add(other, loop.now)
    loop.advance(2.0)
    assert other.expired == [pytest.approx(other.due, abs=1e-6)]


def test_buckets_that_everybody_has_left_do_not_pile_up() -> None:
    sweep, loop = new_sweep()
    stays = add(sweep, loop, 3600.0)
    for _ in range(3 * MOST_EMPTY):
        Sweep.remove(add(sweep, loop, 3600.0))
        loop.advance(0.025)
    assert len(sweep.buckets) <= MOST_EMPTY + 1
    loop.advance(3600.0)
    assert (len(stays.expired), len(sweep.buckets)) == (1, 0)


def test_a_loop_that_was_held_sweeps_what_it_has_missed() -> None:
    sweep, loop = new_sweep()
    items = [add(sweep, loop, seconds) for seconds in (0.5, 1.0, 2.0, 2.9)]
    loop.now += 3.0  # no timer had its turn
    loop.advance(1.0)
    assert [len(item.expired) for item in items] == [1, 1, 1, 1]


def test_after_close_nothing_expires_any_more() -> None:
    sweep, loop = new_sweep()
    item = add(sweep, loop, 1.0)
    sweep.close()
    sweep.close()
    loop.advance(5.0)
    assert (item.expired, loop.timers) == ([], 0)


@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_an_error_in_one_expiry_is_told_and_ends_that_one_alone(seconds: float) -> None:
    sweep, loop = new_sweep()

    def fail() -> None:
        raise LookupError("broken")

    before, broken, after = (add(sweep, loop, seconds, then) for then in (lambda: None, fail, lambda: None))
    later = add(sweep, loop, 5.0)
    loop.advance(10.0)
    assert [len(item.expired) for item in (before, broken, after, later)] == [1, 1, 1, 1]
    assert [item.abandoned for item in (before, broken, after, later)] == [0, 1, 0, 0]
    assert [type(error) for error in loop.errors] == [LookupError]


def test_an_error_in_ending_it_is_told_as_well() -> None:
    sweep, loop = new_sweep()

    class Hopeless(Item):
        def expire(self, now: float) -> None:
            raise LookupError("broken")

        def abandon(self) -> None:
            raise KeyError("broken, too")

    sweep.add(Hopeless(loop.now + 1.0), loop.now)
    other = add(sweep, loop, 1.0)
    loop.advance(2.0)
    assert [type(error) for error in loop.errors] == [LookupError, KeyError]
    assert len(other.expired) == 1


# A late loop


def hold(loop: HandLoop, seconds: float) -> None:
    """One long turn: timers that fall due in it fire at its end, before anything is read."""
    loop.now += seconds


@pytest.mark.parametrize("seconds", [OWN_TIMER_SECONDS / 2, 0.3])
def test_a_deadline_that_is_handled_late_lets_what_has_come_be_read_first(seconds: float) -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    item = add(sweep, loop, seconds)
    read: list[str] = []
    hold(loop, seconds + 0.2)

    def answer_is_read() -> None:
        read.append("answer")
        Sweep.remove(item)

    loop.call_soon(lambda: loop.call_soon(answer_is_read))  # what stands behind the poll in uvloop
    loop.advance(1.0)
    assert read == ["answer"]
    assert item.expired == []
    assert loop.errors == []


@pytest.mark.parametrize("seconds", [OWN_TIMER_SECONDS / 2, 0.3])
def test_one_that_nothing_came_for_expires_a_turn_later(seconds: float) -> None:
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    item = add(sweep, loop, seconds)
    hold(loop, seconds + 0.2)
    loop.advance(0.05)
    assert item.expired == [pytest.approx(item.due + 0.2)]
    assert item.bucket is None


def test_a_deadline_within_a_hold_that_has_just_ended_is_put_off_too() -> None:
    """It is handled a millisecond late alone, but nothing has been read for 300 ms."""
    sweep, loop = new_sweep()
    add(sweep, loop, 60.0)
    item = add(sweep, loop, 0.299)
    hold(loop, 0.3)
    turns: list[bool] = []
    loop.call_soon(lambda: turns.append(bool(item.expired)))
    loop.advance(0.0)
    assert turns == [False]
    assert len(item.expired) == 1
