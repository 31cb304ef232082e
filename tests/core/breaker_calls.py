"""Calls as tests make them: a permit, its moments, and a verdict that the outcome stands for."""

from __future__ import annotations

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.door import Door
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.history import Culprit
from sidecar.core.outcome import Kind, Limit, Outcome, Verdict
from sidecar.core.transition import Transition

OUTCOMES = {
    Verdict.SUCCESS: Outcome(Kind.ANSWERED, 200),
    Verdict.FAILURE: Outcome(Kind.ANSWERED, 500),
    Verdict.RATE_ONLY_FAILURE: Outcome(Kind.ANSWERED, 429),
    Verdict.SILENCE: Outcome(Kind.TIMED_OUT, limit=Limit.STRANGER),
    Verdict.IGNORED: Outcome(Kind.ABANDONED),
}
"""For each verdict an end that is judged so under the default policy; silence needs its time, too."""

Admission = Door | BreakerPermit | BreakerRefusal


def sent(admission: Admission, now: float) -> BreakerPermit:
    """The permit of an attempt that is at the upstream since `now`."""
    assert not isinstance(admission, BreakerRefusal)
    permit = admission.own()
    permit.sent(None, now)
    return permit


def settle(
    admission: Admission, outcome: Verdict | Outcome, seconds: float, now: float, cause: Culprit | None = None
) -> Transition | None:
    """The attempt ends, after so many seconds of the upstream's time. One that was refused never went."""
    if isinstance(admission, BreakerRefusal):
        return None
    if outcome is Verdict.SUCCESS and isinstance(admission, Door) and cause is None:
        return admission.succeed(seconds, now)
    permit = admission.own()
    permit.spend(seconds)
    ended = OUTCOMES[outcome] if isinstance(outcome, Verdict) else outcome
    transition = permit.judge(ended, now, cause)
    permit.close(now)
    return transition


def call(
    subject: Breaker,
    outcome: Verdict | Outcome,
    now: float,
    seconds: float = 0.01,
    cause: Culprit | None = None,
) -> Transition | None:
    """One attempt, which must be admitted."""
    admission = subject.admit(now)
    assert admission.is_admitted, subject
    return settle(admission, outcome, seconds, now, cause)
