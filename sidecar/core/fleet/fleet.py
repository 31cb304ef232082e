"""All breakers of one process that act as one with those of others: what comes in, and what is to be sent.

It knows no carrier. Whoever has one gives it what was heard (`receive`), says whether the link is up, calls `tick`
when it is due, and sends what that returns. Nothing of this stands on a request's path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Final

from sidecar.core.breaker import Breaker, Override
from sidecar.core.dataclass import dataclass
from sidecar.core.fleet.encoding import BadMessage, decode
from sidecar.core.fleet.member import FleetMember, Reach
from sidecar.core.fleet.messages import (
    BreakerReport,
    Decision,
    FleetBatch,
    FleetItem,
    FleetOrder,
    PermitAnswer,
    batches_of,
)
from sidecar.core.fleet.orders import Orders
from sidecar.core.fleet.shared import KEPT_SECONDS, SharedBreaker
from sidecar.core.fleet.status import FleetCounts, FleetStatus, SharedStatus
from sidecar.core.fleet.versions import Versions
from sidecar.core.transition import State, Transition

MAX_SHARED: Final = 4096
"""Breakers of a process that act as one with others; those beyond are alone, and counted."""


LEAST_SECONDS: Final = 0.001
"""Between two ticks that nobody has asked for."""


@dataclass(frozen=True, slots=True)
class ToSend:
    """What `tick` asks for."""

    batches: tuple[FleetBatch, ...]
    """To be sent now."""
    transitions: tuple[Transition, ...]
    """To be reported, as any other."""


@dataclass(frozen=True, slots=True)
class ToKeep:
    """What a store is to keep, for processes that come later."""

    breaker: str
    item: Decision | FleetOrder
    life_seconds: float
    """Then it may be forgotten."""


class Fleet:
    """Owned by the loop of its process; no method suspends. Times are monotonic seconds."""

    __slots__ = (
        "_counts",
        "_member",
        "_next_urgent",
        "_next_write",
        "_orders",
        "_shared",
        "_ticked_at",
        "_versions",
    )

    def __init__(self, process: str, replica: str, *, has_siblings: bool = True) -> None:
        """`process`: an id that no other life of any process has; `replica`: that of the pod. `has_siblings`: whether
        the pod has other processes; what it decides for itself alone is told to no one else."""
        self._member = FleetMember(process, replica, has_siblings=has_siblings)
        self._shared: dict[str, SharedBreaker] = {}
        self._orders: dict[str, Orders] = {}
        self._versions = Versions()
        self._counts = FleetCounts()
        self._next_write = self._next_urgent = self._ticked_at = -inf

    @property
    def process(self) -> str:
        return self._member.process

    @property
    def replica(self) -> str:
        return self._member.replica

    @property
    def reach(self) -> Reach:
        return self._member.reach

    @property
    def interval_seconds(self) -> float:
        """Between two writes, if nothing is urgent."""
        return self._member.interval_seconds

    def set_replicas(self, count: int) -> None:
        """How many replicas there are, as far as the carrier knows."""
        self._member.replicas = max(1, count)

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Whom to call when `tick` is due now. It comes from within calls of the data path and may come often: have
        `tick` called once, later."""
        self._member.wake = wake

    # Breakers.

    def join(self, key: str, breaker: Breaker, now: float) -> bool:
        """Let a breaker act as one with those of the same key (`keys.py`). False: there are too many.

        Raises:
            ValueError: another breaker has joined with this key.
        """
        known = self._shared.get(key)
        if known is not None:
            if known.breaker is breaker:
                return True
            raise ValueError(f"two breakers have the key {key}: one for each route and upstream may join")
        if len(self._shared) >= MAX_SHARED:
            self._counts.unshared += 1
            return False
        self._shared[key] = SharedBreaker(key, breaker, self._member, now)
        self._orders[key] = Orders(key, breaker, self._member)
        return True

    def leave(self, key: str, now: float) -> None:
        """The breaker has left the configuration, or its policy is another: it is alone again."""
        shared = self._shared.pop(key, None)
        self._orders.pop(key, None)
        if shared is not None:
            shared.leave()

    def keys(self) -> tuple[str, ...]:
        """Of all breakers that have joined."""
        return tuple(self._shared)

    # The link.

    def up(self, reach: Reach, now: float) -> None:
        """The link works: this process is heard as far as `reach` says, and hears. If that is less far than before,
        what was heard of all others is of now no more; those who still hear say it again."""
        if reach is Reach.ALONE:
            raise ValueError("a link that reaches nobody is down: call `down`")
        if self._member.reach is reach:
            return
        if self._member.reach is Reach.FLEET:
            self.down(now)
        self._member.reach = reach
        self.lost(now)

    def down(self, now: float) -> None:
        """The link is down, or slow, or wrong: each is alone from now on, and keeps its state."""
        self._member.reach = Reach.ALONE
        for shared in self._shared.values():
            shared.lost_link()

    def lost(self, now: float) -> None:
        """The store has lost what it kept: whoever knows it says it again."""
        for shared in self._shared.values():
            shared.joined(now)
        for orders in self._orders.values():
            orders.joined()
        self._member.wake()

    def receive_bytes(self, data: bytes, now: float, age_seconds: float = 0.0) -> tuple[Transition, ...]:
        """The same for what came from a wire; what is no batch is counted, and changes nothing."""
        try:
            batch = decode(data)
        except BadMessage:
            self._counts.refused += 1
            return ()
        return self.receive(batch, now, age_seconds)

    def receive(self, batch: FleetBatch, now: float, age_seconds: float = 0.0) -> tuple[Transition, ...]:
        """What others said `age_seconds` ago. Returns the transitions that it has caused, to be reported."""
        if batch.sender == self._member.process:
            return ()
        self._counts.received += 1
        moved: list[Transition] = []
        for item in batch.items:
            moved += self._hear(item, now - max(0.0, age_seconds), now)
        return tuple(moved)

    def _hear(self, item: FleetItem, at: float, now: float) -> list[Transition]:
        shared = self._shared.get(item.breaker)
        if shared is None:
            self._versions.hear(item.breaker, now)
            return []
        if isinstance(item, BreakerReport):
            if item.process != self._member.process:
                shared.hear_report(item, at, now)
        elif isinstance(item, Decision):
            return shared.hear_decision(item, at, now)
        elif isinstance(item, FleetOrder):
            return self._orders[item.breaker].hear(item, at, now)
        elif isinstance(item, PermitAnswer):
            shared.hear_answer(item, now)
        return []

    # Time.

    def tick(self, now: float) -> ToSend:
        """Do what is due."""
        self._ticked_at = now
        moved: list[Transition] = []
        for shared in self._shared.values():
            moved += shared.tick(now)
        items = list(self._items(now))
        if self._member.reach is Reach.ALONE:
            items = []
        batches = batches_of(self._member.process, self._member.replica, items)
        self._counts.sent += len(batches)
        return ToSend(batches, tuple(moved))

    def _items(self, now: float) -> Iterator[FleetItem]:
        is_due, may_be_urgent = now >= self._next_write, now >= self._next_urgent
        if is_due:
            self._next_write = now + self._member.interval_seconds
        for shared in self._shared.values():
            out = shared.take_out(now)
            yield from filter(self._is_of_interest, out)
            is_urgent = shared.telling.is_urgent and may_be_urgent
            if (is_due or out or is_urgent) and shared.wants_to_report(now):
                if is_urgent and not is_due:
                    self._next_urgent = now + self._member.interval_seconds
                yield shared.report(now)
        for orders in self._orders.values():
            yield from orders.take_out(now)

    def _is_of_interest(self, item: FleetItem) -> bool:
        """To others, who heed no decision that a pod makes for itself."""
        return self._member.has_siblings or not (isinstance(item, Decision) and item.pod)

    def due(self, now: float) -> float:
        """When `tick` is to be called, if nothing wakes it before; `inf`: not before something happens."""
        due = min((shared.due(now) for shared in self._shared.values()), default=inf)
        due = max(due, self._ticked_at + LEAST_SECONDS)
        if self._member.reach is Reach.ALONE:
            return due
        return min(due, self._next_write) if self._shared else inf

    # Overrides for all.

    def order(
        self, key: str, action: Override, now: float, seconds: float | None = None, by: str = ""
    ) -> Transition | None:
        """Override the breakers of all replicas, this one at once (`Breaker.override`).

        Raises:
            KeyError: no breaker has joined with this key.
            ValueError: `seconds` is zero or less.
        """
        transition = self._orders[key].order(action, now, seconds, by)
        self._member.wake()
        return transition

    # What others see.

    def held(self, now: float) -> tuple[ToKeep, ...]:
        """What a store is to keep: to be written with each batch that has a decision or an order, and again before
        its life is over."""
        found: list[ToKeep] = []
        for key, shared in self._shared.items():
            standing = shared.standing
            found.append(ToKeep(key, standing.told(standing.fleet, now), shared.held_seconds(now)))
            order = self._orders[key].told(now)
            if order is not None:
                left = KEPT_SECONDS if order.left_seconds is None else order.left_seconds
                found.append(ToKeep(key, order, left))
        return tuple(held for held in found if held.life_seconds > 0.0)

    def is_dissenting(self, key: str) -> bool:
        """Whether that breaker lets calls go by its own evidence, although the fleet does not. Reads alone, from any
        thread; False where none has joined with this key."""
        shared = self._shared.get(key)
        return shared is not None and shared.is_dissenting

    def status_of(self, key: str, now: float) -> SharedStatus | None:
        """One breaker; None: none has joined with this key."""
        shared = self._shared.get(key)
        return None if shared is None else self._status_of(key, shared, now)

    def status(self, now: float) -> FleetStatus:
        """Everything there is to show."""
        member = self._member
        breakers = tuple(self._status_of(key, shared, now) for key, shared in self._shared.items())
        counts = self._counts.copy()
        counts.unheard = sum(shared.reports.unheard for shared in self._shared.values())
        return FleetStatus(member.process, member.replica, member.reach, member.replicas, breakers, counts)

    def _status_of(self, key: str, shared: SharedBreaker, now: float) -> SharedStatus:
        merged, standing = shared.merged(now), shared.standing
        return SharedStatus(
            key,
            standing.fleet.fleet,
            standing.fleet.state if standing.fleet.fleet else State.CLOSED,
            standing.fleet.replica,
            len(merged.refusing),
            len(merged.callers | merged.refusing),
            shared.is_refusing,
            shared.is_dissenting,
            len(merged.dissenting),
            shared.borrower.permits(now),
            self._versions.beside(key, now),
        )
