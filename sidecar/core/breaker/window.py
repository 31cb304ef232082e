"""What a breaker remembers of its recent calls: exact counts over the last N seconds or the last N calls.

A window knows totals and nothing of thresholds. Both kinds have the same public counts and the same methods, cost the
same for each outcome whatever was recorded before, and never grow:

* `TimeWindow`: 64 buckets of five 32-bit counts, 1,280 bytes whatever the traffic.
* `CountWindow`: one byte for each call, so `size` bytes, at most `MAX_COUNT_SIZE`.

A call's mark says what it was: 0 for a success in good time, else the sum of

* `FAILED`;
* `SLOW`;
* `PENDING`: it has no verdict. It stands in the window because it is slow, running or left by its caller;
* `SILENT`: it ended without an answer for which its caller may be to blame. It is not in `total` and speaks
  only while the window holds no success;
* `EXCUSED`: it failed, at an endpoint that is unusable. It is in no count (`excuses.py`).

A call stands in the window once. Its mark can be changed as long as it does: `add` returns its place for that.
"""

from __future__ import annotations

from array import array
from typing import Final

from sidecar.core.snapshot import MAX_COUNT_SIZE, WindowPolicy, WindowType

FAILED: Final = 1
SLOW: Final = 2
PENDING: Final = 4
SILENT: Final = 8
EXCUSED: Final = 16

BUCKETS: Final = 64
"""Of a time window. A power of two, so the buckets' width is exact in binary."""

_TOTAL, _FAILED, _SLOW, _PENDING, _SILENT = range(5)


class Counts:
    """The running totals of a window."""

    __slots__ = ("failed", "pending", "silent", "slow", "total")

    def __init__(self) -> None:
        self.total = self.failed = self.slow = self.pending = self.silent = 0

    @property
    def good(self) -> int:
        """Successes, slow ones too."""
        return self.total - self.failed - self.pending

    def _mark(self, mark: int, by: int) -> None:
        """Take a call's mark in (`by` 1) or back (-1), but for `total`."""
        if mark & FAILED:
            self.failed += by
        if mark & SLOW:
            self.slow += by
        if mark & PENDING:
            self.pending += by
        if mark & SILENT:
            self.silent += by
            self.total -= by
        if mark & EXCUSED:
            self.total -= by

    def _reset(self) -> None:
        self.total = self.failed = self.slow = self.pending = self.silent = 0


class TimeWindow(Counts):
    """Outcomes of the last `size_seconds`, in 64 buckets counted from the window's birth.

    An outcome leaves with its bucket: never later than `size_seconds` after it was recorded, and earlier by
    less than one bucket (1/64 of the size, 156 ms of 10 s). Counts are exact: what is in is counted once,
    nothing is estimated. `now` is monotonic seconds; a value before the current bucket counts in the current
    bucket.
    """

    __slots__ = ("_base", "_index", "_rings", "_started", "_width", "bucket_ends")

    bucket_ends: float
    """Until then the current bucket takes what comes. A success in good time is one more in `total` and nothing else,
    so who has only that to record may add it there in the place of `add`."""

    def __init__(self, size_seconds: float, now: float) -> None:
        """Raises ValueError unless `size_seconds` is above zero."""
        if not size_seconds > 0:
            raise ValueError(f"a time window's size is {size_seconds} s: it must be above zero")
        super().__init__()
        self._width = size_seconds / BUCKETS
        self._rings = array("I", bytes(4 * 5 * BUCKETS))
        """For each bucket its five counts."""
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._started = now
        self._index = 0
        self.bucket_ends = now + self._width
        self._reset()
        # The current bucket is what came since it began, so an outcome touches the running totals alone and
        # the ring is written only when a bucket ends: 47 ns for `add` instead of 104.
        self._base: tuple[int, ...] = (0, 0, 0, 0, 0)

    def add(self, now: float, mark: int) -> int:
        """Record one outcome, and return its place."""
        if now >= self.bucket_ends:
            self._rotate(now)
        self.total += 1
        if mark:
            self._mark(mark, 1)
        return self._index

    def holds(self, place: int) -> bool:
        """Whether what was recorded there has not left; as of the last call that was given a `now`."""
        return place > self._index - BUCKETS

    def change(self, place: int, old: int, new: int, now: float, count: int = 1) -> bool:
        """Give `count` calls at `place` another mark; False if they have left the window."""
        if now >= self.bucket_ends:
            self._rotate(now)
        if place <= self._index - BUCKETS:
            return False
        before = self._now()
        self._mark(old, -count)
        self._mark(new, count)
        if place != self._index:
            # It stands in an older bucket: the change is that one's, not the current one's.
            slot = place % BUCKETS * 5
            changes = [after - was for after, was in zip(self._now(), before, strict=True)]
            for offset, change in enumerate(changes):
                self._rings[slot + offset] += change
            self._base = tuple(was + change for was, change in zip(self._base, changes, strict=True))
        return True

    def slots(self, count: int, now: float) -> tuple[tuple[int, int, int], ...]:
        """Calls, failures and slow calls of `count` equal parts of the window, the youngest first; parts at its end
        that are empty are left out. The part that has just begun holds less time than the others."""
        if now >= self.bucket_ends:
            self._rotate(now)
        width, rings = BUCKETS // count, self._rings
        sums = [[0, 0, 0] for _ in range(count)]
        for bucket in range(max(0, self._index - BUCKETS + 1), self._index):
            place = bucket % BUCKETS * 5
            if not rings[place]:
                continue
            one = sums[(self._index - bucket) // width]
            for field in range(3):
                one[field] += rings[place + field]
        for field in range(3):
            sums[0][field] += self._now()[field] - self._base[field]
        while sums and not any(sums[-1]):
            sums.pop()
        return tuple((total, failed, slow) for total, failed, slow in sums)

    def expire(self, now: float) -> None:
        """Drop what is too old, so that the counts are those of `now`."""
        if now >= self.bucket_ends:
            self._rotate(now)

    def clear(self, now: float) -> None:
        """Forget everything, as if born now."""
        self._rings = array("I", bytes(4 * 5 * BUCKETS))
        self._begin(now)

    def _now(self) -> tuple[int, ...]:
        return self.total, self.failed, self.slow, self.pending, self.silent

    def _rotate(self, now: float) -> None:
        # At least one step: rounding may put an instant on the bucket's very end still inside it.
        index = max(self._index + 1, int((now - self._started) / self._width))
        rings = self._rings
        slot = self._index % BUCKETS * 5
        for offset, (count, base) in enumerate(zip(self._now(), self._base, strict=True)):
            rings[slot + offset] = count - base
        # After a long silence one turn of the ring has met every bucket.
        for expired in range(max(self._index, index - BUCKETS) + 1, index + 1):
            slot = expired % BUCKETS * 5
            total, failed, slow, pending, silent = rings[slot : slot + 5]
            if total or silent:
                self.total -= total
                self.failed -= failed
                self.slow -= slow
                self.pending -= pending
                self.silent -= silent
                rings[slot : slot + 5] = _EMPTY
        self._index = index
        self.bucket_ends = self._started + (index + 1) * self._width
        self._base = self._now()


_EMPTY: Final = array("I", bytes(20))


class CountWindow(Counts):
    """The last `size` outcomes, however old, as a ring with one byte each."""

    __slots__ = ("_added", "_ring", "_size")

    def __init__(self, size: int) -> None:
        """Raises ValueError unless 1 <= `size` <= MAX_COUNT_SIZE."""
        if not 1 <= size <= MAX_COUNT_SIZE:
            raise ValueError(f"a count window's size is {size} calls: it must be 1 to {MAX_COUNT_SIZE}")
        super().__init__()
        self._size = size
        self._ring = bytearray(size)
        self._added = 0

    def add(self, now: float, mark: int) -> int:
        """Record one outcome and return its place; the oldest leaves once the window is full. `now` plays no
        part."""
        place = self._added
        slot = place % self._size
        ring = self._ring
        self.total += 1
        if place >= self._size:
            self.total -= 1
            oldest = ring[slot]
            if oldest:
                self._mark(oldest, -1)
        ring[slot] = mark
        if mark:
            self._mark(mark, 1)
        self._added = place + 1
        return place

    def holds(self, place: int) -> bool:
        """Whether the call that was recorded there has not left."""
        return place >= self._added - self._size

    def change(self, place: int, old: int, new: int, now: float, count: int = 1) -> bool:
        """Give the call at `place` another mark; False if it has left the window. `count` is 1: each has a place."""
        if place < self._added - self._size:
            return False
        self._mark(old, -1)
        self._mark(new, 1)
        self._ring[place % self._size] = new
        return True

    def slots(self, count: int, now: float) -> tuple[tuple[int, int, int], ...]:
        """All of it is one part."""
        return ((self.total, self.failed, self.slow),) if self.total else ()

    def expire(self, now: float) -> None:
        """Nothing ages here; `TimeWindow` has the same method."""

    def clear(self, now: float) -> None:
        """Forget everything. Old bytes need no wiping: they are read only once the ring is full again."""
        self._added = 0
        self._reset()


Window = TimeWindow | CountWindow


def new_window(policy: WindowPolicy, now: float) -> Window:
    """An empty window as `policy` asks for it.

    Raises:
        ValueError: the size is zero or less, or beyond MAX_COUNT_SIZE calls.
    """
    if policy.type is WindowType.TIME:
        return TimeWindow(policy.size, now)
    return CountWindow(int(policy.size))
