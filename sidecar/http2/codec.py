"""The interface of this room: what a connection of HTTP/2 does for those who own its socket.

Bytes go in by `receive`, what they mean comes out as events, and what is to be written is fetched by `take`. Nothing
here reads a clock, opens a socket or calls anybody. `Connection` is our engine; another one could stand in its place.
Owned by one `downstream` or `upstream` connection, on the loop's thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from sidecar.core.head import NOTHING, Added, Own
from sidecar.core.plain import Field
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import NONE_INDEXED, Http2Event
from sidecar.http2.settings import PeerLimits
from sidecar.http2.stream import Http2Stream

Pairs = Sequence[tuple[bytes, bytes]]
"""(key, value); keys in lower case, without a check."""
NO_DROP: Final[frozenset[bytes]] = frozenset()


class Role(Enum):
    SERVER = auto()
    """Towards our clients (downstream)."""
    CLIENT = auto()
    """Towards upstreams."""


class CodecLoad:
    """What a connection has under way, as plain numbers: they are read several times for each request, and a property
    costs 600 instructions more."""

    __slots__ = ("frames", "is_draining", "open_streams", "unsent_answers", "unsent_bytes")

    def __init__(self) -> None:
        self.frames = 0
        """That came, of whatever kind."""
        self.is_draining = False
        """Either side has said GOAWAY."""
        self.open_streams = 0
        """Streams not released yet, or ended by us and not sent yet."""
        self.unsent_answers = 0
        """Answers to SETTINGS and PING that wait for `take`; at more than 1,000 the connection fails. While a link
        takes nothing and there are any, read no more of it."""
        self.unsent_bytes = 0
        """Of the bodies of all streams: taken, and not in what `take` gave yet. They are memory of the connection."""


class Http2Codec(ABC):
    """One connection of either role. What is called on a stream that has ended, or after `ConnectionFailed`, changes
    nothing and is no error: the peer may have ended it a moment ago."""

    __slots__ = ()

    peer: PeerLimits
    """What the peer allows."""
    load: CodecLoad
    """To be read alone."""
    out: list[bytes | memoryview]
    """What `take` would give, in pieces: to be asked alone whether there is any."""

    # Bytes

    @abstractmethod
    def receive(self, data: bytes, now: float) -> list[Http2Event]:
        """What one read brought. `now` is in seconds on the loop's clock, and only ever grows. Raises nothing."""

    @abstractmethod
    def take(self) -> bytes:
        """What is to be written now, empty if nothing. A new connection has its SETTINGS there (and a client the
        preface) before anything was received: write them at once. Call it once for all that one read or one turn of
        the loop made, and not at all while the link says that it is full."""

    @abstractmethod
    def hold_data(self) -> None:
        """The link is full (`pause_writing`): bodies wait in their streams, though windows are open. What is no body
        still goes to `take`."""

    @abstractmethod
    def resume_data(self) -> list[Http2Event]:
        """The link takes again. Returns `StreamWritable` and `StreamSent` events."""

    # Heads

    @abstractmethod
    def can_open(self) -> bool:
        """A client may open one more stream: within the peer's limit, no GOAWAY from either side, ids left."""

    @abstractmethod
    def open_stream(
        self,
        pseudo: Pairs,
        fields: Sequence[Field],
        drop: frozenset[bytes] = NO_DROP,
        pairs: Pairs = (),
        never_indexed: frozenset[bytes] = NONE_INDEXED,
        added: Added = NOTHING,
        shared: bytes = b"",
        own: Own | tuple[()] = (),
        *,
        is_end: bool = False,
    ) -> Http2Stream:
        """A client's request. `pseudo` is `:method` first, then `:scheme`, `:authority`, `:path` (`:protocol`).
        `fields` are sent but for the keys in `drop`, then `added`, the lines of `shared`, which many heads have
        alike, those of `own` (in HTTP/1.1's form, as `core/head.py` has them), and `pairs`. Keys in `never_indexed`
        are sent as such, and some always are (`hpack.ALWAYS_NEVER_INDEXED`). Fields that HTTP/2 forbids (RFC 9113
        8.2.2) and `host` are left out; `te` goes only where it says `trailers`. `is_end`: there is no body.

        Raises: RuntimeError where `can_open` says False.
        """

    @abstractmethod
    def send_head(
        self,
        stream: Http2Stream,
        status: int,
        fields: Sequence[Field],
        drop: frozenset[bytes] = NO_DROP,
        pairs: Pairs = (),
        never_indexed: frozenset[bytes] = NONE_INDEXED,
        added: Added = NOTHING,
        shared: bytes = b"",
        own: Own | tuple[()] = (),
        *,
        is_end: bool = False,
    ) -> None:
        """A server's head, as above; an interim one below 200. `is_end`: neither body nor trailers. Whoever calls
        has seen to HEAD, 204 and 304 having no body. An answer of ours alone is `send_head(stream, 503, (),
        own=own)`."""

    # Bodies

    @abstractmethod
    def send_data(self, stream: Http2Stream, data: bytes) -> bool:
        """All of it is taken: what the windows do not allow waits in the stream, in order. False: the stream now
        holds `outbox.HIGH_WATER_BYTES` (64 KiB) or more; send nothing further until `StreamWritable`."""

    @abstractmethod
    def end(
        self,
        stream: Http2Stream,
        fields: Sequence[Field] = (),
        pairs: Pairs = (),
        *,
        never_indexed: frozenset[bytes] = NONE_INDEXED,
    ) -> bool:
        """Our side of the stream is whole, once what waits has gone. With `fields` or `pairs` these are its trailers;
        those that must not stand there (`headers.NEVER_IN_TRAILERS`) are left out. False: something waits still, and
        `StreamSent` tells when it has gone."""

    @abstractmethod
    def send_last(self, stream: Http2Stream, data: bytes, trailers: Sequence[Field] = ()) -> bool:
        """`send_data` and `end` in one, for a message whose last bytes are here. `data` is not empty. Returns what
        `end` does."""

    @abstractmethod
    def reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        """Give a stream up: what waits is dropped, the peer gets RST_STREAM. No event comes of it. Does nothing where
        both sides have ended. NO_ERROR is for a whole answer whose request is not (RFC 9113 8.1): `end` it first;
        the RST_STREAM then follows the rest."""

    @abstractmethod
    def release(self, stream: Http2Stream) -> None:
        """Nobody works on the stream any more, and nobody speaks of it again. Until then it counts against
        `max_concurrent_streams`, even if its client has reset it: so resets buy no work (CVE-2023-44487). To be
        called once for each `RequestReceived` and each `open_stream`. One whose end we have not said is reset by
        CANCEL; one that has been ended still sends what waits, and counts until then."""

    # Flow control

    @abstractmethod
    def credit_connection(self, size: int) -> None:
        """Let the peer send `size` bytes more on the connection: for all `DataReceived` of a read at once, while
        there is memory; what was not given then, later. WINDOW_UPDATE goes out for several at once."""

    @abstractmethod
    def credit_stream(self, stream: Http2Stream, size: int) -> None:
        """Let the peer send `size` bytes more on the stream: they were passed on. This is the back-pressure."""

    # Connection

    @abstractmethod
    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life; `payload` is 8 bytes, which `PingAcknowledged` brings back."""

    @abstractmethod
    def drain(self) -> None:
        """A server's first GOAWAY: with the highest id, so that what is under way still arrives (RFC 9113 6.8). New
        streams are still taken. At least a round trip later, `goaway`."""

    @abstractmethod
    def goaway(self, code: ErrorCode = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """The last GOAWAY: with the last stream that was taken. Later ones are ignored, and their clients know that
        they were; open ones go on. Close once `open_streams` is 0."""
