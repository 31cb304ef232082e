"""The youngest connection first; none that has ended, is due to end, or whose endpoint has left."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nextafter

import pytest

from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint
from sidecar.upstream.pool import Pool
from tests.support.by_hand import HERE, HandLease, HandLoop, hand_cluster


def new_pool() -> Pool:
    return hand_cluster(HandLoop()).pools[0]


def opened(
    pool: Pool, *, expires: float = inf, has_ended: bool = False, idle_since: float = 0.0
) -> HandLease:
    """An idle connection that is counted."""
    lease = HandLease(pool, expires=expires, has_ended=has_ended)
    lease.idle_since = idle_since
    pool.cluster.connections += 1  # type: ignore[attr-defined]
    pool.add(lease)
    pool.idle[lease] = None
    return lease


def test_the_youngest_is_taken_first() -> None:
    pool = new_pool()
    first, second = opened(pool), opened(pool)
    taken = [pool.take(0.0, is_sure) for is_sure in (False, True, False)]
    assert taken == [second, first, None]
    assert (pool.idle_count, pool.open_count) == (0, 2)


@pytest.mark.parametrize("is_sure", [False, True])
def test_only_who_must_be_sure_passes_over_a_connection_that_has_ended(*, is_sure: bool) -> None:
    pool = new_pool()
    good, ended = opened(pool), opened(pool, has_ended=True)
    assert pool.take(0.0, is_sure) is (good if is_sure else ended)
    assert ended.is_aborted is is_sure
    assert not good.is_aborted


@pytest.mark.parametrize(("now", "is_good"), [(9.999, True), (10.0, False), (10.001, False)])
@pytest.mark.parametrize("is_sure", [False, True])
def test_a_connection_is_not_taken_from_the_moment_on_that_its_upstream_may_close_it(
    now: float, *, is_good: bool, is_sure: bool
) -> None:
    pool = new_pool()
    lease = opened(pool, expires=10.0)
    assert pool.take(now, is_sure) is (lease if is_good else None)
    assert lease.is_aborted is not is_good


def test_all_that_have_ended_are_closed_on_the_way_to_one_that_has_not() -> None:
    pool = new_pool()
    good = opened(pool)
    ended = [opened(pool, has_ended=True), opened(pool, expires=0.0), opened(pool, has_ended=True)]
    assert pool.take(1.0, True) is good
    assert [lease.is_aborted for lease in ended] == [True] * 3


def test_a_connection_that_closes_is_forgotten_once() -> None:
    pool = new_pool()
    idle, busy = opened(pool), opened(pool)
    pool.take(0.0, False)
    for _ in range(2):
        pool.forget(idle)
        pool.forget(busy)
    assert (pool.idle, pool.open_count, pool.cluster.connections) == ({}, 0, 0)  # type: ignore[attr-defined]


class Compared(HandLease):
    """Notes how often it was compared with another one."""

    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return self is other

    __hash__ = HandLease.__hash__


def test_idle_connections_that_close_are_found_without_a_search() -> None:
    pool = new_pool()
    leases = [Compared(pool) for _ in range(100)]
    for lease in leases:
        pool.cluster.connections += 1  # type: ignore[attr-defined]
        pool.add(lease)
        pool.idle[lease] = None
    Compared.count = 0
    for lease in reversed(leases):
        pool.forget(lease)
    assert (pool.idle_count, pool.open_count, Compared.count) == (0, 0, 0)


def test_who_was_never_added_is_not_counted_off() -> None:
    pool = new_pool()
    opened(pool)
    pool.forget(HandLease(pool))
    assert (pool.open_count, pool.cluster.connections) == (1, 1)  # type: ignore[attr-defined]


def test_idle_connections_are_due_by_their_own_time_and_by_their_upstreams() -> None:
    pool = new_pool()
    assert pool.idle_due(60.0) == inf
    opened(pool, idle_since=5.0)
    assert pool.idle_due(60.0) == 65.0
    opened(pool, idle_since=6.0, expires=10.0)
    assert pool.idle_due(60.0) == 10.0


def test_what_has_been_idle_for_long_enough_is_closed_and_nothing_else() -> None:
    pool = new_pool()
    leases = [opened(pool, idle_since=since) for since in (1.0, 2.0, 2.001)]
    leases.append(opened(pool, idle_since=9.0, expires=10.0))
    leases.append(opened(pool, idle_since=9.0, expires=10.001))
    pool.close_idle(8.0, 10.0)
    assert [lease.is_aborted for lease in leases] == [True, True, False, True, False]


@pytest.mark.parametrize("since", [1_000.6, 0.1 + 0.2, 1e9 + 0.7, 3.3])
def test_what_is_due_is_closed_at_that_very_moment(since: float) -> None:
    """`now - seconds <= since` and `since + seconds <= now` may round differently: the timer came again and again."""
    pool = new_pool()
    lease = opened(pool, idle_since=since)
    for seconds in (60.0, 0.3, 1 / 3):
        due = pool.idle_due(seconds)
        pool.close_idle(seconds, due)
        assert (lease.is_aborted, pool.idle) == (True, {})
        lease.is_aborted = False
        pool.idle[lease] = None
    pool.close_idle(1 / 3, nextafter(pool.idle_due(1 / 3), 0.0))
    assert not lease.is_aborted


def test_retiring_closes_what_is_idle_and_leaves_what_is_busy() -> None:
    pool = new_pool()
    idle, busy = opened(pool), opened(pool)
    assert pool.take(0.0, False) is busy
    pool.retire()
    assert (pool.is_retired, idle.is_aborted, busy.is_aborted) == (True, True, False)


def test_an_operator_sees_what_a_pool_holds() -> None:
    pool = new_pool()
    opened(pool)
    pool.in_flight = 2
    assert repr(pool) == f"<Pool {HERE} idle=1 open=1 in_flight=2>"


def test_what_is_told_of_an_endpoint_is_made_anew_by_what_is_new_alone() -> None:
    pool = new_pool()
    told = pool.facts
    assert (told.endpoint, told.http_version, told.scheme, told.tls) == (HERE, "1.1", "http", None)

    pool.meet(Endpoint(HERE.host, HERE.port))
    assert pool.facts is told
    pool.meet(replace(HERE, name="app"))
    assert (pool.endpoint.name, pool.facts.endpoint) == ("app", pool.endpoint)

    tls = TlsFacts("1.3", "TLS_AES_128_GCM_SHA256", None, "app", None, is_resumed=False)
    pool.shaken(tls)
    told = pool.facts
    assert (told.endpoint, told.tls) == (pool.endpoint, tls)
    pool.shaken(replace(tls))
    assert pool.facts is told
    pool.shaken(replace(tls, is_resumed=True))
    assert pool.facts.tls == replace(tls, is_resumed=True)
