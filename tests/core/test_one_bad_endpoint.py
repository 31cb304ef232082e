"""Bad endpoints among good ones: a breaker that opens for them refuses what others would answer."""

from __future__ import annotations

from math import inf

import pytest

from sidecar.core.snapshot import Balancing, BalancingPolicy, EjectionPolicy
from tests.bench.one_bad_endpoint.__main__ import p99
from tests.bench.one_bad_endpoint.rows import ROWS, Row, fails, good
from tests.bench.one_bad_endpoint.world import Run

BY_NAME = {row.name: row for row in ROWS}
PARTLY = [row for row in ROWS if not row.is_upstreams]
WHOLLY = [row for row in ROWS if row.is_upstreams]


@pytest.mark.parametrize("row", PARTLY, ids=lambda row: row.name)
def test_a_breaker_stays_closed_while_an_endpoint_is_well(row: Row) -> None:
    for seed in (1, 2):
        seen = Run(row, seed).go(3.0)
        assert seen.opened_after == inf
        assert seen.refused == 0


@pytest.mark.parametrize("row", PARTLY, ids=lambda row: row.name)
def test_each_bad_endpoint_fails_its_first_request_alone_where_requests_may_be_sent_again(row: Row) -> None:
    seen = Run(row, 3).go(4.0)
    hang = 8 if row.name == "one of ten hangs" else 0
    assert seen.bad <= row.bad + hang


@pytest.mark.parametrize("row", PARTLY, ids=lambda row: row.name)
def test_nearly_all_is_answered_well_where_requests_are_sent_once(row: Row) -> None:
    assert Run(row, 3, is_repeatable=False).go(4.0).share >= 0.99


@pytest.mark.parametrize("row", WHOLLY, ids=lambda row: row.name)
def test_a_breaker_opens_at_once_where_none_is_well(row: Row) -> None:
    for seed in range(1, 21):
        assert Run(row, seed).go(0.2).opened_after < 0.1


def test_without_ejection_the_breaker_opens_though_an_endpoint_is_well() -> None:
    seen = Run(BY_NAME["two of three refuse"], 1, EjectionPolicy(is_on=False)).go(3.0)
    assert seen.opened_after < 3.0
    assert seen.share < 0.9


@pytest.mark.parametrize("policy", list(Balancing))
def test_what_fails_fast_attracts_no_load_by_any_policy(policy: Balancing) -> None:
    row = Row(
        "one of ten fails at once, and is not ejected",
        10,
        1,
        BY_NAME["one of ten answers 500 at once"].answer,
    )
    run = Run(row, 1, EjectionPolicy(max_ejected=0.0), BalancingPolicy(policy))
    seen = run.go(2.0)
    assert seen.to_bad / (seen.good + seen.bad) < 0.06


def test_peak_ewma_and_least_request_pass_a_slow_endpoint_by_where_round_robin_does_not() -> None:
    row = BY_NAME["one of ten is 20 times slower"]
    shares = {}
    for policy in Balancing:
        seen = Run(row, 1, None, BalancingPolicy(policy)).go(6.0)
        shares[policy] = seen.to_bad / seen.good, p99(seen.seconds)
    round_robin = shares[Balancing.ROUND_ROBIN]
    assert shares[Balancing.LEAST_REQUEST][0] < round_robin[0] / 3
    assert shares[Balancing.PEAK_EWMA][0] < round_robin[0] / 10
    assert shares[Balancing.PEAK_EWMA][1] < round_robin[1] / 4


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_a_spared_endpoint_that_is_well_again_is_found_soon(*, is_repeatable: bool) -> None:
    """Within 2 s of trials, or the time between two of them where these cost their clients an answer, and five good
    answers in a row; each waits for one request of fifty."""
    row = Row(
        "two of three answer 500 for 5 s", 3, 2, lambda rng, now: (good if now > 10.0 else fails)(rng, now)
    )
    run = Run(row, 1, EjectionPolicy(base_seconds=1000.0, max_seconds=1000.0), is_repeatable=is_repeatable)
    run.go(5.0)
    assert run.peers.usable == 1
    run.world.run(10.0 + (3.0 if is_repeatable else 9.0))
    assert run.peers.usable == 2


def test_same_seed_gives_the_same_run() -> None:
    assert Run(PARTLY[0], 5).go(3.0) == Run(PARTLY[0], 5).go(3.0)
