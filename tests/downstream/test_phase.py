"""Every phase of a client's connection has a limit, or none for a reason, and something that is done then."""

from __future__ import annotations

from math import inf

import pytest

from sidecar.core.snapshot import ListenerTimeouts
from sidecar.downstream.phase import (
    LAST_CALL_SECONDS,
    LAST_LINGER_SECONDS,
    LINGER_SECONDS,
    SKIP_SECONDS,
    THEN,
    Phase,
    Then,
    limits,
)

TIMEOUTS = ListenerTimeouts(
    head_seconds=2.0, idle_seconds=5.0, body_seconds=3.0, handshake_seconds=4.0, detect_seconds=0.5
)
LIMITS = {
    Phase.IDLE: 5.0,
    Phase.HEAD: 2.0,
    Phase.BODY: 3.0,
    Phase.ANSWER: inf,
    Phase.UNSENT: 3.0,
    Phase.SKIP: SKIP_SECONDS,
    Phase.LINGER: LINGER_SECONDS,
    Phase.CLOSING: 3.0,
    Phase.TUNNEL: inf,
    Phase.CLOSED: inf,
    Phase.HANDSHAKE: 4.0,
    Phase.DETECT: 0.5,
}


def test_the_limits_stand_in_the_order_of_the_phases() -> None:
    assert dict(zip(Phase, limits(TIMEOUTS), strict=True)) == LIMITS
    assert [int(phase) for phase in Phase] == list(range(len(Phase)))  # a phase is the index of its limit


def test_every_phase_says_what_is_done_and_only_those_without_a_limit_say_nothing() -> None:
    assert THEN.keys() == set(Phase)
    unlimited = {phase for phase, seconds in LIMITS.items() if seconds == inf}
    assert {phase for phase, then in THEN.items() if then is Then.NOTHING} == unlimited


def test_in_a_drain_idle_connections_and_late_readers_have_less_time() -> None:
    ending = dict(zip(Phase, limits(TIMEOUTS, is_ending=True), strict=True))
    late = {Phase.SKIP: LAST_LINGER_SECONDS, Phase.LINGER: LAST_LINGER_SECONDS}
    changed = {Phase.IDLE: LAST_CALL_SECONDS} | late
    assert ending == LIMITS | changed


@pytest.mark.parametrize("idle_seconds", [0.1, LAST_CALL_SECONDS])
def test_a_drain_makes_no_limit_longer(idle_seconds: float) -> None:
    timeouts = ListenerTimeouts(idle_seconds=idle_seconds)
    assert limits(timeouts, is_ending=True)[Phase.IDLE] == idle_seconds
