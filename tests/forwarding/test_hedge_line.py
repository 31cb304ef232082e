"""Who waits for a hedge: looked at when it is due, by one timer for all, and never for what came while the loop was
held."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.errors import Reason
from sidecar.core.snapshot import HedgePolicy, RouteTimeouts
from sidecar.forwarding.sweep import Expiring
from tests.forwarding.test_race import answer, assert_over, begun
from tests.support.by_hand import HERE, THERE, HandConnecting, HandLease, Path


def path(after: float = 0.05) -> tuple[Path, list[HandLease]]:
    to = Path(HERE, THERE, hedge=HedgePolicy(after=after), timeouts=RouteTimeouts(request_seconds=2.0))
    leases = [to.idle_lease(number % 2) for number in range(40)]
    return to, leases


def asked(leases: list[HandLease]) -> list[HandLease]:
    return [one for one in leases if one.heard_by is not None]


def test_one_timer_for_all_that_wait() -> None:
    to, leases = path()
    before = to.loop.timers
    for _ in range(10):
        begun(to)
    assert len(to.service.beside.hedges) == 10
    assert to.loop.timers == before + 2  # the sweep's, and the line's
    to.loop.advance(0.048)
    assert len(asked(leases)) == 10
    to.loop.advance(0.004)
    assert (
        len(asked(leases)) == 15
    )  # each request has brought a fifth of a token, and three came by themselves
    assert len(to.service.beside.hedges) == 0


def test_who_is_answered_waits_no_more_and_the_timer_goes_on_for_the_others() -> None:
    to, leases = path()
    begun(to)
    (first,) = asked(leases)
    to.loop.advance(0.03)
    begun(to)
    (second,) = [one for one in asked(leases) if one is not first]
    answer(first)
    to.loop.advance(0.045)
    assert asked(leases) == [second]
    to.loop.advance(0.01)
    assert len(asked(leases)) == 2
    answer(second)
    assert to.in_flight == (0, [0, 0])


def test_a_stop_is_known_while_somebody_waits_alone() -> None:
    to, leases = path(after=0.5)
    pace = to.service.sweep.pace
    begun(to)
    to.loop.advance(0.4)
    stopped = to.loop.now
    to.loop.now += 0.09
    to.loop.advance(0.0)
    assert (len(asked(leases)), len(to.service.beside.hedges)) == (1, 1)
    assert pace.held.seconds(stopped, to.loop.now) >= 0.06


def test_one_that_is_due_earlier_than_those_before_it_is_not_late() -> None:
    to, leases = path()
    begun(to)
    assert to.destination.hedging is not None
    to.destination.hedging.after = 0.02
    begun(to)
    to.loop.advance(0.023)
    assert len(asked(leases)) == 3


def test_what_came_while_the_loop_was_held_is_read_before_anybody_is_hedged() -> None:
    to, leases = path()
    begun(to)
    to.loop.advance(0.02)
    to.loop.now += 0.2  # no timer had its turn
    to.service.beside.hedges._look()  # the timer comes first, as uvloop's do
    (first,) = asked(leases)
    answer(first)
    to.loop.advance(0.2)
    assert to.told.finishes == [(200, None, "")]
    assert_over(to, successful=1)


def test_one_that_stands_in_line_for_a_connection_is_not_hedged() -> None:
    to = Path(HERE, THERE, hedge=HedgePolicy(after=0.05), max_connections=0)
    begun(to)
    to.loop.advance(1.0)
    assert to.in_flight[0] == 1
    assert to.cluster.pending == 1


def test_what_a_look_costs_does_not_grow_with_those_that_wait(connectings: list[HandConnecting]) -> None:
    """They are not looked through: each is touched when it comes, when it goes, and when it is due."""

    class Counted(set[Expiring]):
        passes = 0

        def __iter__(self) -> Iterator[Expiring]:
            Counted.passes += 1
            return super().__iter__()

    to, _ = path(after=0.9)
    line = to.service.beside.hedges
    for _ in range(300):
        to.loop.advance(0.002)
        begun(to)
    for tick, bucket in list(line._buckets.items()):
        line._buckets[tick] = Counted(bucket)
        for item in bucket:
            item.bucket = line._buckets[tick]
    begun(to)
    to.loop.advance(0.25)
    assert len(line) > 250
    assert Counted.passes == 0
    for exchange in list(to.service.exchanges):
        exchange.gone(Reason.CLIENT_GONE, "gone")  # type: ignore[attr-defined]
    assert len(line) == 0
    to.loop.advance(2.0)
    assert line._buckets == {}
