"""How long an attempt must have had for its timeout to say something of the upstream (`count_timeout_after: auto`).

Three times the p95 of the route's own successes, at most 0.8 s so that callers who bring 1 s count, unless the p95 is
longer than that; at least 50 ms; 0.8 s while fewer than 20 successes are known.

What is known of a slow route is cut off by its callers: where all of them bring 1 s, no success takes longer, and the
p95 says 1 s although half the answers would take more. So a caller's timeout shorter than twice the median of the
successes is no failure but silence: it counts while nobody is served (`tests/bench/hard_cases` shows a healthy route
with a median of 1.2 s that opened for all without this).
"""

from __future__ import annotations

from typing import Final

from sidecar.core.breaker.durations import Durations
from sidecar.core.outcome import PROBE_SECONDS
from sidecar.core.snapshot import BreakerPolicy

TIMES_P95: Final = 3.0
LEAST_SECONDS: Final = 0.05
LEAST_YIELD_SECONDS: Final = 1.0
"""A probe without a head is given at least this long before another may probe beside it."""
TIMES_MEDIAN: Final = 2.0
YOUNG_SECONDS: Final = 0.2
"""Younger is an attempt that may still be answered at any moment, while too few successes are known."""


def counts_after(policy: BreakerPolicy, durations: Durations) -> float:
    """Seconds at the upstream from which on a timeout counts."""
    explicit = policy.count_timeout_after_seconds
    if explicit is not None:
        return explicit
    p95 = durations.p95()
    if p95 is None:
        return PROBE_SECONDS
    return max(min(TIMES_P95 * p95, PROBE_SECONDS), p95, LEAST_SECONDS)


def answers_by(policy: BreakerPolicy, durations: Durations) -> float:
    """A caller's timeout of less than these seconds is silence rather than failure; 0: none is."""
    if policy.count_timeout_after_seconds is not None:
        return 0.0
    median = durations.median()
    return 0.0 if median is None else TIMES_MEDIAN * median


def yields_after(durations: Durations) -> float:
    """Seconds after which a probe without a head lets another request probe beside it."""
    p95 = durations.p95()
    return LEAST_YIELD_SECONDS if p95 is None else max(TIMES_P95 * p95, LEAST_YIELD_SECONDS)


def young_seconds(durations: Durations) -> float:
    """How old an attempt is at most that may be answered at any moment."""
    p95 = durations.p95()
    return YOUNG_SECONDS if p95 is None else TIMES_P95 * p95
