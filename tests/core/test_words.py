"""The words in which a breaker's state and its changes are told."""

from __future__ import annotations

import random

import pytest

from sidecar.core.breaker import Breaker, Override
from sidecar.core.breaker.words import because, held, told, why
from sidecar.core.override import Order
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import Cause, State, Transition, TransitionReason, WindowNumbers

MS = 0.001


def cause(error_type: str, status: int = 0, endpoint: str = "10.0.0.7:8080") -> Cause:
    return Cause(b"t", b"s", b"r", error_type, status, endpoint)


def change(
    before: State,
    after: State,
    reason: TransitionReason,
    *causes: Cause,
    window: WindowNumbers | None = None,
    order: Order | None = None,
) -> Transition:
    return Transition(1, "r", "u", before, after, reason, 0.0, window or WindowNumbers(), None, causes, order)


def trip(reason: TransitionReason, *causes: Cause, **window: int) -> Transition:
    return change(State.CLOSED, State.OPEN, reason, *causes, window=WindowNumbers(**window))


@pytest.mark.parametrize(
    ("transition", "words"),
    [
        (
            trip(TransitionReason.CONSECUTIVE_FAILURES, *[cause("connection_refused")] * 5),
            "5 × connection_refused 10.0.0.7:8080",
        ),
        (
            trip(TransitionReason.CONSECUTIVE_FAILURES, cause("503", 503), consecutive_failures=5),
            "5 in a row, at last 503 10.0.0.7:8080",
        ),
        (
            trip(
                TransitionReason.FAILURE_RATE,
                *[cause("503", 503)] * 3,
                cause("timeout", 0, "10.0.0.8:8080"),
                total=20,
                failed=11,
            ),
            "11 of 20 failed (3 × 503 10.0.0.7:8080, 1 × timeout 10.0.0.8:8080)",
        ),
        (
            trip(TransitionReason.SLOW_CALL_RATE, cause("", 200), cause("", 200, ""), total=20, slow=20),
            "20 of 20 slow (1 × slow 10.0.0.7:8080, 1 × slow)",
        ),
        (trip(TransitionReason.SLOW_CALL_RATE, total=20, slow=12), "12 of 20 slow"),
        (
            trip(TransitionReason.CONSECUTIVE_FAILURES, *[cause(str(500 + n)) for n in range(5)]),
            "1 × 500 10.0.0.7:8080, 1 × 501 10.0.0.7:8080, 1 × 502 10.0.0.7:8080, 2 other kinds",
        ),
        (trip(TransitionReason.CONSECUTIVE_FAILURES), "consecutive_failures"),
        (
            change(State.HALF_OPEN, State.OPEN, TransitionReason.PROBE_FAILED, cause("503", 503)),
            "probe failed: 503 10.0.0.7:8080",
        ),
        (
            change(State.HALF_OPEN, State.OPEN, TransitionReason.PROBE_TIMEOUT),
            "probe failed: no verdict within max_wait",
        ),
        (change(State.HALF_OPEN, State.OPEN, TransitionReason.PROBE_FAILED), "probe failed"),
        (
            change(State.HALF_OPEN, State.CLOSED, TransitionReason.PROBE_SUCCEEDED, cause("", 200)),
            "probe succeeded: 200 10.0.0.7:8080",
        ),
        (change(State.OPEN, State.HALF_OPEN, TransitionReason.WAIT_ELAPSED), ""),
        (change(State.CLOSED, State.DISABLED, TransitionReason.RELOAD), ""),
    ],
)
def test_a_change_says_why(transition: Transition, words: str) -> None:
    assert because(transition) == words


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (Order(Override.OPEN, 0.0, 1800.0, "ada@bastion"), "by ada@bastion for 30m"),
        (Order(Override.OPEN, 0.0, 5400.0, "ada@bastion"), "by ada@bastion for 90m"),
        (Order(Override.CLOSE, 0.5, 2.0, ""), "by somebody unknown for 1.5s"),
        (Order(Override.OPEN, 0.0, None, "ada@bastion"), "by ada@bastion until ended by hand"),
        (Order(Override.AUTO, 0.0, None, "bob@desk"), "override ended by bob@desk"),
        (
            Order(Override.AUTO, 0.0, 1800.0, "ada@bastion"),
            "the time of the override by ada@bastion is over",
        ),
    ],
)
def test_an_override_says_who_and_for_how_long(order: Order, words: str) -> None:
    change_by_hand = change(State.CLOSED, State.FORCED_OPEN, TransitionReason.FORCED, order=order)
    assert because(change_by_hand) == words


def test_an_override_that_is_on_says_who_since_when_and_until_when() -> None:
    order = Order(Override.OPEN, 10.0, 70.0, "ada@bastion")
    assert held(State.FORCED_OPEN, order, "at {:g}".format) == (
        "forced_open: by ada@bastion since at 10 until at 70"
    )
    order = Order(Override.CLOSE, 10.0, None, "ada@bastion")
    assert held(State.FORCED_CLOSED, order, "at {:g}".format) == (
        "forced_closed: by ada@bastion since at 10 until ended by hand"
    )
    assert told(State.FORCED_OPEN, is_by_hand=True) == "forced_open by hand"


def test_an_old_outage_still_says_what_opened_it() -> None:
    opened = trip(TransitionReason.CONSECUTIVE_FAILURES, cause("503", 503), consecutive_failures=5)
    probed = change(State.HALF_OPEN, State.OPEN, TransitionReason.PROBE_FAILED, cause("timeout"))
    waited = change(State.OPEN, State.HALF_OPEN, TransitionReason.WAIT_ELAPSED)
    assert why([opened, waited, probed, waited]) == (
        "half_open: 5 in a row, at last 503 10.0.0.7:8080; last probe: timeout 10.0.0.7:8080"
    )
    assert why([opened], is_probe_due=True) == "open: 5 in a row, at last 503 10.0.0.7:8080; probe due"


def test_the_end_of_an_override_is_of_its_time_and_shown_at_it() -> None:
    subject = Breaker("r", "u", BreakerPolicy(ramp_seconds=10.0), random.Random(1), 0.0)
    begun = subject.override(Override.OPEN, 10.0, 1.0, by="ada@bastion")
    assert begun is not None
    assert begun.order == Order(Override.OPEN, 10.0, 11.0, "ada@bastion")
    assert (subject.numbers(11.0 - MS).told, subject.state_at(11.0 - MS)) == (
        "forced_open by hand", State.FORCED_OPEN,
    )  # fmt: skip
    seen = subject.numbers(11.0)
    assert (seen.told, seen.state, seen.is_overridden, seen.override_until, seen.order) == (
        "closed", State.CLOSED, False, None, None,
    )  # fmt: skip
    assert subject.state_at(11.0) is State.CLOSED
    assert subject.order_at(11.0) is None
    ended = subject.tick(12.03)
    assert ended is not None
    assert (ended.at, ended.to_state, because(ended)) == (
        11.0, State.CLOSED, "the time of the override by ada@bastion is over",
    )  # fmt: skip
    assert subject.numbers(12.0).told == "closed, ramping 19 %"  # since 11.0


def test_an_override_ended_by_hand_says_by_whom() -> None:
    subject = Breaker("r", "u", BreakerPolicy(), random.Random(1), 0.0)
    subject.override(Override.CLOSE, 10.0, by="ada@bastion")
    ended = subject.override(Override.AUTO, 20.0, by="bob@desk")
    assert ended is not None
    assert ended.order == Order(Override.AUTO, 10.0, None, "bob@desk")


def test_after_closing_the_first_requests_of_a_slow_route_are_let_in() -> None:
    """Four a second, `ramp: 10s`: a tenth of the first ones, growing, as the mean of 500 breakers."""
    admitted = [0] * 12
    for seed in range(500):
        policy = BreakerPolicy(ramp_seconds=10.0)
        subject = Breaker("r", "u", policy, random.Random(seed), 0.0)
        subject.override(Override.OPEN, 0.0)
        subject.override(Override.AUTO, 1.0)
        for place in range(12):
            admitted[place] += subject.admit(1.0 + place / 4).is_admitted
    for place, count in enumerate(admitted):
        assert count / 500 == pytest.approx(0.1 + 0.9 * place / 40, abs=0.06)
