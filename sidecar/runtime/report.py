"""How reloads, overloads, failovers and links are told: to the log, line by line, and to telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from sidecar.config.tell.diff import Diff, Item
from sidecar.core.failover import FailoverChange, FailoverPhase
from sidecar.core.overload import Change
from sidecar.downstream.pressure import Told
from sidecar.runtime.fleet.failed import Lack
from sidecar.runtime.reload import Outcome
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.room import TelemetryRoom

if TYPE_CHECKING:
    from sidecar.runtime.fleet.link import LinkNumbers

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


def report_failover(change: FailoverChange) -> tuple[Level, str, str, dict[str, object]]:
    """Level, kind, message and fields of the log line for an upstream from which others take over, or no longer."""
    fields: dict[str, object] = {
        "route": change.route,
        "upstream": change.upstream,
        "to": list(change.to),
        "usable": change.supply.usable,
        "endpoints": change.supply.total,
    }
    if change.phase is FailoverPhase.AWAY:
        return Level.WARNING, "failover.began", change.told, fields
    return Level.INFO, "failover.ended", change.told, fields


def report_overload(told: Told) -> tuple[Level, str, str, dict[str, object]]:
    """Level, kind, message and fields of the log line for a listener whose overload has begun or ended."""
    fields: dict[str, object] = {
        "listener": told.listener,
        "least_turn_ms": round(told.least_turn_seconds * 1e3, 1),
        "in_flight": told.in_flight,
    }
    if told.change is Change.BEGAN:
        why = (
            "limits.max_requests are under way"
            if told.is_full
            else f"no turn of the loop took less than {told.least_turn_seconds * 1e3:.0f} ms"
        )
        message = f"listener {told.listener} is overloaded: {why}; new requests wait for their turn"
        return Level.WARNING, "overload.began", message, fields
    fields |= {
        "seconds": round(told.seconds, 3),
        "taken": told.let_in,
        "refused": told.refused,
        "left": told.gone,
    }
    message = f"listener {told.listener} keeps up again after {told.seconds:.1f} s"
    if told.throttled_turns:
        fields["throttled_turns"] = told.throttled_turns
        message += f"; the kernel throttled this process {told.throttled_turns} times (its CPU limit)"
    return Level.INFO, "overload.ended", message, fields


def report_fleet(name: str, numbers: LinkNumbers) -> tuple[Level, str, str, dict[str, object]]:
    """Level, kind, message and fields of the log line for a replica that is alone, or no longer."""
    fields: dict[str, object] = {"fleet": name, "replicas": numbers.replicas}
    if numbers.is_linked:
        others = numbers.replicas - 1
        message = f"acts as one with {others} other replica{'s' * (others != 1)} of the fleet {name}"
        return Level.INFO, "fleet.joined", message, fields
    fields |= {"reason": numbers.lack.value}
    is_meant = numbers.lack in (Lack.ENDED, Lack.STARTING)
    message = f"alone{f', without its fleet {name}' if name else ''}: {numbers.told}"
    return Level.INFO if is_meant else Level.WARNING, "fleet.alone", message, fields
