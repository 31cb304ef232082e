"""A worker's part of what is for all: the limits of a snapshot, divided. The parts add up to the whole. Each is at
least 1, but of a limit that is 0."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from sidecar.core.place import WorkerPlace
from sidecar.core.snapshot import Listener, Route, Snapshot, Upstream
from sidecar.runtime.container import Container
from sidecar.runtime.memory_watch import budget_bytes


def divided(snapshot: Snapshot, place: WorkerPlace, container: Container | None) -> Snapshot:
    """The snapshot as one worker serves it; `container` has a limit of memory for all."""
    if place.is_alone:
        return snapshot
    limits = replace(
        snapshot.limits,
        max_requests=place.share(snapshot.limits.max_requests),
        memory_bytes=place.share(budget_bytes(snapshot.limits, container)),
    )
    return replace(
        snapshot,
        limits=limits,
        listeners=MappingProxyType({name: _listener(one, place) for name, one in snapshot.listeners.items()}),
        upstreams=MappingProxyType({name: _upstream(one, place) for name, one in snapshot.upstreams.items()}),
        routes=tuple(_route(one, place) for one in snapshot.routes),
        passed=MappingProxyType({name: _route(one, place) for name, one in snapshot.passed.items()}),
    )


def _listener(one: Listener, place: WorkerPlace) -> Listener:
    return replace(one, limits=replace(one.limits, connections=place.share(one.limits.connections)))


def _upstream(one: Upstream, place: WorkerPlace) -> Upstream:
    whole = one.limits
    limits = replace(
        whole,
        max_connections=place.share(whole.max_connections),
        max_pending=place.share(whole.max_pending) if whole.max_pending else 0,
        max_requests=place.share(whole.max_requests),
    )
    return replace(one, limits=limits)


def _route(one: Route, place: WorkerPlace) -> Route:
    """`min_per_second` is a rate, so its parts need not be whole."""
    retry = replace(one.retry, min_per_second=one.retry.min_per_second / place.count)
    mirror = one.mirror
    if mirror is not None:
        mirror = replace(mirror, most_in_flight=place.share(mirror.most_in_flight))
    return replace(one, retry=retry, mirror=mirror)
