"""`GET /routes?since=CURSOR`: the routes whose numbers have changed, so that asking each second costs little.

A look at a route that nothing has happened to takes 3 µs, its row as JSON ten times that. What is remembered is
bounded: for each route references to numbers that exist anyway, whatever the number of clients. Owned by the loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sidecar.admin import views
from sidecar.admin.cursor import place_of
from sidecar.admin.process import Data, Process
from sidecar.admin.recent import Recent
from sidecar.core.breaker import Breaker
from sidecar.core.dataclass import dataclass
from sidecar.core.numbers import RouteNumbers
from sidecar.core.snapshot import Direction, Route, Snapshot


@dataclass(slots=True)
class _Seen:
    """What a route looked like when last asked, and in which look it came to be so."""

    marks: list[object]
    look: int


class Traffic:
    """Remembers what was seen of each route, and numbers the looks."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        """Held for a look: a second one in the middle would take changes away from the first."""
        self._life = secrets.token_hex(4)
        self._look = 0
        self._snapshot: Snapshot | None = None
        self._seen: dict[str, _Seen] = {}

    def head(self, process: Process, since: str | None) -> tuple[Data, int]:
        """Begin a look: the cursor for the next one, whether it shows all routes, and what to show changes since.

        All are shown without a cursor, to one of another life or the future, and when the configuration is another.
        """
        if process.snapshot is not self._snapshot:
            self._snapshot = process.snapshot
            self._life = secrets.token_hex(4)
            self._seen = {}
        after = place_of(since, self._life, self._look)
        self._look += 1
        head = {
            "cursor": f"{self._life}-{self._look}",
            "is_complete": after is None,
            "at_seconds": process.now(),
        }
        return head, -1 if after is None else after

    def rows(
        self,
        routes: Iterable[tuple[Route, Sequence[Breaker]]],
        numbers: Mapping[str | None, RouteNumbers],
        after: int,
        now: float,
        recent: Recent,
    ) -> Iterator[Data | None]:
        """A row for each route that has changed after that look, and None for each other; this look is at `now`.

        `recent` knows the last minute, of which a route that is not shown again is shown no end."""
        for route, breakers in routes:
            own = numbers.get(route.name)
            marks: list[object] = [breaker.state_at(now) for breaker in breakers]
            if own is not None:
                own.fold()
                marks += own.active.values()
                marks += [row.state for row in list(own.server.values())]
            seen = self._seen.get(route.name)
            if seen is None or seen.marks != marks:
                seen = self._seen[route.name] = _Seen(marks, self._look)
            yield (
                views.route(route, own, breakers, now, recent, self._direction(route))
                if seen.look > after
                else None
            )

    def _direction(self, route: Route) -> Direction:
        assert self._snapshot is not None, "a look begins with its head"
        return self._snapshot.listeners[route.listener].direction
