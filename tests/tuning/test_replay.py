"""A replay is the breaker of the data path: what it saw and did once, it does again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.errors import Reason
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import BreakerPolicy, EjectionPolicy
from sidecar.tuning.replay import Assume, Figures, Line, Replay
from sidecar.tuning.seen import Call, numbered
from tests.tuning.traffic import Fails, down, seen, third

POLICY = BreakerPolicy()


def played(calls: list[Call], policy: BreakerPolicy = POLICY, assume: Assume = Assume.ALL_FAILED) -> Figures:
    good = frozenset(one.request for one in calls if one.is_good)
    line = Line("r", "up", calls, [0] * len(calls), good, 0.02, {0: 0.02}, EjectionPolicy())
    return Replay(line, policy, assume, 1).run()[0]


@pytest.mark.parametrize("fails", [third, down])
@given(
    st.integers(1, 10_000),
    st.builds(
        BreakerPolicy,
        consecutive_failures=st.sampled_from([0, 3, 5]),
        failure_rate_threshold=st.sampled_from([0.2, 0.3, 0.5]),
        open_seconds=st.sampled_from([1.0, 5.0]),
    ),
)
@settings(max_examples=12)
def test_the_policy_that_decided_decides_the_same_again(
    fails: Fails, seed: int, policy: BreakerPolicy
) -> None:
    """Whatever is assumed of what was refused, since the same is refused again."""
    calls = seen(fails, outages=2, policy=policy, seed=seed)
    refused = sum(one.is_refused for one in calls)
    failed = sum(one.is_failure for one in calls)
    low, high = (played(calls, policy, assume) for assume in (Assume.ALL_FAILED, Assume.ALL_GOOD))
    assert (low.refused, low.failed, low.sent) == (refused, failed, len(calls) - refused)
    assert (high.refused, high.failed, high.sent) == (refused, failed, len(calls) - refused)
    assert (low.good_refused, high.good_refused) == (0, refused)


def test_what_was_refused_is_taken_as_failed_or_as_good() -> None:
    """A policy that never opens lets through what nobody knows: both ends are told."""
    calls = seen(down, outages=2, policy=POLICY)
    refused = sum(one.is_refused for one in calls)
    failed = sum(one.is_failure for one in calls)
    never = replace(POLICY, consecutive_failures=0, failure_rate_threshold=1.0, minimum_calls=10**6)
    low, high = (played(calls, never, assume) for assume in (Assume.ALL_FAILED, Assume.ALL_GOOD))
    assert refused > 100
    assert (low.failed, high.failed) == (failed + refused, failed)
    assert (low.refused, high.refused) == (0, 0)


def test_a_request_that_is_refused_makes_no_further_attempt() -> None:
    failing = [
        Call(float(at), "up", "a", attempt, 0.01, 0.01, 500, Verdict.FAILURE)
        for at in range(20)
        for attempt in (0, 1)
    ]
    calls = numbered(replace(one, at=one.at + one.attempt * 0.1) for one in failing)
    found = played(calls, replace(POLICY, consecutive_failures=3, open_seconds=60.0))
    assert (found.requests, found.sent, found.refused) == (20, 3, 19)


def test_running_calls_are_slow_before_they_end() -> None:
    """The fourth of five calls that hang is refused, long before the first one ends."""
    hanging = [
        Call(at, "up", "a", 0, None, 30.0, 0, Verdict.FAILURE, reason=Reason.TIMEOUT)
        for at in (0.0, 0.1, 0.2, 2.0, 2.1)
    ]
    policy = replace(POLICY, slow_call_seconds=1.0, minimum_calls=3)
    found = played(numbered(hanging), policy)
    assert (found.sent, found.refused) == (3, 2)
    assert played(numbered(hanging), POLICY).sent == 5


def test_a_late_failure_counts_once_its_answer_broke() -> None:
    broken = [
        Call(at, "up", "a", 0, 0.1, 3.0, 200, Verdict.SUCCESS, reason=Reason.CONNECTION_RESET)
        for at in (0.0, 1.0, 2.0, 9.0)
    ]
    found = played(numbered(broken), replace(POLICY, consecutive_failures=3))
    assert (found.failed, found.refused) == (3, 1)


def test_one_bad_endpoint_of_four_does_not_open_a_replay_either() -> None:
    """Ejection is judged first, as on the data path; without it the rate would open."""
    calls = numbered(
        Call(
            number * 0.05, "up", f"10.0.0.{number % 4}:80", 0, 0.01, 0.01,
            500 if number % 4 == 0 else 200,
            Verdict.FAILURE if number % 4 == 0 else Verdict.SUCCESS,
        )
        for number in range(400)
    )  # fmt: skip
    policy = replace(POLICY, failure_rate_threshold=0.2, consecutive_failures=0)
    assert played(calls, policy).refused == 0
    alone = [replace(one, endpoint="10.0.0.1:80") for one in calls]
    assert played(alone, policy).refused > 0
