"""How a reload is told: to the log, line by line, and to telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sidecar.config.tell.diff import Diff, Item
from sidecar.runtime.reload import Outcome
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.room import TelemetryRoom

MAX_LINES = 50
"""Of one reload; the rest is a number. `sidecar diff` and the admin API show all."""


def report_reload(outcome: Outcome, telemetry: TelemetryRoom) -> None:
    """Tell telemetry, and write the diff to the log."""
    telemetry.reloaded(outcome.report)
    at = outcome.report.at
    fields = {"generation": outcome.report.generation}
    for line in islice(_lines(outcome.diff), MAX_LINES):
        telemetry.log.event(Level.INFO, "config.diff", line, fields, at)
    left = outcome.diff.size - MAX_LINES
    if left > 0:
        telemetry.log.event(Level.INFO, "config.diff", f"and {left} more changes", fields, at)
    for key in outcome.pending_restart:
        telemetry.log.event(Level.WARNING, "config.pending_restart", f"at the next start: {key}", {}, at)


def _lines(diff: Diff) -> Iterator[str]:
    for kind, items in (("route", diff.routes), ("upstream", diff.upstreams), ("listener", diff.listeners)):
        for item in items:
            yield f"{kind} {item.name} {_told(item)}"
    for change in diff.process:
        yield str(change)


def _told(item: Item) -> str:
    parts = [item.kind.value, *map(str, item.changes), *map(str, item.breakers)]
    return parts[0] if len(parts) == 1 else f"{parts[0]}: {'; '.join(parts[1:])}"
