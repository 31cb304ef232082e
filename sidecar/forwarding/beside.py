"""What goes on beside the exchanges of a process: who waits for a hedge, copies under way, TLS handshakes, clients
who cannot be served, and the other workers of its pod."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from sidecar.core.errors import Reason
from sidecar.forwarding.hedge_line import HedgeLine
from sidecar.forwarding.sweep import Sweep
from sidecar.forwarding.visitors import Visitors
from sidecar.transport.turns import Turns


class Stoppable(Protocol):
    def stop(self) -> None: ...


class OtherLoops(ABC):
    """The other workers of the pod, who have calls of the app under way (`notices.py`)."""

    __slots__ = ()

    @abstractmethod
    def tell(self, span_id: bytes, why: Reason) -> None:
        """An inbound exchange was cut short here: what hangs on it there is to end."""

    @abstractmethod
    def watch(self) -> None:
        """Something here hangs on an exchange of theirs."""

    @abstractmethod
    def counted(self) -> None:
        """A connection of a client has come or gone."""


class Beside:
    """Of one process; owned by its `Service`."""

    __slots__ = ("_turns", "copies", "handshakes", "hedges", "others", "visitors")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], sweep: Sweep, turns: Turns
    ) -> None:
        self._turns = turns
        self.hedges = HedgeLine(loop, clock, sweep)
        """Exchanges that wait for a second try."""
        self.handshakes = Turns(loop)
        """For TLS handshakes alone: nobody else is to wait behind hundreds of them."""
        self.copies: set[Stoppable] = set()
        """Of requests, under way to the upstreams of mirrors."""
        self.visitors = Visitors(clock)
        """Clients who are told that there is no room for them."""
        self.others: OtherLoops | None = None
        """None in a pod of one worker."""

    def __repr__(self) -> str:
        return f"<Beside {self.hedges!r}, {len(self.copies)} copies>"

    def stop_copies(self) -> int:
        """Memory is short, or the process ends: a few in a turn of the loop. Returns how many there were."""
        copies = list(self.copies)
        self.copies.clear()  # they are ending: who comes again meanwhile need not end them
        for copy in copies:
            self._turns.end(copy.stop)
        return len(copies)

    def close(self) -> None:
        """The last: nobody is hedged and nothing is copied any more."""
        for copy in list(self.copies):
            copy.stop()
        self.hedges.close()
        self.visitors.close()
