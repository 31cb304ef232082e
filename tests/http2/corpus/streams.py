"""Streams and the frames of messages (RFC 9113 5, 6.1 to 6.4, 6.10)."""

from __future__ import annotations

import struct

from tests.http2.corpus.case import BOTH, CLIENT, Case, Fails, Resets, Takes
from tests.http2.wire import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADERS,
    PADDED,
    PRIORITY,
    PROTOCOL_ERROR,
    REQUEST,
    RST_STREAM,
    STREAM_CLOSED,
    WITH_PRIORITY,
    answer,
    block,
    frame,
    headers,
    ping,
    priority,
    request,
    rst,
    window,
)

RAW = block(*REQUEST)
OPEN = request(1, is_end=False)
BOTH_FLAGS = END_STREAM | END_HEADERS


def data(stream_id: int = 1, payload: bytes = b"data", flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream_id, payload)


def depends(stream_id: int) -> bytes:
    return struct.pack(">IB", stream_id, 15)


IDLE = [
    Case("5.1 idle: PRIORITY", priority(9), Takes(), BOTH),
    Case("5.1 idle: DATA", data(9), Fails(PROTOCOL_ERROR), BOTH),
    Case("5.1 idle: RST_STREAM", rst(9), Fails(PROTOCOL_ERROR), BOTH),
    Case("5.1 idle: an answer for a stream that was not asked on", answer(9), Fails(PROTOCOL_ERROR), CLIENT),
    Case("5.1 idle: an answer for an even stream", answer(2), Fails(PROTOCOL_ERROR), CLIENT),
    Case("5.1.1 a request on an even stream", request(2), Fails(PROTOCOL_ERROR)),
    Case("5.1.1 streams are passed over", request(5), Takes(("RequestReceived",))),
    Case("5.1.1 a request on a lower stream than the last", request(5) + request(3), Fails(STREAM_CLOSED)),
]

HALF_CLOSED = [
    Case("5.1 half closed: DATA", request() + data(), Resets(1, STREAM_CLOSED)),
    Case("5.1 half closed: HEADERS", request() + request(), Resets(1, STREAM_CLOSED)),
    Case("5.1 half closed: WINDOW_UPDATE", request() + window(1, 10), Takes(("RequestReceived",))),
    Case("5.1 half closed: PRIORITY", request() + priority(1), Takes(("RequestReceived",))),
    Case("5.1 half closed: RST_STREAM", request() + rst(1), Takes(("RequestReceived", "StreamReset"))),
    Case(
        "5.1 half closed: CONTINUATION",
        request() + frame(CONTINUATION, END_HEADERS, 1),
        Fails(PROTOCOL_ERROR),
    ),
]

CLOSED = [
    Case("5.1 reset by its sender: DATA", OPEN + rst(1) + data(), Resets(1, STREAM_CLOSED)),
    Case("5.1 reset by its sender: HEADERS", OPEN + rst(1) + request(), Resets(1, STREAM_CLOSED)),
    Case(
        "5.1 reset by its sender: RST_STREAM again",
        OPEN + rst(1) + rst(1),
        Takes(("RequestReceived", "StreamReset")),
    ),
    Case(
        "5.1 reset by its sender: WINDOW_UPDATE",
        OPEN + rst(1) + window(1, 9),
        Takes(("RequestReceived", "StreamReset")),
    ),
    Case(
        "5.1 reset by its sender: PRIORITY",
        OPEN + rst(1) + priority(1),
        Takes(("RequestReceived", "StreamReset")),
    ),
    Case("5.1 over: DATA", answer() + data(), Fails(STREAM_CLOSED), CLIENT),
    Case("5.1 over: HEADERS", answer() + answer(), Fails(STREAM_CLOSED), CLIENT),
    Case("5.1 over: WINDOW_UPDATE", answer() + window(1, 9), Takes(("ResponseReceived",)), CLIENT),
    Case("5.1 over: RST_STREAM", answer() + rst(1), Takes(("ResponseReceived",)), CLIENT),
    Case("5.1 over: PRIORITY", answer() + priority(1), Takes(("ResponseReceived",)), CLIENT),
    Case("5.1.1 passed over, then DATA", request(5) + data(3), Fails(STREAM_CLOSED)),
]

PRIORITIES = [
    Case(
        "5.3 a request that depends on itself",
        headers(1, depends(1) + RAW, BOTH_FLAGS | WITH_PRIORITY),
        Resets(1, PROTOCOL_ERROR),
    ),
    Case("5.3 PRIORITY that depends on itself", OPEN + priority(1, 1), Resets(1, PROTOCOL_ERROR)),
    Case("5.3 PRIORITY that depends on itself, before its stream", priority(7, 7), Fails(PROTOCOL_ERROR)),
    Case(
        "6.2 a request with a priority",
        headers(1, depends(9) + RAW, BOTH_FLAGS | WITH_PRIORITY),
        Takes(("RequestReceived",)),
    ),
    Case(
        "6.2 an exclusive one",
        headers(1, depends(2**31) + RAW, BOTH_FLAGS | WITH_PRIORITY),
        Takes(("RequestReceived",)),
    ),
    Case(
        "6.2 a request that is too short for its priority",
        headers(1, b"\0\0", BOTH_FLAGS | WITH_PRIORITY),
        Fails(FRAME_SIZE_ERROR),
    ),
    Case("6.3 PRIORITY of 4 bytes", OPEN + frame(PRIORITY, 0, 1, b"\0" * 4), Resets(1, FRAME_SIZE_ERROR)),
    Case(
        "6.3 PRIORITY of 6 bytes before its stream", frame(PRIORITY, 0, 7, b"\0" * 6), Fails(FRAME_SIZE_ERROR)
    ),
    Case("6.3 PRIORITY, highest weight", priority(1, 0, 255) + request(), Takes(("RequestReceived",))),
    Case("6.3 PRIORITY that depends on another", OPEN + priority(1, 7), Takes(("RequestReceived",))),
]

DATA_FRAMES = [
    Case("6.1 one DATA", OPEN + data(), Takes(("RequestReceived", "DataReceived"))),
    Case(
        "6.1 two DATA",
        OPEN + data(flags=0) + data(),
        Takes(("RequestReceived", "DataReceived", "DataReceived")),
    ),
    Case("6.1 an empty DATA ends", OPEN + data(payload=b""), Takes(("RequestReceived", "DataReceived"))),
    Case(
        "6.1 padded DATA",
        OPEN + data(payload=b"\x03data\0\0\0", flags=END_STREAM | PADDED),
        Takes(("RequestReceived", "DataReceived")),
    ),
    Case(
        "6.1 DATA that is padding alone",
        OPEN + data(payload=b"\x03\0\0\0", flags=END_STREAM | PADDED),
        Takes(("RequestReceived", "DataReceived")),
    ),
    Case(
        "6.1 padding that is longer than its frame",
        OPEN + data(payload=b"\x05data", flags=PADDED),
        Fails(PROTOCOL_ERROR),
    ),
    Case(
        "6.1 padding as long as its frame",
        OPEN + data(payload=b"\x05\0\0\0\0", flags=PADDED),
        Fails(PROTOCOL_ERROR),
    ),
    Case(
        "6.1 a padded frame without anything", OPEN + data(payload=b"", flags=PADDED), Fails(PROTOCOL_ERROR)
    ),
    Case(
        "6.1 an answer's DATA",
        answer(is_end=False) + data(),
        Takes(("ResponseReceived", "DataReceived")),
        CLIENT,
    ),
    Case(
        "6.1 an answer's padding that is too long",
        answer(is_end=False) + data(payload=b"\x09d", flags=PADDED),
        Fails(PROTOCOL_ERROR),
        CLIENT,
    ),
    Case("8.1 DATA before an answer's head", data(), Resets(1, PROTOCOL_ERROR), CLIENT),
    Case(
        "6.9.1 a stream's window is kept",
        OPEN + b"".join(data(payload=b"d" * 16384, flags=0) for _ in range(16)),
        Takes(("RequestReceived",) + ("DataReceived",) * 16),
    ),
    Case(
        "6.9.1 and passed",
        OPEN + b"".join(data(payload=b"d" * 16384, flags=0) for _ in range(16)) + data(payload=b"d"),
        Resets(1, FLOW_CONTROL_ERROR),
    ),
    Case(
        "6.9.1 padding counts",
        OPEN
        + b"".join(data(payload=b"d" * 16384, flags=0) for _ in range(15))
        + data(payload=b"\xff" + b"d" * 16128 + b"\0" * 255, flags=PADDED)
        + data(payload=b"dd" * 150),
        Resets(1, FLOW_CONTROL_ERROR),
    ),
    Case(
        "6.9.1 the connection's window is passed",
        b"".join(
            request(2 * n + 1, is_end=False) + b"".join(data(2 * n + 1, b"d" * 16384, 0) for _ in range(13))
            for n in range(5)
        ),
        Fails(FLOW_CONTROL_ERROR),
    ),
]

HEADERS_FRAMES = [
    Case("6.2 a request", request(), Takes(("RequestReceived",))),
    Case(
        "6.2 a padded one",
        headers(1, b"\x04" + RAW + b"\0" * 4, BOTH_FLAGS | PADDED),
        Takes(("RequestReceived",)),
    ),
    Case(
        "6.2 padded, with a priority",
        headers(1, b"\x04" + depends(9) + RAW + b"\0" * 4, BOTH_FLAGS | PADDED | WITH_PRIORITY),
        Takes(("RequestReceived",)),
    ),
    Case(
        "6.2 padding that is too long", headers(1, b"\xff" + RAW, BOTH_FLAGS | PADDED), Fails(PROTOCOL_ERROR)
    ),
    Case(
        "6.2 padding that leaves no priority",
        headers(1, b"\x04" + depends(9) + b"\0" * 3, BOTH_FLAGS | PADDED | WITH_PRIORITY),
        Fails(PROTOCOL_ERROR),
    ),
    Case(
        "6.2 another stream's frame in a header block",
        headers(1, RAW, END_STREAM) + priority(3),
        Fails(PROTOCOL_ERROR),
    ),
    Case("6.2 HEADERS in a header block", headers(1, RAW, END_STREAM) + request(3), Fails(PROTOCOL_ERROR)),
    Case("6.10 DATA in a header block", headers(1, RAW, 0) + data(), Fails(PROTOCOL_ERROR)),
    Case("6.10 PING in a header block", headers(1, RAW, 0) + ping(), Fails(PROTOCOL_ERROR)),
    Case(
        "6.10 CONTINUATION of another stream",
        headers(1, RAW, 0) + frame(CONTINUATION, END_HEADERS, 3),
        Fails(PROTOCOL_ERROR),
    ),
    Case(
        "6.10 two CONTINUATION",
        headers(1, RAW[:9], END_STREAM)
        + frame(CONTINUATION, 0, 1, RAW[9:30])
        + frame(CONTINUATION, END_HEADERS, 1, RAW[30:]),
        Takes(("RequestReceived",)),
    ),
    Case(
        "6.10 END_STREAM on HEADERS whose block goes on",
        headers(1, RAW, END_STREAM) + frame(CONTINUATION, END_HEADERS, 1) + data(),
        Resets(1, STREAM_CLOSED),
    ),
    Case(
        "6.10 CONTINUATION after END_HEADERS",
        request(1, is_end=False) + frame(CONTINUATION, END_HEADERS, 1, block(("a", "b"))),
        Fails(PROTOCOL_ERROR),
    ),
    Case(
        "6.10 CONTINUATION after CONTINUATION's END_HEADERS",
        headers(1, RAW, END_STREAM)
        + frame(CONTINUATION, END_HEADERS, 1)
        + frame(CONTINUATION, END_HEADERS, 1),
        Fails(PROTOCOL_ERROR),
    ),
    Case(
        "6.10 an empty HEADERS that goes on",
        headers(1, b"", END_STREAM) + frame(CONTINUATION, END_HEADERS, 1, RAW),
        Takes(("RequestReceived",)),
    ),
    Case(
        "6.10 an answer that goes on",
        frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, END_HEADERS, 1) + data(),
        Takes(("ResponseReceived", "DataReceived")),
        CLIENT,
    ),
]

RESETS = [
    Case("6.4 RST_STREAM", OPEN + rst(1), Takes(("RequestReceived", "StreamReset"))),
    Case("6.4 RST_STREAM of 3 bytes", OPEN + frame(RST_STREAM, 0, 1, b"123"), Fails(FRAME_SIZE_ERROR)),
    Case("6.4 RST_STREAM of 5 bytes", OPEN + frame(RST_STREAM, 0, 1, b"12345"), Fails(FRAME_SIZE_ERROR)),
    Case("7 RST_STREAM with an unknown code", OPEN + rst(1, 0xFF), Takes(("RequestReceived", "StreamReset"))),
    Case("6.4 a server's RST_STREAM", rst(1, CANCEL), Takes(("StreamReset",)), CLIENT),
    Case(
        "8.1 an answer ends before its request",
        answer() + rst(3, 0),
        Takes(("ResponseReceived", "StreamReset")),
        CLIENT,
    ),
]

CASES = [*IDLE, *HALF_CLOSED, *CLOSED, *PRIORITIES, *DATA_FRAMES, *HEADERS_FRAMES, *RESETS]
