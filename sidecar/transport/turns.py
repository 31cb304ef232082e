"""How much of one turn of the loop may go into the small pieces that peers send, and into ends that come together.

One read can bring a hundred thousand one-byte chunks or ten thousand requests. Whoever works through such pieces asks
here first how many it may take now, and comes back in a later turn for the rest, with its reading paused meanwhile:
so no peer holds the loop, and many together hold it no longer than one.

One event can end a thousand requests: a connection that carried them, a process that had a thousand connections, a
caller, a deadline that they share. Each end goes by `end`, which puts off to a later turn what is too much for this
one. Ends have an allowance of their own: nobody's pieces stand behind them. Owned by the event loop.
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
ENDS_A_TURN: Final = 64
"""Ends of what was under way, for all connections together. One takes 0.05 ms, and 0.1 where it is tried again."""


class Turns:
    """The units of the present turn, and who waits for the next."""

    __slots__ = (
        "_ending", "_ends_left", "_is_armed", "_left", "_loop", "_waiting", "deferrals", "ends_put_off",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = TURN_UNITS
        self._is_armed = False
        self._waiting: deque[Callable[[], None]] = deque()
        self.deferrals = 0
        """How often work was put off to a later turn."""
        self._ends_left = ENDS_A_TURN
        self._ending: deque[Callable[[], None]] = deque()
        """As many as there are exchanges and connections, at most."""
        self.ends_put_off = 0
        """How many ends had to wait for a later turn."""

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

    def end(self, work: Callable[[], None]) -> None:
        """Call `work`, which ends something: now, or in a later turn where this one has had its share of ends.

        First come, first served. Whatever `work` is about may have ended otherwise by then: it has to look.
        """
        if not self._is_armed:
            self._arm()
        if self._ends_left and not self._ending:
            self._ends_left -= 1
            self._do(work)
        else:
            self.ends_put_off += 1
            self._ending.append(work)

    @property
    def is_ending(self) -> bool:
        """Some ends wait for a later turn."""
        return bool(self._ending)

    def end_all(self) -> None:
        """Call whatever waits to be ended, at once: nobody is served any more."""
        while self._ending:
            self._do(self._ending.popleft())

    def _do(self, work: Callable[[], None]) -> None:
        """A mistake in one end is told, and keeps no other one from its own."""
        try:
            work()
        except Exception as error:
            message = "an error in ending what was under way"
            self._loop.call_exception_handler({"message": message, "exception": error})

    def _arm(self) -> None:
        self._is_armed = True
        self._loop.call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._is_armed = False
        self._left = TURN_UNITS
        self._ends_left = ENDS_A_TURN
        if self._ending or self._waiting:
            self._go_on()

    def _go_on(self) -> None:
        """With what earlier turns have put off."""
        try:
            while self._ending and self._ends_left:  # each may have others end, which then stand behind
                self._ends_left -= 1
                self._do(self._ending.popleft())
            for _ in range(len(self._waiting)):
                if self._left <= 0:
                    break
                self._waiting.popleft()()
        finally:
            if (self._waiting or self._ending) and not self._is_armed:
                self._arm()
