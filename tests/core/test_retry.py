"""What is tried again, how long is waited, and that the budget is never exceeded."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.load import load_text
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.retry import (
    FALLEN_SECONDS,
    LEAST_TOKENS,
    RetryBudget,
    RetryCause,
    cause_of,
    causes_at,
    is_wanted,
    is_wanted_after,
    wait_seconds,
)
from sidecar.core.snapshot import RetryOn, RetryPolicy
from tests.support.proxy import HEADER

POLICY = RetryPolicy(attempts=3)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (Reason.CONNECTION_REFUSED, RetryCause.NOT_CONNECTED),
        (Reason.CONNECTION_TIMEOUT, RetryCause.NOT_CONNECTED),
        (Reason.DNS_ERROR, RetryCause.NOT_CONNECTED),
        (Reason.CONNECTION_RESET, RetryCause.RESET),
        (Reason.INCOMPLETE_RESPONSE, RetryCause.RESET),
        (Reason.TIMEOUT, RetryCause.ATTEMPT_TIMEOUT),
        (Reason.OVERLOADED, RetryCause.OTHER),
        (Reason.CLIENT_GONE, RetryCause.OTHER),
        (Reason.DEADLINE_EXCEEDED, RetryCause.OTHER),
    ],
)
def test_causes(reason: Reason, cause: RetryCause) -> None:
    assert cause_of(reason, is_unprocessed=False) is cause
    assert cause_of(reason, is_unprocessed=True) is RetryCause.REFUSED


@pytest.mark.parametrize(
    ("retry", "more"),
    [
        ("", set()),
        ("retry: {attempts: 1}", set()),
        ("retry: {attempts: 0, on: [reset, 5xx]}", set()),
        ("retry: {attempts: 1, on: [reset, 429]}", {"reset", "status"}),
        (
            "retry: {attempts: 1, on: [attempt_timeout, gateway_error]}",
            {"attempt_timeout", "status", "grpc_status"},
        ),
    ],
)
def test_what_may_come_again_is_known_from_the_route(retry: str, more: set[str]) -> None:
    upstreams = "{a: {endpoints: ['x:1'], failover: [b]}, b: {endpoints: ['x:2']}, c: {endpoints: ['x:3']}}"
    route = f"{{name: r, upstream: a, fallback: {{upstream: c}}, {retry}}}"
    snapshot = load_text(f"{HEADER}upstreams: {upstreams}\nroutes: [{route}]\n").snapshot
    (one,) = snapshot.routes
    always = {"connect_failure", "refused", "stale_connection", "suspect"} | more
    causes = {name: {cause.value for cause in causes_at(one, name, snapshot.upstreams)} for name in "abc"}
    assert causes == {"a": always, "b": always | {"fallback", "failover"}, "c": always | {"fallback"}}


def test_by_default_only_what_has_reached_nobody_is_wanted() -> None:
    wanted = {cause for cause in RetryCause if is_wanted(POLICY, cause)}
    assert wanted == {RetryCause.NOT_CONNECTED, RetryCause.REFUSED}
    assert all(cause.has_reached_nobody for cause in wanted)
    assert not any(is_wanted_after(POLICY, status, None) for status in range(100, 600))


@pytest.mark.parametrize(
    ("on", "statuses"),
    [
        (RetryOn.STATUS_5XX, set(range(500, 600))),
        (RetryOn.GATEWAY_ERROR, {502, 503, 504}),
        (429, {429}),
    ],
)
def test_statuses(on: RetryOn | int, statuses: set[int]) -> None:
    policy = replace(POLICY, on=frozenset({on}))
    assert {status for status in range(100, 600) if is_wanted_after(policy, status, None)} == statuses


def test_of_grpc_unavailable_is_a_gateway_error() -> None:
    policy = replace(POLICY, on=frozenset({RetryOn.GATEWAY_ERROR}))
    wanted = {status for status in GrpcStatus if is_wanted_after(policy, 200, int(status))}
    assert wanted == {GrpcStatus.UNAVAILABLE}


def test_waits_double_up_to_a_bound_with_full_jitter_and_after_what_was_asked_for() -> None:
    class Most:
        def random(self) -> float:
            return 1.0

    class Least:
        def random(self) -> float:
            return 0.0

    assert [wait_seconds(POLICY, n, 0.0, Most()) for n in range(6)] == [0.025, 0.05, 0.1, 0.2, 0.25, 0.25]
    assert wait_seconds(POLICY, 5, 0.0, Least()) == 0.0
    assert wait_seconds(POLICY, 0, 2.0, Least()) == 2.0
    assert wait_seconds(POLICY, 10_000, 0.0, Most()) == 0.25


def test_each_request_allows_a_fifth_of_a_retry() -> None:
    budget = RetryBudget(0.2, 0.0, 0.0)
    for number in range(100):
        budget.put(number * 0.01)
    assert sum(budget.take(0.99, number) for number in range(100)) == 20


def test_no_more_than_one_second_of_it_is_kept() -> None:
    budget = RetryBudget(0.2, 0.0, 0.0)
    for number in range(1000):
        budget.put(number * 0.01)
    taken = sum(budget.take(9.99, number) for number in range(1000))
    assert taken <= 0.2 * 101 + 1


def test_a_quiet_route_has_three() -> None:
    budget = RetryBudget(0.2, 3.0, 0.0)
    assert [budget.take(100.0, 1) for _ in range(4)] == [True, True, True, False]


def test_an_upstream_that_has_fallen_gets_what_comes_by_itself_alone() -> None:
    budget = RetryBudget(0.2, 3.0, 0.0)
    taken = 0
    for number in range(5000):
        now = number * 0.01
        budget.put(now)
        taken += budget.take(now, 0) and now > FALLEN_SECONDS
    assert taken == pytest.approx(3 * 49, abs=4)


def test_to_ask_whether_one_could_be_sent_takes_nothing_off_and_earns_nothing() -> None:
    asked, other = RetryBudget(0.2, 3.0, 0.0), RetryBudget(0.2, 3.0, 0.0)
    answers: list[tuple[bool, bool]] = []
    for number in range(3000):
        now = number * 0.01
        for budget in (asked, other):
            budget.put(now)
        could_be = [asked.may_take(now, min(number, 1000)) for _ in range(3)]
        answers.append((asked.take(now, min(number, 1000)), other.take(now, min(number, 1000))))
        assert could_be[0] or not answers[-1][0], "what is taken could be taken"
        assert len(set(could_be)) == 1
    assert [one for one, _ in answers] == [one for _, one in answers]


def test_an_upstream_that_falls_does_not_get_all_that_was_kept() -> None:
    """500 requests a second, until all fail: within 40 ms it is known."""
    budget = RetryBudget(0.2, 3.0, 0.0)
    for number in range(500):
        budget.put(number * 0.002)
    taken = 0
    for number in range(500):
        now = 1.0 + number * 0.002
        budget.put(now)
        taken += budget.take(now, 400)
    assert 20 <= taken <= 35


def test_many_that_end_at_one_moment_are_not_taken_for_a_fall() -> None:
    budget = RetryBudget(0.2, 0.0, 0.0)
    for number in range(500):
        budget.put(number * 0.002)
    assert sum(budget.take(1.0, 400) for _ in range(80)) == 80


def test_a_budget_that_is_told_a_total_keeps_what_a_second_of_it_brings_on_average() -> None:
    budget = RetryBudget(0.2, 0.0, 0.0)
    budget.count(5_000, 5.0)
    assert sum(budget.take(5.0, number) for number in range(1_000)) == 200
    budget.count(5_050, 5.05)
    assert sum(budget.take(5.05, number) for number in range(1_000)) == 10
    budget.count(5_050, 60.0)
    assert not budget.take(60.0, 0), "nothing came since"


def test_requests_from_before_a_budget_put_nothing_in() -> None:
    budget = RetryBudget(0.2, 0.0, 0.0, 10_000)
    budget.count(10_000, 0.5)
    assert not budget.take(0.5, 0)
    budget.count(10_010, 0.6)
    assert sum(budget.take(0.6, number) for number in range(10)) == 2


def test_one_success_ends_a_fall() -> None:
    budget = RetryBudget(0.2, 0.0, 0.0)
    for number in range(500):
        budget.put(number * 0.002)
    for number in range(30):
        budget.take(1.0 + number * 0.01, 400)
    assert not budget.take(1.3, 400)
    assert budget.take(1.31, 401)


@given(
    ratio=st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    least=st.sampled_from([0.0, 1.0, 3.0, 10.0]),
    steps=st.lists(
        st.tuples(st.sampled_from([0.0, 0.001, 0.05, 0.5, 3.0]), st.integers(0, 20), st.integers(0, 30)),
        max_size=40,
    ),
)
def test_the_budget_is_exceeded_in_no_window(
    ratio: float, least: float, steps: list[tuple[float, int, int]]
) -> None:
    budget = RetryBudget(ratio, least, 0.0)
    now = 0.0
    puts: list[float] = []
    takes: list[float] = []
    for successes, (gap, requests, wishes) in enumerate(steps):
        now += gap
        for _ in range(requests):
            budget.put(now)
            puts.append(now)
        takes += [now for _ in range(wishes) if budget.take(now, successes)]
    for begin in sorted(set(takes)):
        for end in sorted({at for at in takes if at >= begin}):
            taken = sum(begin <= at <= end for at in takes)
            # What one second had brought, and three, may have been kept when the window began.
            lately = sum(begin - 2.0 <= at < begin for at in puts)
            kept = max(ratio * lately, LEAST_TOKENS) + (max(least, LEAST_TOKENS) if least else 0.0)
            earned = ratio * sum(begin <= at <= end for at in puts) + least * (end - begin)
            assert taken <= kept + earned + 1e-6


def test_the_same_budget_whatever_the_generator() -> None:
    assert 0.0 <= wait_seconds(POLICY, 1, 0.0, random.Random(1)) <= 0.05
