"""A connection that has switched protocols (101): bytes both ways, with back-pressure, each direction for itself.

Decides when a direction ends and when all is over. One side's FIN becomes the other's, and the other direction goes
on. A side that is lost altogether ends both, but what it had sent is delivered first: the other side is read on and
let go only when it has taken all, or took nothing for a whole look, since closing a socket with unread input resets
what is under way (RFC 9112 9.6). Nothing moves for the idle timeout: both are closed. Each side is
a `Channel`: a connection, or a stream of HTTP/2. Owned by its exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.memory_budget import Account, MemoryBudget
from sidecar.transport.channel import Channel

if TYPE_CHECKING:
    from sidecar.forwarding.streams import ServerStream

LINGER_SECONDS: Final = 30.0
"""For what was written to a side whose other one is gone: between two looks at whether it still takes it."""


class _End:
    """One side: what it reads goes to the other side's link."""

    __slots__ = ("count", "has_ended", "is_lost", "link", "other", "tunnel")
    __deletable__ = ("other", "tunnel")

    link: Channel
    other: _End
    tunnel: Tunnel
    """Gone, as `other` is, when both ends are lost."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.count = 0
        """Bytes that it has sent."""
        self.has_ended = False
        """It will send nothing more."""
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Not called: the link was made before."""

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self.tunnel.note_move()
        self.other.link.write(data)

    def eof_received(self) -> bool:
        self.end_direction()
        return True  # the other direction goes on

    def end_direction(self) -> None:
        """It sends no more: let the other side know, once all it sent has gone out there."""
        if not self.has_ended:
            self.has_ended = True
            self.other.link.end_writing()
            if not self.other.link.can_half_close:
                self.other.link.close()
            self.tunnel.direction_ended()

    def connection_lost(self, error: Exception | None) -> None:
        self.link.lost()
        tunnel = self.tunnel
        self.is_lost = True
        tunnel.lost(self)
        tunnel.dissolve()

    def pause_writing(self) -> None:
        self.tunnel.charge()
        if not self.other.is_lost:
            self.other.link.pause()

    def resume_writing(self) -> None:
        self.tunnel.charge()
        if not self.other.is_lost:
            self.other.link.resume()


class Tunnel:
    """Two ends. `on_end` is called once: when both directions have ended, or nothing more can come of it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        idle_seconds: float,
        on_end: Callable[[], None],
        memory: MemoryBudget,
    ) -> None:
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._on_end: Callable[[], None] | None = on_end
        self._client = _End(self)
        self._upstream = _End(self)
        self._client.other = self._upstream
        self._upstream.other = self._client
        self._timer: asyncio.TimerHandle | None = None
        self._looks: dict[_End, asyncio.TimerHandle] = {}
        """At sides that are to take what was written to them."""
        self._moved_at = loop.time()
        self._account = Account(memory, self._moved_at)

    def charge(self) -> None:
        """What one side does not take waits here."""
        if self._on_end is not None:
            self._account.hold(self._client.link.unsent_bytes + self._upstream.link.unsent_bytes)

    def note_move(self) -> None:
        """A byte came, from whichever side."""
        self._moved_at = self._loop.time()

    def __repr__(self) -> str:
        return f"<Tunnel {self._client.count} up, {self._upstream.count} down>"

    @property
    def from_upstream_bytes(self) -> int:
        return self._upstream.count

    def start(self, client: ServerStream, hand_over: Callable[[Any], Channel], rest: bytes) -> None:
        """Take both links over, and pass on what each side had sent ahead. `hand_over` gives the upstream's for who
        hears of it from now on; `rest` had come from there."""
        upstream = self._upstream
        self._client.link, read_ahead, has_client_ended = client.hand_over(self._client)
        upstream.link = hand_over(upstream)
        if rest:
            upstream.data_received(rest)
        if read_ahead:
            self._client.data_received(read_ahead)
        if has_client_ended:
            self._client.end_direction()
        if self._on_end is not None:
            self._watch()

    # What ends it

    def direction_ended(self) -> None:
        if self._client.has_ended and self._upstream.has_ended:
            self._over()

    def lost(self, end: _End) -> None:
        """One side is gone altogether: the other one is still given what was sent."""
        end.has_ended = True
        self._over()

    def cut(self) -> None:
        """End both ways now, as far as what was written has gone out."""
        self._over()

    def _over(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._account.hold(0)
        for end in (self._client, self._upstream):
            self._let_go(end)
        on_end()

    def _let_go(self, end: _End) -> None:
        """Close it when it has taken what was written to it; what it still sends is read, and belongs to nobody."""
        if end.is_lost:
            return
        if end.has_ended:
            end.link.close()
        else:
            end.link.set_sink(_Discarding(end))
            end.link.break_off()
            end.link.resume()
        self._see_out(end, end.link.untaken_bytes())

    def dissolve(self) -> None:
        """When both are gone: they point at each other and here, which only a collection would undo; and a timer
        would keep all of it for half a minute."""
        ends = self._client, self._upstream
        if all(end.is_lost for end in ends):
            for look in self._looks.values():
                look.cancel()
            self._looks.clear()
            for end in ends:
                del end.other, end.tunnel

    def _see_out(self, end: _End, waiting: int) -> None:
        seconds = min(self._idle_seconds, LINGER_SECONDS)
        self._looks[end] = self._loop.call_later(seconds, self._look_again, end, waiting)

    def _look_again(self, end: _End, before: int) -> None:
        """Who takes nothing of what waits for it must not keep its connection for ever, nor who only sends."""
        del self._looks[end]
        if end.is_lost:
            return
        waiting = end.link.untaken_bytes()
        if waiting and waiting != before:
            self._see_out(end, waiting)
        else:
            end.link.abort()

    def _watch(self) -> None:
        """End it when nothing has moved for the idle timeout."""
        left = self._moved_at + self._idle_seconds - self._loop.time()
        if left <= 0:
            self._over()
        elif left < inf:
            self._timer = self._loop.call_later(left, self._watch)


class _Discarding:
    """Hears the rest of a side that nobody listens to any more, until it ends."""

    __slots__ = ("_end",)

    def __init__(self, end: _End) -> None:
        self._end = end

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

    def eof_received(self) -> bool:
        return False  # both directions have ended: the transport closes when what was written has gone out

    def connection_lost(self, error: Exception | None) -> None:
        end = self._end
        end.link.lost()
        end.is_lost = True
        end.tunnel.dissolve()
