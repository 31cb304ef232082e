"""Numbers of several processes as those of one: what each has counted, added up.

A process hands out its whole state, never differences, so that a report which is lost or comes twice changes nothing.
What a process that has died had counted stays in the sum. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import add
from typing import NamedTuple, TypeVar

from sidecar.core.dataclass import dataclass
from sidecar.core.exponential import ExponentialBuckets, merged
from sidecar.core.mirrored import CopyOutcome
from sidecar.core.numbers import (
    ClientKey,
    Exemplar,
    Histogram,
    Numbers,
    RetryKey,
    RouteNumbers,
    ServerKey,
    TransitionKey,
)
from sidecar.core.observe import Notice

K = TypeVar("K")

Row = tuple[tuple[int, ...], float, ExponentialBuckets | None, tuple[Exemplar | None, ...]]
"""Counts, sum, exponential buckets if these are kept, and the last sampled exchange of each bucket (empty without
any)."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """All rows of one route of one process at one moment."""

    name: str | None
    listener: str
    active: Mapping[bytes, int]
    server: Mapping[ServerKey, Row]
    client: Mapping[ClientKey, Row]
    budgets: Mapping[str, Row]
    exceeded: Mapping[str, int]
    rejected: Mapping[str, int]
    cancellations: Mapping[str, int]
    retries: Mapping[RetryKey, int]
    hedges: Mapping[tuple[str, str], int]
    copies: Mapping[tuple[str, CopyOutcome], int]
    notices: Mapping[Notice, int]
    transitions: Mapping[TransitionKey, int]


def states_of(numbers: Numbers) -> list[RouteState]:
    """Of every route. From any thread, as a collection."""
    return [_state(route) for route in numbers.routes()]


def _state(route: RouteNumbers) -> RouteState:
    route.fold()
    return RouteState(
        route.name,
        route.listener,
        dict(route.active),
        {key: _row(one) for key, one in list(route.server.items())},
        {key: _row(one) for key, one in list(route.client.items())},
        {key: _row(one) for key, one in route.budgets.items()},
        dict(route.exceeded),
        dict(route.rejected),
        dict(route.cancellations),
        dict(route.retries),
        dict(route.hedges),
        dict(route.copies),
        dict(route.notices),
        dict(route.transitions),
    )


def _row(histogram: Histogram) -> Row:
    counts, total, exponential = histogram.state
    return tuple(counts), total, exponential, tuple(histogram.exemplars or ())


class RowPlace(NamedTuple):
    """A row, of a server or of a client, that has a place of its own in a sum."""

    route: str | None
    listener: str
    server: ServerKey | None
    client: ClientKey | None

    def is_taken_in(self, numbers: Numbers) -> bool:
        """Take it there, if there is room. The lock is held, or nobody else has these numbers."""
        route = numbers.route(self.route, self.listener)
        if self.server is not None:
            route.server_row(self.server)
            return self.server in route.server
        if self.client is not None:
            route.client_row(self.client)
        return self.client in route.client


class RowPlaces:
    """Which rows have a place of their own where the bound on series leaves out some: those that came first keep it.

    Else the order of the parts would decide, which changes with each process that dies, and by new rows of the first
    one: counters would go on in the row that the others share, and leave that again.
    """

    __slots__ = ("_rows", "taken")

    def __init__(self, like: Numbers) -> None:
        self._rows = _empty(like)
        self.taken: tuple[RowPlace, ...] = ()
        """In the order in which they came; replaced as a whole, never changed."""

    def offer(self, part: Iterable[RouteState], max_series: int) -> None:
        """Let the rows of a part have places, if there are some."""
        self._rows.max_series = max_series
        new = [place for state in part for place in self._new(state) if place.is_taken_in(self._rows)]
        if new:
            self.taken = (*self.taken, *new)

    def _new(self, state: RouteState) -> list[RowPlace]:
        name, listener = state.name, state.listener
        route = self._rows.route(name, listener)
        servers = [RowPlace(name, listener, key, None) for key in state.server if key not in route.server]
        clients = [RowPlace(name, listener, None, key) for key in state.client if key not in route.client]
        return servers + clients

    def retain(self, names: Collection[str]) -> None:
        """Forget those of routes that a reload removed."""
        self._rows.retain(names)
        self.taken = tuple(one for one in self.taken if one.route is None or one.route in names)


def summed(parts: Iterable[Iterable[RouteState]], like: Numbers, places: Sequence[RowPlace] = ()) -> Numbers:
    """Those of all parts together, whose durations fall into the buckets of `like`, exponential ones among them if
    it keeps any. Its bound on series holds, but that rows of `places` stay."""
    numbers = _empty(like)
    numbers.max_series = max(like.max_series, len(places))
    for place in places:
        place.is_taken_in(numbers)
    for part in parts:
        absorb(numbers, part)
    return numbers


def _empty(like: Numbers) -> Numbers:
    return Numbers(
        duration_bounds=like.duration_bounds, max_series=like.max_series, is_exponential=like.is_exponential
    )


def absorb(numbers: Numbers, part: Iterable[RouteState], *, is_over: bool = False) -> None:
    """Add a process's numbers. `is_over`: it has ended, and nothing of it is under way."""
    for state in part:
        route = numbers.route(state.name, state.listener)
        if not is_over:
            _add(route.active, state.active)
        for server, row in state.server.items():
            _add_row(route.server_row(server), row)
        for client, row in state.client.items():
            _add_row(route.client_row(client), row)
        for source, row in state.budgets.items():
            _add_row(route.budgets[source], row)
        _add(route.exceeded, state.exceeded)
        _add(route.rejected, state.rejected)
        _add(route.cancellations, state.cancellations)
        _add(route.retries, state.retries)
        _add(route.hedges, state.hedges)
        _add(route.copies, state.copies)
        _add(route.notices, state.notices)
        _add(route.transitions, state.transitions)


def _add(own: dict[K, int], other: Mapping[K, int]) -> None:
    for key, count in other.items():
        own[key] = own.get(key, 0) + count


def _add_row(own: Histogram, row: Row) -> None:
    counts, total, exponential, exemplars = row
    own_counts, own_total, own_exponential = own.state
    both = None
    if exponential is not None and own_exponential is not None:
        both = merged(own_exponential, exponential)
    own.state = tuple(map(add, own_counts, counts)), own_total + total, both
    for one in exemplars:
        if one is not None:
            own.add_latest(one)
