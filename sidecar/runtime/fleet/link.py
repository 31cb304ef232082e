"""The part `fleet_link`: keeps one replica linked to its fleet by a Redis, or says why it goes on alone.

While it is linked these go on beside each other: what the fleet's pure half has to tell is written, what others tell
is read, and each beat says that this replica is there. One that fails ends them all: from then on the replica is
alone, and the next try follows after a pause that doubles. Nothing is kept for later meanwhile, since all that is
told are totals and states, which hold when they are told again.

Nothing here is waited for by a request.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, Protocol

from sidecar.core.dataclass import dataclass
from sidecar.core.fleet.member import scale_of
from sidecar.core.fleet.messages import FleetBatch, PermitAnswer
from sidecar.core.snapshot import RedisPolicy
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.fleet.failed import Lack, StoreFailed
from sidecar.runtime.fleet.store import MOST_AWAITED, News, Store, Writing

FIRST_PAUSE_SECONDS: Final = 0.1
"""Before the second try; doubles up to the longest. Each is cut by up to a half by chance, so that replicas do not
try in step."""
LONGEST_PAUSE_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
"""A link that lasted so long was a good one: the pauses begin anew."""
BEAT_SECONDS: Final = 2.0
IDLE_SECONDS: Final = 1.0
"""How long the Redis is asked to wait for news, times the fleet's size: then it is asked again."""
MAX_CATCH_UPS: Final = 16
"""Answers of the stream that a replica reads at once, as before it takes part; what is left comes as news."""
LENDER: Final = "redis"
"""The sender of answers to who asks for permits."""


@dataclass(frozen=True, slots=True)
class LinkPlace:
    """Where a fleet meets, and under which name."""

    policy: RedisPolicy
    namespace: str
    fleet: str
    replica: str
    """Of no other process that lives."""


class Linked(Protocol):
    """The fleet's pure half, as the link sees it: `Acting`."""

    @property
    def interval_seconds(self) -> float:
        """Between two reads."""

    @property
    def window_seconds(self) -> float:
        """How far back what was told still matters."""

    def names(self) -> list[str]:
        """Of the states that a replica begins with."""

    def held(self) -> list[str]:
        """Of the states that have to be there."""

    def outbox(self) -> Writing:
        """What is to be written now, once."""

    def linked(self, replicas: int) -> None:
        """From now on others hear what is told, and are heard."""

    def alone(self) -> None: ...
    def counted(self, replicas: int) -> None: ...
    def heard(self, body: bytes, age_seconds: float) -> None: ...
    def answered(self, batch: FleetBatch) -> None: ...
    def lost(self) -> None:
        """A state that has to be there is not."""


class LinkNumbers:
    """What is told of the link. Owned by the loop, read from anywhere."""

    __slots__ = ("failures", "is_linked", "lack", "read", "replicas", "since", "told", "written")

    def __init__(self, now: float) -> None:
        self.is_linked = False
        self.lack = Lack.STARTING
        """Why it is alone; the last reason while it is linked."""
        self.told = ""
        """The same in words."""
        self.since = now
        """When `is_linked` changed."""
        self.replicas = 1
        self.written = self.read = 0
        """Round trips with something in them."""
        self.failures: dict[Lack, int] = {}
        """Tries and links that ended, by reason."""


class FleetLink:
    """One replica's link, for whatever place the configuration names at present."""

    def __init__(
        self, linked: Linked, clock: Callable[[], float], tell: Callable[[LinkNumbers], None]
    ) -> None:
        """`tell` is called when the replica is alone, by a new reason too, or no longer."""
        self._linked = linked
        self._clock = clock
        self._tell = tell
        self._rng = random.Random()
        self._place: LinkPlace | None = None
        self._last_id = ""
        self._moved = asyncio.Event()
        self._has_more = asyncio.Event()
        self._has_joined = asyncio.Event()
        self._has_tried = asyncio.Event()
        self.numbers = LinkNumbers(clock())

    @property
    def place(self) -> LinkPlace | None:
        return self._place

    def move(self, place: LinkPlace | None) -> None:
        """Meet there from now on; None: nowhere. The same place again changes nothing."""
        if place != self._place:
            self._place = place
            self._last_id = ""
            self._has_tried.clear()
            self._moved.set()

    def write_soon(self) -> None:
        """There is something to be written."""
        self._has_more.set()

    def look_again(self) -> None:
        """Breakers have joined: what is the state of their peers?"""
        self._has_joined.set()

    async def met(self, seconds: float) -> None:
        """Return when the fleet's states are known, or could not be had, and after `seconds` at the latest."""
        if self._place is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._has_tried.wait()
        except TimeoutError:
            return

    async def run(self, _mailbox: Mailbox[None]) -> None:
        """The part's life."""
        try:
            await self._keep_linked()
        finally:
            # The process ends, or this part crashed, which is told by whoever looks after it.
            self._is_alone(StoreFailed(Lack.ENDED, "the link has ended"), is_told=False)

    async def _keep_linked(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._moved.clear()
            if self._place is None:
                self._is_alone(StoreFailed(Lack.ENDED, "the configuration has no fleet"))
                await self._moved.wait()
                continue
            failed = await self._one_link(self._place)
            if failed is None:
                self._is_alone(
                    StoreFailed(Lack.STARTING, "the configuration has another place for the fleet")
                )
                pause = FIRST_PAUSE_SECONDS
                continue
            if self.numbers.is_linked and self._clock() - self.numbers.since > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._is_alone(failed)
            await self._pause(pause * self._rng.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _one_link(self, place: LinkPlace) -> StoreFailed | None:
        """Be linked until something fails, or (None) the place is another one."""
        try:
            store = await Store.open(place.policy, place.namespace, place.fleet)
        except StoreFailed as failed:
            return failed
        try:
            await self._meet(store, place)
            await self._stay(store, place)
        except StoreFailed as failed:
            return failed
        finally:
            await store.close()
        return None

    async def _meet(self, store: Store, place: LinkPlace) -> None:
        """Learn what the others know, and then be one of them."""
        self._has_joined.clear()
        replicas, _ = await store.beat(place.replica)
        await self._learn(store)
        await self._catch_up(store)
        numbers = self.numbers
        numbers.is_linked, numbers.since, numbers.replicas = True, self._clock(), replicas
        self._linked.linked(replicas)
        self._has_tried.set()
        self._tell(numbers)

    async def _stay(self, store: Store, place: LinkPlace) -> None:
        """Raises: StoreFailed."""
        tasks = [
            asyncio.create_task(one)
            for one in (
                self._read(store),
                self._write(store),
                self._beat(store, place),
                self._look(store),
                self._moved.wait(),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    async def _read(self, store: Store) -> None:
        while True:
            news = await store.wait(self._last_id, IDLE_SECONDS * scale_of(self.numbers.replicas))
            if news:
                self.numbers.read += 1
                self._last_id = news[-1].id
                self._hear(news)
                if len(news) == MOST_AWAITED:
                    await self._catch_up(store)
                await asyncio.sleep(self._linked.interval_seconds)

    async def _catch_up(self, store: Store) -> None:
        for _ in range(MAX_CATCH_UPS):
            news, self._last_id = await store.catch_up(self._last_id, self._linked.window_seconds)
            self._hear(news)
            if not news:
                break

    async def _write(self, store: Store) -> None:
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            writing = self._linked.outbox()
            if writing:
                self.numbers.written += 1
                self._answered(await store.write(writing))

    async def _look(self, store: Store) -> None:
        while True:
            await self._has_joined.wait()
            self._has_joined.clear()
            await self._learn(store)

    async def _learn(self, store: Store) -> None:
        """The states of all breakers, as their peers have left them."""
        names = self._linked.names()
        for state in await store.states(names) if names else ():
            self._linked.heard(state.body, state.age)

    async def _beat(self, store: Store, place: LinkPlace) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.numbers.replicas, is_missing = await store.beat(place.replica, self._linked.held())
            self._linked.counted(self.numbers.replicas)
            if is_missing:
                self._linked.lost()

    def _hear(self, news: list[News]) -> None:
        for one in news:
            self._linked.heard(one.body, one.age)

    def _answered(self, answers: list[PermitAnswer]) -> None:
        if answers:
            self._linked.answered(FleetBatch(LENDER, LENDER, tuple(answers)))

    def _is_alone(self, failed: StoreFailed, *, is_told: bool = True) -> None:
        numbers = self.numbers
        is_news = numbers.is_linked or failed.lack is not numbers.lack
        if numbers.is_linked:
            numbers.since = self._clock()
        numbers.is_linked, numbers.lack, numbers.told = False, failed.lack, str(failed)
        numbers.failures[failed.lack] = numbers.failures.get(failed.lack, 0) + 1
        self._linked.alone()
        self._has_tried.set()
        if is_news and is_told:
            self._tell(numbers)

    async def _pause(self, seconds: float) -> None:
        """Until then, or until there is another place to try."""
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            return
