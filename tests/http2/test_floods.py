"""Bounds: what is at a limit passes, one more ends the connection, and every frame is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.http2 import floods
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import ConnectionFailed, Http2Event, RequestReceived, StreamReset
from sidecar.http2.floods import TRUSTED, UNTRUSTED, FloodLimits, TokenBucket
from sidecar.http2.settings import Http2Settings
from sidecar.http2.stream import Http2Stream
from tests.http2.wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    HEADERS,
    POST,
    REFUSED_STREAM,
    RST_STREAM,
    block,
    frame,
    frames_of,
    headers,
    literal,
    names,
    ping,
    priority,
    request,
    rst,
    setting,
    started,
    window,
)


def opened_and_reset(number: int) -> bytes:
    return request(2 * number + 1) + rst(2 * number + 1)


def malformed(number: int) -> bytes:
    """Makes us reset it."""
    return request(2 * number + 1, ("Upper", "x"))


OPEN = request(1, is_end=False)
FLOODS: dict[str, tuple[str, int, bytes, Callable[[int], bytes]]] = {
    "streams that the client resets": (floods.RESET, 1000, b"", opened_and_reset),
    "streams that it makes us reset": (floods.RESET, 1000, b"", malformed),
    "resets of one stream": (floods.RESET, 1000, OPEN, lambda _: rst(1)),
    "SETTINGS": (floods.SETTINGS, 99, b"", lambda _: setting()),
    "PING": (floods.PING, 100, b"", lambda _: ping()),
    "empty DATA": (floods.EMPTY_DATA, 10, OPEN, lambda _: frame(DATA, 0, 1)),
    "DATA that is padding": (floods.EMPTY_DATA, 10, OPEN, lambda _: frame(DATA, 8, 1, b"\x02\0\0")),
    "PRIORITY": (floods.PRIORITY, 110, OPEN, lambda _: priority(1)),
    "PRIORITY without a stream": (floods.PRIORITY, 100, b"", lambda _: priority(1)),
    "WINDOW_UPDATE": (floods.WINDOW_UPDATE, 110, OPEN, lambda _: window(0, 1)),
    "WINDOW_UPDATE of a stream": (floods.WINDOW_UPDATE, 110, OPEN, lambda _: window(1, 1)),
    "unknown frames": (floods.UNKNOWN, 100, b"", lambda _: frame(0x42, 0, 0, b"?")),
    "CONTINUATION": (
        floods.CONTINUATION,
        8,
        headers(1, block(*POST), 0),
        lambda _: frame(CONTINUATION, 0, 1),
    ),
}
"""The kind, how many pass, what comes first, and each."""


def failed(events: list[Http2Event]) -> ConnectionFailed | None:
    return next((event for event in events if isinstance(event, ConnectionFailed)), None)


def release_all(connection: Connection, events: list[Http2Event]) -> None:
    for event in events:
        if isinstance(event, RequestReceived):
            connection.release(event.stream)


@pytest.mark.parametrize("name", FLOODS)
def test_at_the_limit_it_passes_and_one_more_ends_the_connection(name: str) -> None:
    kind, limit, first, each = FLOODS[name]
    connection = started(Role.SERVER)
    connection.receive(first, 0.0)
    before = connection.floods.counts[kind]
    for number in range(limit):
        events = connection.receive(each(number), 0.0)
        release_all(connection, events)
        connection.take()
        assert failed(events) is None, f"after {number + 1}"
    assert connection.floods.counts[kind] == before + limit
    breach = failed(connection.receive(each(limit), 0.0))
    assert breach is not None
    assert (breach.code, breach.flood) == (ENHANCE_YOUR_CALM, kind)


def test_each_kind_has_its_case() -> None:
    assert {case[0] for case in FLOODS.values()} | {floods.ANSWERS} == set(floods.KINDS)


def test_a_client_that_is_not_trusted_has_less() -> None:
    connection = started(Role.SERVER, limits=UNTRUSTED)
    for number in range(200):
        events = connection.receive(opened_and_reset(number), 0.0)
        release_all(connection, events)
        assert failed(events) is None
    assert failed(connection.receive(opened_and_reset(200), 0.0)) is not None


@pytest.mark.parametrize(
    ("limits", "rate", "goes_on"),
    [(TRUSTED, 200, True), (TRUSTED, 250, False), (UNTRUSTED, 20, True), (UNTRUSTED, 25, False)],
)
def test_resets_at_the_rate_go_on_for_ever(limits: FloodLimits, rate: int, goes_on: bool) -> None:
    connection = started(Role.SERVER, limits=limits)
    number = 0
    for second in range(60):
        for part in range(rate):
            events = connection.receive(opened_and_reset(number), second + part / rate)
            release_all(connection, events)
            connection.take()
            number += 1
            if failed(events) is not None:
                assert not goes_on
                return
    assert goes_on


@pytest.mark.parametrize(
    ("limits", "rate", "age_seconds", "goes_on"),
    [
        (TRUSTED, 300, 0.0051, True),
        (TRUSTED, 300, 2.0, True),
        (TRUSTED, 2000, 0.1, True),
        (TRUSTED, 2500, 0.1, False),
        (TRUSTED, 300, 0.0049, False),
        (UNTRUSTED, 200, 0.1, True),
        (UNTRUSTED, 250, 0.1, False),
    ],
)
def test_calls_that_have_lived_are_cancelled_at_ten_times_the_rate(
    limits: FloodLimits, rate: int, age_seconds: float, goes_on: bool
) -> None:
    """Three hundred a second and more, by two sidecars in a row: for a minute, as for ever."""
    connection = started(Role.SERVER, limits=limits)
    steps = [(number / rate, request(2 * number + 1)) for number in range(60 * rate)]
    steps += [(number / rate + age_seconds, rst(2 * number + 1)) for number in range(60 * rate)]
    open_calls: dict[int, Http2Stream] = {}
    for now, data in sorted(steps, key=lambda step: step[0]):
        for event in connection.receive(data, now):
            if isinstance(event, RequestReceived):
                open_calls[event.stream.stream_id] = event.stream
            elif isinstance(event, StreamReset):
                connection.release(open_calls.pop(event.stream.stream_id))
            elif isinstance(event, ConnectionFailed):
                assert not goes_on
                return
        connection.take()
    assert goes_on


def test_resets_by_an_upstream_are_no_flood() -> None:
    client = started(Role.CLIENT)
    pseudo = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))
    for _ in range(2000):
        stream = client.open_stream(pseudo, (), is_end=True)
        assert names(client.receive(rst(stream.stream_id), 0.0)) == ["StreamReset"]
        client.release(stream)


def test_answers_that_nobody_reads_end_the_connection() -> None:
    limits = FloodLimits(ping_burst=5000)
    connection = started(Role.SERVER, limits=limits)
    assert failed(connection.receive(ping() * 1000, 0.0)) is None
    assert connection.load.unsent_answers == 1000
    breach = failed(connection.receive(ping(), 0.0))
    assert breach is not None
    assert breach.flood == floods.ANSWERS


def test_answers_that_are_read_count_no_more() -> None:
    connection = started(Role.SERVER, limits=FloodLimits(ping_burst=5000))
    connection.receive(ping() * 1000, 0.0)
    connection.take()
    assert connection.load.unsent_answers == 0
    assert failed(connection.receive(ping() * 1000, 0.0)) is None


def test_a_row_of_empty_data_ends_with_one_that_brings_something() -> None:
    connection = started(Role.SERVER)
    connection.receive(OPEN, 0.0)
    row = frame(DATA, 0, 1) * 10 + frame(DATA, 0, 1, b"d")
    assert failed(connection.receive(row * 50, 0.0)) is None


def answering() -> tuple[Connection, Http2Stream]:
    """A server whose answer has its head, and goes on."""
    connection = started(Role.SERVER)
    [event] = connection.receive(request(1), 0.0)
    assert isinstance(event, RequestReceived)
    connection.send_head(event.stream, 200, ())
    return connection, event.stream


def test_each_data_frame_that_we_sent_allows_window_updates() -> None:
    connection, stream = answering()
    for _ in range(20):
        connection.send_data(stream, b"d")
    assert failed(connection.receive(window(0, 1) * 310, 0.0)) is None
    assert failed(connection.receive(window(0, 1), 0.0)) is not None


def test_each_data_frame_that_we_sent_allows_a_ping() -> None:
    """gRPC's libraries measure their windows so: while they read, one PING after the other, each for new DATA."""
    connection, stream = answering()
    for _ in range(1000):
        connection.send_data(stream, b"d")
        assert failed(connection.receive(ping(), 0.0)) is None
        connection.take()
    assert failed(connection.receive(ping() * 99, 0.0)) is None
    assert failed(connection.receive(ping(), 0.0)) is not None


def test_data_sent_long_ago_allows_no_more_than_a_burst_of_pings() -> None:
    connection, stream = answering()
    for _ in range(1000):
        connection.send_data(stream, b"d")
    assert failed(connection.receive(ping() * 100, 0.0)) is None
    assert failed(connection.receive(ping(), 0.0)) is not None


def test_a_stream_that_was_reset_counts_until_it_is_released() -> None:
    connection = started(Role.SERVER, ours=Http2Settings(max_concurrent_streams=3))
    streams = []
    for number in range(3):
        events = connection.receive(opened_and_reset(number), 0.0)
        assert isinstance(events[0], RequestReceived)
        streams.append(events[0].stream)
    assert names(connection.receive(request(7), 0.0)) == ["RequestMalformed"]
    refusals = [one for one in frames_of(connection.take()) if one.kind == RST_STREAM]
    assert [(one.stream_id, one.payload[3]) for one in refusals] == [(7, REFUSED_STREAM)]
    connection.release(streams[0])
    assert names(connection.receive(request(9), 0.0)) == ["RequestReceived"]
    assert connection.load.open_streams == 3


def test_a_thousand_streams_are_open_at_once_and_no_more() -> None:
    connection = started(Role.SERVER)
    events = connection.receive(b"".join(request(2 * number + 1) for number in range(1001)), 0.0)
    assert names(events) == ["RequestReceived"] * 1000 + ["RequestMalformed"]


def test_a_head_at_the_limit_passes_and_one_byte_more_is_told_as_too_large() -> None:
    room = 65_536 - sum(len(name) + len(value) + 32 for name, value in POST) - 33
    for size, told in ((room, "RequestReceived"), (room + 1, "RequestTooLarge")):
        connection = started(Role.SERVER)
        raw = block(*POST) + literal("x", b"v" * size)
        parts = [raw[start : start + 16_384] for start in range(0, len(raw), 16_384)]
        data = frame(HEADERS, 0, 1, parts[0])
        data += b"".join(frame(CONTINUATION, 0, 1, part) for part in parts[1:-1])
        data += frame(CONTINUATION, END_HEADERS, 1, parts[-1])
        assert names(connection.receive(data, 0.0)) == [told]
        assert connection.take() == b""
        assert names(connection.receive(request(3), 0.0)) == ["RequestReceived"]


def test_many_small_references_to_a_large_entry_are_too_much() -> None:
    connection = started(Role.SERVER)
    bomb = block(*POST) + literal("x", b"v" * 4000, 0x40) + b"\xbe" * 4_000
    assert names(connection.receive(headers(1, bomb), 0.0)) == ["RequestTooLarge"]
    assert names(connection.receive(request(3), 0.0)) == ["RequestReceived"]


def test_a_head_that_is_too_large_counts_as_an_open_stream_and_as_a_reset() -> None:
    bomb = block(*POST) + literal("x", b"v" * 4000, 0x40) + b"\xbe" * 40
    connection = started(Role.SERVER)
    told = connection.receive(headers(1, bomb), 0.0)
    assert names(told) == ["RequestTooLarge"]
    assert connection.load.open_streams == 1
    connection.release(told[0].stream)  # type: ignore[attr-defined]
    assert connection.load.open_streams == 0
    again = b"".join(headers(2 * number + 3, bomb) for number in range(1000))
    assert names(connection.receive(again, 0.0))[-1] == "ConnectionFailed"


def test_a_flood_ends_early_and_what_follows_costs_nothing() -> None:
    """Nothing is kept of what a failed connection still sends."""
    connection = started(Role.SERVER)
    events = connection.receive(ping() * 20_000, 0.0)
    assert names(events) == ["ConnectionFailed"]
    assert connection.receive(ping() * 20_000, 1.0) == []


def test_a_bucket_fills_at_its_rate_and_not_beyond() -> None:
    bucket = TokenBucket(2, 10.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert bucket.take(0.099) is False
    assert bucket.take(0.2) is True
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(1, 10.0)
    assert bucket.take(5.0) is True
    assert bucket.take(1.0) is False


def test_streams_that_wait_for_their_own_windows_cost_nothing_when_the_connection_s_grows() -> None:
    """A thousand answers wait, and none is looked at again for each of 10,000 frames."""
    connection = started(Role.SERVER)
    connection.receive(setting((4, 0)), 0.0)
    for number in range(1000):
        [event] = connection.receive(request(2 * number + 1), 0.0)
        assert isinstance(event, RequestReceived)
        connection.send_head(event.stream, 200, ())
        connection.send_data(event.stream, b"d" * 1000)
    assert connection._outbox._waiting == {}
    assert connection.receive(window(0, 1) * 10_000, 0.0) == []
    connection.take()
    connection.receive(window(1, 7), 0.0)
    assert [len(one.payload) for one in frames_of(connection.take())] == [7]


def test_many_fields_that_are_never_indexed_are_read_once_each() -> None:
    connection = started(Role.SERVER)
    raw = block(*POST) + b"".join(literal(f"x-{number}", "", 0x10) for number in range(1500))
    parts = headers(1, raw[:16_000], 0) + frame(CONTINUATION, END_HEADERS, 1, raw[16_000:])
    [event] = connection.receive(parts, 0.0)
    assert isinstance(event, RequestReceived)
    assert len(event.never_indexed) == 1500
