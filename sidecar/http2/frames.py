"""Frames as bytes (RFC 9113 4.1 and 6): their kinds and flags, and how those that we send are written."""

from __future__ import annotations

import struct
from typing import Final

from sidecar.http2.errors import protocol_error

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_BYTES: Final = 9
MAX_BYTES: Final = 16_384
"""Of a frame's payload: what we let peers send, and what we send at most."""

HEADER: Final = struct.Struct(">LBL")
"""Length (24 bits) and kind, flags, stream: cheaper than slices."""
_LONG: Final = struct.Struct(">L")
_SETTING: Final = struct.Struct(">HL")
_GOAWAY: Final = struct.Struct(">LL")
_WITH_LONG: Final = struct.Struct(">LBLL")

pack_header: Final = HEADER.pack
unpack_header: Final = HEADER.unpack_from
unpack_long = _LONG.unpack_from
unpack_setting = _SETTING.unpack_from
unpack_goaway = _GOAWAY.unpack_from


def header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    return HEADER.pack(length << 8 | kind, flags, stream_id)


def rst_stream(stream_id: int, code: int) -> bytes:
    return _WITH_LONG.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, size: int) -> bytes:
    """`stream_id` 0 is the connection."""
    return _WITH_LONG.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, size)


def settings(values: dict[int, int]) -> bytes:
    payload = b"".join([_SETTING.pack(key, value) for key, value in values.items()])
    return header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = header(0, SETTINGS, ACK, 0)


def ping(payload: bytes, *, is_answer: bool) -> bytes:
    """`payload` is 8 bytes."""
    return header(8, PING, ACK if is_answer else 0, 0) + payload


def goaway(last_stream_id: int, code: int, debug: bytes) -> bytes:
    return header(8 + len(debug), GOAWAY, 0, 0) + _GOAWAY.pack(last_stream_id, code) + debug


def without_padding(payload: bytes, least: int) -> bytes:
    """The payload without the length of its padding and the padding; at least `least` bytes are left before it.

    Raises: ConnectionFault.
    """
    padding = payload[0] if payload else 0
    if not payload or padding + 1 + least > len(payload):
        raise protocol_error("padding that is longer than its frame")
    return payload[1 : len(payload) - padding]
