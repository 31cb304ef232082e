"""How many attempts an upstream may have in flight, going by the time that it takes to begin its answers.

The idea is that of Netflix's `concurrency-limits` and of Envoy's `adaptive_concurrency`: where work stands in a line,
even the usual answer takes longer than it does without one, and what was in flight, times the usual time, divided
by the present one, is what the upstream works on at once. Other than there, nobody is turned away to measure.

Decides, and counts what it decided; it knows no request, no breaker and no clock (`now` is in seconds on the
monotonic clock). Owned by one event loop, one for each upstream.
"""

from __future__ import annotations

import random
from collections import deque
from enum import Enum
from math import inf, sqrt
from typing import Final

from sidecar.core.admission import Quantiles
from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass

LEAST: Final = 4
"""No limit is below it."""
TIMES_USUAL: Final = 2
"""Nor below this many times what is usually in flight: an upstream that becomes twice as slow is still given all."""
REMEMBERED_SECONDS: Final = 600.0
WINDOW_SECONDS: Final = 1.0
"""Give or take `JITTER`, so that many processes do not judge one upstream in step."""
JITTER: Final = 0.2
MIN_SAMPLES: Final = 100
"""A window goes on until it has so many."""
TOLERANCE: Final = 1.5
"""Times the base: what takes no longer than this does not stand in a line."""
RISE: Final = 1.01
"""Of the base, in the time of a window."""
BLIND_SECONDS: Final = 30.0
LEAST_A_SECOND: Final = 0.5
"""With fewer answers a second, for `BLIND_SECONDS`, a limit knows nothing by which to hold anything back."""

_LOW: Final = 0.1
_MOST_WINDOWS: Final = int(REMEMBERED_SECONDS / (WINDOW_SECONDS * (1.0 - JITTER))) + 1


class LimitReason(Enum):
    """Why a limit is what it is."""

    START = "start"
    """Nothing has changed it: it is the most it may be."""
    IN_LINE = "in_line"
    """Cut: usual answers took longer than without a line."""
    USED = "used"
    """Grown: they did not, and at least half of it was used."""
    USUAL = "usual"
    """Lifted to twice what is usually in flight."""
    BLIND = "blind"
    """Grown: too few answers came to judge by."""
    RELOAD = "reload"
    """Another `limits.max_requests`."""


@dataclass(frozen=True, **SLOTTED)
class LimitChange:
    """The last change of a limit. Times are on the monotonic clock, in seconds."""

    at: float
    before: int
    reason: LimitReason


@dataclass(frozen=True, **SLOTTED)
class Window:
    """What is kept of one that is over."""

    ended: float
    seconds: float
    """To the head, of its median success."""
    in_flight: float
    """At its end."""


class AdaptiveLimit:
    """Refuses what would only stand in a line at the upstream.

    It begins with the most it may be, and comes down when the medians of two windows are over `TOLERANCE` times the
    base. The base is the lowest median; it falls at once, and rises by 1 % a window towards what is low in the last
    ten minutes. An upstream that has become slower for good is taken as it is after that time. Where so few answers
    come that none of this can be known, nothing is held back for long.
    """

    __slots__ = (
        "_began", "_grows_after", "_has_overflowed", "_last_seconds", "_latest", "_peak", "_quantiles", "_rng",
        "_samples", "_window_ends", "_windows", "base_seconds", "changed", "changes", "floor", "is_observing",
        "limit", "most", "refused", "would_refuse",
    )  # fmt: skip

    _began: float
    """When the window did."""
    _grows_after: float
    """The limit may next grow for want of answers."""

    _has_overflowed: bool
    """In this window; so the next four."""
    _peak: int
    """The most in flight."""
    _quantiles: Quantiles
    _samples: int
    _window_ends: float

    def __init__(self, most: int, rng: random.Random, now: float, *, is_observing: bool) -> None:
        """`most`: the limit is never above it. `is_observing`: nothing is refused, but counted."""
        self.most = most
        """May be replaced at a reload, as may `is_observing`; what was learned stays."""
        self.is_observing = is_observing
        self.limit = most
        self.changed = LimitChange(now, most, LimitReason.START)
        self.changes: dict[LimitReason, int] = {one: 0 for one in LimitReason if one is not LimitReason.START}
        """How often it was changed."""
        self.base_seconds: float | None = None
        """Median time to a head without a line; None before the first window."""
        self.floor = min(LEAST, most)
        """The limit does not go below it."""
        self.refused = 0
        self.would_refuse = 0
        """Above the limit, but let through."""
        self._rng = rng
        self._windows: deque[Window] = deque(maxlen=_MOST_WINDOWS)
        self._last_seconds = inf
        """The median of the window before."""
        self._latest = 0
        """What was in flight when an attempt was last admitted, with that one."""
        self._begin_window(now)

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self.limit}, at least {self.floor}, base {self.base_seconds}>"

    def adopt(self, most: int, now: float, *, is_observing: bool) -> None:
        """Go on with what was learned, under another policy. A limit that was the most it might be goes along."""
        is_uncut = self.limit == self.most
        self.most, self.is_observing = most, is_observing
        self.floor = min(self.floor, most)
        self._become(most if is_uncut else min(self.limit, most), LimitReason.RELOAD, now)

    def refuses(self, in_flight: int, now: float) -> bool:
        """Say whether one attempt more than `in_flight` is to be refused (`overloaded`), and count it. Streams whose
        heads have come are not in flight here: they stand in no line."""
        wanted = in_flight + 1
        if wanted > self.limit and now >= self._grows_after and self._is_blind(now):
            self._grows_after = now + WINDOW_SECONDS
            self._become(self._grown(), LimitReason.BLIND, now)
        if wanted > self.limit:
            self._has_overflowed = True
            if not self.is_observing:
                self.refused += 1
                return True
            self.would_refuse += 1
        self._latest = wanted
        if wanted > self._peak:
            self._peak = wanted
        return False

    def record(self, seconds: float, now: float) -> None:
        """Learn from an attempt that succeeded: how long its head took."""
        self._quantiles.record(seconds, now)
        self._samples += 1
        if now >= self._window_ends and self._samples >= MIN_SAMPLES:
            self._end_window(now)

    def _is_blind(self, now: float) -> bool:
        """So few answers come that the window will not be judged, so what it would find out may not be the reason
        to refuse: what is admitted may take a minute each, and would be held at the floor for ever."""
        return self._samples < LEAST_A_SECOND * (now - self._began)

    def _become(self, limit: int, reason: LimitReason, now: float) -> None:
        if limit != self.limit:
            self.changed = LimitChange(now, self.limit, reason)
            self.changes[reason] += 1
            self.limit = limit

    def _grown(self) -> int:
        return min(self.limit + max(1, int(sqrt(self.limit))), self.most)

    def _begin_window(self, now: float) -> None:
        self._began = now
        self._grows_after = now + BLIND_SECONDS
        self._window_ends = now + WINDOW_SECONDS * self._rng.uniform(1.0 - JITTER, 1.0 + JITTER)
        self._quantiles = Quantiles(now)
        self._samples = 0
        self._peak = self._latest
        self._has_overflowed = False

    def _end_window(self, now: float) -> None:
        seconds = self._quantiles.quantile(0.5, now)
        if seconds is not None:  # else its samples came so slowly that they count for next to nothing
            self._remember(seconds, now)
            self._judge(seconds, self._move_base(seconds, now), now)
        self._begin_window(now)

    def _judge(self, seconds: float, base: float, now: float) -> None:
        in_line = min(seconds, self._last_seconds)  # one slow window may be a pause of the upstream
        self._last_seconds = seconds
        limit, reason = self.limit, LimitReason.USUAL
        if in_line > base * TOLERANCE:
            limit, reason = self._cut(base * TOLERANCE / in_line), LimitReason.IN_LINE
        elif seconds <= base * TOLERANCE and 2 * self._peak >= limit:
            limit, reason = self._grown(), LimitReason.USED
        if limit < self.floor:
            limit = self.floor
            reason = LimitReason.USUAL if limit > self.limit else reason
        self._become(min(limit, self.most), reason, now)

    def _remember(self, seconds: float, now: float) -> None:
        """The floor follows. Where the limit holds something back, what is in flight is the limit's own doing: to
        count more than half of it would lift the floor above the limit, and again, for as long as an overload lasts
        (in a model of three times the load to `most`, 1,024, within eleven minutes)."""
        windows = self._windows
        in_flight = min(self._latest, self.limit / TIMES_USUAL) if self._has_overflowed else self._latest
        windows.append(Window(now, seconds, in_flight))
        while windows[0].ended < now - REMEMBERED_SECONDS:
            windows.popleft()
        usual = sorted([one.in_flight for one in windows])[len(windows) // 2]
        self.floor = min(max(LEAST, int(TIMES_USUAL * usual)), self.most)

    def _move_base(self, seconds: float, now: float) -> float:
        """A window that had to wait for its answers lasts as long as several."""
        before = self.base_seconds
        if before is None or seconds <= before:
            base = seconds
        else:
            low = sorted([one.seconds for one in self._windows])[int(_LOW * len(self._windows))]
            windows = max(1.0, (now - self._began) // (WINDOW_SECONDS * (1.0 + JITTER)))
            base = max(before, min(before * RISE ** min(windows, REMEMBERED_SECONDS), low))
        self.base_seconds = base
        return base

    def _cut(self, share: float) -> int:
        """By what was in flight, not by what might have been: a limit that is far above it would take long to come
        down, and where nothing is held back (`is_observing`) the limit would go down for ever."""
        cut = int(self._peak * share)
        return cut if self.is_observing else min(self.limit, cut)
