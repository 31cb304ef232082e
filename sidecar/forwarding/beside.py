"""What goes on beside the exchanges of a process: who waits for a hedge, copies under way, and TLS handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sidecar.forwarding.hedge_line import HedgeLine
from sidecar.forwarding.sweep import Sweep
from sidecar.transport.turns import Turns


class Stoppable(Protocol):
    def stop(self) -> None: ...


class Beside:
    """Of one process; owned by its `Service`."""

    __slots__ = ("copies", "handshakes", "hedges")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], sweep: Sweep) -> None:
        self.hedges = HedgeLine(loop, clock, sweep)
        """Exchanges that wait for a second try."""
        self.handshakes = Turns(loop)
        """For TLS handshakes alone: nobody else is to wait behind hundreds of them."""
        self.copies: set[Stoppable] = set()
        """Of requests, under way to the upstreams of mirrors."""

    def __repr__(self) -> str:
        return f"<Beside {self.hedges!r}, {len(self.copies)} copies>"

    def stop_copies(self) -> int:
        """Memory is short, or the process ends. Returns how many there were."""
        copies = list(self.copies)
        for copy in copies:
            copy.stop()
        return len(copies)

    def close(self) -> None:
        """The last: nobody is hedged and nothing is copied any more."""
        self.stop_copies()
        self.hedges.close()
