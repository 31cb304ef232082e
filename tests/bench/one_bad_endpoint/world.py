"""Twenty clients in a closed loop, some endpoints, and between them what the data path has: a breaker, what is known
of the endpoints, and the choice of one. Virtual time, seeded chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf

from sidecar.core import snapshot
from sidecar.core.balance import Balancer
from sidecar.core.breaker import Breaker
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.ejection.peers import Peers
from sidecar.core.ejection.standing import Standing
from sidecar.core.outcome import Kind, Limit, Outcome
from sidecar.core.snapshot import Balancing, BalancingPolicy, BreakerPolicy, EjectionPolicy
from sidecar.core.transition import State
from tests.bench.hard_cases.world import World
from tests.bench.one_bad_endpoint.rows import BEGINS, Row

CLIENTS = 20
TIMEOUT_SECONDS = 15.0
REFUSED_AGAIN_SECONDS = 0.05
"""A client that the breaker refuses comes again after this."""
LINGER_SECONDS = 0.1
"""Of a failed attempt, while the median is not known."""


class Endpoint:
    """A place in the choice."""

    standing: Standing

    def __init__(self, number: int) -> None:
        self.number = number
        self.endpoint = snapshot.Endpoint(f"10.0.0.{number}", 80)
        self.in_flight = self.lingering = 0
        self.begun_at = -inf

    def __str__(self) -> str:
        return str(self.endpoint)


@dataclass
class Seen:
    """What came of one run, from the beginning of the trouble on."""

    good: int = 0
    bad: int = 0
    refused: int = 0
    to_bad: int = 0
    """Attempts at bad endpoints."""
    seconds: list[float] = field(default_factory=list)
    opened_after: float = inf
    """From the beginning of the trouble; infinite for never."""

    @property
    def share(self) -> float:
        return self.good / max(self.good + self.bad + self.refused, 1)


class Run:
    """One run of one row."""

    def __init__(
        self,
        row: Row,
        seed: int,
        ejection: EjectionPolicy | None = None,
        balancing: BalancingPolicy | None = None,
    ) -> None:
        self.row = row
        self.world = World(seed)
        self.rng = self.world.rng
        self.seen = Seen()
        self.balancing = balancing or BalancingPolicy()
        self.peers = Peers("upstream", ejection or EjectionPolicy())
        self.balancer: Balancer[Endpoint] = Balancer(
            self.balancing.policy, random.Random(seed + 1), lambda: self.world.now
        )
        self.peers.time_all(is_timing=self.balancing.policy is Balancing.PEAK_EWMA)
        self.endpoints = [Endpoint(number) for number in range(row.count)]
        for one in self.endpoints:
            one.standing = self.peers.join(str(one), one, 0.0)
        self.breaker = Breaker(
            "route", "upstream", BreakerPolicy(), random.Random(seed + 2), 0.0, peers=self.peers
        )
        self._settle()

    def go(self, seconds: float) -> Seen:
        for _ in range(CLIENTS):
            self.world.at(self.rng.random() * 0.02, self._call)
        self.world.run(BEGINS + seconds)
        return self.seen

    @property
    def is_measured(self) -> bool:
        return self.world.now >= BEGINS

    def _settle(self) -> None:
        self.peers.news.clear()
        self.balancer.renew(self.endpoints, self.peers, self.balancing.policy, self.world.now)
        self.world.at(self.peers.next_due(), self._tick)

    def _tick(self) -> None:
        self.peers.tick(self.world.now)
        if self.peers.news:
            self._settle()

    def _call(self) -> None:
        now = self.world.now
        answer = self.breaker.admit(now)
        if isinstance(answer, BreakerRefusal):
            self.seen.refused += self.is_measured
            self.world.after(REFUSED_AGAIN_SECONDS, self._call)
            return
        endpoint = self.balancer.pick()
        assert endpoint is not None
        permit = answer.own()
        permit.sent(str(endpoint), now)
        endpoint.in_flight += 1
        endpoint.begun_at = now
        plan = self.row.plan(endpoint.number, self.rng, now)
        self.seen.to_bad += self.is_measured and endpoint.number < self.row.bad
        ended = partial(self._ended, permit, endpoint, now)
        if plan.seconds > TIMEOUT_SECONDS:
            outcome = Outcome(
                Kind.TIMED_OUT, 0, TIMEOUT_SECONDS, limit=Limit.ROUTE, own_seconds=TIMEOUT_SECONDS
            )
            self._after(TIMEOUT_SECONDS, partial(ended, outcome))
        elif plan.status:
            self._after(plan.seconds, partial(ended, Outcome(Kind.ANSWERED, plan.status)))
        else:
            self._after(
                plan.seconds, partial(ended, Outcome(Kind.CONNECT_REFUSED, error_type="connection_refused"))
            )

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self.world.after(seconds, act)

    def _ended(self, permit: BreakerPermit, endpoint: Endpoint, began: float, outcome: Outcome) -> None:
        now = self.world.now
        endpoint.in_flight -= 1
        is_good = outcome.kind is Kind.ANSWERED and outcome.status < 500
        permit.judge(outcome, now)
        permit.close(now)
        if not is_good:
            self.balancer.linger(endpoint, self.breaker.durations.median() or LINGER_SECONDS)
        if self.peers.news:
            self._settle()
        if self.is_measured:
            self.seen.good += is_good
            self.seen.bad += not is_good
            self.seen.seconds.append(now - began)
            if self.breaker.state is State.OPEN:
                self.seen.opened_after = min(self.seen.opened_after, now - BEGINS)
        self._call()
