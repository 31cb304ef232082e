"""A client's whole connection over HTTP/2, before upstreams that answer: whole against pieces.

What is fed is what follows the preface and the first SETTINGS. Upstreams answer once all of it has come, since an
answer between two pieces would be an event of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sidecar.core.snapshot import Forwarded, Trust
from sidecar.http2.hpack_decoder import HpackDecoder
from tests.bench.fuzz.clients import Answering, Conversation, Seen, listener
from tests.bench.fuzz.pieces import cuttings
from tests.bench.fuzz.seeds import MAX_SEED_BYTES
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.transports import leaving, raise_errors
from tests.http2.corpus import compression, connections, messages, streams
from tests.http2.corpus.case import SERVER
from tests.http2.wire import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    block,
    frame,
    frames_of,
    headers,
    literal,
    ping,
    request,
    rst,
    setting,
    window,
)
from tests.support.by_hand import Path

BEGIN: Final = PREFACE + setting()
CALL: Final = (
    (":method", "POST"), (":scheme", "http"), (":authority", "app"), (":path", "/test.Service/Call"),
    ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "1S"),
)  # fmt: skip
MAX_REQUESTS: Final = 160
"""In one input: the shortest take 13 bytes."""
OVERFLOWN: Final = b"\x00\x00\x00\x03"
"""What `RST_STREAM` says of a window that grew beyond its limit: FLOW_CONTROL_ERROR."""
HELLO: Final = frame(0, END_STREAM, 1, b"hello")
WORDS: Final = (
    request(1), request(3, is_end=False), HELLO, rst(3), setting((4, 0)), setting((1, 0)), ping(), window(0, 9),
    literal("cookie", "a=b"), literal("content-length", "5"), headers(5, block(*CALL), END_HEADERS),
)  # fmt: skip


class Waiting(Answering):
    """Answers when it is told to, and not at once."""

    def __init__(self, path: Path, seen: list[Seen], answers: list[Waiting]) -> None:
        super().__init__(path, seen)
        self._answers = answers

    def _answer(self) -> None:
        self._answers.append(self)

    def answer(self) -> None:
        super()._answer()


class Http2Conversation(Conversation):
    """One client's connection, from its preface to its end."""

    def feed(self, pieces: Sequence[bytes]) -> tuple[Any, ...]:
        """Send them, and say what came of it: what the upstream saw, what was answered on which stream, what was
        reset or ended, and why."""
        self.answers: list[Waiting] = []
        for piece in (BEGIN, *pieces):
            self._offer_upstream()
            self.transport.receive(piece)
            self._settle()
        for waiting in self.answers:
            waiting.answer()
        self._settle()
        raise_errors(self.loop)
        told = _told(self.transport.written)
        has_ended = self.transport.is_closing() or self.transport.has_ended_writing
        self._end()
        return self.seen, told, has_ended

    def _offer_upstream(self) -> None:
        idle = self.path.cluster.pools[0].idle
        while len(idle) < MAX_REQUESTS:
            idle[Waiting(self.path, self.seen, self.answers).lease] = None


def _told(written: bytes) -> list[tuple[Any, ...]]:
    """Heads, then resets and ends; the end alone where the connection has failed, and the reset alone where a stream
    has, since what is answered before that depends on the pieces. So does whether a request had ended when it was
    answered: what follows then, a reset without an error, is left out. Raises: whatever is wrong with what the
    sidecar has written."""
    decoder, heads, ends = HpackDecoder(), [], []
    for one in frames_of(written):
        if one.kind == HEADERS:
            assert one.flags & END_HEADERS, "the sidecar's heads are small here"
            fields = decoder.decode(one.payload)
            heads.append((one.stream_id, fields[0][2], bool(one.flags & END_STREAM)))
        elif one.kind == GOAWAY or (one.kind == RST_STREAM and any(one.payload)):
            ends.append((one.kind, one.stream_id, one.payload))
    failed = [one for one in ends if one[0] == GOAWAY and any(one[2][4:8])]
    reset = {stream_id for kind, stream_id, _ in ends if kind == RST_STREAM}
    return failed or [one for one in heads if one[0] not in reset] + ends


def http2_client(data: bytes) -> None:
    """By a listener that trusts its callers or by one that does not, as the last byte decides."""
    is_stranger = bool(data) and data[-1] & 1
    policy = listener(Trust.NONE, Forwarded.SET) if is_stranger else listener()
    whole = Http2Conversation(policy).feed([data])
    for pieces in cuttings(data):
        parted = Http2Conversation(policy).feed(pieces)
        same("a client of HTTP/2 in pieces", *_without_overflown(whole, parted))


def _without_overflown(*conversations: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Leave out streams whose window one of them saw overflow: one that was answered whole in time is closed by then,
    and the increment is ignored (RFC 9113 5.1)."""
    overflown = {
        one[1] for _, told, _ in conversations for one in told if one[::2] == (RST_STREAM, OVERFLOWN)
    }
    return [
        (seen, [one for one in told if _stream_of(one) not in overflown], has_ended)
        for seen, told, has_ended in conversations
    ]


def _stream_of(told: tuple[Any, ...]) -> int:
    """Of a head, or of an end, which begins with its kind and ends with its payload."""
    stream_id: int = told[0] if isinstance(told[2], bool) else told[1]
    return stream_id


def http2_seeds() -> Iterator[bytes]:
    yield request(1) + request(3, is_end=False) + frame(0, END_STREAM, 3, b"hello") + rst(1)
    yield headers(1, block(*CALL), END_HEADERS) + HELLO + headers(3, block(*CALL), END_HEADERS) + rst(3)
    for case in (*compression.CASES, *connections.CASES, *messages.CASES, *streams.CASES):
        if case.has_begun and SERVER[0] in case.roles and len(case.data) <= MAX_SEED_BYTES:
            yield case.data


TARGETS: Final = [Target("http2_client", leaving(http2_client), http2_seeds, WORDS)]
