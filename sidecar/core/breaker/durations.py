"""How long a route's calls take when all is well: the last 1,000 successes, and what they say about waiting.

Kept through an outage, since it is what the upstream was like before. Seconds of the upstream's own time, from
sending to the head (to the end for a call that was judged at its end), of answers with a status below 400."""

from __future__ import annotations

from array import array
from typing import Final

KEPT: Final = 1_000
KNOWN_FROM: Final = 20
"""Fewer successes than this say nothing."""
_FRESH_FOR: Final = 20
"""Further successes after which a quantile is computed anew: 2 % of all that are kept."""


class Durations:
    """A ring of the last successes. A quantile takes 60 µs to compute and is kept until 20 more have come.

    4 KB when full; it grows with what it holds. `add` takes 60 ns.
    """

    __slots__ = ("_known", "_next", "_ring")

    def __init__(self) -> None:
        self._ring = array("f")
        self._next = 0
        self._known: tuple[int, float, float] | None = None

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, seconds: float) -> None:
        """Record one success."""
        ring = self._ring
        if len(ring) < KEPT:
            ring.append(seconds)
            return
        slot = self._next
        ring[slot] = seconds
        if slot + 1 < KEPT:
            self._next = slot + 1
        else:
            self._next = 0
            self._known = None

    def add_at_least(self, seconds: float) -> None:
        """Record an attempt that was ended by us after so long: it would have taken longer. Below the p95 that says
        nothing of it; from there on any value stands for it."""
        p95 = self.p95()
        if p95 is not None and seconds >= p95:
            self.add(seconds)

    def p95(self) -> float | None:
        """What 95 % of them did not exceed; None with fewer than 20."""
        known = self._quantiles()
        return None if known is None else known[2]

    def median(self) -> float | None:
        """What half of them did not exceed; None with fewer than 20."""
        known = self._quantiles()
        return None if known is None else known[1]

    def _quantiles(self) -> tuple[int, float, float] | None:
        count = len(self._ring)
        if count < KNOWN_FROM:
            return None
        age = count + self._next
        known = self._known
        if known is None or age - known[0] >= _FRESH_FOR:
            ordered = sorted(self._ring)
            known = self._known = (age, ordered[count // 2], ordered[min(count - 1, count * 95 // 100)])
        return known


class Deaf(Durations):
    """Takes nothing in: a candidate's, which reads what the active breaker hears and adds nothing to it."""

    __slots__ = ()

    def add(self, seconds: float) -> None:
        """Nothing."""
