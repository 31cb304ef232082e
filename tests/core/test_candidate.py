"""A candidate policy: counted on the same traffic, and without any effect on it."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.breaker import Breaker, Override
from sidecar.core.candidate import EvenChance, candidate_policy
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, CandidatePolicy, WindowPolicy, WindowType
from sidecar.core.transition import State, WindowNumbers
from tests.core.breaker_calls import settle

EAGER = CandidatePolicy(consecutive_failures=2)
TRAFFIC = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0]), st.sampled_from(Verdict), st.sampled_from([0.01, 2.0])
    ),
    max_size=120,
)


def breaker(policy: BreakerPolicy) -> Breaker:
    return Breaker("r", "u", policy, random.Random(1), 0.0)


def call(subject: Breaker, verdict: Verdict, now: float) -> None:
    settle(subject.admit(now), verdict, 0.01, now)


def test_candidate_takes_what_it_leaves_unset_from_the_active_policy() -> None:
    active = BreakerPolicy(minimum_calls=7, ramp_seconds=3.0, candidate=CandidatePolicy(open_seconds=1.0))
    expected = replace(active, mode=BreakerMode.METRICS_ONLY, candidate=None, open_seconds=1.0)
    assert candidate_policy(active) == expected
    assert candidate_policy(BreakerPolicy()) is None


def test_zero_in_a_candidate_is_a_value() -> None:
    policy = candidate_policy(BreakerPolicy(candidate=CandidatePolicy(consecutive_failures=0)))
    assert policy is not None
    assert policy.consecutive_failures == 0


def test_candidate_tells_what_it_would_have_rejected_and_whether_it_was_right() -> None:
    subject = breaker(BreakerPolicy(candidate=EAGER))
    for verdict in [Verdict.FAILURE] * 2 + [
        Verdict.FAILURE,
        Verdict.SUCCESS,
        Verdict.SUCCESS,
        Verdict.IGNORED,
    ]:
        call(subject, verdict, 1.0)
    numbers = subject.numbers(1.0)
    assert numbers.state is State.CLOSED
    assert numbers.rejected == 0
    candidate = numbers.candidate
    assert candidate is not None
    assert (candidate.state, candidate.total, candidate.transitions) == (State.OPEN, 6, 1)
    assert (candidate.would_have_rejected, candidate.would_have_been_fine, candidate.failures_saved) == (
        4,
        2,
        1,
    )


def test_candidate_has_its_own_slow_call_duration() -> None:
    subject = breaker(BreakerPolicy(candidate=CandidatePolicy(slow_call_seconds=1.0)))
    settle(subject.admit(1.0), Verdict.SUCCESS, 1.0, 1.0)
    numbers = subject.numbers(1.0)
    assert (numbers.slow, numbers.window) == (0, WindowNumbers(total=1))
    assert numbers.candidate is not None
    assert numbers.candidate.window == WindowNumbers(total=1, slow=1)


@given(TRAFFIC, st.integers(0, 2**32))
def test_candidate_never_changes_what_the_active_policy_does(
    traffic: list[tuple[float, Verdict, float]], seed: int
) -> None:
    policy = BreakerPolicy(consecutive_failures=3, ramp_seconds=8.0, slow_call_seconds=1.0, minimum_calls=8)
    alone = Breaker("r", "u", policy, random.Random(seed), 0.0)
    watched = Breaker("r", "u", replace(policy, candidate=EAGER), random.Random(seed), 0.0)
    now = 0.0
    for step, verdict, seconds in traffic:
        now += step
        answers = [subject.admit(now) for subject in (alone, watched)]
        assert answers[0].is_admitted == answers[1].is_admitted
        if answers[0].is_admitted:
            settle(answers[0], verdict, seconds, now)
            settle(answers[1], verdict, seconds, now)
    assert replace(watched.numbers(now), candidate=None) == alone.numbers(now)
    assert watched.history == alone.history


@given(TRAFFIC)
def test_candidate_counts_what_the_same_policy_counts_in_metrics_only(
    traffic: list[tuple[float, Verdict, float]],
) -> None:
    lenient = BreakerPolicy(mode=BreakerMode.METRICS_ONLY, consecutive_failures=0, minimum_calls=10**6)
    subject = breaker(replace(lenient, candidate=EAGER))
    twin_policy = candidate_policy(subject.policy)
    assert twin_policy is not None
    twin = Breaker("r", "u", twin_policy, EvenChance(), 0.0)
    now = 0.0
    for step, verdict, seconds in traffic:
        now += step
        for each in (subject, twin):
            settle(each.admit(now), verdict, seconds, now)
    seen, expected = subject.numbers(now).candidate, twin.numbers(now)
    assert seen is not None
    assert (seen.total, seen.would_have_rejected) == (expected.total, expected.would_have_rejected)
    assert seen.would_have_been_fine == expected.would_have_been_fine
    assert seen.failures_saved == expected.failures_saved
    assert (seen.state, seen.window) == (expected.state, expected.window)


def test_candidate_sees_only_what_was_admitted() -> None:
    subject = breaker(
        BreakerPolicy(consecutive_failures=2, candidate=CandidatePolicy(consecutive_failures=4))
    )
    for _ in range(2):
        call(subject, Verdict.FAILURE, 1.0)
    assert not subject.admit(2.0).is_admitted
    candidate = subject.numbers(2.0).candidate
    assert candidate is not None
    assert (candidate.total, candidate.state) == (2, State.CLOSED)


def test_closed_breaker_with_candidate_still_answers_with_one_object() -> None:
    subject = breaker(BreakerPolicy(candidate=EAGER))
    assert subject.admit(0.0) is subject.admit(1.0)


def test_outcome_of_a_candidate_that_a_reload_removed_does_not_reach_its_successor() -> None:
    policy = BreakerPolicy(candidate=EAGER)
    subject = breaker(policy)
    straggler = subject.admit(0.0)
    subject.reconfigure(replace(policy, candidate=None), 1.0)
    subject.reconfigure(policy, 2.0)
    settle(straggler, Verdict.FAILURE, 0.1, 3.0)
    candidate = subject.numbers(3.0).candidate
    assert candidate is not None
    assert (candidate.total, candidate.window) == (0, WindowNumbers())
    assert subject.numbers(3.0).failed == 1


def test_new_thresholds_of_a_candidate_keep_its_window() -> None:
    subject = breaker(BreakerPolicy(candidate=EAGER))
    call(subject, Verdict.FAILURE, 1.0)
    subject.reconfigure(BreakerPolicy(candidate=CandidatePolicy(consecutive_failures=3)), 1.0)
    candidate = subject.numbers(1.0).candidate
    assert candidate is not None
    assert candidate.window == WindowNumbers(total=1, failed=1, consecutive_failures=1)
    subject.reconfigure(
        BreakerPolicy(candidate=CandidatePolicy(window=WindowPolicy(WindowType.COUNT, 10))), 1.0
    )
    candidate = subject.numbers(1.0).candidate
    assert candidate is not None
    assert candidate.window == WindowNumbers(consecutive_failures=1)


def test_candidate_rests_while_the_breaker_is_in_an_operators_hands() -> None:
    subject = breaker(BreakerPolicy(candidate=EAGER))
    subject.override(Override.CLOSE, 0.0)
    for _ in range(5):
        call(subject, Verdict.FAILURE, 1.0)
    candidate = subject.numbers(1.0).candidate
    assert candidate is not None
    assert candidate.total == 0


def test_even_chance_spreads_evenly() -> None:
    chance = EvenChance()
    draws = sorted(chance.random() for _ in range(1000))
    assert all(0.0 <= draw < 1.0 for draw in draws)
    assert all(abs(draw - rank / 1000) < 0.005 for rank, draw in enumerate(draws))
