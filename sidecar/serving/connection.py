"""One connection of an aiohttp server beside the data path: its place, its handshake, and its time.

Stands before aiohttp's own protocol. It knows nothing of requests but when one begins and ends.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

HEAD_SECONDS: Final = 10.0
"""From a connection's beginning, or the first byte of a later request, to the end of the head."""
IDLE_SECONDS: Final = 75.0
"""From an answer's end to the next request; also how long a client may take over an answer."""

_LOG = logging.getLogger("sidecar.serving")


class Door(ABC):
    """The server, as its connections see it."""

    tls: Callable[[], ssl.SSLContext] | None

    @abstractmethod
    def admit(self, connection: Connection) -> web.RequestHandler | None:
        """What is to handle its requests; None: there is no room, or the server ends."""

    @abstractmethod
    def waits(self, connection: Connection) -> None:
        """No request of it is under way."""

    @abstractmethod
    def works(self, connection: Connection) -> None: ...

    @abstractmethod
    def forget(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Stands before aiohttp's own protocol, and watches the time."""

    def __init__(self, server: Door, data: bytes = b"") -> None:
        """`data`: what whoever has accepted it has read of it, in clear text."""
        self.handler: web.RequestHandler | None = None
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = False
        """Nothing has come since the last request was handled."""
        self._is_over = False
        self._is_handed_on = False
        """aiohttp's protocol has its transport: behind the handshake, where there is one."""
        self._early = [data] if data else []
        """What came with the end of the handshake, or was read by whoever accepted it, before that."""
        self._handshake: asyncio.Task[None] | None = None

    def abort(self) -> None:
        """Cut it, whatever has not been sent yet."""
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def begin_request(self) -> None:
        self._limit(None)
        self._server.works(self)

    def end_request(self) -> None:
        if not self._is_over:
            self._is_idle = True
            self._limit(IDLE_SECONDS)
            self._server.waits(self)

    def _limit(self, seconds: float | None) -> None:
        """Cut it after so long, unless that is told anew."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(seconds, self.abort)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.handler = self._server.admit(self)
        if self.handler is None:
            self.abort()
            return
        self._limit(HEAD_SECONDS)
        self._server.waits(self)
        if self._server.tls is None:
            self._hand_on(self._transport)
            self._read_early()
        else:
            self._transport.pause_reading()
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
            self._close()
            return
        if made is None or self._is_over:
            self._close()
            return
        self._hand_on(made)
        self._read_early()

    def _read_early(self) -> None:
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def _close(self) -> None:
        self.abort()
        self._server.forget(self)

    def _hand_on(self, transport: asyncio.Transport) -> None:
        assert self.handler is not None
        self._transport = transport
        self._is_handed_on = True
        self.handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_over or self.handler is None:
            return
        if not self._is_handed_on:
            self._early.append(data)
            return
        if self._is_idle:
            self._is_idle = False
            self._limit(HEAD_SECONDS)
        self.handler.data_received(data)

    def eof_received(self) -> None:
        if self.handler is not None and self._is_handed_on:
            self.handler.eof_received()

    def pause_writing(self) -> None:
        if self.handler is not None and self._is_handed_on:
            self.handler.pause_writing()

    def resume_writing(self) -> None:
        if self.handler is not None and self._is_handed_on:
            self.handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._server.forget(self)
        if self.handler is not None and self._is_handed_on:
            self.handler.connection_lost(exc)
