"""Connections, endpoints and limits of upstreams, and where calls went that no route names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sidecar.core.families.family import Family, HistogramRow, MetricKind, Point
from sidecar.core.snapshot import DURATION_BOUNDS
from sidecar.core.sources import AdaptiveNumbers, Sources


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


def _passed_destinations(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.destinations


def _passed(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.passed


def _passed_closed(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.closed


def _passed_evicted(sources: Sources) -> Iterator[Point]:
    yield (), sources.passed.evicted


UPSTREAMS: Final[tuple[Family, ...]] = (
    Family(
        "sidecar.upstream.connections",
        "{connection}",
        "Connections to an upstream.",
        MetricKind.UP_DOWN,
        None,
        _connections,
    ),
    Family(
        "sidecar.upstream.pending",
        "{request}",
        "Requests that wait for a connection.",
        MetricKind.UP_DOWN,
        None,
        _pending,
    ),
    Family(
        "sidecar.upstream.wait",
        "s",
        "How long attempts that found no idle connection waited until they had one, or gave up.",
        MetricKind.HISTOGRAM,
        None,
        _connection_waits,
    ),
    Family(
        "sidecar.upstream.in_process",
        "{connection}",
        "Connections to endpoints that are this very pod, made within the process to its inbound listener.",
        MetricKind.COUNTER,
        None,
        _in_process,
    ),
    Family(
        "sidecar.adaptive.limit",
        "{request}",
        "Requests in flight that the adaptive limit of an upstream allows.",
        MetricKind.UP_DOWN,
        None,
        _adaptive(lambda one: one.limit),
    ),
    Family(
        "sidecar.adaptive.base",
        "s",
        "How long an upstream's usual head takes without a line, as its adaptive limit knows; 0 before.",
        MetricKind.GAUGE,
        None,
        _adaptive(lambda one: one.base_seconds),
    ),
    Family(
        "sidecar.adaptive.in_flight",
        "{request}",
        "Requests in flight at an upstream that has an adaptive limit, but for streams whose heads have come.",
        MetricKind.UP_DOWN,
        None,
        _adaptive(lambda one: one.in_flight),
    ),
    Family(
        "sidecar.adaptive.requests",
        "{request}",
        "Requests above the adaptive limit of their upstream: refused, or spared by `observe`.",
        MetricKind.COUNTER,
        None,
        _adaptive_requests,
    ),
    Family(
        "sidecar.adaptive.changes",
        "{change}",
        "Changes of an upstream's adaptive limit, by reason.",
        MetricKind.COUNTER,
        None,
        _adaptive_changes,
    ),
    Family(
        "sidecar.ejection.endpoints",
        "{endpoint}",
        "Endpoints of an upstream, by what is thought of them.",
        MetricKind.UP_DOWN,
        None,
        _endpoints,
    ),
    Family(
        "sidecar.ejection.ejections",
        "{ejection}",
        "Endpoints left out, by reason.",
        MetricKind.COUNTER,
        None,
        _ejections,
    ),
    Family(
        "sidecar.health.endpoints",
        "{endpoint}",
        "Endpoints of an upstream, by what health checks have shown of them.",
        MetricKind.UP_DOWN,
        None,
        _checked,
    ),
    Family(
        "sidecar.health.checks",
        "{check}",
        "Health checks that have ended, by result.",
        MetricKind.COUNTER,
        None,
        _checks,
    ),
    Family(
        "sidecar.health.delayed",
        "{check}",
        "Health checks that waited, since too many others were under way.",
        MetricKind.COUNTER,
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
    Family(
        "sidecar.failover.requests",
        "{request}",
        "Requests that another upstream took over.",
        MetricKind.COUNTER,
        None,
        _moved,
    ),
    Family(
        "sidecar.pass_through.destinations",
        "{destination}",
        "Hosts and ports that no route names and that are known now.",
        MetricKind.UP_DOWN,
        None,
        _passed_destinations,
    ),
    Family(
        "sidecar.pass_through.requests",
        "{request}",
        "Requests and connections that no route names and that were passed through.",
        MetricKind.COUNTER,
        None,
        _passed,
    ),
    Family(
        "sidecar.pass_through.closed",
        "{request}",
        "The same, refused for their address or port.",
        MetricKind.COUNTER,
        None,
        _passed_closed,
    ),
    Family(
        "sidecar.pass_through.evicted",
        "{destination}",
        "Destinations that left the full table.",
        MetricKind.COUNTER,
        None,
        _passed_evicted,
    ),
)
