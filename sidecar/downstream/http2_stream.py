"""One request of a client that speaks HTTP/2, and its answer: what an exchange knows of its client.

Flow control is the back-pressure: what the upstream has no room for gets no credit, and what the client has no room
for waits in the stream, of which the exchange hears. Owned by its connection, until its exchange has ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

from mypy_extensions import trait

from sidecar.core.block import Block
from sidecar.core.contract import NO_SLOTS
from sidecar.core.errors import Reason
from sidecar.core.head import ResponseHead
from sidecar.core.plain import Field
from sidecar.core.websocket import ACCEPT
from sidecar.downstream import http2_request
from sidecar.downstream.client_lines import Known, tell_of_client
from sidecar.downstream.phase import Phase
from sidecar.downstream.secured import Secured
from sidecar.forwarding import date
from sidecar.forwarding.connect import TunnelExchange
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.grpc import own_trailers
from sidecar.forwarding.streams import ServerStream
from sidecar.forwarding.sweep import Expiring, Sweep
from sidecar.forwarding.visitors import Lack
from sidecar.http1 import parse
from sidecar.http2.codec import Http2Codec
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import RequestReceived, RequestTooLarge
from sidecar.http2.stream import Http2Stream
from sidecar.http2.stream_link import StreamLink
from sidecar.transport.link import Link

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms
    from sidecar.forwarding.service import Service

_BODY: Final = Phase.BODY
"""Read from here in the hot path: an enum's own lookup costs 15 to 50 ns each time."""
GOAWAY_SECONDS: Final = 1.0
"""Of an overload, in which streams alone are refused; then their connection, so that its client goes elsewhere, or
waits in the kernel's queue."""
_BODYLESS: Final = frozenset({204, 304})
_ACCEPT: Final = frozenset({ACCEPT})
_OURS: Final = frozenset({Reason.TIMEOUT, Reason.DEADLINE_EXCEEDED, Reason.CALLER_GONE, Reason.DRAINING})
"""We end it, for a reason that is no fault of the upstream's: CANCEL. After all others INTERNAL_ERROR."""


def _has_no_more(exchange: Exchange) -> bool:
    """Whether the rest of its request is to be reset as soon as the answer is out: clients of gRPC know that, one
    that has stalled is not in the middle of sending, and a refused CONNECT has no body."""
    request = exchange.request
    is_connect = bool(request.traits.upgrade) or request.method == b"CONNECT"
    return request.traits.is_grpc or is_connect or exchange.reason is Reason.REQUEST_TIMEOUT


@trait
class Host(ABC):
    """A client's connection, as one of its streams sees it."""

    __slots__ = NO_SLOTS

    codec: Http2Codec
    link: Link
    listener: ListenerTerms
    service: Service
    forwarded: Known | None
    """What upstreams are told of the client, in the last request."""
    secured: Secured | None
    """Its TLS; None in clear text."""
    lack: Lack | None
    """What there is none of for it, so that requests are answered no; None: they are taken."""

    @abstractmethod
    def write_soon(self) -> None:
        """Write what the codec has, once for all that is said in this read or this turn of the loop."""

    @abstractmethod
    def write_end(self) -> None:
        """The same where an answer has just ended: at once, if no other one could go with it."""

    @abstractmethod
    def drain(self) -> None:
        """Ask the client to open no more streams here; those that are open go on."""

    @abstractmethod
    def keeps(self, change: int) -> None:
        """So many bytes more, or less, of its streams' requests wait for a connection with an upstream."""

    @abstractmethod
    def released(self, stream: ServedStream) -> None:
        """One stream is over."""


class ServedStream(ServerStream):
    """One request. `bucket` and `due` are the sweep's."""

    __slots__ = (
        "_ahead", "_codec", "_connection", "_exchange", "_has_client_ended", "_held_bytes", "_is_blocked",
        "_is_bodyless", "_is_held", "_is_over", "_is_skipping", "_kept_bytes", "_link", "_pending_body",
        "_pending_head", "_since", "_stream", "_unsent", "bucket", "due",
    )  # fmt: skip

    def take(self, connection: Host, stream: Http2Stream) -> ServedStream:
        """Set what it has; comes first. Returns itself: the call of an `__init__` takes 800 instructions more."""
        self._connection = connection
        self._codec = connection.codec
        self._stream = stream
        stream.owner = self
        self._exchange: Exchange | None = None
        self._has_client_ended = False
        self._is_held = False
        """The upstream takes no more of the request for now."""
        self._held_bytes = 0
        """Passed on without credit."""
        self._is_blocked = False
        """The client takes no more of the answer for now."""
        self._is_bodyless = False
        self._is_over = False
        """Nothing more is to be written."""
        self._is_skipping = False
        """Answered; the rest of the request's body is read past."""
        self._ahead = b""
        """What a client sent before its CONNECT was answered."""
        self._link: StreamLink | None = None
        """The stream as one side of a tunnel, from the switch on."""
        self._pending_head: ResponseHead | None = None
        self._pending_body = b""
        """All of it, between `send_whole` and `end`."""
        self._since = 0.0
        """When the client last did what it is to do."""
        self._kept_bytes = 0
        """Of the request, before it has an upstream's connection: what its own connection was told."""
        self._unsent = 0
        """Of the answer, at the last look."""
        self.bucket: set[Expiring] | None = None
        self.due = inf
        return self

    def __repr__(self) -> str:
        return f"<ServedStream {self._stream!r} {self._exchange!r}>"

    @property
    def peer(self) -> tuple[str, int] | None:
        return self._connection.link.peer

    # The request

    def begin(self, event: RequestReceived, body: bytes | None = None) -> None:
        """Begin its exchange. `body`: all of it, where the same read brought it; None where it is still to come, or
        there is none."""
        connection, listener = self._connection, self._connection.listener
        self._has_client_ended = event.is_end or body is not None
        gate = listener.gate if connection.lack is None else None
        if gate is not None and connection.service.rng.random() >= listener.overload.admission:
            # Certainly not processed: its client may ask again, here or elsewhere (RFC 9113 8.7).
            gate.refused_streams += 1
            self._is_over = True
            self._codec.reset(self._stream, ErrorCode.REFUSED_STREAM)
            self._release()
            if connection.service.clock() - gate.began_at >= GOAWAY_SECONDS:
                connection.drain()
            return
        lack, secured = connection.lack, connection.secured
        refusal = None if lack is None else lack.refusal()
        try:
            request = http2_request.read_request(listener, event)
        except parse.Refused as refused:
            refusal = GivenUp(refused.reason, refused.detail)
            content_type = event.lookup.get(b"content-type", b"")
            request = http2_request.refused(listener, secured, event.method, event.path, content_type)
        else:
            if secured is not None:
                refusal = secured.refusal(request.host) or refusal
                request.tls = secured.told
            if listener.tells_of_client:
                connection.forwarded = tell_of_client(
                    request, listener, connection.link.peer, connection.forwarded
                )
        request.asked = connection.link.asked
        is_tunnel = request.method == b"CONNECT"
        exchange = (TunnelExchange() if is_tunnel else Exchange()).take(connection.service, self, request)
        self._exchange = exchange
        request_body = exchange.body
        if request_body is None:
            exchange.begin(refusal)
        elif body is None:
            self._await_client(_BODY)
            exchange.begin(refusal)
        else:
            request_body.arrived_whole(body)
            exchange.begin(refusal)
            if request_body.held_bytes:
                self._note()

    def refuse(self, event: RequestTooLarge) -> None:
        """Begin the exchange of a request of which no more is known than that its head is too large."""
        connection = self._connection
        self._has_client_ended = event.is_end
        request = http2_request.refused(
            connection.listener, connection.secured, event.method, content_type=event.content_type
        )
        request.asked = connection.link.asked
        self._exchange = exchange = Exchange().take(connection.service, self, request)
        exchange.begin(GivenUp(Reason.HEAD_TOO_LARGE, event.detail))

    def received(self, data: bytes, *, is_end: bool) -> None:
        """Part of its body, or of what a tunnel carries."""
        exchange = self._exchange
        if self._link is not None:
            self._link.received(data, is_end=is_end)
            return
        if exchange is not None and data and exchange.body is not None:
            self._since = self._connection.service.clock()
            exchange.data(data)
            if self._is_held:
                self._held_bytes += len(data)
            else:
                self._codec.credit_stream(self._stream, len(data))
            self._note()
        elif exchange is not None and exchange.request.traits.upgrade:
            self._ahead += data  # as much as the stream's window: it gets no credit
            self._note()
        elif self._is_skipping:
            self._codec.credit_stream(self._stream, len(data))
        if is_end:
            self.ended(())

    def ended(self, trailers: Sequence[Field]) -> None:
        """Its body is whole."""
        self._has_client_ended = True
        exchange = self._exchange
        if self._link is not None:
            self._link.ended()
        elif exchange is not None and exchange.body is not None:
            exchange.end(trailers)
        elif self._is_skipping:
            self._release()

    def gone(self, reason: Reason, detail: str) -> None:
        """It was reset, or its connection is lost."""
        self._is_over = True
        if self._link is not None:
            self._link.gone(ConnectionResetError(detail))  # the exchange ends with its tunnel
            return
        self._ahead = b""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone(reason, detail)
        self._release()

    def writable(self) -> None:
        """The client takes more."""
        if self._link is not None:
            self._link.writable()
        if not self._is_blocked:
            return
        self._is_blocked = False
        if self._exchange is not None:
            self._exchange.writable()

    # Whose turn it is, and for how long

    def _await_client(self, phase: Phase) -> None:
        """The client is to send, or to take, something."""
        now = self._since = self._connection.service.clock()
        due = now + self._connection.listener.phase_seconds[phase]
        if self.bucket is None and due < inf:
            self.due = due
            self._connection.service.sweep.add(self, now)

    def _note(self) -> None:
        """What of the request has no upstream's connection yet is memory of its own."""
        exchange = self._exchange
        kept = len(self._ahead)
        if exchange is not None and exchange.body is not None:
            kept += exchange.body.held_bytes
        change, self._kept_bytes = kept - self._kept_bytes, kept
        if change:
            self._connection.keeps(change)

    @property
    def untaken(self) -> tuple[int, float]:
        """How much of its request an upstream has been given and does not take, and when the last of it came."""
        exchange = self._exchange
        size = exchange.body.untaken_bytes if exchange is not None and exchange.body is not None else 0
        return size, self._since

    def expire(self, now: float) -> None:
        """See whether the client has done for long what it is to do."""
        if self._is_skipping:
            self.skip_no_more()
            return
        unsent, stream = self._unsent, self._stream
        self._unsent = stream.unsent_bytes
        if self._unsent:
            phase = Phase.UNSENT
            if self._unsent != unsent:
                self._since = now
        elif self._exchange is None or self._has_client_ended:
            return
        else:
            phase = _BODY
            if self._is_held:
                self._since = now
        due = self._since + self._connection.listener.phase_seconds[phase]
        if due > now:
            self.due = due
            self._connection.service.sweep.add(self, now)
        elif phase is _BODY and self._exchange is not None:
            self._exchange.gone(Reason.REQUEST_TIMEOUT, "the request body stalled")
        else:
            self._codec.reset(stream, ErrorCode.CANCEL)
            self._connection.write_soon()
            self.gone(Reason.CLIENT_GONE, "the client takes nothing of the answer")
            self._connection.released(self)  # once more, if its exchange had ended before

    def abandon(self) -> None:
        """A mistake of ours: end it."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        self._release()

    # The answer (`forwarding.streams.ServerStream`)

    def send_interim(self, head: ResponseHead) -> None:
        self._write_head(head, is_end=False)
        self._connection.write_soon()

    def send_switch(self, head: ResponseHead, upgrade: bytes) -> None:
        """A CONNECT is answered by 200 (RFC 8441 5), and had no key that one could accept."""
        head.drop |= _ACCEPT
        self._write_head(head, is_end=False, status=200)
        self._connection.write_soon()

    def send_head(self, head: ResponseHead) -> None:
        self._pending_head = head
        exchange = self._exchange
        self._is_bodyless = head.status in _BODYLESS or (
            exchange is not None and exchange.request.method == b"HEAD"
        )

    def send_data(self, data: bytes | memoryview) -> None:
        if self._is_bodyless or self._is_over:
            return
        self._send_pending_head(is_end=False)
        self._send(bytes(data))

    def _send(self, data: bytes) -> None:
        if not self._codec.send_data(self._stream, data) and not self._is_blocked:
            self._is_blocked = True
            self._await_client(Phase.UNSENT)
            if self._exchange is not None:
                self._exchange.blocked()
        self._connection.write_soon()

    def send_whole(self, head: ResponseHead, body: bytes | memoryview) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self._pending_head = head
        if body and head.status not in _BODYLESS and exchange.request.method != b"HEAD":
            self._pending_body = bytes(body)
        else:
            self._is_bodyless = True

    def flush(self) -> None:
        if self._pending_head is not None:
            self._send_pending_head(is_end=False)
            self._connection.write_soon()

    def _send_pending_head(self, *, is_end: bool) -> None:
        head = self._pending_head
        if head is not None:
            self._pending_head = None
            self._write_head(head, is_end=is_end)

    def _write_head(self, head: ResponseHead, *, is_end: bool, status: int = 0) -> None:
        drop, fields, shared = head.drop, head.fields, b""
        if not head.has_own_date:
            if not _has_date(fields):
                shared = date.line()
            elif b"date" in drop:
                drop = drop - {b"date"}
        self._codec.send_head(
            self._stream,
            status or head.status,
            fields,
            drop,
            (),
            head.never_indexed,
            head.added,
            shared,
            head.own,
            is_end=is_end,
        )

    def end(self, trailers: Sequence[Field]) -> None:
        exchange, self._exchange = self._exchange, None
        if self._link is not None:
            self._release_link()
            return
        self._ahead = b""
        if self._kept_bytes:
            self._note()
        if self._is_over:
            if self._stream.unsent_bytes:
                self._await_client(Phase.UNSENT)
            else:
                self._release()
            return
        self._is_over = True
        head, body = self._pending_head, self._pending_body
        if head is not None:
            self._pending_head = None
            self._write_head(head, is_end=not (body or trailers))
        if body:
            is_sent = self._codec.send_last(self._stream, body, trailers)
        else:
            is_sent = self._codec.end(self._stream, trailers)
        if not self._has_client_ended and exchange is not None and _has_no_more(exchange):
            self._codec.reset(self._stream, ErrorCode.NO_ERROR)  # RFC 9113 8.1
        if not is_sent:
            self._await_client(Phase.UNSENT)  # what waits is memory: until it has gone, the stream counts
        elif self._has_client_ended:
            self._release()
        else:
            self._read_past()
        self._connection.write_end()

    def sent(self) -> None:
        """All of the answer has gone out."""
        if self._link is not None:
            self._link.sent()
        elif self._exchange is None:
            self._read_past()

    def _read_past(self) -> None:
        """The answer is whole. What is left of the request is read past for a while, and then reset.

        RFC 9113 8.1 allows the reset at once. Some clients (curl before 8.0 among them) that find their stream closed
        in the middle of an upload do not look at the answer any more; others stop by themselves when they have read
        it.
        """
        if self._has_client_ended or self._stream.is_over:
            self._release()
        else:
            self._is_skipping = True
            Sweep.remove(self)
            self._await_client(Phase.SKIP)
            self.resume()  # what the upstream had no room for

    def skip_no_more(self) -> None:
        """Reset what is left of a request whose answer is out; nothing if it is not."""
        if self._is_skipping:
            self._release()  # by RST_STREAM(NO_ERROR)
            self._connection.write_soon()

    def reset(self, reason: Reason) -> None:
        exchange = self._exchange
        if self._is_over:
            return
        self._is_over = True
        if self._link is not None:
            self._link.abort()
        elif exchange is not None and exchange.request.traits.is_grpc:
            self._send_pending_head(is_end=False)
            self._codec.end(self._stream, (), own_trailers(reason, exchange.detail))
            if not self._has_client_ended:
                self._codec.reset(self._stream, ErrorCode.NO_ERROR)
        else:
            self._pending_head = None
            self._codec.reset(self._stream, ErrorCode.CANCEL if reason in _OURS else ErrorCode.INTERNAL_ERROR)
        self._connection.write_soon()

    def _release(self) -> None:
        if self._stream.owner is not None:
            self._stream.owner = None
            if self.bucket is not None:
                Sweep.remove(self)
            self._codec.release(self._stream)
            if self._kept_bytes:
                self._note()
            self._connection.released(self)

    def hold(self) -> None:
        self._is_held = True

    def resume(self) -> None:
        if self._kept_bytes:
            self._note()
        if self._is_held:
            self._is_held = False
            self._since = self._connection.service.clock()
            held, self._held_bytes = self._held_bytes, 0
            if held:
                self._codec.credit_stream(self._stream, held)
                self._connection.write_soon()

    def hand_over(self, protocol: Any) -> tuple[StreamLink, bytes, bool]:
        Sweep.remove(self)
        connection = self._connection
        ahead, self._ahead = self._ahead, b""
        self._note()
        self._codec.credit_stream(self._stream, len(ahead))
        link = self._link = StreamLink(
            self._codec,
            self._stream,
            write_soon=connection.write_soon,
            call_soon=connection.service.loop.call_soon,
            on_closed=self._release_link,
            has_other_ended=self._has_client_ended,
        )
        link.set_sink(protocol)
        return link, ahead, self._has_client_ended

    def _release_link(self) -> None:
        """The tunnel is over for its exchange, or nothing more goes through the stream: let go of it after both."""
        if self._exchange is None and self._link is not None and self._link.is_over:
            self._release()


def _has_date(fields: Sequence[Field]) -> bool:
    if isinstance(fields, Block) and fields.lookup:
        return b"date" in fields.lookup
    return any(key == b"date" for key, _, _ in fields)
