"""What the admin API shows where several processes serve: each worker is asked, and the answers are put together.

A worker that does not answer in time is left out, and `/status` says so. Owned by control's event loop.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sidecar.admin import merged
from sidecar.admin.process import Data
from sidecar.admin.readings import Readings, Table
from sidecar.admin.recent import Recent
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.channel import NoAnswer
from sidecar.runtime.workers.hub import ASK_SECONDS, Hub

RECORDS_OF_ONE: Final = 10**15
"""Records of a worker are numbered from its own number times this on: more than it will ever keep."""
PIECE: Final = 20
"""Rows in one pickle: about 0.3 ms, in which nothing else runs in that process."""


async def in_pieces(rows: Sequence[Any]) -> list[bytes]:
    """Rows for a channel, made in turns."""
    pieces = []
    for at in range(0, len(rows), PIECE):
        pieces.append(pickle.dumps(rows[at : at + PIECE], pickle.HIGHEST_PROTOCOL))
        await asyncio.sleep(0)
    return pieces


def _rows(pieces: Sequence[bytes]) -> list[Any]:
    return [row for piece in pieces for row in pickle.loads(piece)]


class PodReadings:
    """`Readings` of all workers."""

    def __init__(self, hub: Hub, own: Readings, recent: Recent) -> None:
        """`recent`: of all workers together."""
        self._recent = recent
        self._hub = hub
        self._own = own
        self.turn = own.turn

    async def status(self) -> Data:
        own, parts = await self._own.status(), await self._hub.ask_all(kinds.READ, ("status", None))
        return {**merged.status(own, parts), "workers": self._workers(parts)}

    async def routes(self, since: str | None) -> Table:
        """Always all of them: which have changed, each worker would have to remember for each reader."""
        table = await self._own.routes(None)
        await table.all_rows()  # so that the cursor stays one that was looked at
        head = {**table.head, "is_complete": True}
        recent = self._recent
        bounds = recent.numbers.duration_bounds
        found = await self._merged("routes", None, partial(merged.routes, bounds=bounds))
        numbers = await asyncio.to_thread(recent.numbers.routes)
        return Table(head, table.key, merged.with_minutes(found, numbers, recent))

    async def history(self) -> Table:
        return await self._own.history()

    async def breakers(self, routes: Collection[str] | None) -> Table:
        return Table({}, "breakers", await self._merged("breakers", routes, merged.breakers))

    async def breaker(self, route: str) -> Table:
        table = await self._own.breaker(route)  # refuses a name that there is not
        return Table(table.head, table.key, await self._merged("breaker", route, merged.breakers))

    async def upstreams(self, names: Collection[str] | None) -> Table:
        rows = {row["name"]: row for row in await (await self._own.upstreams(names)).all_rows()}
        found = await self._merged("upstreams", names, merged.upstreams)
        for row in found:
            row["lists"] = rows.get(row["name"], row)["lists"]  # who looks names up knows how that goes
        return Table({}, "upstreams", found)

    async def outcomes(self, route: str, begin: int, limit: int) -> Table:
        """Those of one worker after the other: each page is of one."""
        table = await self._own.outcomes(route, 0, limit)  # refuses a name that there is not
        number, position = divmod(begin, RECORDS_OF_ONE)
        for link in self._hub.present:
            if link.number < number:
                continue
            asked = route, position if link.number == number else 0, limit
            try:
                head, pieces = await link.channel.ask(kinds.READ, ("outcomes", asked), ASK_SECONDS)
            except NoAnswer:  # it has gone, and what it kept with it
                continue
            if pieces:
                return Table(self._numbered(head, link.number), "rows", _rows(pieces))
        return table

    def _numbered(self, head: Data, worker: int) -> Data:
        following = head["next"]
        if following is not None:
            following += worker * RECORDS_OF_ONE
        elif any(link.number > worker for link in self._hub.present):
            following = (worker + 1) * RECORDS_OF_ONE
        return {**head, "first": head["first"] + worker * RECORDS_OF_ONE, "next": following}

    async def _merged(
        self, name: str, argument: Any, merge: Callable[[Mapping[int, list[Data]]], list[Data]]
    ) -> list[Data]:
        parts = await self._hub.ask_all(kinds.READ, (name, argument))
        return await asyncio.to_thread(lambda: merge({number: _rows(one) for number, one in parts.items()}))

    def _workers(self, parts: Mapping[int, Data]) -> list[Data]:
        """Each worker: is it there, which process, how often it died, what it carries."""
        return [self._worker(number, parts.get(number)) for number in range(1, self._hub.count + 1)]

    def _worker(self, number: int, status: Data | None) -> Data:
        link = self._hub.links.get(number)
        report = self._hub.figures.last.get(number)
        process = None if report is None else report.sources.process
        return {
            "number": number,
            "pid": None if link is None else link.pid,
            "is_there": status is not None,
            "deaths": self._hub.died[number],
            "uptime_seconds": None if status is None else status["uptime_seconds"],
            "exchanges": None if status is None else status["exchanges"],
            "generation": None if status is None else status["config"]["generation"],
            "cpu_seconds": None if process is None else round(process.cpu_seconds, 3),
            "resident_bytes": None if process is None else process.resident_bytes,
        }
