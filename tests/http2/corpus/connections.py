"""Preface, frames as such, and frames about the connection (RFC 9113 3.4, 4, 5.5, 6.5, 6.7 to 6.9)."""

from __future__ import annotations

from tests.http2.corpus.case import BOTH, CLIENT, SERVER, Case, Fails, Resets, Takes
from tests.http2.wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    frame,
    goaway,
    headers,
    ping,
    request,
    setting,
    window,
)

MAX = 2**31 - 1

PREFACES = [
    Case("3.4 a preface and SETTINGS", PREFACE + setting(), Takes(), SERVER, has_begun=False),
    Case(
        "3.4 a preface that is wrong at its end",
        PREFACE[:-1] + b"!",
        Fails(PROTOCOL_ERROR),
        SERVER,
        has_begun=False,
    ),
    Case(
        "3.4 HTTP/1.1 instead of a preface",
        b"GET / HTTP/1.1\r\n\r\n",
        Fails(PROTOCOL_ERROR),
        SERVER,
        has_begun=False,
    ),
    Case("3.4 the first frame is PING", PREFACE + ping(), Fails(PROTOCOL_ERROR), SERVER, has_begun=False),
    Case(
        "3.4 the first frame is a request",
        PREFACE + request(),
        Fails(PROTOCOL_ERROR),
        SERVER,
        has_begun=False,
    ),
    Case("3.4 a server's first frame is no SETTINGS", ping(), Fails(PROTOCOL_ERROR), CLIENT, has_begun=False),
    Case(
        "3.4 the first frame is an acknowledgement",
        frame(SETTINGS, ACK, 0),
        Fails(PROTOCOL_ERROR),
        CLIENT,
        has_begun=False,
    ),
]

FRAMES = [
    Case(
        "4.1 and 5.5 a frame of an unknown kind is ignored",
        frame(0x16, 0, 0, b"12345678") + ping(),
        Takes(),
        BOTH,
    ),
    Case("5.5 one on a stream", frame(0xFF, 0xFF, 1, b"1") + ping(), Takes(), BOTH),
    Case("4.1 flags that are not defined are ignored", frame(PING, 0x16, 0, b"12345678"), Takes(), BOTH),
    Case("4.1 the reserved bit is ignored", frame(PING, 0, 2**31, b"12345678"), Takes(), BOTH),
    Case(
        "4.2 DATA of 2^14 bytes",
        request(1, is_end=False) + frame(DATA, END_STREAM, 1, b"d" * 16384),
        Takes(("RequestReceived", "DataReceived")),
    ),
    Case(
        "4.2 DATA of more",
        request(1, is_end=False) + frame(DATA, 0, 1, b"d" * 16385),
        Fails(FRAME_SIZE_ERROR),
    ),
    Case(
        "4.2 HEADERS of more",
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"h" * 16385),
        Fails(FRAME_SIZE_ERROR),
    ),
    Case("4.2 an unknown kind of more", frame(0x16, 0, 0, b"x" * 16385), Fails(FRAME_SIZE_ERROR), BOTH),
    Case(
        "5.5 an unknown kind in the middle of a header block",
        headers(1, block(*POST), 0) + frame(0x16, 0, 0, b"1"),
        Fails(PROTOCOL_ERROR),
    ),
]

SETTINGS_FRAMES = [
    Case(
        "6.5 an acknowledgement with a payload",
        frame(SETTINGS, ACK, 0, b"\0" * 6),
        Fails(FRAME_SIZE_ERROR),
        BOTH,
    ),
    Case("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, b""), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.5 a size that is no multiple of 6", frame(SETTINGS, 0, 0, b"123"), Fails(FRAME_SIZE_ERROR), BOTH),
    Case("6.5.2 ENABLE_PUSH of 2", setting((2, 2)), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.5.2 ENABLE_PUSH of 1 by a client", setting((2, 1)), Takes()),
    Case("6.5.2 ENABLE_PUSH of 1 by a server", setting((2, 1)), Fails(PROTOCOL_ERROR), CLIENT),
    Case("6.5.2 ENABLE_PUSH of 0", setting((2, 0)), Takes(), BOTH),
    Case("6.5.2 INITIAL_WINDOW_SIZE above 2^31-1", setting((4, 2**31)), Fails(FLOW_CONTROL_ERROR), BOTH),
    Case("6.5.2 INITIAL_WINDOW_SIZE of 2^31-1", setting((4, MAX)), Takes(), BOTH),
    Case("6.5.2 MAX_FRAME_SIZE below 2^14", setting((5, 16383)), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.5.2 MAX_FRAME_SIZE above 2^24-1", setting((5, 2**24)), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.5.2 MAX_FRAME_SIZE of 2^24-1", setting((5, 2**24 - 1)), Takes(), BOTH),
    Case("6.5.2 an unknown setting", setting((0xFF, 1), (0, 7)), Takes(), BOTH),
    Case("6.5.3 several values of one setting", setting((4, 100), (4, 1)), Takes(), BOTH),
    Case("9218 2.1 NO_RFC7540_PRIORITIES of 2", setting((9, 2)), Fails(PROTOCOL_ERROR), BOTH),
    Case("9218 2.1 it is not what it was", setting((9, 1)), Fails(PROTOCOL_ERROR), BOTH),
    Case("9218 2.1 it is said again", setting((9, 0)) + ping(), Takes(), BOTH),
    Case(
        "9218 2.1 it changes in the first SETTINGS",
        PREFACE + setting((9, 1), (9, 0)),
        Fails(PROTOCOL_ERROR),
        SERVER,
        has_begun=False,
    ),
    Case(
        "9218 2.1 the first SETTINGS say it",
        PREFACE + setting((9, 1)) + setting((9, 1)),
        Takes(),
        SERVER,
        has_begun=False,
    ),
    Case("8441 3 ENABLE_CONNECT_PROTOCOL of 2", setting((8, 2)), Fails(PROTOCOL_ERROR), BOTH),
    Case(
        "8441 3 ENABLE_CONNECT_PROTOCOL taken back",
        setting((8, 1)) + setting((8, 0)),
        Fails(PROTOCOL_ERROR),
        CLIENT,
    ),
    Case(
        "6.9.2 INITIAL_WINDOW_SIZE makes a window too large",
        window(1, MAX - 65535) + setting((4, 65536)),
        Fails(FLOW_CONTROL_ERROR),
        CLIENT,
    ),
]

PINGS = [
    Case("6.7 PING", ping(), Takes(), BOTH),
    Case("6.7 PING that is an answer", ping(b"abcdefgh", ACK), Takes(("PingAcknowledged",)), BOTH),
    Case("6.7 PING on a stream", frame(PING, 0, 1, b"12345678"), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.7 PING of 7 bytes", frame(PING, 0, 0, b"1234567"), Fails(FRAME_SIZE_ERROR), BOTH),
    Case("6.7 PING of 9 bytes", frame(PING, 0, 0, b"123456789"), Fails(FRAME_SIZE_ERROR), BOTH),
    Case("6.7 an empty PING", frame(PING, 0, 0), Fails(FRAME_SIZE_ERROR), BOTH),
]

GOAWAYS = [
    Case("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.8 GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, b"\0" * 7), Fails(FRAME_SIZE_ERROR), BOTH),
    Case(
        "6.8 a client's GOAWAY",
        goaway(0, 0, b"bye") + request(),
        Takes(("GoawayReceived", "RequestReceived")),
    ),
    Case(
        "6.8 a server's, first with the highest stream, then with the last",
        goaway(MAX) + goaway(1),
        Takes(("GoawayReceived", "GoawayReceived", "StreamReset")),
        CLIENT,
    ),
    Case(
        "6.8 a GOAWAY that takes more streams than the one before",
        goaway(1) + goaway(3),
        Fails(PROTOCOL_ERROR),
        CLIENT,
    ),
    Case("7 GOAWAY with an unknown code", goaway(MAX, 0xFFFF), Takes(("GoawayReceived",)), BOTH),
]

WINDOWS = [
    Case("6.9 WINDOW_UPDATE of the connection", window(0, 100), Takes(), BOTH),
    Case("6.9 WINDOW_UPDATE of 0 for the connection", window(0, 0), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.9 WINDOW_UPDATE of 0 for a stream", request() + window(1, 0), Resets(1, PROTOCOL_ERROR)),
    Case("6.9 WINDOW_UPDATE of 0 for a client's stream", window(1, 0), Resets(1, PROTOCOL_ERROR), CLIENT),
    Case("6.9 WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, b"123"), Fails(FRAME_SIZE_ERROR), BOTH),
    Case(
        "6.9 WINDOW_UPDATE of 5 bytes on a stream",
        request() + frame(WINDOW_UPDATE, 0, 1, b"12345"),
        Fails(FRAME_SIZE_ERROR),
    ),
    Case("6.9 the reserved bit is ignored", frame(WINDOW_UPDATE, 0, 0, b"\x80\0\0\1"), Takes(), BOTH),
    Case("6.9.1 the connection's window grows to 2^31-1", window(0, MAX - 65535), Takes(), BOTH),
    Case("6.9.1 and above", window(0, MAX - 65535) + window(0, 1), Fails(FLOW_CONTROL_ERROR), BOTH),
    Case("6.9.1 a stream's window grows to 2^31-1", window(1, MAX - 65535), Takes(), CLIENT),
    Case("6.9.1 and above", window(1, MAX - 65535) + window(1, 1), Resets(1, FLOW_CONTROL_ERROR), CLIENT),
    Case(
        "6.9.1 the window of a server's stream",
        request(1, is_end=False) + window(1, MAX),
        Resets(1, FLOW_CONTROL_ERROR),
    ),
    Case("6.9 WINDOW_UPDATE for a stream that has not begun", window(9, 1), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.9 WINDOW_UPDATE for an even stream", window(2, 1), Fails(PROTOCOL_ERROR), BOTH),
]

OTHERS = [
    Case("6.6 a client pushes", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2"), Fails(PROTOCOL_ERROR)),
    Case(
        "6.6 and 8.4 a server pushes, though we said no",
        frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x88"),
        Fails(PROTOCOL_ERROR),
        CLIENT,
    ),
    Case(
        "6.10 CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, b""), Fails(PROTOCOL_ERROR), BOTH
    ),
    Case(
        "6.10 CONTINUATION for stream 0",
        headers(1, block(*POST), 0) + frame(CONTINUATION, END_HEADERS, 0),
        Fails(PROTOCOL_ERROR),
    ),
    Case("6.3 PRIORITY for stream 0", frame(PRIORITY, 0, 0, b"\0" * 5), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.4 RST_STREAM for stream 0", frame(RST_STREAM, 0, 0, b"\0" * 4), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.1 DATA for stream 0", frame(DATA, 0, 0, b"d"), Fails(PROTOCOL_ERROR), BOTH),
    Case("6.2 HEADERS for stream 0", headers(0, block(*POST)), Fails(PROTOCOL_ERROR), BOTH),
]

CASES = [*PREFACES, *FRAMES, *SETTINGS_FRAMES, *PINGS, *GOAWAYS, *WINDOWS, *OTHERS]
