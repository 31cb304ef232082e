"""The composition root of one process: builds data path and control, and has the order of their start and end.

Start order: telemetry, names, the fleet, probes and admin API, listeners, reloading; stop order is the reverse. All
live state is owned by this process's event loop (`sidecar/README.md`, "Concurrency"). Nothing imports it but `cli`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sidecar.core.snapshot import Endpoint, Snapshot
from sidecar.core.sources import Sources
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding.service import Service
from sidecar.runtime import file_limits, memory
from sidecar.runtime.activation import Activated
from sidecar.runtime.assembly import Assembly
from sidecar.runtime.container import Container
from sidecar.runtime.control import Control
from sidecar.runtime.endpoint_sources import endpoint_sources
from sidecar.runtime.file_limits import FileLimits
from sidecar.runtime.foundation import Ground, lay
from sidecar.runtime.memory_watch import give_back
from sidecar.runtime.service_manager import ServiceManager
from sidecar.runtime.signals import hear
from sidecar.runtime.upgrade import Predecessor
from sidecar.runtime.upgrading import Upgrading
from sidecar.transport.given import GIVEN

if TYPE_CHECKING:
    from sidecar.runtime.crossing import Joined


class Worker:
    """One process's data path with its control."""

    def __init__(
        self,
        snapshot: Snapshot,
        environ: Mapping[str, str],
        *,
        path: str | None = None,
        log_fd: int = 1,
        clock: Callable[[], float] = time.monotonic,
        limits: FileLimits | None = None,
        container: Container | None = None,
        joined: Joined | None = None,
        activated: Activated | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`log_fd` gets the access log and events; `clock` is monotonic seconds, the loop's own in tests.

        `path` is the file or directory that `snapshot` was loaded from: it is watched. None: nothing is.
        `limits` is what the process may have open; None: as it is. `container` has a limit of memory; None: nothing
        has. `joined` is what it shares with the other workers of its pod; None: there are none.
        `activated` are the sockets that systemd has opened; None: there are none. `rng` draws what is left to chance;
        None: an own one, of an unknown seed.
        """
        ground = Ground(
            environ, limits or file_limits.present(), container, log_fd, clock, rng or random.Random()
        )
        self._manager = ServiceManager(environ)
        self._activated = activated or Activated()
        self._upgrading = Upgrading(self._replaced, self._kept, self._activated.hindrance)
        self._handing_on: asyncio.Task[None] | None = None
        lists = endpoint_sources(environ, self._addresses_changed)
        foundation = lay(ground, snapshot, self.sources, lists, self._activated.bind, joined)
        self.numbers = foundation.numbers
        self.datapath = foundation.datapath
        self.control = Control(snapshot, ground, foundation, lists, path)

    # The live state that tests and measurements look at

    @property
    def service(self) -> Service:
        return self.datapath.service

    @property
    def assembly(self) -> Assembly:
        return self.datapath.assembly

    @property
    def listeners(self) -> dict[str, ListenerSocket]:
        return self.datapath.listeners.sockets

    def sources(self) -> Sources:
        """Called from telemetry's threads: reads, and changes nothing."""
        return self.control.sources()

    # Its life

    async def run(self, predecessor: Predecessor | None = None) -> None:
        """Serve until a signal, `drain` or a part's failure ends it. `predecessor`: whose place this one takes.

        Raises:
            OSError: a listener's address cannot be bound.
            PartFailed: a part crashed too often; what was under way has been drained.
        """
        control = self.control
        self._handle_signals()
        try:
            await self.start()
            memory.settle_start()
            give_back()  # what imports have freed: 0.1 MiB in 0.1 ms, 0.9 where there is no byte code to read
            is_serving = not control.drain.has_begun  # one that is about to end may not be relied upon
            if is_serving:
                self._manager.ready()
                if predecessor is not None:
                    predecessor.ready()
                    self._hear_end_of(predecessor)
            await control.drain.begun()
            self._upgrading.end()
            if is_serving and not self._upgrading.is_over:  # else it is not the service that systemd knows
                self._manager.stopping()
            await control.stop_reloading()  # what comes now would open what is being closed
            await control.drain.wait()
        finally:
            await self.stop()
            await self._upgrading.ended()
            self._manager.close()
        if control.parts.failure is not None:
            raise control.parts.failure

    async def start(self) -> None:
        """Start everything, in order.

        Raises:
            OSError: an address cannot be bound.
        """
        datapath, control = self.datapath, self.control
        control.start_telemetry()
        datapath.apply(control.snapshot)
        control.start_lists()
        await datapath.first_addresses()
        await control.join_fleet()
        has_predecessor = bool(GIVEN)  # who answers probes, and says that it is ready
        if not has_predecessor:
            await control.start_servers()
        await datapath.listen(control.snapshot)
        if has_predecessor:
            await control.start_servers()
        self._activated.tell()
        control.start_reloading()

    async def stop(self) -> None:
        """Stop everything, in the reverse order."""
        datapath, control = self.datapath, self.control
        await control.stop_reloading()
        datapath.close()
        await control.parts.stop()
        datapath.retire()
        await control.stop_telemetry()

    @staticmethod
    def _hear_end_of(predecessor: Predecessor) -> None:
        loop = asyncio.get_running_loop()
        file = predecessor.fileno()

        def left() -> None:
            loop.remove_reader(file)
            predecessor.left()

        if predecessor.is_there:
            loop.add_reader(file, left)

    def _handle_signals(self) -> None:
        loop, control = asyncio.get_running_loop(), self.control
        hear(loop, signal.SIGTERM, control.drain.terminated)
        hear(loop, signal.SIGINT, control.drain.interrupted)
        hear(loop, signal.SIGUSR2, self._upgrade)
        if control.path is not None:
            hear(loop, signal.SIGHUP, control.reload_for_signal)

    def _upgrade(self) -> None:
        """SIGUSR2. One that comes while another one is seen to changes nothing."""
        if self._may_upgrade() and (self._handing_on is None or self._handing_on.done()):
            self._handing_on = asyncio.get_running_loop().create_task(self._start_successor())

    def _may_upgrade(self) -> bool:
        is_serving = self.datapath.is_serving and not self.control.drain.has_begun
        return is_serving and not self._upgrading.is_under_way and not self._upgrading.is_over

    async def _start_successor(self) -> None:
        await self.control.settle()
        if self._may_upgrade():
            self._upgrading.begin([*self.datapath.listeners.listening(), *self.control.listening()])

    def _kept(self) -> None:
        self.control.go_on()

    def _replaced(self, pid: int) -> None:
        self._manager.say_main(pid)
        self.datapath.hand_on()
        self._handing_on = asyncio.get_running_loop().create_task(self.control.hand_on())

    def _addresses_changed(self, name: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        self.datapath.assembly.addresses_changed(name, addresses)
