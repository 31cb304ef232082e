"""Counts what the data path reports, by hand and on the event loop: the numbers behind every metric.

On the path an exchange only leaves three numbers in the list of its `Shape`: all exchanges of one route, method,
status and so on. A list is folded into histograms when `FOLD_AT` exchanges wait in it, and by every reader
before it reads: sorting a list and looking the bounds up in it costs a fifth of placing each value. Measured
for an exchange with one attempt, folding included: 0.5 µs alone and 1.1 in a busy process, where everything
between two exchanges empties the processor's caches (placing each at once: 0.9 and 1.2 to 1.6; an SDK histogram
and a counter: 15). What is state and not an event is pulled at collection: here what is under way, in `sources.py`
breakers, pools and the configuration.

Owner: the loop's thread alone appends to the lists and adds shapes. Whoever holds the lock folds; a reader (a
telemetry thread, the admin server) waits for it; the loop does for a new shape alone, and otherwise folds a
little later instead. To append, to copy a list and to delete its head are single steps under the GIL, so that
nothing is lost or counted twice; a histogram's counts and sums are replaced together, so that no reader sees
half an exchange.

Cardinality of one route is bounded: `MAX_SERIES` rows for each of the two duration histograms, and one more
for each method once that is reached; three budget rows; and for each breaker one counter per kind of
transition. `Numbers.max_series` bounds the duration rows of all routes in the same way. Keys are route and upstream
names, enumerations, status codes and the 17 of gRPC; nothing that a client makes up.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from operator import sub
from typing import Final, Literal, TypeVar

from sidecar.core.deadline import CLOCK_NOISE_SECONDS
from sidecar.core.errors import Reason
from sidecar.core.exponential import EMPTY, ExponentialBuckets, added
from sidecar.core.grpc_status import SERVER_ERRORS, GrpcStatus
from sidecar.core.mirrored import CopyOutcome
from sidecar.core.observe import Notice, ObservedExchange
from sidecar.core.retry import RetryCause
from sidecar.core.snapshot import DURATION_BOUNDS, MOST_SERIES, PASS_THROUGH
from sidecar.core.statechart import BY_TRAFFIC
from sidecar.core.transition import State, Transition, TransitionReason

BUDGET_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds; from the least that is ever sent to beyond the default request timeout."""
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; 20 ms is where overload begins."""
BUDGET_SOURCES = ("header", "route", "trace")

OTHER = b"_OTHER"
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY")
"""RFC 9110, PATCH and QUERY; every other method counts as `_OTHER`."""
_KNOWN: Final = frozenset(METHODS)

MAX_SERIES = 64
"""Rows of one histogram of one route; others share one row for each method, marked `overflow`."""

FOLD_AT = 128
"""Exchanges of one shape that wait before the loop folds them: about 10 µs of work, and 12 KiB."""

Sampled = tuple[bytes, bytes, bytes, float, float, float, float]
"""Of an exchange: trace id, span id, that of its first attempt; its seconds, ended, both of that attempt. Flat: one
tuple for each exchange."""
_SECONDS: Final = 3
_FIRST_SECONDS: Final = 5
"""Their places in it."""
Exemplar = tuple[bytes, bytes, float, float]
"""Trace id, span id (hex), the value, and when, on the monotonic clock."""
ServerKey = tuple[bytes, int, str, int | None]
"""Method, status, `error.type` or empty, status of a gRPC call."""
ClientKey = tuple[str, bytes, int, str, int | None]
"""Upstream, method, status, `error.type` or empty, status of a gRPC call."""
TransitionKey = tuple[str, State, State, TransitionReason]
"""Upstream, from, to, why."""

GrpcStatuses = tuple[int | None, int | None]
"""Of a call and of its first attempt."""
ShapeKey = tuple[
    str | None, bytes, int, Reason | None, str, str | None, int, Reason | None, GrpcStatuses | None
]
"""Route, method, status, reason, source of the budget; the first attempt's upstream (None: no attempt), status
and reason (without an attempt: `DEADLINE_EXCEEDED` if the budget was spent on arrival); None unless it is a gRPC
call."""
Retry = tuple[str, int, Reason | None, int | None, float, float, bytes]
"""Upstream, status, reason, status of a gRPC call, seconds, ended, span id."""

RetryKey = tuple[str, RetryCause]
"""Upstream, and why the attempt before was not enough."""

HEDGE_OUTCOMES = ("won", "lost", "failed")
SPENT, TOO_SMALL, NOT_SENT = "spent", "too_small", "not_sent"
REJECTED_FOR = (SPENT, TOO_SMALL, NOT_SENT)
"""The budget was spent on arrival; it was less than `admission` asks for; it was spent before anything was sent."""
TIMEOUT: Final = "timeout"
LATE: Final = "late"
EXCEEDED_BY = (TIMEOUT, LATE)
"""The sidecar ended it at its deadline; it ended by itself, and after it."""

MAX_SHAPES = 256
"""Of one route: short cuts from what an exchange carries to its rows."""
OVERFLOW_STATUS = -1
"""Stands in a key for "any status": the row that takes what there was no room for."""
_Key = TypeVar("_Key", ServerKey, ClientKey)
_WIDTH: Final = 3
FOLD_VALUES: Final = FOLD_AT * _WIDTH
_CANCELLED_BY: Final = {
    Reason.CLIENT_GONE: "client",
    Reason.CALLER_GONE: "caller",
    Reason.TIMEOUT: "deadline",
}


RowState = tuple[Sequence[int], float, ExponentialBuckets | None]
"""Counts, sum, and the same values in exponential buckets where these are kept."""


class Histogram:
    """One row: how many values fell in each bucket (upper bounds inclusive, the last open), and their sum."""

    __slots__ = ("bounds", "exemplars", "state")

    def __init__(self, bounds: tuple[float, ...], *, is_exponential: bool = False) -> None:
        """`is_exponential`: values are counted in exponential buckets as well."""
        self.bounds = bounds
        self.state: RowState = ((0,) * (len(bounds) + 1), 0.0, EMPTY if is_exponential else None)
        """All of it of the same values; replaced as a whole, never changed."""
        self.exemplars: list[Exemplar | None] | None = None
        """The last sampled exchange of each bucket; None until there is one."""

    @property
    def counts(self) -> Sequence[int]:
        return self.state[0]

    def add(self, values: list[float]) -> None:
        """Count `values`, and leave them sorted."""
        before, total, exponential = self.state
        counts = list(before)
        total += sum(values)
        values.sort()
        size = len(values)
        placed = 0
        for bucket, bound in enumerate(self.bounds):
            upto = bisect_right(values, bound, placed)
            counts[bucket] += upto - placed
            placed = upto
            if placed == size:
                break
        counts[-1] += size - placed
        if exponential is not None:
            exponential = added(exponential, values)
        self.state = counts, total, exponential

    def add_exemplar(self, exemplar: Exemplar) -> None:
        if self.exemplars is None:
            self.exemplars = [None] * (len(self.bounds) + 1)
        self.exemplars[bisect_left(self.bounds, exemplar[2])] = exemplar

    def add_latest(self, exemplar: Exemplar) -> None:
        """The same, unless there is a later one."""
        before = None
        if self.exemplars is not None:
            before = self.exemplars[bisect_left(self.bounds, exemplar[2])]
        if before is None or before[3] < exemplar[3]:
            self.add_exemplar(exemplar)


class RouteNumbers:
    """All rows of one route. `name` is None for exchanges that no route matched."""

    __slots__ = (
        "_numbers",
        "active",
        "budgets",
        "cancellations",
        "client",
        "copies",
        "exceeded",
        "hedges",
        "listener",
        "name",
        "notices",
        "rejected",
        "retries",
        "server",
        "shapes",
        "transitions",
    )

    def __init__(self, numbers: Numbers, name: str | None, listener: str) -> None:
        self._numbers = numbers
        self.name = name
        self.listener = listener
        self.shapes: list[Shape] = []
        self.active: dict[bytes, int] = {}
        """Exchanges under way when `Numbers.routes` was last asked, for each method that was ever seen."""
        self.server: dict[ServerKey, Histogram] = {}
        self.client: dict[ClientKey, Histogram] = {}
        self.budgets = {source: Histogram(BUDGET_BOUNDS) for source in BUDGET_SOURCES}
        self.exceeded = dict.fromkeys(EXCEEDED_BY, 0)
        self.rejected = dict.fromkeys(REJECTED_FOR, 0)
        self.cancellations: dict[str, int] = {}
        self.retries: dict[RetryKey, int] = {}
        self.hedges: dict[tuple[str, str], int] = {}
        """By upstream and what became of them."""
        self.copies: dict[tuple[str, CopyOutcome], int] = {}
        """Of requests, by upstream and what became of them."""
        self.notices: dict[Notice, int] = {}
        self.transitions: dict[TransitionKey, int] = {}

    def fold(self) -> None:
        """Bring the rows up to this moment: every reader calls it first, from any thread."""
        with self._numbers.lock:
            self.fold_locked()

    def fold_locked(self) -> None:
        """The same, for who holds the lock."""
        for shape in self.shapes:
            shape.fold()

    @property
    def overflowed(self) -> int:
        """Values in rows that others share, since there was no room for one of their own."""
        server = [row for key, row in list(self.server.items()) if key[1] == OVERFLOW_STATUS]
        client = [row for key, row in list(self.client.items()) if key[2] == OVERFLOW_STATUS]
        return sum(sum(row.counts) for row in server + client)

    def server_row(self, key: ServerKey) -> Histogram:
        """The row of `key`, or the one that it shares. The lock is held, or nobody else has these numbers."""
        return self._row(self.server, key, (key[0], OVERFLOW_STATUS, "", None))

    def client_row(self, key: ClientKey) -> Histogram:
        """The same."""
        return self._row(self.client, key, (key[0], key[1], OVERFLOW_STATUS, "", None))

    def _row(self, rows: dict[_Key, Histogram], key: _Key, overflow: _Key) -> Histogram:
        numbers = self._numbers
        row = rows.get(key)
        if row is None and (len(rows) >= MAX_SERIES or numbers.series >= numbers.max_series):
            key = overflow
            row = rows.get(key)
        if row is None:
            row = rows[key] = Histogram(numbers.duration_bounds, is_exponential=numbers.is_exponential)
            numbers.series += 1
        return row


class Shape:
    """What exchanges have in common that fall in the same rows, and the values of those not counted yet."""

    __slots__ = (
        "again", "budgets", "client", "method", "reason", "rejected_for", "retries", "route", "sampled", "server",
        "values",
    )  # fmt: skip

    def __init__(self, route: RouteNumbers, key: ShapeKey) -> None:
        """`key` has a known method."""
        _, method, status, reason, source, upstream, first_status, first_reason, statuses = key
        grpc, first_grpc = statuses or (None, None)
        self.route = route
        self.method = method
        self.reason = reason
        self.server = route.server_row((method, status, server_error_type(status, reason, grpc), grpc))
        route.active.setdefault(method, 0)
        self.client: Histogram | None = None
        self.rejected_for = (
            _rejected_for(upstream, first_reason) if reason is Reason.DEADLINE_EXCEEDED else ""
        )
        """One of `REJECTED_FOR`; empty if they were not rejected."""
        if upstream is not None:
            error = client_error_type(first_status, first_reason, first_grpc)
            self.client = route.client_row((upstream, method, first_status, error, first_grpc))
        self.budgets = route.budgets.get(source)
        self.values: list[float] = []
        """Of each exchange: its seconds, its first attempt's, its budget. Flat: nothing for the collector."""
        self.sampled: list[Sampled] = []
        self.retries: list[tuple[Retry, bytes | None]] = []
        """Attempts after the first, each with the trace id if it was sampled."""
        self.again: list[tuple[str, RetryCause | None, str]] = []
        """Of each attempt that was not the first to be begun: its upstream, and why, or what became of a hedge."""

    def fold(self) -> None:
        """Count what waits. The lock is held."""
        waiting = len(self.values)
        if not waiting:
            return
        values = self.values[:waiting]
        del self.values[:waiting]
        seconds, budgets = values[::_WIDTH], values[2::_WIDTH]
        reason = self.reason
        if reason is not None:
            self._count_reason(reason, len(seconds))
        self.server.add(seconds)
        if self.budgets is not None:
            self.budgets.add(budgets)
            # Both are sorted by now, and as a rule the longest did not take as long as the least that was allowed.
            if budgets[0] - seconds[-1] <= CLOCK_NOISE_SECONDS and not self.rejected_for:
                spared = map(sub, values[2::_WIDTH], values[::_WIDTH])
                by = TIMEOUT if reason is Reason.TIMEOUT else LATE
                self.route.exceeded[by] += sum(map(CLOCK_NOISE_SECONDS.__ge__, spared))
        first_seconds = values[1::_WIDTH]
        if self.client is not None:
            self.client.add(first_seconds)
        while self.retries:
            self._count_retry(*self.retries.pop())
        while self.again:
            self._count_again(*self.again.pop())
        sampled = self.sampled[:]
        del self.sampled[: len(sampled)]
        if sampled:
            self._keep_exemplars(sampled, seconds, first_seconds)

    def _keep_exemplars(
        self, sampled: list[Sampled], seconds: list[float], first_seconds: list[float]
    ) -> None:
        """Only the last ones of each bucket are made: a hundred that wait fall in a few buckets."""
        bounds = self.server.bounds
        for one in _last_of_buckets(bounds, sampled, _SECONDS, seconds):
            self.server.add_exemplar((one[0], one[1], one[3], one[4]))
        if self.client is not None:
            for one in _last_of_buckets(bounds, sampled, _FIRST_SECONDS, first_seconds):
                self.client.add_exemplar((one[0], one[2], one[5], one[6]))

    def _count_retry(self, retry: Retry, trace_id: bytes | None) -> None:
        upstream, status, reason, grpc, seconds, ended, span_id = retry
        error = client_error_type(status, reason, grpc)
        row = self.route.client_row((upstream, self.method, status, error, grpc))
        row.add([seconds])
        if trace_id is not None:
            row.add_exemplar((trace_id, span_id, seconds, ended))

    def _count_again(self, upstream: str, cause: RetryCause | None, hedge: str) -> None:
        route = self.route
        if hedge:
            route.hedges[upstream, hedge] = route.hedges.get((upstream, hedge), 0) + 1
        elif cause is not None:
            route.retries[upstream, cause] = route.retries.get((upstream, cause), 0) + 1

    def _count_reason(self, reason: Reason, count: int) -> None:
        route = self.route
        if self.rejected_for:
            route.rejected[self.rejected_for] += count
        cause = _CANCELLED_BY.get(reason)
        if cause is not None:
            route.cancellations[cause] = route.cancellations.get(cause, 0) + count


class Numbers:
    """What is counted of a process. Exchanges that have ended add to it by `forwarding/counting.py`."""

    __slots__ = (
        "_live", "_routes", "duration_bounds", "is_exponential", "lock", "max_series", "series", "shapes",
    )  # fmt: skip

    def __init__(
        self,
        live: Collection[ObservedExchange] = (),
        duration_bounds: tuple[float, ...] = DURATION_BOUNDS,
        max_series: int = MOST_SERIES,
        *,
        is_exponential: bool = False,
    ) -> None:
        """`live` is the data path's own set of the exchanges under way: it is copied in one step and counted.

        `duration_bounds`: seconds, ascending; of both histograms of how long requests took. `is_exponential`: these
        two are kept in exponential buckets as well."""
        self._live = live
        self.duration_bounds = duration_bounds
        self.is_exponential = is_exponential
        self.max_series = max_series
        """Rows of both histograms of all routes; may be changed, and what is beyond it by then stays."""
        self.series = 0
        """Such rows that there are."""
        self.lock = threading.Lock()
        """Held by whoever folds."""
        self._routes: dict[str | None, RouteNumbers] = {}
        self.shapes: dict[ShapeKey, Shape] = {}
        """What exchanges are counted by, as far as there have been such; `shape` makes what is missing."""

    def routes(self) -> list[RouteNumbers]:
        """Every route that was seen, its `active` as of now; safe to call and to read from another thread.

        `fold` each before reading its rows, as `families` does: all of 1,000 at once would hold up the loop.
        """
        with self.lock:
            self._count_live()
            return list(self._routes.values())

    def route(self, name: str | None, listener: str) -> RouteNumbers:
        """Those of one route, to add to what other processes have counted; on the loop."""
        found = self._routes.get(name) or self._add(name, listener)
        found.listener = found.listener or listener
        return found

    def expect(self, name: str, listener: str, upstream: str, causes: Iterable[RetryCause] = ()) -> None:
        """Bear the counters of a route and its breaker at zero: what comes for the first time must be seen to grow.
        Call at the start and after each reload, on the loop; a second time it does next to nothing. `causes`: why a
        further attempt may come to the upstream (`core/retry.py`)."""
        route = self._routes.get(name) or self._add(name, listener)
        route.listener = listener
        for why in causes:
            route.retries.setdefault((upstream, why), 0)
        if (upstream, *BY_TRAFFIC[0]) in route.transitions:
            return
        for edge in BY_TRAFFIC:
            route.transitions.setdefault((upstream, *edge), 0)
        for cause in _CANCELLED_BY.values():
            route.cancellations.setdefault(cause, 0)

    def retain(self, names: Collection[str]) -> None:
        """Forget routes that a reload removed and that have nothing under way. Call after each reload, on the
        loop."""
        with self.lock:
            self._count_live()
        for name, route in list(self._routes.items()):
            if name is not None and name not in names and not any(route.active.values()):
                del self._routes[name]
                self._forget_shapes(route)
        with self.lock:
            # Counted anew: a reader may still fold a route that has gone.
            self.series = sum(len(route.server) + len(route.client) for route in self._routes.values())

    def fold_if_free(self, shape: Shape) -> None:
        """Count what waits in it; left for the next one while a reader folds."""
        if self.lock.acquire(blocking=False):
            try:
                shape.fold()
            finally:
                self.lock.release()

    def transitioned(self, transition: Transition) -> None:
        route = self._routes.get(transition.route) or self._add(transition.route, "")
        upstream = PASS_THROUGH if transition.route == PASS_THROUGH else transition.upstream
        key = (upstream, transition.from_state, transition.to_state, transition.reason)
        route.transitions[key] = route.transitions.get(key, 0) + 1

    def noticed(self, notice: Notice, route_name: str) -> None:
        notices = (self._routes.get(route_name) or self._add(route_name, "")).notices
        notices[notice] = notices.get(notice, 0) + 1

    def copy_ended(self, route_name: str, upstream: str, outcome: CopyOutcome) -> None:
        copies = (self._routes.get(route_name) or self._add(route_name, "")).copies
        copies[upstream, outcome] = copies.get((upstream, outcome), 0) + 1

    def _add(self, name: str | None, listener: str) -> RouteNumbers:
        """In one step: the loop may add a route while a reader folds."""
        return self._routes.setdefault(name, RouteNumbers(self, name, listener))

    def shape(self, key: ShapeKey, listener: str) -> Shape:
        if key[1] not in _KNOWN:
            key = (key[0], OTHER, *key[2:])
            known = self.shapes.get(key)
            if known is not None:
                return known
        with self.lock:
            route = self._routes.get(key[0]) or self._add(key[0], listener)
            route.listener = listener  # a transition may have made the route, without one
            if len(route.shapes) >= MAX_SHAPES:
                self._make_room(route)
            shape = self.shapes[key] = Shape(route, key)
            route.shapes.append(shape)
        return shape

    def _make_room(self, route: RouteNumbers) -> None:
        """Count and forget the shapes of a route whose upstream makes up ever new statuses."""
        route.fold_locked()
        self._forget_shapes(route)
        route.shapes.clear()

    def _forget_shapes(self, route: RouteNumbers) -> None:
        self.shapes = {key: shape for key, shape in self.shapes.items() if shape.route is not route}

    def _count_live(self) -> None:
        """Count what is under way, by route and method. The lock is held.

        Each count is put in place whole: a reader of an earlier call may still be at it.
        """
        counts = {route: dict.fromkeys(route.active, 0) for route in list(self._routes.values())}
        for exchange in list(self._live):
            name, method = exchange.route_name, exchange.request.method
            if name is not None:
                route = self._routes.get(name) or self._add(name, exchange.request.listener)
                active = counts.setdefault(route, {})
                known = method if method in _KNOWN else OTHER
                active[known] = active.get(known, 0) + 1
        for route, active in counts.items():
            route.active = active


def _last_of_buckets(
    bounds: Sequence[float], sampled: list[Sampled], what: Literal[3, 5], values: list[float]
) -> list[Sampled]:
    """Those of `sampled` that are the last ones of their buckets by `what`. `values` are sorted, and hold theirs:
    from the last one back, all is found as soon as each bucket between the ends of `values` has one."""
    first, last = bisect_left(bounds, values[0]), bisect_left(bounds, values[-1])
    found: dict[int, Sampled] = {}
    missing = last - first + 1
    for one in reversed(sampled):
        bucket = bisect_left(bounds, one[what])
        if bucket not in found:
            found[bucket] = one
            if first <= bucket <= last:  # while a thread folds, the loop may add one that is not in `values`
                missing -= 1
                if not missing:
                    break
    return list(found.values())


def _rejected_for(upstream: str | None, first_reason: Reason | None) -> str:
    """Of the key of a shape."""
    if upstream is not None:
        return NOT_SENT
    return SPENT if first_reason is Reason.DEADLINE_EXCEEDED else TOO_SMALL


def server_error_type(status: int, reason: Reason | None, grpc: int | None = None) -> str:
    """`error.type` of a SERVER span and row: our own reason, else the name of a gRPC status that is the server's
    fault, else a 5xx status, else empty. A gRPC call that was answered by another status of HTTP has that one, where
    either of its two is the server's fault."""
    if reason is not None:
        return reason.error_type
    if grpc is not None and status < 400:
        return GrpcStatus(grpc).name if grpc in SERVER_ERRORS else ""
    return str(status) if status >= 500 or grpc in SERVER_ERRORS else ""


def client_error_type(status: int, reason: Reason | None, grpc: int | None = None) -> str:
    """`error.type` of a CLIENT span and row: the reason, else the name of a gRPC status that is not OK, else a 4xx or
    5xx status, else empty."""
    if reason is not None:
        return reason.error_type
    if grpc is not None and status < 400:
        return GrpcStatus(grpc).name if grpc else ""
    return str(status) if status >= 400 else ""
