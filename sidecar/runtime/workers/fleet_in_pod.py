"""The way of a fleet's breakers to those of the pod's other workers, which does not need the fleet's Redis.

Control passes on what each says (`relaying.py`). Owned by the worker's event loop.
"""

from __future__ import annotations

from sidecar.runtime.fleet.acting import Acting
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.control_end import ControlEnd


class FleetInPod:
    """Of one worker."""

    def __init__(self, acting: Acting, control_end: ControlEnd) -> None:
        self._acting = acting
        self._control_end = control_end

    def found(self) -> None:
        """Control is there."""
        self._acting.with_pod(self._say)

    def lost(self) -> None:
        """It is not, or does not answer."""
        self._acting.with_pod(None)

    async def heard(self, messages: tuple[bytes, ...]) -> None:
        """What others said."""
        self._acting.heard_in_pod(messages)

    def _say(self, messages: tuple[bytes, ...]) -> bool:
        return self._control_end.tell(kinds.FLEET_SHARED, messages)
