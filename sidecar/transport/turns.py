"""How much of one turn of the loop may go into the small pieces that peers send.

One read can bring a hundred thousand one-byte chunks or ten thousand requests. Whoever works through such pieces asks
here first how many it may take now, and comes back in a later turn for the rest, with its reading paused meanwhile:
so no peer holds the loop, and many together hold it no longer than one. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

TURN_UNITS: Final = 8_000
"""For all connections together in one turn. A unit is a tiny piece, about half a microsecond: 4 ms."""
SLICE_UNITS: Final = 2_000
"""For one connection at a time."""
REQUEST_UNITS: Final = 50
"""What a request costs that is answered at once."""


class Turns:
    """The units of the present turn, and who waits for the next."""

    __slots__ = ("_is_armed", "_left", "_loop", "_waiting", "deferrals")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = TURN_UNITS
        self._is_armed = False
        self._waiting: deque[Callable[[], None]] = deque()
        self.deferrals = 0
        """How often work was put off to a later turn."""

    def take(self, wanted: int) -> int:
        """Take up to `wanted` units of this turn; returns how many there were, 0 when it is used up."""
        if not self._is_armed:
            self._arm()
        granted = wanted if wanted < self._left else self._left
        self._left -= granted
        return granted

    def give_back(self, units: int) -> None:
        """Return what was taken and not used."""
        self._left += units

    def later(self, work: Callable[[], None]) -> None:
        """Call `work` in a later turn that has units left; first come, first served. It must take its own units."""
        self.deferrals += 1
        self._waiting.append(work)
        if not self._is_armed:
            self._arm()

    def _arm(self) -> None:
        self._is_armed = True
        self._loop.call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_armed = False
        self._left = TURN_UNITS
        try:
            for _ in range(len(self._waiting)):
                if self._left <= 0:
                    break
                self._waiting.popleft()()
        finally:
            if self._waiting and not self._is_armed:
                self._arm()
