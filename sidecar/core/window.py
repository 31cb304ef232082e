"""What a breaker remembers of its recent calls: exact counts over the last N seconds or the last N calls.

A window knows totals and nothing of thresholds. Both kinds have the same three public counts and the same
methods, cost the same for each outcome whatever was recorded before, and never grow:

* `TimeWindow`: 64 buckets of three 32-bit counts, 768 bytes whatever the traffic.
* `CountWindow`: one byte for each call, so `size` bytes, at most `MAX_COUNT_SIZE`.

An outcome's mark says what it was: 0 for a success in good time, else `FAILED`, `SLOW` or both.
"""

from __future__ import annotations

from array import array
from typing import Final

from sidecar.core.snapshot import WindowPolicy, WindowType

FAILED: Final = 1
SLOW: Final = 2

BUCKETS: Final = 64
"""Of a time window. A power of two, so the buckets' width is exact in binary."""
MAX_COUNT_SIZE: Final = 10_000
"""Calls that a count window may hold; a byte each, so 1,000 breakers of that size take 10 MB."""


class TimeWindow:
    """Outcomes of the last `size_seconds`, in 64 buckets counted from the window's birth.

    An outcome leaves with its bucket: never later than `size_seconds` after it was recorded, and earlier by
    less than one bucket (1/64 of the size, 156 ms of 10 s). Counts are exact: what is in is counted once,
    nothing is estimated. `now` is monotonic seconds; a value before the current bucket counts in the current
    bucket.
    """

    __slots__ = (
        "_base_failed",
        "_base_slow",
        "_base_total",
        "_bucket_ends",
        "_failed",
        "_index",
        "_slow",
        "_started",
        "_total",
        "_width",
        "failed",
        "slow",
        "total",
    )

    def __init__(self, size_seconds: float, now: float) -> None:
        """Raises ValueError unless `size_seconds` is above zero."""
        if not size_seconds > 0:
            raise ValueError(f"a time window's size is {size_seconds} s: it must be above zero")
        self._width = size_seconds / BUCKETS
        self._total = array("I", bytes(4 * BUCKETS))
        self._failed = array("I", bytes(4 * BUCKETS))
        self._slow = array("I", bytes(4 * BUCKETS))
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._started = now
        self._index = 0
        self._bucket_ends = now + self._width
        self.total = self.failed = self.slow = 0
        # The current bucket is what came since it began, so an outcome touches the running totals alone and
        # the ring is written only when a bucket ends: 47 ns for `add` instead of 104.
        self._base_total = self._base_failed = self._base_slow = 0

    def add(self, now: float, mark: int) -> None:
        """Record one outcome."""
        if now >= self._bucket_ends:
            self._rotate(now)
        self.total += 1
        if mark:
            self.failed += mark & FAILED
            self.slow += mark >> 1

    def expire(self, now: float) -> None:
        """Drop what is too old, so that the counts are those of `now`."""
        if now >= self._bucket_ends:
            self._rotate(now)

    def clear(self, now: float) -> None:
        """Forget everything, as if born now."""
        for ring in (self._total, self._failed, self._slow):
            for slot in range(BUCKETS):
                ring[slot] = 0
        self._begin(now)

    def _rotate(self, now: float) -> None:
        # At least one step: rounding may put an instant on the bucket's very end still inside it.
        index = max(self._index + 1, int((now - self._started) / self._width))
        slot = self._index % BUCKETS
        self._total[slot] = self.total - self._base_total
        self._failed[slot] = self.failed - self._base_failed
        self._slow[slot] = self.slow - self._base_slow
        # After a long silence one turn of the ring has met every bucket.
        for expired in range(max(self._index, index - BUCKETS) + 1, index + 1):
            slot = expired % BUCKETS
            self.total -= self._total[slot]
            self.failed -= self._failed[slot]
            self.slow -= self._slow[slot]
            self._total[slot] = self._failed[slot] = self._slow[slot] = 0
        self._index = index
        self._bucket_ends = self._started + (index + 1) * self._width
        self._base_total, self._base_failed, self._base_slow = self.total, self.failed, self.slow


class CountWindow:
    """The last `size` outcomes, however old, as a ring with one byte each."""

    __slots__ = ("_next", "_ring", "_size", "failed", "slow", "total")

    def __init__(self, size: int) -> None:
        """Raises ValueError unless 1 <= `size` <= MAX_COUNT_SIZE."""
        if not 1 <= size <= MAX_COUNT_SIZE:
            raise ValueError(f"a count window's size is {size} calls: it must be 1 to {MAX_COUNT_SIZE}")
        self._size = size
        self._ring = bytearray(size)
        self._next = 0
        self.total = self.failed = self.slow = 0

    def add(self, now: float, mark: int) -> None:
        """Record one outcome; the oldest leaves once the window is full. `now` plays no part."""
        slot = self._next
        ring = self._ring
        if self.total < self._size:
            self.total += 1
        else:
            oldest = ring[slot]
            if oldest:
                self.failed -= oldest & FAILED
                self.slow -= oldest >> 1
        ring[slot] = mark
        if mark:
            self.failed += mark & FAILED
            self.slow += mark >> 1
        slot += 1
        self._next = slot if slot < self._size else 0

    def expire(self, now: float) -> None:
        """Nothing ages here; `TimeWindow` has the same method."""

    def clear(self, now: float) -> None:
        """Forget everything. Old bytes need no wiping: they are read only once the ring is full again."""
        self._next = 0
        self.total = self.failed = self.slow = 0


Window = TimeWindow | CountWindow


def new_window(policy: WindowPolicy, now: float) -> Window:
    """An empty window as `policy` asks for it.

    Raises:
        ValueError: the size is zero or less, or beyond MAX_COUNT_SIZE calls.
    """
    if policy.type is WindowType.TIME:
        return TimeWindow(policy.size, now)
    return CountWindow(int(policy.size))
