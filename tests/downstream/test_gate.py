"""The line of an overloaded listener: in turn, one request each; who has left is no longer in it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.downstream.gate import HELD_BYTES, OUTSIDE, QUEUED, Gate, OpenWaiting, Place, Ticket
from sidecar.transport.link import Link
from tests.support.by_hand import HandTransport


class Pair(HandTransport):
    """A transport with a socket that can be waited on, and its other end."""

    def __init__(self) -> None:
        super().__init__()
        self.here, self.there = socket.socketpair()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.here if name == "socket" else super().get_extra_info(name, default)


class One(OpenWaiting):
    def __init__(self, gate: Gate) -> None:
        self.pair = Pair()
        self.link = Link(self.pair)
        self.place = OUTSIDE
        self.ticket: Ticket | None = None
        self.gate = gate
        self.is_aborted = False
        self.heard: list[bool] = []
        """Of each time that it was let in, whether it was refused."""

    def let_in(self, *, is_refused: bool) -> None:
        self.place = Place.REFUSED if is_refused else Place.LET_IN
        self.heard.append(is_refused)

    def abort(self) -> None:
        self.is_aborted = True
        self.gate.forget(self)


class Stage:
    def __init__(self) -> None:
        self.now = 100.0
        self.gate = Gate(self.now)
        self.all: list[One] = []

    def new(self) -> One:
        self.all.append(One(self.gate))
        return self.all[-1]

    def queued(self, size: int = 100) -> One:
        one = self.new()
        self.gate.queue(one, self.now, size)
        return one

    def unread(self) -> One:
        one = self.new()
        self.gate.watch(one)
        return one

    def turn(self, count: int, seconds: float = 0.001) -> None:
        self.now += seconds
        self.gate.turn(count, self.now)

    def close(self) -> None:
        self.gate.close()
        for one in self.all:
            one.pair.here.close()
            one.pair.there.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def test_they_are_taken_up_in_the_order_in_which_they_came(stage: Stage) -> None:
    ones = [stage.queued() for _ in range(5)]
    stage.turn(2)
    assert [one.heard for one in ones] == [[False], [False], [], [], []]
    assert stage.gate.waiting == 3
    assert stage.gate.had_to_wait
    stage.turn(10)
    assert [one.heard for one in ones] == [[False]] * 5
    assert (stage.gate.waiting, stage.gate.let_in) == (0, 5)


def test_who_comes_again_stands_behind_the_others(stage: Stage) -> None:
    first, second = stage.queued(), stage.queued()
    stage.turn(1)
    stage.gate.queue(first, stage.now, 100)
    stage.turn(1)
    assert (len(first.heard), len(second.heard)) == (1, 1)
    stage.turn(1)
    assert (len(first.heard), len(second.heard)) == (2, 1)


def test_what_is_read_of_them_is_bounded(stage: Stage) -> None:
    assert not stage.gate.is_full
    ones = [stage.queued(HELD_BYTES // 4) for _ in range(5)]
    assert stage.gate.is_full
    stage.turn(1)
    assert not stage.gate.is_full
    stage.gate.forget(ones[1])
    for _ in range(3):
        stage.turn(1)
    assert stage.gate._held_bytes == 0


def test_one_that_is_not_read_comes_into_the_line_with_its_next_bytes(stage: Stage) -> None:
    quiet, speaking = stage.unread(), stage.unread()
    speaking.pair.there.send(b"GET")
    stage.turn(5)
    assert (quiet.heard, speaking.heard) == ([], [False])
    assert speaking.pair.here.recv(10) == b"GET"  # nobody has read it
    stage.gate.watch(speaking)
    stage.turn(5)
    assert speaking.heard == [False]
    speaking.pair.there.send(b"GET")
    stage.turn(5)
    assert speaking.heard == [False, False]


def test_bytes_that_came_while_it_was_read_elsewhere_are_not_forgotten(stage: Stage) -> None:
    one = stage.unread()
    one.pair.there.send(b"GET")
    stage.turn(5)
    one.pair.there.send(b"GET")
    stage.turn(5)  # which is news of one that is inside
    stage.gate.watch(one)
    stage.turn(5)
    assert one.heard == [False, False]


@pytest.mark.parametrize("is_queued", [False, True])
def test_one_whose_client_has_left_is_closed_and_never_let_in(stage: Stage, is_queued: bool) -> None:
    one = stage.unread()
    if is_queued:
        one.pair.there.send(b"GET")
        stage.turn(0)
        assert one.place is QUEUED
    one.pair.there.close()
    stage.turn(5)
    assert one.is_aborted
    assert one.heard == []
    assert (stage.gate.waiting, stage.gate.gone) == (0, int(is_queued))


def test_one_that_closes_by_itself_leaves_the_line(stage: Stage) -> None:
    first, second = stage.queued(), stage.queued()
    stage.gate.forget(first)
    stage.gate.forget(first)
    stage.turn(1)
    assert (first.heard, second.heard) == ([], [False])
    assert (stage.gate.waiting, stage.gate.gone) == (0, 1)


def windows(stage: Stage, count: int, each: int) -> None:
    """So many windows of 100 ms, in each of which so many came and were taken up."""
    for _ in range(count):
        for _ in range(each):
            stage.queued()
        stage.turn(each, 0.1)
        stage.gate.window(stage.now)


def impatient(stage: Stage) -> list[One]:
    """A line whose front has waited for almost as long as a client that has left before; and thirty that wait."""
    leaving = stage.queued()
    stage.turn(0, 1.0)
    stage.gate.forget(leaving)
    waiting = [stage.queued() for _ in range(60)]
    stage.now += 0.95
    for _ in range(30):
        stage.turn(1, 0.0)
    stage.gate.window(stage.now)
    return waiting[30:]


def test_where_those_in_front_are_about_to_leave_the_newest_go_first(stage: Stage) -> None:
    waiting = impatient(stage)
    stage.turn(3)
    forwarded = [number for number, one in enumerate(waiting) if one.heard == [False]]
    assert forwarded == [27, 28, 29]


def test_then_the_oldest_are_refused_as_far_as_there_is_time(stage: Stage) -> None:
    waiting = impatient(stage)
    stage.turn(3, 1.0)
    refused = [number for number, one in enumerate(waiting) if one.heard == [True]]
    assert refused
    assert refused == list(range(len(refused)))
    assert stage.gate.refused == len(refused) <= 3


def test_a_line_that_is_short_again_is_first_come_first_served(stage: Stage) -> None:
    for one in impatient(stage):
        stage.gate.forget(one)
    windows(stage, 2, 10)
    first, second = stage.queued(), stage.queued()
    stage.turn(1)
    assert (first.heard, second.heard) == ([False], [])


def test_who_waits_for_less_than_clients_are_patient_is_served_first_come_first_served_however_long_that_lasts(
    stage: Stage,
) -> None:
    leaving = stage.queued()
    stage.turn(0, 1.0)
    stage.gate.forget(leaving)
    for _ in range(500):
        first = stage.queued()
        stage.queued()
        stage.now += 0.5
        for _ in range(2):
            stage.turn(1, 0.0)
        stage.gate.window(stage.now)
        assert first.heard == [False]
    first, second = stage.queued(), stage.queued()
    stage.turn(1)
    assert (first.heard, second.heard) == ([False], [])


def test_a_line_of_more_than_a_second_refuses_those_who_come(stage: Stage) -> None:
    windows(stage, 5, 10)  # a hundred a second
    for _ in range(101):
        stage.queued()
    stage.now += 1.0
    late = stage.queued()
    assert late.heard == [True]
    assert stage.gate.waiting == 101


def test_the_line_does_not_grow_by_those_who_have_left_it(stage: Stage) -> None:
    stays = stage.queued()
    for _ in range(500):
        stage.gate.forget(stage.queued())
        stage.turn(0)
    assert len(stage.gate._line) < 200
    stage.turn(1)
    assert stays.heard == [False]


def test_its_end_names_all_that_have_to_be_read_again(stage: Stage) -> None:
    taken, gone = stage.queued(), stage.queued()
    stage.turn(1)
    queued, unread = stage.queued(), stage.unread()
    stage.gate.forget(gone)
    assert taken.heard == [False]
    assert stage.gate.close() == [queued, unread]
