"""The composition root of a worker: a data path with what must stand beside it, and the way to control.

It serves as soon as its sockets and addresses are there, whether there is a control process or not. It ends when the
supervisor says so, or has gone. Only `cli` and tests make one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import sidecar.runtime.fleet.side  # noqa: F401  (by `Control`, but before the fork, so that its pages are shared)
from sidecar.admin.readings import Table
from sidecar.admin.tap import Wanted
from sidecar.config.process.pickles import Unpacking
from sidecar.core.override import Command
from sidecar.core.place import WorkerPlace
from sidecar.core.snapshot import Endpoint
from sidecar.core.sources import Sources
from sidecar.core.totals import states_of
from sidecar.downstream.listener import ListenerSocket
from sidecar.runtime import memory
from sidecar.runtime.actor import Mailbox, Part
from sidecar.runtime.control import Control
from sidecar.runtime.datapath import Next
from sidecar.runtime.foundation import Ground, lay
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.binder import Binder
from sidecar.runtime.workers.channel import NoAnswer
from sidecar.runtime.workers.child import CONTROL
from sidecar.runtime.workers.control_end import ControlEnd
from sidecar.runtime.workers.divided import divided
from sidecar.runtime.workers.figures import Report
from sidecar.runtime.workers.fleet_in_pod import FleetInPod
from sidecar.runtime.workers.hands import Hands
from sidecar.runtime.workers.inherited import Inherited
from sidecar.runtime.workers.kinds import Hello
from sidecar.runtime.workers.lifeline import Lifeline
from sidecar.runtime.workers.orders import (
    Adopt,
    Connect,
    Drain,
    KeepSockets,
    Kill,
    Leave,
    NewSockets,
    Order,
    Serving,
)
from sidecar.runtime.workers.pod_link import PodLink
from sidecar.runtime.workers.pod_readings import in_pieces
from sidecar.runtime.workers.shared_breakers import SharedBreakers
from sidecar.runtime.workers.supervised import Supervised
from sidecar.runtime.workers.told_addresses import told_lists
from sidecar.runtime.workers.told_checks import Shown, ToldChecks
from sidecar.runtime.workers.told_events import ToldEvents

_LOG = logging.getLogger("sidecar.runtime")
REPORT_SECONDS: Final = 1.0
"""Between two reports to control; more where making one takes long (see `REPORT_SHARE`)."""
REPORT_SHARE: Final = 0.02
"""Of a core that reports may take."""
MOST_REPORT_SECONDS: Final = 5.0
"""Between two, whatever they take: silence is how control knows that a worker hangs."""
LAST_REPORT_SECONDS: Final = 4.0
"""For control to take the last one; then this worker ends without."""
LEAVE_SECONDS: Final = 2.0
"""For control to hear that this worker is to be handed nothing more."""


class WorkerProcess:
    """One worker."""

    def __init__(
        self,
        place: WorkerPlace,
        inherited: Inherited,
        lifeline: Lifeline,
        ground: Ground,
    ) -> None:
        self.place = place
        self.inherited = inherited
        self._container = ground.container
        snapshot = divided(inherited.as_begun(inherited.latest()), place, ground.container)
        lists, self._addresses = told_lists(self._addresses_changed)
        self._binder = Binder(
            inherited.sockets, place.number, lambda: self.datapath.listeners.sockets.values()
        )
        joined = inherited.crossing.join(place.number - 1)
        foundation = lay(ground, snapshot, self.sources, lists, self._binder.bind, joined)
        self.numbers = foundation.numbers
        self.datapath = foundation.datapath
        self.control = Control(snapshot, ground, foundation, lists, None, replica=inherited.pod)
        self.control.active.generation = inherited.generation
        self.control_end = ControlEnd()
        self._hands = Hands(
            joined, self.datapath.listeners.all, self._is_dealt, self.datapath.service.beside.visitors
        )
        if self.datapath.notices is not None:
            self.datapath.notices.on_counted = self._hands.tell_load
        self._shared = SharedBreakers(
            inherited.pod, self.control_end, self.datapath.service.transitioned, time.monotonic
        )
        self._fleet_in_pod = FleetInPod(self.control.fleet.side().acting, self.control_end)
        self._pod_link = PodLink(self.control_end)
        self._pod_link.on_found += [self._shared.connected, self._fleet_in_pod.found]
        self._pod_link.on_lost += [self._shared.lost, self._fleet_in_pod.lost]
        self._pod_link.on_changed.append(self._control_changed)
        self._pod_link.on_hung.append(self._replace_control)
        self._control_pid = 0
        self._is_serving = False
        self._is_stopping = False
        """It serves nobody any more."""
        self._supervised = Supervised(lifeline, self._obey, self._abandoned)
        self._following: Next | None = None
        """What was prepared."""
        self._turn = asyncio.Lock()
        """One step with a snapshot at a time: a new control process knows nothing of what another one asked for."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.control.is_overseen = True
        self.control.drain.is_last = lambda direction: inherited.crossing.is_last(place.number - 1, direction)
        self._checks = ToldChecks(lambda: self.datapath.assembly.clusters, time.monotonic)
        self._events = ToldEvents(foundation.events, self.control.taps, self.control.admin, self.control_end)
        self._add_handlers()
        self.control.parts.add(Part("told_events", self._events.run))
        self.control.parts.add(self.control_end.part)
        self.control.parts.add(Part("report", self._reporting))
        self.control.parts.add(self._shared.part)
        self.control.parts.add(self._pod_link.part)

    def sources(self) -> Sources:
        """Called from telemetry's threads: reads, and changes nothing."""
        return self.control.sources()

    # Its life

    async def run(self) -> None:
        """Serve until told to end.

        Raises:
            OSError: a file of a `tls` cannot be used, or a socket is missing.
            PartFailed: a part crashed too often; what was under way has been drained.
        """
        control = self.control
        try:
            await self._start()
            memory.settle_start()
            await control.drain.begun()
            await control.drain.wait()
            if await self._was_handed_last():
                await control.drain.wait()
        finally:
            await self._stop()
        if control.parts.failure is not None:
            raise control.parts.failure

    async def _start(self) -> None:
        datapath, control = self.datapath, self.control
        control.start_telemetry()
        self._supervised.start()
        control.parts.start("control_end")
        datapath.apply(control.snapshot)
        control.start_lists()
        await datapath.first_addresses()
        control.expect_series()
        await control.join_fleet()
        await datapath.listen(control.snapshot)
        self._binder.accept_for_missing()
        self._hands.start()
        control.start_reloading()
        control.parts.start("report")
        self._shared.adopt(control.snapshot, datapath.assembly.breakers)
        control.parts.start("shared_breakers")
        control.parts.start("shared_link")
        control.parts.start("told_events")
        self._is_serving = True
        self.control_end.tell(kinds.SERVING)
        self._supervised.send(Serving())

    async def _stop(self) -> None:
        datapath, control = self.datapath, self.control
        self._is_stopping = True
        datapath.close()
        self._hands.close()
        await control.parts.stop()
        datapath.retire()
        await self._report_last()
        await control.stop_telemetry()
        self.control_end.close()
        self._supervised.close()

    # The supervisor

    def _obey(self, order: Order, files: list[int]) -> None:
        match order:
            case Connect(_, pid):
                self._control_pid = pid
                self._begin(self.control_end.connect(socket.socket(fileno=files.pop())))
            case Adopt() if self._is_stopping:
                pass  # somebody else is told so in a moment
            case Adopt(number):
                self._binder.adopt(number)
                self._hands.adopt(self.inherited.crossing.hands[number - 1][0])
            case Leave(number):
                self._binder.leave(number)
                self._hands.leave(self.inherited.crossing.hands[number - 1][0])
            case NewSockets(one):
                self._binder.take(one, files)
            case KeepSockets(identities):
                self._binder.keep(identities)
            case Drain(is_urgent, by, is_replaced):
                if is_replaced:
                    self._hand_on()
                    self.control.drain.replaced()
                self.control.drain.ordered(is_urgent=is_urgent, by=by)
                self._hands.listeners_changed()

    def _abandoned(self) -> None:
        """Nobody would start a worker again, or end this one."""
        if self.inherited.crossing.is_left:
            self._hand_on()
        self.control.drain.ordered(is_urgent=True)

    def _hand_on(self) -> None:
        """Another process takes who connects, from these very sockets."""
        self._binder.hand_on()
        self.datapath.hand_on()

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Control

    def _add_handlers(self) -> None:
        self.control_end.on_connected += [
            self._say_hello,
            self._pod_link.found,
        ]
        self.control_end.on_lost.append(self._pod_link.lost)
        self.control_end.handlers |= {
            kinds.ADDRESSES: self._learn_addresses,
            kinds.PREPARE: self._prepare,
            kinds.COMMIT: self._commit,
            kinds.DISCARD: self._discard,
            kinds.NUMBERS: self._pack_report,
            kinds.ANNOUNCE: self._announce,
            kinds.READ: self._read,
            kinds.OVERRIDE: self._override,
            kinds.TAP: self._tap,
            kinds.CHECKED: self._learn_checks,
            kinds.SHARED: self._shared.heard,
            kinds.FLEET_SHARED: self._fleet_in_pod.heard,
            kinds.LOG_LEVEL: self._set_log_level,
        }

    def _say_hello(self) -> None:
        control = self.control
        hello = Hello(
            control.snapshot.digest,
            control.administered.commands(),
            self._is_serving,
            control.drain.is_announced,
        )
        self.control_end.tell(kinds.HELLO, hello)

    def _is_dealt(self, listener: ListenerSocket) -> bool:
        """Control accepts what connects there, and hands it over."""
        is_left = listener.queues.is_lent and self.control.drain.has_begun
        return self._pod_link.is_answering and not is_left

    def _control_changed(self) -> None:
        """It has come or gone, or begun or ceased to answer."""
        self._hands.listeners_changed()
        is_hanging = self.control_end.is_connected and not self._pod_link.is_answering
        if is_hanging and self._hands:
            _LOG.warning(
                "control does not answer: until it does, this worker accepts by itself what connects to listeners "
                "with `balance: exact`"
            )

    def _replace_control(self) -> None:
        """Without it there are no probes, reloads and resolver."""
        self._supervised.send(Kill(CONTROL, self._control_pid))

    async def _was_handed_last(self) -> bool:
        """Whether there is another connection to serve: one that was on its way here when all others had ended."""
        if not self._hands:
            return False
        with suppress(NoAnswer):  # then it hands over nothing anyway
            await self.control_end.ask(kinds.LEAVING, None, LEAVE_SECONDS)
        return self._hands.take_last()

    async def _learn_addresses(self, told: Mapping[Endpoint, tuple[Endpoint, ...]]) -> None:
        for entry, endpoints in told.items():
            self._addresses.told(entry, endpoints)

    async def _prepare(self, parts: list[bytes]) -> None:
        """Raises: OSError, if this snapshot cannot be served here."""
        async with self._turn:
            self._forget_following()
            unpacking = Unpacking()
            for part in parts:
                unpacking.add(part)
                await asyncio.sleep(0)
            snapshot = divided(unpacking.snapshot(), self.place, self._container)
            memory.hold()
            try:
                self._following = await self.datapath.prepare(snapshot)
            finally:
                memory.settle()

    async def _commit(self, generation: int) -> str:
        """Its digest, then."""
        async with self._turn:
            return await self._put_in_place(generation)

    async def _put_in_place(self, generation: int) -> str:
        following, self._following = self._following, None
        if following is None:
            raise OSError("nothing was prepared")
        memory.hold()
        try:
            self.control.active.put_in_place(self.datapath.commit(following), generation)
            await self.datapath.reconfigure()
        finally:
            memory.settle()
        self._hands.listeners_changed()
        self._shared.adopt(self.control.snapshot, self.datapath.assembly.breakers)
        self.control.adopt()
        self.control.adopt_fleet()
        self._addresses.retain()
        self._checks.adopt()
        self._binder.accept_for_missing()
        return self.control.snapshot.digest

    async def _discard(self, _: None) -> None:
        async with self._turn:
            self._forget_following()

    def _forget_following(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            self.datapath.discard(following)

    async def _announce(self, _: None) -> None:
        self.control.drain.announce()

    async def _set_log_level(self, name: str) -> None:
        await self.control.administered.set_log_level(name)

    async def _tap(self, wanted: Mapping[int, Wanted]) -> None:
        self._events.tap(wanted)

    async def _learn_checks(self, shown: Sequence[Shown]) -> None:
        self._checks.told(shown)

    async def _override(self, command: Command) -> None:
        await self.control.administered.override(command)

    async def _read(self, asked: tuple[str, Any]) -> Any:
        """One resource of the admin API: `/status` as it is, the rows of others in pieces, with what stands before
        them where that is of this worker alone."""
        name, argument = asked
        readings = self.control.admin.readings
        if name == "status":
            return await readings.status()
        if name == "outcomes":
            page = await readings.outcomes(*argument)
            return page.head, await in_pieces(await page.all_rows())
        async with readings.turn:
            table: Table = await getattr(readings, name)(argument)
            return await in_pieces(await table.all_rows())

    # What it tells

    async def _pack_report(self, _: None = None) -> list[bytes]:
        return await asyncio.to_thread(self._packed_report)

    def _packed_report(self) -> list[bytes]:
        return Report(os.getpid(), states_of(self.numbers), self.sources()).packed()

    async def _report(self) -> None:
        if self.control_end.is_connected:
            self.control_end.tell(kinds.REPORT, await self._pack_report())

    async def _report_last(self) -> None:
        """Of what has come of all requests: the one report that no later one makes good. So it is a question: a
        message to a process that sees this one go is not looked at any more."""
        self._events.pass_on_all()
        with suppress(NoAnswer):
            await self.control_end.ask(kinds.REPORT, await self._pack_report(), LAST_REPORT_SECONDS)

    async def _reporting(self, mailbox: Mailbox[Any]) -> None:
        clock = time.monotonic
        while True:
            began = clock()
            await self._report()
            pause = min(max(REPORT_SECONDS, (clock() - began) / REPORT_SHARE), MOST_REPORT_SECONDS)
            await mailbox.get(pause)

    def _addresses_changed(self, name: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        self.datapath.assembly.addresses_changed(name, addresses)
