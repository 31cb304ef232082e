"""What an attempt's end says about its upstream."""

import pytest

from sidecar.core.outcome import Kind, Outcome, Verdict, judge
from sidecar.core.snapshot import BreakerPolicy, Failure

POLICY = BreakerPolicy(count_timeout_after_seconds=1.0)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome(Kind.ANSWERED, 200, 5.0), Verdict.SUCCESS),
        (Outcome(Kind.ANSWERED, 404, 5.0), Verdict.SUCCESS),
        (Outcome(Kind.ANSWERED, 429, 5.0), Verdict.RATE_ONLY_FAILURE),
        (Outcome(Kind.ANSWERED, 503, 0.2), Verdict.FAILURE),
        (Outcome(Kind.ANSWERED, 504, 1.0), Verdict.FAILURE),
        (Outcome(Kind.ANSWERED, 504, 0.9), Verdict.IGNORED),
        (Outcome(Kind.ANSWERED, 200, 5.0, has_failure_header=True), Verdict.FAILURE),
        (Outcome(Kind.TIMED_OUT, 0, 0.949), Verdict.IGNORED),
        (Outcome(Kind.TIMED_OUT, 0, 0.95), Verdict.FAILURE),
        (Outcome(Kind.TIMED_OUT, 0, 1.0), Verdict.FAILURE),
        (Outcome(Kind.CONNECT_FAILED), Verdict.FAILURE),
        (Outcome(Kind.RESET), Verdict.FAILURE),
        (Outcome(Kind.ABANDONED), Verdict.IGNORED),
    ],
)
def test_each_end_counts_as_the_contract_says(outcome: Outcome, verdict: Verdict) -> None:
    assert judge(outcome, POLICY) is verdict


def test_only_what_failure_on_names_is_a_failure() -> None:
    policy = BreakerPolicy(failure_on=frozenset({Failure.CONNECT, 404, 429}))
    statuses = {status: judge(Outcome(Kind.ANSWERED, status, 5.0), policy) for status in (404, 429, 500)}
    assert statuses == {404: Verdict.FAILURE, 429: Verdict.FAILURE, 500: Verdict.SUCCESS}
    assert judge(Outcome(Kind.RESET), policy) is Verdict.IGNORED
