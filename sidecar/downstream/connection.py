"""HTTP/1.1 server side: the bytes of one client connection ↔ exchanges, one answer at a time.

Decides framing towards the client, keep-alive, the order of pipelined requests and when to stop reading. It knows
nothing of routes: a complete head becomes an `Exchange`, which then drives this connection as its `Client`. A plain
head is read here (`core/plain.py`), every other request by the `RequestReader`.
Owned by its listener; the exchange being answered is `_current`, those that arrived behind it wait in `_queue`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from sidecar.core.errors import Reason
from sidecar.core.plain import Field, PlainRequest, read_request
from sidecar.core.snapshot import FallbackPolicy
from sidecar.downstream import kernel, parse, respond
from sidecar.downstream.parse import known_hosts
from sidecar.downstream.reader import RequestReader
from sidecar.forwarding import date
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.request_body import RequestBody
from sidecar.forwarding.traits import PLAIN, Traits

if TYPE_CHECKING:
    from sidecar.downstream.listener import ListenerSocket

MAX_DISCARD_BYTES = 64 * 1024
"""Rest of a request body that is read and thrown away to keep a connection; beyond it, it is closed."""
MAX_LINGER_BYTES = 1024 * 1024
"""Read and thrown away after the last answer, so that a reset does not destroy it on its way (RFC 9112 9.6)."""
MAX_PIPELINED = 16
"""Requests in line behind the one that is being answered, before the client is not read any more: as long as it is
read, its leaving is noticed."""
JOIN_BYTES = 8192
"""A body piece up to this size is copied behind the head into one write; beyond, the copy costs more."""

LINGER_SECONDS = 2.0
_UNSEEN = -1
LOOK_SECONDS = 0.04
"""Between two looks at whether a client that is not being read has left."""

_BODYLESS = frozenset({204, 304})
_SPECIAL = frozenset({b"connection", b"te", b"expect"})
_ABOUT_BODY = frozenset({b"content-length", b"content-type"})
_READ_FURTHER = _SPECIAL | _ABOUT_BODY | {b"transfer-encoding", b"upgrade"}
_BODY, _QUEUE, _UPGRADE = 1, 2, 4
"""Why reading is paused: the body has nowhere to go, requests wait in line, an upgrade is being decided."""


class ClientConnection(asyncio.Protocol):
    """One client. See `forwarding.client.Client` for what an exchange may ask of it."""

    __slots__ = (
        "_arriving", "_body_left", "_current", "_has_bodyless_answer", "_is_chunking", "_is_closing",
        "_is_lingering", "_is_looking", "_is_skipping", "_is_starting", "_is_write_paused", "_keep_alive",
        "_linger_bytes", "_listener", "_pauses", "_pending_head", "_queue", "_read_ahead", "_reader", "_service",
        "_waiting_bytes", "peer", "touched", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, listener: ListenerSocket) -> None:
        self._listener = listener
        self._service = listener.service
        self._reader = RequestReader(self, listener)
        self.peer: tuple[str, int] | None = None
        self.touched = 0.0
        """When the client last sent something or took what waited for it, to about a second."""
        self._current: Exchange | None = None
        self._arriving: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._body_left = 0
        """Of a plain request: body bytes that are still to come."""
        self._pending_head: bytes | None = None
        self._is_chunking = False
        self._has_bodyless_answer = False
        self._keep_alive = True
        self._is_closing = False
        self._is_lingering = False
        self._linger_bytes = 0
        self._is_starting = False
        self._is_write_paused = False
        self._waiting_bytes = _UNSEEN
        """As of the last look at a client that is slow to take its answer."""
        self._pauses = 0
        self._is_looking = False
        self._read_ahead: list[bytes] | None = None
        self._is_skipping = False
        """The answer came first: the rest of the request's body is read past."""

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer} current={self._current!r} queued={len(self._queue)}>"

    # What asyncio does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        self.touched = self._listener.now
        if not self._listener.accept(self):
            self._is_closing = True
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._listener.forget(self)
        self._queue.clear()
        self._arriving = None
        current, self._current = self._current, None
        if current is not None:
            current.client_gone()

    def eof_received(self) -> bool:
        return False  # a client that sends no more is taken to be gone, as Go, Envoy and nginx do

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._waiting_bytes = _UNSEEN
        self.touched = self._listener.now
        if self._current is not None:
            self._current.client_paused()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self.touched = self._listener.now
        if self._current is not None:
            self._current.client_resumed()
        else:
            self._advance()

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            self._discard(data)
            return
        if self._read_ahead is not None:
            self._hold(data)
            return
        if self._body_left:
            data = self._take_body(data)
            if not data:
                return
        if not self._reader.is_in_message:
            plain = read_request(data)
            rest = None if plain is None else self._take_plain(plain, data)
            if rest is not None:
                if not rest:
                    return
                data = rest  # llhttp reads all that is behind: to cut off each request would copy the rest each time
        self._read(data)

    # A plain request: the usual case

    def _take_plain(self, plain: PlainRequest, data: bytes) -> bytes | None:
        """Begin the exchange that `data` begins with, and return what is behind it; None to let llhttp read it."""
        method, target, fields, lookup, start = plain
        host = lookup.get(b"host")
        listener = self._listener
        if host not in known_hosts or not self._keep_alive:
            return None
        if start > listener.small_head_bytes and listener.is_too_large(start, target, fields):
            return None
        if not listener.is_trusted:
            fields, lookup = parse.without_internal(fields, lookup)
        exchange = Exchange(self._service, self, listener.name, method, target, target, host, fields, lookup)
        if _ABOUT_BODY.isdisjoint(lookup):
            rest = data[start:] if len(data) > start else b""
        else:
            rest = self._take_plain_body(exchange, lookup, data, start)
        self._start(exchange)
        return rest

    def _take_plain_body(
        self, exchange: Exchange, lookup: dict[bytes, bytes], data: bytes, start: int
    ) -> bytes:
        if lookup.get(b"content-type", b"").startswith(b"application/grpc"):
            exchange.traits = Traits(is_grpc=True)
        length = int(lookup.get(b"content-length", b"0"))
        if not length:
            return data[start:]
        body = exchange.body = RequestBody(self, is_chunked=False)
        end = start + length
        if len(data) >= end:
            body.arrived_whole(memoryview(data)[start:end])
            return data[end:]
        self._body_left = end - len(data)
        self._arriving = exchange
        if len(data) > start:
            body.arrived(data[start:])
        return b""

    def _take_body(self, data: bytes) -> bytes:
        """Pass on the body of a plain request, and return what is behind it."""
        self.touched = self._listener.now
        piece = data[: self._body_left]
        self._body_left -= len(piece)
        if self._arriving is not None and self._arriving.body is not None:
            self._arriving.body.arrived(piece)
        if not self._body_left:
            self.message_read([])
        return data[len(piece) :]

    # Every other request: what the reader says

    def _read(self, data: bytes) -> None:
        if self._is_closing:
            self._discard(data)
            return
        try:
            rest = self._reader.feed(data)
        except parse.Refused as refused:
            self._refuse(refused)
        else:
            if rest is not None:
                self._decide_upgrade(rest)

    def head_read(self) -> None:
        if not self._keep_alive:
            raise parse.bad_request("a request behind the last one of its connection")
        reader, listener = self._reader, self._listener
        reader.check_limits()
        method, url, fields, lookup = reader.method, reader.url, reader.fields, reader.lookup
        version = reader.version
        authority, origin_target = parse.split_target(method, url, lookup.get(b"host"), version)
        if not listener.is_trusted:
            fields, lookup = parse.without_internal(fields, lookup)
        exchange = Exchange(
            self._service, self, listener.name, method, url, origin_target, authority, fields, lookup
        )
        if version != "1.1" or not _READ_FURTHER.isdisjoint(lookup):
            self._read_further(exchange, version)
        if exchange.body is not None:
            self._arriving = exchange
        self._start(exchange)

    def _read_further(self, exchange: Exchange, version: str) -> None:
        """What only some requests say: how long their body is, what becomes of the connection, gRPC or not."""
        reader, lookup = self._reader, exchange.lookup
        if version != "1.1" or b"connection" in lookup:
            exchange.keep_alive = self._keep_alive = reader.keeps_alive
        traits = Traits(
            http_version=version,
            is_chunked=b"transfer-encoding" in lookup and parse.check_framing(lookup, version),
            is_grpc=lookup.get(b"content-type", b"").startswith(b"application/grpc"),
        )
        asks_for_upgrade = b"upgrade" in lookup and reader.asks_for_upgrade
        if parse.has_body(lookup, is_chunked=traits.is_chunked):
            exchange.body = RequestBody(self, is_chunked=traits.is_chunked)
            if asks_for_upgrade:  # ignored, as RFC 9110 7.8 allows
                reader.read_body_behind_upgrade(is_chunked=traits.is_chunked)
        elif asks_for_upgrade:
            traits.wants_upgrade = parse.is_tunnelled(lookup[b"upgrade"], version)
        exchange.traits = traits

    def body_read(self, data: bytes) -> None:
        self.touched = self._listener.now
        arriving = self._arriving
        if arriving is not None and arriving.body is not None:
            arriving.body.arrived(data)

    def message_read(self, trailers: list[Field]) -> None:
        self._is_skipping = False
        arriving = self._arriving
        if arriving is not None:
            self._arriving = None
            if arriving.body is not None:
                arriving.body.completed(trailers)
                arriving.request_arrived()

    def _refuse(self, refused: parse.Refused) -> None:
        """Nothing that arrives from here on can be trusted: answer what came before, then this, then close."""
        error = GivenUp(refused.reason, refused.detail)
        self._keep_alive = False
        arriving, self._arriving = self._arriving, None
        self._reader.is_in_head = False
        self._is_closing = True
        if arriving is None:
            self._start(self._refused_exchange(error))
        elif arriving is self._current:
            arriving.keep_alive = False
            arriving.fail(error)
        else:
            arriving.refusal = error
            arriving.keep_alive = False

    def _refused_exchange(self, error: GivenUp) -> Exchange:
        url = self._reader.url[:1024]
        exchange = Exchange(self._service, self, self._listener.name, b"", url, b"", b"", [], {})
        exchange.keep_alive = False
        exchange.refusal = error
        return exchange

    # One answer at a time

    def _start(self, exchange: Exchange) -> None:
        """Now, or when those before it have been answered."""
        if self._current is None and not self._queue and not self._is_write_paused:
            self._current = exchange
            exchange.begin()
            return
        self._queue.append(exchange)
        if len(self._queue) >= MAX_PIPELINED:
            self._pause(_QUEUE)

    def _advance(self) -> None:
        """Start what waits, in order. A loop, not recursion: many may be answered at once."""
        if self._is_starting:
            return
        self._is_starting = True
        while self._queue and self._current is None and not self._is_write_paused:
            self._current = self._queue.popleft()
            self._current.begin()
        self._is_starting = False
        if not self._queue:
            self._resume(_QUEUE)

    def _pause(self, why: int) -> None:
        if not self._pauses:
            self.transport.pause_reading()
            if not self._is_looking:
                self._is_looking = True
                self._service.loop.call_later(LOOK_SECONDS, self._look_for_end)
        self._pauses |= why

    def _look_for_end(self) -> None:
        """A client that is not read cannot be seen to leave, so ask the kernel as long as that lasts."""
        self._is_looking = False
        if not self._pauses or self.transport.is_closing():
            return
        if kernel.has_left(self.transport):
            self.transport.abort()
            return
        self._is_looking = True
        self._service.loop.call_later(LOOK_SECONDS, self._look_for_end)

    def _resume(self, why: int) -> None:
        if self._pauses & why:
            self._pauses &= ~why
            if not self._pauses and not self.transport.is_closing():
                self.transport.resume_reading()

    # Upgrades

    def _decide_upgrade(self, rest: bytes) -> None:
        """A request asks for an upgrade; what follows it may be either protocol's."""
        current = self._current
        if current is not None and current.traits.wants_upgrade and not self._queue:
            self._read_ahead = []
            if rest:
                self._hold(rest)
            return
        for queued in self._queue:
            if queued.traits.wants_upgrade:
                queued.traits.wants_upgrade = False  # there are requests before it, and perhaps behind it
        if rest:
            self.data_received(rest)

    def _hold(self, data: bytes) -> None:
        assert self._read_ahead is not None
        self._read_ahead.append(data)
        self._pause(_UPGRADE)

    # What an exchange asks for (`forwarding.client.Client`)

    def pause_reading(self) -> None:
        self._pause(_BODY)

    def resume_reading(self) -> None:
        self.touched = self._listener.now
        self._resume(_BODY)

    def send_interim(self, head: bytes) -> None:
        if self._current is not None and self._current.traits.http_version == "1.1":
            self.transport.write(head)

    def send_head(self, lines: list[bytes], status: int, length: int | None) -> None:
        current = self._current
        if current is None:
            return
        self._has_bodyless_answer = current.method == b"HEAD" or status in _BODYLESS
        if length is None and not self._has_bodyless_answer:
            if current.traits.http_version == "1.1":
                self._is_chunking = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:
                current.keep_alive = False
        self._end_head(current, lines)
        self._pending_head = b"".join(lines)

    def _end_head(self, current: Exchange, lines: list[bytes]) -> None:
        if self._listener.is_ending or _may_still_send(current):
            current.keep_alive = False
        if not current.keep_alive:
            lines.append(b"Connection: close\r\n\r\n")
        elif current.traits.http_version == "1.0":
            lines.append(b"Connection: keep-alive\r\n\r\n")
        else:
            lines.append(b"\r\n")

    def send_body(self, data: bytes) -> None:
        if self._has_bodyless_answer:
            return
        head = self._pending_head
        size = len(data)
        if self._is_chunking:
            if size > JOIN_BYTES:
                lead = b"%x\r\n" % size
                self.transport.writelines((lead if head is None else head + lead, data, b"\r\n"))
                self._pending_head = None
                return
            data = b"%x\r\n%b\r\n" % (size, data)
        if head is None:
            self.transport.write(data)
        elif size > JOIN_BYTES:
            self.transport.writelines((head, data))
            self._pending_head = None
        else:
            self.transport.write(head + data)
            self._pending_head = None

    def send_whole(self, lines: list[bytes], body: bytes) -> None:
        current = self._current
        if current is None:
            return
        if current.traits is not PLAIN or not current.keep_alive or self._listener.is_ending:
            self._end_head(current, lines)
        else:
            lines.append(b"\r\n")
        if len(body) > JOIN_BYTES:
            self.transport.writelines((b"".join(lines), body))
        else:
            lines.append(body)
            self.transport.write(b"".join(lines))

    def flush(self) -> None:
        head = self._pending_head
        if head is not None:
            self._pending_head = None
            self.transport.write(head)

    def answer(self, exchange: Exchange, error: GivenUp, fallback: FallbackPolicy | None) -> int:
        answer = respond.answer(
            error.reason,
            error.detail,
            request_id=exchange.request_id,
            date_line=date.line(),
            route=exchange.route_name,
            retry_after_seconds=error.retry_after_seconds,
            is_grpc=exchange.traits.is_grpc,
            fallback=fallback,
        )
        if error.reason is Reason.DRAINING or not self._can_skip_rest_of(exchange):
            exchange.keep_alive = False
        self._end_head(exchange, answer.lines)
        self._pending_head = None
        self._is_chunking = False
        body = b"" if exchange.method == b"HEAD" or answer.status in _BODYLESS else answer.body
        self.transport.write(b"".join(answer.lines) + body)
        return answer.status

    def proxy_status_line(self, exchange: Exchange) -> bytes:
        assert exchange.reason is not None
        value = respond.proxy_status(exchange.reason, exchange.detail, exchange.fallback)
        return b"Proxy-Status: %b\r\n" % value

    def abort(self) -> None:
        self._is_closing = True
        self._pending_head = None
        kernel.reset(self.transport)

    def hand_over(self, protocol: asyncio.BaseProtocol) -> tuple[asyncio.Transport, bytes]:
        read_ahead = b"".join(self._read_ahead or ())
        self._read_ahead = None
        self.transport.set_protocol(protocol)
        self._resume(_UPGRADE)
        return self.transport, read_ahead

    def end(self, trailers: bytes) -> None:
        current = self._current
        self._current = None
        self.touched = self._listener.now
        if current is None or current.tunnel is not None:
            self._listener.forget(self)
            return
        if self._pending_head is not None:
            self.flush()
        if self._is_chunking:
            self._is_chunking = False
            self.transport.write(b"0\r\n%b\r\n" % trailers)
        if self._pauses & _BODY:
            self._resume(_BODY)
        if current is self._arriving:
            # The rest of its body belongs to nobody: read past it if that is cheap, else give the connection up.
            self._arriving = None
            self._is_skipping = True
            current.keep_alive = current.keep_alive and self._can_skip_rest_of(current)
        if not current.keep_alive or (self._is_closing and (not self._queue or self.transport.is_closing())):
            self._close()
            return
        if self._read_ahead is not None:
            self._give_back_read_ahead()
        if self._queue:
            self._advance()

    def _can_skip_rest_of(self, exchange: Exchange) -> bool:
        body = exchange.body
        if body is None or body.is_complete:
            return True
        if exchange.traits.is_chunked or b"expect" in exchange.lookup:
            return False  # no telling how much, or whether any at all, will come
        return int(exchange.lookup[b"content-length"]) - body.size <= MAX_DISCARD_BYTES

    def _give_back_read_ahead(self) -> None:
        """The upgrade was declined: what was read ahead is the next request."""
        read_ahead = b"".join(self._read_ahead or ())
        self._read_ahead = None
        self._resume(_UPGRADE)
        if read_ahead:
            self.data_received(read_ahead)

    # The end of the connection

    def _close(self) -> None:
        """Close once what was written has gone out, and let the client read it to its end."""
        self._queue.clear()
        if self.transport.is_closing():
            return
        was_whole = not (self._is_closing or self._reader.head_bytes or self._arriving or self._is_skipping)
        self._is_closing = True
        if was_whole or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.touched = self._listener.now
        self._is_lingering = True
        self._pauses = 0
        self.transport.write_eof()
        self.transport.resume_reading()

    def _discard(self, data: bytes) -> None:
        self._linger_bytes += len(data)
        if self._linger_bytes > MAX_LINGER_BYTES:
            self.transport.abort()

    def drain(self, quiet_since: float) -> None:
        """Close now if nothing is under way and nothing has come since; else its answer says `Connection: close`."""
        is_idle = self._current is None and not self._queue and not self._reader.is_in_head
        if is_idle and self.touched <= quiet_since and not kernel.has_unread(self.transport):
            self._is_closing = True
            self.transport.close()

    def check(self, now: float) -> None:
        """Called about once a second: end what takes the client too long."""
        timeouts, reader = self._listener.timeouts, self._reader
        is_ending = self._is_closing and self._current is None and not self._queue
        if is_ending or self._is_write_paused:
            waiting = kernel.waiting_bytes(self.transport)
            if self._waiting_bytes not in (_UNSEEN, waiting):
                self.touched = now  # slow, but it takes what waits for it
            self._waiting_bytes = waiting
        quiet_seconds = now - self.touched
        if is_ending or self._is_write_paused:
            if quiet_seconds > (LINGER_SECONDS if self._is_lingering else timeouts.body_seconds):
                self.transport.abort()
        elif reader.is_in_head or (
            reader.head_bytes and not (self._current or self._arriving or self._is_skipping)
        ):
            if now - reader.head_started > timeouts.head_seconds:
                self._refuse(parse.Refused(Reason.REQUEST_TIMEOUT, "the request head took too long"))
        elif self._is_skipping:
            if quiet_seconds > timeouts.body_seconds:
                self.abort()
        elif self._arriving is not None:
            if quiet_seconds > timeouts.body_seconds and not self._pauses:
                self._refuse(parse.Refused(Reason.REQUEST_TIMEOUT, "the request body stalled"))
        elif self._current is None and not self._queue and quiet_seconds > timeouts.idle_seconds:
            self._is_closing = True
            self.transport.close()


def _may_still_send(exchange: Exchange) -> bool:
    """Whether the body of an `Expect` will still come is anybody's guess (RFC 9110 10.1.1)."""
    return b"expect" in exchange.lookup and exchange.body is not None and not exchange.body.size
