"""Whether this process is in a fleet: `FleetSide`, with all that it imports, is there from the first configuration on
that names a `share.redis`. Most processes never have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sidecar.core.breaker import Breaker
from sidecar.core.override import Override
from sidecar.core.snapshot import Snapshot
from sidecar.core.sources import FleetNumbers
from sidecar.core.transition import Transition

if TYPE_CHECKING:
    from sidecar.runtime.fleet.side import FleetSide

Data = dict[str, Any]


class Membership:
    """Owned by the event loop."""

    def __init__(self, make: Callable[[], FleetSide]) -> None:
        """`make` is called once, when a configuration names a fleet for the first time."""
        self._make = make
        self._side: FleetSide | None = None

    def side(self) -> FleetSide:
        """It, made if need be."""
        if self._side is None:
            self._side = self._make()
        return self._side

    def adopt(self, snapshot: Snapshot, breakers: Mapping[tuple[str, str], Breaker]) -> None:
        """Let those join that are to act as one, and those leave that are no longer there or have another key."""
        if self._side is not None or snapshot.share.redis is not None:
            self.side().adopt(snapshot, breakers)

    async def met(self) -> None:
        """Wait for what the peers know, but not for long."""
        if self._side is not None:
            await self._side.met()

    def told(self) -> Data | None:
        """For `/status`; None without a fleet."""
        return None if self._side is None else self._side.told()

    def told_of(self, breaker: Breaker) -> Data | None:
        """For `/breakers`; None where a breaker acts for itself."""
        return None if self._side is None else self._side.told_of(breaker)

    def numbers(self) -> FleetNumbers | None:
        """For metrics, from any thread; None without a fleet."""
        side = self._side
        return None if side is None else side.numbers()

    def order(self, breaker: Breaker, action: Override, seconds: float | None, by: str) -> Transition | None:
        """An operator's override, for all replicas.

        Raises:
            LookupError: this breaker acts for itself.
        """
        if self._side is None:
            raise LookupError(breaker.route)
        return self._side.order(breaker, action, seconds, by)
