"""A second policy on the same traffic: which policy that is, and the chance it draws from.

The candidate itself is a `Breaker` in `metrics_only`, so it runs the very machine that would run if its
thresholds were the active ones. It sees what the active policy admitted: of a request that never went, nobody
knows how it would have ended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeVar

from sidecar.core.snapshot import BreakerMode, BreakerPolicy

_GOLDEN: Final = 0.6180339887498949


def candidate_policy(policy: BreakerPolicy) -> BreakerPolicy | None:
    """The candidate of `policy` as a whole policy of its own: what it leaves unset is as in the active
    one."""
    candidate = policy.candidate
    if candidate is None:
        return None

    return replace(
        policy,
        mode=BreakerMode.METRICS_ONLY,
        candidate=None,
        half_open_check=None,  # nobody checks for a second policy: a request is its probe
        window=_given(candidate.window, policy.window),
        minimum_calls=_given(candidate.minimum_calls, policy.minimum_calls),
        failure_rate_threshold=_given(candidate.failure_rate_threshold, policy.failure_rate_threshold),
        consecutive_failures=_given(candidate.consecutive_failures, policy.consecutive_failures),
        slow_call_seconds=_given(candidate.slow_call_seconds, policy.slow_call_seconds),
        slow_call_rate_threshold=_given(candidate.slow_call_rate_threshold, policy.slow_call_rate_threshold),
        open_seconds=_given(candidate.open_seconds, policy.open_seconds),
        max_open_seconds=_given(candidate.max_open_seconds, policy.max_open_seconds),
    )


T = TypeVar("T")


def _given(value: T | None, active: T) -> T:
    return active if value is None else value


class EvenChance:
    """Draws evenly spread over 0..1 in a fixed order (the golden ratio's multiples).

    A candidate's jitter and ramp need no surprise, only the right share; drawing from the active breaker's
    generator would let the candidate change what the active one does, and a generator of its own takes 2.5
    KiB.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0.0

    def random(self) -> float:
        self._last = (self._last + _GOLDEN) % 1.0
        return self._last
