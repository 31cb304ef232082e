"""What processes do together: the fleet's breakers, trees of calls and connections across workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.core.families.family import Family, MetricKind, Point, breaker_attributes
from sidecar.core.sources import Sources


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
            yield breaker_attributes(route, upstream), int(is_dissenting)


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


SHARING: Final[tuple[Family, ...]] = (
    Family(
        "sidecar.fleet.alone",
        "{replica}",
        "1 while this replica does not hear the others of its fleet, 0 while it does.",
        MetricKind.UP_DOWN,
        None,
        _fleet_alone,
    ),
    Family(
        "sidecar.fleet.replicas",
        "{replica}",
        "Replicas of the fleet, as far as this one knows.",
        MetricKind.UP_DOWN,
        None,
        _fleet_replicas,
    ),
    Family(
        "sidecar.fleet.failures",
        "{failure}",
        "Links with the fleet that ended, and tries that failed, by reason.",
        MetricKind.COUNTER,
        None,
        _fleet_failures,
    ),
    Family(
        "sidecar.fleet.messages",
        "{message}",
        "Times that something was told to the fleet, heard of it, or found no room.",
        MetricKind.COUNTER,
        None,
        _fleet_messages,
    ),
    Family(
        "sidecar.fleet.dissenting",
        "{breaker}",
        "1 while the circuit breaker stays closed by its own evidence, although the fleet's is open.",
        MetricKind.UP_DOWN,
        None,
        _fleet_dissents,
    ),
    Family(
        "sidecar.callers.calls",
        "{call}",
        "Calls of the app while requests to it were under way, by whether they could be tied to one of them.",
        MetricKind.COUNTER,
        None,
        _ties,
    ),
    Family(
        "sidecar.callers.evicted",
        "{entry}",
        "Live callers pushed out of the full table.",
        MetricKind.COUNTER,
        None,
        _evicted,
    ),
    Family(
        "sidecar.callers.across",
        "{event}",
        "Live callers between workers, by event: told to another of one cut short, not told as its queue was full, "
        "no room to share one, a record that stayed half written.",
        MetricKind.COUNTER,
        None,
        _across,
    ),
    Family(
        "sidecar.balance.exact",
        "{event}",
        "Connections of listeners with `balance: exact`, by event: handed over to a worker, or waited since no "
        "worker's queue took one.",
        MetricKind.COUNTER,
        None,
        _balanced,
    ),
)
