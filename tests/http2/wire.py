"""Frames and header blocks as tests write and read them, by the RFCs alone: nothing here is the codec's own."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import Http2Event

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = (
    5,
    6,
    7,
    8,
    9,
    11,
)

REQUEST = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test"))
POST = ((":method", "POST"), *REQUEST[1:])
ANSWER = ((":status", "200"),)


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def frames_of(data: bytes) -> list[Frame]:
    """All frames of what was written, a preface before them left out."""
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        kind, flags, stream_id = struct.unpack(">BBI", data[3:9])
        assert len(data) >= 9 + length
        found.append(Frame(kind, flags, stream_id, data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def integer(value: int, bits: int, pattern: int = 0) -> bytes:
    limit = 2**bits - 1
    if value < limit:
        return bytes([pattern | value])
    out = [pattern | limit]
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def string(text: str | bytes) -> bytes:
    raw = text.encode("latin-1") if isinstance(text, str) else text
    return integer(len(raw), 7) + raw


def literal(name: str | bytes, value: str | bytes, pattern: int = 0x00) -> bytes:
    """With a name of its own; 0x00 without indexing, 0x10 never indexed, 0x40 with indexing."""
    return bytes([pattern]) + string(name) + string(value)


def block(*fields: tuple[str, str]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def headers(stream_id: int, raw: bytes, flags: int = END_STREAM | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream_id, raw)


def request(stream_id: int = 1, *more: tuple[str, str], is_end: bool = True) -> bytes:
    """A request that is well-formed as long as `more` is."""
    flags = END_HEADERS | (END_STREAM if is_end else 0)
    return headers(stream_id, block(*(REQUEST if is_end else POST), *more), flags)


def answer(stream_id: int = 1, *more: tuple[str, str], is_end: bool = True) -> bytes:
    return headers(stream_id, block(*ANSWER, *more), END_HEADERS | (END_STREAM if is_end else 0))


def setting(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in pairs))


def rst(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def window(stream_id: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", size))


def priority(stream_id: int, depends: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream_id, struct.pack(">IB", depends, weight))


def goaway(last_id: int, code: int = NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_id, code) + debug)


def ping(payload: bytes = b"12345678", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


def started(role: Role, **options: object) -> Connection:
    """A connection that has both sides' SETTINGS behind it, its own acknowledged."""
    connection = Connection(role, **options)  # type: ignore[arg-type]
    connection.take()
    begin = PREFACE if role is Role.SERVER else b""
    connection.receive(begin + setting() + frame(SETTINGS, ACK, 0), 0.0)
    connection.take()
    return connection


def names(events: list[Http2Event]) -> list[str]:
    return [type(event).__name__ for event in events]
