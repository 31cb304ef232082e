"""Counts what the data path reports, by hand and on the event loop: the numbers behind every metric.

On the path an exchange only leaves its plain values at the end of a list. They are folded into the rows when
`FOLD_AT` exchanges wait, in one tight loop, and by every reader before it reads: counting at once touches a
dozen objects that everything between two exchanges has pushed out of the processor's caches (measured in a real
process: TODO_BEFORE µs at once, TODO_AFTER deferred; an SDK histogram and a counter: 15). What is state and
not an event (breakers, pools, configuration) is pulled at collection, see `sources.py`.

Owner: the loop's thread alone appends. Whoever holds the lock folds; a reader (a telemetry thread, the admin
server) waits for it, the loop never does and folds a little later instead. Appending, copying the list and
deleting its head are single steps under the GIL, so nothing is lost or counted twice between them.

Cardinality of one route is bounded: `MAX_SERIES` rows for each of the two duration histograms, and one more
for each method once that is reached; three budget rows; and for each breaker one counter per kind of
transition. Keys are route and upstream names, enumerations and status codes; nothing that a client makes up.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from sidecar.core.errors import Reason
from sidecar.core.observe import Notice, ObservedAttempt, ObservedExchange
from sidecar.core.transition import State, Transition, TransitionReason

DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the semantic conventions' advice for both HTTP duration histograms."""
BUDGET_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds; from the least that is ever sent to beyond the default request timeout."""
BUDGET_SOURCES = ("header", "route", "trace")

OTHER = b"_OTHER"
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY")
"""RFC 9110, PATCH and QUERY; every other method counts as `_OTHER`."""
_KNOWN = frozenset(METHODS)

MAX_SERIES = 64
"""Rows of one histogram of one route; others share one row for each method, marked `overflow`."""

FOLD_AT = 256
"""Exchanges that wait before the loop folds them: about 0.2 ms of work, and 50 KiB."""

Exemplar = tuple[bytes, bytes, float, float]
"""Trace id, span id (hex), the value, and when, on the monotonic clock."""
ServerKey = tuple[bytes, int, str]
"""Method, status, `error.type` or empty."""
ClientKey = tuple[str, bytes, int, str]
"""Upstream, method, status, `error.type` or empty."""
TransitionKey = tuple[str, State, State, TransitionReason]
"""Upstream, from, to, why."""

OVERFLOW_STATUS = -1
"""Stands in a key for "any status": the row that takes what `MAX_SERIES` has no room for."""
_Key = TypeVar("_Key", ServerKey, ClientKey)
_Attempt = tuple[str, int, Reason | None, float, float, bytes]
"""Upstream, status, reason, started, ended, span id."""
_NO_ATTEMPT: tuple[Any, ...] = (None, 0, None, 0.0, 0.0, b"", ())
_WIDTH = 17
"""Values that one exchange leaves in `Numbers._ended`."""
_FOLD_VALUES = FOLD_AT * _WIDTH
_CANCELLED_BY = {Reason.CLIENT_GONE: "client", Reason.CALLER_GONE: "caller", Reason.TIMEOUT: "deadline"}


class Histogram:
    """One row: how many values fell in each bucket (upper bounds inclusive, the last open), and their sum."""

    __slots__ = ("counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: list[Exemplar | None] | None = None
        """The last sampled exchange of each bucket; None until there is one."""

    def read(self) -> tuple[list[int], float]:
        """Counts and sum of the same exchanges, whatever is folded meanwhile."""
        while True:
            total = self.sum
            counts = self.counts.copy()
            if total == self.sum:
                return counts, total

    def add_exemplar(self, bucket: int, exemplar: Exemplar) -> None:
        if self.exemplars is None:
            self.exemplars = [None] * len(self.counts)
        self.exemplars[bucket] = exemplar


class RouteNumbers:
    """All rows of one route. `name` is None for exchanges that no route matched."""

    __slots__ = (
        "budgets",
        "cancellations",
        "client",
        "client_rows",
        "exceeded",
        "listener",
        "live",
        "name",
        "notices",
        "rejected",
        "retries",
        "server",
        "server_rows",
        "transitions",
    )

    def __init__(self, name: str | None, listener: str) -> None:
        self.name = name
        self.listener = listener
        self.live: dict[bytes, int] = {}
        """Exchanges under way, for each method that was ever seen."""
        self.server: dict[ServerKey, Histogram] = {}
        self.server_rows: dict[tuple[bytes, int, Reason | None], Histogram] = {}
        """Short cuts from what an exchange carries to its row in `server`: no mapping on the hot path."""
        self.client: dict[ClientKey, Histogram] = {}
        self.client_rows: dict[tuple[str, bytes, int, Reason | None], Histogram] = {}
        self.budgets = {source: Histogram(BUDGET_BOUNDS) for source in BUDGET_SOURCES}
        self.exceeded = 0
        self.rejected = 0
        self.cancellations: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.notices: dict[Notice, int] = {}
        self.transitions: dict[TransitionKey, int] = {}

    def active(self) -> dict[bytes, int]:
        """Exchanges under way, for each method that was ever seen."""
        return self.live.copy()

    def add_server_row(self, method: bytes, status: int, reason: Reason | None) -> Histogram:
        known = method if method in _KNOWN else OTHER
        row = _row(
            self.server, (known, status, server_error_type(status, reason)), (known, OVERFLOW_STATUS, "")
        )
        if known is method and len(self.server_rows) < 4 * MAX_SERIES:
            # an unknown method must not become a key: clients make it up
            self.server_rows[method, status, reason] = row
        return row

    def add_client_row(self, upstream: str, method: bytes, status: int, reason: Reason | None) -> Histogram:
        known = method if method in _KNOWN else OTHER
        key = (upstream, known, status, client_error_type(status, reason))
        row = _row(self.client, key, (upstream, known, OVERFLOW_STATUS, ""))
        if known is method and len(self.client_rows) < 4 * MAX_SERIES:
            self.client_rows[upstream, method, status, reason] = row
        return row


class Numbers:
    """The `Observe` that counts."""

    __slots__ = ("_ended", "_lock", "_put_ended", "_put_started", "_routes", "_started")

    def __init__(self) -> None:
        self._routes: dict[str | None, RouteNumbers] = {}
        self._lock = threading.Lock()
        # Flat lists of plain values, not of tuples: nothing that the garbage collector would walk is kept.
        self._started: list[Any] = []
        self._ended: list[Any] = []
        self._put_started = self._started.extend
        self._put_ended = self._ended.extend

    def routes(self) -> list[RouteNumbers]:
        """Every route that was seen, with all that ended before this call; safe to call and to read from
        another thread."""
        with self._lock:
            self._fold()
            return list(self._routes.values())

    def retain(self, names: Collection[str]) -> None:
        """Forget routes that a reload removed and that have nothing under way. Call after each reload."""
        with self._lock:
            self._fold()
            for name, route in list(self._routes.items()):
                if name is not None and name not in names and not any(route.live.values()):
                    del self._routes[name]

    def started(self, exchange: ObservedExchange) -> None:
        self._put_started((exchange.route_name, exchange.listener, exchange.method))

    def finished(self, exchange: ObservedExchange) -> None:
        attempts = exchange.attempts
        ids = (exchange.trace_id, exchange.span_id) if exchange.is_sampled else None
        if attempts:
            first = attempts[0]
            self._put_ended(
                (
                    exchange.route_name,
                    exchange.listener,
                    exchange.method,
                    exchange.status,
                    exchange.reason,
                    exchange.started,
                    exchange.ended,
                    exchange.budget_source,
                    exchange.budget_seconds,
                    ids,
                    first.upstream,
                    first.status,
                    first.reason,
                    first.started,
                    first.ended,
                    first.span_id,
                    [_of_attempt(attempt) for attempt in attempts[1:]] if len(attempts) > 1 else (),
                )
            )
        else:
            self._put_ended(
                (
                    exchange.route_name,
                    exchange.listener,
                    exchange.method,
                    exchange.status,
                    exchange.reason,
                    exchange.started,
                    exchange.ended,
                    exchange.budget_source,
                    exchange.budget_seconds,
                    ids,
                    *_NO_ATTEMPT,
                )
            )
        if len(self._ended) >= _FOLD_VALUES and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def _fold(self) -> None:
        """Count what waits. The lock is held.

        What ended is taken first: whatever is in it, its start is in what is taken then, or was before.
        """
        ended = self._ended[:]
        del self._ended[: len(ended)]
        begun = self._started[:]
        del self._started[: len(begun)]
        self._count_started(begun)
        self._count_ended(ended)

    def _count_started(self, values: list[Any]) -> None:
        routes = self._routes
        for name, listener, method in _groups(values, 3):
            route = routes.get(name) or self._add(name, listener)
            live = route.live
            if method not in _KNOWN:
                method = OTHER
            live[method] = live.get(method, 0) + 1

    def _count_ended(self, values: list[Any]) -> None:
        """The tight loop: 0.5 µs for an exchange."""
        routes = self._routes
        for (
            name,
            listener,
            method,
            status,
            reason,
            started,
            ended,
            source,
            budget,
            ids,
            upstream,
            first_status,
            first_reason,
            first_started,
            first_ended,
            first_span,
            others,
        ) in _groups(values, _WIDTH):
            route = routes.get(name) or self._add(name, listener)
            live = route.live
            if method in live:
                live[method] -= 1
            elif method not in _KNOWN and OTHER in live:
                live[OTHER] -= 1
            seconds = ended - started
            row = route.server_rows.get((method, status, reason))
            if row is None:
                row = route.add_server_row(method, status, reason)
                route.listener = listener  # a transition may have made the route, without one
            bucket = bisect_left(DURATION_BOUNDS, seconds)
            row.counts[bucket] += 1
            row.sum += seconds
            if ids is not None:
                row.add_exemplar(bucket, (*ids, seconds, ended))
            row = route.budgets.get(source)
            if row is not None:
                row.counts[bisect_left(BUDGET_BOUNDS, budget)] += 1
                row.sum += budget
                if seconds >= budget and reason is not Reason.DEADLINE_EXCEEDED:
                    route.exceeded += 1
            if reason is not None:
                self._count_reason(route, reason)
            if upstream is None:
                continue
            seconds = first_ended - first_started
            row = route.client_rows.get((upstream, method, first_status, first_reason))
            if row is None:
                row = route.add_client_row(upstream, method, first_status, first_reason)
            bucket = bisect_left(DURATION_BOUNDS, seconds)
            row.counts[bucket] += 1
            row.sum += seconds
            if ids is not None:
                row.add_exemplar(bucket, (ids[0], first_span, seconds, first_ended))
            for attempt in others:
                self._count_retry(route, method, ids, attempt)

    @staticmethod
    def _count_retry(
        route: RouteNumbers, method: bytes, ids: tuple[bytes, bytes] | None, attempt: _Attempt
    ) -> None:
        upstream, status, reason, started, ended, span_id = attempt
        seconds = ended - started
        row = route.client_rows.get((upstream, method, status, reason))
        if row is None:
            row = route.add_client_row(upstream, method, status, reason)
        bucket = bisect_left(DURATION_BOUNDS, seconds)
        row.counts[bucket] += 1
        row.sum += seconds
        if ids is not None:
            row.add_exemplar(bucket, (ids[0], span_id, seconds, ended))
        route.retries[upstream] = route.retries.get(upstream, 0) + 1

    def transitioned(self, transition: Transition) -> None:
        route = self._routes.get(transition.route) or self._add(transition.route, "")
        key = (transition.upstream, transition.from_state, transition.to_state, transition.reason)
        route.transitions[key] = route.transitions.get(key, 0) + 1

    def noticed(self, notice: Notice, route_name: str) -> None:
        notices = (self._routes.get(route_name) or self._add(route_name, "")).notices
        notices[notice] = notices.get(notice, 0) + 1

    def _add(self, name: str | None, listener: str) -> RouteNumbers:
        """In one step: the loop may add a route for a transition while a reader folds."""
        return self._routes.setdefault(name, RouteNumbers(name, listener))

    @staticmethod
    def _count_reason(route: RouteNumbers, reason: Reason) -> None:
        if reason is Reason.DEADLINE_EXCEEDED:
            route.rejected += 1
        cause = _CANCELLED_BY.get(reason)
        if cause is not None:
            route.cancellations[cause] = route.cancellations.get(cause, 0) + 1


def server_error_type(status: int, reason: Reason | None) -> str:
    """`error.type` of a SERVER span and row: our own reason, else a 5xx status, else empty."""
    if reason is not None:
        return reason.error_type
    return str(status) if status >= 500 else ""


def client_error_type(status: int, reason: Reason | None) -> str:
    """`error.type` of a CLIENT span and row: the reason, else a 4xx or 5xx status, else empty."""
    if reason is not None:
        return reason.error_type
    return str(status) if status >= 400 else ""


def _of_attempt(attempt: ObservedAttempt) -> _Attempt:
    return (
        attempt.upstream,
        attempt.status,
        attempt.reason,
        attempt.started,
        attempt.ended,
        attempt.span_id,
    )


def _groups(values: list[Any], width: int) -> Iterator[tuple[Any, ...]]:
    """The values in rows of `width`, without a copy."""
    one = iter(values)
    return zip(*(one,) * width, strict=True)


def _row(rows: dict[_Key, Histogram], key: _Key, overflow: _Key) -> Histogram:
    row = rows.get(key)
    if row is None and len(rows) >= MAX_SERIES:
        key = overflow
        row = rows.get(key)
    if row is None:
        row = rows[key] = Histogram(DURATION_BOUNDS)
    return row
