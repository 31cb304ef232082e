"""As much of an HTTP/2 client as a soak needs (RFC 9113): requests without a body, and when they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 4.1."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def streams(count: int) -> list[int]:
    """The first of them: clients have the odd numbers."""
    return list(range(1, 2 * count, 2))


def requests(targets: Mapping[int, bytes]) -> bytes:
    """A connection's beginning, and a GET on each stream."""
    heads = [
        frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream,
            b"\x82\x86\x04" + _text(target) + b"\x01" + _text(b"app"),
        )
        for stream, target in targets.items()
    ]
    return b"".join([PREFACE, frame(SETTINGS, 0, 0), *heads])


def _text(text: bytes) -> bytes:
    """A short string of HPACK, without Huffman's code (RFC 7541 5.2)."""
    return bytes((len(text),)) + text


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_streams: set[int]) -> None:
    """Read until each stream has ended, and give back what credit is used."""
    while open_streams:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big")
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK, 0))
        elif kind == GOAWAY:
            raise ConnectionResetError("told to go away")
        elif kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            open_streams.discard(stream)
        if kind == DATA and payload:
            credit = len(payload).to_bytes(4, "big")
            writer.write(frame(WINDOW_UPDATE, 0, 0, credit))
            if stream in open_streams:
                writer.write(frame(WINDOW_UPDATE, 0, stream, credit))
