"""The composition root of control: what an operator, a kubelet and a collector ask, for all workers at once.

It has the same routes, upstreams and names as a worker and accepts no traffic. Loads configurations and spreads them,
looks names up, adds numbers up. Workers go on without it, and the next one finds them. Only `cli` makes one.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sidecar.admin.process import Data
from sidecar.admin.tap import Wanted
from sidecar.config.tell.diff import waiting
from sidecar.core.numbers import Numbers
from sidecar.core.override import Command
from sidecar.core.snapshot import Endpoint, Snapshot
from sidecar.core.sources import Sources
from sidecar.runtime import memory
from sidecar.runtime.actor import Part
from sidecar.runtime.control import Control
from sidecar.runtime.endpoint_sources import endpoint_sources
from sidecar.runtime.foundation import Ground, lay
from sidecar.runtime.parts import every_second
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.binder import Binder
from sidecar.runtime.workers.dealer import Dealer
from sidecar.runtime.workers.figures import Figures
from sidecar.runtime.workers.hub import Hub, WorkerLink
from sidecar.runtime.workers.inherited import Inherited
from sidecar.runtime.workers.lifeline import Lifeline
from sidecar.runtime.workers.orders import (
    Answered,
    Connect,
    Died,
    Drain,
    End,
    GoOn,
    HandOver,
    KeepSockets,
    Kill,
    Listening,
    LogLevel,
    NewSockets,
    Order,
    Quit,
    Reload,
    Remember,
    Serving,
)
from sidecar.runtime.workers.pod_readings import PodReadings
from sidecar.runtime.workers.relaying import Relaying
from sidecar.runtime.workers.spread import Spread
from sidecar.runtime.workers.supervised import Supervised
from sidecar.runtime.workers.told_checks import failing
from sidecar.telemetry.log_lines import Level
from sidecar.transport.given import GIVEN

KNOWN_SECONDS: Final = 2.0
"""For workers to make themselves known to a control process that has come in the place of another one, before it is
asked anything: else it would say for a moment that nobody serves, and that nothing has been counted."""


class ControlProcess:
    """Control of a pod with several workers."""

    def __init__(
        self,
        inherited: Inherited,
        lifeline: Lifeline,
        ground: Ground,
        path: str,
    ) -> None:
        """`path`: of the configuration, which is watched."""
        latest = inherited.latest()
        snapshot = inherited.as_begun(latest)
        lists = endpoint_sources(ground.environ, self._addresses_changed)
        self._binder = Binder(inherited.sockets, None, lambda: self.datapath.listeners.sockets.values())
        foundation = lay(ground, snapshot, self.sources, lists, self._binder.bind)
        self.numbers = foundation.numbers
        self.datapath = foundation.datapath
        self._supervised = Supervised(lifeline, self._obey, self._abandoned)
        self.figures = Figures(self.numbers, inherited.remembered, self._remember)
        self.hub = Hub(inherited.count, self.figures, time.monotonic)
        self._dealer = Dealer(inherited.crossing, inherited.sockets, self.datapath.listeners.sockets.values)
        self._spread = Spread(self.hub, self.datapath, inherited.sockets, lambda: self._supervised)
        self.control = Control(snapshot, ground, foundation, lists, path, self._install)
        self.control.active.generation = inherited.generation
        self.control.active.left_waiting = waiting(snapshot, latest)
        self._spread.active = self.control.active
        self._lists = lists
        self._pod = inherited.pod
        self._ordered: set[str] = set()
        """Routes of which an operator has said something to this process."""
        self._has_served = inherited.has_served
        """All have served once, of this control process or of one before it."""
        self._all_serve = asyncio.Event()
        self._is_handing_over = bool(inherited.left_by_control)
        """Another process is about to be started, or has been and has not said yet whether it serves."""
        self._is_replaced = False
        """Another process serves in this pod's place."""
        self._is_over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._compose()

    def _compose(self) -> None:
        control, hub = self.control, self.hub
        if self._is_handing_over:
            control.may_reload.clear()
        control.parts.add(hub.part)
        self._spreading = control.parts.add(Part("spread", self._spread.run))
        control.parts.add(Part("workers", every_second(self._look)))
        control.recent.look_at_sum(self.figures)
        control.admin.readings = PodReadings(hub, control.admin.readings, control.recent)
        control.administered.gather = self._gather
        control.taps.changed = self._tap
        control.health.on_checked = lambda *shown: hub.tell_all(kinds.CHECKED, (shown,))
        hub.handlers |= {kinds.EVENTS: self._take_events, kinds.TAPPED: self._take_tapped}
        control.administered.also_override = self._override
        control.administered.also_set_level = self._set_level
        control.drain.on_announced = lambda: hub.tell_all(kinds.ANNOUNCE)
        hub.on_joined.append(self._joined)
        hub.on_serving.append(lambda link: self._dealer.joined(link.number))
        hub.on_serving.append(lambda _: self._count_serving())
        hub.on_left.append(lambda _: self._count_serving())
        self._relays = [
            Relaying(hub, self._pod, time.monotonic, kind) for kind in (kinds.SHARED, kinds.FLEET_SHARED)
        ]
        hub.handlers[kinds.LINKED] = _answer
        hub.handlers[kinds.LEAVING] = self._leaving
        hub.on_left.append(lambda link: self._dealer.left(link.number))

    def sources(self) -> Sources:
        """Called from telemetry's threads: reads, and changes nothing."""
        return replace(self.control.sources(), balanced=self._dealer.numbers())

    # Its life

    async def run(self) -> None:
        """Serve until all workers have gone.

        Raises:
            OSError: an address cannot be bound.
            PartFailed: a part crashed too often.
        """
        control = self.control
        try:
            await self._start()
            memory.settle_start()
            await control.drain.begun()
            await control.stop_reloading()
            self._dealer.leave_lent()
            self._supervised.send(Quit())
            await self._is_over.wait()
        finally:
            await self._stop()
        if control.parts.failure is not None:
            raise control.parts.failure

    async def _start(self) -> None:
        datapath, control = self.datapath, self.control
        control.start_telemetry()
        self._supervised.start()
        for name in ("hub", "spread", "workers"):
            control.parts.start(name)
        datapath.apply(control.snapshot)
        control.start_lists()
        await datapath.listen(control.snapshot)
        self._dealer.listeners_changed()
        self._count_serving()
        if self._has_served:
            await self._until_all_serve(KNOWN_SECONDS)
        elif GIVEN:  # who is there still answers, and says that it is ready
            await self._until_all_serve(None)
        await control.start_servers()
        GIVEN.close()
        control.start_reloading()
        self._supervised.send(Serving())

    async def _until_all_serve(self, seconds: float | None) -> None:
        """All workers, or the end; no longer than this."""
        waits = [asyncio.ensure_future(one) for one in (self._all_serve.wait(), self.control.drain.begun())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _stop(self) -> None:
        datapath, control = self.datapath, self.control
        await control.stop_reloading()
        self._dealer.close()
        datapath.close()
        await control.parts.stop()
        datapath.retire()
        await control.stop_telemetry()
        self.hub.close()
        self._supervised.close()

    # The supervisor

    def _obey(self, order: Order, files: list[int]) -> None:
        match order:
            case Connect(number, pid, deaths):
                self.hub.died[number] = deaths
                self._begin(self.hub.connect(number, pid, socket.socket(fileno=files.pop())))
            case NewSockets(one):
                self._binder.take(one, files)
            case Answered():
                self._spread.answered(order)
            case KeepSockets():
                pass
            case Reload():
                self.control.reload_for_signal()
            case Died():
                self._died(order)
            case HandOver() if not self._is_handing_over:
                self._is_handing_over = True
                self._begin(self._hand_over())
            case HandOver():
                pass  # one at a time
            case GoOn():
                self._is_handing_over = False
                self.control.go_on()
            case Drain(is_urgent, by, is_replaced):
                if is_replaced:
                    self._is_replaced = True
                    self._dealer.hand_on()
                    self._begin(self.control.hand_on())
                else:
                    self.control.drain.ordered(is_urgent=is_urgent, by=by)
            case End():
                self._is_over.set()

    async def _hand_over(self) -> None:
        """Another process is to be started."""
        await self.control.settle()
        self._supervised.send(Listening(), tuple(one.fileno() for one in self.control.listening()))

    def _abandoned(self) -> None:
        self.control.drain.ordered(is_urgent=True)
        self._is_over.set()

    def _died(self, died: Died) -> None:
        message = f"{died.name}: {died.told}; it is started again"
        fields = {"worker": died.number, "pid": died.pid, "restarts": died.restarts}
        self.control.tell(Level.ERROR, "worker.died", message, fields)
        self.hub.died[died.number] = died.restarts
        self.control.events.told("worker", {"told": message, **fields})

    def _remember(self, file: int) -> None:
        self._supervised.send(Remember(), (file,))

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Workers

    async def _install(self, snapshot: Snapshot) -> Snapshot:
        """Raises: OSError, if a worker cannot serve it."""
        try:
            return await self._spread.install(snapshot)
        finally:
            self._dealer.listeners_changed()

    def _learn_orders(self, commands: Sequence[Command]) -> None:
        """What an operator said to the control process before this one: a worker that was there still holds to it."""
        for command in commands:
            if command.route not in self._ordered:
                self.control.administered.obey(command)

    def _joined(self, link: WorkerLink) -> None:
        self._learn_orders(link.commands)
        link.channel.tell(kinds.ADDRESSES, dict(self._lists.known))
        for command in self.control.administered.commands():
            link.channel.tell(kinds.OVERRIDE, command)
        link.channel.tell(kinds.CHECKED, tuple(failing(self.datapath.assembly.clusters)))
        link.channel.tell(kinds.TAP, self._wanted())
        link.channel.tell(kinds.LOG_LEVEL, self.control.administered.log_level)
        if link.is_announced:  # which another control process had heard
            self.control.drain.announce()
        if self.control.drain.is_announced:
            link.channel.tell(kinds.ANNOUNCE)
        self._spreading.tell(link.number)

    async def _leaving(self, link: WorkerLink, _: None) -> None:
        self._dealer.left(link.number)

    def _count_serving(self) -> None:
        """Traffic may be sent here while anybody takes it, once all have done so. It still may when workers leave
        because others serve in their place: who asks this process for the last time asks about the pod."""
        if self._is_replaced:
            return
        serving = sum(link.is_serving for link in self.hub.links.values())
        if serving == self.hub.count:
            self._has_served = True
            self._all_serve.set()
        self.datapath.is_serving = self._has_served and serving > 0

    async def _gather(self) -> tuple[Numbers, Sources]:
        """All numbers there are; of a worker that does not answer in time, its last report."""
        await self.hub.refresh()
        own = await asyncio.to_thread(self.sources)
        numbers, sources = await asyncio.to_thread(self.figures.total, own)
        return numbers, replace(sources, workers=self.figures.each(self.hub.died))

    async def _take_events(self, link: WorkerLink, told: tuple[list[tuple[str, Data]], int]) -> None:
        found, lost = told
        self.control.events.dropped += lost
        for kind, data in found:
            self.control.events.told(kind, {**data, "worker": link.number})

    def _tap(self) -> None:
        """Readers have come or gone: workers show what they want to see."""
        self.hub.tell_all(kinds.TAP, self._wanted())

    def _wanted(self) -> dict[int, Wanted]:
        return {tap.number: tap.wanted for tap in self.control.taps.readers}

    async def _take_tapped(self, link: WorkerLink, told: tuple[int, list[Data], int]) -> None:
        number, rows, lost = told
        for tap in self.control.taps.readers:
            if tap.number == number:
                tap.show([{**row, "worker": link.number} for row in rows], lost)

    async def _override(self, command: Command) -> None:
        self._ordered.add(command.route)
        await self.hub.ask_all(kinds.OVERRIDE, command)

    async def _set_level(self, name: str) -> None:
        self._supervised.send(LogLevel(name))
        await self.hub.ask_all(kinds.LOG_LEVEL, name)

    def _look(self) -> None:
        for link in self.hub.silent():
            self._supervised.send(Kill(link.number, link.pid))

    def _addresses_changed(self, name: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        self.datapath.assembly.addresses_changed(name, addresses)
        self.hub.tell_all(kinds.ADDRESSES, {name: addresses})


async def _answer(_link: WorkerLink, _: None) -> None:
    """That it does says all."""
