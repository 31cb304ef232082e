"""What stands around the data path: configuration, names, admin API, probes, telemetry, supervision, the drain.

Nothing here is asked while an exchange is under way. Each long-lived part is supervised (`actor.py`); the order in
which they start and end is the composition root's (`worker.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sidecar.admin.probes import Probes
from sidecar.admin.process import Ending
from sidecar.admin.recent import Recent
from sidecar.admin.server import AdminServer
from sidecar.admin.tap import Taps
from sidecar.config.watch import warning_of_own_mount
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.failover import FailoverChange
from sidecar.core.listing import EndpointsChange
from sidecar.core.outcomes.store import outcome_bytes
from sidecar.core.request import Asked
from sidecar.core.retry import causes_at
from sidecar.core.snapshot import PASS_THROUGH, Endpoint, Snapshot
from sidecar.core.sources import Sources
from sidecar.core.ties import advice
from sidecar.downstream.phase import LAST_CALL_SECONDS
from sidecar.downstream.pressure import Told
from sidecar.forwarding.passing import PassedDestination
from sidecar.runtime import sources
from sidecar.runtime.actor import Part, PartFailed, Parts
from sidecar.runtime.administered import Administered
from sidecar.runtime.certificates import HandshakesTold, Rotation, rotating
from sidecar.runtime.drain import Drain
from sidecar.runtime.endpoint_sources import EndpointSources
from sidecar.runtime.file_limits import warning_of_limit
from sidecar.runtime.fleet.membership import Membership
from sidecar.runtime.foundation import Foundation, Ground
from sidecar.runtime.health import CAPACITY as HEALTH_CAPACITY
from sidecar.runtime.health import HealthChecking
from sidecar.runtime.memory_watch import MemoryWatch, budget_bytes, most_routes
from sidecar.runtime.parts import Served, every_second, keeping_alive
from sidecar.runtime.reload import Active, Install, Outcome, Reloading, Request, Watching, already_set
from sidecar.runtime.report import report_failover, report_fleet, report_overload, report_reload
from sidecar.telemetry.log_lines import Level
from sidecar.upstream.app_probe import ENVIRONMENT as APP_PROBES

if TYPE_CHECKING:
    from sidecar.runtime.fleet.link import LinkNumbers
    from sidecar.runtime.fleet.side import FleetSide

LAST_LINE_SECONDS: Final = 0.5
"""For the log's thread to write what waits, where a second signal leaves no more time."""


class Control:
    """The control of one data path."""

    def __init__(
        self,
        snapshot: Snapshot,
        ground: Ground,
        foundation: Foundation,
        lists: EndpointSources,
        path: str | None,
        install: Install | None = None,
        replica: str | None = None,
    ) -> None:
        """`path` is the file or directory that `snapshot` was loaded from: it is watched. None: nothing is.
        `install`: see `Active`. `replica`: what all processes of a pod are called by their fleet; None: this is the
        only one."""
        datapath, rooms, limits = foundation.datapath, foundation.rooms, ground.limits
        self.path = path
        self.may_reload = already_set()
        """See `settle`."""
        self.events = foundation.events
        self.is_overseen = False
        """Another process checks the health of endpoints, and keeps what came of routes of late, for this one too."""
        datapath.service.on_news = self._upstreams_news
        self.rooms = rooms
        self._started_at: float | None = None
        """When it took traffic; None before."""
        self.active = Active(snapshot, datapath, install)
        self.drain = Drain(datapath.service, datapath.listeners, snapshot.drain)
        self.drain.on_cut = self._tell_cut
        self._datapath = datapath
        self._limits = limits
        self._container = ground.container
        self.parts = Parts(self._part_failed)
        clock, sockets = datapath.service.clock, datapath.listeners.sockets
        self.rotation = Rotation(lambda: rotating(datapath), clock, self._event)
        self._handshakes = HandshakesTold(sockets.values, clock, self._event)
        self._is_in_fleet = False
        self.fleet = Membership(self._fleet_side)
        self._replica = replica
        self.administered = Administered(
            datapath,
            self.active,
            self.drain,
            self.parts,
            rooms,
            self.rotation,
            lists,
            self.fleet,
            reload=self.reload,
            sources=self.sources,
        )
        self.taps.changed = self._report
        self.probes = Probes(self.administered, ground.environ.get(APP_PROBES, ""))
        self.admin = AdminServer(self.administered, self.events)
        self._servers = {"admin": self.admin.server, "probes": self.probes.server}
        for server in self._servers.values():
            server.max_connections = limits.max_server_connections
        self._served_probes = Served(self.probes, snapshot.probes)
        self._served_admin = Served(self.admin, snapshot.admin.address)
        datapath.pressure.tell = self._overloaded
        datapath.assembly.passing.own_ports = self._own_ports
        datapath.assembly.passing.tell = self._passed
        datapath.assembly.passing.tell_loop = self._looped
        self._lists = lists
        lists.tell = self._endpoints_changed
        lists.tell_error = self._endpoints_troubled
        self._add_parts()
        if path is not None:
            self._add_reloading(path, ground.environ)

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in use."""
        return self.active.snapshot

    @property
    def taps(self) -> Taps:
        """Who reads `/tap`."""
        return self.administered.taps

    @property
    def recent(self) -> Recent:
        """What came of the routes in the last ten minutes."""
        return self.administered.recent

    def sources(self) -> Sources:
        """Called from telemetry's threads: reads, and changes nothing."""
        config = self.active.numbers(self._datapath.service.clock())
        return sources.collect(
            self._datapath,
            config,
            self._servers,
            self.rooms.dropped(),
            self.rotation,
            self.rooms.resource,
            self.fleet.numbers(),
            self.rooms.settings,
        )

    # The order of a life

    def start_telemetry(self) -> None:
        """The first of all, so that whatever goes wrong is told."""
        self.rooms.room.start()
        self.parts.start("telemetry")
        warning = warning_of_own_mount(self.path) if self.path is not None else None
        if warning is not None:
            self._event(Level.WARNING, "config.mount", warning)

    def start_lists(self) -> None:
        """Who knows endpoints."""
        for name in self._lists.parts:
            self.parts.start(name)

    async def join_fleet(self) -> None:
        """Where breakers act as one with those of other replicas: begin with the state that these have, if they say
        so soon. Whoever serves nothing does not join."""
        self._is_in_fleet = True
        self.adopt_fleet()
        await self.fleet.met()

    def adopt_fleet(self) -> None:
        """After each new configuration: let breakers join and leave."""
        if self._is_in_fleet:
            self.fleet.adopt(self.snapshot, self._datapath.assembly.breakers)

    async def start_servers(self) -> None:
        """Probes and admin API.

        Raises:
            OSError: an address cannot be bound.
        """
        self.expect_series()  # before anybody can scrape
        await self._served_admin.start()
        self.parts.start("admin")
        # The last: nobody hears from a process that cannot start that it ends.
        await self._served_probes.start()
        self.parts.start("probes")

    async def settle(self) -> None:
        """Take what stands in the file now, and nothing more until `go_on`. Comes before another process is started
        with it and with all sockets that listen: an address that is new would be bound here a moment later, and could
        not be had there."""
        # There may be no file, or no time: then nothing is bound here.
        with contextlib.suppress(RuntimeError, Ending):
            await self.reload("signal")
        self.may_reload.clear()

    def go_on(self) -> None:
        """No other process takes over: what has come into the file meanwhile is for this one."""
        self.may_reload.set()

    def listening(self) -> list[socket.socket]:
        """What probes and admin API listen on."""
        found = [server.listening for server in self._servers.values()]
        return [one for one in found if one is not None]

    async def hand_on(self) -> None:
        """Another process answers probes and admin API, on the same sockets: leave these to it, and drain after that,
        so that nobody hears from this one that it is not ready."""
        for server in self._servers.values():
            server.leave()
        await self.stop_reloading()  # what it would bind, the other one needs
        await asyncio.sleep(LAST_CALL_SECONDS)  # for requests of those that have connected
        for name in ("probes", "admin"):
            await self.parts.end(name)
        self.drain.replaced()

    def start_reloading(self) -> None:
        """When the data path serves: housekeeping, and new configurations."""
        self.parts.start("housekeeper")
        self.parts.start("memory")
        if not self.is_overseen:
            self.parts.start("health")
            self.parts.start("recent")
        self.parts.start("certificates")
        if self.path is not None:
            self.parts.start("reload")
            self.parts.start("watch")
        self._tell_start()

    async def stop_reloading(self) -> None:
        """Take no new configuration any more, and tell those who wait for one."""
        for name in ("watch", "reload"):
            await self.parts.end(name)
        if self.path is not None:
            for message in self.parts["reload"].mailbox.take_all():
                if isinstance(message, Request):
                    message.fail(Ending())

    async def stop_telemetry(self) -> None:
        """The last of all; it has 2 s to send what it has."""
        if self._started_at is not None:
            self._tell_end(self._started_at)
        await asyncio.get_running_loop().run_in_executor(None, self.rooms.room.stop)

    # What may be asked for

    async def reload(self, trigger: str = "api") -> Outcome:
        """Load the configuration again, and put it in place if it is good.

        Raises:
            RuntimeError: there is no file to load, or too many ask at once, or the reload broke off.
            Ending: the process drains.
        """
        if self.drain.has_begun:
            raise Ending
        if not self._datapath.is_serving or self.path is None:
            raise RuntimeError("there is nothing to reload")
        reply: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if not self.parts["reload"].tell(Request(trigger, reply)):
            raise RuntimeError("too many reloads are waiting")
        return await reply

    def reload_for_signal(self) -> None:
        """SIGHUP: the outcome is for the log."""
        self.parts["reload"].tell(Request("signal"))

    # The parts

    def _add_parts(self) -> None:
        add = self.parts.add
        add(Part("telemetry", keeping_alive(lambda: self.rooms.room.is_alive(), self._renew_telemetry)))
        for name, run in self._lists.parts.items():
            add(Part(name, run))
        add(Part("probes", self._served_probes.run))
        add(Part("admin", self._served_admin.run))
        add(Part("recent", self.administered.recent.run))
        add(Part("housekeeper", every_second(self._tick)))
        add(Part("certificates", self.rotation.run))
        service, assembly = self._datapath.service, self._datapath.assembly
        self.health = HealthChecking(service, lambda: assembly.clusters)
        add(Part("health", self.health.run, capacity=HEALTH_CAPACITY))
        add(
            Part("memory", MemoryWatch(service.memory, self._container, service.clock, self._tell_memory).run)
        )

    def _add_reloading(self, path: str, environ: Mapping[str, str]) -> None:
        clock = self._datapath.service.clock
        most = most_routes(self._container)
        reloading = Reloading(self.active, path, environ, clock, self._reloaded, most, self.may_reload)
        reload = self.parts.add(Part("reload", reloading.run))
        self.parts.add(Part("watch", Watching(self.active, path, clock, reload.tell).run))

    def _tick(self) -> None:
        self._datapath.tick()
        self._handshakes.tick()
        ties = self._datapath.service.callers.ties
        if ties.has_news():
            self._event(Level.WARNING, "deadline.untied", advice(ties.untied), {"calls": ties.untied})

    def _part_failed(self, failure: PartFailed) -> None:
        """Let what is under way finish, and end: an orchestrator starts a process whose parts all work."""
        self._event(Level.ERROR, "part.failed", str(failure))
        self.drain.begin("the failure of a part")

    def _reloaded(self, outcome: Outcome) -> None:
        if outcome.is_success:
            self.adopt()
            self.adopt_fleet()
        self.parts["watch"].tell(outcome)
        report_reload(outcome, self.rooms.room)
        self.events.reloaded(self.administered.summary(outcome))

    def adopt(self) -> None:
        """Another snapshot is in use: heed what it says of the process."""
        self.expect_series()
        self.rooms.numbers.max_series = self.snapshot.limits.series
        self.rooms.numbers.retain(self.route_names())
        self.drain.policy = self.snapshot.drain
        memory_bytes = budget_bytes(self.snapshot.limits, self._container)
        self._datapath.service.memory.resize(memory_bytes)
        self._datapath.assembly.outcomes.resize(outcome_bytes(memory_bytes))

    def route_names(self) -> set[str]:
        """Of all that may be counted."""
        return {PASS_THROUGH, *(route.name for route in self.snapshot.routes)}

    def expect_series(self) -> None:
        """What may be counted has its series from birth: an increase from nothing cannot be seen."""
        routes = {route.name: route for route in self.snapshot.routes}
        for name, upstream in list(self._datapath.assembly.breakers):
            route = routes.get(name)
            if route is not None:
                causes = causes_at(route, upstream, self.snapshot.upstreams)
                self.rooms.numbers.expect(name, route.listener, upstream, causes)

    def _renew_telemetry(self) -> None:
        self.rooms.renew()
        self._report()

    def _report(self) -> None:
        """Have the data path tell those who want to know now."""
        room = self.rooms.room
        self._datapath.report_to(self.taps.observing(room.observer), room.decide)

    # What is told

    def _tell_start(self) -> None:
        """Breakers live in memory: whoever looks for the reason of a closed one after a crash finds it here."""
        limits, snapshot = self._limits, self.snapshot
        self._started_at = self._datapath.service.clock()
        message = f"started with {len(snapshot.routes)} routes; every breaker begins afresh"
        sockets = self._datapath.listeners.sockets
        fields = {
            "pid": os.getpid(),
            "listeners": {name: str(one.address) for name, one in sockets.items()},
            "files": list(snapshot.files),
            "open_files": limits.open_files,
            "max_open_connections": limits.max_open_connections,
            "memory_budget_bytes": self._datapath.service.memory.limit_bytes,
        }
        self._event(Level.INFO, "process.started", message, fields)
        warning = warning_of_limit(limits, snapshot)
        if warning is not None:
            self._event(Level.WARNING, "process.open_files", warning)

    def _upstreams_news(self, change: EndpointChange | FailoverChange) -> None:
        if isinstance(change, EndpointChange):  # which observers have heard already
            self.events.endpoint_changed(change)
            return
        level, kind, message, fields = report_failover(change)
        self._event(level, kind, message, fields)
        self.events.failed_over(change)

    def _tell_end(self, started_at: float) -> None:
        """So that an end which was meant can be told from a crash, which leaves no such line."""
        failure, drain = self.parts.failure, self.drain
        if failure is not None:
            self._ended(Level.ERROR, str(failure), started_at)
            return
        asked = f" by {drain.asked_by}, {drain.seconds:.1f} s ago" if drain.has_begun else ""
        self._ended(Level.INFO, f"as it was asked to{asked}", started_at)

    def _tell_cut(self) -> None:
        """The last words of a process that does not wait for what is under way, nor for its own threads."""
        if self._started_at is not None:
            count = len(self._datapath.service.exchanges)
            self._ended(Level.ERROR, f"by a second signal: {count} exchanges are cut", self._started_at)
            self.rooms.room.log.flush(time.monotonic() + LAST_LINE_SECONDS)

    def _ended(self, level: Level, why: str, started_at: float) -> None:
        seconds = self._datapath.service.clock() - started_at
        fields = {
            "pid": os.getpid(),
            "signal": self.drain.signal,
            "uptime_seconds": round(seconds, 3),
            "drain_seconds": round(self.drain.seconds, 3),
        }
        self._event(level, "process.ended", f"ended after {seconds:.0f} s: {why}", fields)

    def _fleet_side(self) -> FleetSide:
        from sidecar.runtime.fleet.side import FleetSide  # see `imports.py`

        service = self._datapath.service
        told, linked = service.transitioned, self._fleet_linked
        return FleetSide(self.parts, service.clock, self.rooms.resource, told, linked, self._replica)

    def _fleet_linked(self, numbers: LinkNumbers) -> None:
        level, kind, message, fields = report_fleet(self.fleet.side().name, numbers)
        self._event(level, kind, message, fields)

    def _overloaded(self, told: Told) -> None:
        level, kind, message, fields = report_overload(told)
        self._event(level, kind, message, fields)

    def _own_ports(self) -> frozenset[int]:
        """Where this process listens, or the one that has probes and admin API for it; 0 stands for UNIX sockets."""
        listening = [socket.address.port for socket in self._datapath.listeners.sockets.values()]
        started = self.active.started_with
        asked = started.admin.address.port, started.probes.port
        return frozenset((*listening, *asked, *(server.bound_port for server in self._servers.values())))

    def _passed(self, passed: PassedDestination) -> None:
        told = f"{passed.endpoint}: no route names it; passed through"
        fields = {"listener": passed.listener, "destination": str(passed.endpoint)}
        self._event(Level.INFO, "pass_through.first", told, fields)

    def _looped(self, asked: Asked) -> None:
        """Each is reset; the log has the first of them, then one for each time that there are twice as many."""
        loops = self._datapath.assembly.passing.loops
        if loops & (loops - 1):
            return
        told = (
            f"a connection to {asked.host}:{asked.port} came back to this sidecar, and was reset: the rules of its "
            "interception must leave out what it sends itself (`sidecar intercept --uid`), and its own ports"
        )
        self._event(Level.ERROR, "pass_through.loop", told, {"loops": loops})

    def _endpoints_changed(self, change: EndpointsChange) -> None:
        self.events.endpoints_changed(change)
        fields = {"entry": change.entry, "added": len(change.added), "removed": len(change.removed)}
        self._event(Level.DEBUG, "endpoints.changed", change.told, fields)

    def _endpoints_troubled(self, entry: Endpoint, error: str | None) -> None:
        fields = {"entry": str(entry)}
        if error is None:
            self._event(Level.INFO, "endpoints.listed", f"{entry}: its endpoints are listed again", fields)
        else:
            message = f"{entry}: the endpoints stay as they are: {error}"
            self._event(Level.WARNING, "endpoints.not_listed", message, fields)

    def _tell_memory(self, message: str, closed: dict[str, int]) -> None:
        self._event(Level.WARNING, "connections.closed", message, closed)

    def tell(self, level: Level, kind: str, message: str, fields: Mapping[str, object] | None = None) -> None:
        """In the event log."""
        self._event(level, kind, message, fields)

    def _event(
        self, level: Level, kind: str, message: str, fields: Mapping[str, object] | None = None
    ) -> None:
        self.rooms.room.log.event(level, kind, message, fields or {}, self._datapath.service.clock())
