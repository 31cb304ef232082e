"""HTTP/1.1 server side: the bytes of one client connection ↔ exchanges, one answer at a time.

Decides framing towards the client, keep-alive, the order of pipelined requests and when to stop reading. It knows
nothing of routes: a complete head becomes an `Exchange`, which then drives this connection as its `Client`.
Owned by its listener; the exchange being answered is `_current`, those that arrived behind it wait in `_queue`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httptools

from sidecar.core.errors import Reason
from sidecar.core.plain import Field, PlainRequest, read_request
from sidecar.core.snapshot import FallbackPolicy
from sidecar.downstream import parse, respond
from sidecar.downstream.parse import known_hosts
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.request_body import RequestBody

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

_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8  # include/net/tcp_states.h
_BODYLESS = frozenset({204, 304})
_SPECIAL = frozenset({b"connection", b"te", b"expect"})
_ABOUT_BODY = frozenset({b"content-length", b"content-type"})
_READ_FURTHER = _SPECIAL | _ABOUT_BODY | {b"transfer-encoding", b"upgrade"}
_BODY, _QUEUE, _UPGRADE = 1, 2, 4
"""Why reading is paused: the body has nowhere to go, requests wait in line, an upgrade is being decided."""


class ClientConnection(asyncio.Protocol):
    """One client. See `forwarding.client.Client` for what an exchange may ask of it."""

    __slots__ = (
        "_arriving", "_behind_upgrade", "_body_left", "_current", "_fields", "_has_bodyless_answer", "_head_bytes",
        "_head_started", "_is_chunking", "_is_closing", "_is_in_head", "_is_in_message", "_is_lingering",
        "_is_looking", "_is_skipping", "_is_starting", "_is_write_paused", "_keep_alive", "_linger_bytes",
        "_listener", "_lookup", "_parser", "_pauses", "_pending_head", "_queue", "_read_ahead", "_read_bytes", "_service",
        "_trailers", "_url", "_waiting_bytes", "peer", "touched", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, listener: ListenerSocket) -> None:
        self._listener = listener
        self._service = listener.service
        self._parser: Any = httptools.HttpRequestParser(self)
        self.peer: tuple[str, int] | None = None
        self.touched = 0.0
        """When the client last sent something or took what waited for it, to about a second."""
        self._current: Exchange | None = None
        self._arriving: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._head_started = 0.0
        self._read_bytes = 0
        self._body_left = 0
        """Of a plain request: body bytes that are still to come."""
        self._is_in_message = False
        """llhttp has begun to read a request, so it must have all of it."""
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
        self._behind_upgrade: bytes | None = None
        self._is_skipping = False
        self._begin_head()

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer} current={self._current!r} queued={len(self._queue)}>"

    def _begin_head(self) -> None:
        self._url = b""
        self._fields: list[Field] = []
        self._lookup: dict[bytes, bytes] = {}
        self._trailers: list[Field] = []
        self._is_in_head = self._is_skipping = False
        self._head_bytes = 0

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
        while not (self._is_in_message or self._is_closing):
            plain = read_request(data)
            if plain is None:
                break
            rest = self._take_plain(plain, data)
            if rest is None:
                break
            if not rest:
                return
            data = rest
        self._parse(data)

    # A plain request: the usual case

    def _take_plain(self, plain: PlainRequest, data: bytes) -> bytes | None:
        """Begin the exchange that `data` begins with, and return what is behind it; None to let llhttp read it."""
        method, target, fields, lookup, start = plain
        host = lookup.get(b"host")
        listener = self._listener
        if host not in known_hosts or not self._keep_alive:
            return None
        if start > listener.small_head_bytes and self._is_beyond_limits(start, target, fields):
            return None
        if not listener.is_trusted:
            fields, lookup = parse.without_internal(fields, lookup)
        exchange = Exchange(self._service, self, listener.name, method, target, target, host, fields, lookup)
        if _ABOUT_BODY.isdisjoint(lookup):
            rest = data[start:]
        else:
            rest = self._take_plain_body(exchange, lookup, data, start)
        if self._current is None and not self._queue and not self._is_write_paused:
            self._current = exchange
            exchange.begin()
        else:
            self._start(exchange)
        return rest

    def _is_beyond_limits(self, head_bytes: int, target: bytes, fields: list[Field]) -> bool:
        limits = self._listener.limits
        return (
            head_bytes > limits.head_bytes or len(target) > limits.url_bytes or len(fields) > limits.headers
        )

    def _take_plain_body(
        self, exchange: Exchange, lookup: dict[bytes, bytes], data: bytes, start: int
    ) -> bytes:
        exchange.is_grpc = lookup.get(b"content-type", b"").startswith(b"application/grpc")
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
            self._end_message()
        return data[len(piece) :]

    # Every other request: llhttp

    def _parse(self, data: bytes) -> None:
        if self._is_closing:
            self._discard(data)
            return
        if not self._head_bytes:
            self._head_started = self._listener.now
        self._read_bytes = len(data)
        self._head_bytes += self._read_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._take_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, parse.Refused):
                raise
            self._refuse(error.__context__)
        except httptools.HttpParserError as error:
            self._refuse(parse.bad_request(str(error)))
        else:
            if self._head_bytes > self._listener.limits.head_bytes:
                self._refuse(self._too_large())

    # What the parser says

    def on_message_begin(self) -> None:
        self._is_in_message = True

    def on_url(self, url: bytes) -> None:
        self._is_in_head = True
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        value = value.rstrip(b" \t")  # llhttp leaves what RFC 9112 5.1 does not count as part of the value
        if not self._is_in_head:
            self._trailers.append((key, b"%b: %b\r\n" % (name, value), value))
            if len(self._trailers) > self._listener.limits.headers:
                raise parse.Refused(Reason.HEAD_TOO_LARGE, "too many trailer fields")
            return
        lookup = self._lookup
        if key in lookup:
            lookup[key] += b", " + value
        else:
            lookup[key] = value
        self._fields.append((key, b"%b: %b\r\n" % (name, value), value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if not self._keep_alive:
            raise parse.bad_request("a request behind the last one of its connection")
        exchange = self._new_exchange()
        if exchange.body is not None:
            self._arriving = exchange
        self._start(exchange)

    def on_body(self, data: bytes) -> None:
        self.touched = self._listener.now
        self._head_bytes = (
            0  # counted again: chunk extensions and trailers must not grow without bound either
        )
        arriving = self._arriving
        if arriving is not None and arriving.body is not None:
            arriving.body.arrived(data)

    def on_message_complete(self) -> None:
        if self._behind_upgrade is not None:
            return  # llhttp takes the body for the other protocol's; it is yet to come
        self._is_in_message = False
        self._end_message()
        self._begin_head()

    def _end_message(self) -> None:
        self._is_skipping = False
        arriving = self._arriving
        if arriving is not None:
            self._arriving = None
            if arriving.body is not None:
                arriving.body.completed(self._trailers)

    def _new_exchange(self) -> Exchange:
        parser = self._parser
        lookup = self._lookup
        url = self._url
        small = self._listener.small_head_bytes
        if self._head_bytes > small or self._read_bytes > small:
            self._check_limits()
        version = parser.get_http_version()
        method = parser.get_method()
        authority, origin_target = parse.split_target(method, url, lookup.get(b"host"), version)
        if not self._listener.is_trusted:
            self._fields, self._lookup = parse.without_internal(self._fields, lookup)
            lookup = self._lookup
        exchange = Exchange(
            self._service,
            self,
            self._listener.name,
            method,
            url,
            origin_target,
            authority,
            self._fields,
            lookup,
        )
        if version != "1.1" or not _READ_FURTHER.isdisjoint(lookup):
            self._read_further(exchange, version)
        return exchange

    def _read_further(self, exchange: Exchange, version: str) -> None:
        """What only some requests say: how long their body is, what becomes of the connection, gRPC or not."""
        parser = self._parser
        lookup = self._lookup
        exchange.http_version = version
        if version != "1.1" or b"connection" in lookup:
            exchange.keep_alive = self._keep_alive = parser.should_keep_alive()
        exchange.is_grpc = lookup.get(b"content-type", b"").startswith(b"application/grpc")
        exchange.is_chunked = b"transfer-encoding" in lookup and parse.check_framing(lookup, version)
        if parse.has_body(lookup, is_chunked=exchange.is_chunked):
            exchange.body = RequestBody(self, is_chunked=exchange.is_chunked)
            if b"upgrade" in lookup and parser.should_upgrade():
                self._behind_upgrade = parse.framing_head(lookup, is_chunked=exchange.is_chunked)
        elif b"upgrade" in lookup:  # with a body it is ignored, as RFC 9110 7.8 allows
            exchange.wants_upgrade = parse.wants_upgrade(parser, lookup, version)
        exchange.is_special = (
            exchange.is_chunked
            or exchange.wants_upgrade
            or version != "1.1"
            or not _SPECIAL.isdisjoint(lookup)
        )

    def _check_limits(self) -> None:
        limits = self._listener.limits
        size = sum(len(line) for _, line, _ in self._fields) + len(self._url)
        is_too_many = len(self._fields) > limits.headers or len(self._url) > limits.url_bytes
        if is_too_many or size > limits.head_bytes:
            raise self._too_large()

    def _too_large(self) -> parse.Refused:
        limits = self._listener.limits
        if len(self._url) > limits.url_bytes:
            return parse.Refused(Reason.URL_TOO_LONG, f"the target is longer than {limits.url_bytes} bytes")
        if len(self._fields) > limits.headers:
            return parse.Refused(Reason.HEAD_TOO_LARGE, f"more than {limits.headers} header fields")
        return parse.Refused(Reason.HEAD_TOO_LARGE, f"the head is larger than {limits.head_bytes} bytes")

    def _refuse(self, refused: parse.Refused) -> None:
        """Nothing that arrives from here on can be trusted: answer what came before, then this, then close."""
        error = GivenUp(refused.reason, refused.detail)
        self._keep_alive = False
        arriving, self._arriving = self._arriving, None
        self._is_in_head = False
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
        url = self._url[:1024]
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
        if _has_left(self.transport):
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

    def _take_upgrade(self, rest: bytes) -> None:
        """llhttp stops behind a request that asks for an upgrade; what follows may be either protocol's."""
        framing, self._behind_upgrade = self._behind_upgrade, None
        if framing is not None:
            self._parser = httptools.HttpRequestParser(_BehindUpgrade(self))
            self._parser.feed_data(framing)
        else:
            self._parser = httptools.HttpRequestParser(self)
            current = self._current
            if current is not None and current.wants_upgrade and not self._queue:
                self._read_ahead = []
                if rest:
                    self._hold(rest)
                return
            for queued in self._queue:
                queued.wants_upgrade = False  # there are requests before it, and perhaps behind it
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
        if self._current is not None and self._current.http_version == "1.1":
            self.transport.write(head)

    def send_head(self, lines: list[bytes], status: int, length: int | None) -> None:
        current = self._current
        if current is None:
            return
        self._has_bodyless_answer = current.method == b"HEAD" or status in _BODYLESS
        if length is None and not self._has_bodyless_answer:
            if current.http_version == "1.1":
                self._is_chunking = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:
                current.keep_alive = False
        self._end_head(current, lines)
        self._pending_head = b"".join(lines)

    def _end_head(self, current: Exchange, lines: list[bytes]) -> None:
        if self._service.is_draining or _may_still_send(current):
            current.keep_alive = False
        if not current.keep_alive:
            lines.append(b"Connection: close\r\n\r\n")
        elif current.http_version == "1.0":
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
        if current.is_special or not current.keep_alive or self._service.is_draining:
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
            route=exchange.route_name,
            retry_after_seconds=error.retry_after_seconds,
            is_grpc=exchange.is_grpc,
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
        with contextlib.suppress(OSError, AttributeError):
            # A reset, not a FIN: an answer that ends with its connection would look whole.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

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
        if exchange.is_chunked or b"expect" in exchange.lookup:
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
        was_whole = not (self._is_closing or self._head_bytes or self._arriving or self._is_skipping)
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

    def drain(self) -> None:
        """Close now if nothing is under way; else the current answer says `Connection: close`."""
        if self._current is None and not self._queue and not self._is_in_head:
            self._is_closing = True
            self.transport.close()

    def check(self, now: float) -> None:
        """Called about once a second: end what takes the client too long."""
        timeouts = self._listener.timeouts
        is_ending = self._is_closing and self._current is None and not self._queue
        if is_ending or self._is_write_paused:
            waiting = _waiting_bytes(self.transport)
            if self._waiting_bytes not in (_UNSEEN, waiting):
                self.touched = now  # slow, but it takes what waits for it
            self._waiting_bytes = waiting
        quiet_seconds = now - self.touched
        if is_ending or self._is_write_paused:
            if quiet_seconds > (LINGER_SECONDS if self._is_lingering else timeouts.body_seconds):
                self.transport.abort()
        elif self._is_in_head or (
            self._head_bytes and not (self._current or self._arriving or self._is_skipping)
        ):
            if now - self._head_started > timeouts.head_seconds:
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


def _waiting_bytes(transport: asyncio.Transport) -> int:
    """What was written and the other side has not taken: here and in the kernel (tcp(7), SIOCOUTQ)."""
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            waiting += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return waiting


def _has_left(transport: asyncio.Transport) -> bool:
    """True if the other side has closed or reset its connection, whatever still waits to be read."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return False
    state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state in (_TCP_CLOSE, _TCP_CLOSE_WAIT)


class _BehindUpgrade:
    """Hears a parser that reads the body of a request whose upgrade is ignored.

    llhttp does not read such a body: it takes what follows the head for the other protocol. So a fresh parser is
    first fed a head with the same framing, which this swallows; everything behind it goes to the connection.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._is_past_head = False
        self._connection = connection
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_url(self, url: bytes) -> None:
        if self._is_past_head:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_past_head:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_past_head:
            self._connection.on_headers_complete()
        self._is_past_head = True
