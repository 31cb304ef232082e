"""What the streams of a client that speaks HTTP/2 hold is charged while they hold it, and their end gives it back."""

from __future__ import annotations

import pytest

from sidecar.core.memory_budget import CONNECTION_BYTES, Held
from tests.downstream.http2_stage import Http2Stage
from tests.http2 import wire
from tests.http2.wire import DATA, END_STREAM, WINDOW_UPDATE, frame, request
from tests.support.by_hand import HandConnecting, HandLease

KIB = 1024


def held(stage: Http2Stage) -> int:
    """Above the connections' own 4 KiB."""
    memory = stage.path.service.memory
    return memory.used_bytes - CONNECTION_BYTES * memory.connections


def body(stage: Http2Stage, size: int, *, is_end: bool = False) -> None:
    sizes = [16 * KIB] * (size // (16 * KIB))
    for number, part in enumerate(sizes, 1):
        stage.send(frame(DATA, END_STREAM if is_end and number == len(sizes) else 0, 1, bytes(part)))


def begun(stage: Http2Stage, *, is_end: bool) -> HandLease:
    lease = stage.upstream()
    stage.send(request(1, is_end=is_end))
    assert lease.names[0] == "head"
    return lease


def test_all_of_an_answer_that_a_client_does_not_take_is_charged() -> None:
    """Not only what makes its stream full: the upstream has more under way."""
    stage = Http2Stage(settings=wire.setting((4, 0)))
    lease = begun(stage, is_end=True)
    stage.answer_head(lease)
    for _ in range(16):
        stage.answer_data(lease, bytes(16 * KIB))
    stage.frames()
    assert held(stage) == 256 * KIB
    stage.send(wire.window(1, 2**20))
    stage.send(wire.window(0, 2**20))
    assert held(stage) == 0


@pytest.mark.parametrize("end", ["reset", "loss"])
def test_an_answer_that_nobody_waits_for_any_more_is_not_charged(end: str) -> None:
    stage = Http2Stage(settings=wire.setting((4, 0)))
    lease = begun(stage, is_end=True)
    stage.answer_head(lease)
    stage.answer_data(lease, bytes(100 * KIB))
    stage.frames()
    assert held(stage) == 100 * KIB
    if end == "reset":
        stage.send(wire.rst(1))
    else:
        stage.lose()
    assert held(stage) == 0


@pytest.mark.parametrize("is_end", [True, False])
@pytest.mark.parametrize("size", [32 * KIB, 192 * KIB])
def test_a_request_without_a_connection_to_an_upstream_is_charged_until_it_has_one(
    size: int, is_end: bool, connectings: list[HandConnecting]
) -> None:
    stage = Http2Stage()
    stage.send(request(1, is_end=False))
    body(stage, size, is_end=is_end)
    assert held(stage) == size
    lease = connectings[0].open()
    assert len(lease.notes[0][2]) == size
    assert held(stage) == 0


def test_who_sends_what_an_upstream_does_not_take_is_known_and_can_be_ended() -> None:
    """The upstream's connection is charged for it; this one says what its end gives back."""
    stage = Http2Stage()
    lease = begun(stage, is_end=False)
    body(stage, 64 * KIB)
    assert stage.served.claim(stage.loop.time()) is None
    lease.stream.unsent = 64 * KIB
    stage.loop.advance(1.0)
    claim = stage.served.claim(stage.loop.time())
    assert claim is not None
    assert (claim.size, claim.seconds) == (CONNECTION_BYTES + 64 * KIB, pytest.approx(1.0))
    assert stage.served.end_for_memory() is Held.BODY
    assert lease.fates
    assert held(stage) == 0


def test_a_connection_that_is_ended_for_its_answers_gives_them_back_at_once() -> None:
    """Or others would be ended too, until the loop has told of its end."""
    stage = Http2Stage(settings=wire.setting((4, 0)))
    lease = begun(stage, is_end=True)
    stage.answer_head(lease)
    stage.answer_data(lease, bytes(100 * KIB))
    stage.frames()
    assert stage.served.end_for_memory() is Held.ANSWER
    assert held(stage) == 0


@pytest.mark.parametrize("end", ["answer", "reset", "loss"])
def test_what_is_sent_ahead_of_a_switch_gets_no_credit_and_is_charged(end: str) -> None:
    stage = Http2Stage()
    lease = stage.upstream()
    pseudo = ((":method", "CONNECT"), *wire.REQUEST[1:], (":protocol", "websocket"))
    stage.send(wire.headers(1, wire.block(*pseudo), wire.END_HEADERS))
    assert lease.names[0] == "head"
    body(stage, 256 * KIB)
    assert {one.stream_id for one in stage.frames(WINDOW_UPDATE)} <= {0}
    assert held(stage) == 256 * KIB
    if end == "answer":
        stage.answer(lease)
    elif end == "reset":
        stage.send(wire.rst(1))
    else:
        stage.lose()
    stage.loop.settle()
    assert held(stage) == 0
