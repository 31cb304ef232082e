"""A worker's breakers, which act as one with those of the pod's other workers (`core/fleet`).

The part `shared_breakers` does what is due and tells control, which passes it on (`relaying.py`); what control says
is heard at once. Without control (`pod_link.py`) each worker's breakers act for themselves, with the state that they
have. Nothing of this stands on a request's path. Owned by the worker's event loop.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from math import inf

from sidecar.core.breaker import Breaker
from sidecar.core.fleet import Fleet, Reach
from sidecar.core.fleet.encoding import encode
from sidecar.core.snapshot import Scope, Snapshot
from sidecar.core.transition import Transition
from sidecar.runtime.actor import Mailbox, Part
from sidecar.runtime.fleet.joined import Joined
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.control_end import ControlEnd


class SharedBreakers:
    """Of one worker."""

    def __init__(
        self,
        pod: str,
        control_end: ControlEnd,
        report: Callable[[Transition], None],
        clock: Callable[[], float],
    ) -> None:
        """`pod`: an id that all its workers have. `report` hears of what others brought about."""
        self.fleet = Fleet(uuid.uuid4().hex, pod)
        self.part: Part[None] = Part("shared_breakers", self._run)
        self.untold = 0
        """Messages that could not be said."""
        self._control_end = control_end
        self._report = report
        self._clock = clock
        self._joined = Joined(self.fleet)

    def adopt(self, snapshot: Snapshot, breakers: Mapping[tuple[str, str], Breaker]) -> None:
        """Another snapshot is in use: let join what it brings, and leave what it has no more. Those of a fleet meet
        there (`runtime/fleet/`)."""
        has_fleet = snapshot.share.redis is not None
        of_pod = {
            place: breaker
            for place, breaker in breakers.items()
            if not (has_fleet and breaker.policy.scope is Scope.FLEET)
        }
        self._joined.adopt(snapshot, of_pod, self._clock())

    def connected(self) -> None:
        """Control is there."""
        self.fleet.up(Reach.POD, self._clock())

    def lost(self) -> None:
        """It is not, or does not answer."""
        self.fleet.down(self._clock())

    async def heard(self, batches: tuple[bytes, ...]) -> None:
        """What others said, passed on by control."""
        now = self._clock()
        for data in batches:
            self._report_all(self.fleet.receive_bytes(data, now))

    async def _run(self, mailbox: Mailbox[None]) -> None:
        def wake() -> None:
            if not len(mailbox):
                mailbox.put(None)

        self.fleet.on_wake(wake)
        while True:
            self._act()
            seconds = self.fleet.due(self._clock()) - self._clock()
            await mailbox.get(None if seconds == inf else max(0.0, seconds))

    def _act(self) -> None:
        now = self._clock()
        told = self.fleet.tick(now)
        self._report_all(told.transitions)
        if told.batches and not self._control_end.tell(kinds.SHARED, tuple(map(encode, told.batches))):
            self.untold += 1  # reports are totals, and decisions are told again when the link is back
            self.lost()

    def _report_all(self, transitions: Iterable[Transition]) -> None:
        for transition in transitions:
            self._report(transition)
