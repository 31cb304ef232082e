"""The part `fleet`: lets the pure half of a fleet (`core/fleet`) act when its time has come, and carries what it
tells to the link and what others tell to it.

Owned by the event loop. What the pure half has to tell waits in a bounded outbox; where that overflows, or nobody is
linked, it is dropped: reports are totals, and decisions are told again.

In a pod with several workers all of it goes to the other workers too, so that these are one with each other while the
link is down, and hear a link that only one of them has. Permits are asked for in one place: by the link, or while it
is down of the pod.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

from sidecar.core.fleet.encoding import encode
from sidecar.core.fleet.fleet import Fleet
from sidecar.core.fleet.member import Reach
from sidecar.core.fleet.messages import Decision, FleetBatch, FleetOrder, PermitAsk, PermitReturn
from sidecar.core.transition import Transition
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.fleet.store import Writing

MAX_WAITING: Final = 64
"""Batches that wait to be written; each has 256 items at most."""
LEAST_PAUSE_SECONDS: Final = 0.001
"""Between two looks at what is due."""
LEAST_WINDOW_SECONDS: Final = 10.0
"""How far back a new replica reads, at least."""


class Acting:
    """One process's fleet, between its breakers and its link."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Callable[[], float],
        tell: Callable[[Transition], None],
        write_soon: Callable[[], None],
    ) -> None:
        """`tell` hears of each change of state that others have brought about, `write_soon` that there is something
        in the outbox."""
        self.fleet = fleet
        self._clock = clock
        self._tell = tell
        self._write_soon = write_soon
        self._waiting: list[FleetBatch] = []
        self._is_linked = False
        self._say_in_pod: Callable[[tuple[bytes, ...]], bool] | None = None
        """Tells the other workers, as long as these can be told."""
        self.window_seconds = LEAST_WINDOW_SECONDS
        """How far back what was told still matters, by the windows of the breakers."""
        self.dropped = 0
        """Batches that found the outbox full."""

    # The part

    async def run(self, mailbox: Mailbox[None]) -> None:
        """Act when something is due, and when the pure half wants to: then there is a message."""
        self.fleet.on_wake(lambda: _once(mailbox))
        while True:
            self.act()
            seconds = self.fleet.due(self._clock()) - self._clock()
            await mailbox.get(None if seconds == inf else max(LEAST_PAUSE_SECONDS, seconds))

    def act(self) -> None:
        """Do what is due now."""
        told = self.fleet.tick(self._clock())
        self._report(told.transitions)
        if not told.batches:
            return
        if self._is_linked:
            self._queue(told.batches)
        self._tell_pod(told.batches)

    def _queue(self, batches: tuple[FleetBatch, ...]) -> None:
        room = MAX_WAITING - len(self._waiting)
        self._waiting += batches[:room]
        if len(batches) > room:
            self.dropped += len(batches) - room
            self.fleet.lost(self._clock())
        self._write_soon()

    def _report(self, transitions: Iterable[Transition]) -> None:
        for transition in transitions:
            self._tell(transition)

    # The other workers of the pod

    def with_pod(self, say: Callable[[tuple[bytes, ...]], bool] | None) -> None:
        """They can be told by `say`, which returns False where it could not; None: they can't be."""
        self._say_in_pod = say
        self._reach()

    def heard_in_pod(self, messages: Iterable[bytes]) -> None:
        """What they said, just now."""
        for message in messages:
            self.heard(message, 0.0)

    def _tell_pod(self, batches: tuple[FleetBatch, ...]) -> None:
        if self._say_in_pod is None:
            return
        told = [_news_of(one) for one in batches] if self._is_linked else batches
        messages = tuple(encode(one) for one in told if one.items)
        if messages and not self._say_in_pod(messages):
            self.with_pod(None)

    def _reach(self) -> None:
        """Who hears this process now."""
        if self._is_linked:
            self.fleet.up(Reach.FLEET, self._clock())
        elif self._say_in_pod is not None:
            self.fleet.set_replicas(1)
            self.fleet.up(Reach.POD, self._clock())
        else:
            self.fleet.down(self._clock())

    # What the link asks and tells: `Linked`

    @property
    def interval_seconds(self) -> float:
        return self.fleet.interval_seconds

    def names(self) -> list[str]:
        keys = self.fleet.keys()
        return [_name(key, kind) for key in keys for kind in (Decision, FleetOrder)]

    def held(self) -> list[str]:
        return [_name(one.breaker, type(one.item)) for one in self.fleet.held(self._clock())]

    def outbox(self) -> Writing:
        batches, self._waiting = self._waiting, []
        writing = Writing()
        for batch in batches:
            writing.asks += [item for item in batch.items if isinstance(item, PermitAsk)]
            writing.returns += [item for item in batch.items if isinstance(item, PermitReturn)]
            news = _news_of(batch)
            if news.items:
                writing.news.append(encode(news))
        self._add_states(writing, batches)
        return writing

    def _add_states(self, writing: Writing, batches: list[FleetBatch]) -> None:
        """What is told of a breaker's state is also kept for those who come later, or is no longer."""
        kinds = (Decision, FleetOrder)
        told = {
            _name(item.breaker, type(item))
            for one in batches
            for item in one.items
            if isinstance(item, kinds)
        }
        if not told:
            return
        for held in self.fleet.held(self._clock()):
            name = _name(held.breaker, type(held.item))
            if name in told:
                batch = FleetBatch(batches[0].sender, batches[0].replica, (held.item,))
                writing.states[name] = encode(batch), held.life_seconds
        writing.gone |= told - writing.states.keys()

    def linked(self, replicas: int) -> None:
        self._is_linked = True
        self.counted(replicas)
        self._reach()

    def alone(self) -> None:
        self._is_linked = False
        self._waiting.clear()
        self._reach()

    def counted(self, replicas: int) -> None:
        self.fleet.set_replicas(replicas)

    def heard(self, body: bytes, age_seconds: float) -> None:
        self._report(self.fleet.receive_bytes(body, self._clock(), age_seconds))

    def answered(self, batch: FleetBatch) -> None:
        self._report(self.fleet.receive(batch, self._clock()))

    def lost(self) -> None:
        self.fleet.lost(self._clock())


def _news_of(batch: FleetBatch) -> FleetBatch:
    """What is for all, without what is between this process and who lends permits."""
    items = tuple(item for item in batch.items if not isinstance(item, PermitAsk | PermitReturn))
    return FleetBatch(batch.sender, batch.replica, items)


def _once(mailbox: Mailbox[Any]) -> None:
    """Wake the part; it is called more often than it acts."""
    if not len(mailbox):
        mailbox.put(None)


def _name(key: str, kind: type) -> str:
    """Of the state of one breaker in the store, or of an operator's word on it."""
    return f"{key}:{'order' if kind is FleetOrder else 'state'}"
