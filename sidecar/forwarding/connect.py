"""The story of a tunnel that no upgrade made: a CONNECT, or a connection that carries no HTTP (SPEC-PROTOCOLS 14).

To everybody else it is an exchange: its connecting is judged by a breaker, bound by limits and by a deadline; from
then on it is a tunnel, counted in bytes and time. It is connected before its client is told anything, so that a
failure is the CONNECT's own status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.errors import Reason
from sidecar.core.hosts import asked_port
from sidecar.forwarding import guards
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.meant import MeantRace
from sidecar.forwarding.trace import Trace
from sidecar.upstream.raw import RawPool

if TYPE_CHECKING:
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.race import Race
    from sidecar.forwarding.service import Passed
    from sidecar.upstream.cluster import AnyPool, Cluster


class TunnelRace(MeantRace):
    """Its attempts open a connection of their own, and send nothing."""

    __slots__ = ()

    def _pool(self, cluster: Cluster, pool: AnyPool | None) -> AnyPool | None:
        chosen = super()._pool(cluster, pool)
        return None if chosen is None else RawPool(chosen)


class TunnelExchange(Exchange):
    """One tunnel. Its request is a CONNECT, whatever made it.

    Who begins it sets `route` where a route's upstream is to get the bytes; else they go where they were going."""

    __slots__ = ()

    def begin(self, refusal: GivenUp | None = None) -> None:
        service, request = self.service, self.request
        now = self.started = self.moved_at = service.clock()
        service.exchanges.add(self)
        trace = self.trace = Trace()
        if request.listener in service.strangers:
            trace.begin_anew(service, request.lookup)
        else:
            trace.begin(service, request.lookup)
        if refusal is not None and not refusal.is_own_lack:
            self.fail(refusal)
            return
        try:
            self._connect(self.route, refusal, now)
        except GivenUp as error:
            self.fail(error)

    def _connect(self, route: LiveRoute | None, refusal: GivenUp | None, now: float) -> None:
        """Raises: GivenUp."""
        service = self.service
        passed = None
        if route is None:
            passed = self._passed_through()
            route = passed.route
        self.route = route
        self.route_name = route.name
        if len(service.exchanges) > service.crowd:
            guards.check_room(self, route)
        self._take_deadline(route, {}, now)  # no field bounds a tunnel
        if self.request.listener in service.shut.every:
            guards.check_listener(self, route, refusal)
        if passed is not None and not service.passing.is_known(passed, now):
            service.passing.wait_for(passed, self)
            return
        race = self.race = self._new_race()
        race.start(self, self.stream, route, route.choose(service.rng), now)

    def _passed_through(self) -> Passed:
        """Raises: GivenUp."""
        try:
            return self.service.passing.find(self.request, self.stream.peer)
        except GivenUp as error:
            if error.reason is not Reason.NO_ROUTE:
                raise
            raise GivenUp(Reason.METHOD_NOT_ALLOWED, self._why_not()) from None

    def _why_not(self) -> str:
        request = self.request
        table = self.service.tables.get(request.listener)
        if table is not None and table.takes_host(request.host, asked_port(request.host, 0)):
            return (
                "a route takes this host, but a CONNECT to it by HTTP/1.1 in clear text alone: "
                "connect so, or send the request itself"
            )
        return "no route takes this CONNECT, and its listener passes nothing through"

    def _new_race(self) -> Race:
        return TunnelRace()
