"""How streams and connections end: resets, refusals, draining, and what certainly was not processed."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sidecar.core.block import Block
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import GoawayReceived, RequestReceived, ResponseReceived, StreamReset
from sidecar.http2.settings import Http2Settings
from sidecar.http2.stream import Http2Stream
from sidecar.http2.streams import MAX_REMEMBERED, MAX_STREAM_ID
from tests.http2.wire import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    answer,
    block,
    frame,
    frames_of,
    goaway,
    headers,
    literal,
    names,
    ping,
    request,
    rst,
    setting,
    started,
)

GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/"))
HEAD = ((b":method", b"HEAD"), *GET[1:])


def asked(connection: Connection, stream_id: int = 1, *, is_end: bool = True) -> Http2Stream:
    [event] = connection.receive(request(stream_id, is_end=is_end), 0.0)
    assert isinstance(event, RequestReceived)
    return event.stream


def resets(connection: Connection) -> list[tuple[int, int]]:
    written = frames_of(connection.take())
    return [(one.stream_id, struct.unpack(">I", one.payload)[0]) for one in written if one.kind == RST_STREAM]


def goaways(connection: Connection) -> list[tuple[int, int]]:
    written = frames_of(connection.take())
    return [struct.unpack(">II", one.payload[:8]) for one in written if one.kind == GOAWAY]


def one(events: list[Any]) -> Any:
    [event] = events
    return event


# Streams


def test_a_stream_that_has_ended_on_both_sides_and_was_released_is_forgotten() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    connection.send_head(stream, 204, (), is_end=True)
    assert connection.load.open_streams == 1
    connection.release(stream)
    connection.release(stream)
    assert connection.load.open_streams == 0
    assert resets(connection) == []


def test_a_stream_that_is_released_before_its_answer_is_cancelled() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    connection.release(stream)
    assert resets(connection) == [(1, CANCEL)]
    assert connection.load.open_streams == 0


def test_a_stream_that_was_released_counts_until_what_waits_has_gone() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    connection.send_head(stream, 200, ())
    connection.send_data(stream, b"d" * 70_000)
    connection.end(stream)
    connection.release(stream)
    assert connection.load.open_streams == 1
    assert resets(connection) == []
    connection.receive(frame(8, 0, 1, b"\0\1\0\0") + frame(8, 0, 0, b"\0\1\0\0"), 0.0)
    assert connection.load.open_streams == 0


def test_an_answer_that_is_whole_before_its_request_is_delivered_and_then_reset() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection, is_end=False)
    connection.send_head(stream, 200, ())
    connection.send_data(stream, b"d" * 70_000)
    connection.end(stream)
    connection.reset(stream, ErrorCode.NO_ERROR)
    assert resets(connection) == []
    connection.receive(frame(8, 0, 1, b"\0\1\0\0") + frame(8, 0, 0, b"\0\1\0\0"), 0.0)
    written = frames_of(connection.take())
    assert [(frame.kind, frame.flags) for frame in written] == [(DATA, END_STREAM), (RST_STREAM, 0)]
    assert written[1].payload == struct.pack(">I", NO_ERROR)


def test_what_is_sent_to_a_stream_that_has_ended_changes_nothing() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    connection.receive(rst(1), 0.0)
    connection.send_head(stream, 200, ())
    assert connection.send_data(stream, b"d") is True
    assert connection.end(stream) is True
    connection.credit_stream(stream, 2**20)
    connection.reset(stream, ErrorCode.CANCEL)
    assert connection.take() == b""


def test_a_head_is_sent_once_and_interim_heads_before_it() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    connection.send_head(stream, 103, (), pairs=((b"link", b"</a>"),))
    connection.send_head(stream, 200, ())
    connection.send_head(stream, 103, ())
    connection.send_head(stream, 500, ())
    assert [frame.kind for frame in frames_of(connection.take())] == [HEADERS, HEADERS]


def test_a_block_for_a_stream_that_we_have_reset_still_feeds_the_table() -> None:
    client = started(Role.CLIENT)
    first, second = client.open_stream(GET, (), is_end=True), client.open_stream(GET, (), is_end=True)
    client.reset(first, ErrorCode.CANCEL)
    late = headers(1, b"\x88" + literal("x-late", "yes", 0x40))
    event = one(client.receive(late + headers(3, b"\x88\xbe"), 0.0))
    assert event.stream is second
    assert event.lookup == {b"x-late": b"yes"}


def test_frames_for_streams_that_we_reset_long_ago_are_no_fault() -> None:
    client = started(Role.CLIENT)
    for _ in range(2 * MAX_REMEMBERED):
        stream = client.open_stream(GET, (), is_end=True)
        client.reset(stream, ErrorCode.CANCEL)
        client.release(stream)
    late = answer(1, is_end=False) + frame(DATA, 0, 1, b"d") + answer(2 * MAX_REMEMBERED + 1)
    assert client.receive(late, 0.0) == []
    assert client.load.open_streams == 0


# Clients


def test_a_head_answers_without_a_body_whatever_its_length_says() -> None:
    client = started(Role.CLIENT)
    client.open_stream(HEAD, (), is_end=True)
    event = one(client.receive(answer(1, ("content-length", "1000")), 0.0))
    assert (event.length, event.is_end) == (1000, True)


def test_data_in_answer_to_head_is_malformed() -> None:
    client = started(Role.CLIENT)
    client.open_stream(HEAD, (), is_end=True)
    events = client.receive(answer(1, ("content-length", "1"), is_end=False) + frame(DATA, 0, 1, b"d"), 0.0)
    assert names(events) == ["ResponseReceived", "StreamReset"]


def test_a_refused_stream_was_not_processed() -> None:
    client = started(Role.CLIENT)
    client.open_stream(GET, (), is_end=True)
    client.open_stream(GET, (), is_end=True)
    refused = one(client.receive(rst(1, REFUSED_STREAM), 0.0))
    assert (refused.is_by_peer, refused.is_unprocessed, refused.code) == (True, True, REFUSED_STREAM)
    assert one(client.receive(rst(3, CANCEL), 0.0)).is_unprocessed is False


def test_a_refusal_after_the_answer_has_begun_says_nothing() -> None:
    client = started(Role.CLIENT)
    client.open_stream(GET, (), is_end=True)
    events = client.receive(answer(1, is_end=False) + rst(1, REFUSED_STREAM), 0.0)
    assert [event.is_unprocessed for event in events if isinstance(event, StreamReset)] == [False]


def test_goaway_tells_which_streams_were_not_processed() -> None:
    client = started(Role.CLIENT)
    streams = [client.open_stream(GET, (), is_end=True) for _ in range(4)]
    events = client.receive(goaway(3, 0, b"too_many_pings"), 0.0)
    assert isinstance(events[0], GoawayReceived)
    assert (events[0].last_stream_id, events[0].debug) == (3, b"too_many_pings")
    ended = [event for event in events[1:] if isinstance(event, StreamReset)]
    assert [(event.stream, event.is_unprocessed) for event in ended] == [
        (streams[2], True),
        (streams[3], True),
    ]
    assert not client.can_open()
    assert names(client.receive(answer(3), 0.0)) == ["ResponseReceived"]


def test_what_a_goaway_says_is_kept_to_256_bytes() -> None:
    client = started(Role.CLIENT)
    assert len(one(client.receive(goaway(0, 0, b"d" * 5000), 0.0)).debug) == 256


def test_a_client_opens_as_many_streams_as_its_peer_allows() -> None:
    client = started(Role.CLIENT)
    client.receive(setting((3, 2)), 0.0)
    client.open_stream(GET, (), is_end=True)
    client.open_stream(GET, (), is_end=True)
    assert not client.can_open()
    with pytest.raises(RuntimeError, match="can_open"):
        client.open_stream(GET, (), is_end=True)
    client.receive(answer(1), 0.0)
    assert client.can_open()


def test_before_a_server_has_said_its_limit_a_client_opens_a_hundred() -> None:
    client = Connection(Role.CLIENT)
    for _ in range(100):
        client.open_stream(GET, (), is_end=True)
    assert not client.can_open()
    client.receive(setting(), 0.0)
    assert client.can_open()


def test_ids_end() -> None:
    client = started(Role.CLIENT)
    client._streams.last_id = MAX_STREAM_ID - 2
    assert client.open_stream(GET, (), is_end=True).stream_id == MAX_STREAM_ID
    assert not client.can_open()


def test_thirty_two_interim_heads_pass_and_one_more_ends_the_stream() -> None:
    client = started(Role.CLIENT)
    client.open_stream(GET, (), is_end=True)
    interim = headers(1, block((":status", "103")), END_HEADERS)
    assert names(client.receive(interim * 32, 0.0)) == ["InterimReceived"] * 32
    assert names(client.receive(interim, 0.0)) == ["StreamReset"]


# Draining


def test_a_server_drains_by_two_goaways() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    connection.drain()
    assert goaways(connection) == [(MAX_STREAM_ID, NO_ERROR)]
    assert connection.load.is_draining
    late = asked(connection, 3)
    connection.goaway()
    assert goaways(connection) == [(3, NO_ERROR)]
    assert connection.receive(request(5, is_end=False) + frame(DATA, END_STREAM, 5, b"d"), 0.0) == []
    for one in (stream, late):
        connection.send_head(one, 204, (), is_end=True)
        connection.release(one)
    assert connection.load.open_streams == 0
    assert [frame.kind for frame in frames_of(connection.take())] == [HEADERS, HEADERS]


def test_a_request_after_goaway_still_feeds_the_table() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection, is_end=False)
    connection.goaway()
    late = headers(3, block((":method", "GET")) + literal("x-late", "yes", 0x40))
    event = one(connection.receive(late + headers(1, b"\xbe"), 0.0))
    assert event.stream is stream
    assert [(key, value) for key, _, value in event.fields] == [(b"x-late", b"yes")]


def test_a_client_says_goaway_and_opens_no_more() -> None:
    client = started(Role.CLIENT)
    client.open_stream(GET, (), is_end=True)
    client.goaway()
    assert goaways(client) == [(0, NO_ERROR)]
    assert not client.can_open()
    assert names(client.receive(answer(1), 0.0)) == ["ResponseReceived"]


@pytest.mark.parametrize("said", [goaway(3, 0), frame(DATA, 0, 0, b"")], ids=["goaway", "fault"])
def test_after_the_peers_goaway_or_fault_its_settings_let_nothing_be_opened(said: bytes) -> None:
    client = started(Role.CLIENT)
    client.receive(said, 0.0)
    client.receive(setting((3, 500)), 0.0)
    assert not client.can_open()
    with pytest.raises(RuntimeError, match="can_open"):
        client.open_stream(GET, (), is_end=True)


def test_after_a_failure_nothing_is_done_any_more() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    assert names(connection.receive(frame(DATA, 0, 0, b"d"), 0.0)) == ["ConnectionFailed"]
    assert goaways(connection) == [(1, ErrorCode.PROTOCOL_ERROR)]
    connection.send_head(stream, 200, ())
    connection.send_data(stream, b"d")
    connection.end(stream)
    connection.reset(stream, ErrorCode.CANCEL)
    connection.ping(b"12345678")
    connection.drain()
    connection.goaway()
    connection.credit_connection(2**20)
    connection.release(stream)
    assert connection.receive(ping(), 0.0) == []
    assert connection.resume_data() == []
    assert connection.take() == b""


def test_a_ping_has_eight_bytes() -> None:
    connection = started(Role.CLIENT)
    with pytest.raises(ValueError, match="give 8"):
        connection.ping(b"123")
    connection.ping(b"are you?")
    assert frames_of(connection.take())[0].payload == b"are you?"


# Heads


def test_a_head_that_came_before_to_the_byte_is_shared() -> None:
    connection = started(Role.SERVER)
    heads = [one(connection.receive(request(2 * number + 1, ("x", "a")), 0.0)) for number in range(4)]
    assert not isinstance(heads[0].fields, Block)
    assert isinstance(heads[1].fields, Block)
    assert heads[3].fields is heads[1].fields
    assert [head.fields[0] for head in heads] == [(b"x", b"x: a\r\n", b"a")] * 4


def test_a_head_with_a_secret_is_not_kept() -> None:
    connection = started(Role.SERVER)
    heads = [one(connection.receive(request(2 * number + 1, ("cookie", "a")), 0.0)) for number in range(4)]
    assert not any(isinstance(head.fields, Block) for head in heads)


def test_a_change_of_the_table_changes_what_the_same_block_means() -> None:
    connection = started(Role.SERVER)
    raw = block((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"))
    told = []
    for number in range(6):
        if number in (0, 4):
            entry = literal("x-now", str(number), 0x40)
            connection.receive(headers(20 * number + 1, raw + entry), 0.0)
        event = one(connection.receive(headers(20 * number + 3, raw + b"\xbe"), 0.0))
        told.append(event.lookup[b"x-now"])
    assert told == [b"0"] * 4 + [b"4"] * 2


def test_cookies_are_joined_and_host_is_the_authority() -> None:
    connection = started(Role.SERVER)
    pseudo = (":method", "GET"), (":scheme", "http"), (":path", "/")
    fields = ("host", "b.test"), ("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2")
    event = one(connection.receive(headers(1, block(*pseudo, *fields)), 0.0))
    assert event.authority == b"b.test"
    assert event.lookup == {b"x": b"1, 2", b"cookie": b"a=1; b=2"}
    assert [(key, value) for key, _, value in event.fields] == [
        (b"x", b"1"),
        (b"x", b"2"),
        (b"cookie", b"a=1; b=2"),
    ]


def test_never_indexed_is_told() -> None:
    connection = started(Role.SERVER)
    raw = block((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"))
    event = one(connection.receive(headers(1, raw + literal("x-key", "s", 0x10)), 0.0))
    assert event.never_indexed == {b"x-key"}
    client = started(Role.CLIENT)
    client.open_stream(GET, (), is_end=True)
    answered = one(client.receive(headers(1, b"\x88" + literal("x-key", "s", 0x10)), 0.0))
    assert isinstance(answered, ResponseReceived)
    assert answered.never_indexed == {b"x-key"}


def test_a_204_with_a_length_of_zero_loses_it() -> None:
    client = started(Role.CLIENT)
    client.open_stream(GET, (), is_end=True)
    event = one(
        client.receive(headers(1, block((":status", "204"), ("content-length", "0"), ("x", "a"))), 0.0)
    )
    assert (event.length, dict(event.lookup)) == (None, {b"x": b"a"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_concurrent_streams", 0, "say 1 to"),
        ("stream_window", 65_534, "say 65535 to"),
        ("connection_window", 2**31, "say 65535 to"),
        ("header_table_bytes", 65_537, "say 0 to"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Http2Settings(**{name: value})


def test_a_smaller_table_is_asked_for_once_it_was_acknowledged() -> None:
    connection = Connection(Role.SERVER, Http2Settings(header_table_bytes=0))
    connection.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + setting() + request(1), 0.0)
    connection.receive(frame(4, 1, 0), 0.0)
    assert names(connection.receive(request(3), 0.0)) == ["ConnectionFailed"]


def test_repr_tells_an_operator_what_it_is_at() -> None:
    connection = started(Role.SERVER)
    stream = asked(connection)
    assert repr(connection) == "<Connection server OPEN open=1 last=1>"
    assert repr(stream) == "<Http2Stream 1 receiving=ENDED sending=HEAD unsent=0>"
