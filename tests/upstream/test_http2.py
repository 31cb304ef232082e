"""One connection of many streams to an upstream: what each hears, what was certainly not processed, and whether the
other end is still alive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.core import websocket
from sidecar.core.errors import Reason
from sidecar.core.memory_budget import CONNECTION_BYTES
from sidecar.core.request import Traits
from sidecar.http2.slices import DATA_UNITS, SLICE_BYTES
from sidecar.transport.turns import REQUEST_UNITS, TURN_UNITS
from sidecar.upstream.http2 import (
    DEAD_SECONDS,
    PING_EVERY_SECONDS,
    SEE_OUT_SECONDS,
    SUSPECT_SECONDS,
)
from sidecar.upstream.http2_stream import NO_KEY, NO_SETTING, NO_SUCH_UPGRADE
from sidecar.upstream.lease import Fate
from sidecar.upstream.streams import Processed
from tests.http2 import wire
from tests.http2.wire import DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM
from tests.support.by_hand import HandConnecting, Hearing, request
from tests.upstream.http2_stage import (
    KEY,
    MAX_CONCURRENT_STREAMS,
    Call,
    Peer,
    Upstream,
    request_head,
    switching,
)


@pytest.fixture
async def upstream(connectings: list[HandConnecting]) -> Upstream:
    """Second connections are asked for, and never come."""
    return Upstream()


def give_up(call: Call) -> None:
    """As an attempt whose time is up."""
    call.place.release(Fate.BROKEN, asyncio.get_running_loop().time())


def let_go(call: Call) -> None:
    """As an attempt that has its answer."""
    call.place.release(Fate.REUSABLE, asyncio.get_running_loop().time())


# Writes


async def test_requests_of_one_turn_are_sent_in_one_write_and_their_answers_need_none(
    upstream: Upstream,
) -> None:
    peer = upstream.connect()
    await peer.frames()
    before = peer.transport.writes
    first, second = upstream.ask(), upstream.pool.take(0.0, is_sure=True)
    assert second is not None
    second.begin(Hearing()).send_head(request_head(length=2), [b"ab"], ())
    assert [one.kind for one in await peer.frames()] == [HEADERS, HEADERS, DATA]
    assert peer.transport.writes == before + 1
    peer.say(wire.answer(1, is_end=False), wire.frame(DATA, END_STREAM, 1, b"c"), wire.answer(3))
    assert first.heard == [("answered", 200, b"c")]
    assert await peer.frames() == []
    assert peer.transport.writes == before + 1


# Answers


async def test_a_head_is_passed_on_before_anything_of_its_body(upstream: Upstream) -> None:
    """A stream of events, or gRPC's initial metadata: it may take long until more comes."""
    peer = upstream.connect()
    call = upstream.ask()
    peer.say(wire.answer(1, is_end=False))
    assert call.heard == [("head", 200), ("flush",)]
    peer.say(wire.frame(DATA, 0, 1, b"ab"))
    assert call.heard[2:] == [("data", b"ab"), ("flush",)]
    peer.say(wire.headers(1, wire.block(("x-end", "1"))))
    assert call.sink.names[4:] == ["end"]


async def test_an_answer_that_comes_in_one_read_is_told_in_one(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    peer.say(
        wire.answer(1, is_end=False), wire.frame(DATA, 0, 1, b"a"), wire.frame(DATA, END_STREAM, 1, b"b")
    )
    assert call.heard == [("answered", 200, b"ab")]


@pytest.mark.parametrize(
    ("is_grpc", "version", "heard"),
    [
        (True, "2", [("answered", 200, b"ab", [(b"grpc-status", b"grpc-status: 0\r\n", b"0")])]),
        (True, "1.1", ["head", "data", "flush", "end"]),
        (False, "2", ["head", "data", "flush", "end"]),
    ],
)
async def test_a_calls_answer_that_comes_in_one_read_is_told_with_its_trailers(
    upstream: Upstream, is_grpc: bool, version: str, heard: list[object]
) -> None:
    """Of a client that speaks HTTP/2 alone: HTTP/1.1's head would say a length, and so lose the trailers."""
    asked = request()
    asked.traits = Traits(http_version=version, is_grpc=is_grpc)
    peer = upstream.connect()
    call = upstream.ask(asked)
    trailers = wire.headers(1, wire.block(("grpc-status", "0")))
    peer.say(wire.answer(1, is_end=False), wire.frame(DATA, 0, 1, b"ab"), trailers)
    assert (call.heard if "answered" in call.sink.names else call.sink.names) == heard


async def test_answers_whose_parts_come_in_turns_are_told_each_in_one(upstream: Upstream) -> None:
    """As nghttp2 writes those that it has at once: heads first."""
    peer = upstream.connect()
    first, second, third = upstream.ask(), upstream.ask(), upstream.ask()
    peer.say(
        *(wire.answer(stream_id, is_end=False) for stream_id in (1, 3, 5)),
        wire.frame(DATA, 0, 1, b"a"), wire.frame(DATA, 0, 3, b"c"), wire.frame(DATA, 0, 5, b"e"),
        wire.frame(DATA, END_STREAM, 1, b"b"), wire.rst(3), wire.frame(DATA, 0, 5, b"f"),
    )  # fmt: skip
    assert first.heard == [("answered", 200, b"ab")]
    assert second.heard[:3] == [("head", 200), ("data", b"c"), ("flush",)]
    assert [second.sink.names[-1], third.heard] == ["failed", [("head", 200), ("data", b"ef"), ("flush",)]]


async def test_interim_answers_come_before(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    hints = wire.headers(1, wire.block((":status", "103"), ("link", "x")), wire.END_HEADERS)
    peer.say(hints, wire.answer(1))
    assert call.heard == [("interim", 103), ("answered", 200, b"")]


async def test_a_malformed_answer_ends_its_stream_alone(upstream: Upstream) -> None:
    peer = upstream.connect()
    call, other = upstream.ask(), upstream.ask()
    peer.say(wire.answer(1, ("connection", "close")), wire.answer(3))
    assert call.heard == [("failed", Reason.PROTOCOL_ERROR, Processed.YES)]
    assert other.heard == [("answered", 200, b"")]
    assert peer.connection.is_open


async def test_a_broken_rule_ends_all(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    peer.say(wire.frame(DATA, 0, 0, b"x"))
    assert call.heard == [("failed", Reason.PROTOCOL_ERROR, Processed.YES)]
    assert (peer.connection.is_open, upstream.pool.open_count) == (False, 0)
    assert GOAWAY in [one.kind for one in await peer.frames()]


# What was certainly not processed


async def test_streams_above_goaways_last_were_not_processed(upstream: Upstream) -> None:
    peer = upstream.connect()
    first, second = upstream.ask(), upstream.ask()
    peer.say(wire.goaway(1))
    assert (first.heard, second.heard) == ([], [("failed", Reason.CONNECTION_REFUSED, Processed.NEVER)])
    assert not peer.connection.has_room
    give_up(second)
    peer.say(wire.answer(1))
    assert first.heard == [("answered", 200, b"")]
    let_go(first)
    assert (peer.connection.is_open, upstream.pool.open_count) == (False, 0)


async def test_a_refused_stream_was_not_processed(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    peer.say(wire.rst(1, wire.REFUSED_STREAM))
    assert call.heard == [("failed", Reason.CONNECTION_REFUSED, Processed.NEVER)]


async def test_a_stream_that_was_reset_was_processed_and_one_that_was_lost_may_have_been(
    upstream: Upstream,
) -> None:
    peer = upstream.connect()
    first, second = upstream.ask(), upstream.ask()
    peer.say(wire.rst(1, wire.INTERNAL_ERROR))
    peer.lose()
    assert first.heard == [("failed", Reason.CONNECTION_RESET, Processed.YES)]
    assert second.heard == [("failed", Reason.CONNECTION_RESET, Processed.MAYBE)]


async def test_after_its_head_it_was_processed(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    peer.say(wire.answer(1, is_end=False), wire.rst(1, wire.REFUSED_STREAM))
    assert call.heard[-1] == ("failed", Reason.CONNECTION_RESET, Processed.YES)


# How much of a read one turn of the loop works through

ONE_BYTE = wire.frame(DATA, 0, 1, b"x")
LAST = wire.frame(DATA, wire.END_STREAM, 1, b"x")


async def test_what_a_turn_has_no_time_for_is_worked_through_in_later_ones(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    count = 20_000
    peer.say(wire.answer(1, is_end=False), *[ONE_BYTE] * count, LAST)
    most = TURN_UNITS // DATA_UNITS + SLICE_BYTES // len(ONE_BYTE)
    assert len(call.sink.body) <= most
    assert peer.transport.is_paused
    upstream.turns_loop.turn()
    assert len(call.sink.body) <= 2 * most
    upstream.turns_loop.settle()
    assert call.sink.body == b"x" * (count + 1)
    assert not peer.transport.is_paused


async def test_what_is_read_meanwhile_stands_behind_what_was_put_off(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    upstream.cluster.turns.take(TURN_UNITS)
    peer.say(wire.answer(1, is_end=False))
    peer.say(wire.frame(DATA, 0, 1, b"one"))
    peer.say(wire.frame(DATA, wire.END_STREAM, 1, b"two"))
    assert call.heard == []
    upstream.turns_loop.settle()
    assert call.sink.body == b"onetwo"


async def test_responses_cost_a_turn_what_their_fields_do(upstream: Upstream) -> None:
    peer = upstream.connect()
    calls = [upstream.ask() for _ in range(100)]
    fields = tuple((f"x-{number}", "y") for number in range(50))
    for number, _ in enumerate(calls):
        peer.say(wire.answer(1 + 2 * number, *fields))
    answered = sum(bool(call.heard) for call in calls)
    assert answered == -(-TURN_UNITS // (REQUEST_UNITS + len(fields)))
    upstream.turns_loop.settle()
    assert all(call.heard for call in calls)


async def test_what_came_whole_before_the_connection_was_lost_is_still_an_answer(upstream: Upstream) -> None:
    peer = upstream.connect()
    first, second = upstream.ask(), upstream.ask()
    upstream.cluster.turns.take(TURN_UNITS)
    peer.say(wire.answer(1, is_end=False), LAST)
    peer.lose()
    assert (first.heard, second.heard) == ([], [])
    upstream.turns_loop.settle()
    assert first.heard[0] == ("answered", 200, b"x")
    assert second.heard == [("failed", Reason.CONNECTION_RESET, Processed.MAYBE)]


async def test_a_link_that_takes_again_does_not_go_on_reading_before_its_turn(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    upstream.cluster.turns.take(TURN_UNITS)
    peer.connection.pause_writing()
    peer.say(wire.answer(1))
    peer.connection.resume_writing()
    assert peer.transport.is_paused
    upstream.turns_loop.settle()
    assert not peer.transport.is_paused
    assert call.heard


# Streams that outlive their attempt


async def test_an_attempt_that_leaves_cancels_its_stream(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    await peer.frames()
    give_up(call)
    assert [(one.kind, one.payload) for one in await peer.frames(RST_STREAM)] == [(RST_STREAM, b"\0\0\0\x08")]
    peer.say(wire.answer(1))
    assert call.heard == []
    assert peer.connection.is_idle


def answered_early(upstream: Upstream) -> Peer:
    """A call of 100,000 bytes has its answer, and most of its request waits for the peer's window."""
    peer = upstream.connect()
    place = upstream.pool.take(0.0, is_sure=True)
    assert place is not None
    call = Call(place, 100_000)
    call.stream.send_data(b"x" * 100_000)
    call.stream.end(())
    peer.say(wire.answer(1))
    let_go(call)
    return peer


async def test_the_rest_of_a_request_goes_on_behind_its_answer_for_a_while(upstream: Upstream) -> None:
    peer = answered_early(upstream)
    assert not peer.connection.is_idle
    peer.say(wire.window(0, 100_000), wire.window(1, 100_000))
    assert sum(len(one.payload) for one in await peer.frames(DATA)) == 100_000
    assert peer.connection.is_idle
    assert upstream.cluster.idle_timer is not None


async def test_the_rest_of_a_request_that_nobody_takes_is_reset(upstream: Upstream) -> None:
    """Else its stream would count for ever, and the connection could never end."""
    peer = answered_early(upstream)
    await peer.frames()
    await asyncio.sleep(SEE_OUT_SECONDS - 0.01)
    assert await peer.frames(RST_STREAM) == []
    await asyncio.sleep(0.02)
    assert len(await peer.frames(RST_STREAM)) == 1
    assert peer.connection.is_idle


async def test_a_response_that_is_held_gets_no_credit_until_it_goes_on(upstream: Upstream) -> None:
    peer = upstream.connect()
    call = upstream.ask()
    peer.say(wire.answer(1, is_end=False))
    call.stream.hold()
    peer.say(*[wire.frame(DATA, 0, 1, bytes(16_000)) for _ in range(16)])
    assert [one.stream_id for one in await peer.frames(wire.WINDOW_UPDATE)] == [0]
    call.stream.resume()
    assert [one.stream_id for one in await peer.frames(wire.WINDOW_UPDATE)] == [1]


# Whether it is alive


async def test_a_time_out_on_a_silent_connection_asks_and_bars_it_after_two_seconds(
    upstream: Upstream,
) -> None:
    peer = upstream.connect()
    await asyncio.sleep(1)
    call, other = upstream.ask(), upstream.ask()
    await peer.frames()
    give_up(call)
    assert len(await peer.frames(PING)) == 1
    await asyncio.sleep(SUSPECT_SECONDS - 0.01)
    assert peer.connection.has_room
    await asyncio.sleep(0.02)
    assert (peer.connection.has_room, peer.connection.is_open) == (False, True)
    await asyncio.sleep(DEAD_SECONDS - SUSPECT_SECONDS)
    assert not peer.connection.is_open
    peer.lose()
    assert other.heard == [("failed", Reason.CONNECTION_RESET, Processed.MAYBE)]


async def test_a_byte_after_the_question_clears_it(upstream: Upstream) -> None:
    peer = upstream.connect()
    await asyncio.sleep(1)
    upstream.ask()
    give_up(upstream.ask())
    await asyncio.sleep(SUSPECT_SECONDS + 0.1)
    assert not peer.connection.has_room
    peer.say(wire.ping(b"sidecar?", wire.ACK))
    assert peer.connection.has_room
    await asyncio.sleep(DEAD_SECONDS)
    assert peer.connection.is_open


async def test_a_second_question_has_its_own_ten_seconds(upstream: Upstream) -> None:
    """What was counted for the first one does not end the connection right after the second."""
    peer = upstream.connect()
    await asyncio.sleep(1)
    upstream.ask()
    give_up(upstream.ask())
    await asyncio.sleep(SUSPECT_SECONDS + 1)
    peer.say(wire.ping(b"sidecar?", wire.ACK))
    await asyncio.sleep(DEAD_SECONDS - SUSPECT_SECONDS - 1.5)
    give_up(upstream.ask())
    assert len(await peer.frames(PING)) == 2
    await asyncio.sleep(1)
    assert peer.connection.is_open
    await asyncio.sleep(DEAD_SECONDS)
    assert not peer.connection.is_open


async def test_it_is_asked_at_most_each_five_seconds(upstream: Upstream) -> None:
    peer = upstream.connect()
    await asyncio.sleep(PING_EVERY_SECONDS)
    upstream.ask()
    for _ in range(3):
        give_up(upstream.ask())
    assert len(await peer.frames(PING)) == 1


async def test_a_time_out_on_a_connection_that_spoke_since_asks_nothing(upstream: Upstream) -> None:
    peer = upstream.connect()
    slow, other = upstream.ask(), upstream.ask()
    await asyncio.sleep(1)
    peer.say(wire.answer(3))
    let_go(other)
    give_up(slow)
    assert await peer.frames(PING) == []


async def test_an_endpoint_that_bears_no_pings_gets_none_any_more(upstream: Upstream) -> None:
    peer = upstream.connect()
    upstream.ask()
    peer.say(wire.goaway(1, wire.ENHANCE_YOUR_CALM, b"too_many_pings"))
    other = upstream.connect()
    await asyncio.sleep(1)
    give_up(upstream.ask())
    assert await other.frames(PING) == []


# Its end


async def test_a_mistake_of_ours_ends_the_connection_and_blames_nobody(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    peer = upstream.connect()
    call = upstream.ask()

    def fail(*_: object) -> None:
        raise ValueError("planted")

    call.sink.answered = fail  # type: ignore[assignment]
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    peer.say(wire.answer(1))
    assert call.heard == [("broken",)]
    assert (peer.transport.is_aborted, upstream.pool.open_count) == (True, 0)


async def test_answers_that_the_upstream_does_not_take_stop_the_reading(upstream: Upstream) -> None:
    peer = upstream.connect()
    peer.connection.pause_writing()
    peer.say(wire.ping())
    assert peer.transport.is_paused
    peer.connection.resume_writing()
    assert not peer.transport.is_paused
    assert [one.kind for one in await peer.frames(PING, HEADERS)] == [PING]


# Memory


def held(upstream: Upstream) -> int:
    """Above the connections' own 4 KiB."""
    memory = upstream.cluster.memory
    return memory.used_bytes - CONNECTION_BYTES * memory.connections


async def test_a_body_that_the_upstream_does_not_take_is_charged_until_it_does(upstream: Upstream) -> None:
    peer = upstream.connect()
    place = upstream.pool.take(0.0, is_sure=True)
    assert place is not None
    call = Call(place, -1)
    call.stream.send_data(bytes(65_535 + 100 * 1024))
    await peer.frames()
    assert held(upstream) == 100 * 1024
    peer.say(wire.window(0, 2**20), wire.window(1, 2**20))
    assert held(upstream) == 0


@pytest.mark.parametrize("end", ["release", "reset", "loss"])
async def test_a_body_that_nobody_sends_any_more_is_not_charged(upstream: Upstream, end: str) -> None:
    peer = upstream.connect()
    place = upstream.pool.take(0.0, is_sure=True)
    assert place is not None
    call = Call(place, -1)
    call.stream.send_data(bytes(65_535 + 100 * 1024))
    await peer.frames()
    if end == "release":
        give_up(call)
    elif end == "reset":
        peer.say(wire.rst(1))
    else:
        peer.lose()
    await peer.frames()
    assert held(upstream) == 0


# WebSocket (RFC 8441)

CONNECTS = wire.setting((8, 1))


def handshake(upstream: Upstream, http_version: str = "2") -> Call:
    return upstream.ask(switching(http_version))


async def test_a_handshake_waits_for_the_settings_of_its_upstream(upstream: Upstream) -> None:
    peer = upstream.connect(says=False)
    call = handshake(upstream)
    assert await peer.frames(HEADERS) == []
    peer.say(CONNECTS)
    assert len(await peer.frames(HEADERS)) == 1
    peer.say(wire.answer(1, is_end=False))
    assert call.heard == [("switched", 101, b"")]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_upstream_that_does_not_take_it_is_not_asked(upstream: Upstream, when: str) -> None:
    peer = upstream.connect(says=when == "before")
    if when == "before":
        place = upstream.pool.take(0.0, is_sure=True)
        assert place is not None
        assert place.cannot_switch(switching()) == NO_SETTING
    else:
        call = handshake(upstream)
        peer.say_settings()
        assert call.heard == [("declined", NO_SETTING)]
        give_up(call)
    assert await peer.frames(HEADERS) == []
    assert peer.connection.streams == set()


async def test_a_handshake_that_finds_no_stream_left_was_certainly_not_processed(upstream: Upstream) -> None:
    peer = upstream.connect(says=False)
    first, second = handshake(upstream), handshake(upstream)
    peer.say(wire.setting((8, 1), (MAX_CONCURRENT_STREAMS, 1)))
    refused = ("failed", Reason.CONNECTION_REFUSED, Processed.NEVER)
    assert sorted([first.heard, second.heard], key=len) == [[], [refused]]


async def test_a_handshake_that_waits_is_certainly_not_processed_when_the_connection_is_lost(
    upstream: Upstream,
) -> None:
    peer = upstream.connect(says=False)
    call = handshake(upstream)
    peer.lose()
    assert call.heard == [("failed", Reason.CONNECTION_RESET, Processed.NEVER)]


async def test_a_handshake_that_gives_up_while_it_waits_is_never_sent(upstream: Upstream) -> None:
    peer = upstream.connect(says=False)
    give_up(handshake(upstream))
    peer.say(CONNECTS)
    assert await peer.frames(HEADERS) == []
    assert peer.connection.is_idle


@pytest.mark.parametrize(
    ("method", "upgrade", "key", "detail"),
    [
        (b"GET", b"websocket", KEY, ""),
        (b"GET", b"foo, WebSocket", KEY, ""),
        (b"GET", b"foo", KEY, NO_SUCH_UPGRADE),
        (b"GET", b"websocket/2", KEY, NO_SUCH_UPGRADE),
        (b"POST", b"websocket", KEY, NO_SUCH_UPGRADE),
        (b"GET", b"websocket", None, NO_KEY),
        (b"GET", b"websocket", b"c2hvcnQ=", NO_KEY),
        (b"GET", b"websocket", b"not base64, but 24 bytes", NO_KEY),
    ],
)
async def test_what_can_become_a_connect(
    upstream: Upstream, method: bytes, upgrade: bytes, key: bytes | None, detail: str
) -> None:
    peer = upstream.connect(says=False)
    peer.say(CONNECTS)
    place = upstream.pool.take(0.0, is_sure=True)
    assert place is not None
    asked = request(method, traits=Traits(upgrade=upgrade))
    asked.lookup = {} if key is None else {websocket.KEY: key}
    assert place.cannot_switch(asked) == detail


async def test_a_tunnel_keeps_its_stream_until_both_directions_have_ended(upstream: Upstream) -> None:
    peer = upstream.connect(says=False)
    peer.say(CONNECTS)
    call = handshake(upstream)
    peer.say(wire.answer(1, is_end=False))
    protocol = Protocol()
    link = call.place.hand_over(protocol)
    link.write(b"abc")
    link.end_writing()
    call.place.release(Fate.HANDED_OVER, 0.0)
    assert [(one.payload, one.flags) for one in await peer.frames(DATA)] == [(b"abc", END_STREAM)]
    assert not peer.connection.is_idle
    peer.say(wire.frame(DATA, END_STREAM, 1, b"last"))
    await asyncio.sleep(0)
    assert protocol.heard == [b"last", "eof", ("lost", None)]
    assert (peer.connection.is_idle, peer.connection.streams) == (True, set())


class Protocol:
    """Hears what a tunnel's side does."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append(("lost", error))
