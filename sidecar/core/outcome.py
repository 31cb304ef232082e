"""What an attempt came to, as the breaker sees it, and whether that counts (Finagle's three outcomes).

Pure: called by `forwarding/` once for each attempt, knows no HTTP beyond a status number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from sidecar.core.snapshot import BreakerPolicy, Failure

CLOCK_NOISE_SECONDS: Final = 1e-6
"""A deadline less the time it was made from is not quite the timeout it was made of: floats round."""


class Kind(Enum):
    """How an attempt ended, before any policy looks at it."""

    ANSWERED = "answered"
    """A whole response arrived; its status decides."""
    CONNECT_FAILED = "connect_failed"
    """Refused, name not found, or the connect timeout."""
    RESET = "reset"
    """Connection lost, body cut short, or a malformed response."""
    TIMED_OUT = "timed_out"
    """The deadline or the attempt's timeout passed."""
    ABANDONED = "abandoned"
    """The caller went away, or the sidecar gave up for a reason of its own: nothing was learned."""


class Verdict(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    RATE_ONLY_FAILURE = "rate_only_failure"
    """Counts in the failure rate, not among consecutive failures (429)."""
    IGNORED = "ignored"
    """Says nothing about the upstream; a probe gets its permit back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt's end, with what the judge needs to know."""

    kind: Kind
    status: int = 0
    """0 unless `kind` is ANSWERED."""
    allowed_seconds: float = 0.0
    """How long the attempt was allowed to take."""
    has_failure_header: bool = False


def judge(outcome: Outcome, policy: BreakerPolicy) -> Verdict:
    """Say whether `outcome` counts for or against the upstream under `policy` (SPEC 3).

    A timeout of an attempt that had less than `count_timeout_after_seconds` is ignored, so a caller that asks
    for one millisecond cannot trip a breaker; nor by the 504 of the next sidecar, which gives up first.
    """
    kind = outcome.kind
    had_time = outcome.allowed_seconds >= policy.count_timeout_after_seconds - CLOCK_NOISE_SECONDS
    if kind is Kind.ANSWERED:
        if outcome.status == 504 and outcome.allowed_seconds > 0 and not had_time:
            return Verdict.IGNORED  # a hop below keeps the same short deadline, and says so a little earlier
        return judge_status(outcome.status, outcome.has_failure_header, policy)
    if kind is Kind.ABANDONED:
        return Verdict.IGNORED
    if kind is Kind.TIMED_OUT:
        return Verdict.FAILURE if had_time and Failure.TIMEOUT in policy.failure_on else Verdict.IGNORED
    failure = Failure.CONNECT if kind is Kind.CONNECT_FAILED else Failure.RESET
    return Verdict.FAILURE if failure in policy.failure_on else Verdict.IGNORED


def judge_status(status: int, has_failure_header: bool, policy: BreakerPolicy) -> Verdict:
    """Judge a complete response. 429 counts in the rate only, unless `failure_on` names it."""
    if has_failure_header or status in policy.failure_on:
        return Verdict.FAILURE
    if status >= 500:
        return Verdict.FAILURE if Failure.STATUS_5XX in policy.failure_on else Verdict.SUCCESS
    return Verdict.RATE_ONLY_FAILURE if status == 429 else Verdict.SUCCESS
