"""The catalogue of metrics: name, unit, meaning and attributes of each, and how it is read from the numbers.

The one place that knows them; `telemetry/metrics.py` and `admin/prometheus.py` only translate. Points are
made lazily, so that a reader of 1,000 routes can pause between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final

from sidecar.core.numbers import (
    LAG_BOUNDS,
    OVERFLOW_STATUS,
    Exemplar,
    Histogram,
    RouteNumbers,
)
from sidecar.core.observe import Notice
from sidecar.core.snapshot import DURATION_BOUNDS
from sidecar.core.sources import AdaptiveNumbers, Sources
from sidecar.core.transition import State


class MetricKind(Enum):
    COUNTER = "counter"
    UP_DOWN = "up_down"
    """A sum that also falls: adding it up over processes means something."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Attributes = tuple[tuple[str, str | int | bool], ...]


@dataclass(frozen=True, slots=True)
class HistogramRow:
    """A histogram at one moment."""

    counts: Sequence[int]
    sum: float
    exemplars: Sequence[Exemplar | None]
    bounds: tuple[float, ...]
    """Upper ones, inclusive, of all buckets but the last."""

    @classmethod
    def of(cls, histogram: Histogram) -> HistogramRow:
        counts, total = histogram.state
        return cls(counts, total, tuple(histogram.exemplars or ()), histogram.bounds)


Value = int | float | HistogramRow
Point = tuple[Attributes, Value]


@dataclass(frozen=True, slots=True)
class Places:
    """What the numbers of a route do not know of the two ends."""

    servers: Mapping[str, tuple[str, int | None, str]]
    """By upstream: address, port and scheme."""
    secured: frozenset[str]
    """Listeners that accept TLS."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    name: str
    unit: str
    """UCUM; an annotation in braces counts things."""
    description: str
    kind: MetricKind
    of_route: Callable[[RouteNumbers, Places], Iterator[Point]] | None = None
    of_sources: Callable[[Sources], Iterator[Point]] | None = None

    def points(self, routes: Sequence[RouteNumbers], sources: Sources) -> Iterator[Point]:
        """Read this metric now. Lazy: each point is as old as the moment it is taken."""
        if self.of_route is not None:
            servers = {upstream.name: (*upstream.server, upstream.scheme) for upstream in sources.upstreams}
            places = Places(servers, sources.secured_listeners)
            for route in routes:
                route.fold()
                yield from self.of_route(route, places)
        if self.of_sources is not None:
            yield from self.of_sources(sources)


def _server(route: RouteNumbers, places: Places) -> Iterator[Point]:
    base = _route_attributes(route)
    for (method, status, error, grpc), histogram in list(route.server.items()):
        http = _http_attributes(method, status, error, grpc, _scheme(route, places))
        yield base + http, HistogramRow.of(histogram)


def _client(route: RouteNumbers, places: Places) -> Iterator[Point]:
    base = _route_attributes(route)
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
    base = _route_attributes(route)
    for method, count in route.active.items():
        scheme = ("url.scheme", _scheme(route, places))
        yield (*base, ("http.request.method", method.decode()), scheme), count


def _scheme(route: RouteNumbers, places: Places) -> str:
    """Of its listener: clients speak TLS to it, or none does."""
    return "https" if route.listener in places.secured else "http"


def _route_attributes(route: RouteNumbers) -> Attributes:
    if route.name is None:
        return ()
    name = ("sidecar.route", route.name)
    return (name, ("sidecar.listener", route.listener)) if route.listener else (name,)


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
            yield (*_route_attributes(route), ("sidecar.deadline.source", source)), row


def _recovered(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        yield _route_attributes(route), sum(route.budgets["trace"].counts)


def _exceeded(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        for reason, count in route.exceeded.items():
            yield (*_route_attributes(route), ("sidecar.deadline.reason", reason)), count


def _rejected(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        for reason, count in route.rejected.items():
            yield (*_route_attributes(route), ("sidecar.deadline.reason", reason)), count


def _admission(sources: Sources) -> Iterator[Point]:
    for (route, outcome), count in sources.admission.items():
        yield (("sidecar.route", route), ("sidecar.admission.outcome", outcome)), count


def _notices(notice: Notice) -> Callable[[RouteNumbers, Places], Iterator[Point]]:
    def read(route: RouteNumbers, _: Places) -> Iterator[Point]:
        if route.name is not None:
            yield _route_attributes(route), route.notices.get(notice, 0)

    return read


def _retries(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, cause), count in list(route.retries.items()):
        where = ("sidecar.upstream", upstream), ("sidecar.retry.reason", cause.value)
        yield (*_route_attributes(route), *where), count


def _hedges(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, outcome), count in list(route.hedges.items()):
        where = ("sidecar.upstream", upstream), ("sidecar.hedge.outcome", outcome)
        yield (*_route_attributes(route), *where), count


_NOT_HEDGED = {
    "budget_exhausted": Notice.HEDGE_BUDGET_EXHAUSTED,
    "no_endpoint": Notice.HEDGE_NO_ENDPOINT,
    "refused": Notice.HEDGE_REFUSED,
}


def _not_hedged(route: RouteNumbers, _: Places) -> Iterator[Point]:
    if route.name is not None:
        for reason, notice in _NOT_HEDGED.items():
            yield (*_route_attributes(route), ("sidecar.hedge.reason", reason)), route.notices.get(notice, 0)


def _copies(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, outcome), count in list(route.copies.items()):
        where = ("sidecar.upstream", upstream), ("sidecar.mirror.outcome", outcome.value)
        yield (*_route_attributes(route), *where), count


def _copies_in_flight(sources: Sources) -> Iterator[Point]:
    for route, count in sources.copies.items():
        yield (("sidecar.route", route),), count


def _cancellations(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for cause, count in list(route.cancellations.items()):
        yield (*_route_attributes(route), ("sidecar.cancellation.cause", cause)), count


def _transitions(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, before, after, reason), count in list(route.transitions.items()):
        yield (
            (
                ("sidecar.route", route.name or ""),
                ("sidecar.upstream", upstream),
                ("sidecar.circuit_breaker.state.from", before.value),
                ("sidecar.circuit_breaker.state.to", after.value),
                ("sidecar.circuit_breaker.reason", reason.value),
            ),
            count,
        )


def _breaker(route: str, upstream: str) -> Attributes:
    return ("sidecar.route", route), ("sidecar.upstream", upstream)


def _states(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        name = _breaker(breaker.route, breaker.upstream)
        for state in State:
            yield (*name, ("sidecar.circuit_breaker.state", state.value)), int(breaker.state is state)


def _probes_due(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield _breaker(breaker.route, breaker.upstream), int(breaker.is_probe_due)


def _overridden(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield _breaker(breaker.route, breaker.upstream), int(breaker.is_overridden)


def _opened(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield _breaker(breaker.route, breaker.upstream), breaker.opened_at


def _calls(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        name = _breaker(breaker.route, breaker.upstream)
        outcomes = (
            ("success", breaker.successful),
            ("failure", breaker.failed),
            ("ignored", breaker.ignored),
        )
        for outcome, count in outcomes:
            yield (*name, ("sidecar.circuit_breaker.outcome", outcome)), count


def _slow(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield _breaker(breaker.route, breaker.upstream), breaker.slow


def _timed_out(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield _breaker(breaker.route, breaker.upstream), breaker.timed_out


def _candidates(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        for state in State if breaker.candidate is not None else ():
            name = (
                *_breaker(breaker.route, breaker.upstream),
                ("sidecar.circuit_breaker.state", state.value),
            )
            yield name, int(breaker.candidate is state)


def _would_have_rejected(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        for (policy, outcome), count in breaker.would_have_rejected.items():
            which: Attributes = (
                ("sidecar.circuit_breaker.policy", policy), ("sidecar.circuit_breaker.outcome", outcome),
            )  # fmt: skip
            yield (*_breaker(breaker.route, breaker.upstream), *which), count


def _not_permitted(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield _breaker(breaker.route, breaker.upstream), breaker.rejected


def _connections(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        for state, count in (("active", upstream.active), ("idle", upstream.idle)):
            yield (("sidecar.upstream", upstream.name), ("sidecar.connection.state", state)), count


def _pending(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        yield (("sidecar.upstream", upstream.name),), upstream.pending


def _adaptive(read: Callable[[AdaptiveNumbers], float]) -> Callable[[Sources], Iterator[Point]]:
    def points(sources: Sources) -> Iterator[Point]:
        for upstream in sources.upstreams:
            if upstream.adaptive is not None:
                yield (("sidecar.upstream", upstream.name),), read(upstream.adaptive)

    return points


def _adaptive_changes(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        if (adaptive := upstream.adaptive) is not None:
            for reason, count in adaptive.changes.items():
                yield (("sidecar.upstream", upstream.name), ("sidecar.adaptive.reason", reason)), count


def _adaptive_requests(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        if (adaptive := upstream.adaptive) is not None:
            for outcome, count in (("refused", adaptive.refused), ("spared", adaptive.spared)):
                yield (("sidecar.upstream", upstream.name), ("sidecar.adaptive.outcome", outcome)), count


def _connection_waits(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        counts, total = upstream.waits
        row = HistogramRow(counts or (0,) * (len(DURATION_BOUNDS) + 1), total, (), DURATION_BOUNDS)
        yield (("sidecar.upstream", upstream.name),), row


def _in_process(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        if upstream.in_process:
            yield (("sidecar.upstream", upstream.name),), upstream.in_process


def _endpoints(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        for health, count in upstream.endpoints.items():
            yield (("sidecar.upstream", upstream.name), ("sidecar.endpoint.state", health.value)), count


def _ejections(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        for reason, count in upstream.ejections.items():
            yield (("sidecar.upstream", upstream.name), ("sidecar.ejection.reason", reason.value)), count


def _checked(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        for state, count in upstream.checked.items():
            yield (("sidecar.upstream", upstream.name), ("sidecar.health.state", state.value)), count


def _checks(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        for end, count in upstream.checks.items():
            yield (("sidecar.upstream", upstream.name), ("sidecar.health.result", end.value)), count


def _checks_delayed(sources: Sources) -> Iterator[Point]:
    for upstream in sources.upstreams:
        if upstream.checks:
            yield (("sidecar.upstream", upstream.name),), upstream.checks_delayed


def _kept(sources: Sources) -> Iterator[Point]:
    for one in sources.failovers:
        yield (("sidecar.route", one.route), ("sidecar.upstream", one.upstream)), one.kept


def _moved(sources: Sources) -> Iterator[Point]:
    for one in sources.failovers:
        for to, count in one.moved.items():
            names = ("sidecar.route", one.route), ("sidecar.upstream", one.upstream)
            yield (*names, ("sidecar.failover.to", to)), count


def _fleet_alone(sources: Sources) -> Iterator[Point]:
    if sources.fleet is not None:
        yield (), int(not sources.fleet.is_linked)


def _fleet_replicas(sources: Sources) -> Iterator[Point]:
    if sources.fleet is not None:
        yield (), sources.fleet.replicas


def _fleet_failures(sources: Sources) -> Iterator[Point]:
    if sources.fleet is not None:
        for reason, count in sources.fleet.failures.items():
            yield (("sidecar.fleet.reason", reason),), count


def _fleet_messages(sources: Sources) -> Iterator[Point]:
    fleet = sources.fleet
    if fleet is not None:
        for kind, count in (("written", fleet.written), ("read", fleet.read), ("dropped", fleet.dropped)):
            yield (("sidecar.fleet.message", kind),), count


def _fleet_dissents(sources: Sources) -> Iterator[Point]:
    if sources.fleet is not None:
        for (route, upstream), is_dissenting in sources.fleet.dissents.items():
            yield _breaker(route, upstream), int(is_dissenting)


def _reloads(sources: Sources) -> Iterator[Point]:
    yield (("sidecar.config.result", "success"),), sources.config.reloads_succeeded
    yield (("sidecar.config.result", "failure"),), sources.config.reloads_failed


def _generation(sources: Sources) -> Iterator[Point]:
    yield (), sources.config.generation


def _last_reload(sources: Sources) -> Iterator[Point]:
    yield (), int(sources.config.is_last_reload_successful)


def _age(sources: Sources) -> Iterator[Point]:
    yield (), sources.config.age_seconds


def _ties(sources: Sources) -> Iterator[Point]:
    for is_tied, count in ((True, sources.callers_tied), (False, sources.callers_untied)):
        yield (("sidecar.callers.tied", is_tied),), count


def _evicted(sources: Sources) -> Iterator[Point]:
    yield (), sources.callers_evicted


def _across(sources: Sources) -> Iterator[Point]:
    for event, count in sources.callers_across.items():
        yield (("sidecar.callers.event", event),), count


def _balanced(sources: Sources) -> Iterator[Point]:
    for event, count in sources.balanced.items():
        yield (("sidecar.balance.event", event),), count


def _passed_destinations(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.destinations


def _passed(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.passed


def _passed_closed(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.closed


def _passed_evicted(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.evicted


def _refused(sources: Sources) -> Iterator[Point]:
    for listener, count in sources.connections_refused.items():
        yield (("sidecar.listener", listener),), count


def _memory_used(sources: Sources) -> Iterator[Point]:
    yield (), sources.memory.used_bytes


def _memory_limit(sources: Sources) -> Iterator[Point]:
    yield (), sources.memory.limit_bytes


def _memory_closed(sources: Sources) -> Iterator[Point]:
    for held, count in sources.memory.closed.items():
        yield (("sidecar.memory.held", held),), count


def _memory_refused(sources: Sources) -> Iterator[Point]:
    yield (), sources.memory.refused


def _lag(sources: Sources) -> Iterator[Point]:
    counts, total = sources.loop.lag
    yield (), HistogramRow(counts or (0,) * (len(LAG_BOUNDS) + 1), total, (), LAG_BOUNDS)


def _throttled(sources: Sources) -> Iterator[Point]:
    yield (), sources.loop.throttled_turns


def _ends_put_off(sources: Sources) -> Iterator[Point]:
    yield (), sources.loop.ends_put_off


def _overloaded(sources: Sources) -> Iterator[Point]:
    for one in sources.overloads:
        yield (("sidecar.listener", one.listener),), int(one.is_on)


def _turned_away(sources: Sources) -> Iterator[Point]:
    for one in sources.overloads:
        for outcome, count in (("refused", one.refused), ("left", one.left)):
            yield (("sidecar.listener", one.listener), ("sidecar.overload.outcome", outcome)), count


def _handshakes(sources: Sources) -> Iterator[Point]:
    for (listener, result), count in sources.handshakes.items():
        yield (("sidecar.listener", listener), ("sidecar.tls.result", result)), count


def _certificate_changes(sources: Sources) -> Iterator[Point]:
    for (owner, result), count in sources.certificate_changes.items():
        yield (("sidecar.tls.owner", owner), ("sidecar.tls.result", result)), count


def _expiry(sources: Sources) -> Iterator[Point]:
    for one in sources.certificates:
        yield (("sidecar.tls.owner", one.owner), ("sidecar.tls.file", one.file)), one.seconds_left


def _waits(sources: Sources) -> Iterator[Point]:
    for one in sources.overloads:
        yield (("sidecar.listener", one.listener),), one.waits_for_room


def _overflowed(route: RouteNumbers, _: Places) -> Iterator[Point]:
    yield _route_attributes(route), route.overflowed


def _dropped(sources: Sources) -> Iterator[Point]:
    for (signal, reason), count in sources.dropped.items():
        yield (("sidecar.telemetry.signal", signal), ("sidecar.telemetry.reason", reason)), count


_S, _REQ = "s", "{request}"
_C, _U, _G, _H = MetricKind.COUNTER, MetricKind.UP_DOWN, MetricKind.GAUGE, MetricKind.HISTOGRAM

FAMILIES: tuple[Family, ...] = (
    Family(
        "http.server.request.duration",
        _S,
        "Duration of HTTP server requests.",
        _H,
        _server,
    ),
    Family(
        "http.client.request.duration",
        _S,
        "Duration of HTTP client requests.",
        _H,
        _client,
    ),
    Family("http.server.active_requests", _REQ, "Number of active HTTP server requests.", _U, _active),
    Family(
        "sidecar.circuit_breaker.state",
        "{breaker}",
        "1 for the state the circuit breaker is in, 0 for each other one.",
        _U,
        None,
        _states,
    ),
    Family(
        "sidecar.circuit_breaker.probe_due",
        "{breaker}",
        "1 while the circuit breaker is open, its wait is over and no request has come to be the probe.",
        _U,
        None,
        _probes_due,
    ),
    Family(
        "sidecar.circuit_breaker.overridden",
        "{breaker}",
        "1 while an operator holds the circuit breaker, open or closed.",
        _U,
        None,
        _overridden,
    ),
    Family(
        "sidecar.circuit_breaker.opened_timestamp",
        _S,
        "When the circuit breaker last opened, in seconds since 1970; 0 if it has not since the process began.",
        _G,
        None,
        _opened,
    ),
    Family(
        "sidecar.circuit_breaker.transitions",
        "{transition}",
        "State changes of circuit breakers.",
        _C,
        _transitions,
    ),
    Family(
        "sidecar.circuit_breaker.calls",
        "{call}",
        "Attempts judged by a circuit breaker, by outcome.",
        _C,
        None,
        _calls,
    ),
    Family(
        "sidecar.circuit_breaker.not_permitted",
        _REQ,
        "Requests that a circuit breaker did not let through.",
        _C,
        None,
        _not_permitted,
    ),
    Family(
        "sidecar.circuit_breaker.slow",
        "{call}",
        "Attempts that took longer than `slow_call_duration`, whatever came of them.",
        _C,
        None,
        _slow,
    ),
    Family(
        "sidecar.circuit_breaker.timed_out",
        "{call}",
        "Attempts that timed out, whether or not that counts as a failure.",
        _C,
        None,
        _timed_out,
    ),
    Family(
        "sidecar.circuit_breaker.candidate_state",
        "{breaker}",
        "1 for the state the candidate of a circuit breaker is in, 0 for each other one.",
        _U,
        None,
        _candidates,
    ),
    Family(
        "sidecar.circuit_breaker.would_have_rejected",
        _REQ,
        "Requests that a policy which only counts would have refused, by what came of them.",
        _C,
        None,
        _would_have_rejected,
    ),
    Family("sidecar.deadline.budget", _S, "Budget of requests at entry.", _H, _budgets),
    Family(
        "sidecar.deadline.exceeded",
        _REQ,
        "Requests that took longer than their budget, by reason.",
        _C,
        _exceeded,
    ),
    Family(
        "sidecar.deadline.rejected",
        _REQ,
        "Requests refused because their budget was spent or too small, by reason.",
        _C,
        _rejected,
    ),
    Family(
        "sidecar.deadline.recovered",
        _REQ,
        "Requests whose budget was recovered from their trace.",
        _C,
        _recovered,
    ),
    Family(
        "sidecar.deadline.invalid",
        _REQ,
        "Timeout header fields that could not be read.",
        _C,
        _notices(Notice.INVALID_TIMEOUT_HEADER),
    ),
    Family(
        "sidecar.admission.requests",
        _REQ,
        "Requests whose budget was too small for their route: refused, or spared by `observe` or `max_reject_ratio`.",
        _C,
        None,
        _admission,
    ),
    Family("sidecar.retry.attempts", "{attempt}", "Attempts after one that failed, by reason.", _C, _retries),
    Family(
        "sidecar.retry.budget_exhausted",
        "{attempt}",
        "Retries that the retry budget forbade.",
        _C,
        _notices(Notice.RETRY_BUDGET_EXHAUSTED),
    ),
    Family(
        "sidecar.hedge.attempts", "{attempt}", "Attempts beside one that was slow, by outcome.", _C, _hedges
    ),
    Family(
        "sidecar.hedge.not_sent",
        "{attempt}",
        "Attempts beside a slow one that were due and not made, by reason.",
        _C,
        _not_hedged,
    ),
    Family("sidecar.mirror.requests", _REQ, "Copies of requests that were due, by outcome.", _C, _copies),
    Family("sidecar.mirror.in_flight", _REQ, "Copies of requests under way.", _U, None, _copies_in_flight),
    Family(
        "sidecar.upstream.connections", "{connection}", "Connections to an upstream.", _U, None, _connections
    ),
    Family("sidecar.upstream.pending", _REQ, "Requests that wait for a connection.", _U, None, _pending),
    Family(
        "sidecar.upstream.wait",
        _S,
        "How long attempts that found no idle connection waited until they had one, or gave up.",
        _H,
        None,
        _connection_waits,
    ),
    Family(
        "sidecar.upstream.in_process",
        "{connection}",
        "Connections to endpoints that are this very pod, made within the process to its inbound listener.",
        _C,
        None,
        _in_process,
    ),
    Family(
        "sidecar.adaptive.limit",
        _REQ,
        "Requests in flight that the adaptive limit of an upstream allows.",
        _U,
        None,
        _adaptive(lambda one: one.limit),
    ),
    Family(
        "sidecar.adaptive.base",
        _S,
        "How long an upstream's usual head takes without a line, as its adaptive limit knows; 0 before.",
        _G,
        None,
        _adaptive(lambda one: one.base_seconds),
    ),
    Family(
        "sidecar.adaptive.in_flight",
        _REQ,
        "Requests in flight at an upstream that has an adaptive limit, but for streams whose heads have come.",
        _U,
        None,
        _adaptive(lambda one: one.in_flight),
    ),
    Family(
        "sidecar.adaptive.requests",
        _REQ,
        "Requests above the adaptive limit of their upstream: refused, or spared by `observe`.",
        _C,
        None,
        _adaptive_requests,
    ),
    Family(
        "sidecar.adaptive.changes",
        "{change}",
        "Changes of an upstream's adaptive limit, by reason.",
        _C,
        None,
        _adaptive_changes,
    ),
    Family(
        "sidecar.ejection.endpoints",
        "{endpoint}",
        "Endpoints of an upstream, by what is thought of them.",
        _U,
        None,
        _endpoints,
    ),
    Family(
        "sidecar.ejection.ejections", "{ejection}", "Endpoints left out, by reason.", _C, None, _ejections
    ),
    Family(
        "sidecar.health.endpoints",
        "{endpoint}",
        "Endpoints of an upstream, by what health checks have shown of them.",
        _U,
        None,
        _checked,
    ),
    Family(
        "sidecar.health.checks", "{check}", "Health checks that have ended, by result.", _C, None, _checks
    ),
    Family(
        "sidecar.health.delayed",
        "{check}",
        "Health checks that waited, since too many others were under way.",
        _C,
        None,
        _checks_delayed,
    ),
    Family(
        "sidecar.failover.kept",
        "1",
        "Share of its load that an upstream keeps while others take over.",
        MetricKind.GAUGE,
        None,
        _kept,
    ),
    Family("sidecar.failover.requests", _REQ, "Requests that another upstream took over.", _C, None, _moved),
    Family(
        "sidecar.fleet.alone",
        "{replica}",
        "1 while this replica does not hear the others of its fleet, 0 while it does.",
        _U,
        None,
        _fleet_alone,
    ),
    Family(
        "sidecar.fleet.replicas",
        "{replica}",
        "Replicas of the fleet, as far as this one knows.",
        _U,
        None,
        _fleet_replicas,
    ),
    Family(
        "sidecar.fleet.failures",
        "{failure}",
        "Links with the fleet that ended, and tries that failed, by reason.",
        _C,
        None,
        _fleet_failures,
    ),
    Family(
        "sidecar.fleet.messages",
        "{message}",
        "Times that something was told to the fleet, heard of it, or found no room.",
        _C,
        None,
        _fleet_messages,
    ),
    Family(
        "sidecar.fleet.dissenting",
        "{breaker}",
        "1 while the circuit breaker stays closed by its own evidence, although the fleet's is open.",
        _U,
        None,
        _fleet_dissents,
    ),
    Family(
        "sidecar.cancellations", _REQ, "Requests given up before their end, by cause.", _C, _cancellations
    ),
    Family(
        "sidecar.callers.calls",
        "{call}",
        "Calls of the app while requests to it were under way, by whether they could be tied to one of them.",
        _C,
        None,
        _ties,
    ),
    Family(
        "sidecar.callers.evicted", "{entry}", "Live callers pushed out of the full table.", _C, None, _evicted
    ),
    Family(
        "sidecar.callers.across",
        "{event}",
        "Live callers between workers, by event: told to another of one cut short, not told as its queue was full, "
        "no room to share one, a record that stayed half written.",
        _C,
        None,
        _across,
    ),
    Family(
        "sidecar.balance.exact",
        "{event}",
        "Connections of listeners with `balance: exact`, by event: handed over to a worker, or waited since no "
        "worker's queue took one.",
        _C,
        None,
        _balanced,
    ),
    Family(
        "sidecar.pass_through.destinations",
        "{destination}",
        "Hosts and ports that no route names and that are known now.",
        _U,
        None,
        _passed_destinations,
    ),
    Family(
        "sidecar.pass_through.requests",
        _REQ,
        "Requests and connections that no route names and that were passed through.",
        _C,
        None,
        _passed,
    ),
    Family(
        "sidecar.pass_through.closed",
        _REQ,
        "The same, refused for their address or port.",
        _C,
        None,
        _passed_closed,
    ),
    Family(
        "sidecar.pass_through.evicted",
        "{destination}",
        "Destinations that left the full table.",
        _C,
        None,
        _passed_evicted,
    ),
    Family(
        "sidecar.listener.refused",
        "{connection}",
        "Connections closed because a listener had too many.",
        _C,
        None,
        _refused,
    ),
    Family(
        "sidecar.listener.waits",
        "{wait}",
        "Pauses in accepting connections, for want of open files or of memory.",
        _C,
        None,
        _waits,
    ),
    Family("sidecar.memory.used", "By", "Memory that all connections hold.", _U, None, _memory_used),
    Family("sidecar.memory.limit", "By", "Memory that all connections may hold.", _G, None, _memory_limit),
    Family(
        "sidecar.memory.closed",
        "{connection}",
        "Connections closed to give memory back, by what they held.",
        _C,
        None,
        _memory_closed,
    ),
    Family(
        "sidecar.memory.refused",
        _REQ,
        "Requests refused for want of memory.",
        _C,
        None,
        _memory_refused,
    ),
    Family(
        "sidecar.loop.lag",
        _S,
        "How late the event loop was, forty times a second while there are connections.",
        _H,
        None,
        _lag,
    ),
    Family(
        "sidecar.loop.throttled",
        "{turn}",
        "Turns of the event loop in which the kernel stopped the process for its CPU limit.",
        _C,
        None,
        _throttled,
    ),
    Family(
        "sidecar.loop.ends_put_off",
        "{end}",
        "Requests and connections whose end waited for a later turn of the event loop, as many ended together.",
        _C,
        None,
        _ends_put_off,
    ),
    Family(
        "sidecar.overload.active",
        "{listener}",
        "1 while new requests of the listener wait for their turn.",
        _U,
        None,
        _overloaded,
    ),
    Family(
        "sidecar.overload.turned_away",
        _REQ,
        "Requests that were refused in an overload, and clients that left before their turn.",
        _C,
        None,
        _turned_away,
    ),
    Family(
        "sidecar.tls.handshakes",
        "{handshake}",
        "TLS handshakes with clients, by how they ended.",
        _C,
        None,
        _handshakes,
    ),
    Family(
        "sidecar.tls.certificate.expiry",
        _S,
        "Time until a certificate in use expires; negative afterwards.",
        _G,
        None,
        _expiry,
    ),
    Family(
        "sidecar.tls.certificate.changes",
        "{change}",
        "Changed certificates that were found in files, by whether they could be used.",
        _C,
        None,
        _certificate_changes,
    ),
    Family(
        "sidecar.config.reloads", "{reload}", "Reloads of the configuration, by result.", _C, None, _reloads
    ),
    Family(
        "sidecar.config.generation", "{generation}", "Number of the snapshot in use.", _G, None, _generation
    ),
    Family(
        "sidecar.config.last_reload_success",
        "{success}",
        "1 if the last reload succeeded, 0 if it failed.",
        _G,
        None,
        _last_reload,
    ),
    Family("sidecar.config.age", _S, "Time since the active configuration was put in place.", _G, None, _age),
    Family(
        "sidecar.telemetry.overflowed",
        "{measurement}",
        "Measurements that share a series, since the limits had no room for one of their own.",
        _C,
        _overflowed,
    ),
    Family(
        "sidecar.telemetry.dropped",
        "{item}",
        "Telemetry that was lost, by signal and reason.",
        _C,
        None,
        _dropped,
    ),
)

_OWN: Final = "sidecar."
"""So begins what nobody else names."""


@lru_cache(maxsize=1)
def named(prefix: str | None) -> tuple[Family, ...]:
    """The catalogue with `prefix` and a dot before the names of the semantic conventions, which an instrumented app
    reports under the same service; None: as it stands."""
    if prefix is None:
        return FAMILIES
    return tuple(
        one if one.name.startswith(_OWN) else replace(one, name=f"{prefix}.{one.name}") for one in FAMILIES
    )
