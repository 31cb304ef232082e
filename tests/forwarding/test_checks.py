"""The sidecar's own checks, without sockets: where they wait, how they end, and that nothing is left of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.checked import Checked
from sidecar.core.errors import Reason
from sidecar.core.head import response_head
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerPolicy, CheckPolicy
from sidecar.core.transition import State, TransitionReason
from sidecar.forwarding.checks import AGAIN_SECONDS, Checks
from sidecar.forwarding.live import Destination, LiveRoute
from sidecar.forwarding.own_request import MAX_BODY_BYTES
from sidecar.upstream.streams import Processed, ResponseSink
from tests.support.by_hand import HERE, THERE, WHOLE, HandConnecting, HandLease, Path, hand_cluster

POLICY = BreakerPolicy(consecutive_failures=1, half_open_check=CheckPolicy("/healthz", 2.0))
OPEN_SECONDS = POLICY.open_seconds


class Checking:
    """A path whose breaker is open, and the checks of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[Checked] = []
        path.told.checked = self.told.append  # type: ignore[method-assign]
        self.checks = Checks(path.service)
        path.service.on_transition = self.checks.transitioned
        self.checks.adopt(path.route)
        self.fail()

    def fail(self) -> None:
        permit = self.path.breaker.admit(self.path.loop.now).own()  # type: ignore[union-attr]
        transition = permit.judge(Outcome(Kind.ANSWERED, 500), self.path.loop.now)
        assert transition is not None
        self.path.service.transitioned(transition)

    @property
    def reasons(self) -> list[TransitionReason]:
        """Why the breaker changed, since it opened."""
        return [one.reason for one in self.path.told.transitions[1:]]

    def assert_nothing_runs(self) -> None:
        path = self.path
        assert path.in_flight == (0, [0] * len(path.cluster.pools))
        assert path.cluster.pending == 0
        assert path.breaker.numbers(path.loop.now).in_flight == 0
        assert path.loop.errors == []


def sink_of(lease: HandLease) -> ResponseSink:
    """Who hears what comes back on it."""
    assert lease.heard_by is not None
    return lease.heard_by


def answer(lease: HandLease, status: int = 200) -> None:
    sink_of(lease).answered(response_head(status, [], 2), b"ok")


def test_nothing_is_armed_while_all_is_well() -> None:
    path = Path(breaker=POLICY)
    checks = Checks(path.service)
    path.service.on_transition = checks.transitioned
    checks.adopt(path.route)
    assert path.loop.timers == 0


def test_it_takes_an_idle_connection_of_the_pool_and_gives_it_back() -> None:
    subject = Checking(Path(breaker=POLICY))
    lease = subject.path.idle_lease()
    subject.path.loop.advance(OPEN_SECONDS)
    assert subject.path.in_flight == (1, [1])
    assert lease.notes == [("head", b"/healthz", b"")]
    answer(lease)
    assert subject.path.breaker.state is State.CLOSED
    assert subject.reasons == [TransitionReason.WAIT_ELAPSED, TransitionReason.PROBE_SUCCEEDED]
    assert subject.path.loop.timers == 0
    subject.assert_nothing_runs()


def test_a_connection_that_cannot_be_opened_is_a_failure_of_the_upstream(
    connectings: list[HandConnecting],
) -> None:
    subject = Checking(Path(breaker=replace(POLICY, failure_on=frozenset({500}))))
    subject.path.loop.advance(OPEN_SECONDS)
    connectings[0].fail()
    # `failure_on` is for the traffic.
    assert subject.reasons == [TransitionReason.WAIT_ELAPSED, TransitionReason.PROBE_FAILED]
    (checked,) = subject.told
    assert (checked.reason, checked.error_type, checked.is_news) == (
        Reason.CONNECTION_REFUSED, "connection_refused", True,
    )  # fmt: skip
    subject.assert_nothing_runs()


def test_a_connection_that_is_not_there_in_time_is_called_off(connectings: list[HandConnecting]) -> None:
    subject = Checking(Path(breaker=POLICY))
    subject.path.loop.advance(OPEN_SECONDS + 2.0)
    assert connectings[0].is_called_off
    assert subject.reasons == [TransitionReason.WAIT_ELAPSED, TransitionReason.PROBE_FAILED]
    subject.assert_nothing_runs()


def test_the_line_for_our_own_connections_says_nothing_of_the_upstream(
    connectings: list[HandConnecting],
) -> None:
    path = Path(breaker=POLICY, max_connections=1)
    path.cluster.connections += 1
    subject = Checking(path)
    path.loop.advance(OPEN_SECONDS)
    assert path.cluster.pending == 1
    path.loop.advance(2.0)
    assert path.breaker.state is State.HALF_OPEN
    assert [checked.error_type for checked in subject.told] == ["timeout"]
    subject.assert_nothing_runs()
    path.cluster.connections -= 1
    path.loop.advance(AGAIN_SECONDS)
    answer(connectings[0].open())
    assert path.breaker.state is State.CLOSED
    subject.assert_nothing_runs()


def test_no_address_is_a_failure() -> None:
    path = Path(replace(HERE, host="app.test"), breaker=POLICY)
    subject = Checking(path)
    path.loop.advance(OPEN_SECONDS)
    assert subject.reasons == [TransitionReason.WAIT_ELAPSED, TransitionReason.PROBE_FAILED]
    assert subject.told[0].error_type == "dns_error"
    assert subject.told[0].endpoint is None
    subject.assert_nothing_runs()


def test_the_breaker_of_the_next_sidecar_opens_it_for_its_own_wait_and_doubles_nothing() -> None:
    subject = Checking(Path(breaker=POLICY))
    lease = subject.path.idle_lease()
    subject.path.loop.advance(OPEN_SECONDS)
    fields = [
        (b"proxy-status", b"", b'sidecar; error=destination_unavailable; details="circuit_open: x"'),
        (b"via", b"", b"1.1 sidecar"),
        (b"retry-after", b"", b"2"),
    ]
    sink_of(lease).answered(response_head(503, fields, 0), b"")
    assert subject.path.breaker.state is State.OPEN
    assert subject.path.breaker.history[-1].wait_seconds == 2.0
    subject.assert_nothing_runs()


@pytest.mark.parametrize("processed", list(Processed))
def test_a_stale_connection_is_replaced_once(processed: Processed, connectings: list[HandConnecting]) -> None:
    subject = Checking(Path(breaker=POLICY))
    lease = subject.path.idle_lease(is_reused=True)
    subject.path.loop.advance(OPEN_SECONDS)
    sink_of(lease).failed(Reason.CONNECTION_RESET, "closed", processed)
    if processed is not Processed.MAYBE:
        assert subject.path.breaker.state is State.OPEN
        assert connectings == []
    else:
        sink_of(connectings[0].open()).failed(Reason.CONNECTION_RESET, "closed", processed)
        assert subject.path.breaker.state is State.OPEN
        assert len(connectings) == 1
    subject.assert_nothing_runs()


def test_a_switch_that_nobody_asked_for_is_a_failure() -> None:
    subject = Checking(Path(breaker=POLICY))
    lease = subject.path.idle_lease()
    subject.path.loop.advance(OPEN_SECONDS)
    sink_of(lease).switched(response_head(101, [], 0), b"")
    assert subject.told[0].error_type == "protocol_error"
    assert subject.path.breaker.state is State.OPEN
    subject.assert_nothing_runs()


@pytest.mark.parametrize(("size", "is_cut"), [(MAX_BODY_BYTES, False), (MAX_BODY_BYTES + 1, True)])
def test_a_long_answer_is_judged_by_its_head_and_cut(size: int, is_cut: bool) -> None:
    subject = Checking(Path(breaker=POLICY))
    lease = subject.path.idle_lease()
    subject.path.loop.advance(OPEN_SECONDS)
    sink_of(lease).head(response_head(200, [], None))
    sink_of(lease).data(b"x" * size)
    assert (subject.path.breaker.state is State.CLOSED) is is_cut
    if not is_cut:
        sink_of(lease).end([])
        assert subject.path.breaker.state is State.CLOSED
    subject.assert_nothing_runs()


def test_a_mistake_of_ours_is_no_failure() -> None:
    subject = Checking(Path(breaker=POLICY))
    lease = subject.path.idle_lease()
    subject.path.loop.advance(OPEN_SECONDS)
    sink_of(lease).broken()
    assert subject.path.breaker.state is State.HALF_OPEN
    again = subject.path.idle_lease()
    subject.path.loop.advance(AGAIN_SECONDS)
    answer(again)
    assert subject.path.breaker.state is State.CLOSED
    subject.assert_nothing_runs()


@pytest.mark.plain
def test_a_mistake_at_its_beginning_is_told_and_the_next_check_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Checking(Path(breaker=POLICY))
    path = subject.path
    with monkeypatch.context() as broken:
        broken.setattr(path.cluster, "pick_for_probe", lambda failed: 1 / 0)
        path.loop.advance(OPEN_SECONDS)
    assert [type(error) for error in path.loop.errors] == [ZeroDivisionError]
    path.loop.errors.clear()
    assert path.in_flight == (0, [0])
    lease = path.idle_lease()
    path.loop.advance(AGAIN_SECONDS)
    answer(lease)
    assert path.breaker.state is State.CLOSED
    subject.assert_nothing_runs()


def test_a_request_that_is_a_probe_already_is_waited_for() -> None:
    """A reload brings the check while a request probes; its client leaves, which changes no state."""
    path = Path(breaker=replace(POLICY, half_open_check=None))
    subject = Checking(path)
    path.loop.advance(OPEN_SECONDS)
    permit = path.destination.admit(path.loop.now, WHOLE)
    assert path.breaker.state is State.HALF_OPEN
    path.breaker.reconfigure(POLICY, path.loop.now)
    path.route.policy = replace(path.route.policy, breaker=POLICY)
    subject.checks.adopt(path.route)
    lease = path.idle_lease()
    path.loop.advance(3.0)
    assert lease.notes == []
    permit.close(path.loop.now)  # type: ignore[union-attr]
    path.loop.advance(1.0)
    answer(lease)
    assert path.breaker.state is State.CLOSED
    subject.assert_nothing_runs()


def test_what_took_too_long_in_all_is_called_off_by_the_breakers_own_limit() -> None:
    """`max_wait` opens it again, and the check of that period is needless."""
    policy = replace(POLICY, half_open_max_wait_seconds=1.0)
    subject = Checking(Path(HERE, THERE, breaker=policy))
    path = subject.path
    lease = path.idle_lease()
    path.idle_lease(1)
    path.loop.advance(OPEN_SECONDS + 1.0)
    transition = path.breaker.tick(path.loop.now)
    assert transition is not None
    path.service.transitioned(transition)
    assert path.in_flight == (0, [0, 0])
    assert lease.heard_by is None or path.cluster.pools[1].in_flight == 0
    subject.assert_nothing_runs()


def test_other_endpoints_of_the_same_breaker_are_asked_anew(connectings: list[HandConnecting]) -> None:
    subject = Checking(Path(breaker=POLICY))
    path = subject.path
    path.idle_lease()
    path.loop.advance(OPEN_SECONDS)
    assert path.in_flight == (1, [1])
    cluster = hand_cluster(path.loop, THERE)
    destination = Destination(cluster, path.breaker)
    subject.checks.adopt(LiveRoute(path.route.policy, [(destination, 1)]))
    assert path.in_flight == (0, [0])
    path.loop.advance(0.0)
    assert connectings[0].pool.endpoint == THERE
    answer(connectings[0].open())
    assert path.breaker.state is State.CLOSED
    assert cluster.in_flight == 0
    subject.assert_nothing_runs()


def test_the_end_calls_everything_off() -> None:
    subject = Checking(Path(breaker=POLICY))
    subject.path.idle_lease()
    subject.path.loop.advance(OPEN_SECONDS)
    assert subject.path.in_flight == (1, [1])
    subject.checks.close()
    assert len(subject.checks) == 0
    assert subject.path.loop.timers == 0
    subject.assert_nothing_runs()


@pytest.mark.parametrize(
    ("host", "hosts", "authority"),
    [
        (None, (), b"127.0.0.1:8080"),
        (None, ("*.shop.test", "shop.test"), b"shop.test"),
        (None, ("2001:db8::1",), b"[2001:db8::1]"),
        (None, ("shop.test:8080",), b"shop.test:8080"),
        (None, ("[2001:db8::1]:81",), b"[2001:db8::1]:81"),
        ("inner.test", ("shop.test",), b"inner.test"),
    ],
)
def test_its_host_is_what_the_routes_own_requests_would_say(
    host: str | None, hosts: tuple[str, ...], authority: bytes
) -> None:
    path = Path(breaker=POLICY)
    policy = path.route.policy
    (match,) = policy.matches
    path.route.policy = replace(
        policy, rewrite=replace(policy.rewrite, host=host), matches=(replace(match, hosts=hosts),)
    )
    subject = Checking(path)
    lease = path.idle_lease()
    path.loop.advance(OPEN_SECONDS)
    assert lease.heads[0].authority == authority
    subject.checks.close()


@pytest.mark.parametrize(("held_seconds", "is_failure"), [(1.0, False), (0.1, True)])
def test_a_loop_that_was_stopped_in_the_midst_of_a_check_is_no_failure(
    held_seconds: float, is_failure: bool
) -> None:
    """No sweep runs meanwhile: there is nobody else."""
    subject = Checking(Path(breaker=POLICY))
    subject.path.idle_lease()
    loop = subject.path.loop
    loop.advance(OPEN_SECONDS + 0.5)
    loop.now += held_seconds
    loop.advance(2.0 - held_seconds)
    assert (TransitionReason.PROBE_FAILED in subject.reasons) is is_failure
    subject.assert_nothing_runs()
