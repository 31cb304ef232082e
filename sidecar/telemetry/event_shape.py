"""Turns changes of breakers and reloads into spans. Runs in the exporting thread."""

from __future__ import annotations

import os

from sidecar.core.sources import ReloadReport
from sidecar.core.transition import Transition
from sidecar.telemetry import wire
from sidecar.telemetry.attributes import cause_event, cause_link, ns, of_breaker, of_window
from sidecar.telemetry.outages import MAX_CAUSES, Outages, is_by_hand
from sidecar.telemetry.spans import Ending, TransitionIds

_PARENT_HERE = wire.flags(is_remote=False)


class EventShaper:
    """Makes encoded spans, each ready to be one field of `ScopeSpans`."""

    def __init__(self, ids: TransitionIds) -> None:
        self._ids = ids
        self._outages = Outages(ids)

    def spans(self, record: Transition | Ending | ReloadReport, offset_ns: int) -> list[bytes]:
        """`offset_ns` is added to a monotonic time to get nanoseconds since the epoch."""
        if isinstance(record, ReloadReport):
            return [_reload(record, offset_ns)]
        if isinstance(record, Ending):
            return self._outages.end_all(record.at, record.rejected, offset_ns)
        spans = self._outages.told(record, offset_ns)
        if record.outage is None or is_by_hand(record):
            spans.append(self._transition(record, offset_ns))
        return spans

    def _transition(self, transition: Transition, offset_ns: int) -> bytes:
        """What an operator or a configuration has done."""
        at = ns(transition.at, offset_ns)
        name = wire.name_and_kind("circuit_breaker.transition", wire.INTERNAL)
        parts = [_PARENT_HERE, name, *of_breaker(transition), *of_window(transition)]
        for cause in transition.causes[-MAX_CAUSES:]:
            parts += (cause_link(cause), cause_event(cause, cause.at or transition.at, offset_ns))
        if transition.outage is not None:
            parts.append(wire.link(*self._ids.cause_of(transition), is_sampled=True))
        trace_id, span_id = self._ids.of(transition)
        return wire.span(trace_id, span_id, b"", at, at, parts)


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
