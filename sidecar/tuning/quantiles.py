"""What the times of good calls say by themselves, without any outage: where to cut, and what is slow. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Final

from sidecar.core.dataclass import dataclass

SHARES: Final = (0.5, 0.95, 0.99, 0.999)
BEYOND: Final = 10
"""Calls that must be beyond a quantile for it to be said."""
SLOW_TIMES: Final = 3.0
"""The p95: what `count_timeout_after: auto` takes for late, too."""
CUT_TIMES: Final = 2.0
"""The longest quantile that is known."""
_STEPS: Final = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)
LEAST_SECONDS: Final = 0.05
"""Nothing quicker is called slow: below it a busy machine makes the difference."""


@dataclass(frozen=True, slots=True)
class Times:
    """Of the good calls outside outages."""

    count: int
    quantiles: dict[float, float]
    """Seconds, by share; those alone that are known well enough."""
    longest: float
    slow_call_seconds: float | None
    """What would be slow: three times the p95. None: too little is known."""
    attempt_seconds: float | None
    """A timeout for one attempt that cuts next to none of them."""
    cut: int
    """How many of them took longer than that."""


def times_of(seconds: Sequence[float]) -> Times:
    """Of good calls, in any order."""
    ordered = sorted(seconds)
    count = len(ordered)
    known = {
        share: ordered[min(count - 1, int(count * share))]
        for share in SHARES
        if count * (1.0 - share) >= BEYOND
    }
    if 0.95 not in known:
        return Times(count, known, ordered[-1] if ordered else 0.0, None, None, 0)
    slow = rounded_up(max(SLOW_TIMES * known[0.95], LEAST_SECONDS))
    cut = rounded_up(max(CUT_TIMES * known[max(known)], slow))
    return Times(count, known, ordered[-1], slow, cut, sum(one > cut for one in ordered))


def median(seconds: Sequence[float]) -> float | None:
    """None of nothing."""
    return sorted(seconds)[len(seconds) // 2] if seconds else None


def rounded_up(seconds: float) -> float:
    """To a number that people would write: 1, 1.5, 2, 3, 5 or 7.5 times a power of ten."""
    power = 10.0 ** floor(log10(seconds))
    step = next(one for one in _STEPS if one * power >= seconds * (1 - 1e-9))
    return ceil(step * power * 1e6) / 1e6
