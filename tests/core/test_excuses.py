"""What an unusable endpoint did is taken out of a breaker's rows and rates, and put back where none is usable."""

from __future__ import annotations

import random

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.ejection.change import Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerPolicy, CandidatePolicy, EjectionPolicy, WindowPolicy, WindowType
from sidecar.core.transition import State, TransitionReason

GOOD, BAD = Outcome(Kind.ANSWERED, 200), Outcome(Kind.ANSWERED, 500)
RATE = BreakerPolicy(consecutive_failures=0)


class Spot:
    def __init__(self) -> None:
        self.in_flight = 0
        self.begun_at = -1000.0


class Upstream:
    """Some endpoints and a breaker that judges them together."""

    def __init__(
        self, count: int, breaker: BreakerPolicy | None = None, ejection: EjectionPolicy | None = None
    ) -> None:
        self.peers = Peers("u", ejection or EjectionPolicy())
        self.spots = [Spot() for _ in range(count)]
        for number, spot in enumerate(self.spots):
            self.peers.join(number, spot, 0.0)
        self.breaker = Breaker("r", "u", breaker or BreakerPolicy(), random.Random(1), 0.0, peers=self.peers)

    def begin(self, endpoint: int, now: float) -> BreakerPermit:
        answer = self.breaker.admit(now)
        assert not isinstance(answer, BreakerRefusal)
        permit = answer.own()
        permit.sent(endpoint, now)
        self.spots[endpoint].in_flight += 1
        self.spots[endpoint].begun_at = now
        return permit

    def end(self, permit: BreakerPermit, outcome: Outcome, now: float) -> None:
        assert isinstance(permit.endpoint, int)
        self.spots[permit.endpoint].in_flight -= 1
        permit.judge(outcome, now)
        permit.close(now)

    def call(self, endpoint: int, outcome: Outcome, now: float, count: int = 1) -> None:
        for _ in range(count):
            self.end(self.begin(endpoint, now), outcome, now)

    @property
    def window(self) -> tuple[int, int, int]:
        numbers = self.breaker.numbers(1.0).window
        return numbers.total, numbers.failed, numbers.consecutive_failures


@pytest.mark.parametrize("kind", list(WindowType))
def test_failures_of_one_that_is_ejected_are_taken_out(kind: WindowType) -> None:
    window = WindowPolicy(kind, 100)
    subject = Upstream(3, BreakerPolicy(window=window))
    subject.call(0, GOOD, 1.0, 10)
    subject.call(1, BAD, 1.0, 4)
    assert subject.window == (14, 4, 4)
    subject.call(1, BAD, 1.0)
    assert subject.peers.members[1].health is Health.EJECTED
    assert subject.window == (10, 0, 0)
    assert subject.breaker.state is State.CLOSED


@pytest.mark.parametrize("kind", list(WindowType))
def test_with_none_usable_what_was_taken_out_is_put_back_and_opens(kind: WindowType) -> None:
    subject = Upstream(2, BreakerPolicy(window=WindowPolicy(kind, 100), consecutive_failures=8))
    subject.call(0, BAD, 1.0, 5)
    assert subject.window == (0, 0, 0)
    subject.call(1, BAD, 1.0, 4)
    assert subject.window == (4, 4, 4)
    subject.call(1, BAD, 1.0)
    assert subject.breaker.history[-1].reason is TransitionReason.CONSECUTIVE_FAILURES
    assert subject.breaker.history[-1].window.failed == 9  # the one that ejected it was never counted


def test_a_rate_of_a_bad_one_among_good_ones_opens_nothing() -> None:
    subject = Upstream(3, RATE, EjectionPolicy(consecutive_failures=0))
    subject.call(0, GOOD, 1.0, 3)
    subject.call(1, BAD, 1.0, 60)
    assert subject.peers.members[1].health is Health.EJECTED
    assert subject.window == (3, 0, 0)


def test_a_rate_is_not_judged_while_one_without_a_failure_may_answer() -> None:
    subject = Upstream(3, RATE, EjectionPolicy(consecutive_failures=0))
    waits = subject.begin(0, 1.0)
    subject.call(1, BAD, 1.0, 30)
    assert subject.peers.members[1].health is Health.EJECTED
    assert subject.breaker.state is State.CLOSED
    subject.end(waits, GOOD, 1.1)
    assert subject.window == (1, 0, 0)


def test_an_attempt_that_is_old_keeps_nothing_closed() -> None:
    policy = BreakerPolicy(consecutive_failures=3)
    for age, state in ((0.1, State.CLOSED), (0.3, State.OPEN)):
        subject = Upstream(3, policy)
        subject.begin(0, 1.0)
        subject.call(1, BAD, 1.0 + age)
        subject.call(2, BAD, 1.0 + age, 2)
        assert subject.breaker.state is state


def test_a_row_needs_failures_of_half_of_the_usable_endpoints() -> None:
    for failing, state in ((2, State.CLOSED), (3, State.OPEN)):
        subject = Upstream(6, BreakerPolicy(consecutive_failures=3))
        for endpoint in range(failing):
            subject.call(endpoint, BAD, 1.0, 3 if failing == 2 and endpoint else 1)
        assert subject.breaker.state is state


def test_of_two_endpoints_one_alone_fills_no_row() -> None:
    subject = Upstream(2, BreakerPolicy(consecutive_failures=3))
    subject.call(0, BAD, 1.0, 4)
    assert subject.breaker.state is State.CLOSED
    subject.call(1, BAD, 1.0)
    assert subject.breaker.state is State.OPEN


def test_a_single_endpoint_is_judged_as_before() -> None:
    subject = Upstream(1)
    subject.call(0, BAD, 1.0, 5)
    assert subject.breaker.state is State.OPEN


def test_with_ejection_off_endpoints_are_not_told_apart() -> None:
    subject = Upstream(10, ejection=EjectionPolicy(is_on=False))
    subject.call(0, BAD, 1.0, 5)
    assert subject.breaker.state is State.OPEN


def test_a_success_of_a_spared_one_ends_no_row() -> None:
    subject = Upstream(3)
    for endpoint in (0, 1):
        subject.call(endpoint, BAD, 1.0, 5)
    assert [one.health for one in subject.peers.members.values()] == [
        Health.EJECTED, Health.SPARED, Health.USABLE,
    ]  # fmt: skip
    subject.call(2, BAD, 1.0, 4)
    assert subject.window[2] == 4
    subject.call(1, GOOD, 1.0)
    assert subject.window == (4, 4, 4)
    subject.call(2, BAD, 1.0)  # none is usable now
    assert subject.breaker.state is State.OPEN


def test_a_head_that_is_good_ends_what_had_been_taken_out_of_the_row() -> None:
    subject = Upstream(3)
    subject.call(1, BAD, 1.0, 5)
    subject.call(0, GOOD, 1.0)
    assert not subject.breaker.machine.evidence.rows.is_begun


def test_a_probe_at_an_unusable_endpoint_gives_its_permit_back() -> None:
    subject = Upstream(3)
    for endpoint in range(3):
        subject.call(endpoint, BAD, 1.0, 5)
    assert subject.breaker.state is State.OPEN
    subject.peers.tick(31.0)  # one is usable again
    probe = subject.begin(1, 31.0)
    subject.end(probe, BAD, 31.1)
    assert subject.breaker.state is State.HALF_OPEN
    assert subject.breaker.numbers(31.1).probes_in_flight == 0
    subject.end(subject.begin(0, 31.2), GOOD, 31.3)
    assert subject.breaker.numbers(31.4).state is State.CLOSED


def test_a_refusal_by_the_next_sidecar_counts_for_its_endpoint_alone() -> None:
    subject = Upstream(3)
    subject.call(1, Outcome(Kind.REFUSED_BELOW, 503), 1.0, 5)
    assert subject.peers.members[1].health is Health.EJECTED
    assert subject.window == (0, 0, 0)


def test_an_answer_that_stands_still_counts_for_its_endpoint_alone() -> None:
    subject = Upstream(3)
    for _ in range(5):
        permit = subject.begin(1, 1.0)
        permit.head(200, 1.1)
        permit.look(3.0)
        subject.end(permit, Outcome(Kind.ABANDONED, 200, is_idle=True), 303.0)
    assert subject.peers.members[1].failed == 5
    assert subject.peers.members[1].health is Health.EJECTED
    assert subject.breaker.state is State.CLOSED


def test_a_candidate_reads_what_is_known_and_tells_nothing() -> None:
    subject = Upstream(3, BreakerPolicy(candidate=CandidatePolicy(consecutive_failures=3)))
    subject.call(1, BAD, 1.0, 4)
    assert subject.peers.members[1].bad == 4
    candidate = subject.breaker.candidate
    assert candidate is not None
    assert candidate.state is State.CLOSED  # one endpoint alone fills no row of its either


def test_what_is_remembered_of_failures_is_bounded_by_the_window() -> None:
    subject = Upstream(3, RATE, EjectionPolicy(consecutive_failures=0))
    for second in range(2000):
        subject.call(second % 2, BAD, second * 0.2)
        subject.call(0, GOOD, second * 0.2, 2)
        subject.call(1, GOOD, second * 0.2, 2)
    excuses = subject.breaker.machine.evidence._excuses
    assert excuses is not None
    assert sum(map(len, excuses._marks.values())) <= 513
