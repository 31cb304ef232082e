"""One connection of a server beside the data path: its bytes, its place, its handshake, and its time.

One request at a time: what a client sends behind it stays bytes, of which little is read, until its answer is sent.
A body is read when its handler asks for it. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, cast

from sidecar.core.chunked import ChunkedBody, MalformedChunk
from sidecar.core.http_date import http_date
from sidecar.http1.llhttp import MalformedHead
from sidecar.http1.unfinished import UnfinishedHead
from sidecar.serving.head import WITHOUT_BODY, NoRequest, check_line, read_request, write_head
from sidecar.serving.message import BadBody, Client, ClientGone, Request, Response

HEAD_SECONDS: Final = 10.0
"""From a connection's beginning, or the first byte of a later request, to the end of the head."""
IDLE_SECONDS: Final = 75.0
"""From an answer's end to the next request; also how long a client may take over an answer."""
LINGER_SECONDS: Final = 2.0
"""How long a body that nobody wants is read and dropped: a reset would take the answer away (RFC 9112 9.6)."""
_MAX_DROPPED_BYTES: Final = 1_048_576
"""Of that, behind the end; a client that sends on gets no more of it rid, and can read its answer all the same."""
MAX_HEAD_BYTES: Final = 32_768
_READ_AHEAD: Final = 32_768
"""Bytes behind what can be used now, beyond which no more is read."""
_CHUNKS_A_TURN: Final = 1024
_KEPT: Final = ("peername", "sockname", "peercert")
"""What is kept of a transport: uvloop's has none of it any more when its client has left."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_LOG = logging.getLogger("sidecar.serving")


class Phase(Enum):
    """Where a connection is. What has come is used in `IDLE`, `HEAD` and `REQUEST`, and dropped in `ENDING`."""

    OPENING = auto()
    """It has no transport, or shakes hands."""
    IDLE = auto()
    """Nothing has come since the last answer."""
    HEAD = auto()
    """The first head is waited for, or a later one has begun."""
    REQUEST = auto()
    """One is under way, up to the end of its body and its answer."""
    ENDING = auto()
    """Everything has been said."""
    OVER = auto()


class Door(ABC):
    """The server, as its connections see it."""

    tls: Callable[[], ssl.SSLContext] | None
    fields: Mapping[str, str]
    """Of every answer that does not say otherwise."""

    @abstractmethod
    def admit(self, connection: Connection) -> bool:
        """Give it a place; False: there is none, or the server ends."""

    @abstractmethod
    async def turn(self) -> None:
        """Come to the next turn of the loop, in which no other connection has something to do."""

    @abstractmethod
    async def answer(self, request: Request) -> Response | None:
        """What its handler says. Raises nothing but ClientGone."""

    @property
    @abstractmethod
    def is_ending(self) -> bool:
        """No connection goes on behind its present request."""

    @abstractmethod
    def waits(self, connection: Connection) -> None:
        """No request of it is under way, or its client has to go on with one."""

    @abstractmethod
    def works(self, connection: Connection) -> None: ...

    @abstractmethod
    def forget(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol, Client):
    """From its first byte to its last."""

    def __init__(self, server: Door, data: bytes = b"") -> None:
        """`data`: what whoever has accepted it has read of it, in clear text."""
        self.task: asyncio.Task[None] | None = None
        """Of the request that is under way."""
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._about: dict[str, Any] = {}
        self._phase = Phase.OPENING
        self._has_ended = False
        """The client has ended its side."""
        self._data = bytearray(data)
        """What has come and was not used yet."""
        self._head = UnfinishedHead(is_request=True)
        self._may_skip = True
        """Nothing has come of this head, and no empty line before it."""
        self._arrived = asyncio.Event()
        """Something has come, or nothing more will."""
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._request: Request | None = None
        self._chunked: ChunkedBody | None = None
        self._left = 0
        """Bytes of a body that is not chunked; when everything has been said, of what is still dropped."""
        self._has_answered = False
        self._is_chunking = False

    # Its beginning

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._server.admit(self):
            self.abort()
            return
        self._limit(HEAD_SECONDS)
        self._server.waits(self)
        if self._server.tls is None:
            self._open(self._transport)
        else:
            self._transport.pause_reading()  # asyncio's own loop heeds it here; uvloop would read on
            self._handshake = asyncio.get_running_loop().create_task(self._shake_hands(self._server.tls()))

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        """Handshake and first head have `HEAD_SECONDS` together; so a connection counts from its first byte on."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        try:
            made = await loop.start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=HEAD_SECONDS
            )
        except (OSError, ssl.SSLError) as error:  # strangers' mistakes, of which there may be any number
            _LOG.debug("no handshake: %r", error)
            made = None
        if made is None or self._phase is Phase.OVER:
            self.abort()
            self._server.forget(self)
            return
        self._open(made)

    def _open(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        for name in _KEPT:
            with contextlib.suppress(OSError):  # it has been reset already
                self._about[name] = transport.get_extra_info(name)
        self._phase = Phase.HEAD
        self._advance()

    # What comes

    def data_received(self, data: bytes) -> None:
        if self.is_closed:
            return
        if self._phase is Phase.ENDING:
            self._left -= len(data)
            self._read_on(self._left > 0)
            return
        self._data += data
        if self._phase is not Phase.OPENING:
            self._arrived.set()
            self._advance()

    def eof_received(self) -> bool:
        """Whoever ends its side still gets the answer that it waits for; by TLS there is no such half."""
        self._has_ended = True
        self._arrived.set()
        return self.task is not None and self._server.tls is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.OVER
        self._limit(None)
        self._arrived.set()
        self._may_write.set()
        self._server.forget(self)

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def _advance(self) -> None:
        """Begin the next request, if its head is whole and no other is under way; and read on or not."""
        if self._phase is Phase.IDLE and self._data:
            self._phase = Phase.HEAD
            self._limit(HEAD_SECONDS)
        if self._phase is Phase.HEAD and self._data:
            try:
                self._read_head()
            except (MalformedHead, NoRequest) as error:
                self._refuse(error)
        self._read_on(len(self._data) <= _READ_AHEAD)

    def _read_head(self) -> None:
        """Raises: MalformedHead, NoRequest."""
        if self._may_skip:  # one empty line in front (RFC 9112 2.2)
            if self._data == b"\r":
                return
            self._may_skip = False
            if self._data.startswith(b"\r\n"):
                del self._data[:2]
        used = self._head.add(bytes(self._data)) if self._data else None
        size = len(self._head)
        if size > MAX_HEAD_BYTES:
            raise NoRequest(431, f"a head has at most {MAX_HEAD_BYTES} bytes here")
        if used is None:
            self._data.clear()
            check_line(self._head)
            return
        del self._data[:used]
        request = read_request(self._head.whole(), self)
        self._head, self._may_skip = UnfinishedHead(is_request=True), True
        self._begin(request)

    def _read_on(self, more: bool) -> None:
        if self._transport is None or self._has_ended or self.is_closed:
            return
        if more:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # A request

    def _begin(self, request: Request) -> None:
        self._phase = Phase.REQUEST
        self._request = request
        self._chunked = ChunkedBody() if request.length < 0 else None
        self._left = max(request.length, 0)
        self._has_answered = self._is_chunking = False
        self._limit(None)
        self._server.works(self)
        self.task = asyncio.get_running_loop().create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        goes_on = False
        try:
            response = await self._server.answer(request)
            self._limit(IDLE_SECONDS)
            self._wait()
            await self._complete(response)
            goes_on = self._goes_on(request) and await self._has_dropped_rest()
        except ClientGone:
            self.abort()
        except Exception:
            _LOG.exception("the answer to %s %s could not be sent", request.method, request.path[:256])
            self.abort()
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            self.abort()
            raise
        finally:
            self.task = None
        if goes_on and self._may_have_more:
            self._go_on()
        else:
            self._end()
            self._request = None  # which knows this connection: neither waits for the garbage collector

    def _go_on(self) -> None:
        """With what the client has sent meanwhile, or sends yet."""
        self._request = None
        self._phase = Phase.IDLE
        self._limit(IDLE_SECONDS)
        self._advance()
        if self.task is None and self._has_ended:  # what is left is no whole request, and never will be
            self._end()

    async def _complete(self, response: Response | None) -> None:
        """Send what the handler has not sent itself."""
        if self._has_answered == (response is not None):
            self.abort()  # an answer that broke off, or that nobody has made: it may not look like a whole one
        elif response is not None:
            await self.send(response)
        elif self._is_chunking:
            await self._write(b"0\r\n\r\n")

    def _goes_on(self, request: Request) -> bool:
        return request.keeps_alive and self._may_have_more and not self._server.is_ending

    @property
    def _may_have_more(self) -> bool:
        """Whoever ends its side is answered all that it has sent before."""
        return not self.is_closed and bool(self._data or not self._has_ended)

    async def _has_dropped_rest(self) -> bool:
        """What is left of a body that nobody wants is read, for a while. Returns whether it came to its end."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while await self.read():
                    pass
        except (TimeoutError, BadBody, ClientGone):
            return False
        finally:
            self._wait()
        return True

    def _wait(self) -> None:
        if self._phase is not Phase.OVER:
            self._server.waits(self)

    def _refuse(self, error: MalformedHead | NoRequest) -> None:
        """It is not logged: whoever can connect could fill the log."""
        status = error.status if isinstance(error, NoRequest) else 400
        response = Response(status, f"{error}\n")
        assert self._transport is not None
        head = write_head(
            response, http_date(time.time()), self._server.fields,
            length=len(response.body), connection="close", is_chunked=False,
        )  # fmt: skip
        is_head = self._head.whole().startswith(b"HEAD ")  # whose answer has no body (RFC 9110 9.3.2)
        self._transport.write(head if is_head else head + response.body)
        self._end()

    def _end(self) -> None:
        """Close it, behind what is still to be sent; and so that nothing unread takes that away."""
        transport = self._transport
        self._data.clear()
        if transport is None or self.is_closed:
            return
        is_read = self._request is not None and not self._has_body_left
        self._phase = Phase.ENDING
        self._left = _MAX_DROPPED_BYTES
        self._read_on(True)
        if self._has_ended or (is_read and not transport.can_write_eof()):  # by TLS there is no half to close
            self._limit(IDLE_SECONDS)
            transport.close()
            return
        self._limit(IDLE_SECONDS if transport.get_write_buffer_size() else LINGER_SECONDS)
        if transport.can_write_eof():
            with contextlib.suppress(OSError):  # it was reset a moment ago, which is told next
                transport.write_eof()

    # Client

    @property
    def is_closed(self) -> bool:
        return self._phase is Phase.OVER or self._transport is None or self._transport.is_closing()

    @property
    def is_gone(self) -> bool:
        return self.is_closed or self._has_ended

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._transport is None or self.is_closed else self._transport.get_write_buffer_size()

    def about(self, name: str) -> Any:
        if name in _KEPT:
            return self._about.get(name)
        return None if self._transport is None or self.is_closed else self._transport.get_extra_info(name)

    @property
    def _has_body_left(self) -> bool:
        return self._left > 0 if self._chunked is None else not self._chunked.is_done

    async def read(self) -> bytes:
        request = self._request
        assert request is not None
        if request.expects_continue and self._has_body_left and not self._data:
            request.expects_continue = False
            await self._write(_CONTINUE)
        while self._has_body_left:
            if not self._data:
                await self._wait_for_more()
                continue
            await self._server.turn()
            piece = self._taken()
            self._read_on(len(self._data) <= _READ_AHEAD)
            if piece:  # else it was framing alone
                return piece
        return b""

    async def _wait_for_more(self) -> None:
        if self.is_gone:
            raise ClientGone("the body broke off")
        self._read_on(True)
        self._arrived.clear()
        self._server.waits(self)
        try:
            await self._arrived.wait()
        finally:
            self._server.works(self)

    def _taken(self) -> bytes:
        """What can be had now of the body. Raises: BadBody."""
        if self._chunked is None:
            piece = bytes(self._data[: self._left])
            del self._data[: len(piece)]
            self._left -= len(piece)
            return piece
        try:
            used = self._chunked.feed(bytes(self._data), 0, _CHUNKS_A_TURN)
        except MalformedChunk as error:
            raise BadBody(str(error)) from None
        del self._data[:used]
        return self._chunked.take()

    async def send(self, response: Response) -> None:
        request = self._request
        assert request is not None
        body = b"" if request.method == "HEAD" or response.status in WITHOUT_BODY else response.body
        await self._write(self._head_of(response, len(response.body)), body)

    async def begin(self, response: Response) -> None:
        request = self._request
        assert request is not None
        self._is_chunking = request.version == "1.1"
        request.keeps_alive &= self._is_chunking
        await self._write(self._head_of(response, None))

    async def write(self, data: bytes) -> None:
        if data:
            await self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunking else data)

    def close(self) -> None:
        """End it, behind what it has been sent; once, since asyncio 3.11 aborts none by TLS that was closed twice."""
        if self._transport is not None and not self.is_closed:
            self._transport.close()

    def abort(self) -> None:
        self._phase = Phase.OVER
        if self._transport is not None:
            self._transport.abort()

    def _head_of(self, response: Response, length: int | None) -> bytes:
        request = self._request
        assert request is not None
        self._has_answered = True
        is_unsure = (
            request.expects_continue and self._has_body_left
        )  # nobody knows whether the client sends it
        request.keeps_alive = self._goes_on(request) and not (response.closes or is_unsure)
        connection = "" if request.version == "1.1" else "keep-alive"
        return write_head(
            response,
            http_date(time.time()),
            self._server.fields,
            length=length,
            connection=connection if request.keeps_alive else "close",
            is_chunked=self._is_chunking,
        )

    async def _write(self, *pieces: bytes) -> None:
        self._check_open()
        assert self._transport is not None
        # Not joined: many clients may be sent the same body.
        self._transport.writelines([piece for piece in pieces if piece])
        await self._may_write.wait()
        self._check_open()

    def _check_open(self) -> None:
        if self.is_closed:
            raise ClientGone("the client has left")

    # Its time

    def _limit(self, seconds: float | None) -> None:
        """Cut it after so long, unless that is told anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and self._phase is not Phase.OVER:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)
