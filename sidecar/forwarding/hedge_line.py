"""Exchanges that wait for a hedge: all in one line with one timer.

Each request of a route with `hedge` waits for its hedge, and nearly all are answered before. A timer for each would
cost 2 µs. Here they lie in buckets of 2 ms, and the timer is armed for the first one that somebody is left in: what
it costs does not grow with those that wait. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from math import floor, inf
from typing import Final

from sidecar.forwarding.sweep import Expiring, Sweep

TICKS_PER_SECOND: Final = 500.0
"""Nobody is looked at later than by one of these, nor earlier than by half of it."""
LEAST_WAIT_SECONDS: Final = 0.001
"""The timer's own resolution."""


class HedgeLine:
    """All exchanges of a process that wait for a hedge."""

    __slots__ = (
        "_buckets", "_clock", "_loop", "_sweep", "_ticks", "_timer", "_timer_tick", "latest", "latest_from",
        "latest_until",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], sweep: Sweep) -> None:
        self._loop = loop
        self._clock = clock
        self._sweep = sweep
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick: float = inf
        """What the timer is armed for."""
        self._buckets: dict[int, set[Expiring]] = {}
        """By the tick that ends when all in it are due. Whoever ends takes itself out."""
        self._ticks: list[int] = []
        """A heap of the keys."""
        self.latest: set[Expiring] = set()
        """The bucket that was added to last: with one p95 for all, the next one is nearly always for it, too."""
        self.latest_from = self.latest_until = 0.0

    def __repr__(self) -> str:
        return f"<HedgeLine {len(self)} waiting>"

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, item: Expiring, now: float) -> None:
        """Have `item.expire` called once `item.due` has passed, unless it is removed before."""
        tick = floor(item.due * TICKS_PER_SECOND) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
            heappush(self._ticks, tick)
        bucket.add(item)
        item.bucket = self.latest = bucket
        self.latest_from, self.latest_until = (tick - 1) / TICKS_PER_SECOND, tick / TICKS_PER_SECOND
        if tick < self._timer_tick:
            self._arm(tick, now)

    def wait(self, item: Expiring, due: float, now: float) -> None:
        """The same for one that lies in another bucket, and is to be looked at earlier."""
        if item.bucket is not None:
            item.bucket.discard(item)
        item.due = due
        if self.latest_from <= due < self.latest_until:
            item.bucket = self.latest
            self.latest.add(item)
        else:
            self.add(item, now)

    def close(self) -> None:
        """Forget everything; nobody is looked at any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_tick = inf
        self._buckets.clear()
        self._ticks.clear()
        self._forget_latest()

    def _forget_latest(self) -> None:
        self.latest = set()
        self.latest_from = self.latest_until = 0.0

    def _arm(self, tick: int, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sweep.wake(now)  # it looks whether the loop is held, and knows nothing of those that wait here
        self._timer_tick = float(tick)
        self._timer = self._loop.call_later(
            max(tick / TICKS_PER_SECOND - now, LEAST_WAIT_SECONDS), self._look
        )

    def _look(self) -> None:
        self._timer, self._timer_tick = None, inf
        now, ticks = self._clock(), self._ticks
        until = now * TICKS_PER_SECOND + 0.5
        due = []
        while ticks and (ticks[0] <= until or not self._buckets[ticks[0]]):
            bucket = self._buckets.pop(heappop(ticks))
            if bucket is self.latest:
                self._forget_latest()
            if bucket:
                due.append(bucket)
        if ticks:
            self._arm(ticks[0], now)
        for bucket in due:
            self._sweep.expire_bucket(bucket)
