"""What no route names, and goes all the same where it was going (`unmatched: pass_through`, SPEC-PROTOCOLS 14).

Decides who may be passed through, and to which addresses: a name is resolved, its closed addresses are left out, and
only what was looked at here is connected to. Each destination has a cluster and a breaker of its own, all of them one
route's name in metrics. The table of destinations is bounded: who has not been asked for the longest time leaves.
Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import islice
from math import inf
from typing import Any, Final, Protocol

from sidecar.core.breaker import Breaker
from sidecar.core.closed import is_closed
from sidecar.core.errors import Reason
from sidecar.core.hosts import asked_port, normal_host
from sidecar.core.request import Asked, Request
from sidecar.core.snapshot import PASS_THROUGH, Direction, Endpoint, HttpVersion, Listener, Route, Upstream
from sidecar.core.sources import PassedNumbers
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.live import Destination, LiveRoute
from sidecar.forwarding.service import Passed, Passing, Service, WaitsForAddress
from sidecar.transport.namespace import is_local, is_reachable
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.lookup import Answer, LookupFailed

MOST_DESTINATIONS: Final = 1024
LOOKS_WHILE_FULL: Final = 64
"""Destinations that a request looks at for one that nobody uses, where the one before it has found none: to look at
all 1,024 takes 2 ms."""
MOST_TOLD: Final = 256
"""Destinations of which the log has a line; the others are counted alone."""
HTTP_PORT: Final = 80
Key = tuple[str, str, int, HttpVersion]
"""Of a destination: its listener, host and port, and what is spoken with it."""


class Names(Protocol):
    """Who knows what a name stands for."""

    async def look_up(self, host: str) -> Answer:
        """Raises: LookupFailed, TimeoutError."""


class PassedDestination(Passed):
    """One host and port that was asked for."""

    __slots__ = (
        "asking",
        "cluster",
        "count",
        "endpoint",
        "fresh_until",
        "last_at",
        "listener",
        "route",
        "waiting",
    )

    def __init__(self, listener: str, endpoint: Endpoint, cluster: Cluster, route: LiveRoute) -> None:
        self.listener = listener
        self.endpoint = endpoint
        """As it was asked for."""
        self.cluster = cluster
        self.route = route
        self.count = 0
        self.last_at = 0.0
        self.fresh_until = inf if endpoint.is_literal else -inf
        """When its addresses are to be asked for again, in seconds on the loop's clock."""
        self.asking: asyncio.Task[Answer] | None = None
        self.waiting: list[WaitsForAddress] = []

    def __repr__(self) -> str:
        return f"<PassedDestination {self.endpoint} {self.count} times>"

    @property
    def breaker(self) -> Breaker:
        return self.route.destinations[0].breaker

    @property
    def is_unused(self) -> bool:
        cluster = self.cluster
        is_idle = cluster.connections == sum(pool.idle_count for pool in cluster.pools)
        return is_idle and not cluster.in_flight and not cluster.waits and self.asking is None


class PassThrough(Passing):
    """The table of one process."""

    def __init__(
        self,
        service: Service,
        names: Names,
        cluster: Callable[[Upstream, bool], Cluster],
        breaker: Callable[[str, Route, Cluster], Breaker],
        let_go: Callable[[Cluster], None],
    ) -> None:
        """`cluster` and `breaker` make those of a destination, a cluster with whether it is the pod itself; `let_go`
        sees a cluster out."""
        self._service = service
        self.names = names
        self._new_cluster = cluster
        self._new_breaker = breaker
        self._let_go = let_go
        self._policies: Mapping[str, Route] = {}
        self._listeners: Mapping[str, Listener] = {}
        self._table: OrderedDict[Key, PassedDestination] = OrderedDict()
        """The one that was asked for last stands last, or one that was seen to be in use since."""
        self.own_ports: Callable[[], Collection[int]] = frozenset
        """Those that this process listens on."""
        self.tell: Callable[[PassedDestination], None] = lambda _: None
        """Called for each new destination, but for no more than `MOST_TOLD`."""
        self.sources: set[tuple[str, int]] = set()
        """What our own connections leave from that carry bytes and no requests: one that comes back here is a
        loop."""
        self.most = MOST_DESTINATIONS
        self._is_full = False
        """Whoever needed a place last has found all in use."""
        self.told = 0
        self.evicted = 0
        """Destinations that left for others."""
        self.passed = 0
        """Requests and connections."""
        self.tell_loop: Callable[[Asked], None] = lambda _: None
        """Called for a connection that was refused because it goes round."""
        self.loops = 0
        """Such connections."""
        self.closed = 0
        """Of them, those that were refused for where they wanted to go."""

    def __repr__(self) -> str:
        return f"<PassThrough {len(self._table)} destinations>"

    def destinations(self) -> list[PassedDestination]:
        """All that are known, the one that was asked for last comes first."""
        known = list(reversed(self._table.values()))
        known.sort(key=lambda passed: passed.last_at, reverse=True)
        return known

    def numbers(self) -> PassedNumbers:
        """For whoever collects, on any thread."""
        return PassedNumbers(len(self._table), self.passed, self.closed, self.evicted)

    # Configuration

    def adopt(self, policies: Mapping[str, Route], listeners: Mapping[str, Listener]) -> None:
        """Another snapshot: destinations stay, with their breakers, under its policies."""
        self._policies, self._listeners = policies, listeners
        now = self._service.clock()
        for key, passed in list(self._table.items()):
            policy = policies.get(passed.listener)
            if policy is None:
                self._drop(key)
            elif policy != passed.route.policy:
                passed.route = LiveRoute(policy, [(Destination(passed.cluster, passed.breaker), 1)], now=now)
                for transition in passed.breaker.reconfigure(policy.breaker, now):
                    self._service.transitioned(transition)

    def tick(self, now: float) -> None:
        """Once a second: what only time brings about."""
        for passed in self._table.values():
            transition = passed.breaker.tick(now)
            if transition is not None:
                self._service.transitioned(transition)

    def close_all_idle(self) -> int:
        """Of connections. Returns how many there were."""
        return sum(passed.cluster.close_all_idle() for passed in self._table.values())

    def all_connections(self) -> list[Any]:
        """Those with upstreams, as `Cluster.all_connections`."""
        return [one for passed in self._table.values() for one in passed.cluster.all_connections()]

    def close(self) -> None:
        """The end of the process."""
        for key in list(self._table):
            self._drop(key)

    # Who may go where

    def find(self, request: Request, peer: tuple[str, int] | None) -> PassedDestination:
        """The destination of a request that no route takes.

        Raises:
            GivenUp: its listener passes nothing through, or not to there.
        """
        name = request.listener
        policy, listener = self._policies.get(name), self._listeners.get(name)
        if policy is None or listener is None:
            raise GivenUp(Reason.NO_ROUTE, "no route takes this request")
        asked = request.asked
        if asked is None or not asked.is_original:
            self._check_caller(listener, peer)
        endpoint = _named(request.host) if asked is None else Endpoint(asked.host, asked.port)
        self._check_destination(listener, endpoint, is_original=asked is not None and asked.is_original)
        self.passed += 1
        version = HttpVersion.HTTP1
        if asked is not None and request.traits.http_version == "2" and request.method != b"CONNECT":
            version = HttpVersion.HTTP2  # it would have spoken it to there
        return self._enter(listener, policy, endpoint, version)

    def is_loop(self, asked: Asked, peer: tuple[str, int] | None) -> bool:
        is_own = asked.port in self.own_ports() and is_local(asked.host)
        if is_own or (peer is not None and peer in self.sources):
            self.loops += 1
            self.tell_loop(asked)
            return True
        return False

    @staticmethod
    def _check_caller(listener: Listener, peer: tuple[str, int] | None) -> None:
        if listener.direction is Direction.INBOUND:
            # Whoever calls this pod must not choose, by `Host`, whom the pod calls.
            raise GivenUp(Reason.NO_ROUTE, "no route takes this request")
        if peer is not None and not is_local(peer[0]):
            detail = "no route takes this request, and only callers in this pod are passed through"
            raise GivenUp(Reason.NO_ROUTE, detail)

    def _check_destination(self, listener: Listener, endpoint: Endpoint, *, is_original: bool) -> None:
        """Who was intercepted goes where it was going: nobody has chosen that by a name or a field."""
        if is_original:
            return
        ports = listener.pass_through_ports
        if not endpoint.port or (ports and endpoint.port not in ports):
            self.closed += 1
            raise GivenUp(Reason.CLOSED_ADDRESS, f"port {endpoint.port} is none of pass_through_ports")
        if endpoint.is_literal and self._is_closed(endpoint):
            self.closed += 1
            raise _closed(endpoint)

    def _is_closed(self, endpoint: Endpoint) -> bool:
        return is_closed(endpoint.host, endpoint.port, is_local, self.own_ports())

    # The table

    def _enter(
        self, listener: Listener, policy: Route, endpoint: Endpoint, version: HttpVersion
    ) -> PassedDestination:
        key = listener.name, endpoint.host, endpoint.port, version
        passed = self._table.get(key)
        if passed is None:
            self._make_room()
            passed = self._table[key] = self._new(listener, policy, endpoint, version)
            if self.told < MOST_TOLD:
                self.told += 1
                self.tell(passed)
        self._table.move_to_end(key)
        passed.count += 1
        passed.last_at = self._service.clock()
        return passed

    def _make_room(self) -> None:
        if len(self._table) < self.most:
            return
        for key in list(islice(self._table, LOOKS_WHILE_FULL if self._is_full else None)):
            if self._table[key].is_unused:
                self.evicted += 1
                self._drop(key)
                self._is_full = False
                return
            # In use now: however long it lives, the others are looked at before it.
            self._table.move_to_end(key)
        self._is_full = True
        detail = f"{self.most} destinations that no route names are in use at once"
        raise GivenUp(Reason.OVERLOADED, detail, retry_after_seconds=1.0, is_own_lack=True)

    def _new(
        self, listener: Listener, policy: Route, endpoint: Endpoint, version: HttpVersion
    ) -> PassedDestination:
        cluster = self._new_cluster(
            Upstream(PASS_THROUGH, (endpoint,), protocol=version), listener.direction is Direction.INBOUND
        )
        breaker = self._new_breaker(str(endpoint), policy, cluster)
        route = LiveRoute(policy, [(Destination(cluster, breaker), 1)], now=self._service.clock())
        return PassedDestination(listener.name, endpoint, cluster, route)

    def _drop(self, key: Key) -> None:
        passed = self._table.pop(key)
        if passed.asking is not None:
            passed.asking.cancel()
        passed.breaker.retire()
        self._let_go(passed.cluster)

    # Addresses

    def is_known(self, passed: Passed, now: float) -> bool:
        """Whether there are addresses to connect to, which may still be believed."""
        assert isinstance(passed, PassedDestination)
        return now < passed.fresh_until

    def wait_for(self, passed: Passed, who: WaitsForAddress) -> None:
        """Have `who` told when its addresses are known, or why there are none. One look-up serves all who wait."""
        assert isinstance(passed, PassedDestination)
        passed.waiting.append(who)
        if passed.asking is None:
            asking = passed.asking = self._service.loop.create_task(self.names.look_up(passed.endpoint.host))
            asking.add_done_callback(lambda task: self._looked_up(passed, task))

    def _looked_up(self, passed: PassedDestination, task: asyncio.Task[Answer]) -> None:
        passed.asking = None
        error = self._take_answer(passed, task)
        waiting, passed.waiting = passed.waiting, []
        for who in waiting:
            self._service.turns.end(partial(who.found, error))

    def _take_answer(self, passed: PassedDestination, task: asyncio.Task[Answer]) -> GivenUp | None:
        """Use what may be used of an answer; returns why nothing may."""
        endpoint = passed.endpoint
        try:
            answer = task.result()
        except asyncio.CancelledError:
            return GivenUp(Reason.DNS_ERROR, f"{endpoint.host}: the listener passes nothing through any more")
        except TimeoutError:
            return self._without_answer(passed, Reason.DNS_TIMEOUT, "no answer from the nameservers")
        except LookupFailed as failure:
            return self._without_answer(passed, Reason.DNS_ERROR, str(failure))
        addresses = list(self._open_addresses(endpoint, answer))
        if not addresses:
            self.closed += 1
            return _closed(endpoint)
        # Where a family has no way out, half of all tries would fail: the app itself would have skipped them.
        usable = [one for one in addresses if is_reachable(one.host)]
        passed.cluster.set_addresses(endpoint, usable or addresses)
        passed.fresh_until = self._service.clock() + (answer.ttl_seconds or 0.0)
        return None

    def _open_addresses(self, endpoint: Endpoint, answer: Answer) -> Iterator[Endpoint]:
        for address in answer.addresses:
            one = Endpoint(address, endpoint.port, name=endpoint.host)
            if not self._is_closed(one):
                yield one

    @staticmethod
    def _without_answer(passed: PassedDestination, reason: Reason, detail: str) -> GivenUp | None:
        """What was known before holds on, as for every name (`upstream/resolver.py`)."""
        return None if passed.cluster.pools else GivenUp(reason, f"{passed.endpoint.host}: {detail}")


def _named(authority: bytes) -> Endpoint:
    """Raises: GivenUp."""
    host = normal_host(authority).decode("ascii")
    if not host:
        raise GivenUp(Reason.NO_ROUTE, "no route takes this request, and it names no host")
    return Endpoint(host, asked_port(authority, HTTP_PORT))


def _closed(endpoint: Endpoint) -> GivenUp:
    return GivenUp(
        Reason.CLOSED_ADDRESS, f"{endpoint}: loopback, link-local, metadata and own ports are closed"
    )
