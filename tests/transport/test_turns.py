"""Tiny pieces and ends get a bounded part of a turn of the loop, in the order in which they asked; none is lost."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

from sidecar.transport.turns import ENDS_A_TURN, SLICE_UNITS, TURN_UNITS, Turns
from tests.support.by_hand import HandLoop


def new_turns() -> tuple[Turns, HandLoop]:
    loop = HandLoop()
    return Turns(cast(asyncio.AbstractEventLoop, loop)), loop


def test_a_turn_grants_its_units_and_no_more() -> None:
    turns, _ = new_turns()
    wanted = TURN_UNITS // 3
    assert [turns.take(wanted) for _ in range(5)] == [wanted, wanted, wanted, TURN_UNITS - 3 * wanted, 0]


def test_the_next_turn_has_all_units_again() -> None:
    turns, loop = new_turns()
    assert turns.take(TURN_UNITS) == TURN_UNITS
    assert turns.take(1) == 0
    loop.turn()
    assert turns.take(TURN_UNITS + 1) == TURN_UNITS


def test_units_that_are_given_back_can_be_taken_in_the_same_turn() -> None:
    turns, _ = new_turns()
    turns.take(TURN_UNITS)
    turns.give_back(7)
    assert (turns.take(8), turns.take(1)) == (7, 0)


def test_work_comes_in_the_order_in_which_it_was_put_off() -> None:
    turns, loop = new_turns()
    done: list[int] = []
    for number in range(5):
        turns.later(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == []
    loop.turn()
    assert (done, turns.deferrals) == ([0, 1, 2, 3, 4], 5)


def test_work_beyond_a_turns_units_waits_for_the_next() -> None:
    turns, loop = new_turns()
    done: list[int] = []

    def work(number: int) -> None:
        turns.take(SLICE_UNITS)
        done.append(number)

    each = TURN_UNITS // SLICE_UNITS
    for number in range(2 * each + 1):
        turns.later(lambda number=number: work(number))  # type: ignore[misc]
    counts = []
    for _ in range(4):
        loop.turn()
        counts.append(len(done))
    assert counts == [each, 2 * each, 2 * each + 1, 2 * each + 1]
    assert done == sorted(done)


def test_work_that_is_put_off_within_a_turn_waits_for_another_one() -> None:
    turns, loop = new_turns()
    done: list[str] = []

    def first() -> None:
        done.append("first")
        turns.later(lambda: done.append("again"))

    turns.later(first)
    turns.later(lambda: done.append("second"))
    loop.turn()
    assert done == ["first", "second"]
    loop.turn()
    assert done == ["first", "second", "again"]


def test_an_error_in_one_piece_of_work_is_told_and_loses_no_other() -> None:
    turns, loop = new_turns()
    done: list[str] = []

    def broken() -> None:
        raise LookupError("broken")

    for work in (
        lambda: done.append("a"),
        broken,
        lambda: done.append("b"),
        broken,
        lambda: done.append("c"),
    ):
        turns.later(work)
    loop.settle()
    assert done == ["a", "b", "c"]
    assert [type(error) for error in loop.errors] == [LookupError, LookupError]
    assert turns.take(TURN_UNITS) == TURN_UNITS


def test_a_loop_in_which_nobody_asks_is_left_alone() -> None:
    turns, loop = new_turns()
    turns.take(1)
    loop.settle()  # it comes to rest
    assert loop.timers == 0


# Ends


def test_ends_beyond_a_turns_share_wait_in_their_order_and_are_counted() -> None:
    turns, loop = new_turns()
    ended: list[int] = []
    for number in range(2 * ENDS_A_TURN + 1):
        turns.end(partial(ended.append, number))
    counts = [len(ended)]
    while loop.is_ready:
        loop.turn()
        counts.append(len(ended))
    assert counts[:3] == [ENDS_A_TURN, 2 * ENDS_A_TURN, 2 * ENDS_A_TURN + 1]
    assert (ended, turns.ends_put_off) == (list(range(2 * ENDS_A_TURN + 1)), ENDS_A_TURN + 1)
    assert not turns.is_ending


def test_ends_that_wait_leave_the_pieces_of_others_their_units() -> None:
    turns, loop = new_turns()
    for _ in range(10 * ENDS_A_TURN):
        turns.end(lambda: None)
    done: list[int] = []
    turns.later(lambda: done.append(turns.take(TURN_UNITS)))
    loop.turn()
    assert done == [TURN_UNITS]
    assert turns.is_ending


def test_what_is_ended_by_an_end_has_its_share_of_the_turn_too() -> None:
    turns, loop = new_turns()
    ended: list[int] = []

    def end_another() -> None:
        ended.append(1)
        turns.end(lambda: ended.append(2))

    for _ in range(ENDS_A_TURN):
        turns.end(end_another)
    assert len(ended) == ENDS_A_TURN
    loop.settle()
    assert sorted(ended) == [1] * ENDS_A_TURN + [2] * ENDS_A_TURN


def test_ends_that_are_brought_about_by_ends_that_waited_stand_behind_them() -> None:
    turns, loop = new_turns()
    ended: list[tuple[str, int]] = []
    count = 2 * ENDS_A_TURN + 7

    def end_another(number: int) -> None:
        ended.append(("first", number))
        turns.end(partial(ended.append, ("second", number)))

    for number in range(count):
        turns.end(partial(end_another, number))
    by_turn = [len(ended)]
    while loop.is_ready:
        before = len(ended)
        loop.turn()
        by_turn.append(len(ended) - before)
    assert max(by_turn) == ENDS_A_TURN
    assert len(ended) == 2 * count
    assert [number for kind, number in ended if kind == "first"] == list(range(count))
    assert [number for kind, number in ended if kind == "second"] == list(range(count))


def test_what_comes_in_the_turn_in_which_others_are_caught_up_with_has_what_they_left() -> None:
    turns, loop = new_turns()
    for _ in range(2 * ENDS_A_TURN):
        turns.end(lambda: turns.end(lambda: None))
    ended: list[int] = []
    loop.call_soon(lambda: [turns.end(partial(ended.append, number)) for number in range(1_000)])
    loop.turn()
    assert ended == []
    loop.settle()
    assert ended == list(range(1_000))


def test_a_mistake_in_one_end_is_told_and_keeps_no_other_one_from_its_own() -> None:
    turns, loop = new_turns()
    ended: list[int] = []

    def break_off() -> None:
        raise RuntimeError("planted")

    turns.end(break_off)
    for number in range(ENDS_A_TURN):
        turns.end(partial(ended.append, number))
    turns.end(break_off)
    turns.end(partial(ended.append, -1))
    loop.settle()
    assert (ended, list(map(str, loop.errors))) == ([*range(ENDS_A_TURN), -1], ["planted"] * 2)


def test_at_the_end_of_the_process_nothing_waits_any_more() -> None:
    turns, loop = new_turns()
    ended: list[int] = []
    for number in range(3 * ENDS_A_TURN):
        turns.end(partial(ended.append, number))
    turns.end_all()
    assert len(ended) == 3 * ENDS_A_TURN
    loop.settle()
    assert len(ended) == 3 * ENDS_A_TURN
