"""One request to an upstream that speaks HTTP/2, and its response: what an attempt knows of its upstream.

It is its own `Lease` and its own `ClientStream`: a place on a connection that others share. Owned by the attempt that
took it, until `release`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

from sidecar.core import websocket
from sidecar.core.contract import NO_SLOTS
from sidecar.core.errors import Reason
from sidecar.core.head import RequestHead, ResponseHead, response_head
from sidecar.core.plain import Field
from sidecar.core.request import PLAIN, PLAIN_2, Request
from sidecar.http2 import events
from sidecar.http2.codec import Http2Codec
from sidecar.http2.errors import ErrorCode
from sidecar.http2.outbox import HIGH_WATER_BYTES
from sidecar.http2.stream import Http2Stream
from sidecar.http2.stream_link import StreamLink
from sidecar.upstream.lease import Fate, Lease, SharingPool
from sidecar.upstream.streams import ClientStream, Processed, ResponseSink

_BROKEN: Final = Fate.BROKEN
"""Read from here in the hot path, as the next: an enum's own lookup costs 15 to 50 ns each time."""
_REUSABLE: Final = Fate.REUSABLE
_TE: Final = ((b"te", b"trailers"),)
_HTTP: Final = (b":scheme", b"http")
_HTTPS: Final = (b":scheme", b"https")
_NOT_IN_CONNECT: Final = frozenset({websocket.KEY, websocket.ACCEPT, b"content-length"})
_NOT_IN_SWITCH: Final = frozenset({websocket.ACCEPT, b"content-length", b"upgrade"})
_UPGRADE: Final = (b"upgrade", b"Upgrade: websocket\r\n", websocket.WEBSOCKET)
NO_SETTING: Final = (
    "this upstream's HTTP/2 takes no WebSocket (it does not send SETTINGS_ENABLE_CONNECT_PROTOCOL)"
)
NO_SUCH_UPGRADE: Final = (
    "an `Upgrade` other than a GET for a WebSocket cannot go to an upstream that speaks HTTP/2"
)
NO_KEY: Final = "a WebSocket's handshake without a Sec-WebSocket-Key of 16 bytes"


class Carrier(ABC):
    """A connection of many streams, as one of them sees it."""

    __slots__ = NO_SLOTS

    codec: Http2Codec
    pool: SharingPool
    streams: set[SentStream]
    """Not released yet."""
    heard_at: float
    """When the last byte came, in seconds on the loop's clock."""
    idle_since: float
    was_used: bool
    """A stream has ended here."""

    @abstractmethod
    def now(self) -> float: ...

    @abstractmethod
    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Any:
        """In the next turn of the loop."""

    @abstractmethod
    def write_soon(self) -> None:
        """Write what the codec has, once for all that is said in this read or this turn of the loop."""

    @abstractmethod
    def see_out(self, stream: Http2Stream) -> None:
        """Its response is whole, and some of its request waits for the upstream still."""

    @abstractmethod
    def ask(self, now: float) -> None:
        """A stream's time is up, and nothing has come of it: ask for a sign of life."""

    @abstractmethod
    def released(self, now: float) -> None:
        """One stream has ended."""


class SentStream(Lease, ClientStream):
    """One request on a shared connection."""

    __slots__ = (
        "_codec", "_connection", "_has_head", "_held_bytes", "_is_held", "_is_left", "_link", "_sent_at", "_sink",
        "_stream", "_switch", "_unasked", "expires", "idle_since", "is_call", "is_reused", "pool",
    )  # fmt: skip

    def take(self, connection: Carrier) -> SentStream:
        """Set what it has; comes first. Returns itself: the call of an `__init__` takes 800 instructions more."""
        self._connection = connection
        self._codec = connection.codec
        self.pool = connection.pool
        self.is_reused = connection.was_used and not connection.codec.load.open_streams
        """The connection had nobody: its end may have been on its way already."""
        self.idle_since = connection.idle_since
        self.expires = inf
        self._sink: ResponseSink | None = None
        self._stream: Http2Stream | None = None
        self._has_head = False
        self.is_call = False
        """Of gRPC, by a client that speaks HTTP/2: trailers may be told with the head. HTTP/1.1 has to know them
        before it writes that."""
        self._is_held = False
        """The client takes no more of the answer for now."""
        self._held_bytes = 0
        """Passed on without credit."""
        self._sent_at = 0.0
        self._switch: Request | None = None
        """The request, where it asks for a WebSocket and is not answered yet."""
        self._unasked: RequestHead | None = None
        """Its head, while it is not known whether the upstream takes it (RFC 8441 3)."""
        self._link: StreamLink | None = None
        """The stream as one side of a tunnel, from the switch on."""
        self._is_left = False
        """Its attempt has let go of it, and the tunnel has not ended yet."""
        return self

    def __repr__(self) -> str:
        return f"<SentStream {self._stream!r} to {self.pool.endpoint}>"

    # Lease

    def begin(self, sink: ResponseSink) -> SentStream:
        self._sink = sink
        return self

    def release(self, fate: Fate, now: float) -> None:
        self._sink = None
        if self._link is not None and not self._link.is_over:
            self._is_left = True
            return
        self._unasked = None
        stream, self._stream = self._stream, None
        connection = self._connection
        connection.streams.discard(self)
        if stream is not None:
            stream.owner = None
            self._codec.release(stream)
            if stream.unsent_bytes:
                connection.see_out(stream)
            if fate is not _REUSABLE:  # else its answer is whole, and `release` has reset nothing
                connection.write_soon()
                if fate is _BROKEN and connection.heard_at <= self._sent_at:
                    connection.ask(now)
        connection.released(now)

    def hand_over(self, protocol: Any) -> StreamLink:
        connection, stream = self._connection, self._stream
        assert stream is not None
        link = self._link = StreamLink(
            self._codec,
            stream,
            write_soon=connection.write_soon,
            call_soon=connection.call_soon,
            on_closed=self._tunnel_ended,
        )
        link.set_sink(protocol)
        return link

    def _tunnel_ended(self) -> None:
        if self._is_left:
            self.release(Fate.HANDED_OVER, self._connection.now())

    def cannot_switch(self, request: Request) -> str:
        if request.method != b"GET" or not websocket.is_among(request.traits.upgrade):
            return NO_SUCH_UPGRADE
        if request.traits.http_version != "2" and not websocket.is_key(
            request.lookup.get(websocket.KEY, b"")
        ):
            return NO_KEY
        peer = self._codec.peer
        return NO_SETTING if peer.is_known and not peer.is_connect_protocol_enabled else ""

    def has_ended_unseen(self) -> bool:
        return False

    def abort(self) -> None:
        self.release(Fate.BROKEN, self._connection.now())

    # ClientStream

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        request, connection = head.request, self._connection
        if request.traits.upgrade:
            self._switch = request
            connection.streams.add(self)
            if self._codec.peer.is_known:
                self._send_connect(head)
            else:
                self._unasked = head
            return
        traits = request.traits
        is_plain = traits is PLAIN or traits is PLAIN_2
        takes_trailers = not is_plain and b"trailers" in request.lookup.get(b"te", b"").lower()
        self.is_call = traits.is_grpc and traits.http_version == "2"
        shared, own = b"", head.own
        if own and (not own[0] or own[0][-2:] == b"\r\n"):
            shared, own = own[0], own[1:]
        pseudo = (
            (b":method", request.method),
            _HTTP if self.pool.secure is None else _HTTPS,
            (b":authority", head.authority),
            (b":path", head.target),
        )
        stream = self._stream = self._codec.open_stream(
            pseudo,
            request.fields,
            head.drop,
            _TE if takes_trailers else (),
            traits.never_indexed,
            head.added,
            shared,
            own,
            is_end=not request.length,
        )
        stream.owner = self
        connection.streams.add(self)
        self._sent_at = connection.now()
        if held:
            if trailers is not None and not trailers and len(held) == 1 and len(held[0]) < HIGH_WATER_BYTES:
                data = held[0]
                self._codec.send_last(stream, data if data.__class__ is bytes else bytes(data))
            else:
                self._send_held(held, trailers)
        connection.write_soon()

    def _send_held(self, held: Sequence[Any], trailers: Sequence[Field] | None) -> None:
        for data in held:
            self.send_data(bytes(data))
        if trailers is not None:
            self.end(trailers)

    def _send_connect(self, head: RequestHead) -> None:
        """Extended CONNECT (RFC 8441 4); the key of HTTP/1.1's handshake stays here."""
        request, connection = head.request, self._connection
        pseudo = (
            (b":method", b"CONNECT"),
            (b":protocol", websocket.WEBSOCKET),
            _HTTP if self.pool.secure is None else _HTTPS,
            (b":authority", head.authority),
            (b":path", head.target),
        )
        stream = self._stream = self._codec.open_stream(
            pseudo,
            request.fields,
            head.drop | _NOT_IN_CONNECT,
            never_indexed=request.traits.never_indexed,
            added=head.added,
            own=head.own,
        )
        stream.owner = self
        self._sent_at = connection.now()
        connection.write_soon()

    def settings_known(self) -> None:
        """The upstream has said what it takes."""
        head, self._unasked = self._unasked, None
        sink = self._sink
        if head is None or sink is None:
            return
        if not self._codec.peer.is_connect_protocol_enabled:
            self._sink = None
            sink.declined(NO_SETTING)
        elif not self._codec.can_open():
            self._sink = None
            sink.failed(Reason.CONNECTION_REFUSED, "upstream takes no more streams here", Processed.NEVER)
        else:
            self._send_connect(head)

    def send_data(self, data: bytes) -> None:
        stream, sink = self._stream, self._sink
        if stream is None:
            return
        if not self._codec.send_data(stream, data) and sink is not None:
            sink.blocked()
        self._connection.write_soon()

    def end(self, trailers: Sequence[Field]) -> None:
        if self._stream is not None:
            self._codec.end(self._stream, trailers)
            self._connection.write_soon()

    def reset(self, reason: Reason) -> None:
        self._sink = None
        if self._stream is not None:
            self._codec.reset(self._stream, ErrorCode.CANCEL)
            self._connection.write_soon()

    def hold(self) -> None:
        self._is_held = True

    def resume(self) -> None:
        self._is_held = False
        held, self._held_bytes = self._held_bytes, 0
        if held and self._stream is not None:
            self._codec.credit_stream(self._stream, held)
            self._connection.write_soon()

    @property
    def unsent_bytes(self) -> int:
        return self._stream.unsent_bytes if self._stream is not None else 0

    # What the connection tells

    def interim(self, event: events.InterimReceived) -> None:
        if self._sink is not None:
            self._sink.interim(_head_of(event, None))

    def head(self, event: events.ResponseReceived) -> None:
        self._has_head = True
        switch, sink = self._switch, self._sink
        if switch is not None and event.status < 300:
            self._switch = self._sink = None
            if sink is not None:
                sink.switched(_switch_of(event, switch), b"")
        elif sink is not None:
            sink.head(_head_of(event, event.length))

    def flush(self) -> None:
        if self._sink is not None:
            self._sink.flush()

    def answered(self, event: events.ResponseReceived, body: bytes, trailers: Sequence[Field] = ()) -> None:
        """The response is there whole."""
        if self._switch is not None and event.status < 300:
            self.head(event)
            self.received(body, is_end=True)
            return
        self._has_head = True
        if self._sink is not None:
            self._sink.answered(_head_of(event, event.length), body, trailers)

    def received(self, data: bytes, *, is_end: bool) -> None:
        """Part of the response's body, or of what a tunnel carries."""
        if self._link is not None:
            self._link.received(data, is_end=is_end)
            return
        sink, stream = self._sink, self._stream
        if sink is None or stream is None:
            return
        if data:
            sink.data(data)
            if self._is_held:
                self._held_bytes += len(data)
            else:
                self._codec.credit_stream(stream, len(data))
        if self._sink is not sink:
            return
        if is_end:
            sink.end(())
        else:
            sink.flush()

    def ended(self, trailers: Sequence[Field]) -> None:
        if self._link is not None:
            self._link.ended()
        elif self._sink is not None:
            self._sink.end(trailers)

    def failed(self, reason: Reason, detail: str, processed: Processed) -> None:
        if self._link is not None:
            self._link.gone(ConnectionResetError(detail))
            return
        if self._unasked is not None:
            processed = Processed.NEVER
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.failed(reason, detail, Processed.YES if self._has_head else processed)

    def broken(self) -> None:
        if self._link is not None:
            self._link.gone(None)
            return
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.broken()

    def sent(self) -> None:
        """All that was sent has gone out, and its end."""
        if self._link is not None:
            self._link.sent()

    def writable(self) -> None:
        if self._link is not None:
            self._link.writable()
        elif self._sink is not None:
            self._sink.writable()


def _head_of(event: events.ResponseReceived | events.InterimReceived, length: int | None) -> ResponseHead:
    head = ResponseHead()  # as `response_head`, without the call
    head.status = event.status
    head.fields = event.fields
    head.length = length
    head.listed = b""
    head.never_indexed = event.never_indexed
    return head


def _switch_of(event: events.ResponseReceived, request: Request) -> ResponseHead:
    """What a server of HTTP/1.1 would have answered to the handshake: 101, and the accept if it had a key."""
    fields = [field for field in event.fields if field[0] not in _NOT_IN_SWITCH]
    fields.append(_UPGRADE)
    key = request.lookup.get(websocket.KEY)
    if key is not None:
        accept = websocket.accept_of(key)
        fields.append((websocket.ACCEPT, b"Sec-WebSocket-Accept: %b\r\n" % accept, accept))
    head = response_head(101, fields, None)
    head.never_indexed = event.never_indexed
    return head
