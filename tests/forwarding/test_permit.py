"""A permit is judged at most once and gives its limits back exactly once, in whatever order it is told."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import inf

import pytest

from sidecar.core.adaptive import MIN_SAMPLES, WINDOW_SECONDS, AdaptiveLimit
from sidecar.core.breaker.permit import Turn
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerPolicy, Mode, UpstreamLimits
from sidecar.core.transition import State, TransitionReason
from sidecar.forwarding.permit import Permit, Refusal
from tests.support.by_hand import HERE, THERE, WHOLE, Path, Whole

GOOD = Outcome(Kind.ANSWERED, 200)
BAD = Outcome(Kind.ANSWERED, 500)
ONE_FAILURE = BreakerPolicy(consecutive_failures=1, open_seconds=5.0, half_open_max_calls=1)


class InPieces(Whole):
    """Its body is on the way."""

    def is_body_complete(self) -> bool:
        return False

    def is_body_whole(self) -> bool:
        return False


def admitted(path: Path) -> Permit:
    permit = path.destination.admit(path.loop.now, WHOLE)
    assert isinstance(permit, Permit)
    return permit


def refused(path: Path) -> Refusal:
    refusal = path.destination.admit(path.loop.now, WHOLE)
    assert isinstance(refusal, Refusal)
    return refusal


def opened() -> Path:
    """A path whose breaker has just opened."""
    path = Path(breaker=ONE_FAILURE)
    permit = admitted(path)
    transition = permit.judge(BAD, path.loop.now, None)
    permit.close(path.loop.now)
    assert transition is not None
    assert (transition.to_state, transition.reason) == (State.OPEN, TransitionReason.CONSECUTIVE_FAILURES)
    return path


def half_open() -> tuple[Path, Permit]:
    """A path with its probe's permit."""
    path = opened()
    path.loop.advance(60.0)
    probe = admitted(path)
    assert probe.is_probe
    return path, probe


def counts(path: Path) -> tuple[int, int]:
    """Successes and failures that the breaker has counted."""
    return path.breaker.tally.successful, path.breaker.tally.failed


def test_a_permit_holds_its_limit_until_it_is_closed() -> None:
    path = Path(max_requests=2)
    first, second = admitted(path), admitted(path)
    assert refused(path).reason is Reason.OVERLOADED
    first.judge(GOOD, path.loop.now, None)
    assert refused(path).reason is Reason.OVERLOADED  # judged, and still at the upstream
    first.close(path.loop.now)
    assert path.cluster.in_flight == 1
    third = admitted(path)
    for permit in (second, third):
        permit.close(path.loop.now)
    assert (path.cluster.in_flight, path.cluster.overflows) == (0, 2)


def test_the_second_verdict_changes_nothing() -> None:
    path = Path()
    permit = admitted(path)
    for outcome in (GOOD, BAD, GOOD):
        permit.judge(outcome, path.loop.now, None)
    permit.close(path.loop.now)
    assert counts(path) == (1, 0)


def test_without_a_verdict_nothing_is_learned() -> None:
    path = Path()
    admitted(path).close(path.loop.now)
    assert (counts(path), path.cluster.in_flight) == ((0, 0), 0)


def test_a_success_in_one_call_is_the_same_as_in_two() -> None:
    path = Path()
    whole, parts = admitted(path), admitted(path)
    for permit in (whole, parts):
        permit.sent(None, path.loop.now)
    path.loop.advance(0.1)
    whole.succeed(path.cluster.pools[0].standing, path.loop.now, None)
    parts.judge(GOOD, path.loop.now, None)
    parts.close(path.loop.now)
    assert (counts(path), path.cluster.in_flight) == ((2, 0), 0)
    assert not whole.is_probe
    assert whole.next_look == inf


def test_the_clients_turn_at_one_endpoint_is_none_at_the_next() -> None:
    path = Path()
    permit = admitted(path)
    permit.sent(HERE, path.loop.now)
    permit.turn(Turn.CLIENT, path.loop.now)
    path.loop.advance(3.0)
    permit.sent(THERE, path.loop.now)
    path.loop.advance(1.0)
    permit.turn(Turn.UPSTREAM, path.loop.now)
    path.loop.advance(1.0)
    permit.succeed(path.cluster.pools[0].standing, path.loop.now, None)
    assert path.breaker.durations._ring.tolist() == [2.0]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_in_every_order_of_ends_all_limits_come_back(order: tuple[int, ...]) -> None:
    """One succeeds, one fails, one is abandoned."""
    path = Path(max_requests=3)
    permits = [admitted(path) for _ in range(3)]
    outcomes = (GOOD, BAD, None)
    for left, index in enumerate(order):
        outcome = outcomes[index]
        if outcome is not None:
            permits[index].judge(outcome, path.loop.now, None)
        permits[index].close(path.loop.now)
        assert path.cluster.in_flight == 2 - left
    assert counts(path) == (1, 1)


# Refusals


def test_an_open_breaker_refuses_and_holds_no_limit() -> None:
    path = opened()
    refusal = refused(path)
    assert (refusal.reason, refusal.state) == (Reason.CIRCUIT_OPEN, State.OPEN)
    assert 0 < refusal.retry_after_seconds <= ONE_FAILURE.open_seconds * 1.5
    assert refusal.refused_by is not None
    assert path.cluster.in_flight == 0


def test_a_limit_that_refuses_gives_the_probes_place_back() -> None:
    """The breaker was asked first, and has let it go."""
    path = Path(breaker=ONE_FAILURE, max_requests=1)
    failing = admitted(path)
    failing.judge(BAD, path.loop.now, None)
    path.loop.advance(60.0)
    refusal = refused(path)  # the failing one is still at the upstream
    assert refusal.reason is Reason.OVERLOADED
    assert refusal.transition is not None
    assert refusal.transition.to_state is State.HALF_OPEN
    failing.close(path.loop.now)
    assert admitted(path).is_probe


# Probes


def test_a_probe_that_is_abandoned_gives_its_place_to_the_next() -> None:
    path, probe = half_open()
    assert refused(path).reason is Reason.CIRCUIT_OPEN
    probe.close(path.loop.now)
    assert admitted(path).is_probe


def test_a_probe_that_is_judged_and_closed_gives_its_place_back_once() -> None:
    path, probe = half_open()
    transition = probe.judge(GOOD, path.loop.now, None)
    assert transition is not None
    assert transition.to_state is State.CLOSED
    probe.close(path.loop.now)
    assert not probe.is_probe
    assert not admitted(path).is_probe
    assert path.cluster.in_flight == 1


def test_a_verdict_of_an_earlier_state_changes_nothing() -> None:
    path = Path(breaker=ONE_FAILURE)
    late, failing = admitted(path), admitted(path)
    failing.judge(BAD, path.loop.now, None)
    failing.close(path.loop.now)
    assert late.judge(GOOD, path.loop.now, None) is None
    late.close(path.loop.now)
    assert refused(path).state is State.OPEN
    assert path.cluster.in_flight == 0


def test_a_request_whose_body_is_on_the_way_is_no_probe_yet() -> None:
    path = opened()
    path.loop.advance(60.0)
    refusal = path.destination.admit(path.loop.now, InPieces())
    assert isinstance(refusal, Refusal)
    assert refusal.is_postponed
    assert path.cluster.in_flight == 0
    assert admitted(path).is_probe


SLOW_AFTER_1S = BreakerPolicy(slow_call_seconds=1.0, minimum_calls=1)


@pytest.mark.parametrize("ends", ["whole at once", "with a head first"])
@pytest.mark.parametrize("has_its_own", [False, True])
def test_the_clients_turns_make_no_call_slow(has_its_own: bool, ends: str) -> None:
    """5 s of the client and 0.9 s of the upstream, whichever of the two permits keeps the count."""
    path = Path(breaker=SLOW_AFTER_1S)
    permit, now = admitted(path), path.loop.now
    permit.sent(None, now)
    if has_its_own:
        assert permit.look(now) is None
    permit.turn(Turn.CLIENT, now + 0.4)
    assert permit.next_look == inf
    permit.turn(Turn.UPSTREAM, now + 5.4)
    assert permit.next_look == pytest.approx(now + 6.0)
    if ends == "with a head first":
        permit.head(200, now + 5.8)
    assert permit.succeed(path.cluster.pools[0].standing, now + 5.9, None) is None
    assert path.breaker.tally.slow == 0


@pytest.mark.parametrize("turn", [None, Turn.CLIENT])
def test_time_of_the_upstream_is_slow_and_the_clients_last_turn_is_not(turn: Turn | None) -> None:
    path = Path(breaker=SLOW_AFTER_1S)
    permit, now = admitted(path), path.loop.now
    permit.sent(None, now)
    if turn is not None:
        permit.turn(turn, now + 0.5)  # and the answer comes before the client has sent all
    transition = permit.succeed(path.cluster.pools[0].standing, now + 1.5, None)
    assert (transition is None) == (turn is Turn.CLIENT)


@pytest.fixture
def timed() -> tuple[Path, AdaptiveLimit]:
    """A path with an adaptive limit."""
    path = Path()
    policy = path.cluster.policy
    path.cluster.adopt(replace(policy, limits=replace(policy.limits, adaptive=Mode.ENFORCE)))
    limit = path.cluster.adaptive
    assert limit is not None
    return path, limit


def test_an_adaptive_limit_learns_from_good_heads_alone(timed: tuple[Path, AdaptiveLimit]) -> None:
    path, limit = timed
    now, standing = path.loop.now, path.cluster.pools[0].standing

    def sent() -> Permit:
        permit = admitted(path)
        permit.sent(HERE, now)
        return permit

    not_found = Outcome(Kind.ANSWERED, 200, grpc_status=int(GrpcStatus.NOT_FOUND))
    for outcome in (not_found, Outcome(Kind.ANSWERED, 404), Outcome(Kind.TIMED_OUT), Outcome(Kind.LEFT), BAD):
        other = sent()
        other.judge(outcome, now + 0.01, None)
        other.close(now + 0.01)
    sent().close(now + 0.01)
    assert limit._samples == 0, "to fail, to refuse and to be left are no measure"
    for _ in range(MIN_SAMPLES):
        now += WINDOW_SECONDS / 50
        streamed = sent()
        streamed.head(200, now + 0.2)
        streamed.succeed(standing, now + 0.9, None)
    assert limit.base_seconds == pytest.approx(0.2, rel=0.05), "the head, not the end"
    for _ in range(MIN_SAMPLES):
        now += WINDOW_SECONDS / 50
        sent().succeed(standing, now + 0.1, None)
    assert limit.base_seconds == pytest.approx(0.1, rel=0.05), "a whole answer at once"
    assert path.cluster.in_flight == 0


def test_a_stream_is_learned_from_once_when_it_is_judged_by_its_head(
    timed: tuple[Path, AdaptiveLimit],
) -> None:
    path, limit = timed
    permit, now = admitted(path), path.loop.now
    permit.sent(HERE, now)
    look = permit.head(200, now + 0.3)
    assert limit._samples == 0
    permit.look(look, None)
    assert limit._samples == 1
    permit.judge(GOOD, look + 60.0, None)
    permit.close(look + 60.0)
    assert limit._samples == 1


@pytest.mark.parametrize("ends", ["whole", "cut", "reset"])
def test_a_stream_stands_in_no_line_from_its_head_on(timed: tuple[Path, AdaptiveLimit], ends: str) -> None:
    """Else an upstream's open streams would take all that its adaptive limit allows, and nothing would be learned."""
    path, limit = timed
    standing = path.cluster.pools[0].standing
    limit.limit = 2
    permit, now = admitted(path), path.loop.now
    permit.sent(HERE, now)
    look = permit.head(200, now + 0.3)
    admitted(path)
    assert "limits.adaptive allows 2" in refused(path).detail, "it may yet be a short answer"
    path.loop.advance(look - now)
    permit.look(look, None)
    other = admitted(path)
    assert (path.cluster.in_flight, path.cluster.in_flight_limit.streams) == (3, 1)
    path.cluster.adopt(replace(path.cluster.policy, limits=UpstreamLimits()))  # `adaptive: off`
    if ends == "whole":
        permit.succeed(standing, look + 60.0, None)
    elif ends == "reset":
        permit.judge(Outcome(Kind.RESET, 200), look + 60.0, None)
    if ends != "whole":
        permit.close(look + 60.0)
    other.close(look + 60.0)
    assert (path.cluster.in_flight, path.cluster.in_flight_limit.streams) == (1, 0)
