"""What a client sends by HTTP/2 takes a share of a turn of the loop, whatever its frames are; no neighbour waits."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sidecar.http2.slices import FRAME_UNITS, TINY_SLICE_BYTES
from sidecar.transport.turns import REQUEST_UNITS, SLICE_UNITS
from tests.downstream.http2_stage import Http2Stage
from tests.downstream.stage import NO_ROUTE
from tests.http2.wire import DATA, HEADERS, frame, frames_of, priority, request, rst, window

OLD = 600
"""Requests that the client has had."""
MANY = 6_000
"""Frames in one read: each of those requests has allowed it ten."""


def open_stage() -> Http2Stage:
    """A client that has had many answers, and has one request under way."""
    stage = Http2Stage(listener=NO_ROUTE)
    stage.send(window(0, 1 << 30))
    for begin in range(0, OLD, 300):
        stage.send(b"".join(request(2 * number + 1) for number in range(begin, begin + 300)))
        stage.frames()
    stage.send(request(2 * OLD + 1, is_end=False))
    stage.frames()
    return stage


def frames_by_turn(stage: Http2Stage, data: bytes) -> list[int]:
    """How many the codec worked through within the read, and in each turn behind it."""
    load = stage.served.codec.load
    counts = [load.frames]
    stage.served.data_received(data)
    counts.append(load.frames)
    while stage.loop.is_ready:
        stage.loop.turn()
        counts.append(load.frames)
    return [after - before for before, after in pairwise(counts)]


LIVE = 2 * OLD + 1
TINY: dict[str, bytes] = {
    "of an unknown kind": frame(0x42, 0, 0),
    "PRIORITY": priority(1),
    "WINDOW_UPDATE of the connection": window(0, 1),
    "WINDOW_UPDATE of a stream that is over": window(1, 1),
    "one byte of DATA for a stream that we have reset": frame(DATA, 0, LIVE, b"x"),
}


@pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
def test_of_a_read_full_of_tiny_frames_a_turn_works_through_a_share(tiny: bytes) -> None:
    stage = open_stage()
    by_turn = frames_by_turn(stage, tiny * MANY)
    assert max(by_turn) <= SLICE_UNITS // FRAME_UNITS + TINY_SLICE_BYTES // len(tiny) + 1
    assert sum(by_turn) == MANY
    assert (stage.served.phase.name, stage.transport.is_paused) == ("ANSWER", False)


class Neighbour:
    """Another client of the same process, which asks in one turn after the other."""

    def __init__(self, stage: Http2Stage) -> None:
        self._stage = Http2Stage(stage.path, listener=NO_ROUTE)
        self.asked = 0

    def ask(self) -> list[int]:
        """What it has been answered when its read is over."""
        self._stage.served.data_received(request(2 * self.asked + 1))
        self.asked += 1
        return [one.kind for one in frames_of(self._stage.transport.take())]


@pytest.mark.parametrize("tiny", TINY.values(), ids=TINY)
def test_a_neighbour_is_answered_within_the_turn_in_which_it_asks(tiny: bytes) -> None:
    stage = open_stage()
    neighbour = Neighbour(stage)
    stage.served.data_received(tiny * MANY)
    while stage.transport.is_paused:
        stage.loop.turn()
        assert neighbour.ask() == [HEADERS, DATA], neighbour.asked
    assert neighbour.asked


def test_a_client_with_many_requests_leaves_its_neighbour_a_part_of_each_turn() -> None:
    stage = Http2Stage(listener=NO_ROUTE)
    stage.send(window(0, 1 << 30))
    neighbour = Neighbour(stage)
    stage.served.data_received(b"".join(request(2 * number + 1) for number in range(900)))
    while stage.transport.is_paused:
        assert neighbour.ask() == [HEADERS, DATA], neighbour.asked
        stage.loop.turn()
    assert neighbour.asked >= 900 * REQUEST_UNITS // SLICE_UNITS


def test_empty_data_for_a_stream_that_we_have_reset_is_a_flood_as_for_any_other() -> None:
    stage = open_stage()
    stage.served.data_received(frame(DATA, 0, LIVE) * 11)
    assert stage.served.phase.name == "CLOSING"


def test_heads_are_given_to_the_codec_a_few_at_a_time_from_the_first_on() -> None:
    stage = open_stage()
    data = b"".join(request(number) + rst(number) for number in range(LIVE + 2, LIVE + 1602, 2))
    begun, *_ = frames_by_turn(stage, data)
    assert begun <= TINY_SLICE_BYTES // (len(data) // 1600) + 2


def test_a_connection_that_has_ended_within_a_read_is_not_paused_any_more() -> None:
    """Its transport is closed, and would refuse that."""
    stage = open_stage()
    stage.served.data_received(TINY["PRIORITY"] * 3 * MANY)
    while not stage.transport.is_closing():
        stage.loop.turn()
    assert stage.transport.calls.index("close") > stage.transport.calls.index("pause")
    assert "pause" not in stage.transport.calls[stage.transport.calls.index("close") :]
