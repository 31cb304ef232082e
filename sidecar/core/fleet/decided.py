"""What is decided of one breaker, as far as this process knows: by the fleet, and by its own pod since.

The later decision holds; of two with one number the more open one. So all that have heard the same decisions know the
same, in whatever order they came."""

from __future__ import annotations

from dataclasses import replace

from sidecar.core.fleet.messages import MOST_NUMBER, Decision
from sidecar.core.transition import State


class Decided:
    """Times are monotonic seconds of this process."""

    __slots__ = ("_pod_until", "fleet", "fleet_until", "pod")

    def __init__(self, breaker: str) -> None:
        self.fleet = Decision(breaker, 0, 0, State.CLOSED, "", "")
        self.pod: Decision | None = None
        """What the own pod has decided since the fleet did; it holds within the pod."""
        self.fleet_until = 0.0
        """When the wait of the fleet's OPEN is over."""
        self._pod_until = 0.0

    @property
    def current(self) -> Decision:
        """What holds here."""
        return self.fleet if self.pod is None else self.pod

    def hear(self, decision: Decision, at: float) -> bool:
        """Take it over if it is later than what is known; whether it is. `at`: when its times were true."""
        if max(decision.number) > MOST_NUMBER:
            return False
        if decision.pod == 0:
            if decision.rank <= self.fleet.rank:
                return False
            self.pod = None
            self.fleet, self.fleet_until = decision, at + decision.left_seconds
            return True
        if decision.fleet != self.fleet.fleet:
            return False
        if self.pod is not None and decision.rank <= self.pod.rank:
            return False
        self.pod, self._pod_until = decision, at + decision.left_seconds
        return True

    def restamped(self, decision: Decision, now: float) -> Decision:
        """With the time that is left by now, if it still holds."""
        return self.told(decision, now) if decision in (self.fleet, self.pod) else decision

    def told(self, decision: Decision, now: float) -> Decision:
        """One of the two, with the time that is left of it by now."""
        until = self.fleet_until if decision.pod == 0 else self._pod_until
        return replace(decision, left_seconds=max(0.0, until - now))
