"""Which inbound listener stands for an endpoint that is this very pod (SPEC-PROTOCOLS 13, "Identity").

Whoever calls another pod is met by its inbound listener. A call to our own pod would go past it, since the rules of
an interception leave out what the sidecar sends. So such a connection is made within the process, to the listener
that callers from elsewhere meet there: the one at that port; or, where connections are intercepted
(`unmatched: pass_through`), the one whose routes lead to the app that stands at it.

What inbound routes lead to is the app itself, and always reached directly. So nothing goes round: a call goes in
once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import field
from socket import socket as Socket

from sidecar.core.dataclass import dataclass
from sidecar.core.request import Asked
from sidecar.core.snapshot import (
    ORIGINAL,
    Address,
    Direction,
    Endpoint,
    Route,
    Snapshot,
    Source,
    Unmatched,
)
from sidecar.downstream.listener import ListenerSocket
from sidecar.transport.namespace import is_local, is_pods
from sidecar.upstream.cluster import Cluster

STEP = 50
"""Routes between two pauses."""
_ANY_PORT = 0
"""In the place of one that only the app's endpoints can tell."""

_Door = tuple[str, str | None]
"""A listener, and the upstream that has to stand at the port; None: whoever does."""


@dataclass(slots=True)
class InboundRoutes:
    """What the routes of all inbound listeners say together."""

    apps: set[str] = field(default_factory=set)
    """Upstreams that they lead to."""
    doors: dict[int, dict[_Door, None]] = field(default_factory=dict)
    """By port of the pod, in the order of the file."""

    @classmethod
    def in_steps(cls, snapshot: Snapshot) -> Generator[None, None, InboundRoutes]:
        found = cls()
        for number, route in enumerate(snapshot.routes):
            if route.direction is Direction.INBOUND:
                found._add(route, snapshot)
            if number % STEP == 0:
                yield
        return found

    def _add(self, route: Route, snapshot: Snapshot) -> None:
        self.apps.update(route.asked_upstreams(snapshot.upstreams))
        if route.mirror is not None:
            self.apps.add(route.mirror.upstream)
        if snapshot.listeners[route.listener].unmatched is Unmatched.PASS_THROUGH:
            for port, upstream in _ports(route, snapshot):
                self.doors.setdefault(port, {})[route.listener, upstream] = None

    def at(self, port: int) -> Iterator[_Door]:
        """Who may stand for this port."""
        yield from self.doors.get(port, ())
        yield from self.doors.get(_ANY_PORT, ())


def _ports(route: Route, snapshot: Snapshot) -> Iterator[tuple[int, str | None]]:
    """Of the pod, at which callers are that the route takes: those that its matches ask for, else the app's."""
    asked = {match.port for match in route.matches}
    yield from ((port, None) for port in asked if port is not None)
    for name, _ in route.upstreams if None in asked else ():
        for entry in snapshot.upstreams[name].endpoints:
            if entry == ORIGINAL:
                yield _ANY_PORT, None
            elif entry.path is None:
                yield entry.port if entry.source is Source.ADDRESS else _ANY_PORT, name


class OwnPod:
    """Of one process; `routes` are those of the snapshot in use."""

    def __init__(
        self,
        sockets: Mapping[str, ListenerSocket],
        clusters: Callable[[], Mapping[str, Cluster]],
        own_ports: Callable[[], Collection[int]],
    ) -> None:
        """All three as they are now: listening sockets and upstreams by name, and the ports that this process listens
        on."""
        self._sockets = sockets
        self._clusters = clusters
        self._own_ports = own_ports
        self.routes = InboundRoutes()
        self.is_pods: Callable[[str], bool] = is_pods
        """Whether an address is one of this pod's, loopback excepted: who names that means the app."""

    def reach(self, endpoint: Endpoint, is_secured: bool) -> Socket | None:
        """A connection to the listener that stands for `endpoint`; None where none does. By TLS if that is what the
        listener speaks, and else not: where the two differ it is another way that the caller means.

        Raises:
            OSError: there is no room for another connection.
        """
        for listener, asked in self._standing_for(endpoint):
            if listener.queues.accepts_own and (listener.served is not None) is is_secured:
                return listener.take_in_process(endpoint.host, asked) if self.is_pods(endpoint.host) else None
        return None

    def _standing_for(self, endpoint: Endpoint) -> Iterator[tuple[ListenerSocket, Asked | None]]:
        host, port = endpoint.host, endpoint.port
        for listener in self._sockets.values():
            if listener.policy.direction is Direction.INBOUND and _listens_at(listener.address, host, port):
                yield listener, None
        for name, upstream in self.routes.at(port):
            found = self._sockets.get(name)
            if found is not None and self._stands_at(upstream, port):
                yield found, Asked(host, port, is_original=True)

    def _stands_at(self, upstream: str | None, port: int) -> bool:
        if port in self._own_ports():
            return False
        cluster = None if upstream is None else self._clusters().get(upstream)
        if cluster is None:
            return upstream is None
        return any(pool.endpoint.port == port and is_local(pool.endpoint.host) for pool in cluster.pools)


def _listens_at(address: Address, host: str, port: int) -> bool:
    if address.port != port or address.path is not None:
        return False
    if address.host == "::":
        return not address.is_v6_only or ":" in host
    return address.host == host or (address.host == "0.0.0.0" and ":" not in host)
