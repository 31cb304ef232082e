"""What serves traffic: one loop, listeners, routes with their breakers and clusters, the clock of deadlines.

Knows no file, no admin API and no exporter. It is given a snapshot, the addresses of names, and somebody to report
to; who gives them is `control.py`. Everything here is owned by the event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

from sidecar.core.callers import Callers
from sidecar.core.dataclass import dataclass
from sidecar.core.memory_budget import MemoryBudget
from sidecar.core.numbers import Numbers
from sidecar.core.observe import Observe, ObservedExchange
from sidecar.core.propagation.chain import PropagationChain
from sidecar.core.snapshot import Snapshot
from sidecar.core.tracecontext import IdSource
from sidecar.downstream.pressure import Pressure
from sidecar.downstream.relief import Relief
from sidecar.forwarding.service import Service
from sidecar.forwarding.sweep import Sweep
from sidecar.forwarding.visitors import MOST_VISITORS
from sidecar.runtime.assembly import Assembly, Built, Names
from sidecar.runtime.imports import import_protocols
from sidecar.runtime.listeners import Listeners, Prepared
from sidecar.transport import throttled
from sidecar.transport.bind import Bind, bind_own
from sidecar.transport.pace import Pace
from sidecar.transport.turns import Turns

if TYPE_CHECKING:
    from sidecar.forwarding.notices import Notices
    from sidecar.runtime.crossing import Joined

R = TypeVar("R")

FIRST_RESOLUTION_SECONDS = 2.0
"""How long the start waits for the upstreams' names; what is unknown then answers `dns_error` until it is."""
RESOLUTION_SECONDS = 1.0
"""The same for the names of new upstreams, before a new snapshot is put in place."""

Decide = Callable[[bool | None, bytes], bool]
"""(the parent's sampled flag or None, the trace id) -> is sampled."""


@dataclass(frozen=True, slots=True)
class Next:
    """The next snapshot, built and bound beside the one in use. Ends in `DataPath.commit` or `DataPath.discard`."""

    built: Built
    listeners: Prepared


class DataPath:
    """The data path of one process."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        names: Names,
        numbers: Numbers,
        observe: Observe,
        decide: Decide,
        live: set[ObservedExchange],
        max_open_connections: int,
        max_visitors: int = MOST_VISITORS,
        memory: MemoryBudget | None = None,
        zone: str | None = None,
        bind: Bind = bind_own,
        joined: Joined | None = None,
        propagation: PropagationChain | None = None,
    ) -> None:
        """`memory`: of all connections; None: without a bound. `zone`: where this process runs; None: nobody knows.
        `bind`: where listeners get their sockets from. `joined`: what it shares with the other workers of its pod;
        None: there are none. `max_visitors`: clients beyond `max_open_connections` who are told so, at a time.

        `clock`: monotonic seconds. `rng`: draws what is left to chance. `live`: where exchanges are while they are
        under way. `propagation`: the forms of a trace's context beside W3C's; None: there are none."""
        loop = asyncio.get_running_loop()
        turns = Turns(loop)
        self.service = Service(
            loop=loop,
            clock=clock,
            rng=rng,
            ids=IdSource(),
            numbers=numbers,
            observe=observe,
            sweep=Sweep(loop, clock, Pace(loop, clock, throttled.counter()), turns),
            turns=turns,
            callers=Callers() if joined is None else Callers(joined.capacity, others=joined.across),
            decide=decide,
            propagation=propagation,
            exchanges=live,
            max_open_connections=max_open_connections,
            memory=memory or MemoryBudget(),
        )
        self.service.beside.visitors.most = max_visitors
        self.notices: Notices | None = None
        if joined is not None:
            self.notices = joined.notices(loop, clock, turns)
            self.service.beside.others = self.notices
        self.listeners = Listeners(self.service, bind)
        self.assembly = Assembly(self.service, names, rng, self.listeners.sockets, zone)
        self._relief = Relief(
            loop,
            clock,
            self.service.memory,
            self.listeners.connections,
            self.assembly.all_connections,
            self._give_up,
            lambda: turns.is_ending,
        )
        self.service.memory.on_over = self._relief.begin
        self.pressure = Pressure(self.service, self.listeners.sockets.values)
        self.is_serving = False
        """Its listeners are bound."""

    def _give_up(self) -> int:
        """For want of memory, before anybody is refused: copies that nobody waits for, and idle connections."""
        return self.service.beside.stop_copies() + self.assembly.close_all_idle()

    @property
    def is_ready(self) -> bool:
        """Traffic may be sent here."""
        return self.is_serving and not self.service.is_draining

    def report_to(self, observe: Observe, decide: Decide) -> None:
        """Whom to tell from now on."""
        self.service.observe = observe
        self.service.decide = decide

    def apply(self, snapshot: Snapshot) -> None:
        """Build the first snapshot, all at once: nobody waits yet.

        Raises:
            OSError: a file of a `tls` cannot be used.
        """
        import_protocols(snapshot)
        self.assembly.tls.add(self.assembly.tls.prepare(snapshot))
        self.assembly.apply(snapshot)
        self.service.bound_requests(snapshot.limits.max_requests)

    async def first_addresses(self) -> None:
        """Wait for the names of all upstreams, but not for long."""
        await self.assembly.resolved(self.assembly.clusters.values(), FIRST_RESOLUTION_SECONDS)

    async def listen(self, snapshot: Snapshot) -> None:
        """Bind the listeners, and serve.

        Raises:
            OSError: an address cannot be bound.
        """
        self.listeners.commit(await self.listeners.prepare(snapshot), snapshot)
        self.is_serving = True

    async def install(self, snapshot: Snapshot) -> Snapshot:
        """Build what is new beside what is live, then put it in place by one assignment.

        Returns the snapshot that is in use: of equal routes it has the old ones. `reconfigure` is to follow.

        Raises:
            OSError: a listener's address cannot be bound, or a file of a `tls` cannot be used; nothing has changed
                then.
        """
        return self.commit(await self.prepare(snapshot))

    async def prepare(self, snapshot: Snapshot) -> Next:
        """Build what is new beside what is live. One at a time.

        Raises:
            OSError: as `install`.
        """
        await asyncio.to_thread(import_protocols, snapshot)
        tls = await asyncio.to_thread(self.assembly.tls.prepare, snapshot)
        self.assembly.tls.add(tls)
        try:
            built = await _in_turns(self.assembly.build(snapshot))
            await self.assembly.resolved(built.made, RESOLUTION_SECONDS)
            return Next(built, await self.listeners.prepare(snapshot))
        except BaseException:
            self.assembly.discard()
            raise

    def discard(self, following: Next) -> None:
        """Forget it: what is in use stays."""
        self.assembly.discard()
        self.listeners.discard(following.listeners)

    def commit(self, following: Next) -> Snapshot:
        """Put it in place by one assignment, and return it."""
        snapshot = following.built.snapshot
        self.assembly.commit(following.built)
        self.service.bound_requests(snapshot.limits.max_requests)
        self.listeners.commit(following.listeners, snapshot)
        return snapshot

    async def reconfigure(self) -> None:
        """Hand breakers that stay their new thresholds."""
        await _in_turns(self.assembly.reconfigure())

    def tick(self) -> None:
        """Once a second: what only time brings about."""
        self.service.sweep.pace.beat()
        self.assembly.tick(self.service.clock())
        self.listeners.tick()

    def close(self) -> None:
        """Serve nobody any more: cut what is still under way."""
        self.is_serving = False
        self.assembly.checks.close()
        self.service.beside.stop_copies()
        self.listeners.close()

    def hand_on(self) -> None:
        """Another process has the same listening sockets, and takes who connects from now on."""
        for socket in self.listeners.all():
            socket.queues.hand_on()

    def retire(self) -> None:
        """The last, after `close`: let go of upstreams and deadlines, and see that every exchange is told."""
        self.service.turns.end_all()
        self.assembly.retire()
        self.service.turns.end_all()  # idle connections, which say goodbye
        self.service.sweep.close()
        if self.notices is not None:
            self.notices.close()
        self.service.beside.close()


async def _in_turns(steps: Generator[None, None, R]) -> R:
    """Take the steps of some work, and let the loop do its own between two of them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: R = end.value
            return result
        await asyncio.sleep(0)
