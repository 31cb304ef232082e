"""What one client's connection of HTTP/1.1 holds of the memory of all connections (`core/memory_budget.py`).

Decides what is charged for it, what its end would give back, and whether it may be ended for that. Hears that the
client takes nothing more of what is written, since that is what is held then. Stands on `http1_partial.py`. Of what
is above it, it asks `is_secured` alone. Called by `relief.py`, beside the connection itself.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from sidecar.core.errors import Reason
from sidecar.core.memory_budget import CONNECTION_BYTES, SECURED_BYTES, Account, Claim, Held, settled
from sidecar.downstream.http1_between import Stay
from sidecar.downstream.http1_flow import BEHIND, GATE, HOLD, LOOK_SECONDS, MEMORY
from sidecar.downstream.http1_partial import PartialReader
from sidecar.downstream.phase import ENDED, Phase
from sidecar.downstream.phase_clock import UNSEEN
from sidecar.http1 import parse

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

# Read from module globals: an enum's own lookup costs 15 to 50 ns each time.
_ANSWER: Final = Phase.ANSWER
_UNSENT: Final = Phase.UNSENT

_HELD: Final[dict[Phase, Held | None]] = {
    Phase.IDLE: Held.IDLE,
    Phase.HEAD: Held.HEAD,
    Phase.BODY: Held.BODY,
    Phase.UNSENT: Held.ANSWER,
    Phase.SKIP: Held.BODY,
    Phase.LINGER: Held.ANSWER,
    Phase.CLOSING: Held.ANSWER,
    Phase.TUNNEL: Held.TUNNEL,
    Phase.CLOSED: None,
}
"""By phase; `_ANSWER` is not among them, see `held_as`."""


class ClientMemory(PartialReader):
    """Writes `_account` and `_is_write_paused`."""

    __slots__ = ("_account", "_is_write_paused")

    def __init__(self, listener: ListenerTerms) -> None:
        PartialReader.__init__(self, listener)
        self._is_write_paused = False
        """The client takes nothing: what is written waits here."""
        self._account: Account | None = None
        """What it holds above its own 4 KiB of the memory of all connections; None while that is nothing."""

    @property
    @abstractmethod
    def is_secured(self) -> bool:
        """It came by TLS."""

    # What the client does not take

    def pause_writing(self) -> None:
        self._is_write_paused = True
        if self.phase not in ENDED:
            self._await_taking(_UNSENT, self._service.clock())
        self.link.bound_buffers(self._service.memory.buffer_bytes)
        self._charge()
        if self._exchange is not None:
            self._exchange.blocked()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._account is not None:
            self._note_moved()
        if self.phase is _UNSENT:
            self._enter(self._phase_of_request(), self._service.clock())
        if self._exchange is not None:
            self._exchange.writable()
        else:
            self._go_on()

    def _await_taking(self, phase: Phase, now: float) -> None:
        """The client is to take what waits for it. A first look comes soon, when the kernel's own room is full."""
        self._untaken = UNSEEN
        self._enter(phase, now)
        self._watch(min(self.due, now + LOOK_SECONDS), now)

    # What is charged for it

    def _held_bytes(self) -> int:
        """What waits for somebody, beside the connection's own objects."""
        size = len(self._behind)
        if self._is_write_paused:
            size += self.link.unsent_bytes  # else it goes out with this turn of the loop
        if self._unfinished is not None:
            size += len(self._unfinished)
        if self._chunked is not None:
            size += self._chunked.held_bytes
        exchange = self._exchange
        if exchange is not None and exchange.body is not None:
            size += exchange.body.held_bytes
        return size

    def _charge(self, more: int = 0) -> None:
        """After a change: `more` is about to be written to a client that takes nothing."""
        if self.phase is Phase.CLOSED:
            return  # its exchange may hear of that a little later
        memory = self._service.memory
        kernel_bytes = memory.buffer_bytes if self._is_write_paused else 0
        if self._pauses & (HOLD | BEHIND):
            kernel_bytes += 2 * memory.buffer_bytes
        size = self._held_bytes() + more
        self._account = settled(self._account, memory, self._service.clock(), size, kernel_bytes)

    def _note_moved(self) -> None:
        """The client has sent or taken something."""
        if self._account is not None:
            self._account.moved_at = self._service.clock()
            self._charge()

    def _charge_head(self, size: int, now: float, head: bytes) -> bool:
        """For a large head; False where it is refused since there is no memory for it."""
        if not self._service.memory.may_begin(size):
            self._refuse(parse.Refused(Reason.OVERLOADED, "no memory for so large a head"), now, head)
            return False
        if self._account is None:
            self._account = Account(self._service.memory, now)
        self._account.head_bytes = size
        self._charge()
        return True

    def _uncharge_head(self) -> None:
        """The request under way has ended, or is another protocol's; `_charge` settles it."""
        if self._account is not None:
            self._account.head_bytes = 0

    def _give_back(self) -> None:
        """It is over: nothing is charged for it any more."""
        account, self._account = self._account, None
        if account is not None:
            account.hold(0)

    def _distrust(self) -> None:
        super()._distrust()
        if self._account is not None:
            self._charge()

    # Where all connections hold too much

    @property
    def held_as(self) -> Held | None:
        """What its end would give back; None where it must not be ended: its request is whole and not answered."""
        phase = self.phase
        if phase is _ANSWER:
            return Held.PIPELINE if self._behind and not self._is_body_due() else None
        return _HELD[phase]

    def claim(self, now: float) -> Claim | None:
        """What its end would give back, for whoever must choose; None where it must not be ended."""
        held = self.held_as
        if held is None or self._stay is Stay.VISITOR:
            return None
        account = self._account
        size, since = CONNECTION_BYTES, self._since
        if self.is_secured:
            size += SECURED_BYTES
        if account is not None:
            size += account.charged_bytes + account.kernel_bytes
            since = account.moved_at
        if held is Held.PIPELINE:
            size = len(self._behind)
        elif held is Held.TUNNEL:
            size = CONNECTION_BYTES + self.link.unsent_bytes
            since = now  # what moves in it is not seen here: it goes last
        return Claim(self, self.link.address, size, now - since, self.link.is_in_process)

    def end_for_memory(self) -> Held | None:
        """Give back what it holds; returns what that was, None if it must not be ended any more."""
        held = self.held_as
        if held is Held.IDLE and self.link.is_readable():
            return None  # a request has come this very moment
        # Behind a switch these are the first bytes of a tunnel.
        if held is Held.PIPELINE and not self._is_switching():
            self._distrust()  # what is behind was never begun: its client may send it again (RFC 9112 9.3.2)
            self._resume(BEHIND)
        elif held is not None:
            exchange = self._exchange
            if exchange is not None:
                exchange.gone(Reason.OVERLOADED, "its connection was closed to give memory back")
            self.link.abort()
            if self._account is not None:
                # Now, or others would be closed for it until the loop has told of its end.
                self._give_back()
                self._drop_head()
        return held

    def hold_for_memory(self) -> None:
        """Read nothing more until `go_on`."""
        if self.phase not in ENDED and not self.link.is_closing:
            self._pause_unwatched(MEMORY)

    def go_on(self) -> None:
        self._resume(MEMORY)
        if self._pauses & ~GATE:  # since it was held: nobody looks for its end yet
            self._look_later()
