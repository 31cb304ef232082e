"""Flow control: what may be sent, what waits, whose turn it is, and what credit the peer gets."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from sidecar.core.plain import Field
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import RequestReceived
from sidecar.http2.outbox import HIGH_WATER_BYTES, LOW_WATER_BYTES
from sidecar.http2.stream import Http2Stream
from tests.http2.wire import (
    DATA,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    frame,
    frames_of,
    names,
    request,
    rst,
    setting,
    started,
    window,
)

WINDOW = 65_535
STATUS: Field = b"grpc-status", b"grpc-status: 0\r\n", b"0"
LENGTH: Field = b"content-length", b"content-length: 1\r\n", b"1"
"""It must not stand in trailers."""
PADDED = 8


def answering(connection: Connection, *stream_ids: int, is_end: bool = True) -> list[Http2Stream]:
    """Streams whose heads are sent."""
    streams = []
    for stream_id in stream_ids:
        [event] = connection.receive(request(stream_id, is_end=is_end), 0.0)
        assert isinstance(event, RequestReceived)
        connection.send_head(event.stream, 200, ())
        streams.append(event.stream)
    connection.take()
    return streams


def sizes(connection: Connection) -> list[tuple[int, int]]:
    """(stream, bytes) of each DATA that is written now."""
    return [(one.stream_id, len(one.payload)) for one in frames_of(connection.take()) if one.kind == DATA]


def credits(connection: Connection) -> list[tuple[int, int]]:
    """(stream, bytes) of each WINDOW_UPDATE that is written now."""
    written = frames_of(connection.take())
    return [
        (one.stream_id, int.from_bytes(one.payload, "big")) for one in written if one.kind == WINDOW_UPDATE
    ]


# What we send


def test_a_rest_that_waits_keeps_no_more_in_memory_than_is_counted() -> None:
    """A client chooses its window, and so how little of an answer it leaves unsent."""
    connection = started(Role.SERVER)
    streams = answering(connection, *range(1, 101, 2))
    connection.receive(window(0, 2**31 - 1 - WINDOW), 0.0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for stream in streams:
            connection.send_data(stream, b"d" * 40_000)
            connection.send_data(stream, b"e" * (WINDOW + 1 - 40_000))
            connection.take()
            assert stream.unsent_bytes == 1
        assert tracemalloc.get_traced_memory()[0] - before < len(streams) * 12_000
    finally:
        tracemalloc.stop()
    written = connection.receive(b"".join(window(stream.stream_id, 1) for stream in streams), 0.0)
    assert written == []
    assert [one.payload for one in frames_of(connection.take())] == [b"e"] * len(streams)


def test_data_goes_up_to_the_window_and_the_rest_waits() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    assert connection.send_data(stream, b"d" * (WINDOW + 10)) is True
    assert sizes(connection) == [(1, 16_384)] * 3 + [(1, 16_383)]
    assert stream.unsent_bytes == 10


def test_data_is_never_more_than_a_stream_s_window_and_resumes_with_it() -> None:
    connection = started(Role.SERVER)
    connection.receive(setting((4, 5)) + window(0, 100_000), 0.0)
    [stream] = answering(connection, 1)
    connection.send_data(stream, b"abcdefgh")
    assert [one.payload for one in frames_of(connection.take()) if one.kind == DATA] == [b"abcde"]
    connection.receive(window(1, 2), 0.0)
    assert [one.payload for one in frames_of(connection.take())] == [b"fg"]
    connection.receive(setting((4, 6)), 0.0)
    assert [one.payload for one in frames_of(connection.take()) if one.kind == DATA] == [b"h"]


def test_a_window_below_zero_holds_until_it_is_above() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.send_data(stream, b"d" * 100)
    connection.take()
    connection.receive(setting((4, 0)), 0.0)
    connection.send_data(stream, b"more")
    connection.take()
    connection.receive(window(1, 100), 0.0)
    assert sizes(connection) == []
    connection.receive(window(1, 3), 0.0)
    assert sizes(connection) == [(1, 3)]


def test_the_end_comes_behind_what_waits_and_is_told() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.send_data(stream, b"d" * (WINDOW + 1))
    assert connection.end(stream) is False
    connection.take()
    assert names(connection.receive(window(0, 9) + window(1, 1), 0.0)) == ["StreamSent"]
    assert frames_of(connection.take()) == [Frame(DATA, END_STREAM, 1, b"d")]


def test_trailers_wait_too() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.send_data(stream, b"d" * (WINDOW + 1))
    connection.end(stream, pairs=((b"grpc-status", b"0"),))
    connection.take()
    assert names(connection.receive(window(1, 9) + window(0, 9), 0.0)) == ["StreamSent"]
    assert [(one.kind, one.flags & END_STREAM) for one in frames_of(connection.take())] == [
        (DATA, 0),
        (HEADERS, 1),
    ]


def test_an_end_that_comes_at_once_is_on_the_last_data() -> None:
    connection = started(Role.SERVER)
    first, second = answering(connection, 1, 3)
    connection.send_data(first, b"a")
    connection.send_data(second, b"b")
    assert connection.end(second) is True
    assert connection.end(first) is True
    assert frames_of(connection.take()) == [
        Frame(DATA, 0, 1, b"a"),
        Frame(DATA, END_STREAM, 3, b"b"),
        Frame(DATA, END_STREAM, 1, b""),
    ]


def test_an_end_after_take_is_a_frame_of_its_own() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.send_data(stream, b"a")
    connection.take()
    connection.end(stream)
    assert frames_of(connection.take()) == [Frame(DATA, END_STREAM, 1, b"")]


def test_the_high_water_mark_blocks_and_the_low_one_frees() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.send_data(stream, b"d" * WINDOW)
    assert connection.send_data(stream, b"d" * (HIGH_WATER_BYTES - 1)) is True
    assert connection.send_data(stream, b"d") is False
    connection.receive(window(0, 2**20), 0.0)
    left = HIGH_WATER_BYTES - LOW_WATER_BYTES
    assert names(connection.receive(window(1, left - 1), 0.0)) == []
    assert names(connection.receive(window(1, 1), 0.0)) == ["StreamWritable"]
    assert names(connection.receive(window(1, 1), 0.0)) == []


def test_streams_that_wait_for_the_connection_take_turns() -> None:
    connection = started(Role.SERVER)
    streams = answering(connection, 1, 3, 5)
    connection.receive(window(1, 2**20) + window(3, 2**20) + window(5, 2**20), 0.0)
    connection.send_data(streams[0], b"d" * 200_000)
    for stream in streams[1:]:
        connection.send_data(stream, b"d" * 40_000)
    connection.take()
    connection.receive(window(0, 6 * 16_384), 0.0)
    assert [stream_id for stream_id, _ in sizes(connection)] == [1, 3, 5, 1, 3, 5]
    connection.receive(window(0, 2**20), 0.0)
    assert sum(size for _, size in sizes(connection)) == 280_000 - WINDOW - 6 * 16_384


def test_a_rest_of_one_byte_goes_with_what_comes_behind_it() -> None:
    """65,535 bytes for several streams cut the fourth piece of 16,384 in two."""
    connection = started(Role.SERVER)
    streams = answering(connection, 1, 3, 5, 7)
    for stream in streams:
        connection.send_data(stream, b"a" * 16_384)
        connection.send_data(stream, b"b" * 10_000)
    assert sizes(connection) == [(1, 16_384), (1, 10_000), (3, 16_384), (3, 10_000), (5, 12_767)]
    connection.receive(window(0, 16_384), 0.0)
    assert sizes(connection) == [(5, 13_617), (7, 2_767)]
    connection.receive(window(0, 100_000), 0.0)
    connection.end(streams[3])
    written = [one for one in frames_of(connection.take()) if one.kind == DATA]
    assert [(one.stream_id, len(one.payload)) for one in written] == [(7, 16_384), (7, 7_233)]
    assert b"".join(one.payload for one in written) == b"a" * 13_617 + b"b" * 10_000
    assert [one.flags for one in written] == [0, END_STREAM]


def test_a_stream_without_a_window_stops_no_other() -> None:
    connection = started(Role.SERVER)
    first, second = answering(connection, 1, 3)
    connection.receive(window(0, 2**20), 0.0)
    connection.send_data(first, b"d" * 70_000)
    connection.send_data(second, b"d" * 10)
    assert sizes(connection)[-1] == (3, 10)


def test_while_the_link_is_full_bodies_wait_and_heads_do_not() -> None:
    connection = started(Role.SERVER)
    first, second = answering(connection, 1, 3)
    connection.hold_data()
    connection.send_data(first, b"abc")
    assert connection.end(first) is False
    connection.reset(second, ErrorCode.CANCEL)
    assert [one.kind for one in frames_of(connection.take())] == [RST_STREAM]
    assert names(connection.receive(window(0, 10), 0.0)) == []
    assert sizes(connection) == []
    assert names(connection.resume_data()) == ["StreamSent"]
    assert frames_of(connection.take()) == [Frame(DATA, END_STREAM, 1, b"abc")]


def test_what_waits_is_dropped_with_its_stream() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.send_data(stream, b"d" * 100_000)
    connection.take()
    assert names(connection.receive(rst(1), 0.0)) == ["StreamReset"]
    assert stream.unsent_bytes == 0
    connection.receive(window(0, 2**20), 0.0)
    assert connection.send_data(stream, b"late") is True
    assert connection.end(stream) is True
    assert connection.take() == b""


def test_a_large_piece_goes_whole_and_in_order() -> None:
    connection = started(Role.SERVER)
    connection.receive(setting((4, 2**30)) + window(0, 2**30), 0.0)
    [stream] = answering(connection, 1)
    body = bytes(range(256)) * 40_000
    connection.send_data(stream, body)
    assert b"".join(one.payload for one in frames_of(connection.take())) == body


# What we receive


def test_connection_credit_goes_out_at_half_of_the_window() -> None:
    connection = started(Role.SERVER)
    connection.credit_connection(512 * 1024 - 1)
    assert connection.take() == b""
    connection.credit_connection(1)
    assert credits(connection) == [(0, 512 * 1024)]


def test_stream_credit_goes_out_at_half_of_its_window() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1, is_end=False)
    connection.credit_stream(stream, 128 * 1024 - 1)
    assert connection.take() == b""
    connection.credit_stream(stream, 1)
    assert credits(connection) == [(1, 128 * 1024)]


def test_a_body_of_any_length_passes_as_long_as_credit_is_given() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1, is_end=False)
    for _ in range(400):
        [event] = connection.receive(frame(DATA, 0, 1, b"d" * 16_384), 0.0)
        assert type(event).__name__ == "DataReceived"
        connection.credit_connection(16_384)
        connection.credit_stream(stream, 16_384)


def test_a_stalled_stream_stops_no_other() -> None:
    """It has used its own window; the connection's is given back at receipt."""
    connection = started(Role.SERVER)
    _, second = answering(connection, 1, 3, is_end=False)
    for _ in range(16):
        connection.receive(frame(DATA, 0, 1, b"d" * 16_384), 0.0)
        connection.credit_connection(16_384)
    for _ in range(200):
        [event] = connection.receive(frame(DATA, 0, 3, b"d" * 16_384), 0.0)
        assert type(event).__name__ == "DataReceived"
        connection.credit_connection(16_384)
        connection.credit_stream(second, 16_384)
    assert names(connection.receive(frame(DATA, 0, 1, b"d"), 0.0)) == ["StreamReset"]


def test_padding_is_given_back_by_the_codec() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1, is_end=False)
    padded = frame(DATA, PADDED, 1, b"\xff" + b"d" + b"\0" * 255)
    for _ in range(5000):
        connection.receive(padded, 0.0)
        connection.credit_connection(1)
        connection.credit_stream(stream, 1)
    total = {0: 0, 1: 0}
    for stream_id, size in credits(connection):
        total[stream_id] += size
    assert total[0] > 5000 * 257 - 512 * 1024
    assert total[1] > 5000 * 257 - 128 * 1024


def test_data_for_a_stream_that_we_have_reset_is_given_back_by_the_codec() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1, is_end=False)
    connection.reset(stream, ErrorCode.CANCEL)
    for _ in range(500):
        assert connection.receive(frame(DATA, 0, 1, b"d" * 16_384), 0.0) == []
    assert sum(size for _, size in credits(connection)) > 500 * 16_384 - 512 * 1024


def test_a_stream_whose_request_is_whole_gets_no_credit() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.credit_stream(stream, 2**20)
    assert connection.take() == b""


@pytest.mark.parametrize("role", Role)
def test_the_windows_of_the_contract_are_said_at_the_beginning(role: Role) -> None:
    written = frames_of(Connection(role).take())
    said = dict(struct.iter_unpack(">HI", written[0].payload))
    common = {4: 256 * 1024, 6: 64 * 1024}
    assert said == (common | {3: 1000, 8: 1} if role is Role.SERVER else common | {2: 0})
    assert (written[1].stream_id, int.from_bytes(written[1].payload, "big")) == (0, 1024 * 1024 - WINDOW)


@pytest.mark.parametrize("size", [1, WINDOW, WINDOW + 1])
def test_the_last_of_a_body_says_so_in_its_own_frame_also_where_it_waits(size: int) -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    is_sent = connection.send_last(stream, bytes(size))
    written = frames_of(connection.take())
    assert is_sent is (size <= WINDOW)
    if not is_sent:
        assert not written[-1].flags & END_STREAM
        connection.receive(window(1, 1) + window(0, 1), 0.0)
        written += frames_of(connection.take())
    assert [one.flags for one in written] == [0] * (len(written) - 1) + [END_STREAM]
    assert sum(len(one.payload) for one in written) == size
    assert connection.end(stream)  # it has ended: nothing follows


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("is_body_here", [False, True])
@pytest.mark.parametrize("trailers", [[STATUS], [STATUS, LENGTH], [LENGTH]])
@pytest.mark.parametrize("size", [1, 20_000, WINDOW, WINDOW + 1])
def test_the_last_of_a_body_goes_with_its_trailers_as_by_data_and_end(
    size: int, trailers: list[Field], is_body_here: bool, is_held: bool
) -> None:
    def written(*, at_once: bool) -> tuple[bool, bool, list[Frame]]:
        connection = started(Role.SERVER)
        [stream] = answering(connection, 1, is_end=is_body_here)
        if is_held:
            connection.hold_data()
        if at_once:
            is_sent = connection.send_last(stream, bytes(size), trailers)
        else:
            connection.send_data(stream, bytes(size))
            is_sent = connection.end(stream, trailers)
        frames = frames_of(connection.take())
        connection.resume_data()
        connection.receive(window(1, 1) + window(0, 1), 0.0)
        return is_sent, stream.is_over, frames + frames_of(connection.take())

    assert written(at_once=True) == written(at_once=False)


def test_the_last_of_a_body_is_not_sent_while_the_link_is_full() -> None:
    connection = started(Role.SERVER)
    [stream] = answering(connection, 1)
    connection.hold_data()
    assert not connection.send_last(stream, b"ab")
    assert connection.take() == b""
    connection.resume_data()
    assert [(one.payload, one.flags) for one in frames_of(connection.take())] == [(b"ab", END_STREAM)]
