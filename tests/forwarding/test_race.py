"""Attempts and their race: who speaks to the client, what the breaker learns, and that nothing is left behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from sidecar.core.balance import SPARED_SECONDS
from sidecar.core.errors import Reason
from sidecar.core.head import ResponseHead, response_head
from sidecar.core.outcome import PROBE_SECONDS, Kind, Outcome
from sidecar.core.request import Request, Traits
from sidecar.core.retry import RetryCause
from sidecar.core.snapshot import BreakerPolicy, RouteTimeouts
from sidecar.core.transition import State
from sidecar.forwarding.attempt import Attempt
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.permit import Permit
from sidecar.forwarding.race import Race
from sidecar.forwarding.sweep import TICKS_PER_SECOND
from sidecar.upstream.lease import Fate
from sidecar.upstream.streams import Processed, ResponseSink
from tests.forwarding.test_tunnel import Client as TunnelClient
from tests.forwarding.test_tunnel import Side
from tests.support.by_hand import (
    HERE,
    THERE,
    WHOLE,
    HandClient,
    HandConnecting,
    HandLease,
    Note,
    Path,
    request,
)

RESET = Reason.CONNECTION_RESET


def begun(path: Path, asked: Request | None = None) -> tuple[Exchange, HandClient]:
    client = HandClient()
    exchange = Exchange().take(path.service, client, asked or request())
    exchange.begin()
    return exchange, client


def head(status: int = 200, length: int | None = 2) -> ResponseHead:
    return response_head(status, [], length)


def sink(lease: HandLease) -> ResponseSink:
    """Who hears what comes back on it."""
    assert lease.heard_by is not None
    return lease.heard_by


def answer(lease: HandLease, status: int = 200, body: bytes = b"ok") -> None:
    sink(lease).answered(head(status, len(body)), body)


def whole(status: int, body: bytes = b"ok") -> list[Note]:
    return [("whole", status, body), ("end", [])]


class Lowest(random.Random):
    """Whose numbers are all 0: what happens at times happens each time."""

    def random(self) -> float:
        return 0.0


def assert_over(path: Path, *, successful: int = 0, failed: int = 0, ignored: int = 0) -> None:
    """One exchange was told, nothing of it is left, and the breaker has learned this."""
    assert len(path.told.finishes) == 1
    assert path.service.exchanges == set()
    assert len(path.service.sweep) == 0
    assert path.in_flight == (0, [0] * len(path.cluster.pools))
    assert path.cluster.pending == 0
    tally = path.breaker.tally
    assert (tally.successful, tally.failed, tally.ignored) == (successful, failed, ignored)
    assert path.loop.errors == []


# One attempt


def test_an_answer_that_came_whole_goes_out_whole() -> None:
    path = Path()
    lease = path.idle_lease()
    _, client = begun(path)
    assert path.in_flight == (1, [1])
    assert lease.notes == [("head", b"/", b"")]
    answer(lease)
    assert client.notes == whole(200)
    assert lease.fates == [Fate.REUSABLE]
    assert_over(path, successful=1)
    assert path.told.finishes == [(200, None, "")]


def test_an_answer_in_pieces_goes_out_as_it_comes() -> None:
    path = Path()
    lease = path.idle_lease()
    exchange, client = begun(path)
    sink(lease).interim(head(103))
    sink(lease).head(head(200, None))
    sink(lease).flush()
    sink(lease).data(b"one")
    sink(lease).flush()
    trailers = [(b"a", b"A: 1\r\n", b"1")]
    sink(lease).end(trailers)
    assert client.notes == [
        ("interim", 103),
        ("head", 200),
        ("flush",),
        ("data", b"one"),
        ("flush",),
        ("end", trailers),
    ]
    assert (exchange.response_bytes, lease.fates) == (3, [Fate.REUSABLE])
    assert_over(path, successful=1)


@pytest.mark.parametrize(("status", "failed"), [(200, 0), (404, 0), (499, 0), (500, 1), (503, 1)])
def test_the_breaker_hears_of_a_status_once(status: int, failed: int) -> None:
    path = Path()
    lease = path.idle_lease()
    _, client = begun(path)
    answer(lease, status)
    assert client.notes == whole(status)
    assert_over(path, successful=1 - failed, failed=failed)


def test_an_upstream_that_fails_before_its_head_is_a_502() -> None:
    path = Path()
    lease = path.idle_lease()
    _, client = begun(path)
    sink(lease).failed(RESET, "closed", Processed.MAYBE)
    assert [(name, rest[0]) for name, *rest in client.notes] == [("whole", 502), ("end", [])]
    assert lease.fates == [Fate.BROKEN]
    assert_over(path, failed=1)


def test_an_upstream_that_fails_behind_its_head_cuts_the_client() -> None:
    path = Path()
    lease = path.idle_lease()
    _, client = begun(path)
    sink(lease).head(head(200, 100))
    sink(lease).data(b"half")
    sink(lease).failed(Reason.INCOMPLETE_RESPONSE, "closed", Processed.YES)
    assert client.names == ["head", "data", "reset", "end"]
    assert path.told.finishes == [(200, Reason.INCOMPLETE_RESPONSE, "closed")]
    assert_over(path, failed=1)


def test_a_client_that_goes_away_ends_its_attempt_and_teaches_nothing() -> None:
    path = Path()
    lease = path.idle_lease()
    exchange, client = begun(path)
    exchange.gone(Reason.CLIENT_GONE, "the client went away")
    assert (client.notes, lease.fates) == ([], [Fate.BROKEN])
    assert path.told.finishes == [(499, Reason.CLIENT_GONE, "the client went away")]
    assert_over(path, ignored=1)


def test_the_deadline_is_a_504_and_a_failure() -> None:
    path = Path(timeouts=RouteTimeouts(request_seconds=2.0))
    lease = path.idle_lease()
    _, client = begun(path)
    path.loop.advance(1.999)
    assert client.notes == []
    path.loop.advance(0.002)
    assert [(name, rest[0]) for name, *rest in client.notes] == [("whole", 504), ("end", [])]
    assert lease.fates == [Fate.BROKEN]
    assert_over(path, failed=1)


@pytest.mark.parametrize("call", ["gone", "blocked", "writable", "caller_gone", "expire", "abandon"])
def test_what_an_exchange_hears_after_its_end_changes_nothing(call: str) -> None:
    path = Path()
    lease = path.idle_lease()
    exchange, client = begun(path)
    answer(lease)
    calls: dict[str, Callable[[], None]] = {
        "gone": lambda: exchange.gone(Reason.CLIENT_GONE, "gone"),
        "blocked": exchange.blocked,
        "writable": exchange.writable,
        "caller_gone": exchange.caller_gone,
        "expire": lambda: exchange.expire(path.loop.now + 60.0),
        "abandon": exchange.abandon,
    }
    calls[call]()
    assert client.notes == whole(200)
    assert lease.fates == [Fate.REUSABLE]
    assert_over(path, successful=1)


def test_a_mistake_of_ours_cuts_the_client_and_leaves_nothing_behind() -> None:
    path = Path()
    lease = path.idle_lease()
    exchange, client = begun(path)
    exchange.abandon()
    assert client.notes == [("reset", RESET)]
    assert lease.fates == [Fate.BROKEN]
    assert len(path.told.finishes) == 1
    assert path.service.exchanges == set()
    assert (path.in_flight, len(path.service.sweep)) == ((0, [0]), 0)


@pytest.mark.parametrize("is_upstreams", [False, True])
def test_a_mistake_of_ours_in_a_tunnel_gives_its_place_back_once(*, is_upstreams: bool) -> None:
    """Its verdict, and with it its place in the limits, was given at the switch."""
    path = Path()
    lease = path.idle_lease()
    client, upstream = Side(), Side()
    lease.hand_over = upstream.hand_over  # type: ignore[method-assign]
    asked = request(traits=Traits(upgrade=b"websocket"))
    exchange = Exchange().take(path.service, TunnelClient(client, b"", has_ended=False), asked)
    exchange.begin()
    sink(lease).switched(
        response_head(101, [(b"upgrade", b"Upgrade: websocket\r\n", b"websocket")], None), b""
    )
    assert path.in_flight == (0, [1])
    if is_upstreams:
        sink(lease).broken()
    else:
        exchange.abandon()
    assert lease.fates == [Fate.HANDED_OVER]
    assert_over(path, successful=1)


# The client's pace


def test_a_client_that_takes_no_more_holds_its_upstream_back_and_makes_no_slow_call() -> None:
    path = Path(breaker=BreakerPolicy(slow_call_seconds=1.0))
    lease = path.idle_lease()
    exchange, _ = begun(path)
    sink(lease).head(head(200, None))
    exchange.blocked()
    exchange.blocked()
    path.loop.advance(5.0)
    exchange.writable()
    exchange.writable()
    sink(lease).end([])
    assert lease.names == ["head", "hold", "resume"]
    assert path.breaker.tally.slow == 0
    assert_over(path, successful=1)


def test_a_slow_upstream_makes_a_slow_call() -> None:
    path = Path(breaker=BreakerPolicy(slow_call_seconds=1.0))
    lease = path.idle_lease()
    begun(path)
    path.loop.advance(1.5)
    answer(lease)
    assert path.breaker.tally.slow == 1


@pytest.mark.parametrize(("unsent", "failed"), [(0, 0), (10, 1)])
def test_a_timeout_while_the_client_owes_its_body_is_no_failure(unsent: int, failed: int) -> None:
    """Unless the upstream still has to take what the client has sent."""
    path = Path(timeouts=RouteTimeouts(request_seconds=2.0))
    lease = path.idle_lease()
    exchange, _ = begun(path, request(b"POST", length=10))
    exchange.data(b"12345")
    lease.stream.unsent = unsent
    path.loop.advance(2.1)
    assert lease.fates == [Fate.BROKEN]
    assert_over(path, failed=failed, ignored=1 - failed)


def test_an_answer_before_the_whole_body_ends_the_connection() -> None:
    path = Path()
    lease = path.idle_lease()
    exchange, client = begun(path, request(b"POST", length=10))
    exchange.data(b"12345")
    answer(lease, 413)
    assert client.notes == whole(413)
    assert lease.fates == [Fate.BROKEN]
    assert_over(path, successful=1)


# Waiting for a connection


def test_an_attempt_waits_for_its_connection_and_sends_what_came_meanwhile(
    connectings: list[HandConnecting],
) -> None:
    path = Path()
    exchange, client = begun(path, request(b"POST", length=4))
    exchange.data(b"ab")
    lease = connectings[0].open()
    exchange.data(b"cd")
    exchange.end(())
    assert lease.notes == [("head", b"/", b"ab"), ("data", b"cd"), ("end", [])]
    answer(lease)
    assert client.notes == whole(200)
    assert_over(path, successful=1)


def test_a_client_that_leaves_meanwhile_calls_the_wait_off(connectings: list[HandConnecting]) -> None:
    path = Path()
    exchange, client = begun(path)
    exchange.gone(Reason.CLIENT_GONE, "the client went away")
    assert connectings[0].is_called_off
    assert path.cluster.connections == 0
    assert client.notes == []
    assert_over(path, ignored=1)


def test_one_in_line_gets_the_first_connection_that_comes_free_of_whatever_endpoint(
    connectings: list[HandConnecting],
) -> None:
    path = Path(HERE, THERE, max_connections=1)
    begun(path)
    first = connectings[0].open()
    _, second = begun(path)
    assert path.cluster.pending == 1
    other = path.cluster.pools[0] if first.pool is path.cluster.pools[1] else path.cluster.pools[1]
    answer(first)
    free = HandLease(other)
    assert path.cluster.hand_to_waiter(free)
    index = path.cluster.pools.index(other)
    assert path.in_flight == (1, [int(at == index) for at in range(2)])
    answer(free)
    assert second.notes == whole(200)
    assert path.in_flight == (0, [0, 0])


def test_a_full_line_is_told_at_once(connectings: list[HandConnecting]) -> None:
    path = Path(max_connections=1, max_pending=0)
    begun(path)
    _, client = begun(path)
    assert path.told.finishes == [(503, Reason.OVERLOADED, "app: max_connections and max_pending reached")]
    assert client.names == ["whole", "end"]
    assert path.in_flight == (1, [1])
    assert path.cluster.overflows == 1


def test_a_connection_that_comes_behind_a_trials_time_is_used(connectings: list[HandConnecting]) -> None:
    """The request has time beyond that: it is sent, and sent on as soon as others have had their turn."""
    path = Path(HERE, THERE)
    cluster, now = path.cluster, path.loop.now
    spared, well = cluster.pools
    cluster.peers.adopt(replace(cluster.peers.policy, max_ejected=0.0), now)
    for _ in range(5):
        cluster.peers.failed(spared.endpoint, "reset", now)
    cluster.settle(now)
    cluster.balancer._rng = Lowest()
    path.loop.advance(SPARED_SECONDS)
    _, client = begun(path)
    assert connectings[0].pool is spared
    path.loop.now += PROBE_SECONDS + 0.02
    late = connectings[0].open()
    assert late.names == ["head"]
    path.loop.advance(0.1)
    assert late.fates == [Fate.BROKEN]
    assert connectings[1].pool is well
    answer(connectings[1].open())
    assert client.notes == whole(200)


def test_a_connection_that_comes_too_late_goes_back_unused(connectings: list[HandConnecting]) -> None:
    path = Path(timeouts=RouteTimeouts(request_seconds=2.0))
    _, client = begun(path)
    path.loop.now += 2.0  # nothing had its turn, and the connection is first
    lease = connectings[0].open()
    assert (lease.notes, lease.fates) == ([], [Fate.REUSABLE])
    path.loop.advance(0.0)
    assert [(name, rest[0]) for name, *rest in client.notes] == [("whole", 504), ("end", [])]
    assert path.told.finishes[0][1] is Reason.DEADLINE_EXCEEDED
    assert_over(path, ignored=1)


# Once more, where that is safe


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
def test_a_stale_connection_is_replaced_by_a_fresh_one(
    method: bytes, connectings: list[HandConnecting]
) -> None:
    path = Path()
    path.idle_lease(is_reused=True)  # not taken: it may be as stale
    stale = path.idle_lease(is_reused=True)
    exchange, client = begun(path, request(method))
    sink(stale).failed(RESET, "closed", Processed.MAYBE)
    assert (client.notes, len(connectings), stale.fates) == ([], 1, [Fate.BROKEN])
    fresh = connectings[0].open()
    answer(fresh)
    assert client.notes == whole(200)
    assert len(exchange.attempts) == 2
    assert_over(path, successful=1)  # the stale one said nothing of the upstream


@pytest.mark.parametrize(
    ("method", "is_reused", "processed"),
    [
        (b"POST", True, Processed.MAYBE),
        (b"LIST", True, Processed.MAYBE),
        (b"GET", False, Processed.MAYBE),
        (b"GET", True, Processed.YES),
    ],
)
def test_what_the_upstream_may_have_acted_on_is_not_sent_again(
    method: bytes, processed: Processed, connectings: list[HandConnecting], *, is_reused: bool
) -> None:
    path = Path()
    lease = path.idle_lease(is_reused=is_reused)
    _, client = begun(path, request(method))
    sink(lease).failed(RESET, "closed", processed)
    assert connectings == []
    assert client.notes[0][:2] == ("whole", 502)
    assert_over(path, failed=1)


def test_only_one_stale_connection_is_replaced(connectings: list[HandConnecting]) -> None:
    path = Path()
    stale = path.idle_lease(is_reused=True)
    _, client = begun(path)
    sink(stale).failed(RESET, "closed", Processed.MAYBE)
    fresh = connectings[0].open()
    fresh.is_reused = True
    sink(fresh).failed(RESET, "closed", Processed.MAYBE)
    assert len(connectings) == 1
    assert client.notes[0][:2] == ("whole", 502)
    assert_over(path, failed=1)


def test_a_body_of_which_something_was_sent_is_not_sent_again(connectings: list[HandConnecting]) -> None:
    path = Path()
    stale = path.idle_lease(is_reused=True)
    exchange, client = begun(path, request(b"PUT", length=4))
    exchange.data(b"ab")
    sink(stale).failed(RESET, "closed", Processed.MAYBE)
    assert connectings == []
    assert client.notes[0][:2] == ("whole", 502)
    assert_over(path, failed=1)


def test_a_refused_connection_goes_to_another_endpoint_once(connectings: list[HandConnecting]) -> None:
    path = Path(HERE, THERE)
    _, client = begun(path)
    connectings[0].fail()
    assert connectings[1].pool is not connectings[0].pool
    connectings[1].fail()
    assert len(connectings) == 2
    assert client.notes[0][:2] == ("whole", 502)
    assert_over(path, failed=2)


def test_where_there_is_one_endpoint_a_refused_connection_is_the_end(
    connectings: list[HandConnecting],
) -> None:
    path = Path()
    _, client = begun(path)
    connectings[0].fail()
    assert len(connectings) == 1
    assert client.notes[0][:2] == ("whole", 502)
    assert_over(path, failed=1)


def test_a_breaker_that_opens_by_the_first_attempt_allows_no_second(
    connectings: list[HandConnecting],
) -> None:
    path = Path(HERE, THERE, breaker=BreakerPolicy(consecutive_failures=1))
    _, client = begun(path)
    connectings[0].fail()
    assert len(connectings) == 1
    assert path.told.finishes[0][:2] == (502, Reason.CONNECTION_REFUSED)
    assert client.names == ["whole", "end"]
    assert [transition.to_state for transition in path.told.transitions] == [State.OPEN]
    # Nobody was refused: the client got the first answer, and a second try was not made.
    assert (path.breaker.tally.total, path.breaker.tally.rejected) == (1, 0)
    assert_over(path, failed=1)


def test_a_second_try_that_is_the_first_probe_is_told_as_such(connectings: list[HandConnecting]) -> None:
    path = Path(HERE, THERE, breaker=BreakerPolicy(consecutive_failures=2, open_seconds=1.0))
    begun(path)
    for _ in range(2):
        other = path.destination.admit(path.loop.now, WHOLE)
        assert isinstance(other, Permit)
        other.judge(Outcome(Kind.ANSWERED, 500), path.loop.now, None)
        other.close(path.loop.now)
    path.loop.advance(2.0)
    connectings[0].fail()
    assert path.breaker.state is State.HALF_OPEN
    assert [transition.to_state for transition in path.told.transitions] == [State.HALF_OPEN]


def test_a_probe_keeps_its_permit_on_its_way_to_another_endpoint(connectings: list[HandConnecting]) -> None:
    path = Path(HERE, THERE, breaker=BreakerPolicy(consecutive_failures=1, half_open_max_calls=1))
    begun(path)
    connectings[0].fail()
    path.loop.advance(60.0)
    _, client = begun(path)
    connectings[1].fail()
    answer(connectings[2].open())
    assert client.notes == whole(200)
    assert path.breaker.state is State.CLOSED
    assert path.in_flight == (0, [0, 0])


def test_a_probe_goes_to_an_endpoint_that_did_not_fail_last(connectings: list[HandConnecting]) -> None:
    for _ in range(20):
        path = Path(HERE, THERE, breaker=BreakerPolicy(consecutive_failures=1))
        begun(path)
        connectings[-1].fail()
        failed = connectings[-1].pool
        path.loop.advance(60.0)
        begun(path)
        assert connectings[-1].pool is not failed
        answer(connectings[-1].open())
        assert path.breaker.state is State.CLOSED


# Two attempts at a time: the second one is begun here as a hedge is.


def hedged(path: Path, asked: Request | None = None) -> tuple[Exchange, HandClient, list[HandLease]]:
    """An exchange with two attempts under way, and the connection of each."""
    leases = [path.idle_lease(), path.idle_lease()]
    exchange, client = begun(path, asked)
    race = exchange.race
    assert isinstance(race, Race)
    permit = path.destination.admit(path.loop.now, WHOLE)
    assert isinstance(permit, Permit)
    race._run(permit, path.cluster, path.cluster.single, path.loop.now, RetryCause.HEDGE)
    leases.reverse()  # the youngest is taken first
    assert len(race.running) == 2
    assert path.in_flight == (2, [2])
    return exchange, client, leases


@pytest.mark.parametrize("wins", [0, 1])
@pytest.mark.parametrize("how", ["whole", "pieces"])
def test_who_has_a_head_first_has_the_client_and_the_other_ends_uncounted(wins: int, how: str) -> None:
    path = Path()
    _, client, leases = hedged(path)
    winner, loser = leases[wins], leases[1 - wins]
    if how == "whole":
        answer(winner)
    else:
        sink(winner).head(head())
        assert loser.fates == [Fate.BROKEN]
        assert path.in_flight == (1, [1])
        sink(winner).data(b"ok")
        sink(winner).end([])
    assert client.notes == (whole(200) if how == "whole" else [("head", 200), ("data", b"ok"), ("end", [])])
    assert (winner.fates, loser.fates) == ([Fate.REUSABLE], [Fate.BROKEN])
    assert_over(path, successful=1, ignored=1)


@pytest.mark.parametrize("wins", [0, 1])
def test_a_losers_callbacks_write_nothing_to_the_client(wins: int) -> None:
    path = Path()
    _, client, leases = hedged(path)
    late = sink(leases[1 - wins])
    assert isinstance(late, Attempt)
    sink(leases[wins]).head(head())
    late.interim(head(103))
    late.data(b"of the loser")
    late.flush()
    late.failed(RESET, "closed", Processed.YES)
    assert client.notes == [("head", 200)]
    sink(leases[wins]).data(b"ok")
    sink(leases[wins]).end([])
    assert client.notes == [("head", 200), ("data", b"ok"), ("end", [])]
    assert_over(path, successful=1, ignored=1)


def test_a_loser_that_still_waits_for_a_connection_is_called_off(connectings: list[HandConnecting]) -> None:
    path = Path()
    lease = path.idle_lease()
    exchange, client = begun(path)
    permit = path.destination.admit(path.loop.now, WHOLE)
    assert isinstance(permit, Permit)
    assert exchange.race is not None
    exchange.race._run(permit, path.cluster, path.cluster.single, path.loop.now, RetryCause.HEDGE)
    answer(lease)
    assert connectings[0].is_called_off
    assert client.notes == whole(200)
    assert_over(path, successful=1, ignored=1)


def test_a_losing_probe_gives_its_place_back(connectings: list[HandConnecting]) -> None:
    path = Path(
        HERE,
        THERE,
        breaker=BreakerPolicy(consecutive_failures=1, half_open_max_calls=2, half_open_successes=2),
    )
    begun(path)
    connectings[0].fail()
    path.loop.advance(60.0)
    path.told.finishes.clear()
    exchange, _ = begun(path)
    permit = path.destination.admit(path.loop.now, WHOLE)
    assert isinstance(permit, Permit)
    assert permit.is_probe
    assert exchange.race is not None
    exchange.race._run(permit, path.cluster, path.cluster.pick(), path.loop.now, RetryCause.HEDGE)
    answer(connectings[1].open())
    assert path.in_flight == (0, [0, 0])
    again = [path.destination.admit(path.loop.now, WHOLE) for _ in range(3)]
    assert [isinstance(one, Permit) for one in again] == [True, True, False]


@pytest.mark.parametrize("fails", [0, 1])
def test_while_another_attempt_is_under_way_a_failure_is_the_breakers_alone(fails: int) -> None:
    path = Path()
    _, client, leases = hedged(path)
    sink(leases[fails]).failed(RESET, "closed", Processed.MAYBE)
    assert client.notes == []
    answer(leases[1 - fails])
    assert client.notes == whole(200)
    assert_over(path, successful=1, failed=1)


@pytest.mark.parametrize(
    ("is_reused", "processed"),
    [(True, Processed.MAYBE), (False, Processed.NEVER)],
    ids=["stale", "unprocessed"],
)
def test_one_that_says_nothing_of_the_upstream_counts_nothing_beside_another(
    processed: Processed, *, is_reused: bool
) -> None:
    path = Path()
    _, client, leases = hedged(path)
    leases[1].is_reused = is_reused
    sink(leases[1]).failed(RESET, "closed", processed)
    answer(leases[0])
    assert client.notes == whole(200)
    assert_over(path, successful=1, ignored=1)


def test_when_both_fail_the_client_hears_of_it_once() -> None:
    path = Path()
    _, client, leases = hedged(path)
    for lease in leases:
        sink(lease).failed(RESET, "closed", Processed.MAYBE)
    assert [(name, rest[0]) for name, *rest in client.notes] == [("whole", 502), ("end", [])]
    assert_over(path, failed=2)


def test_a_client_that_goes_away_ends_both() -> None:
    path = Path()
    exchange, client, leases = hedged(path)
    exchange.gone(Reason.CLIENT_GONE, "the client went away")
    assert client.notes == []
    assert [lease.fates for lease in leases] == [[Fate.BROKEN]] * 2
    assert_over(path, ignored=2)


def test_the_deadline_ends_both_with_one_answer() -> None:
    path = Path(timeouts=RouteTimeouts(request_seconds=2.0))
    _, client, leases = hedged(path)
    path.loop.advance(2.001)
    assert [(name, rest[0]) for name, *rest in client.notes] == [("whole", 504), ("end", [])]
    assert [lease.fates for lease in leases] == [[Fate.BROKEN]] * 2
    assert_over(path, failed=2)


def test_an_attempts_own_timeout_ends_that_one_alone() -> None:
    path = Path(timeouts=RouteTimeouts(request_seconds=5.0, attempt_seconds=2.0))
    leases = [path.idle_lease(), path.idle_lease()]
    exchange, client = begun(path)
    path.loop.advance(1.0)
    permit = path.destination.admit(path.loop.now, WHOLE)
    assert isinstance(permit, Permit)
    assert exchange.race is not None
    exchange.race._run(permit, path.cluster, path.cluster.single, path.loop.now, RetryCause.HEDGE)
    path.loop.advance(1.5)
    assert (client.notes, leases[1].fates) == ([], [Fate.BROKEN])
    answer(leases[0])
    assert client.notes == whole(200)
    assert_over(path, successful=1, failed=1)


def test_a_client_that_takes_no_more_holds_back_every_attempt() -> None:
    path = Path()
    exchange, _, leases = hedged(path)
    exchange.blocked()
    exchange.writable()
    assert [lease.names for lease in leases] == [["head", "hold", "resume"]] * 2


def test_an_interim_head_of_whichever_attempt_goes_on_until_one_has_won() -> None:
    path = Path()
    _, client, leases = hedged(path)
    sink(leases[1]).interim(head(103))
    sink(leases[0]).interim(head(102))
    answer(leases[1])
    assert client.notes == [("interim", 103), ("interim", 102), *whole(200)]


def test_an_upgrade_that_one_attempt_was_not_asked_for_leaves_the_other() -> None:
    path = Path()
    _, client, leases = hedged(path, request(traits=Traits(upgrade=b"websocket")))
    other = response_head(101, [(b"upgrade", b"Upgrade: x\r\n", b"x")], None)
    sink(leases[0]).switched(other, b"")
    assert (client.notes, leases[0].fates) == ([], [Fate.BROKEN])
    answer(leases[1])
    assert client.notes == whole(200)
    assert_over(path, successful=1, failed=1)


# A late loop


@pytest.mark.parametrize(("held_seconds", "is_counted"), [(0.3, False), (0.1, True)])
def test_a_time_out_counts_nothing_where_the_loop_was_held_for_a_quarter_of_it(
    held_seconds: float, is_counted: bool
) -> None:
    path = Path(timeouts=RouteTimeouts(request_seconds=2.0))
    path.idle_lease()
    begun(path)
    path.loop.advance(1.9)
    path.service.sweep.pace.held.note(path.loop.now - held_seconds, path.loop.now)
    path.loop.advance(0.2)
    assert_over(path, failed=int(is_counted), ignored=int(not is_counted))


@pytest.mark.parametrize("reason", [Reason.CONNECTION_RESET, Reason.CONNECTION_TIMEOUT])
def test_neither_does_a_reset_or_a_connect_that_took_too_long(reason: Reason) -> None:
    path = Path()
    lease = path.idle_lease()
    begun(path)
    path.loop.advance(1.0)
    path.service.sweep.pace.held.note(path.loop.now - 0.5, path.loop.now)
    sink(lease).failed(reason, "as the test says", Processed.MAYBE)
    assert_over(path, ignored=1)


def test_an_answer_counts_whatever_the_loop_did() -> None:
    path = Path()
    lease = path.idle_lease()
    begun(path)
    path.loop.advance(1.0)
    path.service.sweep.pace.held.note(path.loop.now - 0.9, path.loop.now)
    answer(lease, 500)
    assert_over(path, failed=1)


def test_a_stream_that_is_refused_after_it_had_the_beginning_of_a_body_is_the_last() -> None:
    path = Path(HERE, THERE)
    leases = [path.idle_lease(0), path.idle_lease(1), path.idle_lease(0), path.idle_lease(1)]
    exchange, client = begun(path, request(b"POST", length=-1, traits=Traits(is_chunked=True)))

    def refuse() -> None:
        lease = next(one for one in leases if one.heard_by is not None)
        sink(lease).failed(Reason.CONNECTION_REFUSED, "upstream refused the stream", Processed.NEVER)

    refuse()
    exchange.data(b"first,")
    refuse()
    exchange.data(b"second")
    exchange.end(())
    assert len(exchange.attempts) == 2
    assert "502" in str(client.notes)


def test_streams_that_all_are_refused_are_tried_again_once() -> None:
    path = Path(HERE, THERE)
    leases = [path.idle_lease(number % 2) for number in range(8)]
    exchange, client = begun(path)
    while refused := [one for one in leases if one.heard_by is not None]:
        sink(refused[0]).failed(Reason.CONNECTION_REFUSED, "upstream refused the stream", Processed.NEVER)
    assert [one.cause for one in exchange.attempts] == [None, RetryCause.REFUSED]
    assert "502" in str(client.notes)


def test_a_stop_is_known_to_a_tick_while_an_answer_is_awaited_whose_deadline_is_far() -> None:
    to = Path(HERE, timeouts=RouteTimeouts(request_seconds=60.0))
    lease = to.idle_lease()
    begun(to)
    to.loop.advance(5.0)
    stopped = to.loop.now
    to.loop.now += 0.2
    to.loop.advance(0.0)
    held = to.service.sweep.pace.held
    assert held.seconds(stopped, to.loop.now) >= 0.2 - 1 / TICKS_PER_SECOND
    answer(lease)
    to.loop.advance(0.1)
    fired = to.loop.fired
    to.loop.advance(1.0)
    assert to.loop.fired - fired < 5
