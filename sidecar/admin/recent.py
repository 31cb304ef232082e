"""What came of each route in the last ten minutes.

The process keeps it, so that a page that is opened in an outage shows how that began, and so that rates are those of
the last minute, whoever asked before.

One look each 5 s; a route that nothing has happened to adds nothing, so a history is sparse: at any moment the last
sample before it holds. Owned by the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from sidecar.core.errors import GONE
from sidecar.core.numbers import RouteNumbers

STEP_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 600.0
MAX_SAMPLES: Final = 16_384
"""Over all routes, about 5 MiB: 136 routes that are always busy have all of ten minutes, a thousand 80 s."""
_AT_ONCE: Final = 20
"""Routes that are looked at in one turn of the loop: about half a millisecond."""


class Sample(NamedTuple):
    """The counters of a route at one moment, since the process began."""

    at: float
    """Monotonic seconds."""
    finished: int
    errors: int
    gone: int
    counts: tuple[int, ...]
    """How many took how long, by the bounds of the numbers."""


class Counted(Protocol):
    """What is looked at: the numbers of this process, or the sum of several."""

    @property
    def duration_bounds(self) -> tuple[float, ...]: ...
    def routes(self) -> list[RouteNumbers]: ...


class Recent:
    """The histories of all routes."""

    def __init__(self, numbers: Counted, clock: Callable[[], float], most: int = MAX_SAMPLES) -> None:
        """`clock` is monotonic seconds; `most`: samples over all routes, beyond one of each."""
        self.numbers = numbers
        self._is_sum = False
        self._clock = clock
        self._most = most
        self._looks: deque[float] = deque([clock()])
        self._samples: dict[str, deque[Sample]] = {}
        self._marks: dict[str, list[object]] = {}
        """What a route looked like last: objects that are replaced whenever something is counted."""
        self._order: deque[tuple[float, str]] = deque()
        """Of all samples that may be forgotten, oldest first."""

    def __len__(self) -> int:
        """Samples of all routes."""
        return sum(map(len, self._samples.values()))

    def look_at_sum(self, numbers: Counted) -> None:
        """From now on at what several processes have counted. Adding that up takes too long for the loop: its
        `routes` is called in a thread."""
        self.numbers, self._is_sum = numbers, True

    async def run(self, mailbox: object) -> None:
        """Look again and again; a part, which may be begun anew."""
        while True:
            await self.look()
            await asyncio.sleep(STEP_SECONDS)

    async def look(self) -> None:
        """Note what all routes have come to, in several turns of the loop."""
        routes = await asyncio.to_thread(self.numbers.routes) if self._is_sum else self.numbers.routes()
        now = self._clock()
        names = set()
        for place, route in enumerate(routes):
            if route.name is not None:
                names.add(route.name)
                self._note(route.name, route, now)
            if place % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        self._looks.append(now)
        for name in self._samples.keys() - names:
            del self._samples[name], self._marks[name]
        self._forget(now - KEPT_SECONDS)

    def of(self, name: str) -> Sequence[Sample]:
        """Of one route, oldest first; the first one may be older than what is kept, since nothing came after it."""
        return self._samples.get(name, ())

    def all(self) -> Iterator[tuple[str, Sequence[Sample]]]:
        """Of each route, in the order of their first requests."""
        return iter(list(self._samples.items()))

    @property
    def looks(self) -> Sequence[float]:
        """When it was looked, oldest first; never empty."""
        return self._looks

    def before(self, name: str, seconds: float) -> tuple[Sample | None, float]:
        """A route's counters so long ago, and how long ago that was exactly: a look earlier, or the first one. None
        where it had counted nothing."""
        now = self._clock()
        look = next((at for at in reversed(self._looks) if at <= now - seconds), self._looks[0])
        own = self._samples.get(name, ())
        return next((one for one in reversed(own) if one.at <= look), None), now - look

    def _note(self, name: str, route: RouteNumbers, now: float) -> None:
        route.fold()
        marks: list[object] = [row.state for row in list(route.server.values())]
        known = self._marks.get(name)
        if known is not None and len(known) == len(marks) and all(map(_is_same, known, marks)):
            return
        self._marks[name] = marks
        found = sample_of(route, now, len(self.numbers.duration_bounds) + 1)
        own = self._samples.setdefault(name, deque())
        if own and found.finished < own[-1].finished:
            own.clear()  # another life of it
        if not own and found.finished:
            self._add(name, own, Sample(self._looks[-1], 0, 0, 0, (0,) * len(found.counts)))
        self._add(name, own, found)

    def _add(self, name: str, own: deque[Sample], sample: Sample) -> None:
        own.append(sample)
        self._order.append((sample.at, name))

    def _forget(self, horizon: float) -> None:
        """What is older, or too much. Each route keeps its last sample, which holds until another one comes."""
        order, looks = self._order, self._looks
        while order and (order[0][0] <= horizon or len(order) > self._most):
            own = self._samples.get(order.popleft()[1])
            if own is not None and len(own) > 1:
                own.popleft()
        while len(looks) > 1 and looks[1] <= horizon:
            looks.popleft()


def sample_of(route: RouteNumbers, now: float, buckets: int) -> Sample:
    """Its counters now; the rows are folded."""
    errors = gone = 0
    counts = [0] * buckets
    for (_, _, error, _), row in list(route.server.items()):
        own = row.state[0]
        count = sum(own)
        if error in GONE:
            gone += count
        elif error:
            errors += count
        counts = [before + more for before, more in zip(counts, own, strict=True)]
    return Sample(now, sum(counts), errors, gone, tuple(counts))


def _is_same(one: object, other: object) -> bool:
    return one is other or one == other  # sums of several processes are made anew for each look
