"""What one process has of its fleet: the breakers that have joined, the pure half, and the link.

Made when a configuration names a `share.redis` (`membership.py`), which starts its two parts, and in each of several
workers. A reload lets breakers join and leave, and may move the link.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sidecar.core.breaker import Breaker
from sidecar.core.fleet.encoding import MAX_ID
from sidecar.core.fleet.fleet import Fleet
from sidecar.core.override import Override
from sidecar.core.snapshot import Scope, Snapshot, WindowType
from sidecar.core.sources import FleetNumbers
from sidecar.core.transition import Transition
from sidecar.runtime.actor import Part, Parts
from sidecar.runtime.fleet.acting import LEAST_WINDOW_SECONDS, Acting
from sidecar.runtime.fleet.joined import Joined
from sidecar.runtime.fleet.link import FleetLink, LinkNumbers, LinkPlace
from sidecar.runtime.fleet.telling import Data, of_breaker, of_process

MEET_SECONDS: Final = 0.5
"""How long a process waits for the states that its peers have before it is ready."""


class FleetSide:
    """Owned by the event loop."""

    def __init__(
        self,
        parts: Parts,
        clock: Callable[[], float],
        resource: Mapping[str, str],
        tell: Callable[[Transition], None],
        tell_link: Callable[[LinkNumbers], None],
        replica: str | None = None,
    ) -> None:
        """`resource`: who this process is, as telemetry says it. `tell` hears of what others did to breakers,
        `tell_link` when this replica is alone or no longer. `replica`: what all processes of the pod are called;
        None: as the resource says, and there is no other process."""
        self._parts = parts
        self._clock = clock
        self._namespace = resource.get("k8s.namespace.name", "")
        self._service = resource["service.name"]
        named = replica or resource.get("k8s.pod.uid") or resource["service.instance.id"]
        self._replica = named[:MAX_ID]
        self.fleet = Fleet(uuid.uuid4().hex, self._replica, has_siblings=replica is not None)
        self.acting = Acting(self.fleet, clock, tell, lambda: self.link.write_soon())
        self.link = FleetLink(self.acting, clock, tell_link)
        self._joined = Joined(self.fleet)

    @property
    def is_on(self) -> bool:
        """The configuration names a fleet."""
        return self.link.place is not None

    @property
    def name(self) -> str:
        """Of the fleet; empty without one."""
        return "" if self.link.place is None else self.link.place.fleet

    def adopt(self, snapshot: Snapshot, breakers: Mapping[tuple[str, str], Breaker]) -> None:
        """Let those join that are to act as one, and those leave that are no longer there or have another key."""
        redis = snapshot.share.redis
        of_fleet = {
            place: breaker
            for place, breaker in breakers.items()
            if redis is not None and breaker.policy.scope is Scope.FLEET
        }
        self._joined.adopt(snapshot, of_fleet, self._clock())
        if redis is None:
            self.link.move(None)
            return
        self.acting.window_seconds = _longest_window(breaker for _, breaker in self._joined.by_place.values())
        self.link.look_again()
        self.link.move(LinkPlace(redis, self._namespace, redis.fleet or self._service, self._replica))
        if "fleet" not in self._parts:
            self._start()

    async def met(self) -> None:
        """Wait for what the peers know, but not for long."""
        await self.link.met(MEET_SECONDS)

    def told(self) -> Data | None:
        """For `/status`; None without a fleet."""
        if not self.is_on:
            return None
        now = self._clock()
        return of_process(self.name, self.fleet.status(now), self.link.numbers, self.acting.dropped, now)

    def told_of(self, breaker: Breaker) -> Data | None:
        """For `/breakers`; None where a breaker acts for itself."""
        key, joined = self._joined.by_place.get((breaker.route, breaker.upstream), ("", None))
        if joined is not breaker:
            return None
        status = self.fleet.status_of(key, self._clock())
        return None if status is None else of_breaker(status, is_alone=not self.link.numbers.is_linked)

    def numbers(self) -> FleetNumbers | None:
        """For metrics, from any thread; None without a fleet."""
        if not self.is_on:
            return None
        link = self.link.numbers
        return FleetNumbers(
            link.is_linked,
            link.replicas,
            link.written,
            link.read,
            {lack.value: count for lack, count in list(link.failures.items())},
            self.acting.dropped,
            {place: self.fleet.is_dissenting(key) for place, (key, _) in list(self._joined.by_place.items())},
        )

    def order(self, breaker: Breaker, action: Override, seconds: float | None, by: str) -> Transition | None:
        """An operator's override, for all replicas.

        Raises:
            LookupError: this breaker acts for itself.
        """
        key, _ = self._joined.by_place[breaker.route, breaker.upstream]
        return self.fleet.order(key, action, self._clock(), seconds, by)

    def _start(self) -> None:
        for name, run in (("fleet", self.acting.run), ("fleet_link", self.link.run)):
            self._parts.add(Part(name, run))
            self._parts.start(name)


def _longest_window(breakers: Iterable[Breaker]) -> float:
    windows = [one.policy.window for one in breakers]
    return max([LEAST_WINDOW_SECONDS, *(one.size for one in windows if one.type is WindowType.TIME)])
