"""What GET shows of one process, as data: `server.py` makes answers of it, and so does a process that shows several.

Reads, and changes nothing but what `Traffic` remembers. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from time import perf_counter
from typing import Any, Protocol

from sidecar.admin import views
from sidecar.admin.answers import TURN_SECONDS
from sidecar.admin.breakers import breakers_of, find_route, moment_of
from sidecar.admin.events import Events
from sidecar.admin.outcomes import page, told_store
from sidecar.admin.process import Data, Process, Standby
from sidecar.admin.traffic import Traffic
from sidecar.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """A long answer: what stands before, and its rows, each made when its turn comes."""

    head: Data
    key: str
    """Of the rows."""
    rows: Iterable[Any]
    """None: of one that has not changed."""

    async def all_rows(self) -> list[Any]:
        """In turns, so that nothing waits for long."""
        found: list[Any] = []
        began = perf_counter()
        for row in self.rows:
            if row is not None:
                found.append(row)
            if perf_counter() - began > TURN_SECONDS:
                await asyncio.sleep(0)
                began = perf_counter()
        return found


class Readings(Protocol):
    """Of one process or of several."""

    turn: asyncio.Lock
    """Held from `routes` until its rows are there."""

    async def status(self) -> Data: ...
    async def routes(self, since: str | None) -> Table:
        """All, or with `since` those that have changed after the answer that told this cursor."""

    async def history(self) -> Table:
        """What came of each route in the last ten minutes."""

    async def breakers(self, routes: Collection[str] | None) -> Table:
        """Those of some routes; None: all."""

    async def breaker(self, route: str) -> Table:
        """Raises: Refused, if there is no such route."""

    async def upstreams(self, names: Collection[str] | None) -> Table: ...
    async def outcomes(self, route: str, begin: int, limit: int) -> Table:
        """A page of what came of a route's last requests, from record number `begin` on.

        Raises: Refused, if there is no such route.
        """


class OwnReadings:
    """Of this process."""

    def __init__(self, process: Process, events: Events) -> None:
        self._process = process
        self._events = events
        self._traffic = Traffic()
        self.turn = self._traffic.turn

    async def status(self) -> Data:
        process, events, taps = self._process, self._events, self._process.taps
        return {
            **process.vitals(),
            "is_started": process.is_started,
            "is_ready": process.is_ready,
            "is_draining": process.is_draining,
            "routes": len(process.snapshot.routes),
            "breakers": views.breakers_in_all(process.breakers.values(), moment_of(process)),
            "events": {
                "last_id": events.last_id,
                "readers": len(events.readers),
                "dropped": events.dropped,
                "cut": events.cut,
                "refused": events.refused,
            },
            "taps": {"readers": len(taps.readers), "lost": taps.lost, "refused": taps.refused},
            "outcomes": told_store(process.outcomes),
            "log_level": process.log_level,
        }

    async def routes(self, since: str | None) -> Table:
        process, traffic = self._process, self._traffic
        head, after = traffic.head(process, since)
        numbers = {one.name: one for one in process.numbers.routes()}
        routes = ((one, breakers_of(process, one)) for one in process.snapshot.routes)
        head["duration_bounds"] = process.numbers.duration_bounds
        return Table(head, "routes", traffic.rows(routes, numbers, after, process.now(), process.recent))

    async def history(self) -> Table:
        recent = self._process.recent
        head: Data = {"at_seconds": self._process.now(), "looks_seconds": list(recent.looks)}
        return Table(head, "routes", (views.history(*one) for one in recent.all()))

    async def breakers(self, routes: Collection[str] | None) -> Table:
        moment = moment_of(self._process)
        found = [one for one in self._process.breakers.values() if routes is None or one.route in routes]
        rows = ({**views.breaker_row(one, moment), "fleet": self._process.fleet_of(one)} for one in found)
        return Table({}, "breakers", rows)

    async def breaker(self, route: str) -> Table:
        process = self._process
        policy = find_route(process, route)
        moment = moment_of(process)
        served = {name for name, _ in policy.upstreams}
        rows = (
            {
                **views.breaker_whole(one, moment, is_fallback=one.upstream not in served),
                "fleet": process.fleet_of(one),
            }
            for one in breakers_of(process, policy)
        )
        return Table({"route": policy.name}, "breakers", rows)

    async def upstreams(self, names: Collection[str] | None) -> Table:
        process, moment = self._process, moment_of(self._process)
        clusters = [one for one in process.clusters.values() if names is None or one.name in names]
        by_upstream: dict[str, dict[str, Standby]] = {}
        for (route, name), standby in process.standbys.items():
            by_upstream.setdefault(name, {})[route] = standby
        listing = process.listing
        rows = (views.upstream(one, moment, listing, by_upstream.get(one.name, {})) for one in clusters)
        return Table({}, "upstreams", rows)

    async def outcomes(self, route: str, begin: int, limit: int) -> Table:
        head, rows = page(self._process, route, begin, limit)
        return Table(head, "rows", rows)
