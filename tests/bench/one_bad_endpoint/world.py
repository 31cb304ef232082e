"""Twenty clients in a closed loop, some endpoints, and between them what the data path has: a breaker, what is known
of the endpoints, the choice of one, and what is asked instead of one that has failed. Virtual time, seeded chance."""

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
from sidecar.core.retry import MOST_LEFT, MOST_REFUSED, RetryBudget
from sidecar.core.snapshot import Balancing, BalancingPolicy, BreakerPolicy, EjectionPolicy, RetryPolicy
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
class Request:
    """Of one client."""

    began: float
    tried: list[Endpoint] = field(default_factory=list)
    refused: int = 0
    """How often it was sent again since its connection was refused."""
    left: int = 0
    """How often since its endpoint was suspect."""


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
        *,
        is_repeatable: bool = True,
    ) -> None:
        """`is_repeatable`: requests may be sent again, as a GET without a body."""
        self.row = row
        self.is_repeatable = is_repeatable
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
        retry = RetryPolicy()
        self.budget = RetryBudget(retry.ratio, retry.min_per_second, 0.0)
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
        endpoint = self.balancer.trial(is_free=self.is_repeatable) or self.balancer.pick()
        assert endpoint is not None
        self._send(answer.own(), endpoint, Request(now))

    def _send(self, permit: BreakerPermit, endpoint: Endpoint, request: Request) -> None:
        now = self.world.now
        request.tried.append(endpoint)
        permit.sent(str(endpoint), now)
        endpoint.in_flight += 1
        endpoint.begun_at = now
        plan = self.row.plan(endpoint.number, self.rng, now)
        self.seen.to_bad += self.is_measured and endpoint.number < self.row.bad
        ended = partial(self._ended, permit, endpoint, request)
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

    def _ended(self, permit: BreakerPermit, endpoint: Endpoint, request: Request, outcome: Outcome) -> None:
        now = self.world.now
        endpoint.in_flight -= 1
        is_good = outcome.kind is Kind.ANSWERED and outcome.status < 500
        is_suspect = not is_good and endpoint.standing.is_suspect
        permit.judge(outcome, now)
        permit.close(now)
        if not is_good:
            self.balancer.linger(endpoint, self.breaker.durations.median() or LINGER_SECONDS)
        if self.peers.news:
            self._settle()
        if self.is_measured and self.breaker.state is State.OPEN:
            self.seen.opened_after = min(self.seen.opened_after, now - BEGINS)
        if not is_good and self._is_sent_again(request, outcome, is_suspect=is_suspect):
            return
        if self.is_measured:
            self.seen.good += is_good
            self.seen.bad += not is_good
            self.seen.seconds.append(now - request.began)
        self._call()

    def _is_sent_again(self, request: Request, outcome: Outcome, *, is_suspect: bool) -> bool:
        """Whether another endpoint is asked, as `forwarding/` does."""
        now, tried = self.world.now, request.tried
        if outcome.kind is Kind.CONNECT_REFUSED and request.refused < min(
            MOST_REFUSED, len(self.endpoints) - 1
        ):
            request.refused += 1
            other = self.balancer.pick_well(tried) or self.balancer.pick(tried)
        elif outcome.kind is Kind.TIMED_OUT:
            return False  # the time was that of the whole request
        elif is_suspect and self.is_repeatable and request.left < MOST_LEFT:
            other = self.balancer.pick_well(tried)
            if other is None or self.breaker.state is not State.CLOSED or not self._has_token():
                return False
            request.left += 1
        else:
            return False
        answer = self.breaker.admit(now)
        if other is None or isinstance(answer, BreakerRefusal):
            return False
        self._send(answer.own(), other, request)
        return True

    def _has_token(self) -> bool:
        tally = self.breaker.tally
        self.budget.count(tally.total, self.world.now)
        return self.budget.take(self.world.now, tally.successful)
