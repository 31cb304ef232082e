"""What an attempt's end comes to, and the counters and times that it adds to. Moves no state."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Final

from sidecar.core.breaker import counting
from sidecar.core.breaker.durations import Deaf, Durations
from sidecar.core.breaker.numbers import Tally
from sidecar.core.breaker.permit import BreakerPermit
from sidecar.core.breaker.warmup import WarmUp
from sidecar.core.outcome import PROBE_SECONDS, Kind, Outcome, Verdict, judge, judge_check
from sidecar.core.snapshot import BreakerPolicy

_SUCCESS: Final = Verdict.SUCCESS
_FAILURES: Final = (Verdict.FAILURE, Verdict.RATE_ONLY_FAILURE)


MOST_AVOIDED: Final = 64
"""Endpoints whose failed probes are remembered: the waits between them make more of no use."""


class Judge:
    """One for each breaker. Its tally and durations outlive every state period."""

    __slots__ = ("avoid", "durations", "heard", "policy", "slow_seconds", "tally", "warm")

    def __init__(self, policy: BreakerPolicy, warm: WarmUp | None, durations: Durations | None) -> None:
        """`warm` is the upstream's, None if it counts as warm. `durations`: of the breaker that this one is a
        candidate beside, which alone adds to them."""
        self.tally = Tally()
        self.durations = Durations() if durations is None else durations
        self.heard = self.durations if durations is None else Deaf()
        """Where successes go."""
        self.warm = warm
        self.avoid: tuple[Hashable, ...] = ()
        """Endpoints at which probes of this outage have failed, the last one last; before the first probe, that one
        at which anything failed last. At most `MOST_AVOIDED`."""
        self.adopt(policy)

    def adopt(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.slow_seconds = inf if policy.slow_call_seconds is None else policy.slow_call_seconds

    def counts_after(self) -> float:
        """Seconds at the upstream from which on a timeout counts at present."""
        return counting.counts_after(self.policy, self.durations)

    def judge(self, permit: BreakerPermit, outcome: Outcome, now: float) -> Verdict:
        """The verdict on one attempt."""
        if permit.is_check:
            return judge_check(outcome)
        kind, policy = outcome.kind, self.policy
        if kind is Kind.CONNECT_REFUSED and self.is_warming_up(now):
            return Verdict.IGNORED
        if kind is not Kind.TIMED_OUT and kind is not Kind.LEFT and outcome.status != 504:
            return judge(outcome, policy)
        if permit.is_probe:
            return judge(outcome, policy, permit.seconds(now), PROBE_SECONDS)
        unless = counting.answers_by(policy, self.durations)
        return judge(outcome, policy, permit.seconds(now), self.counts_after(), unless)

    def count(
        self, permit: BreakerPermit, verdict: Verdict, outcome: Outcome, now: float, *, is_early: bool
    ) -> None:
        """Into the counters, and what was seen of the upstream's speed."""
        tally = self.tally
        seconds = permit.head_seconds if is_early else permit.seconds(now)
        # Once there was a head, a caller that leaves or a cut of ours says nothing of the time.
        is_cut = permit.has_head and verdict is Verdict.IGNORED
        if seconds >= self.slow_seconds and not permit.is_slow and not is_cut:
            self.count_slow(permit)
        tally.timed_out += outcome.kind is Kind.TIMED_OUT
        if verdict is _SUCCESS:
            tally.successful += 1
            if outcome.status < 400 and not permit.is_check:
                self.heard.add(seconds)  # what a check takes says nothing of the route's own answers
        elif verdict in _FAILURES:
            tally.failed += 1
            self._has_failed(permit, now)
        else:
            tally.ignored += 1
        if permit.is_waved_through:
            tally.would_have_been_fine += verdict is _SUCCESS
            tally.failures_saved += verdict in _FAILURES

    def count_slow(self, permit: BreakerPermit) -> None:
        """It has lasted `slow_call_duration`; said once of each attempt."""
        permit.is_slow = True
        self.tally.slow += 1

    def count_apart(self, seconds: float) -> None:
        """A success that moves nothing."""
        self.tally.successful += 1
        self.tally.slow += seconds >= self.slow_seconds
        self.heard.add(seconds)

    def is_late_failure(self, permit: BreakerPermit, outcome: Outcome, now: float) -> bool:
        """Whether an attempt that was judged good by its head has failed after all; counted if so."""
        if judge(outcome, self.policy, permit.seconds(now)) is not Verdict.FAILURE:
            return False
        self.tally.failed_late += 1
        self._has_failed(permit, now)
        return True

    def is_warming_up(self, now: float) -> bool:
        warm = self.warm
        return warm is not None and warm.is_on(self.policy.warm_up_seconds, now)

    def _has_failed(self, permit: BreakerPermit, now: float) -> None:
        self.tally.last_failure_at = now
        endpoint, avoid = permit.endpoint, self.avoid if permit.is_probe else ()
        self.avoid = (*[one for one in avoid if one != endpoint], endpoint)[-MOST_AVOIDED:]
