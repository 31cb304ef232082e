"""Deadlines of all live exchanges, swept every 25 ms (DESIGN: 2 µs cheaper than a timer for each exchange).

An exchange lies in the bucket of its due tick; the sweep empties the buckets up to the next tick, expires what is
due and gives the rest, which falls due before the next sweep, timers of their own, so that no deadline is late by
more than the timer's millisecond. Owned by the event loop. Nothing runs while there is nothing to sweep.

While nobody comes, no request is without an answer and nobody has a timer of his own, it rests: it looks again when a
twentieth of the time has passed that is left until the first one may be due. So a pod that waits with a few idle
connections is woken once or twice a second instead of forty times, and a loop that was stopped meanwhile is still
known to have been, to a twentieth of what any deadline had left.

Those that fall due together expire a few in a turn (`transport/turns.py`): each may end a request.

Where the loop was held, timers fire before what has come meanwhile is read (uvloop runs them first): an answer that
came in time would be a time-out. So what is handled late is put off by one turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush
from math import floor, inf
from typing import Final, Protocol

from sidecar.transport.pace import Pace, after_poll
from sidecar.transport.turns import Turns

TICKS_PER_SECOND: Final = 40.0
TICK_SECONDS: Final = 1 / TICKS_PER_SECOND
OWN_TIMER_SECONDS: Final = 0.1
"""A deadline nearer than this gets its own timer at once."""
REST_SHARE: Final = 0.05
"""Of the time that is left until the first deadline: for so long nothing is looked at while nobody comes."""
REST_MARGIN_SECONDS: Final = 0.001
"""A loop's timer may fire so much too early."""
MOST_EMPTY: Final = 1024
"""Buckets that everybody has left stay until their tick is near, or they are so many."""
LATE_SECONDS: Final = 0.01
"""A deadline that is handled later than this is put off by one turn, so that what has come is read first."""


class Expiring(Protocol):
    """What can be swept."""

    due: float
    """Seconds on the clock."""
    bucket: set[Expiring] | None
    """Where it lies; written by the sweep alone."""

    def expire(self, now: float) -> None:
        """`due` has passed. It is no longer in the sweep and may be added again."""

    def abandon(self) -> None:
        """`expire` has raised: a mistake of ours, which must end this one and nothing else."""


def _nobody() -> bool:
    return False


class Sweep:
    """The buckets, and the one repeating timer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        pace: Pace | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`pace` is told of each firing, and `turns` says how much may end in one turn; None: the sweep makes its
        own."""
        self._loop = loop
        self._clock = clock
        self.pace = pace or Pace(loop, clock)
        self._turns = turns or Turns(loop)
        self.buckets: dict[int, set[Expiring]] = {}
        """By tick."""
        self._ticks: list[int] = []
        """A heap of the keys."""
        self._most_buckets = MOST_EMPTY
        self.latest: set[Expiring] = set()
        """The one of them that was added to last. Who is due in its time, and not before `OWN_TIMER_SECONDS` have
        passed, may lie down in it instead of calling `add`. None after a sweep: whoever comes first is heard of."""
        self.latest_from = self.latest_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer is to fire."""
        self._is_resting = False
        self._has_come = False
        """Since the last sweep somebody was added who got a timer of his own."""
        self._near_until = -inf
        """When the last of those timers is to fire: until then it does not rest."""
        self.others_wait: Callable[[], bool] = _nobody
        """Whether somebody waits who must know if the loop was held, however far his deadline is. Asked while nobody
        comes."""

    def __repr__(self) -> str:
        return f"<Sweep {len(self)} waiting>"

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets.values())

    def add(self, item: Expiring, now: float) -> None:
        """Have `item.expire` called once `item.due` has passed, unless it is removed before."""
        due = item.due
        if due - now < OWN_TIMER_SECONDS:
            self._add_timer(item, now)
            self._has_come = True
            self.wake(now)
            return
        if self.latest_from <= due < self.latest_until:
            item.bucket = self.latest
            self.latest.add(item)
            return
        tick = floor(due * TICKS_PER_SECOND)
        bucket = self.buckets.get(tick)
        if bucket is None:
            bucket = self.buckets[tick] = set()
            heappush(self._ticks, tick)
        bucket.add(item)
        item.bucket = self.latest = bucket
        self.latest_from = tick / TICKS_PER_SECOND
        self.latest_until = self.latest_from + TICK_SECONDS
        if self._timer is None:
            self._arm(now, TICK_SECONDS)
        else:
            self.wake(now)

    def wake(self, now: float) -> None:
        """Somebody has come, here or elsewhere: rest no longer. A timer that is about to fire stays: where it is late
        it tells that the loop was held."""
        timer = self._timer
        if timer is not None and self._is_resting and self._due > now + TICK_SECONDS:
            timer.cancel()
            self._arm(now, TICK_SECONDS)

    @staticmethod
    def remove(item: Expiring) -> None:
        bucket = item.bucket
        if bucket is not None:
            bucket.discard(item)
            item.bucket = None

    def close(self) -> None:
        """Forget everything; nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.pace.close()
        self.buckets.clear()
        self._ticks.clear()
        self._forget_latest()

    def _forget_latest(self) -> None:
        self.latest = set()
        self.latest_from = self.latest_until = 0.0

    def _add_timer(self, item: Expiring, now: float) -> None:
        bucket = {item}
        item.bucket = bucket
        self._near_until = max(self._near_until, item.due)
        self._loop.call_later(max(item.due - now, 0.0), self.expire_bucket, bucket)

    def _arm(self, now: float, seconds: float) -> None:
        self._due = now + seconds
        self._is_resting = seconds > TICK_SECONDS
        self._timer = self._loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        now = self._clock()
        self._is_resting = False  # who comes again while this goes on need not wake it
        is_busy = self._has_come or self.latest_until > 0.0
        self._has_come = False
        self._forget_latest()  # what lay in it would stay in memory
        self.pace.fired(self._due, now, is_busy=is_busy)
        if not is_busy:
            self.pace.ease()
        late: set[Expiring] = set()
        # One tick ahead: what falls due before the next sweep must get its timer now.
        tick = int(now * TICKS_PER_SECOND) + 1
        ticks = self._ticks
        while ticks and ticks[0] <= tick:
            bucket = self.buckets.pop(heappop(ticks))
            if bucket:
                self._sweep_bucket(bucket, late, now)
        if late:
            after_poll(self._loop, self._expire_now, late)
        if len(self.buckets) > self._most_buckets:
            self._drop_empty()
        self._timer = None
        seconds = TICK_SECONDS if is_busy else self._rest_seconds(now)
        if ticks:
            self._arm(now, seconds)

    def _rest_seconds(self, now: float) -> float:
        """How long to wait where nobody has come since the last sweep; drops the buckets that are empty before the
        first one that is not."""
        # Somebody may have come again within this very sweep, and left: what is `latest` must not be dropped.
        if self.latest_until or now < self._near_until or self.others_wait():
            return TICK_SECONDS
        ticks = self._ticks
        while ticks and not self.buckets[ticks[0]]:
            del self.buckets[heappop(ticks)]
        if not ticks:
            return TICK_SECONDS
        left = ticks[0] / TICKS_PER_SECOND - now
        return max(TICK_SECONDS, min(left * REST_SHARE, left - TICK_SECONDS + REST_MARGIN_SECONDS))

    def _drop_empty(self) -> None:
        """Where deadlines are an hour away there would be a bucket for each tick of it."""
        self._forget_latest()
        self.buckets = {tick: bucket for tick, bucket in self.buckets.items() if bucket}
        self._ticks[:] = self.buckets
        heapify(self._ticks)
        self._most_buckets = max(MOST_EMPTY, 2 * len(self.buckets))

    def _sweep_bucket(self, bucket: set[Expiring], late: set[Expiring], now: float) -> None:
        for item in list(bucket):
            if item.bucket is not bucket:
                continue  # removed by an expiry before it in this very loop
            if item.due > now:
                self._add_timer(item, now)
            elif self._is_late(item, now):
                item.bucket = late
                late.add(item)
            else:
                self._turns.end(partial(self._expire, item, bucket))

    def _is_late(self, item: Expiring, now: float) -> bool:
        """Whether something may have come in time that nobody has read yet."""
        held_until = self.pace.held.until
        return now - item.due > LATE_SECONDS or item.due <= held_until >= now - LATE_SECONDS

    def expire_bucket(self, bucket: set[Expiring]) -> None:
        """All in it are due; whoever is removed meanwhile is not."""
        now = self._clock()
        if any(self._is_late(item, now) for item in bucket):
            after_poll(self._loop, self._expire_now, bucket)
        else:
            self._expire_now(bucket)

    def _expire_now(self, bucket: set[Expiring]) -> None:
        for item in list(bucket):
            self._turns.end(partial(self._expire, item, bucket))

    def _expire(self, item: Expiring, bucket: set[Expiring]) -> None:
        """A mistake in one must neither stop the others nor the sweep: it is told, and ends what it belongs to."""
        if item.bucket is not bucket:
            return  # removed meanwhile
        item.bucket = None
        try:
            # The loop's timers may fire a millisecond early on a coarser clock; that is close enough.
            item.expire(max(self._clock(), item.due))
        except Exception as error:
            self._tell(item, error)
            try:
                item.abandon()
            except Exception as second:
                self._tell(item, second)

    def _tell(self, item: Expiring, error: Exception) -> None:
        message = f"an error in the expiry of {type(item).__name__}; it is ended"
        self._loop.call_exception_handler({"message": message, "exception": error})
