"""Turns changes of breakers, outages and reloads into spans. Runs in the exporting thread."""

from __future__ import annotations

import os
from binascii import unhexlify
from collections.abc import Iterator

from sidecar.core.breaker.words import because
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import Cause, Transition
from sidecar.telemetry import wire
from sidecar.telemetry.spans import Outage, TransitionIds

_MAX_CAUSES = 32
_PARENT_HERE = wire.flags(is_remote=False)


class EventShaper:
    """Makes encoded spans, each ready to be one field of `ScopeSpans`."""

    def __init__(self, ids: TransitionIds) -> None:
        self._ids = ids

    def span(self, record: Transition | Outage | ReloadReport, offset_ns: int) -> bytes:
        """`offset_ns` is added to a monotonic time to get nanoseconds since the epoch."""
        if isinstance(record, Transition):
            return self._transition(record, offset_ns)
        if isinstance(record, ReloadReport):
            return _reload(record, offset_ns)
        return self._outage(record, offset_ns)

    def _transition(self, transition: Transition, offset_ns: int) -> bytes:
        at = ns(transition.at, offset_ns)
        window = transition.window
        name = wire.name_and_kind("circuit_breaker.transition", wire.INTERNAL)
        parts = [_PARENT_HERE, name, *of_breaker(transition)]
        parts.append(wire.number("sidecar.circuit_breaker.sequence", transition.sequence))
        parts.append(wire.number("sidecar.circuit_breaker.window.total", window.total))
        parts.append(wire.number("sidecar.circuit_breaker.window.failed", window.failed))
        parts.append(wire.number("sidecar.circuit_breaker.window.slow", window.slow))
        if transition.wait_seconds is not None:
            parts.append(
                wire.number("sidecar.circuit_breaker.wait_ms", round(transition.wait_seconds * 1000))
            )
        for cause in transition.causes[-_MAX_CAUSES:]:
            told = tuple(_cause(cause))
            parts.append(wire.link(unhexlify(cause.trace_id), unhexlify(cause.span_id), told))
            parts.append(wire.event("circuit_breaker.cause", at, told))  # Jaeger shows no attributes of links
        trace_id, span_id = self._ids.of(transition)
        return wire.span(trace_id, span_id, b"", at, at, parts)

    def _outage(self, outage: Outage, offset_ns: int) -> bytes:
        """The bar from OPEN to CLOSED, a child of the transition that opened the breaker."""
        opened, closed, end = outage
        parts = [
            _PARENT_HERE,
            wire.name_and_kind("circuit_breaker.open", wire.INTERNAL),
            wire.text("sidecar.circuit_breaker.name", opened.breaker.encode()),
            wire.text("sidecar.route", opened.route.encode()),
            wire.text("sidecar.upstream", opened.upstream.encode()),
            wire.text("sidecar.circuit_breaker.reason", opened.reason.value.encode()),
            wire.flag("sidecar.circuit_breaker.is_ongoing", value=closed is None),
            *_why(opened),
        ]
        if closed is not None:
            parts.append(wire.link(*self._ids.of(closed)))
        trace_id, parent_id = self._ids.of(opened)
        _, span_id = self._ids.of(opened, "open")
        times = ns(opened.at, offset_ns), ns(end, offset_ns)
        return wire.span(trace_id, span_id, parent_id, *times, parts)


def of_breaker(transition: Transition) -> tuple[bytes, ...]:
    """Attributes of a change, for its span and for the exchange that brought it about."""
    return (
        wire.text("sidecar.circuit_breaker.name", transition.breaker.encode()),
        wire.text("sidecar.circuit_breaker.state.from", transition.from_state.value.encode()),
        wire.text("sidecar.circuit_breaker.state.to", transition.to_state.value.encode()),
        wire.text("sidecar.circuit_breaker.reason", transition.reason.value.encode()),
        wire.text("sidecar.route", transition.route.encode()),
        wire.text("sidecar.upstream", transition.upstream.encode()),
        *_why(transition),
    )


def of_endpoint(change: EndpointChange, offset_ns: int) -> bytes:
    """The event of an attempt that has made its endpoint be left out, or nearly so."""
    told = [
        wire.text("sidecar.endpoint", change.endpoint.encode()),
        wire.text("sidecar.ejection.why", change.why.encode("utf-8", "replace")),
        wire.number("sidecar.ejection.seconds", round(change.seconds)),
    ]
    if change.reason is not None:
        told.append(wire.text("sidecar.ejection.reason", change.reason.value.encode()))
    return wire.event(f"endpoint.{change.health.value}", ns(change.at, offset_ns), tuple(told))


def _why(transition: Transition) -> Iterator[bytes]:
    if words := because(transition):
        yield wire.text("sidecar.circuit_breaker.why", words.encode())
    if transition.order is not None:
        yield wire.text("sidecar.circuit_breaker.override.by", transition.order.by.encode())


def _cause(cause: Cause) -> Iterator[bytes]:
    yield wire.text("sidecar.request_id", cause.request_id)
    if cause.error_type:
        yield wire.text("error.type", cause.error_type.encode())
    if cause.status:
        yield wire.number("http.response.status_code", cause.status)
    if cause.endpoint:
        yield wire.text("sidecar.endpoint", cause.endpoint.encode())
    if cause.detail:
        yield wire.text("sidecar.detail", cause.detail.encode("utf-8", "replace"))


def ns(seconds: float, offset_ns: int) -> int:
    """A monotonic time as nanoseconds since the epoch."""
    return int(seconds * 1e9) + offset_ns


def _reload(report: ReloadReport, offset_ns: int) -> bytes:
    result = b"success" if report.is_success else b"failure"
    parts = [
        _PARENT_HERE,
        wire.name_and_kind("config.reload", wire.INTERNAL),
        wire.text("sidecar.config.result", result),
        wire.number("sidecar.config.generation", report.generation),
        wire.number("sidecar.config.routes.added", report.routes_added),
        wire.number("sidecar.config.routes.removed", report.routes_removed),
        wire.number("sidecar.config.routes.changed", report.routes_changed),
        wire.number("sidecar.config.breakers.kept", report.breakers_kept),
        wire.number("sidecar.config.breakers.reset", report.breakers_reset),
    ]
    if not report.is_success:
        parts.append(wire.text("error.type", b"invalid_configuration"))
        parts.append(wire.status(wire.ERROR, "; ".join(report.problems)[:1024].encode()))
    times = ns(report.at - report.seconds, offset_ns), ns(report.at, offset_ns)
    return wire.span(os.urandom(16), os.urandom(8), b"", *times, parts)
