"""Counts what the data path reports, by hand and on the event loop: the numbers behind every metric.

Owner: the loop's thread is the only writer. Readers (a telemetry thread, the admin server) take `routes()`
and copy single rows; under the GIL each such copy is atomic, so a row is never torn by more than one
exchange.

Measured, because it runs for each exchange: an SDK histogram and a counter cost 15 µs, the two calls here for
an exchange with one attempt about 0.8. What is state and not an event (breakers, pools, configuration) is
pulled at collection, see `sources.py`.

Cardinality of one route is bounded: `MAX_SERIES` rows for each of the two duration histograms, and one more
for each method once that is reached; three budget rows; and for each breaker one counter per kind of
transition. Keys are route and upstream names, enumerations and status codes; nothing that a client makes up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from typing import TypeVar

from sidecar.core.errors import Reason
from sidecar.core.observe import Notice, ObservedExchange
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
_CANCELLED_BY = {Reason.CLIENT_GONE: "client", Reason.CALLER_GONE: "caller", Reason.TIMEOUT: "deadline"}


class Histogram:
    """One row: how many values fell in each bucket (upper bounds inclusive, the last open), and their sum."""

    __slots__ = ("counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: list[Exemplar | None] | None = None
        """The last sampled exchange of each bucket; None until there is one."""

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
        "name",
        "notices",
        "rejected",
        "retries",
        "server",
        "server_rows",
        "started",
        "transitions",
    )

    def __init__(self, name: str | None, listener: str) -> None:
        self.name = name
        self.listener = listener
        self.started: dict[bytes, int] = dict.fromkeys((*METHODS, OTHER), 0)
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
        ended = dict.fromkeys(self.started, 0)
        for (method, _, _), row in list(self.server.items()):
            ended[method] += sum(row.counts)
        return {method: max(0, n - ended[method]) for method, n in self.started.items() if n}

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

    __slots__ = ("_routes",)

    def __init__(self) -> None:
        self._routes: dict[str | None, RouteNumbers] = {}

    def routes(self) -> list[RouteNumbers]:
        """Every route that was seen; safe to call and to read from another thread."""
        return list(self._routes.values())

    def retain(self, names: Collection[str]) -> None:
        """Forget routes that a reload removed and that have nothing under way. Call after each reload."""
        for name, route in list(self._routes.items()):
            if name is not None and name not in names and not any(route.active().values()):
                del self._routes[name]

    def started(self, exchange: ObservedExchange) -> None:
        name = exchange.route_name
        route = self._routes.get(name) or self._add(name, exchange.listener)
        started = route.started
        method = exchange.method
        if method in started:
            started[method] += 1
        else:
            started[OTHER] += 1

    def finished(self, exchange: ObservedExchange) -> None:
        name = exchange.route_name
        route = self._routes.get(name) or self._add(name, exchange.listener)
        method = exchange.method
        reason = exchange.reason
        ended = exchange.ended
        seconds = ended - exchange.started
        status = exchange.status
        row = route.server_rows.get((method, status, reason))
        if row is None:
            row = route.add_server_row(method, status, reason)
            route.listener = exchange.listener  # a transition may have made the route, without one
        bucket = bisect_left(DURATION_BOUNDS, seconds)
        row.counts[bucket] += 1
        row.sum += seconds
        is_sampled = exchange.is_sampled
        if is_sampled:
            row.add_exemplar(bucket, (exchange.trace_id, exchange.span_id, seconds, ended))
        budgets = route.budgets.get(exchange.budget_source)
        if budgets is not None:
            budget = exchange.budget_seconds
            budgets.counts[bisect_left(BUDGET_BOUNDS, budget)] += 1
            budgets.sum += budget
            if seconds >= budget and reason is not Reason.DEADLINE_EXCEEDED:
                route.exceeded += 1
        if reason is not None:
            self._count_reason(route, reason)
        attempts = exchange.attempts
        for attempt in attempts:
            key = (attempt.upstream, method, attempt.status, attempt.reason)
            row = route.client_rows.get(key) or route.add_client_row(*key)
            seconds = attempt.ended - attempt.started
            bucket = bisect_left(DURATION_BOUNDS, seconds)
            row.counts[bucket] += 1
            row.sum += seconds
            if is_sampled:
                row.add_exemplar(bucket, (exchange.trace_id, attempt.span_id, seconds, attempt.ended))
        if len(attempts) > 1:
            for attempt in attempts[1:]:
                route.retries[attempt.upstream] = route.retries.get(attempt.upstream, 0) + 1

    def transitioned(self, transition: Transition) -> None:
        route = self._routes.get(transition.route) or self._add(transition.route, "")
        key = (transition.upstream, transition.from_state, transition.to_state, transition.reason)
        route.transitions[key] = route.transitions.get(key, 0) + 1

    def noticed(self, notice: Notice, route_name: str) -> None:
        notices = (self._routes.get(route_name) or self._add(route_name, "")).notices
        notices[notice] = notices.get(notice, 0) + 1

    def _add(self, name: str | None, listener: str) -> RouteNumbers:
        route = self._routes[name] = RouteNumbers(name, listener)
        return route

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


def _row(rows: dict[_Key, Histogram], key: _Key, overflow: _Key) -> Histogram:
    row = rows.get(key)
    if row is None and len(rows) >= MAX_SERIES:
        key = overflow
        row = rows.get(key)
    if row is None:
        row = rows[key] = Histogram(DURATION_BOUNDS)
    return row
