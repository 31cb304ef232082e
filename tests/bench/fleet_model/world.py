"""Many processes with one breaker each, a store between them, and an upstream; time is virtual and chance is seeded.

The breakers and the rules are the real ones (`sidecar/core`). The store is a model of Redis: it passes each batch on
to whoever is linked, lends permits, and keeps what it is told until its life is over. A process writes when its rules
say so, and reads as a carrier does: what comes wakes it, and then it reads no more before its interval is over."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.fleet import Fleet, Reach
from sidecar.core.fleet.encoding import decode, encode
from sidecar.core.fleet.lending import Lender
from sidecar.core.fleet.messages import FleetBatch, FleetItem, PermitAsk, PermitReturn
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import State, Transition

KEY = "shop/payments@0123456789abcdef"
GOOD = Outcome(Kind.ANSWERED, 200)
BAD = Outcome(Kind.ANSWERED, 500, error_type="500")


@dataclass
class Weather:
    """What becomes of messages on their way."""

    delay_seconds: tuple[float, float] = (0.0005, 0.003)
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    """Share that takes up to `late_seconds`."""
    late_seconds: float = 2.0


@dataclass
class Counts:
    """What has happened since the world began."""

    calls: int = 0
    failed: int = 0
    refused: int = 0
    wrongly_refused: int = 0
    """The upstream would have served them."""
    probes: int = 0
    writes: int = 0
    reads: int = 0
    bytes_written: int = 0
    bytes_read: int = 0
    asks: int = 0
    most_probes: int = 0
    """At once, of processes that were linked."""
    transitions: list[tuple[float, str, Transition]] = field(default_factory=list)


class World:
    """The clock, the upstream and the store."""

    def __init__(
        self, policy: BreakerPolicy, *, seed: int = 1, is_shared: bool = True, reads_at_once: bool = False
    ) -> None:
        """`is_shared`: False: each is alone. `reads_at_once`: nobody waits for his interval before he reads."""
        self.policy = policy
        self.rng = random.Random(seed)
        self.is_shared = is_shared
        self.reads_at_once = reads_at_once
        self.now = 0.0
        self.weather = Weather()
        self.counts = Counts()
        self.nodes: list[Node] = []
        self.lender = Lender()
        self.kept: dict[tuple[str, type], tuple[FleetItem, float, float]] = {}
        """With when it was written and when it ends."""
        self.is_store_up = True
        self.probes_out = 0
        self.latency_seconds = 0.02
        self.is_well: Callable[[Node, float], bool] = lambda node, now: True
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do it then."""
        self._number += 1
        heapq.heappush(self._events, (max(when, self.now), self._number, act))

    def run(self, until: float) -> None:
        """Let time go on."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, act = heapq.heappop(events)
            act()
        self.now = until

    def add(self, replica: str, *, is_linked: bool = True, has_siblings: bool = False) -> Node:
        """One more process, of this pod."""
        chance = random.Random(len(self.nodes)).getrandbits(
            64
        )  # as ids have: from them comes whose turn it is
        node = Node(self, replica, f"{replica}-{chance:016x}", has_siblings=has_siblings)
        self.nodes.append(node)
        if is_linked and self.is_shared:
            node.link()
        return node

    def set_replicas(self) -> None:
        """Tell everybody how many there are."""
        count = len({node.replica for node in self.nodes if node.is_alive})
        for node in self.nodes:
            node.fleet.set_replicas(count)

    # The store.

    def _delay(self) -> float:
        weather = self.weather
        delay = self.rng.uniform(*weather.delay_seconds)
        if self.rng.random() < weather.late:
            delay += self.rng.uniform(0.0, weather.late_seconds)
        return delay

    def carry(self, act: Callable[[], None]) -> None:
        """Let something travel: it may be late, doubled or lost."""
        weather = self.weather
        if self.rng.random() >= weather.lost:
            self.at(self.now + self._delay(), act)
        if self.rng.random() < weather.doubled:
            self.at(self.now + self._delay(), act)

    def write(self, sender: Node, batch: FleetBatch) -> None:
        """A process writes to the store."""
        data = encode(batch)
        self.counts.writes += 1
        self.counts.bytes_written += len(data)
        self.carry(lambda: self._take(sender, data))

    def _take(self, sender: Node, data: bytes) -> None:
        if not self.is_store_up or not sender.is_linked:
            return
        batch = decode(data)
        to_all: list[FleetItem] = []
        for item in batch.items:
            if isinstance(item, PermitAsk):
                self.counts.asks += 1
                answer = self.lender.ask(item, self.now)
                back = FleetBatch("store", "store", (answer,))
                self.carry(lambda back=back: sender.answered(back))
            elif isinstance(item, PermitReturn):
                self.lender.give_back(item)
            else:
                to_all.append(item)
        if not to_all:
            return
        passed = FleetBatch(batch.sender, batch.replica, tuple(to_all))
        written_at = self.now
        readers = [node for node in self.nodes if node is not sender and node.is_linked]
        self.counts.bytes_read += len(data) * len(readers)
        if self.weather == Weather():
            # All have it at the same moment: one event for a message, whatever their number.
            self.at(self.now + self._delay(), lambda: self._deliver(readers, passed, written_at))
            return
        for node in readers:
            self.carry(lambda node=node: node.deliver(passed, written_at))

    def _deliver(self, readers: list[Node], batch: FleetBatch, written_at: float) -> None:
        for node in readers:
            node.deliver(batch, written_at)

    def keep(self, node: Node) -> None:
        """What the store keeps for processes that come later."""
        for held in node.fleet.held(self.now):
            self.kept[held.breaker, type(held.item)] = held.item, self.now, self.now + held.life_seconds

    def flush(self) -> None:
        """The store forgets everything, and everybody notices within a second."""
        self.kept.clear()
        self.lender = Lender()
        for node in self.nodes:
            if node.is_linked:
                self.at(self.now + self.rng.random(), node.notice_loss)

    # What all do.

    def states(self) -> set[State]:
        """Of all that live and do not differ by their own evidence."""
        return {node.breaker.state for node in self.nodes if node.is_alive and not node.has_own_opinion}


class Node:
    """One process."""

    def __init__(self, world: World, replica: str, process: str, *, has_siblings: bool) -> None:
        self.world = world
        self.replica = replica
        self.process = process
        self.is_alive = True
        self.is_linked = False
        self.breaker = Breaker("shop", "payments", world.policy, random.Random(world.rng.random()), world.now)
        self.fleet = Fleet(process, replica, has_siblings=has_siblings)
        self._due = inf
        self._inbox: list[tuple[FleetBatch, float]] = []
        self._next_read = -inf
        self._is_reading = False
        self.opened_at: float | None = None
        if world.is_shared:
            self.fleet.on_wake(self._wake)
            self.fleet.join(KEY, self.breaker, world.now)
        world.at(world.now + 1.0, self._second)

    # The link.

    def link(self) -> None:
        """It is linked from now on, and hears what the store keeps."""
        self.is_linked = True
        now = self.world.now
        for item, at, ends in self.world.kept.values():
            if now < ends:
                self._heard(FleetBatch("store", "store", (item,)), now - at)
        self.fleet.up(Reach.FLEET, now)
        self._wake()

    def unlink(self) -> None:
        """It is alone from now on."""
        self.is_linked = False
        self._inbox.clear()
        self.fleet.down(self.world.now)
        self._wake()

    def die(self) -> None:
        """Without a word."""
        self.is_alive = self.is_linked = False

    def notice_loss(self) -> None:
        if self.is_linked:
            self.fleet.lost(self.world.now)
            self._wake()

    def answered(self, batch: FleetBatch) -> None:
        """What was asked for is answered on the same connection: nobody waits to read it."""
        if self.is_linked:
            self._heard(batch, 0.0)
            self._plan()

    def deliver(self, batch: FleetBatch, written_at: float) -> None:
        """Something is there to be read."""
        if not self.is_linked:
            return
        self._inbox.append((batch, written_at))
        if self._is_reading:
            return
        self._is_reading = True
        wait = 0.0 if self.world.reads_at_once else self._next_read
        self.world.at(max(self.world.now, wait), self._read)

    def _read(self) -> None:
        self._is_reading = False
        if not self.is_linked:
            return
        self.world.counts.reads += 1
        self._next_read = self.world.now + self.fleet.interval_seconds
        inbox, self._inbox = self._inbox, []
        for batch, written_at in inbox:
            self._heard(batch, self.world.now - written_at)
        self._plan()

    def _heard(self, batch: FleetBatch, age: float) -> None:
        self._moved(self.fleet.receive(batch, self.world.now, age))

    # Time.

    def _second(self) -> None:
        if self.is_alive:
            transition = self.breaker.tick(self.world.now)
            self._moved(() if transition is None else (transition,))
            self.world.at(self.world.now + 1.0, self._second)

    def _wake(self) -> None:
        self._plan(self.world.now)

    def _plan(self, at: float | None = None) -> None:
        due = self.fleet.due(self.world.now) if at is None else at
        if self.world.is_shared and due < self._due:
            self._due = max(due, self.world.now)
            self.world.at(self._due, lambda due=self._due: self._tick(due))

    def _tick(self, due: float) -> None:
        if not self.is_alive or due != self._due:
            return
        self._due = inf
        told = self.fleet.tick(self.world.now)
        self._moved(told.transitions)
        if self.is_linked:
            for batch in told.batches:
                self.world.write(self, batch)
            if told.batches:
                self.world.keep(self)
        # Nothing is due twice at one instant, or time would stand still.
        self._plan(max(self.fleet.due(self.world.now), self.world.now + 1e-6))

    def _moved(self, transitions: tuple[Transition, ...]) -> None:
        world = self.world
        for transition in transitions:
            world.counts.transitions.append((world.now, self.process, transition))
            if transition.to_state is State.OPEN and self.opened_at is None:
                self.opened_at = world.now

    # Traffic.

    def call(self) -> None:
        """One request."""
        world, now = self.world, self.world.now
        if not self.is_alive:
            return
        world.counts.calls += 1
        answer = self.breaker.admit(now, is_complete=True)
        if answer.transition is not None:
            self._moved((answer.transition,))
        if isinstance(answer, BreakerRefusal):
            world.counts.refused += 1
            world.counts.wrongly_refused += world.is_well(self, now)
            return
        permit = answer.own()
        permit.sent(None, now)
        is_counted = permit.is_probe and self.is_linked
        world.counts.probes += permit.is_probe
        if is_counted:
            world.probes_out += 1
            world.counts.most_probes = max(world.counts.most_probes, world.probes_out)
        is_good = world.is_well(self, now)
        seconds = world.latency_seconds * world.rng.uniform(0.5, 1.5)
        world.at(now + seconds, lambda: self._ends(permit, is_good=is_good, is_counted=is_counted))

    def _ends(self, permit: BreakerPermit, *, is_good: bool, is_counted: bool) -> None:
        world = self.world
        if is_counted:
            world.probes_out -= 1
        if not self.is_alive:
            return
        world.counts.failed += not is_good
        transition = permit.judge(GOOD if is_good else BAD, world.now)
        permit.close(world.now)
        self._moved(() if transition is None else (transition,))

    def traffic(self, rate: float, until: float) -> None:
        """So many calls a second, by chance, until then."""
        world = self.world

        def one() -> None:
            self.call()
            again()

        def again() -> None:
            when = world.now + world.rng.expovariate(rate)
            if self.is_alive and when < until:
                world.at(when, one)

        again()

    @property
    def has_own_opinion(self) -> bool:
        """It differs from the fleet by its own evidence, or is alone."""
        if not self.is_linked:
            return True
        own = self.fleet.status(self.world.now).breakers[0]
        return own.is_dissenting or (own.state is not self.breaker.state and own.is_refusing)
