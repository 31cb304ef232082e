"""Between two requests of one client's connection of HTTP/1.1.

Decides whether another request may follow, whether the next one has its turn yet, and what becomes of a connection on
which none comes. Its listener has a say in that: it is overloaded (`gate.py`), it drains, or the connection is old.
Stands on `http1_flow.py` and calls nothing that is above it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from sidecar.core.errors import Reason
from sidecar.downstream.gate import OUTSIDE, QUEUED, Gate, Place, Ticket, Waiting
from sidecar.downstream.http1_flow import GATE, FlowControl
from sidecar.downstream.phase import ENDED, LAST_CALL_SECONDS, Phase
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.visitors import Lack
from sidecar.transport.link import Link

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

# Read from module globals: an enum's own lookup costs 15 to 50 ns each time.
LET_IN: Final = Place.LET_IN
_REFUSED: Final = Place.REFUSED
_IDLE: Final = Phase.IDLE


class Stay(IntEnum):
    """Whether a connection is kept for more requests, as far as its listener has a say."""

    KEPT = 0
    LAST = 1
    """Its next answer is the last one."""
    VISITOR = 2
    """The same, and that answer is no: there is nothing left to serve it (`forwarding/visitors.py`)."""


class BetweenRequests(FlowControl, Waiting):
    """Writes `_keep_alive`, `_stay` and `_verdict`; `place` with the gate, and where an answer ends."""

    __slots__ = ("_keep_alive", "_stay", "_verdict", "place", "ticket")

    link: Link

    def __init__(self, listener: ListenerTerms) -> None:
        FlowControl.__init__(self, listener)
        self._keep_alive = True
        """Whether another request may follow the present one; once it may not, none ever may."""
        self._stay = Stay.KEPT
        self._verdict: GivenUp | None = None
        """Of the gate, on the present request, or for a visitor; None: it is taken."""
        self.place = OUTSIDE
        self.ticket: Ticket | None = None

    def _keep_no_longer(self) -> None:
        """The answer to the present request is the last one."""
        self._keep_alive = False

    # Whose turn it is, in an overload

    def _may_begin(self, gate: Gate, data: bytes) -> bool:
        """Whether it has been let in; else `data` waits for its turn."""
        if self.place >= LET_IN:
            self._take_verdict()
            return True
        self._keep_only(data)
        gate.queue(self, self._service.clock(), len(data))
        return False

    def _keep_at_gate(self, gate: Gate, data: bytes) -> bytes:
        """More has come, or a request stood behind one that was answered at once."""
        self._keep(data)
        if self.place is not QUEUED:
            gate.queue(self, self._service.clock(), len(data))
        return b""

    def _next_request(self) -> None:
        """Go on with what is here, or wait for its turn."""
        gate = self.listener.gate
        if gate is None:
            if self._behind:
                self._go_on()
        elif self._behind:
            gate.queue(self, self._service.clock(), len(self._behind))
        elif gate.is_full and not self.link.is_closing:
            self._pause_unwatched(GATE)  # the gate hears of its end
            gate.watch(self)

    def let_in(self, *, is_refused: bool) -> None:
        self.place = _REFUSED if is_refused else LET_IN
        self._resume(GATE)
        if self._behind:
            self._take_verdict()
            self._go_on()

    def turn_away(self, lack: Lack) -> None:
        """There is none of that for it, and nobody to close for it: its first request is answered no, and it ends.
        It does not wait for its turn in an overload: its place is one that others need."""
        self._stay = Stay.VISITOR
        self._verdict = lack.refusal()
        self.place = LET_IN

    def _take_verdict(self) -> None:
        """Its request has come to its turn. A client that has left meanwhile gets no answer: 499."""
        if self._stay is not Stay.VISITOR:
            self._verdict = None
        if self.link.is_ended():
            self._verdict = GivenUp(Reason.CLIENT_GONE, "the client went away while its request waited")
            self._service.loop.call_soon(self.abort)
        elif self.place is _REFUSED:
            self._verdict = GivenUp(
                Reason.OVERLOADED, "this sidecar is overloaded", retry_after_seconds=1.0, is_own_lack=True
            )

    def _leave_gate(self) -> None:
        gate = self.listener.gate
        if gate is not None:
            gate.forget(self)

    # Where no other request comes

    def was_idle(self, at: float) -> bool:
        """Between two requests since that time, with nothing on its way that the kernel knows of: others may get its
        place. A visitor has none."""
        is_idle = self.phase is _IDLE and self._since <= at and self._stay is not Stay.VISITOR
        return is_idle and not self._behind and not self.link.is_readable()

    def _close_idle(self, now: float) -> None:
        if self._behind or self.link.is_readable():  # a request has come this very moment
            self._enter(_IDLE, now)
        else:
            self._enter(Phase.CLOSING, now)
            self.link.close()

    def drain(self) -> None:
        """The listener accepts no more: close once it is certain that no request is on its way."""
        if self.phase is _IDLE:
            now = self._service.clock()
            self._watch(max(self._since + self.listener.phase_seconds[_IDLE], now), now)

    @property
    def is_retired(self) -> bool:
        return self._stay is Stay.LAST

    def retire(self) -> None:
        """It is old, or was made on other terms than those of its listener now: its next answer is the last one, and
        it has `LAST_CALL_SECONDS` to ask for that."""
        if self._stay is Stay.KEPT:
            self._stay = Stay.LAST
            self._service.turns.end(self._have_last_call)  # thousands are old together, and each has a timer

    def _have_last_call(self) -> None:
        if self.phase not in ENDED:
            self._service.loop.call_later(LAST_CALL_SECONDS, self._service.turns.end, self._leave)

    def _leave(self) -> None:
        if self.phase is _IDLE:
            self._close_idle(self._service.clock())
