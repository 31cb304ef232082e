"""How this process is: its listeners, memory, loop, certificates, configuration and telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.core.families.family import Family, HistogramRow, MetricKind, Places, Point, route_attributes
from sidecar.core.numbers import LAG_BOUNDS, RouteNumbers
from sidecar.core.sources import Sources


def _reloads(sources: Sources) -> Iterator[Point]:
    yield (("sidecar.config.result", "success"),), sources.config.reloads_succeeded
    yield (("sidecar.config.result", "failure"),), sources.config.reloads_failed


def _generation(sources: Sources) -> Iterator[Point]:
    yield (), sources.config.generation


def _last_reload(sources: Sources) -> Iterator[Point]:
    yield (), int(sources.config.is_last_reload_successful)


def _age(sources: Sources) -> Iterator[Point]:
    yield (), sources.config.age_seconds


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


def _without_file(sources: Sources) -> Iterator[Point]:
    for one in sources.overloads:
        yield (("sidecar.listener", one.listener),), one.turned_away


def _overflowed(route: RouteNumbers, _: Places) -> Iterator[Point]:
    yield route_attributes(route), route.overflowed


def _dropped(sources: Sources) -> Iterator[Point]:
    for (signal, reason), count in sources.dropped.items():
        yield (("sidecar.telemetry.signal", signal), ("sidecar.telemetry.reason", reason)), count


PROCESS: Final[tuple[Family, ...]] = (
    Family(
        "sidecar.listener.refused",
        "{connection}",
        "Connections refused because a listener had too many.",
        MetricKind.COUNTER,
        None,
        _refused,
    ),
    Family(
        "sidecar.listener.waits",
        "{wait}",
        "Pauses in accepting connections, for want of open files or of memory.",
        MetricKind.COUNTER,
        None,
        _waits,
    ),
    Family(
        "sidecar.listener.turned_away",
        "{connection}",
        "Clients answered 503 because no file was left to open for them.",
        MetricKind.COUNTER,
        None,
        _without_file,
    ),
    Family(
        "sidecar.memory.used",
        "By",
        "Memory that all connections hold.",
        MetricKind.UP_DOWN,
        None,
        _memory_used,
    ),
    Family(
        "sidecar.memory.limit",
        "By",
        "Memory that all connections may hold.",
        MetricKind.GAUGE,
        None,
        _memory_limit,
    ),
    Family(
        "sidecar.memory.closed",
        "{connection}",
        "Connections closed to give memory back, by what they held.",
        MetricKind.COUNTER,
        None,
        _memory_closed,
    ),
    Family(
        "sidecar.memory.refused",
        "{request}",
        "Requests refused for want of memory.",
        MetricKind.COUNTER,
        None,
        _memory_refused,
    ),
    Family(
        "sidecar.loop.lag",
        "s",
        "How late the event loop was, forty times a second while there are connections.",
        MetricKind.HISTOGRAM,
        None,
        _lag,
    ),
    Family(
        "sidecar.loop.throttled",
        "{turn}",
        "Turns of the event loop in which the kernel stopped the process for its CPU limit.",
        MetricKind.COUNTER,
        None,
        _throttled,
    ),
    Family(
        "sidecar.loop.ends_put_off",
        "{end}",
        "Requests and connections whose end waited for a later turn of the event loop, as many ended together.",
        MetricKind.COUNTER,
        None,
        _ends_put_off,
    ),
    Family(
        "sidecar.overload.active",
        "{listener}",
        "1 while new requests of the listener wait for their turn.",
        MetricKind.UP_DOWN,
        None,
        _overloaded,
    ),
    Family(
        "sidecar.overload.turned_away",
        "{request}",
        "Requests that were refused in an overload, and clients that left before their turn.",
        MetricKind.COUNTER,
        None,
        _turned_away,
    ),
    Family(
        "sidecar.tls.handshakes",
        "{handshake}",
        "TLS handshakes with clients, by how they ended.",
        MetricKind.COUNTER,
        None,
        _handshakes,
    ),
    Family(
        "sidecar.tls.certificate.expiry",
        "s",
        "Time until a certificate in use expires; negative afterwards.",
        MetricKind.GAUGE,
        None,
        _expiry,
    ),
    Family(
        "sidecar.tls.certificate.changes",
        "{change}",
        "Changed certificates that were found in files, by whether they could be used.",
        MetricKind.COUNTER,
        None,
        _certificate_changes,
    ),
    Family(
        "sidecar.config.reloads",
        "{reload}",
        "Reloads of the configuration, by result.",
        MetricKind.COUNTER,
        None,
        _reloads,
    ),
    Family(
        "sidecar.config.generation",
        "{generation}",
        "Number of the snapshot in use.",
        MetricKind.GAUGE,
        None,
        _generation,
    ),
    Family(
        "sidecar.config.last_reload_success",
        "{success}",
        "1 if the last reload succeeded, 0 if it failed.",
        MetricKind.GAUGE,
        None,
        _last_reload,
    ),
    Family(
        "sidecar.config.age",
        "s",
        "Time since the active configuration was put in place.",
        MetricKind.GAUGE,
        None,
        _age,
    ),
    Family(
        "sidecar.telemetry.overflowed",
        "{measurement}",
        "Measurements that share a series, since the limits had no room for one of their own.",
        MetricKind.COUNTER,
        _overflowed,
    ),
    Family(
        "sidecar.telemetry.dropped",
        "{item}",
        "Telemetry that was lost, by signal and reason.",
        MetricKind.COUNTER,
        None,
        _dropped,
    ),
)
