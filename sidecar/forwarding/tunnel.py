"""A connection that has switched protocols (101): bytes both ways, with back-pressure, until one side ends.

Decides only when it is over: either side closed, or nothing moved for the idle timeout. Half-closes end both ways
(a WebSocket has its own closing handshake). What was written by then still goes out, as long as it moves. Owned by
its exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.client import Client


class _End(asyncio.Protocol):
    """One side: what it reads goes to the other side's transport."""

    __slots__ = ("count", "other", "transport", "tunnel")

    other: _End
    transport: asyncio.Transport

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.tunnel.end()

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()


class Tunnel:
    """Two ends. `on_end` is called once, when either side has closed or the tunnel was idle for too long."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle_seconds: float, on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._on_end: Callable[[], None] | None = on_end
        self._client = _End(self)
        self._upstream = _End(self)
        self._client.other = self._upstream
        self._upstream.other = self._client
        self._timer: asyncio.TimerHandle | None = None
        self._attempt: Attempt | None = None

    @property
    def from_upstream_bytes(self) -> int:
        return self._upstream.count

    def start(self, client: Client, attempt: Attempt) -> None:
        """Take both transports over, and pass on what each side had sent ahead."""
        assert attempt.connection is not None
        self._attempt = attempt
        client_transport, read_ahead = client.hand_over(self._client)
        upstream_transport = attempt.connection.hand_over(self._upstream)
        self._client.transport = client_transport
        self._upstream.transport = upstream_transport
        if attempt.rest:
            self._upstream.data_received(attempt.rest)
        if read_ahead:
            self._client.data_received(read_ahead)
        self._watch(0)

    def end(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def close(self) -> None:
        """Close both sides, after what was written to them has gone out."""
        self._on_end = None
        if self._timer is not None:
            self._timer.cancel()
        for end in (self._client, self._upstream):
            end.transport.close()
            self._see_out(end.transport, end.transport.get_write_buffer_size())

    def _see_out(self, transport: asyncio.Transport, waiting: int) -> None:
        """Who takes nothing of what waits for it must not keep its connection for ever."""
        if waiting:
            self._loop.call_later(self._idle_seconds, self._look_again, transport, waiting)

    def _look_again(self, transport: asyncio.Transport, before: int) -> None:
        waiting = transport.get_write_buffer_size()
        if waiting == before:
            transport.abort()
        else:
            self._see_out(transport, waiting)

    def _watch(self, moved: int) -> None:
        now_moved = self._client.count + self._upstream.count
        if self._timer is not None and now_moved == moved:
            self.end()
        else:
            self._timer = self._loop.call_later(self._idle_seconds, self._watch, now_moved)
