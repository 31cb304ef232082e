"""The numbers of all workers, as control knows them: the last report of each, and what those that died had counted.

A worker reports all that it has counted since it began, so a report that is lost or comes twice changes nothing. What
the dead had counted outlives control too: it is handed to the supervisor for keeping. Owned by control's event loop;
`routes` and `total` may be called from a thread.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from sidecar.core import source_totals, totals
from sidecar.core.dataclass import dataclass
from sidecar.core.numbers import Numbers, RouteNumbers
from sidecar.core.sources import MemoryNumbers, Sources, WorkerNumbers
from sidecar.core.totals import RouteState

PIECE: Final = 20
"""Routes in one pickle: about 0.3 ms."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that one worker has counted."""

    pid: int
    routes: list[RouteState]
    sources: Sources

    def packed(self) -> list[bytes]:
        """For a channel. With a thousand routes it takes milliseconds: for a thread, and in pieces, since no other
        thread runs while one is made."""
        heads = [pickle.dumps(replace(self, routes=[]), pickle.HIGHEST_PROTOCOL)]
        return heads + [_pickled(self.routes[at : at + PIECE]) for at in range(0, len(self.routes), PIECE)]

    @staticmethod
    def unpacked(pieces: list[bytes]) -> Report:
        head: Report = pickle.loads(pieces[0])
        return replace(head, routes=[route for piece in pieces[1:] for route in pickle.loads(piece)])


def _pickled(routes: list[RouteState]) -> bytes:
    return pickle.dumps(routes, pickle.HIGHEST_PROTOCOL)


class _Known(NamedTuple):
    """All that is known at one moment; never changed, so that a thread sees each worker once, there or departed."""

    routes: list[RouteState]
    """What the dead had counted."""
    sources: Sources
    """The same."""
    last: Mapping[int, Report]
    """By the worker's number."""


class Figures:
    """The sum of all, which never goes back."""

    def __init__(self, like: Numbers, remembered: int | None, remember: Callable[[int], None]) -> None:
        """`like` has the buckets of all workers, and the bound on series. `remembered`: the file with what another
        control process had handed out for keeping; None: it is the first.
        `remember`: hands such a file out; it is closed after that."""
        self._like = like
        self._remember = remember
        departed: tuple[list[RouteState], Sources] = ([], Sources())
        if remembered is not None:
            departed = pickle.loads(_whole(remembered))
        self._known = _Known(*departed, {})
        self._places = totals.RowPlaces(like)
        self._places.offer(departed[0], like.max_series)

    @property
    def duration_bounds(self) -> tuple[float, ...]:
        return self._like.duration_bounds

    @property
    def last(self) -> Mapping[int, Report]:
        """Of those that are there, or were until a moment ago."""
        return self._known.last

    def reported(self, number: int, report: Report) -> None:
        """A worker has said how things stand."""
        before = self.last.get(number)
        if before is not None and before.pid != report.pid:
            self.gone(number)
        self._places.offer(report.routes, self._like.max_series)
        self._known = self._known._replace(last={**self.last, number: report})

    def gone(self, number: int) -> None:
        """A worker has died: what it had counted stays."""
        routes, sources, last = self._known
        report = last.get(number)
        if report is None:
            return
        numbers = totals.summed([routes], self._like, self._places.taken)
        totals.absorb(numbers, report.routes, is_over=True)
        over = source_totals.remains(report.sources)
        self._known = _Known(
            totals.states_of(numbers),
            source_totals.summed(sources, [over], is_closed=False),
            {other: one for other, one in last.items() if other != number},
        )
        self._hand_out()

    def retain(self, names: Collection[str]) -> None:
        """A reload has removed routes: forget what the dead had counted of those."""
        routes = [one for one in self._known.routes if one.name is None or one.name in names]
        self._known = self._known._replace(routes=routes)
        self._places.retain(names)

    def each(self, died: Mapping[int, int]) -> list[WorkerNumbers]:
        """The part of each worker; `died`: how often each has."""
        return [_one(number, deaths, self.last.get(number)) for number, deaths in died.items()]

    def routes(self) -> list[RouteNumbers]:
        """The sum of all reports so far, by route."""
        known = self._known
        parts = [known.routes, *(one.routes for one in known.last.values())]
        return totals.summed(parts, self._like, self._places.taken).routes()

    def total(self, own: Sources) -> tuple[Numbers, Sources]:
        """All together; `own` is control's, which serves nothing."""
        routes, departed, last = self._known
        reports = last.values()
        first = source_totals.summed(replace(own, memory=MemoryNumbers(), overloads=()), [departed])
        return (
            totals.summed([routes, *(one.routes for one in reports)], self._like, self._places.taken),
            source_totals.summed(first, [one.sources for one in reports]),
        )

    def _hand_out(self) -> None:
        file = os.memfd_create("sidecar-figures", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as output:
                output.write(pickle.dumps((self._known.routes, self._known.sources), pickle.HIGHEST_PROTOCOL))
            self._remember(file)
        finally:
            os.close(file)


def _one(number: int, deaths: int, report: Report | None) -> WorkerNumbers:
    if report is None:
        return WorkerNumbers(number, is_there=False, deaths=deaths, requests=0)
    requests = sum(sum(row[0]) for route in report.routes for row in route.server.values())
    return WorkerNumbers(
        number, is_there=True, deaths=deaths, requests=requests, process=report.sources.process
    )


def _whole(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)
