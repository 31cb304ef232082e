"""How long the loop's turns take: from one poll to the next.

Measured without a cost on the path. As long as all is well, the timer of the sweep alone is looked at, forty times a
second: when it fires late while there is something to do, the loop was busy. Then each turn is measured, by a timer
of a millisecond, which fires once in every longer turn; until some in a row were short (a loop that cannot keep up
has none that is, `core/overload.py`), or nobody comes any more. Owned by the loop; another thread may
read `turned_at`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Final

from sidecar.core.held import HELD_SECONDS, HeldTimes
from sidecar.core.numbers import LAG_BOUNDS, Histogram

SUSPICIOUS_SECONDS: Final = 0.003
"""A timer that is later than this may mean long turns: each one is looked at from here on."""
TICK_SECONDS: Final = 0.001
SHORT_TURNS: Final = 5
"""Turns are measured one by one until so many in a row were none that may mean long ones."""

Turned = Callable[[float, float], bool]
"""(seconds of the turn, now) -> whether the next one has to be measured too, however short this was."""


def _nobody(_seconds: float, _now: float) -> bool:
    return False


class Pace:
    """The turns of one loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        throttled: Callable[[], int] = int,
    ) -> None:
        """`throttled`: how often the kernel has stopped this process for its CPU limit so far."""
        self._loop = loop
        self._clock = clock
        self._throttled = throttled
        self._throttled_before = throttled()
        self.heard: Turned = _nobody
        """Who is told of each turn that is measured, but of those that the kernel cut short."""
        self.held = HeldTimes()
        self.lag = Histogram(LAG_BOUNDS)
        """How late the sweep's timer was, at each of its firings."""
        self.throttled_turns = 0
        self.turned_at = time.monotonic()
        """Real time of the last sign of life."""
        self._timer: asyncio.TimerHandle | None = None
        self._last = inf
        self._turns_left = 0
        """Short ones, until no more are measured."""

    def __repr__(self) -> str:
        return f"<Pace {'closely' if self._timer is not None else 'at ease'}>"

    def fired(self, due: float, now: float, *, is_busy: bool = True) -> None:
        """A timer that was due at `due` is being handled. Unless `is_busy` there was nothing to do: that others had
        the CPU is no overload of ours."""
        self.turned_at = time.monotonic()
        late = max(0.0, now - due)
        self.lag.add([late])
        if late > HELD_SECONDS:
            self.held.note(due, now)
        if late > SUSPICIOUS_SECONDS and is_busy:
            self.look_closely(now)

    def running_seconds(self, now: float) -> float:
        """How long this turn has lasted so far; only while turns are measured one by one, otherwise at most 0."""
        return now - self._last if self._timer is not None else 0.0

    def look_closely(self, now: float) -> None:
        """Measure every turn from here on, for a while; the present one from now."""
        self._turns_left = SHORT_TURNS
        if self._timer is None:
            self._last = now
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def ease(self) -> None:
        """Nobody has come for a while: look closely no longer than somebody wants it."""
        self._turns_left = 0

    def beat(self) -> None:
        """The loop turns: for times in which no timer of the sweep runs."""
        self.turned_at = time.monotonic()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._clock()
        seconds, self._last = now - self._last, now
        self.turned_at = time.monotonic()
        if self._turns_left > 0:
            self._turns_left = SHORT_TURNS if seconds > SUSPICIOUS_SECONDS else self._turns_left - 1
        if seconds > HELD_SECONDS:
            self.held.note(now - seconds, now)
        is_wanted = False
        try:
            is_wanted = not self._was_throttled(seconds) and self.heard(seconds, now)
        finally:
            is_needed = is_wanted or self._turns_left > 0
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick) if is_needed else None

    def _was_throttled(self, seconds: float) -> bool:
        """Whether the kernel stopped the process in that turn; asked about long ones alone."""
        if seconds <= HELD_SECONDS:
            return False
        count = self._throttled()
        if count == self._throttled_before:
            return False
        self._throttled_before = count
        self.throttled_turns += 1
        return True


def after_poll(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *arguments: object) -> None:
    """Call `work` in the next turn, when what has come by now has been read.

    uvloop runs timers, then what `call_soon` was given, and polls last: so what is given to `call_soon` from within
    such a callback runs behind the poll.
    """
    loop.call_soon(loop.call_soon, work, *arguments)
