"""The composition root of one process: builds, wires, starts and stops everything. Nothing imports it but `cli`.

Start order: telemetry, resolver, data path, listeners, probes, reloading; stop order is the reverse. All live
state is owned by this process's event loop (`sidecar/README.md`, "Concurrency"); what lives long is a supervised
part.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping

from sidecar.admin.events import Events
from sidecar.admin.probes import Probes
from sidecar.admin.process import Ending
from sidecar.admin.server import AdminServer
from sidecar.config.watch import warning_of_own_mount
from sidecar.core.callers import Callers
from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import Endpoint, Snapshot
from sidecar.core.sources import Sources
from sidecar.core.tracecontext import IdSource
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.service import Service
from sidecar.forwarding.sweep import Sweep
from sidecar.runtime import file_limits, memory, sources
from sidecar.runtime.actor import Part, PartFailed, Parts
from sidecar.runtime.administered import Administered
from sidecar.runtime.assembly import Assembly
from sidecar.runtime.drain import Drain
from sidecar.runtime.file_limits import FileLimits, warning_of_limit
from sidecar.runtime.listeners import Listeners
from sidecar.runtime.parts import Served, every_second, keeping_alive
from sidecar.runtime.reload import Active, Outcome, Reloading, Request, Watching
from sidecar.runtime.report import report_reload
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.room import TelemetryRoom
from sidecar.upstream.resolver import Resolver

Lost = dict[tuple[str, str], int]
"""Telemetry that was lost, by (signal, reason)."""
FIRST_RESOLUTION_SECONDS = 2.0
"""How long the start waits for the upstreams' names; what is unknown then answers `dns_error` until it is."""

_LOG = logging.getLogger("sidecar.runtime")


class Worker:
    """One process's data path with all that stands around it."""

    def __init__(
        self,
        snapshot: Snapshot,
        environ: Mapping[str, str],
        *,
        path: str | None = None,
        log_fd: int = 1,
        clock: Callable[[], float] = time.monotonic,
        limits: FileLimits | None = None,
    ) -> None:
        """`log_fd` gets the access log and events; `clock` is monotonic seconds, the loop's own in tests.

        `limits` is what the process may have open; None: as it is.

        `path` is the file or directory that `snapshot` was loaded from: it is watched. None: nothing is.
        """
        loop = asyncio.get_running_loop()
        rng = random.Random()
        self._environ = environ
        self._log_fd = log_fd
        self._secret = os.urandom(32)
        self._limits = limits or file_limits.present()
        self.path = path
        live: set[Exchange] = set()
        self.numbers = Numbers(live)
        self.events = Events()
        self.telemetry = self._make_telemetry(snapshot)
        self._rooms: tuple[Lost, tuple[TelemetryRoom, ...]] = {}, (self.telemetry,)
        """What rooms lost that have ended, and those that may still lose something, the present one last. Replaced as
        a whole, since a collecting thread reads it."""
        self.service = Service(
            loop=loop,
            clock=clock,
            rng=rng,
            ids=IdSource(),
            observe=self.telemetry.observer,
            sweep=Sweep(loop, clock),
            callers=Callers(),
            decide=self.telemetry.decide,
            exchanges=live,
            max_open_connections=self._limits.max_open_connections,
        )
        self.resolver = Resolver(self._addresses_changed, rng=rng)
        self.assembly = Assembly(self.service, self.resolver, rng)
        self._listeners = Listeners(self.service)
        self.active = Active(snapshot, clock, self.assembly, self._listeners)
        self.probes = Probes(self)
        self.drain = Drain(self.service, self._listeners, snapshot.drain)
        self.parts = Parts(self._part_failed)
        self._served_probes = Served(self.probes, snapshot.probes)
        self._administered = Administered(self)
        self.admin = AdminServer(self._administered, self.events)
        self._served_admin = Served(self.admin, snapshot.admin.address)
        for server in (self.probes.server, self.admin.server):
            server.max_connections = self._limits.max_server_connections
        self._add_parts()
        self.is_started = False

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in use."""
        return self.active.snapshot

    @property
    def listeners(self) -> dict[str, ListenerSocket]:
        return self._listeners.sockets

    @property
    def is_ready(self) -> bool:
        return self.is_started and not self.service.is_draining

    async def run(self) -> None:
        """Serve until a signal, `drain` or a part's failure ends it.

        Raises:
            OSError: a listener's address cannot be bound.
            PartFailed: a part crashed too often; what was under way has been drained.
        """
        self._handle_signals()
        try:
            await self.start()
            memory.settle_all()
            await self.drain.begun()
            await self._stop_reloading()  # what comes now would open what is being closed
            await self.drain.wait()
        finally:
            await self.stop()
        if self.parts.failure is not None:
            raise self.parts.failure

    async def start(self) -> None:
        """Start everything, in order.

        Raises:
            OSError: an address cannot be bound.
        """
        self.telemetry.start()
        self.parts.start("telemetry")
        self._warn_of_own_mount()
        self.assembly.apply(self.snapshot)
        self.parts.start("resolver")
        await self._first_resolution()
        await self._served_probes.start()
        self.parts.start("probes")
        await self._served_admin.start()
        self.parts.start("admin")
        self._listeners.commit(await self._listeners.prepare(self.snapshot), self.snapshot)
        self.parts.start("housekeeper")
        if self.path is not None:
            self.parts.start("reload")
            self.parts.start("watch")
        self.is_started = True
        self._tell_start()

    async def stop(self) -> None:
        """Stop everything, in the reverse order."""
        self.is_started = False
        await self._stop_reloading()
        self._listeners.close()
        await self.parts.stop()
        self.assembly.retire()
        self.service.sweep.close()
        await self.service.loop.run_in_executor(None, self.telemetry.stop)

    async def _stop_reloading(self) -> None:
        for name in ("watch", "reload"):
            await self.parts.end(name)
        if self.path is not None:
            for message in self.parts["reload"].mailbox.take_all():
                if isinstance(message, Request):
                    message.fail(Ending())

    async def reload(self, trigger: str = "api") -> Outcome:
        """Load the configuration again, and put it in place if it is good.

        Raises:
            RuntimeError: there is no file to load, or too many ask at once, or the reload broke off.
            Ending: the process drains.
        """
        reply: asyncio.Future[Outcome] = self.service.loop.create_future()
        if self.drain.has_begun:
            raise Ending
        if not self.is_started or self.path is None:
            raise RuntimeError("there is nothing to reload")
        if not self.parts["reload"].tell(Request(trigger, reply)):
            raise RuntimeError("too many reloads are waiting")
        return await reply

    def sources(self) -> Sources:
        """Called from telemetry's threads: reads, and changes nothing."""
        return sources.collect(self)

    def _add_parts(self) -> None:
        self.parts.add(Part("telemetry", keeping_alive(self._is_telemetry_alive, self._renew_telemetry)))
        self.parts.add(Part("resolver", lambda _: self.resolver.run()))
        self.parts.add(Part("probes", self._served_probes.run))
        self.parts.add(Part("admin", self._served_admin.run))
        self.parts.add(Part("housekeeper", every_second(self._tick)))
        if self.path is None:
            return
        clock = self.service.clock
        reloading = Reloading(self.active, self.path, self._environ, clock, self._reloaded)
        reload = self.parts.add(Part("reload", reloading.run))
        self.parts.add(Part("watch", Watching(self.active, self.path, clock, reload.tell).run))

    def _handle_signals(self) -> None:
        loop = self.service.loop
        loop.add_signal_handler(signal.SIGTERM, self.drain.terminated)
        loop.add_signal_handler(signal.SIGINT, self.drain.interrupted)
        if self.path is not None:
            loop.add_signal_handler(signal.SIGHUP, self.parts["reload"].tell, Request("signal"))

    def _part_failed(self, failure: PartFailed) -> None:
        """Let what is under way finish, and end: an orchestrator starts a process whose parts all work."""
        self._event(Level.ERROR, "part.failed", str(failure))
        self.drain.begin()

    def _reloaded(self, outcome: Outcome) -> None:
        if outcome.is_success:
            self.numbers.retain({route.name for route in self.snapshot.routes})
            self.drain.policy = self.snapshot.drain
        self.parts["watch"].tell(outcome)
        report_reload(outcome, self.telemetry)
        self.events.reloaded(self._administered.summary(outcome))

    def _addresses_changed(self, name: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        self.assembly.addresses_changed(name, addresses)

    async def _first_resolution(self) -> None:
        deadline = self.service.clock() + FIRST_RESOLUTION_SECONDS
        while self.service.clock() < deadline and not all(  # noqa: ASYNC110  (clusters tell nobody)
            cluster.pools for cluster in self.assembly.clusters.values()
        ):
            await asyncio.sleep(0.01)

    def _tick(self) -> None:
        self.assembly.tick(self.service.clock())
        self._listeners.tick()

    def _make_telemetry(self, snapshot: Snapshot, instead_of: TelemetryRoom | None = None) -> TelemetryRoom:
        return TelemetryRoom(
            snapshot.telemetry,
            self.numbers,
            self.sources,
            environ=self._environ,
            log_fd=self._log_fd,
            secret=self._secret,
            instead_of=instead_of,
            on_transition=self.events.transitioned,
        )

    def _is_telemetry_alive(self) -> bool:
        return self.telemetry.is_alive()

    def _renew_telemetry(self) -> None:
        """A thread that has ended cannot be started again: a new room goes on with the same numbers."""
        ended = self.telemetry
        self.telemetry = self._make_telemetry(self.active.started_with, instead_of=ended)
        self.service.observe = self.telemetry.observer
        self.service.decide = self.telemetry.decide
        self.telemetry.start()
        lost, rooms = self._rooms
        self._rooms = lost, (*rooms, self.telemetry)
        stopping = self.service.loop.run_in_executor(None, ended.stop)
        stopping.add_done_callback(lambda _: self._forget_room(ended))

    def _forget_room(self, ended: TelemetryRoom) -> None:
        """It loses nothing more: what it lost is kept, and not the room."""
        lost, rooms = self._rooms
        self._rooms = (
            Counter(lost) + Counter(ended.dropped()),
            tuple(room for room in rooms if room is not ended),
        )

    def telemetry_dropped(self) -> Lost:
        """What was lost since the start, by (signal, reason): also by rooms that a new one stands for."""
        lost, rooms = self._rooms
        counts = Counter(lost)
        for room in rooms:
            counts.update(room.dropped())
        return counts

    def _tell_start(self) -> None:
        """Breakers live in memory: whoever looks for the reason of a closed one after a crash finds it here."""
        message = f"started with {len(self.snapshot.routes)} routes; every breaker begins afresh"
        listeners = {name: str(one.address) for name, one in self.listeners.items()}
        limits = self._limits
        fields = {
            "pid": os.getpid(),
            "listeners": listeners,
            "files": list(self.snapshot.files),
            "open_files": limits.open_files,
            "max_open_connections": limits.max_open_connections,
        }
        self.telemetry.log.event(Level.INFO, "process.started", message, fields, self.service.clock())
        warning = warning_of_limit(limits, self.snapshot)
        if warning is not None:
            self._event(Level.WARNING, "process.open_files", warning)

    def _warn_of_own_mount(self) -> None:
        warning = warning_of_own_mount(self.path) if self.path is not None else None
        if warning is not None:
            self._event(Level.WARNING, "config.mount", warning)

    def _event(self, level: Level, kind: str, message: str) -> None:
        self.telemetry.log.event(level, kind, message, {}, self.service.clock())
