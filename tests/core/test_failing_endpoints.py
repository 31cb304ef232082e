"""Whether an endpoint counts as failing where a breaker looks at the rate: by its failures in the window alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.ejection.peers import Peers
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerPolicy, EjectionPolicy
from sidecar.core.transition import State

Call = Callable[[str, int, float], None]


class Place:
    in_flight = 0
    begun_at = 0.0


@pytest.mark.parametrize(
    "earlier", [(), ((503, 0.01),), ((200, 2.0),)], ids=["well", "failed once", "slow once"]
)
def test_what_an_endpoint_did_an_hour_ago_makes_it_no_bad_one(earlier: tuple[tuple[int, float], ...]) -> None:
    peers = Peers("app", EjectionPolicy())
    for endpoint in "AB":
        peers.join(endpoint, cast(Any, Place()), 0.0)
    policy = replace(
        BreakerPolicy(), failure_rate_threshold=0.25, slow_call_seconds=1.0, slow_call_rate_threshold=1.0
    )
    breaker = Breaker("app", "app", policy, random.Random(1), 0.0, peers=peers)

    def call(endpoint: str, status: int, now: float, seconds: float = 0.01) -> None:
        permit = cast(Any, breaker.admit(now)).own()
        permit.sent(endpoint, now)
        permit.look(now + seconds)
        error_type = str(status) if status >= 400 else ""
        permit.judge(Outcome(Kind.ANSWERED, status, error_type=error_type), now + seconds)
        permit.close(now + seconds)

    for number in range(30):
        call("AB"[number % 2], 200, 1.0 + number / 10)
    for status, seconds in earlier:
        call("B", status, 10.0, seconds)
    for number in range(60):
        endpoint = "AB"[number % 2]
        is_bad = endpoint == "A" and number // 2 % 3 != 2
        call(endpoint, 503 if is_bad else 200, 3610.0 + number / 10)
    assert breaker.state is State.CLOSED
