"""The composition root of one process: builds, wires, starts and stops everything. Nothing imports it but `cli`.

Start order: telemetry, resolver, data path, listeners, probes; stop order is the reverse. All live state
is owned by this process's event loop (see README, "Concurrency").
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Mapping

from sidecar.admin.probes import Probes
from sidecar.core.callers import Callers
from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import Endpoint, Snapshot
from sidecar.core.sources import Sources
from sidecar.core.tracecontext import IdSource
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding.service import Service
from sidecar.forwarding.sweep import Sweep
from sidecar.runtime import sources
from sidecar.runtime.assembly import Assembly
from sidecar.runtime.drain import Drain
from sidecar.telemetry.room import TelemetryRoom
from sidecar.upstream.resolver import Resolver

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
        log_fd: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log_fd` gets the access log and events; `clock` is monotonic seconds, the loop's own in tests."""
        self.snapshot = snapshot
        self.generation = 1
        self.since = clock()
        loop = asyncio.get_running_loop()
        rng = random.Random()
        self.numbers = Numbers()
        self.telemetry = TelemetryRoom(
            snapshot.telemetry, self.numbers, self.sources, environ=environ, log_fd=log_fd
        )
        self.service = Service(
            loop=loop,
            clock=clock,
            rng=rng,
            ids=IdSource(),
            observe=self.telemetry.observer,
            sweep=Sweep(loop, clock),
            callers=Callers(),
            decide=self.telemetry.decide,
        )
        self.resolver = Resolver(self._addresses_changed, rng=rng)
        self.assembly = Assembly(self.service, self.resolver, rng)
        self.listeners: dict[str, ListenerSocket] = {}
        self.probes = Probes(self)
        self._resolving: asyncio.Task[None] | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self.drain = Drain(self.service, self.listeners, snapshot.drain)
        self.is_started = False

    @property
    def is_ready(self) -> bool:
        return self.is_started and not self.service.is_draining

    async def run(self) -> None:
        """Serve until a signal or `drain` ends it.

        Raises:
            OSError: a listener's address cannot be bound.
        """
        self._handle_signals()
        await self.start()
        try:
            await self.drain.wait()
        finally:
            await self.stop()

    async def start(self) -> None:
        self.telemetry.start()
        self.assembly.apply(self.snapshot)
        self._resolving = self.service.loop.create_task(self.resolver.run())
        await self._first_resolution()
        await self.probes.start(self.snapshot.probes)
        for name, policy in self.snapshot.listeners.items():
            self.listeners[name] = ListenerSocket(policy, self.service)
            await self.listeners[name].start()
        self._tick()
        self.is_started = True

    async def stop(self) -> None:
        self.is_started = False
        if self._ticking is not None:
            self._ticking.cancel()
        for listener in self.listeners.values():
            listener.close()
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.gather(self._resolving, return_exceptions=True)
        for cluster in self.assembly.clusters.values():
            cluster.retire()
        self.service.sweep.close()
        await self.probes.stop()
        await self.service.loop.run_in_executor(None, self.telemetry.stop)

    def sources(self) -> Sources:
        """Called from telemetry's threads: reads, and changes nothing."""
        return sources.collect(self)

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.service.loop.add_signal_handler(number, self.drain.begin)

    def _addresses_changed(self, name: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        self.assembly.addresses_changed(name, addresses)

    async def _first_resolution(self) -> None:
        deadline = self.service.clock() + FIRST_RESOLUTION_SECONDS
        while self.service.clock() < deadline and not all(
            cluster.pools for cluster in self.assembly.clusters.values()
        ):
            await asyncio.sleep(0.01)

    def _tick(self) -> None:
        self.assembly.tick(self.service.clock())
        self._ticking = self.service.loop.call_later(1.0, self._tick)


def exit_now() -> None:
    """A second signal: end at once, without any cleaning up."""
    os._exit(1)
