"""Which breakers of a process act as one with those of others, from one configuration to the next."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.breaker import Breaker
from sidecar.core.fleet.fleet import Fleet
from sidecar.core.fleet.keys import breaker_key
from sidecar.core.snapshot import Snapshot

Place = tuple[str, str]
"""Route and upstream."""


class Joined:
    """Those of one `Fleet`. Owned by the event loop."""

    __slots__ = ("_fleet", "by_place")

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.by_place: dict[Place, tuple[str, Breaker]] = {}
        """Their keys, and the breakers. Written here alone."""

    def adopt(self, snapshot: Snapshot, breakers: Mapping[Place, Breaker], now: float) -> None:
        """Let these join, and those leave that are no longer there or have another key. Breakers of destinations that
        the snapshot does not name act for themselves."""
        wanted = _keys(snapshot, breakers)
        for place, (key, breaker) in list(self.by_place.items()):
            if wanted.get(place) != key or breakers[place] is not breaker:
                self._fleet.leave(key, now)
                del self.by_place[place]
        for place, key in wanted.items():
            if place not in self.by_place and self._fleet.join(key, breakers[place], now):
                self.by_place[place] = key, breakers[place]


def _keys(snapshot: Snapshot, breakers: Mapping[Place, Breaker]) -> dict[Place, str]:
    routes = {route.name: route for route in snapshot.routes}
    return {
        (route, upstream): breaker_key(
            route, upstream, routes[route].matches, snapshot.upstreams[upstream].endpoints, breaker.policy
        )
        for (route, upstream), breaker in breakers.items()
        if route in routes and upstream in snapshot.upstreams
    }
