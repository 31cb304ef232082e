"""Whether a budget is too small to be worth an attempt, going by the route's own recent successes.

Decides, and counts what it decided; it knows no breaker, no request and no clock (`now` is in seconds on the
monotonic clock). Owned by one event loop, one for each route and upstream.
"""

from __future__ import annotations

from math import frexp
from typing import Final

from sidecar.core.snapshot import AdmissionPolicy, Mode

MIN_SAMPLES: Final = 20
"""With fewer of them (decayed ones count for less) nothing is known, and everything is admitted."""
HALF_LIFE_SECONDS: Final = 30.0

_OFF = Mode.OFF
_ENFORCE = Mode.ENFORCE
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95}

# Sixteen buckets for each doubling: a quantile is at most 1/32 off, where the buckets are widest.
_STEPS: Final = 16
_LOWEST_EXPONENT: Final = -13  # 2**-14 s, 61 µs; all below is one bucket.
_HIGHEST_EXPONENT: Final = 13  # 2**13 s, over two hours; all above is one bucket.
_BUCKETS: Final = (_HIGHEST_EXPONENT - _LOWEST_EXPONENT + 1) * _STEPS
_RECORDS_PER_REFRESH: Final = 32


class Quantiles:
    """Streaming quantiles of recent durations: a histogram of log-linear buckets that halve with time.

    Constant time and at most 16 KiB, whatever the traffic. Figures are up to 32 records old, which pays for
    the scan.
    """

    __slots__ = ("_cached", "_counts", "_decay_at", "_total", "_until_refresh")

    def __init__(self, now: float) -> None:
        self._counts = [0.0] * _BUCKETS
        self._total = 0.0
        self._decay_at = now + HALF_LIFE_SECONDS
        self._cached: dict[float, float | None] = {}
        self._until_refresh = 0

    def __repr__(self) -> str:
        return f"<Quantiles of {self._total:.0f} samples>"

    def record(self, seconds: float, now: float) -> None:
        """Count one duration; zero and less count as the shortest."""
        if now >= self._decay_at:
            self._decay(now)
        # frexp: seconds == mantissa * 2**exponent, mantissa in [0.5, 1). Half the cost of a logarithm.
        mantissa, exponent = frexp(seconds)
        index = int((exponent - _LOWEST_EXPONENT + mantissa * 2.0 - 1.0) * _STEPS)
        if index < 0 or seconds <= 0.0:
            index = 0
        elif index >= _BUCKETS:
            index = _BUCKETS - 1
        self._counts[index] += 1.0
        self._total += 1.0
        self._until_refresh -= 1

    def quantile(self, share: float, now: float) -> float | None:
        """Return the duration that `share` (0..1) of the recent ones did not exceed, None without enough."""
        if now >= self._decay_at:
            self._decay(now)
        if self._until_refresh <= 0:
            self._cached.clear()
            self._until_refresh = _RECORDS_PER_REFRESH if self._total >= MIN_SAMPLES else 0
        if share not in self._cached:
            self._cached[share] = self._scan(share)
        return self._cached[share]

    def _scan(self, share: float) -> float | None:
        if self._total < MIN_SAMPLES:
            return None
        left = share * self._total
        last = 0
        for index, count in enumerate(self._counts):
            if count:
                last = index
                left -= count
                if left <= 1e-9:
                    break
        return _middle(last)

    def _decay(self, now: float) -> None:
        """Halve all counts once for each half-life that has passed."""
        steps = int((now - self._decay_at) / HALF_LIFE_SECONDS) + 1
        self._decay_at += steps * HALF_LIFE_SECONDS
        factor = 0.5 ** min(steps, 64)
        self._counts = [count * factor for count in self._counts]
        self._total = sum(self._counts)
        self._until_refresh = 0


def _middle(index: int) -> float:
    """Return the duration in the middle of a bucket."""
    exponent, step = divmod(index, _STEPS)
    return float(2.0 ** (exponent + _LOWEST_EXPONENT - 1) * (1.0 + (step + 0.5) / _STEPS))


class BudgetAdmission:
    """Refuses attempts that would very likely not finish in time, but never so many that it stops learning.

    Each question earns `max_reject_ratio` of a refusal and at most ten are saved up, so over any stretch that
    share is refused and ten more at most. The rest shows whether the upstream has become faster.
    """

    __slots__ = ("_credit", "durations", "policy", "refused", "would_refuse")

    MAX_CREDIT: Final = 10.0

    def __init__(self, policy: AdmissionPolicy, now: float) -> None:
        self.policy = policy
        """May be replaced at a reload; what was learned stays."""
        self.durations = Quantiles(now)
        self.refused = 0
        self.would_refuse = 0
        """Too small, but let through: in `mode: observe`, or to stay within `max_reject_ratio`."""
        self._credit = 0.0

    def __repr__(self) -> str:
        return (
            f"<BudgetAdmission {self.policy.mode.value}, {self.refused} refused, {self.would_refuse} spared>"
        )

    def record(self, seconds: float, now: float) -> None:
        """Learn from an attempt that succeeded."""
        self.durations.record(seconds, now)

    def min_budget_seconds(self, now: float) -> float | None:
        """Return what an attempt needs at least, None while too little is known."""
        wanted = self.policy.min_budget
        if isinstance(wanted, str):
            return self.durations.quantile(_QUANTILES[wanted], now)
        return wanted

    def should_refuse(self, budget_seconds: float, now: float) -> bool:
        """Say whether an attempt with this budget is to be refused (`deadline_exceeded`), and count it."""
        policy = self.policy
        if policy.mode is _OFF:
            return False
        self._credit = min(self._credit + policy.max_reject_ratio, self.MAX_CREDIT)
        needed = self.min_budget_seconds(now)
        if needed is None or budget_seconds >= needed:
            return False
        if policy.mode is _ENFORCE and self._credit >= 1.0 - 1e-9:
            self._credit -= 1.0
            self.refused += 1
            return True
        self.would_refuse += 1
        return False
