"""Who may open a connection, who waits, and who is next; limits are over all endpoints of an upstream."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from sidecar.core.errors import Reason
from sidecar.core.snapshot import (
    Balancing,
    BalancingPolicy,
    EjectionPolicy,
    Endpoint,
    Upstream,
    UpstreamLimits,
)
from sidecar.transport.turns import Turns
from sidecar.upstream.budget import ConnectionBudget
from sidecar.upstream.cluster import Cluster, NoPlace, Wait
from sidecar.upstream.connecting import Connecting
from sidecar.upstream.lease import Lease
from sidecar.upstream.pool import Pool
from tests.support.by_hand import (
    HERE,
    THERE,
    HandConnecting,
    HandLease,
    HandLoop,
    Note,
    Waiting,
    hand_cluster,
)

NAME = Endpoint("payments", 80)


def waits(cluster: Cluster, count: int, told: list[Note], first: int = 0) -> list[Wait]:
    """So many seekers for the first endpoint, in order, who tell what becomes of them."""
    made = [
        cluster.wait_for(cluster.pools[0], Waiting(str(number), told))
        for number in range(first, first + count)
    ]
    assert not any(isinstance(wait, NoPlace) for wait in made)
    return made  # type: ignore[return-value]


def names(told: list[Note]) -> list[tuple[str, str]]:
    return [(name, what) for name, what, _ in told]


# Limits


def test_requests_are_admitted_up_to_their_limit() -> None:
    cluster = hand_cluster(HandLoop(), max_requests=2)
    assert [cluster.admit() for _ in range(3)] == [True, True, False]
    assert (cluster.in_flight, cluster.overflows) == (2, 1)


def test_connections_open_up_to_their_limit_then_a_line_forms_then_it_is_full(
    connectings: list[HandConnecting],
) -> None:
    cluster = hand_cluster(HandLoop(), max_connections=2, max_pending=1)
    made = [cluster.wait_for(cluster.pools[0], Waiting()) for _ in range(4)]
    assert [isinstance(wait, Wait) for wait in made] == [True, True, True, False]
    assert made[-1] is NoPlace.LINE_FULL
    assert (len(connectings), cluster.connections, cluster.pending, cluster.overflows) == (2, 2, 1, 1)


@pytest.mark.plain
def test_who_leaves_the_line_is_found_without_a_search(
    connectings: list[HandConnecting], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Wait] = []

    class Compared(Wait):
        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return self is other

        __hash__ = Wait.__hash__

    monkeypatch.setattr("sidecar.upstream.cluster.Wait", Compared)
    cluster = hand_cluster(HandLoop(), max_connections=1, max_pending=100)
    _, *line = waits(cluster, 101, [])
    for wait in reversed(line):
        wait.cancel()
        wait.cancel()
    assert (cluster.pending, compared) == (0, [])


def test_a_wait_that_is_left_over_from_a_connection_is_the_first_in_line(
    connectings: list[HandConnecting],
) -> None:
    told: list[Note] = []
    cluster = hand_cluster(HandLoop(), max_connections=1, max_pending=10)
    _, second, third = waits(cluster, 3, told)
    first = Wait(cluster, cluster.pools[0], Waiting("first", told))
    connecting = cast(Connecting, SimpleNamespace(waits=[first]))
    cluster._stand_in_line(connecting, [first.seeker])
    assert list(cluster._line) == [first, second, third]


def test_the_limit_of_connections_is_over_all_endpoints(connectings: list[HandConnecting]) -> None:
    cluster = hand_cluster(HandLoop(), HERE, THERE, max_connections=1)
    for pool in cluster.pools:
        cluster.wait_for(pool, Waiting())
    assert (len(connectings), cluster.pending) == (1, 1)


def test_an_idle_connection_of_another_endpoint_makes_room(connectings: list[HandConnecting]) -> None:
    cluster = hand_cluster(HandLoop(), HERE, THERE, max_connections=1)
    here, there = cluster.pools
    idle = idle_connection(cluster, here)
    cluster.wait_for(there, Waiting())
    assert idle.is_aborted
    assert [one.pool for one in connectings] == [there]
    assert (cluster.connections, cluster.pending) == (1, 0)


class Closing(HandLease):
    """A connection that is gone as soon as it is aborted, as real ones are."""

    def abort(self) -> None:
        super().abort()
        if self in self.pool.idle:
            del self.pool.idle[self]
        self.pool.forget(self)


def idle_connection(cluster: Cluster, pool: Pool, budget: ConnectionBudget | None = None) -> Closing:
    """One that was opened before."""
    lease = Closing(pool)
    cluster.connections += 1
    if budget is not None:
        assert budget.take()
    pool.add(lease)
    pool.idle[lease] = None
    return lease


# The connections that the process may have, over all upstreams


def test_beyond_the_process_own_limit_nobody_is_connected_and_nobody_waits(
    connectings: list[HandConnecting],
) -> None:
    budget = ConnectionBudget(1)
    one, other = (hand_cluster(HandLoop(), budget=budget) for _ in range(2))
    assert isinstance(one.wait_for(one.pools[0], Waiting()), Wait)
    assert other.wait_for(other.pools[0], Waiting()) is NoPlace.NO_FILES
    assert (len(connectings), other.connections, other.pending, other.overflows) == (1, 0, 0, 1)
    connectings[0].fail()
    assert isinstance(other.wait_for(other.pools[0], Waiting()), Wait)
    assert budget.taken == 1


def test_an_idle_connection_of_another_upstream_makes_room_at_the_process_own_limit(
    connectings: list[HandConnecting],
) -> None:
    budget = ConnectionBudget(2)
    one, other = (hand_cluster(HandLoop(), budget=budget) for _ in range(2))
    idle = [idle_connection(one, one.pools[0], budget) for _ in range(2)]
    assert isinstance(other.wait_for(other.pools[0], Waiting()), Wait)
    assert [lease.is_aborted for lease in idle] == [False, True]
    assert (budget.taken, one.connections, other.connections) == (2, 1, 1)


def test_an_upstream_that_has_left_is_not_asked_for_room() -> None:
    budget = ConnectionBudget(0)
    cluster = hand_cluster(HandLoop(), budget=budget)
    lease = HandLease(cluster.pools[0])
    cluster.pools[0].idle[lease] = None
    budget.leave(cluster)
    budget.leave(cluster)
    assert not budget.take()
    assert not lease.is_aborted


def test_every_end_of_a_connection_gives_its_place_back_once(connectings: list[HandConnecting]) -> None:
    budget = ConnectionBudget(5)
    cluster = hand_cluster(HandLoop(), budget=budget)
    _, called_off = (cluster.wait_for(cluster.pools[0], Waiting()) for _ in range(2))
    idle = idle_connection(cluster, cluster.pools[0], budget)
    assert budget.taken == 3
    connectings[0].fail()
    assert isinstance(called_off, Wait)
    called_off.cancel()
    idle.abort()
    idle.abort()
    assert (budget.taken, cluster.connections) == (0, 0)


# The line


def test_the_first_in_line_gets_the_first_connection_that_comes_free(
    connectings: list[HandConnecting],
) -> None:
    cluster = hand_cluster(HandLoop(), max_connections=1)
    told: list[Note] = []
    waits(cluster, 4, told)
    lease = connectings[0].open()
    for _ in range(3):
        assert cluster.hand_to_waiter(lease)
    assert not cluster.hand_to_waiter(lease)
    assert names(told) == [(str(number), "leased") for number in range(4)]


def test_who_leaves_the_line_is_passed_over(connectings: list[HandConnecting]) -> None:
    cluster = hand_cluster(HandLoop(), max_connections=1)
    told: list[Note] = []
    line = waits(cluster, 4, told)
    line[1].cancel()
    line[1].cancel()
    lease = connectings[0].open()
    assert [cluster.hand_to_waiter(lease) for _ in range(3)] == [True, True, False]
    assert names(told) == [("0", "leased"), ("2", "leased"), ("3", "leased")]


def test_a_place_that_comes_free_opens_a_connection_for_the_first_in_line(
    connectings: list[HandConnecting],
) -> None:
    cluster = hand_cluster(HandLoop(), max_connections=1)
    told: list[Note] = []
    line = waits(cluster, 3, told)
    connectings[0].fail()
    assert names(told) == [("0", "not leased")]
    assert (len(connectings), cluster.connections, cluster.pending) == (2, 1, 1)
    assert connectings[1].seekers == [line[1].seeker]


def test_who_is_told_that_a_connection_failed_may_ask_again_at_once(
    connectings: list[HandConnecting],
) -> None:
    """The failed one's place went to the next in line before."""
    cluster = hand_cluster(HandLoop(), max_connections=1)
    order: list[str] = []

    class Again(Waiting):
        def not_leased(self, reason: Reason, detail: str) -> None:
            order.append("told")
            cluster.wait_for(cluster.pools[0], Waiting("again"))

    cluster.wait_for(cluster.pools[0], Again())
    second = Waiting("second")
    cluster.wait_for(cluster.pools[0], second)
    connectings[0].fail()
    assert order == ["told"]
    assert connectings[1].seekers == [second]
    assert [wait.seeker.name for wait in cluster._line] == ["again"]  # type: ignore[attr-defined]


def test_calling_off_the_only_connection_gives_its_place_to_the_next(
    connectings: list[HandConnecting],
) -> None:
    cluster = hand_cluster(HandLoop(), max_connections=1)
    told: list[Note] = []
    line = waits(cluster, 2, told)
    line[0].cancel()
    assert connectings[0].is_called_off
    assert connectings[1].seekers == [line[1].seeker]
    line[1].cancel()
    assert (told, cluster.connections, cluster.is_idle) == ([], 0, True)


def test_those_without_time_pass_a_connection_on_one_after_the_other() -> None:
    """Each gives it back within the call. Not as many calls deep, however many there are."""
    cluster = hand_cluster(HandLoop(), max_connections=1)
    cluster.connections = 1
    count = 5_000
    depth = [0, 0]

    class WithoutTime(Waiting):
        def leased(self, lease: Lease) -> None:
            depth[0] += 1
            depth[1] = max(depth)
            assert not cluster.hand_to_waiter(lease)
            cluster.pools[0].idle[lease] = None
            depth[0] -= 1

    cluster.adopt(replace(cluster.policy, limits=UpstreamLimits(1, count)))
    for _ in range(count):
        cluster.wait_for(cluster.pools[0], WithoutTime())
    assert cluster.hand_to_waiter(HandLease(cluster.pools[0]))
    assert (depth, cluster.pending, cluster.pools[0].idle_count) == ([0, 1], 0, 1)


def test_an_error_of_one_who_waits_does_not_stop_the_line_for_ever() -> None:
    cluster = hand_cluster(HandLoop(), max_connections=1)
    cluster.connections = 1

    class Broken(Waiting):
        def leased(self, lease: Lease) -> None:
            raise LookupError

    cluster.wait_for(cluster.pools[0], Broken())
    told: list[Note] = []
    waits(cluster, 1, told)
    lease = HandLease(cluster.pools[0])
    with pytest.raises(LookupError):
        cluster.hand_to_waiter(lease)
    assert cluster.hand_to_waiter(lease)
    assert names(told) == [("0", "leased")]


def test_higher_limits_serve_those_who_wait(connectings: list[HandConnecting]) -> None:
    cluster = hand_cluster(HandLoop(), max_connections=1)
    waits(cluster, 4, [])
    cluster.adopt(replace(cluster.policy, limits=UpstreamLimits(3, 10)))
    assert (len(connectings), cluster.connections, cluster.pending) == (3, 3, 1)


# Endpoints that come and go


def test_without_an_address_there_is_nothing_to_pick() -> None:
    cluster = hand_cluster(HandLoop(), NAME)
    assert (cluster.names(), cluster.pools, cluster.pick()) == ([NAME], [], None)
    cluster.set_addresses(NAME, [HERE])
    assert cluster.pick() is cluster.single is cluster.pools[0]


def test_addresses_that_stay_keep_their_pool_and_others_are_retired() -> None:
    cluster = hand_cluster(HandLoop(), NAME)
    cluster.set_addresses(NAME, [HERE, THERE])
    here, there = cluster.pools
    assert cluster.single is None
    cluster.set_addresses(NAME, [THERE])
    assert cluster.pools == [there]
    assert (here.is_retired, there.is_retired) == (True, False)


def test_an_answer_for_a_name_that_is_not_asked_for_changes_nothing() -> None:
    cluster = hand_cluster(HandLoop(), HERE)
    pools = list(cluster.pools)
    cluster.set_addresses(NAME, [THERE])
    assert cluster.pools == pools


def test_an_endpoint_that_was_tried_is_avoided_while_there_is_another() -> None:
    cluster = hand_cluster(HandLoop(), HERE, THERE)
    here, there = cluster.pools
    assert {cluster.pick((here,)) for _ in range(20)} == {there}
    single = hand_cluster(HandLoop(), HERE)
    assert single.pick((single.pools[0],)) is single.pools[0]


def in_turn(*endpoints: Endpoint) -> Cluster:
    policy = Upstream("app", endpoints, balancing=BalancingPolicy(Balancing.ROUND_ROBIN))
    loop = HandLoop()
    return Cluster(policy, random.Random(7), loop.time, Turns(loop))  # type: ignore[arg-type]


def test_turns_go_on_where_nothing_is_new_of_endpoints() -> None:
    cluster = in_turn(*(Endpoint(f"10.0.0.{number}", 80) for number in range(10)))
    picked = []
    for _ in range(10):
        picked.append(cluster.pick())
        cluster.settle(0.0)
    assert {*picked} == {*cluster.pools}


def test_turns_go_on_after_a_reload_that_leaves_endpoints_and_policy_as_they_were() -> None:
    cluster = in_turn(*(Endpoint(f"10.0.0.{number}", 80) for number in range(10)))
    picked = []
    for seconds in range(10):
        picked.append(cluster.pick())
        cluster.adopt(replace(cluster.policy, connect_seconds=1.0 + seconds))
    assert {*picked} == {*cluster.pools}


def test_a_reload_takes_what_it_says_of_endpoints_that_stay() -> None:
    cluster = in_turn(HERE, THERE)
    here, there = cluster.pools
    cluster.adopt(replace(cluster.policy, endpoints=(replace(HERE, weight=3), THERE)))
    assert cluster.pools == [here, there]
    assert [cluster.pick() for _ in range(400)].count(here) == 300


def test_a_reload_takes_another_way_to_choose() -> None:
    cluster = in_turn(HERE, THERE)
    here, there = cluster.pools
    here.in_flight = 1
    cluster.adopt(replace(cluster.policy, balancing=BalancingPolicy(Balancing.LEAST_REQUEST)))
    assert {cluster.pick() for _ in range(20)} == {there}


async def test_a_cluster_that_takes_over_chooses_by_its_own_bounds() -> None:
    old = in_turn(HERE, THERE)
    old.adopt(replace(old.policy, ejection=EjectionPolicy(consecutive_failures=1)))
    old.peers.failed(HERE, "500", 0.0)
    old.settle(0.0)
    assert {old.pick() for _ in range(10)} == {old.pools[1]}
    endpoints = HERE, THERE, Endpoint("127.0.0.3", 8080)
    policy = replace(old.policy, endpoints=endpoints, ejection=EjectionPolicy(panic=0.9))
    new = Cluster(policy, random.Random(7), lambda: 0.0, old.turns, predecessor=old)
    new.adopt(policy)
    assert {new.pick() for _ in range(10)} == {*new.pools}, "with less than 90 % usable, all are used"
    old.retire(new)
    new.retire()


async def test_a_cluster_that_takes_over_knows_what_came_out_while_it_was_made() -> None:
    now = 0.0
    policy = Upstream("app", (HERE, THERE), ejection=EjectionPolicy(consecutive_failures=1))
    old = Cluster(policy, random.Random(7), lambda: now, Turns(asyncio.get_running_loop()))
    policy = replace(policy, is_mesh=True)
    new = Cluster(policy, random.Random(7), lambda: now, old.turns, predecessor=old)
    old.peers.failed(HERE, "500", now)
    old.settle(now)
    new.adopt(policy)
    old.retire(new)
    assert {new.pick() for _ in range(20)} == {new.pools[1]}
    now = new.peers.next_due()
    await asyncio.sleep(now)
    assert {new.pick() for _ in range(200)} == {*new.pools}, "it is taken back when its time is up"
    new.retire()


def test_one_in_line_whose_endpoint_has_left_connects_to_another(connectings: list[HandConnecting]) -> None:
    cluster = hand_cluster(HandLoop(), NAME, max_connections=1)
    cluster.set_addresses(NAME, [HERE])
    waits(cluster, 2, [])
    cluster.set_addresses(NAME, [THERE])
    connectings[0].fail()
    assert [one.pool.endpoint for one in connectings] == [HERE, THERE]


def test_one_in_line_keeps_its_endpoint_where_there_is_no_other(connectings: list[HandConnecting]) -> None:
    cluster = hand_cluster(HandLoop(), NAME, max_connections=1)
    cluster.set_addresses(NAME, [HERE])
    waits(cluster, 2, [])
    cluster.set_addresses(NAME, [])
    connectings[0].fail()
    assert [one.pool.endpoint for one in connectings] == [HERE, HERE]


# Life


async def test_idle_connections_are_closed_when_they_are_due_and_no_timer_runs_without_any() -> None:
    """In virtual time, as of `conftest.py`."""
    loop = asyncio.get_running_loop()
    cluster = hand_cluster(HandLoop(), HERE, THERE)
    cluster._clock = loop.time
    start = loop.time()
    first, second = (idle_connection(cluster, pool) for pool in cluster.pools)
    first.idle_since, second.idle_since, second.expires = start, start + 20.0, start + 70.0
    cluster.watch_idle(start)
    await asyncio.sleep(59.9)
    assert not first.is_aborted
    await asyncio.sleep(0.2)
    assert (first.is_aborted, second.is_aborted) == (True, False)
    await asyncio.sleep(9.8)
    assert not second.is_aborted
    await asyncio.sleep(0.2)
    assert second.is_aborted
    assert cluster.idle_timer is None


@pytest.mark.plain
async def test_thousands_of_idle_connections_are_not_looked_at_for_each_one_that_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    looks: list[float] = []
    idle_due = Pool.idle_due

    def counted(pool: Pool, seconds: float) -> float:
        looks.append(loop.time())
        return idle_due(pool, seconds)

    monkeypatch.setattr(Pool, "idle_due", counted)
    cluster = hand_cluster(HandLoop())
    cluster._clock, cluster.turns = loop.time, Turns(loop)
    for number in range(2000):
        idle_connection(cluster, cluster.pools[0]).idle_since = loop.time() + number / 1000
    cluster.watch_idle(loop.time())
    await asyncio.sleep(cluster.policy.idle_seconds + 3.0)
    assert len(looks) < 200
    assert (cluster.connections, cluster.idle_timer) == (0, None)


async def test_a_retired_cluster_closes_what_is_idle_and_watches_nothing() -> None:
    loop = asyncio.get_running_loop()
    cluster = hand_cluster(HandLoop())
    lease = HandLease(cluster.pools[0])
    cluster.pools[0].idle[lease] = None
    cluster.watch_idle(loop.time())
    cluster.retire()
    assert lease.is_aborted
    assert cluster.idle_timer is None
    cluster.dissolve()
    assert (cluster.pools, cluster.single) == ([], None)


def test_a_cluster_is_idle_only_without_requests_connections_and_waits(
    connectings: list[HandConnecting],
) -> None:
    cluster = hand_cluster(HandLoop())
    assert cluster.is_idle
    cluster.admit()
    assert not cluster.is_idle
    cluster.in_flight = 0
    waits(cluster, 1, [])
    assert not cluster.is_idle
    connectings[0].fail()
    assert cluster.is_idle
