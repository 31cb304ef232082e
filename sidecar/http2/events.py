"""What `receive` tells of: one object for each thing that happened, in the order in which it did.

Whoever handles them goes by their class: `handlers[event.__class__](event)`. No event of a stream comes after its
`StreamReset`. Those of one read were made before the first of them was handled: after a `reset`, what else the same
read tells of that stream needs nothing but its connection credit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.core.plain import Field
from sidecar.http2.errors import HeadTooLarge
from sidecar.http2.messages import RequestFields
from sidecar.http2.stream import Http2Stream

NONE_INDEXED: Final[frozenset[bytes]] = frozenset()


class Http2Event:
    """The class of all others. `Arrivals` sets the fields of those that come with every request: the call of an
    `__init__` takes 800 instructions more."""

    __slots__ = ()


class RequestReceived(Http2Event):
    """A client's request. Every one that is told of must be given back by `release`, whatever becomes of it."""

    __slots__ = ("head", "is_end", "stream")

    stream: Http2Stream
    head: RequestFields
    """All that it says; shared by all requests whose heads are the same to the byte, where it is remembered."""
    is_end: bool
    """It has no body."""

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def scheme(self) -> bytes:
        return self.head.scheme

    @property
    def authority(self) -> bytes:
        return self.head.authority

    @property
    def path(self) -> bytes:
        return self.head.path

    @property
    def protocol(self) -> bytes:
        return self.head.protocol

    @property
    def fields(self) -> Sequence[Field]:
        return self.head.fields

    @property
    def lookup(self) -> Mapping[bytes, bytes]:
        return self.head.lookup

    @property
    def never_indexed(self) -> frozenset[bytes]:
        return self.head.never_indexed

    @property
    def length(self) -> int | None:
        return self.head.length


class ResponseReceived(Http2Event):
    """The final head of a server's answer."""

    __slots__ = ("fields", "is_end", "length", "lookup", "never_indexed", "status", "stream")

    stream: Http2Stream
    status: int
    fields: Sequence[Field]
    lookup: Mapping[bytes, bytes]
    never_indexed: frozenset[bytes]
    length: int | None
    is_end: bool
    """It has no body and no trailers. With gRPC these fields are then trailers too ("trailers-only")."""


class InterimReceived(Http2Event):
    """A 1xx, which is not the answer. Never 101: HTTP/2 has none."""

    __slots__ = ("fields", "never_indexed", "status", "stream")

    stream: Http2Stream
    status: int
    fields: Sequence[Field]
    never_indexed: frozenset[bytes]


class DataReceived(Http2Event):
    """One frame's part of a body, padding taken off. Credit is to be given for `len(data)` by `credit_connection`, at
    once or when there is memory for it, and by `credit_stream` when it was passed on."""

    __slots__ = ("data", "is_end", "stream")

    stream: Http2Stream
    data: bytes
    """May be empty: many senders end a stream so."""
    is_end: bool


def joined(event: DataReceived, told: Sequence[Http2Event], at: int) -> tuple[bytes, DataReceived, int]:
    """What one read brought of one body. `told[at]` is what follows `event`. Returns the bytes, the last of the
    events that brought them, and where in `told` to go on."""
    pieces, last = [event.data], event
    while not last.is_end and at < len(told):
        following = told[at]
        if not isinstance(following, DataReceived) or following.stream is not event.stream:
            break
        last = following
        pieces.append(following.data)
        at += 1
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), last, at


def gathered(told: Sequence[Any]) -> Sequence[Http2Event]:
    """What one read brought, one event at least, with the parts of each message right behind its head.

    A peer that sends several messages at once writes their heads first, and then their bodies in turns: streams
    depend on each other in nothing, so what is together here can be told its exchange in one.
    """
    first, last = told[0], told[-1]
    kinds = first.__class__, last.__class__
    if _OF_MESSAGES.issuperset(kinds) and first.stream is last.stream:
        return told  # it is one message
    parts: dict[Http2Stream | Http2Event, list[Any]] = {}
    known = parts.get
    for event in told:
        kind = event.__class__
        if kind is DataReceived or kind is TrailersReceived:
            message = known(event.stream)
            if message is not None:
                message.append(event)
                continue
        elif kind is RequestReceived or kind is ResponseReceived:
            parts[event.stream] = [event]
            continue
        parts[event] = [event]
    together: list[Any] = []
    for part in parts.values():
        together += part
    return together


class TrailersReceived(Http2Event):
    """The fields behind a body; always its end."""

    __slots__ = ("fields", "never_indexed", "stream")

    stream: Http2Stream
    fields: Sequence[Field]
    never_indexed: frozenset[bytes]


class StreamReset(Http2Event):
    """A stream ended before its time. Nothing more comes of it; what is still sent to it changes nothing."""

    __slots__ = ("code", "detail", "is_by_peer", "is_unprocessed", "stream")

    def __init__(
        self, stream: Http2Stream, code: int, detail: str, *, is_by_peer: bool, is_unprocessed: bool = False
    ) -> None:
        self.stream = stream
        self.code = code
        """An `ErrorCode`, or another number where the peer sent one."""
        self.detail = detail
        """Why, for a log."""
        self.is_by_peer = is_by_peer
        """By its RST_STREAM or GOAWAY; else what it sent was malformed, and we have reset the stream."""
        self.is_unprocessed = is_unprocessed
        """The server certainly did nothing with the request: REFUSED_STREAM, or above GOAWAY's last id."""


class RequestTooLarge(Http2Event):
    """A request whose head is beyond our MAX_HEADER_LIST_SIZE: to be answered 431 (RFC 6585 5), which says more than
    a reset, and to be given back by `release`. `DataReceived` and the others follow it as any request."""

    __slots__ = ("content_type", "detail", "is_end", "method", "stream")

    def __init__(self, stream: Http2Stream, fault: HeadTooLarge, *, is_end: bool) -> None:
        self.stream = stream
        self.is_end = is_end
        self.method = fault.method
        self.content_type = fault.content_type
        self.detail = fault.detail


class RequestMalformed(Http2Event):
    """A request that is told of no further: it was malformed or one too many, and its stream is ended already by
    RST_STREAM. For counters and logs alone; there is nothing to release."""

    __slots__ = ("code", "detail", "stream_id")

    def __init__(self, stream_id: int, code: int, detail: str) -> None:
        self.stream_id = stream_id
        self.code = code
        self.detail = detail


class StreamWritable(Http2Event):
    """Most of what the stream had unsent has gone: it takes more (`send_data` had returned False)."""

    __slots__ = ("stream",)

    def __init__(self, stream: Http2Stream) -> None:
        self.stream = stream


class StreamSent(Http2Event):
    """All that waited when `end` returned False is with `take` now, END_STREAM too."""

    __slots__ = ("stream",)

    def __init__(self, stream: Http2Stream) -> None:
        self.stream = stream


class PeerSettings(Http2Event):
    """The peer's SETTINGS are in force, and acknowledged. See `Connection.peer`."""

    __slots__ = ()


class SettingsAcknowledged(Http2Event):
    """The peer keeps our SETTINGS from now on."""

    __slots__ = ()


class PingAcknowledged(Http2Event):
    """The answer to a `ping`."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class GoawayReceived(Http2Event):
    """The peer takes no new streams. Behind it comes a `StreamReset` with `is_unprocessed` for each of ours above
    `last_stream_id`; those below go on."""

    __slots__ = ("code", "debug", "last_stream_id")

    def __init__(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.last_stream_id = last_stream_id
        self.code = code
        self.debug = debug
        """At most 256 bytes of what the peer said: `too_many_pings` of a gRPC server, for example."""


class ConnectionFailed(Http2Event):
    """The peer broke a rule that ends the connection. The GOAWAY is there for `take`; then the connection is to be
    closed. No `StreamReset` comes for its streams, and nothing after this."""

    __slots__ = ("code", "detail", "flood")

    def __init__(self, code: int, detail: str, flood: str) -> None:
        self.code = code
        self.detail = detail
        self.flood = flood
        """Which bound was passed, as in `floods.KINDS`; empty where it is no flood."""


_OF_MESSAGES: Final[frozenset[type[Http2Event]]] = frozenset(
    {RequestReceived, ResponseReceived, DataReceived, TrailersReceived}
)
