"""A head that is read from memory is that of this message, whatever has changed the table in between."""

from __future__ import annotations

import pytest

from sidecar.http2 import events
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.stream import Http2Stream
from tests.http2.wire import ACK, END_HEADERS, HEADERS, PREFACE, SETTINGS, block, frame, setting

END_STREAM = 1
NEWEST = b"\xbe"
"""The newest entry of the dynamic table (RFC 7541 2.3.3)."""
ASKED = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))


def added(name: bytes, value: bytes) -> bytes:
    """A field that enters the table (RFC 7541 6.2.1)."""
    return b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value


def opened(connection: Connection) -> Http2Stream:
    stream = connection.open_stream(ASKED, (), is_end=True)
    connection.take()
    return stream


def answered(connection: Connection, stream: Http2Stream, data: bytes) -> list[bytes | None]:
    """Whose each answer is."""
    raw = frame(HEADERS, END_HEADERS | END_STREAM, stream.stream_id, data)
    told = [
        event.lookup.get(b"x-tenant")
        for event in connection.receive(raw, 0.0)
        if isinstance(event, events.ResponseReceived)
    ]
    connection.release(stream)
    connection.take()
    return told


def test_the_answer_of_a_call_that_was_cancelled_changes_the_table_for_the_next() -> None:
    connection = Connection(Role.CLIENT)
    connection.receive(setting() + frame(SETTINGS, ACK, 0), 0.0)
    assert answered(connection, opened(connection), b"\x88" + added(b"x-tenant", b"alice")) == [b"alice"]
    for _ in range(5):
        assert answered(connection, opened(connection), b"\x88" + NEWEST) == [b"alice"]
    cancelled = opened(connection)
    connection.reset(cancelled, ErrorCode.CANCEL)
    assert answered(connection, cancelled, b"\x88" + added(b"x-tenant", b"bob")) == []
    assert answered(connection, opened(connection), b"\x88" + NEWEST) == [b"bob"]


@pytest.mark.parametrize("spoilt", [added(b"x-Bad", b"1"), b"\x00\x02te\x07chunked"], ids=["name", "te"])
def test_a_malformed_request_changes_the_table_for_the_next(spoilt: bytes) -> None:
    connection = Connection(Role.SERVER)
    connection.receive(PREFACE + setting() + frame(SETTINGS, ACK, 0), 0.0)
    number = -1

    def ask(data: bytes) -> list[bytes | None]:
        nonlocal number
        number += 2
        found = connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, number, data), 0.0)
        return [one.lookup.get(b"x-user") for one in found if isinstance(one, events.RequestReceived)]

    begun = block(*ASKED)
    assert ask(begun + added(b"x-user", b"alice")) == [b"alice"]
    for _ in range(5):
        assert ask(begun + NEWEST) == [b"alice"]
    assert ask(begun + spoilt + added(b"x-user", b"bob")) == []
    assert ask(begun + NEWEST) == [b"bob"]
