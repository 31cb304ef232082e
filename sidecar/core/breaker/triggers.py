"""When a closed breaker has seen enough: the policy's thresholds, made ready to be checked for each
outcome."""

from __future__ import annotations

from math import inf

from sidecar.core.breaker.window import Counts
from sidecar.core.snapshot import BreakerPolicy, WindowType
from sidecar.core.transition import TransitionReason


class Triggers:
    """The thresholds of one policy. Immutable; a new policy has new ones.

    A rate of zero stands for "any failure at all": an empty or clean window never trips, or nothing could
    ever close the breaker for good.
    """

    __slots__ = ("_failure_rate", "_minimum_calls", "_row", "_slow_rate")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._row = policy.consecutive_failures
        self._failure_rate = policy.failure_rate_threshold
        # A window that outlives a reload may hold slow calls of a trigger that is off by now.
        self._slow_rate = inf if policy.slow_call_seconds is None else policy.slow_call_rate_threshold
        self._minimum_calls = policy.minimum_calls
        if policy.window.type is WindowType.COUNT:
            # It never holds more than its size, so a larger minimum would turn the rates off.
            self._minimum_calls = min(policy.minimum_calls, int(policy.window.size))

    def check(self, window: Counts, row: int) -> TransitionReason | None:
        """Why to open now, or None. To be asked after a failure or a slow call."""
        if 0 < self._row <= row:
            return TransitionReason.CONSECUTIVE_FAILURES
        return self.check_rates(window)

    def check_rates(self, window: Counts) -> TransitionReason | None:
        """The same after a success: it may be the call that completes `minimum_calls`."""
        judged, failed = window.total - window.pending, window.failed
        if window.silent and judged == failed:
            # No success in the window: impatient callers do not hide an outage.
            judged += window.silent
            failed += window.silent
        # Divided, not multiplied: 7/100 is the very float that 7 % was read as, 0.07 * 100 is above 7.
        if failed and judged >= self._minimum_calls and failed / judged >= self._failure_rate:
            return TransitionReason.FAILURE_RATE
        total, slow = window.total, window.slow
        if slow and total >= self._minimum_calls and slow / total >= self._slow_rate:
            return TransitionReason.SLOW_CALL_RATE
        return None
