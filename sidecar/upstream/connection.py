"""HTTP/1.1 client side: the bytes of one connection to one endpoint ↔ the events of one response at a time.

Decides what is a well-framed response (RFC 9112 6.3) and whether the connection may be used again. It knows
nothing of routes, breakers or clients: it tells its `Receiver`, which is one attempt, and forgets it at the end.
Owned by its `Pool`; while an attempt uses it, by that attempt.

Every error of the transport or the parser becomes a `Reason` here. Nothing past the end of a response is ever
delivered: it poisons the connection, so that no other exchange can be given those bytes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, cast

import httptools

from sidecar.core.errors import Reason
from sidecar.core.plain import Field, PlainResponse, read_response
from sidecar.upstream.unread import unread

if TYPE_CHECKING:
    from sidecar.upstream.pool import Pool

MAX_HEAD_BYTES = 64 * 1024
"""Status line and fields of one response, interim ones included; beyond, it is malformed."""
MAX_LENGTH = 2**63 - 1
MAX_FIELDS = 256
MAX_INTERIM = 32
"""1xx responses before the final one."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_BODYLESS = frozenset({204, 304})


class Receiver(Protocol):
    """Who hears of one response. Called on the loop, in order; `completed` or `failed` comes last and once."""

    def interim(self, status: int, fields: list[Field], listed: bytes) -> None: ...
    def head(self, status: int, fields: list[Field], length: int | None, listed: bytes) -> None:
        """The final head. `length` is None when the body ends with a chunk or with the connection; `listed` is the
        value of its `Connection` field, or empty."""

    def body(self, data: bytes) -> None: ...
    def flush(self) -> None:
        """All that came in one read has been delivered."""

    def completed(self, trailers: list[Field]) -> None: ...
    def answered(self, status: int, fields: list[Field], length: int, body: bytes) -> None:
        """`head`, `body` and `completed` in one, for a response that came whole in one read."""

    def switched(self, fields: list[Field], rest: bytes) -> None:
        """101 was sent and accepted: from here on the connection belongs to the receiver, `rest` came after."""

    def failed(self, reason: Reason, detail: str, is_stale: bool) -> None:
        """`is_stale`: a reused connection that ended before one byte of this response."""

    def pause_sending(self) -> None: ...
    def resume_sending(self) -> None: ...


class _Malformed(Exception):
    """Raised in a parser callback to end the parse; the text is the detail for the log."""


class UpstreamConnection(asyncio.Protocol):
    """One connection. `pool` is where it came from and goes back to."""

    __slots__ = (
        "_body_left", "_chunked", "_close_delimited", "_fields", "_has_head", "_head_bytes", "_interims", "_is_done",
        "_is_head_request", "_is_keep_alive", "_is_switching", "_length", "_listed", "_parser", "_receiver",
        "_trailers", "_wants_upgrade", "exchanges", "idle_since", "is_open", "is_read_paused",
        "is_write_paused", "pool", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.is_open = False
        self.idle_since = 0.0
        self._receiver: Receiver | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self.exchanges = 0
        """Begun on this connection."""
        self._is_head_request = self._wants_upgrade = False
        self._is_keep_alive = True
        self.is_read_paused = False
        """The client takes no more of the answer for now."""
        self.is_write_paused = False
        """The upstream takes no more of the request for now."""
        self._body_left = 0
        """Of a plain response: body bytes that are still to come."""
        self._begin_response()

    def __repr__(self) -> str:
        state = "busy" if self._receiver else "idle" if self.is_open else "closed"
        return f"<UpstreamConnection {self.pool.endpoint} {state} exchanges={self.exchanges}>"

    def _begin_response(self) -> None:
        self._fields: list[Field] = []
        self._trailers: list[Field] = []
        self._listed = b""
        self._length: int | None = None
        self._head_bytes = self._interims = self._chunked = 0
        self._has_head = self._is_done = self._is_switching = self._close_delimited = False

    # What the attempt does

    def begin(self, receiver: Receiver, is_head_request: bool, wants_upgrade: bool) -> None:
        """Take the connection for one request, whose bytes the caller then writes to `transport`."""
        self._receiver = receiver
        self.exchanges += 1
        self._is_head_request = is_head_request
        self._wants_upgrade = wants_upgrade
        self._has_head = False
        self._head_bytes = 0

    def pause_reading(self) -> None:
        self.is_read_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.is_read_paused = False
        self.transport.resume_reading()

    def release(self, *, is_reusable: bool) -> None:
        """Give the connection back after `completed`; `is_reusable` says that the request was sent whole."""
        self._receiver = None
        if self.is_read_paused:  # the end of the answer was what its client could not take
            self.resume_reading()
        if (
            not (is_reusable and self._is_keep_alive and self.is_open)
            or self.is_write_paused
            or self.pool.is_retired
        ):
            # Where an answer came before its request was taken, the next one would wait behind the rest of it, and
            # asyncio, which has said "pause" already, would not say it again however much of the next is written.
            self.abort()
            return
        cluster = self.pool.cluster
        if not cluster.waiters or not cluster.hand_to_waiter(self):
            self.idle_since = cluster.looked_at
            self.pool.idle.append(self)

    def abort(self) -> None:
        """Close at once, in whatever state. The receiver hears nothing more."""
        self._receiver = None
        if self.is_open:
            self.is_open = False
            self.transport.abort()
            self.pool.forget(self)

    def forget(self) -> None:
        """The transport was handed over and is someone else's to close: only give its slot back."""
        if self.is_open:
            self.is_open = False
            self.pool.forget(self)

    def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """After a switch: the transport goes to `protocol`; the pool counts it until `forget`."""
        self._receiver = None
        self.transport.set_protocol(protocol)
        return self.transport

    # What asyncio does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._receiver is not None:
            self._read_ahead_of_reset()
        if self.is_open:
            self.is_open = False
            self.pool.forget(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        if self._close_delimited and exc is None:
            receiver.completed([])
        elif self._has_head or self._head_bytes:
            receiver.failed(Reason.INCOMPLETE_RESPONSE, "upstream closed in the middle of its answer", False)
        else:
            is_stale = self.exchanges > 1
            receiver.failed(Reason.CONNECTION_RESET, "upstream closed before it answered", is_stale)

    def _read_ahead_of_reset(self) -> None:
        self._is_keep_alive = False
        for data in unread(self.transport):
            self.data_received(data)
            if self._receiver is None:
                return

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.is_write_paused = True
        if self._receiver is not None:
            self._receiver.pause_sending()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self._receiver is not None:
            self._receiver.resume_sending()

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self.abort()  # nobody asked: whatever this is, it must not be read as the next answer
            return
        if self._body_left:
            self._take_body(receiver, data)
            return
        if not (self._has_head or self._head_bytes):  # a response begins
            plain = None if self._is_head_request or self._wants_upgrade else read_response(data)
            if plain is not None and plain[3] <= MAX_HEAD_BYTES and len(plain[1]) <= MAX_FIELDS:
                self._has_head = True
                status, fields, length, start = plain
                if start + length == len(data):  # all of it
                    receiver.answered(status, fields, length, data[start:])
                else:
                    self._begin_plain(receiver, plain, data)
                return
            self._begin_response()
        self._parse(receiver, data)

    # A plain response: the usual case

    def _begin_plain(self, receiver: Receiver, plain: PlainResponse, data: bytes) -> None:
        status, fields, length, start = plain
        receiver.head(status, fields, length, b"")
        if self._receiver is None:
            return
        self._body_left = length
        if len(data) > start:
            self._take_body(receiver, data[start:])
        else:
            receiver.flush()

    def _take_body(self, receiver: Receiver, data: bytes) -> None:
        left = self._body_left - len(data)
        if left < 0:
            self._is_keep_alive = False  # poisoned: there were bytes past the end
            data = data[:left]
            left = 0
        self._body_left = left
        if data:
            receiver.body(data)
        if not left and self._receiver is not None:
            receiver.completed([])

    # Every other response: llhttp

    def _parse(self, receiver: Receiver, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if not self._is_done:
                self._fail(error)
                return
            self._is_keep_alive = False  # poisoned: there were bytes past the end
        if self._is_done:
            if self._is_head_request:
                self._parser = httptools.HttpResponseParser(self)
            if self._receiver is not None:
                self._receiver.completed(self._trailers)
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._fail(_Malformed("head, chunk extension or trailers too large"))
        elif self._receiver is not None:
            receiver.flush()

    # What the parser says

    def on_message_begin(self) -> None:
        if self._is_done:
            raise _Malformed("bytes past the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        value = value.rstrip(b" \t")  # llhttp leaves what RFC 9112 5.1 does not count as part of the value
        self._fields.append((key, b"%b: %b\r\n" % (name, value), value))
        if key in _FRAMING:
            self._note_framing(key, value)

    def _note_framing(self, key: bytes, value: bytes) -> None:
        if self._has_head:  # a trailer field frames nothing, but llhttp heeds this one
            self._is_keep_alive = self._is_keep_alive and key != b"connection"
            return
        if key == b"content-length":
            self._length = int(value)  # llhttp has refused everything but digits, and a second one
            if self._length > MAX_LENGTH:
                raise _Malformed("Content-Length out of range")
        elif key == b"transfer-encoding":
            self._chunked += 1
            if value.lower() != b"chunked":
                raise _Malformed("transfer coding other than chunked")
        else:
            self._listed = self._listed + b"," + value if self._listed else value
            if b"close" in value.lower():
                self._is_keep_alive = False

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        fields = self._fields
        if len(fields) > MAX_FIELDS:
            raise _Malformed("too many header fields in the response")
        if self._head_bytes > MAX_HEAD_BYTES and _size(fields) > MAX_HEAD_BYTES:
            raise _Malformed("response head too large")
        if status < 200:
            self._take_interim(status)
            return
        self._has_head = True
        self._fields = self._trailers  # what comes from here on
        length = self._length
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0" or self._chunked:
                raise _Malformed("an unknown version, or a transfer coding in HTTP/1.0")
            self._is_keep_alive = False
        if self._chunked:
            if self._chunked > 1 or length is not None:
                raise _Malformed("ambiguous framing of the response")
        elif length is None:
            self._close_delimited = not (self._is_head_request or status in _BODYLESS)
        receiver = cast(Receiver, self._receiver)
        receiver.head(status, fields, length, self._listed)
        if self._is_head_request:
            # llhttp waits for a body that will not come; a fresh parser reads the next response.
            self._is_done = True

    def _take_interim(self, status: int) -> None:
        self._interims += 1
        if status == 101:
            if not self._wants_upgrade or self._chunked or self._length:
                raise _Malformed("unexpected 101")
            self._is_switching = True
            return
        if status < 100 or self._interims > MAX_INTERIM or self._chunked or self._length:
            raise _Malformed("malformed or too many interim responses")
        cast(Receiver, self._receiver).interim(status, self._fields, self._listed)

    def on_body(self, data: bytes) -> None:
        if self._is_done:
            raise _Malformed("a body where there is none")
        self._head_bytes = (
            0  # counted again: chunk extensions and trailers must not grow without bound either
        )
        if self._receiver is not None:
            self._receiver.body(data)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_done = True
        elif not self._is_switching:
            self._fields = []
            self._length = None
            self._listed = b""

    # How a response ends

    def _switch(self, rest: bytes) -> None:
        receiver = self._receiver
        if receiver is None or not self._is_switching:
            self._fail(_Malformed("unexpected upgrade"))
            return
        receiver.switched(self._fields, rest)

    def _fail(self, error: Exception) -> None:
        receiver = self._receiver
        cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
        if not isinstance(cause, _Malformed | httptools.HttpParserError):
            raise error  # a bug of ours, not of the upstream
        self.abort()
        if receiver is not None:
            receiver.failed(Reason.PROTOCOL_ERROR, f"malformed response: {cause}", False)


def _size(fields: list[Field]) -> int:
    return sum(len(line) for _, line, _ in fields)
