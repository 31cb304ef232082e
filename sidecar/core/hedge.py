"""When a second try is begun beside one that is slow, and how many there may be: decisions alone.

A hedge is load that nobody asked for, so it takes from the budget of retries. One of twenty requests takes longer
than the p95 of all; but where all of an upstream becomes slow at once, all do. So hedges after the p95 have a bound
of their own beside that budget: under six of a hundred requests, whatever happens.
"""

from __future__ import annotations

from math import inf
from typing import Final

from sidecar.core.breaker.durations import Durations
from sidecar.core.snapshot import P95, HedgePolicy

P95_SHARE: Final = 0.058
"""Hedges that each request allows with `after: p95`: a twentieth, and what the estimate is off by."""
MOST_KEPT: Final = 10.0
"""Of them, for slow answers that come in a row."""
LEAST_SECONDS: Final = 0.001
"""A timer has a resolution of a millisecond."""
FRESH_SECONDS: Final = 0.1
"""The quantile is looked up anew after this time."""


class Hedging:
    """Of one route and upstream. Times are monotonic seconds."""

    __slots__ = ("_counted", "_durations", "_is_by_p95", "_left", "after", "fresh_until", "policy")

    def __init__(self, policy: HedgePolicy, durations: Durations) -> None:
        """`durations`: of the route's successes there."""
        self.policy = policy
        self._durations = durations
        self._is_by_p95 = policy.after == P95
        self.after = inf if isinstance(policy.after, str) else policy.after
        """Seconds from the beginning of a try until a hedge; infinite while too few successes are known. It holds
        until `fresh_until`, and is then to be looked up by `look`."""
        self.fresh_until = -inf if self._is_by_p95 else inf
        self._counted = 0
        """Requests that `_left` knows of."""
        self._left = MOST_KEPT

    def __repr__(self) -> str:
        return f"<Hedging after {self.after:.3g} s>"

    def look(self, now: float) -> float:
        """What `after` is from now on."""
        if not self._is_by_p95:
            return self.after
        p95 = self._durations.p95()
        self.after = inf if p95 is None else max(p95, LEAST_SECONDS)
        self.fresh_until = now + FRESH_SECONDS
        return self.after

    def take(self, requests: int) -> bool:
        """Whether one more may be sent; it is taken off if so. `requests`: that have come, in all."""
        if not self._is_by_p95:
            return True
        self._left = min(self._left + (requests - self._counted) * P95_SHARE, MOST_KEPT)
        self._counted = requests
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """What was taken is not sent."""
        if self._is_by_p95:
            self._left = min(self._left + 1.0, MOST_KEPT)
