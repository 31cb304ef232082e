"""The live side of a configuration: a snapshot goes in, routing tables with breakers and clusters come out.

Owns every cluster (by upstream) and every breaker (by route and upstream) of the process, so that the next
snapshot finds them again: what a reload does not change is the same object after it. Building goes in steps, so
that a thousand routes do not hold the loop; nothing of it is seen before `commit`, which is one step.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Collection, Generator, Mapping
from dataclasses import field, replace
from typing import Any, Protocol

from sidecar.core.admission import BudgetAdmission
from sidecar.core.breaker import Breaker
from sidecar.core.breaker.warmup import WarmUp
from sidecar.core.dataclass import dataclass
from sidecar.core.failover import Failover
from sidecar.core.history import Archive
from sidecar.core.outcomes.store import OutcomeStore, outcome_bytes
from sidecar.core.routing import RoutingTable
from sidecar.core.snapshot import (
    ORIGINAL,
    Ambiguous,
    ClientSpans,
    Direction,
    Endpoint,
    Mode,
    Route,
    Snapshot,
    Trust,
    Upstream,
)
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding import passing
from sidecar.forwarding.checks import Checks
from sidecar.forwarding.copying import Copying
from sidecar.forwarding.live import Destination, LiveRoute
from sidecar.forwarding.outcomes import OutcomeWriter
from sidecar.forwarding.passing import PassThrough
from sidecar.forwarding.service import Service
from sidecar.forwarding.standby import Standby
from sidecar.runtime.own_pod import InboundRoutes, OwnPod
from sidecar.runtime.upstream_tls import UpstreamContexts
from sidecar.upstream.budget import ConnectionBudget
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.original import OriginalCluster

STEP = 50
"""Routes or upstreams between two pauses of `build`: about a millisecond's work."""


@dataclass(slots=True)
class Built:
    """A snapshot's live side, complete but not yet in use. Ends in `commit` or `discard`."""

    snapshot: Snapshot
    clusters: dict[str, Cluster] = field(default_factory=dict)
    breakers: dict[tuple[str, str], Breaker] = field(default_factory=dict)
    routes: dict[str, LiveRoute] = field(default_factory=dict)
    tables: dict[str, RoutingTable[LiveRoute]] = field(default_factory=dict)
    made: list[Cluster] = field(default_factory=list)
    """Those of `clusters` that are new."""
    failovers: dict[tuple[str, str], Failover] = field(default_factory=dict)
    """By route and upstream."""
    kept: frozenset[str] = frozenset()
    """Upstreams whose breakers go on."""
    inbound: InboundRoutes = field(default_factory=InboundRoutes)


class Names(passing.Names, Protocol):
    """Who knows what a name stands for, and tells it by `Assembly.addresses_changed`."""

    def watch(self, endpoint: Endpoint) -> tuple[Endpoint, ...]:
        """Keep it looked up, and return what is known now; each call wants its own `unwatch`."""

    def unwatch(self, endpoint: Endpoint) -> None: ...


class Assembly:
    """What is live now, and how the next snapshot takes its place."""

    def __init__(
        self,
        service: Service,
        names: Names,
        rng: random.Random,
        sockets: Mapping[str, ListenerSocket],
        zone: str | None = None,
    ) -> None:
        """`sockets`: those that listen at any time, by name."""
        self._zone = zone
        self._service = service
        self._names = names
        self._rng = rng
        self._archive = Archive()
        self._warming: dict[str, WarmUp] = {}
        """Of each upstream's name: whether it has answered this process yet."""
        self._budget = ConnectionBudget(service.max_open_connections)
        self._leaving: list[Cluster] = []
        self._building: Built | None = None
        self._client_spans: ClientSpans | None = None
        """That of the start: a change of it waits for the next one, as all of `telemetry` does."""
        self._has_learned = asyncio.Event()
        """Set with each news of the resolver."""
        self.tls = UpstreamContexts()
        """Made before `build`, for what the snapshot says."""
        self.passing = PassThrough(service, names, self._passed_cluster, self._passed_breaker, self._see_out)
        service.passing = self.passing
        self.own_pod = OwnPod(sockets, lambda: self.clusters, lambda: self.passing.own_ports())
        self.outcomes = OutcomeStore(outcome_bytes(service.memory.limit_bytes))
        """Of all routes, by name: what a route has seen outlives each reload that keeps it."""
        self.checks = Checks(service)
        service.on_transition = self.checks.transitioned
        self.clusters: dict[str, Cluster] = {}
        self.breakers: dict[tuple[str, str], Breaker] = {}
        self.routes: dict[str, LiveRoute] = {}
        self.failovers: dict[tuple[str, str], Failover] = {}

    def apply(self, snapshot: Snapshot) -> None:
        """Build and commit at once: for the start, when nobody waits."""
        steps = self.build(snapshot)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                self.commit(end.value)
                for _ in self.reconfigure():
                    pass
                return

    def build(self, snapshot: Snapshot) -> Generator[None, None, Built]:
        """Make what `snapshot` needs and what is not there yet, in steps of about a millisecond."""
        built = self._building = Built(snapshot)
        if self._client_spans is None:
            self._client_spans = snapshot.telemetry.client_spans
        built.inbound = yield from InboundRoutes.in_steps(snapshot)
        for number, upstream in enumerate(snapshot.upstreams.values()):
            built.clusters[upstream.name] = self._cluster(upstream, built)
            if number % STEP == 0:
                yield
        built.kept = frozenset(name for name in snapshot.upstreams if self._keeps_breakers(name, built))
        now = self._service.clock()
        for number, route in enumerate(snapshot.routes):
            built.routes[route.name] = self._route(route, built, now)
            if number % STEP == 0:
                yield
        for listener in snapshot.listeners:
            live = [built.routes[route.name] for route in snapshot.routes if route.listener == listener]
            built.tables[listener] = yield from RoutingTable.in_steps([(one.policy, one) for one in live])
        # Of equal routes the old ones stay, so that the new copies do not outlive this.
        built.snapshot = replace(snapshot, routes=tuple(one.policy for one in built.routes.values()))
        return built

    def commit(self, built: Built) -> None:
        """Put it in place, by one assignment of the tables: no exchange sees half of a snapshot."""
        before = self.clusters
        self._building = None
        self._inherit(built)
        breakers_before = self.breakers
        self.clusters, self.breakers, self.routes = built.clusters, built.breakers, built.routes
        self.failovers = built.failovers
        self.own_pod.routes = built.inbound
        for (_, name), failover in built.failovers.items():
            failover.policy = built.snapshot.upstreams[name].failover or failover.policy
        self.outcomes.retain(self.routes)
        self.tls.retain(built.snapshot)
        for upstream in built.snapshot.upstreams.values():
            cluster = self.clusters[upstream.name]
            cluster.departure.own_pod = None if upstream.name in built.inbound.apps else self.own_pod.reach
            cluster.adopt(upstream)
        self._service.tables = built.tables
        self.passing.adopt(built.snapshot.passed, built.snapshot.listeners)
        self._service.strangers = frozenset(
            name for name, one in built.snapshot.listeners.items() if one.trust is Trust.NONE
        )
        self._service.strict = frozenset(
            name for name, one in built.snapshot.listeners.items() if one.ambiguous is Ambiguous.REFUSE
        )
        self._service.has_egress = any(live.is_egress for live in built.routes.values()) or any(
            route.direction is Direction.OUTBOUND for route in built.snapshot.passed.values()
        )
        for name, cluster in before.items():
            if self.clusters.get(name) is not cluster:
                self._let_go(cluster, self.clusters.get(name))
        for key, breaker in breakers_before.items():
            if self.breakers.get(key) is not breaker:
                breaker.retire()

    def _inherit(self, built: Built) -> None:
        """Building took its time, in which an operator may have spoken to breakers that are about to go."""
        now = self._service.clock()
        for key, breaker in built.breakers.items():
            predecessor = self.breakers.get(key)
            if predecessor is not None and predecessor is not breaker:
                transition = breaker.inherit(predecessor, now)
                if transition is not None:
                    self._service.transitioned(transition)

    def reconfigure(self) -> Generator[None, None, None]:
        """Hand breakers that stay their new thresholds and checks, in steps: after `commit`, in any order."""
        now = self._service.clock()
        for number, live in enumerate(list(self.routes.values())):
            for destination in live.everywhere():
                policy = live.policy.breaker_of(destination.cluster.policy)
                if destination.breaker.policy != policy:
                    for transition in destination.breaker.reconfigure(policy, now):
                        self._service.transitioned(transition)
            self.checks.adopt(live)
            if number % STEP == 0:
                yield
        self.checks.retain(self.breakers)

    def discard(self) -> None:
        """Forget what was being built, after a failure on the way."""
        if self._building is not None:
            for cluster in self._building.made:
                self._let_go(cluster)
            self._building = None

    def addresses_changed(self, name: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        """The resolver's news, for every cluster that has the name."""
        for cluster in self.clusters.values():
            cluster.set_addresses(name, addresses)
        for cluster in self._building.made if self._building is not None else ():
            cluster.set_addresses(name, addresses)
        self._has_learned.set()

    async def resolved(self, clusters: Collection[Cluster], seconds: float) -> None:
        """Return when each of them that has names has an endpoint, and after `seconds` at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(cluster.pools or not cluster.names() for cluster in clusters):
                    self._has_learned.clear()
                    await self._has_learned.wait()

    def tick(self, now: float) -> None:
        """Once a second: what only time brings about."""
        for cluster in [one for one in self._leaving if one.is_idle]:
            cluster.dissolve()
            self._leaving.remove(cluster)
        for breaker in self.breakers.values():
            transition = breaker.tick(now)
            if transition is not None:
                self._service.transitioned(transition)
        self.passing.tick(now)
        for home, standby in self.standbys():
            change = standby.look(home, now)
            if change is not None:
                self._service.failed_over(change)

    def standbys(self) -> list[tuple[Destination, Standby[Destination]]]:
        """Every upstream of a route from which others take over, with who does. Reads alone, from any thread."""
        found = []
        for route, name in self.failovers:
            live = self.routes.get(route)
            for one in () if live is None else live.everywhere():
                if one.standby is not None and one.cluster.name == name:
                    found.append((one, one.standby))
        return found

    def close_all_idle(self) -> int:
        """Of all connections with upstreams, for want of memory. Returns how many there were."""
        return (
            sum(cluster.close_all_idle() for cluster in self.clusters.values())
            + self.passing.close_all_idle()
        )

    def all_connections(self) -> list[Any]:
        """With upstreams, as `Cluster.all_connections`."""
        found = [one for cluster in self.clusters.values() for one in cluster.all_connections()]
        return found + self.passing.all_connections()

    def retire(self) -> None:
        """At the end of the process: close what is idle, and keep no connection any more."""
        for cluster in self.clusters.values():
            cluster.retire()
        self.passing.close()

    # What no route names (`forwarding/passing.py`)

    def _passed_cluster(self, upstream: Upstream, is_to_pod: bool) -> Cluster:
        service = self._service
        cluster = Cluster(upstream, self._rng, service.clock, service.turns, self._budget, service.memory)
        cluster.on_endpoint = service.endpoint_changed
        cluster.departure.sources = self.passing.sources
        cluster.departure.is_to_pod = is_to_pod
        cluster.departure.own_pod = None if is_to_pod else self.own_pod.reach
        return cluster

    def _passed_breaker(self, name: str, route: Route, cluster: Cluster) -> Breaker:
        return Breaker(
            route.name,
            name,
            route.breaker,
            self._rng,
            self._service.clock(),
            self._archive,
            peers=cluster.peers,
        )

    def _see_out(self, cluster: Cluster) -> None:
        cluster.retire()
        self._leaving.append(cluster)

    def _cluster(self, upstream: Upstream, built: Built) -> Cluster:
        cluster = self.clusters.get(upstream.name)
        leads_back = (
            cluster is not None and cluster.departure.in_process and upstream.name in built.inbound.apps
        )
        if cluster is not None and cluster.fits(upstream) and not leads_back:
            return cluster
        service = self._service
        is_original = ORIGINAL in upstream.endpoints
        cluster = (OriginalCluster if is_original else Cluster)(
            upstream,
            self._rng,
            service.clock,
            service.turns,
            self._budget,
            service.memory,
            cluster,
            self.tls.of(upstream),
            self._zone,
        )
        cluster.on_endpoint = service.endpoint_changed
        cluster.departure.sources = self.passing.sources
        built.made.append(cluster)
        for name in cluster.names():
            addresses = self._names.watch(name)
            if addresses:
                cluster.set_addresses(name, addresses)
        return cluster

    def _keeps_breakers(self, name: str, built: Built) -> bool:
        cluster = self.clusters.get(name)
        return cluster is not None and built.snapshot.upstreams[name].keeps_breakers_of(cluster.policy)

    def _let_go(self, cluster: Cluster, successor: Cluster | None = None) -> None:
        for name in cluster.names():
            self._names.unwatch(name)
        cluster.retire(successor)
        self._leaving.append(cluster)

    def _route(self, route: Route, built: Built, now: float) -> LiveRoute:
        """The live route as it is, when nothing of it has changed: then not even its memory moves."""
        before = self.routes.get(route.name)
        upstreams = built.snapshot.upstreams
        fallback = route.fallback.upstream if route.fallback is not None else None
        names = route.asked_upstreams(upstreams)
        mirror = route.mirror
        places = names if mirror is None else [*names, mirror.upstream]
        is_same_place = before is not None and all(
            self.clusters.get(name) is built.clusters[name] for name in places
        )
        for name in names:
            key = route.name, name
            breaker = self.breakers.get(key)
            if breaker is None or name not in built.kept:
                warm = self._warming.setdefault(name, WarmUp(now))
                policy = route.breaker_of(upstreams[name])
                breaker = Breaker(
                    *key,
                    policy,
                    self._rng,
                    now,
                    self._archive,
                    breaker,
                    warm,
                    peers=built.clusters[name].peers,
                )
            built.breakers[key] = breaker
        takers = self._takers(route, built, now)
        if before is not None and is_same_place and before.policy == route and before.takers == takers:
            return before
        all_of_it = {
            name: Destination(built.clusters[name], built.breakers[route.name, name]) for name in names
        }
        for name, to in takers.items():
            failover = built.failovers[route.name, name]
            all_of_it[name].standby = Standby(failover, [all_of_it[one] for one in to])
        live = LiveRoute(
            route,
            [(all_of_it[name], weight) for name, weight in route.upstreams],
            all_of_it[fallback] if fallback is not None else None,
            self._admission(route, before if is_same_place else None, now),
            now,
        )
        if mirror is not None:
            copying = Copying(self._service, mirror, built.clusters[mirror.upstream])
            for one in live.destinations:
                one.copying = copying
        if self._client_spans is ClientSpans.AUTO:
            live.join_spans()
        if route.upstreams:
            live.outcomes = OutcomeWriter(self.outcomes.ring(route.name), route.upstreams[0][0])
        return live

    def _takers(self, route: Route, built: Built, now: float) -> dict[str, tuple[str, ...]]:
        """Who takes over from which of its upstreams. How much each of these keeps at present outlives a reload."""
        own = [name for name, _ in route.upstreams]
        if route.fallback is not None and route.fallback.upstream is not None:
            own.append(route.fallback.upstream)
        found = {}
        for name in own:
            policy = built.snapshot.upstreams[name].failover
            if policy is not None:
                found[name] = policy.to
                key = route.name, name
                built.failovers[key] = self.failovers.get(key) or Failover(policy, now)
        return found

    def _admission(self, route: Route, before: LiveRoute | None, now: float) -> BudgetAdmission | None:
        """The estimate of the route's latency: of the same upstreams, under the same policy, it goes on."""
        if route.admission.mode is Mode.OFF:
            return None
        is_same = before is not None and before.policy.admission == route.admission
        if before is not None and is_same and before.admission is not None:
            return before.admission
        return BudgetAdmission(route.admission, now)
