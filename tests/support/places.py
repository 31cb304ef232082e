"""Endpoints for a balancer, without connections: what it reads of a pool."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from math import inf

from sidecar.core.balance import Balancer
from sidecar.core.ejection.change import Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.ejection.standing import Standing
from sidecar.core.ring import build
from sidecar.core.snapshot import Balancing, EjectionPolicy, Endpoint


class Place:
    """One endpoint in the choice."""

    standing: Standing

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight = self.lingering = 0
        self.begun_at = -inf

    def __repr__(self) -> str:
        return f"<Place {self.endpoint}>"


class Choice:
    """A balancer with its endpoints and what is thought of them; the clock is moved by hand."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        policy: Balancing = Balancing.LEAST_REQUEST,
        *,
        seed: int = 1,
        zone: str | None = None,
        ejection: EjectionPolicy | None = None,
    ) -> None:
        self.now = 100.0
        self.policy, self.zone = policy, zone
        self.rng = random.Random(seed)
        self.peers = Peers("upstream", ejection or EjectionPolicy())
        self.peers.time_all(is_timing=policy is Balancing.PEAK_EWMA)
        self.places = [Place(endpoint) for endpoint in endpoints]
        for place in self.places:
            place.standing = self.peers.join(place.endpoint, place, 0.0)
        self.balancer: Balancer[Place] = Balancer(policy, self.rng, self.clock)
        if policy is Balancing.RING_HASH:
            self.balancer.use_ring(build({str(one.endpoint): one.endpoint.weight for one in self.places}))
        self.renew()

    def clock(self) -> float:
        return self.now

    def renew(self) -> None:
        self.balancer.renew(self.places, self.peers, self.policy, self.now, self.zone)

    def set_health(self, health: Callable[[Place], Health]) -> None:
        for place in self.places:
            place.standing.health = health(place)
        self.renew()

    def pick(self, avoid: Iterable[Place] = (), key: int | None = None) -> Place:
        load = sum(place.in_flight for place in self.places) + 1
        chosen = self.balancer.pick(tuple(avoid), key, load)
        assert chosen is not None
        return chosen


def endpoints(count: int, **facts: object) -> list[Endpoint]:
    return [Endpoint(f"10.0.{n // 250}.{n % 250}", 80, **facts) for n in range(count)]  # type: ignore[arg-type]
