"""When one client's connection of HTTP/1.1 is read, and what waits in it meanwhile.

Decides why reading pauses and when it goes on, keeps the bytes whose turn has not come, and asks the kernel for the
end of a client that is not read. Of the request under way it knows no more than that there is one, and whether that
asks for an upgrade. The lowest part of a `ClientConnection`: of what stands above it, it calls `_go_on` alone.
"""

from __future__ import annotations

from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING, Final

from sidecar.downstream.phase import ENDED, Phase
from sidecar.downstream.phase_clock import UNSEEN, PhaseClock
from sidecar.forwarding.sweep import Expiring

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms
    from sidecar.forwarding.exchange import Exchange

MAX_BEHIND_BYTES: Final = 16 * 1024
"""Kept of what comes behind a request that is not answered yet; beyond it, the client is not read any more. What one
read brings may be more."""
LOOK_SECONDS: Final = 0.04
"""Between two looks at whether a client that is not being read has left."""

# Why reading is paused; any of these together.
HOLD: Final = 1
"""The body has nowhere to go."""
BEHIND: Final = 2
"""Much waits behind a request."""
TURN: Final = 4
"""This turn of the loop is used up."""
GATE: Final = 8
"""The listener is overloaded."""
MEMORY: Final = 16
"""Memory is short."""


class FlowControl(PhaseClock):
    """Writes `_behind`, `_pauses`, `_is_looking` and `_has_ended`.

    Each part that stands on it begins by naming the one below: six calls of `super()` take 0.4 µs more.
    """

    __slots__ = (
        "_behind", "_exchange", "_has_ended", "_is_looking", "_pauses", "_service", "_since", "_untaken", "bucket",
        "due", "link", "listener", "phase",
    )  # fmt: skip

    def __init__(self, listener: ListenerTerms) -> None:
        self.listener = listener
        self._service = listener.service
        self.phase = Phase.IDLE
        self._since = 0.0
        self.due = inf
        self.bucket: set[Expiring] | None = None
        self._untaken = UNSEEN
        self._exchange: Exchange | None = None
        """Which is being answered: from the end of a request's head to that of its answer."""
        self._behind = b""
        """Read, and not worked through: what comes behind a request, or what this turn of the loop had no time
        for."""
        self._pauses = 0
        self._is_looking = False
        self._has_ended = False
        """The client sends nothing more, and waits for what an upgrade brings."""

    @abstractmethod
    def _go_on(self, *, is_due: bool = False) -> None:
        """Work through what was kept, if it is its turn. `is_due`: a pause for the turn of the loop is over."""

    # What waits

    def _keep(self, data: bytes) -> bytes:
        """It waits for its turn, as bytes."""
        self._behind += data
        if len(self._behind) > MAX_BEHIND_BYTES:
            self._pause(BEHIND)
        return b""

    def _keep_only(self, data: bytes) -> None:
        """Nothing but this waits: one read, however large, or nothing."""
        self._behind = data

    def _take_kept(self) -> bytes:
        """What waits, for whoever works through it now."""
        data, self._behind = self._behind, b""
        return data

    def _put_off(self, data: bytes) -> bytes:
        """This turn of the loop has no time left for it."""
        self._behind = data
        self._pause(TURN)
        self._service.turns.later(self._take_up)
        return b""

    def _take_up(self) -> None:
        self._resume(TURN)
        self._go_on(is_due=True)

    # Pauses

    def _pause(self, why: int) -> None:
        if not self._pauses:
            self.link.pause()
            self.link.bound_buffers(self._service.memory.buffer_bytes)
            self._look_later()
        self._pauses |= why

    def _pause_unwatched(self, why: int) -> None:
        """Without a look for the client's end: somebody else looks, or it will not be long."""
        if not self._pauses:
            self.link.pause()
        self._pauses |= why

    def _resume(self, why: int) -> None:
        if self._pauses & why:
            self._pauses &= ~why
            if not self._pauses and not self.link.is_closing:
                self.link.resume()

    def _read_to_end(self) -> None:
        """Whatever comes: nothing is made of it any more."""
        self._pauses = 0
        self.link.resume()

    def _look_later(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._service.loop.call_later(LOOK_SECONDS, self._look_for_end)

    def _look_for_end(self) -> None:
        """A client that is not read cannot be seen to leave, so ask the kernel as long as that lasts."""
        self._is_looking = False
        if not self._pauses or self.link.is_closing or self.phase in ENDED:
            return
        if self.link.is_reset() if self._is_switching() else self.link.has_left():
            self.link.abort()
            return
        self._is_looking = True
        self._service.loop.call_later(LOOK_SECONDS, self._look_for_end)

    def eof_received(self) -> bool:
        if self._is_switching():
            self._has_ended = True  # the other direction of what it asks for goes on
            return True
        return False  # a client that sends no more is taken to be gone, as Go, Envoy and nginx do

    def _is_switching(self) -> bool:
        """The present request asks for an upgrade."""
        exchange = self._exchange
        return exchange is not None and bool(exchange.request.traits.upgrade)
