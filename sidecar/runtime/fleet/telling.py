"""What people are told of a fleet, as plain data for `/status` and `/breakers`. Pure."""

from __future__ import annotations

from typing import Any

from sidecar.core.fleet.status import FleetStatus, SharedStatus
from sidecar.runtime.fleet.link import LinkNumbers

Data = dict[str, Any]


def of_process(name: str, status: FleetStatus, link: LinkNumbers, dropped: int, now: float) -> Data:
    """One replica and its link."""
    counts = status.counts
    return {
        "name": name,
        "replica": status.replica,
        "is_alone": not link.is_linked,
        "reason": None if link.is_linked else link.lack.value,
        "told": "" if link.is_linked else link.told,
        "since_seconds": round(now - link.since, 3),
        "replicas": link.replicas,
        "versions": max((one.versions for one in status.breakers), default=1),
        "shared": len(status.breakers),
        "unshared": counts.unshared,
        "dissenting": sum(one.is_dissenting for one in status.breakers),
        "writes": link.written,
        "reads": link.read,
        "sent": counts.sent,
        "received": counts.received,
        "refused": counts.refused,
        "unheard": counts.unheard,
        "dropped": dropped,
        "failures": {lack.value: count for lack, count in link.failures.items()},
    }


def of_breaker(shared: SharedStatus, *, is_alone: bool) -> Data:
    """One breaker that acts as one with those of others."""
    return {
        "told": told(shared, is_alone=is_alone),
        "is_alone": is_alone,
        "key": shared.key,
        "sequence": shared.sequence,
        "state": shared.state.value,
        "decider": shared.decider or None,
        "failing": shared.failing,
        "replicas": shared.callers,
        "is_dissenting": shared.is_dissenting,
        "dissenting": shared.dissenting,
        "permits": shared.permits,
        "versions": shared.versions,
    }


def told(shared: SharedStatus, *, is_alone: bool) -> str:
    """In words: `3 of 50 replicas see it failing, this one dissents, 2 versions`; empty where there is nothing to
    say."""
    parts = []
    if is_alone:
        parts.append("alone")
    elif shared.failing:
        verb = "sees" if shared.callers == 1 else "see"
        parts.append(f"{shared.failing} of {shared.callers} replicas {verb} it failing")
    if shared.is_dissenting:
        parts.append(f"this one dissents from {shared.state.value.replace('_', ' ')}")
    elif shared.dissenting:
        parts.append(f"{shared.dissenting} dissent{'s' if shared.dissenting == 1 else ''}")
    if shared.versions > 1:
        parts.append(f"{shared.versions} versions")
    return ", ".join(parts)
