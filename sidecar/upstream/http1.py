"""HTTP/1.1 client side: the bytes of one connection to one endpoint ↔ one request and its response at a time.

Decides whether a response is well framed (`framing.py` says how) and whether the connection may be used again. It
knows nothing of routes, breakers or clients: it tells a `ResponseSink`, which is one attempt, and forgets it at the
end. Owned by its `Pool`; while an attempt uses it, by that attempt. It is its own `Lease` and its own `ClientStream`.

Every error of the transport or the parser becomes a `Reason` here. Nothing past the end of a response is ever
delivered: it poisons the connection, so that no other exchange can be given those bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Any, Final, cast

from sidecar.core import headers, websocket
from sidecar.core.chunked import ChunkedBody, MalformedChunk
from sidecar.core.errors import Reason
from sidecar.core.head import NONE_INDEXED, RequestHead, ResponseHead, response_head
from sidecar.core.memory_budget import SECURED_BYTES, Account, settled
from sidecar.core.plain import ANSWER_BLOCK, BLOCK, FILLED, Field, PlainResponse, read_response
from sidecar.core.request import PLAIN, Request, Traits
from sidecar.http1 import llhttp
from sidecar.http1.llhttp import HEAD_END, MalformedHead
from sidecar.http1.unfinished import UnfinishedHead
from sidecar.transport.link import Link
from sidecar.transport.tls.failures import TlsCut, TlsFailed
from sidecar.transport.turns import SLICE_UNITS
from sidecar.upstream.framing import Body, read_framing
from sidecar.upstream.handshake import HandshakeSink
from sidecar.upstream.lease import Fate, Lease, LeasePool
from sidecar.upstream.securing import processed
from sidecar.upstream.streams import ClientStream, Processed, ResponseSink

MAX_HEAD_BYTES = 64 * 1024
"""Status line and fields of one response, interim ones before it included; beyond, it is malformed."""
MAX_FIELDS = 256
MAX_INTERIM = 32
"""1xx responses before the final one."""
JOIN_BYTES = 4096
"""A chunk up to this size is copied between its framing into one write; beyond, the copy costs more."""
KEEP_MARGIN = 0.9
"""Of the time that the upstream says it keeps an idle connection: beyond, ours and its end might cross."""

_REUSABLE: Final = Fate.REUSABLE

_NO_REQUEST: Final = Request().take("", b"", b"", b"", b"", [], {})


class UpstreamConnection(Lease, ClientStream):
    """One connection. `pool` is where it came from and goes back to."""

    __slots__ = (
        "_accept", "_account", "_body_left", "_chunked", "_has_head", "_head_bytes", "_interims", "_is_held",
        "_is_keep_alive", "_is_plain", "_is_until_close", "_keeps_seconds", "_pending", "_request", "_sink",
        "_unfinished", "expires", "idle_since", "is_open", "is_read_paused", "is_reused", "is_write_paused", "link",
        "pool",
    )  # fmt: skip

    link: Link

    def __init__(self, pool: LeasePool) -> None:
        self.pool = pool
        self.is_open = False
        self.is_reused = False
        self.idle_since = 0.0
        """When the last response ended, in seconds on the loop's clock."""
        self.expires = inf
        """From here on the upstream may close it at any moment, as it has said (`Keep-Alive: timeout=…`)."""
        self._keeps_seconds = inf
        self._sink: ResponseSink | None = None
        self._is_keep_alive = True
        self._is_plain = True
        """The response to this request may be a plain one."""
        self.is_read_paused = False
        """The client takes no more of the answer for now."""
        self._is_held = False
        """Not read for now, for want of memory."""
        self.is_write_paused = False
        """The upstream takes no more of the request for now."""
        self._request = _NO_REQUEST
        self._accept = b""
        """What a 101 must say in `Sec-WebSocket-Accept`, where the key was ours; else empty."""
        self._has_head = False
        self._head_bytes = self._interims = 0
        self._body_left = 0
        """Of a body whose length is known: bytes that are still to come."""
        self._chunked: ChunkedBody | None = None
        self._is_until_close = False
        self._unfinished: UnfinishedHead | None = None
        self._pending = b""
        """Read, and not worked through yet: this turn of the loop had no time left for it."""
        self._account: Account | None = None
        """What it holds above its own 4 KiB of the memory of all connections; None while that is nothing."""

    def __repr__(self) -> str:
        state = "busy" if self._sink else "idle" if self.is_open else "closed"
        return f"<UpstreamConnection {self.pool.endpoint} {state}>"

    # Lease

    def begin(self, sink: ResponseSink) -> UpstreamConnection:
        self._sink = sink
        self._has_head = False
        return self

    def release(self, fate: Fate, now: float) -> None:
        self._sink = None
        pool = self.pool
        if (
            fate is not _REUSABLE
            or not self._is_keep_alive
            or not self.is_open
            or self.is_write_paused
            or pool.is_retired
        ):
            # Where an answer came before its request was taken, the next one would wait behind the rest of it, and
            # asyncio, which has said "pause" already, would not say it again however much of the next is written.
            if fate is Fate.HANDED_OVER:
                self._forget()
            else:
                self.abort()
            return
        self._request = _NO_REQUEST  # what it held, secrets among it, ends with it
        if self.is_read_paused or self._is_held:  # the end of the answer was what its client could not take
            self._is_held = False
            self.resume()
        self.is_reused = True
        self.idle_since = now
        self.expires = now + self._keeps_seconds
        cluster = pool.cluster
        if not cluster.waits or not cluster.hand_to_waiter(self):
            pool.idle[self] = None
            if cluster.idle_timer is None:
                cluster.watch_idle(now)

    def hand_over(self, protocol: Any) -> Link:
        self._sink = None
        self.go_on()
        self.link.set_sink(protocol)
        return self.link

    def cannot_switch(self, request: Request) -> str:
        return ""

    def has_ended_unseen(self) -> bool:
        """Whether the upstream has closed it, or said something, that the loop has not read yet."""
        return self.link.is_readable()

    def abort(self) -> None:
        """Close at once, in whatever state. The sink hears nothing more."""
        self._sink = None
        if self.is_open:
            self.link.abort()
            self._forget()

    def let_go(self) -> None:
        """Its opening failed or was called off. uvloop then closes the transport and tells nobody of its loss: what
        points at each other, this and the transport, has to part here, since only a collection would find it."""
        if hasattr(self, "link"):
            self.connection_lost(None)

    def _forget(self) -> None:
        """Give back its place, and what is charged for it. The link may be someone else's by now."""
        if self.is_open:
            self.is_open = False
            if self._account is not None:
                self._account.hold(0)
                self._account = None
            pool = self.pool
            memory = pool.cluster.memory
            memory.left()
            if self.link.tls is not None:
                memory.charge(-SECURED_BYTES)
            pool.forget(self)

    # ClientStream

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        request = self._request = head.request
        traits = request.traits
        self._is_plain = request.method != b"HEAD" and (traits is PLAIN or not traits.upgrade)
        drop, fields = head.drop, request.fields
        lines = [
            request.method, b" ", head.target, b" HTTP/1.1\r\nHost: ", head.authority, b"\r\n",
        ]  # fmt: skip
        if type(fields) is BLOCK:
            lines.append(fields.kept if fields.drop is drop else fields.keep(drop))
        elif type(fields) is FILLED:
            template = fields.template
            lines.append(template.kept if template.drop is drop else template.keep(drop))
            for place, text in template.behind:
                lines.append(fields[place][1])
                lines.append(text)
        else:
            for key, line, _ in fields:
                if key not in drop:
                    lines.append(line)  # a comprehension is a call of its own until Python 3.12
        if traits is not PLAIN:
            lines += _hop_lines(request)
            if traits.upgrade:
                lines.append(self._key_line(traits))
        lines.append(head.added.lines)
        lines += head.own
        lines.append(b"\r\n")
        written = b"".join(lines)
        if not held:
            write = self.link.write
            write(written)
        elif not traits.is_chunked:
            writelines = self.link.writelines
            writelines([written, *held])
        else:
            self.link.write(written)
            for data in held:
                self.send_data(data)
            if trailers is not None:
                self.end(trailers)

    def _key_line(self, traits: Traits) -> bytes:
        """A handshake that came by HTTP/2 has no key (RFC 8441 5): make one."""
        self._accept = b""
        if traits.http_version != "2":
            return b""
        sink = self._sink
        if sink is not None:
            self._sink = HandshakeSink(sink)
        key = websocket.new_key()
        self._accept = websocket.accept_of(key)
        return b"Sec-WebSocket-Key: %b\r\n" % key

    def send_data(self, data: bytes) -> None:
        if not self._request.traits.is_chunked:
            self.link.write(data)
        elif len(data) < JOIN_BYTES:
            self.link.write(b"".join((b"%x\r\n" % len(data), data, b"\r\n")))
        else:
            self.link.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        if self.is_write_paused:
            self._charge()  # a client that speaks HTTP/2 has more under way than one read

    def end(self, trailers: Sequence[Field]) -> None:
        if self._request.traits.is_chunked:
            self.link.write(b"0\r\n%b\r\n" % (headers.trailer_block(trailers) if trailers else b""))

    def reset(self, reason: Reason) -> None:
        self.abort()

    def hold(self) -> None:
        self.is_read_paused = True
        self.link.pause()
        self.link.bound_buffers(self.pool.cluster.memory.buffer_bytes)
        self._charge()

    def resume(self) -> None:
        self.is_read_paused = False
        self._charge()
        self._read_again()

    def _read_again(self) -> None:
        if not self._pending and not self.is_read_paused and not self._is_held:
            self.link.resume()

    @property
    def unsent_bytes(self) -> int:
        return self.link.unsent_bytes

    # What `Relief` asks for (`core/memory_budget.py`)

    def hold_for_memory(self) -> None:
        """Read nothing more until `go_on`. An idle one is read: what it brings is its end."""
        if self._sink is not None and self.is_open and not self.link.is_closing:
            self._is_held = True
            self.link.pause()

    def go_on(self) -> None:
        if self._is_held:
            self._is_held = False
            if self.is_open and not self.link.is_closing:
                self._read_again()

    # What asyncio does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        link = self.link = Link(cast(asyncio.Transport, transport))
        self.is_open = True
        memory = self.pool.cluster.memory
        memory.joined()
        if link.tls is not None:
            memory.charge(SECURED_BYTES)
        link.bound_unsent()
        link.bound_buffers(memory.buffer_bytes)

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self._sink is not None:
            self._read_ahead_of_reset()
        self.link.lost()
        self._forget()
        if self._sink is not None:
            self.pool.cluster.turns.end(partial(self._tell_end, error))

    def _tell_end(self, error: Exception | None) -> None:
        """It is lost: the attempt hears so, if it has not let go of this meanwhile."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if self._is_until_close and self._has_head and error is None and not self._pending:
            sink.end([])
        elif isinstance(error, TlsFailed) and not isinstance(error, TlsCut):
            is_begun = self._has_head or self._unfinished is not None or self._interims > 0 or self.is_reused
            sink.failed(error.reason, error.detail, processed(error, is_begun=is_begun))
        elif self._has_head or self._unfinished is not None or self._interims:
            detail = "upstream closed in the middle of its answer"
            sink.failed(Reason.INCOMPLETE_RESPONSE, detail, Processed.YES)
        else:
            sink.failed(Reason.CONNECTION_RESET, "upstream closed before it answered", Processed.MAYBE)

    def _read_ahead_of_reset(self) -> None:
        self._is_keep_alive = False
        for data in self.link.unread():
            self.data_received(data)
            if self._sink is None:
                return

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self.link.bound_buffers(self.pool.cluster.memory.buffer_bytes)
        self._charge()
        if self._sink is not None:
            self._sink.blocked()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self._charge()
        if self._sink is not None:
            self._sink.writable()

    def _charge(self) -> None:
        """After a change of what waits here: the beginning of a head, what a turn had no time for, what is unsent."""
        size = len(self._pending)
        if self._unfinished is not None:
            size += len(self._unfinished)
        if self._chunked is not None:
            size += self._chunked.held_bytes
        if self.is_write_paused:
            size += self.link.unsent_bytes
        memory = self.pool.cluster.memory
        kernel_bytes = 2 * memory.buffer_bytes if self.is_read_paused else 0
        if self.is_write_paused:
            kernel_bytes += memory.buffer_bytes
        if self._account is not None or self.is_open:
            # Nobody asks when an account with an upstream moved.
            self._account = settled(self._account, memory, 0.0, size, kernel_bytes)

    def data_received(self, data: bytes) -> None:
        try:
            sink = self._sink
            if sink is None:
                self.abort()  # nobody asked: whatever this is, it must not be read as the next answer
            elif self._body_left:
                self._take_body(sink, data)
            elif self._pending:
                self._pending += data
            elif self._is_plain and not self._has_head and self._unfinished is None and not self._interims:
                plain = read_response(data)
                if plain is None or (type(plain[1]) is not ANSWER_BLOCK and _is_too_large(plain, data)):
                    self._begin_head()
                    self._read(sink, data)
                    return
                self._has_head = True
                status, fields, length, body = plain
                head = ResponseHead()  # as `response_head` makes it: 0.1 µs less than the call
                head.status = status
                head.fields = fields
                head.length = length
                head.listed = b""
                head.never_indexed = NONE_INDEXED
                if length == len(body):  # all of it
                    sink.answered(head, body)
                else:
                    self._begin_plain(sink, head, length, body)
            else:
                self._read(sink, data)
        except Exception as error:
            self._break_off(error)

    def _break_off(self, error: Exception) -> None:
        """A mistake of ours ends this connection and the attempt on it, and nothing else."""
        message = "an error in reading from an upstream; its connection is ended"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.broken()

    # A plain response: the usual case

    def _begin_plain(
        self, sink: ResponseSink, head: ResponseHead, length: int, body: bytes | memoryview
    ) -> None:
        """The rest of the body is still to come, or there is something behind it."""
        sink.head(head)
        if self._sink is None:
            return
        self._body_left = length
        if body:
            self._take_body(sink, body)
        else:
            sink.flush()

    def _take_body(self, sink: ResponseSink, data: bytes | memoryview) -> None:
        left = self._body_left - len(data)
        if left < 0:
            self._is_keep_alive = False  # poisoned: there were bytes past the end
            data = data[:left]
            left = 0
        self._body_left = left
        if data:
            sink.data(data)
        if not left and self._sink is not None:
            sink.end([])

    # Every other response

    def _begin_head(self) -> None:
        self._head_bytes = 0
        self._chunked = None
        self._is_until_close = False

    def _read(self, sink: ResponseSink, data: bytes) -> None:
        self._read_on(sink, data)
        if self._account is not None or self._unfinished is not None or self._pending:
            self._charge()

    def _read_on(self, sink: ResponseSink, data: bytes) -> None:
        """What one read brings is told at its end: a head whose body turns out malformed is not told."""
        head: ResponseHead | None = None
        try:
            if not self._has_head:
                read = self._read_heads(sink, data)
                if read is None:
                    return
                head, data = read
            body, is_end = self._read_body(data)
        except (MalformedHead, MalformedChunk) as error:
            self._fail(str(error))
            return
        if head is not None:
            sink.head(head)
        if body and self._sink is sink:
            sink.data(body)
        if self._sink is not sink:
            return
        if is_end:
            trailers = self._chunked.trailers if self._chunked is not None else ()
            if trailers and any(key == b"connection" for key, _, _ in trailers):
                self._is_keep_alive = (
                    False  # some reader heeds it, though it frames nothing here (RFC 9110 6.5.1)
                )
            sink.end(trailers)
        else:
            sink.flush()

    def _read_heads(self, sink: ResponseSink, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """The final head and what is behind it; None while it is not there, and where nobody wants it any more."""
        while data:
            raw, data = self._next_head(data)
            if not raw:
                return None
            status, version, fields = llhttp.read_response(raw)
            if len(fields) > MAX_FIELDS:
                raise MalformedHead("too many header fields in the response")
            if status < 200:
                if not self._take_interim(sink, status, version, fields, data):
                    return None
                continue
            framing = read_framing(status, version, fields, is_head_request=self._request.method == b"HEAD")
            self._has_head = True
            self._interims = 0
            if not framing.is_keep_alive:
                self._is_keep_alive = False
            self._keeps_seconds = framing.keeps_seconds * KEEP_MARGIN
            if framing.body is Body.LENGTH:
                self._body_left = framing.length or 0
            elif framing.body is Body.CHUNKED:
                self._chunked = ChunkedBody()
            self._is_until_close = framing.body is Body.UNTIL_CLOSE
            return response_head(status, fields, framing.length, framing.listed), data
        return None

    def _next_head(self, data: bytes) -> tuple[bytes, bytes]:
        """A whole head, empty if there is none yet, and what is behind it."""
        unfinished = self._unfinished
        if unfinished is None:
            end = data.find(HEAD_END)
            if end >= 0:
                end += len(HEAD_END)
                self._count_head(end)
                return data[:end], data[end:]
            unfinished = self._unfinished = UnfinishedHead(is_request=False)
        used = unfinished.add(data)
        if used is None:
            if self._head_bytes + len(unfinished) > MAX_HEAD_BYTES:
                raise MalformedHead("response head too large")
            return b"", b""
        self._unfinished = None
        raw = unfinished.whole()
        self._count_head(len(raw))
        return raw, data[used:]

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise MalformedHead("response head too large")

    def _take_interim(
        self, sink: ResponseSink, status: int, version: str, fields: list[Field], rest: bytes
    ) -> bool:
        """A 1xx: pass it on. False when nothing more is to be read here."""
        self._interims += 1
        framing = read_framing(status, version, fields, is_head_request=False)
        if framing.length or any(key == b"transfer-encoding" for key, _, _ in fields):
            raise MalformedHead("a body behind an interim response")
        head = response_head(status, fields, None, framing.listed)
        if status == 101:
            if not self._request.traits.upgrade:
                raise MalformedHead("unexpected 101")
            if self._accept and [value for key, _, value in fields if key == websocket.ACCEPT] != [
                self._accept
            ]:
                raise MalformedHead("101 without the Sec-WebSocket-Accept that belongs to the key")
            self._has_head = True
            sink.switched(head, rest)
            return False
        if status < 100 or self._interims > MAX_INTERIM:
            raise MalformedHead("malformed or too many interim responses")
        sink.interim(head)
        return self._sink is sink

    def _read_body(self, data: bytes) -> tuple[bytes, bool]:
        """What there is of the body, and whether that is its end."""
        chunked = self._chunked
        if chunked is not None:
            return self._read_chunks(chunked, data)
        if self._is_until_close:
            return data, False
        left = self._body_left - len(data)
        if left < 0:
            self._is_keep_alive = False  # poisoned: there were bytes past the end
            data = data[:left] if self._body_left else b""
            left = 0
        self._body_left = left
        return data, not left

    def _read_chunks(self, chunked: ChunkedBody, data: bytes) -> tuple[bytes, bool]:
        turns = self.pool.cluster.turns
        units = turns.take(SLICE_UNITS)
        read = chunked.feed(data, 0, units) if units else 0
        if chunked.is_done:
            if read < len(data):
                self._is_keep_alive = False  # poisoned: there were bytes past the end
        elif read < len(data):
            self._pending = data[read:]
            if not self.is_read_paused:
                self.link.pause()
            turns.later(self._read_pending)
        return chunked.take(), chunked.is_done

    def _read_pending(self) -> None:
        """In a later turn of the loop: go on with what the last one had no time for."""
        pending, self._pending = self._pending, b""
        sink = self._sink
        if sink is None or not pending:
            return
        try:
            self._read(sink, pending)
        except Exception as error:
            self._break_off(error)
        self._read_again()

    def _fail(self, detail: str) -> None:
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.failed(Reason.PROTOCOL_ERROR, f"malformed response: {detail}", Processed.YES)


def _is_too_large(plain: PlainResponse, data: bytes) -> bool:
    """Whether a plain head breaks a limit. One that is remembered is too short for that."""
    return len(data) - len(plain[3]) > MAX_HEAD_BYTES or len(plain[1]) > MAX_FIELDS


def _hop_lines(request: Request) -> list[bytes]:
    """Hop-by-hop fields that are made anew for the next hop: framing, upgrade, the wish for trailers."""
    lines, options, traits = [], [], request.traits
    if traits.is_chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if traits.upgrade:
        options.append(b"Upgrade")
        lines.append(b"Upgrade: %b\r\n" % traits.upgrade)
    if b"trailers" in request.lookup.get(b"te", b"").lower():
        options.append(b"TE")
        lines.append(b"TE: trailers\r\n")
    if options:
        lines.append(b"Connection: %b\r\n" % b", ".join(options))
    return lines
