"""What came of requests: HTTP's own metrics, deadlines, retries, hedges, copies and cancellations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sidecar.core.families.family import (
    Attributes,
    Family,
    HistogramRow,
    MetricKind,
    Places,
    Point,
    route_attributes,
)
from sidecar.core.numbers import OVERFLOW_STATUS, RouteNumbers
from sidecar.core.observe import Notice
from sidecar.core.sources import Sources


def _server(route: RouteNumbers, places: Places) -> Iterator[Point]:
    base = route_attributes(route)
    for (method, status, error, grpc), histogram in list(route.server.items()):
        http = _http_attributes(method, status, error, grpc, _scheme(route, places))
        yield base + http, HistogramRow.of(histogram)


def _client(route: RouteNumbers, places: Places) -> Iterator[Point]:
    base = route_attributes(route)
    for (upstream, method, status, error, grpc), histogram in list(route.client.items()):
        address, port, scheme = places.servers.get(upstream, (upstream, None, "http"))
        where: Attributes = (("sidecar.upstream", upstream), ("server.address", address or upstream))
        if port is not None:
            where += (("server.port", port),)
        http = _http_attributes(method, status, error, grpc, scheme)
        yield base + where + http, HistogramRow.of(histogram)


def _active(route: RouteNumbers, places: Places) -> Iterator[Point]:
    if route.name is None:
        return  # whatever is under way has a route, or ends at once
    base = route_attributes(route)
    for method, count in route.active.items():
        scheme = ("url.scheme", _scheme(route, places))
        yield (*base, ("http.request.method", method.decode()), scheme), count


def _scheme(route: RouteNumbers, places: Places) -> str:
    """Of its listener: clients speak TLS to it, or none does."""
    return "https" if route.listener in places.secured else "http"


def _http_attributes(
    method: bytes, status: int, error: str, grpc: int | None, scheme: str = "http"
) -> Attributes:
    fixed: Attributes = (("http.request.method", method.decode()), ("url.scheme", scheme))
    if status == OVERFLOW_STATUS:
        return (*fixed, ("otel.metric.overflow", True))
    if status:
        fixed += (("http.response.status_code", status),)
    if grpc is not None:
        fixed += (("rpc.system", "grpc"), ("rpc.grpc.status_code", grpc))
    return (*fixed, ("error.type", error)) if error else fixed


def _budgets(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for source, histogram in route.budgets.items():
        row = HistogramRow.of(histogram)
        if any(row.counts):
            yield (*route_attributes(route), ("sidecar.deadline.source", source)), row


def _recovered(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        yield route_attributes(route), sum(route.budgets["trace"].counts)


def _exceeded(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        for reason, count in route.exceeded.items():
            yield (*route_attributes(route), ("sidecar.deadline.reason", reason)), count


def _rejected(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        for reason, count in route.rejected.items():
            yield (*route_attributes(route), ("sidecar.deadline.reason", reason)), count


def _admission(sources: Sources) -> Iterator[Point]:
    for (route, outcome), count in sources.admission.items():
        yield (("sidecar.route", route), ("sidecar.admission.outcome", outcome)), count


def _notices(notice: Notice) -> Callable[[RouteNumbers, Places], Iterator[Point]]:
    def read(route: RouteNumbers, _: Places) -> Iterator[Point]:
        if route.name is not None:
            yield route_attributes(route), route.notices.get(notice, 0)

    return read


def _retries(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, cause), count in list(route.retries.items()):
        where = ("sidecar.upstream", upstream), ("sidecar.retry.reason", cause.value)
        yield (*route_attributes(route), *where), count


def _hedges(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, outcome), count in list(route.hedges.items()):
        where = ("sidecar.upstream", upstream), ("sidecar.hedge.outcome", outcome)
        yield (*route_attributes(route), *where), count


_NOT_HEDGED = {
    "budget_exhausted": Notice.HEDGE_BUDGET_EXHAUSTED,
    "no_endpoint": Notice.HEDGE_NO_ENDPOINT,
    "refused": Notice.HEDGE_REFUSED,
}


def _not_hedged(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        for reason, notice in _NOT_HEDGED.items():
            yield (*route_attributes(route), ("sidecar.hedge.reason", reason)), route.notices.get(notice, 0)


def _copies(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, outcome), count in list(route.copies.items()):
        where = ("sidecar.upstream", upstream), ("sidecar.mirror.outcome", outcome.value)
        yield (*route_attributes(route), *where), count


def _copies_in_flight(sources: Sources) -> Iterator[Point]:
    for route, count in sources.copies.items():
        yield (("sidecar.route", route),), count


def _cancellations(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for cause, count in list(route.cancellations.items()):
        yield (*route_attributes(route), ("sidecar.cancellation.cause", cause)), count


REQUESTS: Final[tuple[Family, ...]] = (
    Family(
        "http.server.request.duration",
        "s",
        "Duration of HTTP server requests.",
        MetricKind.HISTOGRAM,
        _server,
    ),
    Family(
        "http.client.request.duration",
        "s",
        "Duration of HTTP client requests.",
        MetricKind.HISTOGRAM,
        _client,
    ),
    Family(
        "http.server.active_requests",
        "{request}",
        "Number of active HTTP server requests.",
        MetricKind.UP_DOWN,
        _active,
    ),
    Family("sidecar.deadline.budget", "s", "Budget of requests at entry.", MetricKind.HISTOGRAM, _budgets),
    Family(
        "sidecar.deadline.exceeded",
        "{request}",
        "Requests that took longer than their budget, by reason.",
        MetricKind.COUNTER,
        _exceeded,
    ),
    Family(
        "sidecar.deadline.rejected",
        "{request}",
        "Requests refused because their budget was spent or too small, by reason.",
        MetricKind.COUNTER,
        _rejected,
    ),
    Family(
        "sidecar.deadline.recovered",
        "{request}",
        "Requests whose budget was recovered from their trace.",
        MetricKind.COUNTER,
        _recovered,
    ),
    Family(
        "sidecar.deadline.invalid",
        "{request}",
        "Timeout header fields that could not be read.",
        MetricKind.COUNTER,
        _notices(Notice.INVALID_TIMEOUT_HEADER),
    ),
    Family(
        "sidecar.admission.requests",
        "{request}",
        "Requests whose budget was too small for their route: refused, or spared by `observe` or `max_reject_ratio`.",
        MetricKind.COUNTER,
        None,
        _admission,
    ),
    Family(
        "sidecar.retry.attempts",
        "{attempt}",
        "Attempts after one that failed, by reason.",
        MetricKind.COUNTER,
        _retries,
    ),
    Family(
        "sidecar.retry.budget_exhausted",
        "{attempt}",
        "Retries that the retry budget forbade.",
        MetricKind.COUNTER,
        _notices(Notice.RETRY_BUDGET_EXHAUSTED),
    ),
    Family(
        "sidecar.hedge.attempts",
        "{attempt}",
        "Attempts beside one that was slow, by outcome.",
        MetricKind.COUNTER,
        _hedges,
    ),
    Family(
        "sidecar.hedge.not_sent",
        "{attempt}",
        "Attempts beside a slow one that were due and not made, by reason.",
        MetricKind.COUNTER,
        _not_hedged,
    ),
    Family(
        "sidecar.mirror.requests",
        "{request}",
        "Copies of requests that were due, by outcome.",
        MetricKind.COUNTER,
        _copies,
    ),
    Family(
        "sidecar.mirror.in_flight",
        "{request}",
        "Copies of requests under way.",
        MetricKind.UP_DOWN,
        None,
        _copies_in_flight,
    ),
    Family(
        "sidecar.cancellations",
        "{request}",
        "Requests given up before their end, by cause.",
        MetricKind.COUNTER,
        _cancellations,
    ),
)
