"""Whose failures make a rate that says something of the upstream: those of endpoints that fail in the window, among
those that are asked."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf
from typing import Any, cast

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.ejection.peers import Peers
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerPolicy, EjectionPolicy
from sidecar.core.transition import State


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


class Fleet:
    """Endpoints, one letter each, and the breaker of a route to them."""

    def __init__(self, endpoints: str, ejection: EjectionPolicy | None = None) -> None:
        self.peers = Peers("app", ejection or EjectionPolicy())
        self.places = {endpoint: Place() for endpoint in endpoints}
        for endpoint, place in self.places.items():
            place.begun_at = -inf
            self.peers.join(endpoint, cast(Any, place), 0.0)
        self.breaker = Breaker("app", "app", BreakerPolicy(), random.Random(1), 0.0, peers=self.peers)

    def call(self, endpoint: str, status: int, now: float) -> None:
        self.places[endpoint].begun_at = now
        permit = cast(Any, self.breaker.admit(now)).own()
        permit.sent(endpoint, now)
        permit.judge(
            Outcome(Kind.ANSWERED, status, error_type=str(status) if status >= 400 else ""), now + 0.01
        )
        permit.close(now + 0.01)

    def ask(
        self, endpoints: str, statuses: tuple[int, ...], count: int, now: float, step: float = 0.1
    ) -> float:
        """Each of them in turn, the answers of each in turn, until the breaker opens."""
        for number in range(count):
            if self.breaker.state is not State.CLOSED:
                break
            status = statuses[number // len(endpoints) % len(statuses)]
            self.call(endpoints[number % len(endpoints)], status, now)
            now += step
        return now


MOSTLY_BAD = (503, 503, 200)


@pytest.mark.parametrize("asked", ["A", "AB", "ABC"])
@pytest.mark.parametrize("reserve", ["", "X", "VWXYZ"])
def test_endpoints_that_nobody_asks_do_not_keep_a_rate_from_opening(asked: str, reserve: str) -> None:
    fleet = Fleet(asked + reserve)
    fleet.ask(asked, MOSTLY_BAD, 90, 1.0)
    assert fleet.breaker.state is State.OPEN
    assert not fleet.peers.ejected


def test_endpoints_that_were_asked_long_ago_do_not_keep_it_either() -> None:
    fleet = Fleet("ABVWXYZ")
    now = fleet.ask("VWXYZ", (200,), 50, 1.0)
    now = fleet.ask("AB", (200,), 60, now + 10.0)
    fleet.ask("AB", MOSTLY_BAD, 90, now)
    assert fleet.breaker.state is State.OPEN


def test_one_that_is_asked_and_answers_well_keeps_it_closed() -> None:
    fleet = Fleet("ABVWXYZ")
    now = 1.0
    for number in range(90):
        now = fleet.ask("A", (MOSTLY_BAD[number % 3],), 1, now)
        now = fleet.ask("A", (MOSTLY_BAD[(number + 1) % 3],), 1, now)
        now = fleet.ask("B", (200,), 1, now)
    assert fleet.breaker.state is State.CLOSED


def test_a_reserve_takes_over_from_endpoints_that_are_dead_without_an_open_breaker() -> None:
    fleet = Fleet("ABCDVWXYZT")
    now = fleet.ask("ABCD", (200,), 80, 1.0)
    while fleet.peers.ejected < 4:
        left = [one for one in "ABCD" if fleet.peers.counts(one)]
        now = fleet.ask("".join(left), (503,), 1, now, step=0.01)
        for one in left[1:]:
            now = fleet.ask(one, (503,), 1, now, step=0.01)
    assert fleet.breaker.state is State.CLOSED
