"""The live side of a configuration: a snapshot goes in, routing tables with breakers and clusters come out.

Owns every cluster (by upstream) and every breaker (by route and upstream) of the process, so that the next
snapshot finds them again: what a reload does not change is the same object after it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sidecar.core.admission import Admission
from sidecar.core.breaker import Breaker
from sidecar.core.routing import RoutingTable
from sidecar.core.snapshot import BreakerPolicy, Endpoint, Mode, Route, Snapshot, Upstream
from sidecar.forwarding.live import Destination, LiveRoute
from sidecar.forwarding.service import Service
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.resolver import Resolver


@dataclass(slots=True)
class _Kept:
    """What was alive before, to be taken over or to be let go."""

    clusters: dict[str, Cluster]
    breakers: dict[tuple[str, str], Breaker]


class Assembly:
    """Builds the data path's tables. `apply` is synchronous: no exchange sees half of a snapshot."""

    def __init__(self, service: Service, resolver: Resolver, rng: random.Random) -> None:
        self._service = service
        self._resolver = resolver
        self._rng = rng
        self.clusters: dict[str, Cluster] = {}
        self.breakers: dict[tuple[str, str], Breaker] = {}
        self.routes: dict[str, LiveRoute] = {}
        self._admissions: dict[str, Admission] = {}

    def apply(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in place, by one assignment of the tables."""
        now = self._service.clock()
        kept = _Kept(self.clusters, self.breakers)
        self.clusters = {name: self._cluster(upstream, kept) for name, upstream in snapshot.upstreams.items()}
        self.breakers = {}
        self._admissions = {
            route.name: self._admission(route, now)
            for route in snapshot.routes
            if route.admission.mode is not Mode.OFF
        }
        self.routes = {route.name: self._route(route, kept, now) for route in snapshot.routes}
        self._service.tables = {
            listener: RoutingTable(
                [(route, self.routes[route.name]) for route in snapshot.routes if route.listener == listener]
            )
            for listener in snapshot.listeners
        }
        for name, cluster in kept.clusters.items():
            if self.clusters.get(name) is not cluster:
                self._let_go(cluster)

    def addresses_changed(self, name: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        """The resolver's news, for every cluster that has the name."""
        for cluster in self.clusters.values():
            cluster.set_addresses(name, addresses)

    def tick(self, now: float) -> None:
        """Once a second: what only time brings about."""
        for cluster in self.clusters.values():
            cluster.close_idle(now)
        for breaker in self.breakers.values():
            transition = breaker.tick(now)
            if transition is not None:
                self._service.observe.transitioned(transition)

    def _cluster(self, upstream: Upstream, kept: _Kept) -> Cluster:
        cluster = kept.clusters.get(upstream.name)
        if cluster is not None and cluster.policy.endpoints == upstream.endpoints:
            cluster.policy = upstream
            return cluster
        cluster = Cluster(upstream, self._rng, self._service.clock)
        for name in cluster.names():
            addresses = self._resolver.watch(name)
            if addresses:
                cluster.set_addresses(name, addresses)
        return cluster

    def _let_go(self, cluster: Cluster) -> None:
        for name in cluster.names():
            self._resolver.unwatch(name)
        cluster.retire()

    def _route(self, route: Route, kept: _Kept, now: float) -> LiveRoute:
        destinations = [
            (self._destination(route, name, kept, now), weight) for name, weight in route.upstreams
        ]
        fallback = route.fallback.upstream if route.fallback is not None else None
        return LiveRoute(
            route,
            destinations,
            self._destination(route, fallback, kept, now) if fallback is not None else None,
            self._admissions.get(route.name),
        )

    def _destination(self, route: Route, upstream: str, kept: _Kept, now: float) -> Destination:
        cluster = self.clusters[upstream]
        key = route.name, upstream
        breaker = kept.breakers.get(key)
        is_same_upstream = kept.clusters.get(upstream) is cluster
        if breaker is None or not is_same_upstream:
            breaker = Breaker(route.name, upstream, route.breaker, self._rng, now)
        elif breaker.policy != route.breaker:
            self._reconfigure(breaker, route.breaker, now)
        self.breakers[key] = breaker
        return Destination(cluster, breaker)

    def _reconfigure(self, breaker: Breaker, policy: BreakerPolicy, now: float) -> None:
        for transition in breaker.reconfigure(policy, now):
            self._service.observe.transitioned(transition)

    def _admission(self, route: Route, now: float) -> Admission:
        before = self.routes.get(route.name)
        if before is not None and before.admission is not None and before.policy.admission == route.admission:
            return before.admission
        return Admission(route.admission, now)
