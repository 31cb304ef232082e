"""One upstream as it lives: its endpoints, its limits, and who may open or wait for a connection.

All decisions are synchronous: `Pool.take` returns a place on a connection, `wait_for` a handle of what is waited for.
Owned by the event loop. Limits are counted here over all endpoints: connections (open and being opened), attempts
that wait for one, attempts in flight.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import replace
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from sidecar.core.adaptive import AdaptiveLimit
from sidecar.core.alpn import HTTP_2
from sidecar.core.balance import Balancer
from sidecar.core.ejection.change import EndpointChange, Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.errors import Reason
from sidecar.core.listing import are_alike
from sidecar.core.memory_budget import MemoryBudget
from sidecar.core.numbers import Histogram
from sidecar.core.snapshot import (
    DURATION_BOUNDS,
    ORIGINAL,
    Balancing,
    Endpoint,
    HashKey,
    HttpVersion,
    Source,
    Upstream,
)
from sidecar.transport.tls.client import ClientContext, ServerIdentity
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.turns import Turns
from sidecar.upstream.budget import ConnectionBudget
from sidecar.upstream.connecting import Connecting
from sidecar.upstream.departure import Departure
from sidecar.upstream.in_flight import InFlightLimit
from sidecar.upstream.lease import Lease, LeaseLine, LeasePool, Seeker
from sidecar.upstream.pool import Pool
from sidecar.upstream.pool_kinds import pool_kind
from sidecar.upstream.raw import RawPool
from sidecar.upstream.ring_keeper import RingKeeper

if TYPE_CHECKING:
    from sidecar.upstream.http2_pool import Http2Pool

AnyPool: TypeAlias = "Pool | Http2Pool"

TIMER_SLACK_SECONDS: Final = 0.001
"""A timer may come this much early by the clock that ejections are reckoned by."""
MANY_IDLE: Final = 100
"""Connections, from where on looking at all of them each time that one is due would take a good part of a core."""
LOOK_SECONDS: Final = 0.0001
"""Between two looks at so many, for each of them: a look takes about a thousandth of that."""


class NoPlace(Enum):
    """Why there is neither a connection nor a wait for one; the value is the detail for log and answer."""

    LINE_FULL = "max_connections and max_pending reached"
    ALL_TAKEN = "max_connections reached"
    """For a tunnel, which does not wait: no connection comes free for it."""
    NO_FILES = "this process may open no more files (`ulimit -n`)"


class Wait:
    """A place in the line for a connection, or with one that is being opened."""

    __slots__ = ("_cluster", "connecting", "pool", "seeker")

    def __init__(self, cluster: Cluster, pool: LeasePool, seeker: Seeker) -> None:
        self._cluster = cluster
        self.pool = pool
        self.seeker = seeker
        self.connecting: Connecting | None = None
        """What is being opened for it; None while it stands in line."""

    def cancel(self) -> None:
        """It is not needed any more; whoever waits behind is served."""
        if self.connecting is not None:
            self.connecting.cancel(self.seeker)
        else:
            self._cluster.leave_line(self)


class Cluster(LeaseLine):
    """The live side of one `Upstream`; a reload may give it another of the same endpoints (`adopt`)."""

    def __init__(
        self,
        policy: Upstream,
        rng: random.Random,
        clock: Callable[[], float],
        turns: Turns,
        budget: ConnectionBudget | None = None,
        memory: MemoryBudget | None = None,
        predecessor: Cluster | None = None,
        tls: ClientContext | None = None,
        zone: str | None = None,
    ) -> None:
        """`budget` and `memory` are shared with other clusters; None: this one has no bound but its own limits.

        `predecessor`: the upstream's as it was, whose knowledge of endpoints goes on here. `tls`: for an upstream
        whose policy has a `tls`. `zone`: where this process runs.
        """
        assert (policy.tls is None) == (tls is None), "nothing falls back to clear text"
        self._tls = tls
        self.memory = memory or MemoryBudget()
        self.budget = budget or ConnectionBudget(sys.maxsize)
        """Of this process, shared with other clusters."""
        self.budget.join(self, self._close_one_idle)
        self.policy = policy
        self.name = policy.name
        self.turns = turns
        self.is_mesh = policy.is_mesh
        self.in_flight = 0
        """Attempts that were admitted and have not ended; their permits count them."""
        self.connections = 0
        """Open and being opened."""
        self.waited = Histogram(DURATION_BOUNDS) if predecessor is None else predecessor.waited
        self.overflows = 0
        """Attempts refused by a limit."""
        self._clock = clock
        self.in_flight_limit = InFlightLimit(policy.limits, rng, clock())
        self.departure = Departure()
        self.peers = predecessor.peers if predecessor is not None else Peers(self.name, policy.ejection)
        """What is thought of its endpoints; outlives it."""
        self.on_endpoint: Callable[[EndpointChange], None] = lambda _: None
        """Whom to tell of changes of endpoints."""
        self.balancer: Balancer[AnyPool] = Balancer(policy.balancing.policy, rng, clock)
        self._ring = RingKeeper(self.balancer.use_ring)
        self._zone = zone
        self.hash_key: HashKey | None = None
        """By what of a request its endpoint is chosen; None: by nothing of it."""
        self._ejection_timer: asyncio.TimerHandle | None = None
        """Armed while an endpoint is ejected."""
        self._successor: Cluster | None = None
        """What has taken its place while attempts are still here."""
        if predecessor is not None:
            self.on_endpoint = predecessor.on_endpoint
        self._line: OrderedDict[Wait, None] = OrderedDict()
        """The first first. Thousands may leave it together, from anywhere in it."""
        self.waits = self._line
        self.idle_timer: asyncio.TimerHandle | None = None
        """Armed while a connection is idle."""
        self._is_handing_over = False
        self._answers: dict[Endpoint, tuple[Endpoint, ...]] = _unanswered(policy)
        """What each configured entry stands for."""
        self.pools: list[Pool | Http2Pool] = []
        self._by_endpoint: dict[object, Pool | Http2Pool] = {}
        self.single: Pool | Http2Pool | None = None
        """The only one, if there is one alone."""
        self._rebuild()

    def __repr__(self) -> str:
        return (
            f"<Cluster {self.name} endpoints={len(self.pools)} connections={self.connections}"
            f" in_flight={self.in_flight} pending={self.pending}>"
        )

    @property
    def pending(self) -> int:
        """Attempts that wait in line for a connection."""
        return len(self.waits)

    # Endpoints

    def names(self) -> list[Endpoint]:
        """The configured entries of which somebody else knows what they stand for."""
        return [endpoint for endpoint in self._answers if not endpoint.is_literal]

    def set_addresses(self, name: Endpoint, addresses: Iterable[Endpoint]) -> None:
        """What one configured entry stands for; pools of addresses that stay are kept."""
        if name in self._answers:
            self._answers[name] = tuple(addresses)
            self._rebuild()

    def _rebuild(self) -> None:
        addresses = (_as_written(entry, one) for entry, answer in self._answers.items() for one in answer)
        wanted: dict[Hashable, Endpoint] = {}
        for address in addresses:
            wanted.setdefault(self._place(address), address)
        kept = {self._place(pool.endpoint): pool for pool in self.pools}
        now = self._clock()
        kind = pool_kind(self.policy.protocol)
        pools = [
            kept.get(place) or self._join_peers(self.pool_for(kind, endpoint), now, is_new=bool(kept))
            for place, endpoint in wanted.items()
        ]
        for place, pool in kept.items():
            if place in wanted:
                pool.meet(wanted[place])  # its weight, for one, may be another
            else:
                pool.retire()
                self.peers.leave(pool.endpoint, pool, now)
        self._use(pools, now)

    def _use(self, pools: list[AnyPool], now: float) -> None:
        self.pools = pools
        self.single = pools[0] if len(pools) == 1 else None
        self._by_endpoint = {pool.endpoint: pool for pool in reversed(pools)}
        self.hash_key = self.policy.balancing.hash_key if self._is_by_ring else None
        self._ring.keep(
            {str(pool.endpoint): pool.endpoint.weight for pool in pools} if self._is_by_ring else {}
        )
        self._renew(now)

    @property
    def _is_by_ring(self) -> bool:
        return self.policy.balancing.policy is Balancing.RING_HASH

    def _join_peers(self, pool: AnyPool, now: float, *, is_new: bool = False) -> AnyPool:
        pool.standing = self.peers.join(pool.endpoint, pool, now, is_new=is_new)
        return pool

    def _place(self, endpoint: Endpoint) -> Hashable:
        """What tells one endpoint from another: by TLS two names of one address are two, as each is asked for."""
        tls = self.policy.tls
        return endpoint if tls is None or tls.server_name is not None else (endpoint, endpoint.name)

    def pool_for(self, kind: type[AnyPool], endpoint: Endpoint) -> AnyPool:
        """A new one, that nobody uses yet: how connections to the endpoint begin."""
        tls = self.policy.tls
        if tls is None or self._tls is None:
            return kind(self, endpoint)
        host = endpoint.name or endpoint.host
        return kind(self, endpoint, ServerIdentity(self._tls, self.name, endpoint, host, tls))

    def pool_speaking(self, pool: LeasePool, alpn: str | None) -> AnyPool:
        """With `auto`, what an endpoint has agreed on holds for it from now on, until a handshake says otherwise."""
        pool = cast("AnyPool", pool)
        if self.policy.protocol is not HttpVersion.AUTO:
            if pool.is_shared and alpn != HTTP_2:
                raise TlsFailed(Reason.TLS_PROTOCOL, "HTTP/2 was not agreed on in the handshake (ALPN)")
            return pool
        kind = pool_kind(HttpVersion.HTTP2 if alpn == HTTP_2 else HttpVersion.HTTP1)
        place = self._place(pool.endpoint)
        for number, known in enumerate(self.pools):
            if self._place(known.endpoint) == place:
                if isinstance(known, kind):
                    return known
                if not known.is_retired:
                    return self._change_version(number, kind)
        if isinstance(pool, kind):
            return pool
        last = self.pool_for(kind, pool.endpoint)  # its endpoint has left meanwhile
        last.standing = pool.standing
        last.retire()
        return last

    def _change_version(self, number: int, kind: type[AnyPool]) -> AnyPool:
        known, now = self.pools[number], self._clock()
        pool = self._join_peers(self.pool_for(kind, known.endpoint), now)
        known.retire()
        self.peers.leave(known.endpoint, known, now)
        self._use([*self.pools[:number], pool, *self.pools[number + 1 :]], now)
        return pool

    def pick(self, avoid: Collection[AnyPool] = (), key: int | None = None) -> AnyPool | None:
        """The endpoint for the next attempt, None when no name has been resolved yet.

        `avoid`: what was tried already, the last one last, and is chosen again only if there is nobody else. `key`:
        of the request, where there is a `hash_key`.
        """
        return self.single or self.balancer.pick(avoid, key, self.in_flight)

    def pick_well(self, avoid: Collection[AnyPool], key: int | None = None) -> AnyPool | None:
        """An endpoint that was not tried and is not suspect, for a further attempt; None where a few picks find
        none."""
        return self.balancer.pick_well(avoid, key, self.in_flight)

    def pick_for_probe(self, failed: Iterable[Hashable], key: int | None = None) -> AnyPool | None:
        """The endpoint that a probe of a breaker asks. `failed`: where its probes have failed, the last one last."""
        if self.single is not None:
            return self.single
        tried = [pool for endpoint in failed for pool in self.at(endpoint)]
        return self.balancer.pick_for_probe(tried, key, self.in_flight)

    def at(self, endpoint: object) -> tuple[AnyPool, ...]:
        """The pool of an endpoint; nothing if it has left."""
        pool = self._by_endpoint.get(endpoint)
        return () if pool is None else (pool,)

    def meant(self, host: str, port: int) -> AnyPool | None:
        """The pool of the endpoint that a client was on its way to, None where that is none of these, or several:
        those of one name are alike."""
        found = [
            pool
            for pool in self.pools
            if pool.endpoint.port == port and host in (pool.endpoint.host, pool.endpoint.name)
        ]
        return found[0] if len(found) == 1 else None

    # What is thought of endpoints

    def linger(self, pool: AnyPool, seconds: float) -> None:
        if self.single is None:
            self.balancer.linger(pool, seconds)

    def settle(self, now: float) -> EndpointChange | None:
        return self._renew(now) if self.peers.news else None

    def _renew(self, now: float) -> EndpointChange | None:
        """The endpoints are others, or are thought of otherwise."""
        if self._successor is not None:
            return self._successor._renew(now)
        news, self.peers.news = self.peers.news, []
        balancing = self.policy.balancing
        zone = self._zone if balancing.prefers_zone else None
        self.balancer.renew(self.pools, self.peers, balancing.policy, now, zone)
        self._watch_ejections(now)
        for change in news:
            self.on_endpoint(change)
        return next((change for change in reversed(news) if change.health is not Health.USABLE), None)

    def _watch_ejections(self, now: float) -> None:
        """Take endpoints back when their time is up."""
        if self._ejection_timer is not None:
            self._ejection_timer.cancel()
            self._ejection_timer = None
        due = self.peers.next_due()
        if due < inf:
            delay = max(due - now, 0.0)
            self._ejection_timer = asyncio.get_running_loop().call_later(delay, self._take_back)

    def _take_back(self) -> None:
        self._ejection_timer = None
        now = self._clock()
        self.peers.tick(now + TIMER_SLACK_SECONDS)
        self._renew(now)

    # Limits

    @property
    def adaptive(self) -> AdaptiveLimit | None:
        """None with `limits.adaptive: off`."""
        return self.in_flight_limit.adaptive

    @property
    def adaptive_in_flight(self) -> int:
        """Of what is in flight, what the adaptive limit counts."""
        return self.in_flight - self.in_flight_limit.streams

    def admit(self) -> bool:
        """Take one of `max_requests`, or of what the adaptive limit allows; False when all are in use."""
        if not self.in_flight_limit.has_room(self.in_flight, self._clock()):
            self.overflows += 1
            return False
        self.in_flight += 1
        return True

    @property
    def why_full(self) -> str:
        """The detail for log and answer where `admit` has refused."""
        return f"{self.name}: {self.in_flight_limit.why_full(self.in_flight)}"

    def wait_for(self, pool: AnyPool, seeker: Seeker) -> Wait | NoPlace:
        """Where `pool` had no idle connection (`Pool.take`): open one, or stand in line for the first that comes
        free.

        `seeker` is told when there is one.
        """
        limits = self.policy.limits
        wait = Wait(self, pool, seeker)
        if pool.is_shared and self._join(cast("Http2Pool", pool), wait):
            return wait
        if self.connections >= limits.max_connections:
            self._close_one_idle()
        if self.connections < limits.max_connections:
            if not self.budget.take():
                self.overflows += 1
                return NoPlace.NO_FILES
            self._open_for(wait)
        elif isinstance(pool, RawPool):
            self.overflows += 1
            return NoPlace.ALL_TAKEN
        elif len(self.waits) < limits.max_pending:
            self._line[wait] = None
        else:
            self.overflows += 1
            return NoPlace.LINE_FULL
        return wait

    @staticmethod
    def _join(pool: Http2Pool, wait: Wait) -> bool:
        """Wait for the connection that is being opened already, if many can share it."""
        connecting = pool.connecting
        if connecting is None or connecting.is_called_off or len(connecting.seekers) >= pool.may_join:
            return False
        wait.connecting = connecting
        connecting.seekers.append(wait.seeker)
        connecting.waits.append(wait)
        return True

    def _open_for(self, wait: Wait) -> None:
        pool = wait.pool
        if pool.is_retired:  # its endpoint has left while it stood in line
            pool = self.pick() or pool
        wait.connecting = self._open(pool)
        wait.connecting.seekers.append(wait.seeker)
        wait.connecting.waits.append(wait)

    def open_more(self, pool: LeasePool) -> None:
        if (
            pool is self.single
            and self.connections < self.policy.limits.max_connections
            and self.budget.take()
        ):
            self._open(pool)

    def _open(self, pool: LeasePool) -> Connecting:
        self.connections += 1
        connecting = Connecting(pool, self.policy.connect_seconds, self._connected)
        if pool.is_shared:
            connecting.on_left_over = self._stand_in_line
            cast("Http2Pool", pool).connecting = connecting
        return connecting

    def _connected(self, connecting: Connecting, has_worked: bool) -> None:
        if connecting.pool.is_shared:
            pool = cast("Http2Pool", connecting.pool)
            if pool.connecting is connecting:
                pool.connecting = None
        if not has_worked:
            self.connection_closed()

    def _stand_in_line(self, connecting: Connecting, seekers: list[Seeker]) -> None:
        """A new connection has fewer places than there were who waited for it."""
        for wait in connecting.waits[::-1]:
            if wait.seeker in seekers:
                wait.connecting = None
                self._line[wait] = None
                self._line.move_to_end(wait, last=False)
        if len(seekers) < len(connecting.waits):  # where it had none at all, another one would not either
            self._hand_out_places()

    def _close_one_idle(self) -> bool:
        now = self._clock()
        return any(pool.close_one_idle(now) for pool in self.pools)

    def close_all_idle(self) -> int:
        """For want of memory: they can be opened again. Returns how many there were."""
        return sum(pool.close_all_idle() for pool in self.pools)

    def all_connections(self) -> list[Any]:
        """Those of HTTP/1.1 that are open: what comes by HTTP/2 is bounded by credit."""
        return [one for pool in self.pools if isinstance(pool, Pool) for one in pool.all_connections()]

    def _take_idle(self) -> Lease | None:
        now = self._clock()
        for pool in self.pools:
            connection = pool.take(now, True) if pool.idle and self.suits_first(pool) else None
            if connection is not None:
                return connection
        return None

    def leave_line(self, wait: Wait) -> None:
        self._line.pop(wait, None)

    def _first_in_line(self) -> Wait:
        """It stands in line no more."""
        wait, _ = self._line.popitem(last=False)
        return wait

    def suits_first(self, pool: LeasePool) -> bool:
        """Whether the first who waits, if anybody does, may have a connection to this endpoint: the one that was
        chosen for it, or another one that is usable. What fails fast comes free first, and would get most of what
        waits, though it is left out."""
        if not self.waits:
            return True
        wait = self._aimed_first()
        return pool is wait.pool or (self.peers.counts(pool.endpoint) and wait.seeker.may_use(pool))

    def _aimed_first(self) -> Wait:
        """The first who waits, with another endpoint where its own one has left, or is left out since it was
        chosen."""
        wait = next(iter(self._line))
        if wait.pool.is_retired or not self.peers.counts(wait.pool.endpoint):
            other = self.pick()
            if other is not None and (wait.pool.is_retired or wait.seeker.may_use(other)):
                wait.pool = other
        return wait

    def hand_to_waiter(self, connection: Lease) -> bool:
        """Give a connection that has become free to the first who waits, or close it where that may not use it: its
        place goes to a connection to where it is on its way. False when it is to lie idle.

        One who has no time left gives it back within the call. Then the next one gets it from the loop here, not
        from within: hundreds who run out of time together would be as many calls deep, and break off half-way.
        """
        if not self.waits or self._is_handing_over:
            return False
        self._is_handing_over = True
        try:
            free: Lease | None = connection
            while free is not None:
                if not self.suits_first(free.pool):
                    free.abort()
                    break
                self._first_in_line().seeker.leased(free)
                free = self._take_idle() if self.waits else None
        finally:
            self._is_handing_over = False
        while self.waits and self._close_one_idle():
            pass  # what was given back, and the next one may not use
        return True

    def connection_closed(self) -> None:
        """A connection, or the attempt to open one, has ended: its place goes to the first who waits."""
        self.connections -= 1
        self.budget.give_back()
        self._hand_out_places()

    def fits(self, policy: Upstream) -> bool:
        """Its endpoints are the same, and spoken to in the same way: it can `adopt` the policy."""
        return (
            self.policy.endpoints == policy.endpoints
            and self.policy.protocol is policy.protocol
            and self.policy.tls == policy.tls
        )

    def adopt(self, policy: Upstream) -> None:
        """Go on under new limits and timeouts, which the policy of the same endpoints has."""
        before, self.policy = self.policy, policy
        self.is_mesh = policy.is_mesh
        now = self._clock()
        self.in_flight_limit.adopt(policy.limits, now)
        is_chosen_alike = before.balancing == policy.balancing and self.peers.policy == policy.ejection
        self.peers.adopt(policy.ejection, now)
        self.peers.slow_start_seconds = policy.balancing.slow_start_seconds
        self.peers.time_all(is_timing=policy.balancing.policy is Balancing.PEAK_EWMA)
        if not are_alike(before.endpoints, policy.endpoints):
            known = self._answers
            self._answers = {
                entry: answer or known.get(entry, ()) for entry, answer in _unanswered(policy).items()
            }
            self._rebuild()
        elif not is_chosen_alike:
            self._use(self.pools, now)
        else:
            self.settle(now)
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.watch_idle(self._clock())
        self._hand_out_places()

    def _hand_out_places(self) -> None:
        while self.waits and self.connections < self.policy.limits.max_connections:
            wait = self._aimed_first()
            pool = wait.pool
            if pool.is_shared and not pool.is_retired and self._join(cast("Http2Pool", pool), wait):
                self._first_in_line()
            elif self.budget.take():
                self._open_for(self._first_in_line())
            else:
                return
            wait.seeker.opening(wait.pool)

    # Life

    def watch_idle(self, now: float) -> None:
        """Close idle connections when their time is up: the first that may be due, then the next."""
        due = min((pool.idle_due(self.policy.idle_seconds) for pool in self.pools), default=inf)
        if due < inf:
            count = sum(len(pool.idle) for pool in self.pools)
            delay = max(due - now, LOOK_SECONDS * count if count > MANY_IDLE else 0.0)
            self.idle_timer = asyncio.get_running_loop().call_later(delay, self._close_idle)

    def _close_idle(self) -> None:
        self.idle_timer = None
        now = self._clock()
        try:
            for pool in self.pools:
                pool.close_idle(self.policy.idle_seconds, now)
        finally:
            self.watch_idle(now)

    def retire(self, successor: Cluster | None = None) -> None:
        """The upstream has left the configuration, or has a new cluster: close what is idle, let the rest finish."""
        self._successor = successor
        self._ring.close()
        now = self._clock()
        for pool in self.pools:
            pool.retire()
            self.peers.leave(pool.endpoint, pool, now)
        if self._ejection_timer is not None:
            self._ejection_timer.cancel()
            self._ejection_timer = None
        if successor is not None:
            successor._renew(now)  # what was news while it was made, this one has taken
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None

    @property
    def is_idle(self) -> bool:
        """True when no exchange is here and no connection open."""
        return not (self.in_flight or self.connections or self.waits)

    def dissolve(self) -> None:
        """The end of a retired one: pools and cluster point at each other, which only a collection would undo."""
        self.pools = []
        self._by_endpoint = {}
        self.single = None
        self.budget.leave(self)


def _unanswered(policy: Upstream) -> dict[Endpoint, tuple[Endpoint, ...]]:
    """What each entry stands for before anybody has said so."""
    return {entry: (entry,) if entry.is_literal and entry != ORIGINAL else () for entry in policy.endpoints}


def _as_written(entry: Endpoint, address: Endpoint) -> Endpoint:
    """An address of a name has what the file says of the name; what a source lists says it itself."""
    if entry.source is not Source.ADDRESS or entry is address or entry.facts[1:] == address.facts[1:]:
        return address
    return replace(address, weight=entry.weight, priority=entry.priority, zones=entry.zones)
