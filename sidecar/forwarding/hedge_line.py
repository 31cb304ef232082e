"""Exchanges that wait for a hedge: all in one line with one timer.

Each request of a route with `hedge` waits for its hedge, and nearly all are answered before. A timer for each would
cost 2 µs; this one is armed for the first of those that are still there. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.forwarding.sweep import Expiring, Sweep

GRAIN_SECONDS: Final = 0.001
"""The line is looked through so often at most, and nobody is looked at earlier than by half of this."""


class HedgeLine:
    """All exchanges of a process that wait for a hedge."""

    __slots__ = ("_clock", "_due", "_loop", "_sweep", "_timer", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], sweep: Sweep) -> None:
        self._loop = loop
        self._clock = clock
        self._sweep = sweep
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer is to fire."""
        self.waiting: set[Expiring] = set()
        """Whoever ends takes itself out, as of any bucket of the sweep."""

    def __repr__(self) -> str:
        return f"<HedgeLine {len(self.waiting)} waiting>"

    def add(self, item: Expiring, now: float) -> None:
        """Have `item.expire` called once `item.due` has passed, unless it is removed before."""
        waiting = self.waiting
        waiting.add(item)
        item.bucket = waiting
        if self._timer is None:
            self._arm(item.due, now)
        elif item.due < self._due - GRAIN_SECONDS:
            self._timer.cancel()
            self._arm(item.due, now)

    def wait(self, item: Expiring, due: float, now: float) -> None:
        """The same for one that lies in another bucket, and is to be looked at earlier."""
        if item.bucket is not None:
            item.bucket.discard(item)
        item.due = due
        self.add(item, now)

    def close(self) -> None:
        """Forget everything; nobody is looked at any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.waiting.clear()

    def _arm(self, due: float, now: float) -> None:
        self._due = due
        self._timer = self._loop.call_later(max(due - now, GRAIN_SECONDS), self._look)

    def _look(self) -> None:
        self._timer = None
        now, waiting = self._clock(), self.waiting
        until = now + GRAIN_SECONDS / 2
        due = {item for item in waiting if item.due <= until}
        waiting -= due
        for item in due:
            item.bucket = due
        if waiting:
            self._arm(min(item.due for item in waiting), now)
        if due:
            self._sweep.expire_bucket(due)
