"""Which breakers a request of the admin API is about."""

from __future__ import annotations

from sidecar.admin import views
from sidecar.admin.answers import Refused
from sidecar.admin.process import Process
from sidecar.admin.request_facts import nearest
from sidecar.core.breaker import Breaker
from sidecar.core.snapshot import Route


def find_route(process: Process, name: str) -> Route:
    """Raises: Refused, with 404 and the nearest name."""
    routes = process.snapshot.routes
    for route in routes:
        if route.name == name:
            return route
    raise Refused(404, f"there is no route {name[:100]!r}{nearest(name, (one.name for one in routes))}")


def breakers_of(process: Process, route: Route) -> list[Breaker]:
    """All of a route: its own, its fallback's, and those of upstreams that take over."""
    names, breakers = route.asked_upstreams(process.snapshot.upstreams), process.breakers
    return [breakers[route.name, name] for name in names if (route.name, name) in breakers]


def moment_of(process: Process) -> views.Moment:
    """Now, on both clocks."""
    now = process.now()
    return views.Moment(now, process.wall_time() - now)
