"""The words of an endpoint's standing, and the immutable record of each change.

Records cross threads (telemetry, admin), so nothing in them changes after birth.
"""

from __future__ import annotations

from enum import Enum

from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass


class Health(Enum):
    """What is thought of an endpoint by what came back from it, and by its health checks."""

    USABLE = "usable"
    EJECTED = "ejected"
    """It gets no requests for a time."""
    SPARED = "spared"
    """It has failed enough to be ejected and is not, since too many are: it gets a few requests."""
    UNHEALTHY = "unhealthy"
    """It fails the sidecar's own checks: it gets no requests until they pass, unless no endpoint is any better."""


class EjectionReason(Enum):
    """`sidecar.ejection.reason`."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    FAILURE_RATE = "failure_rate"
    SLOWER_THAN_PEERS = "slower_than_peers"


@dataclass(frozen=True, **SLOTTED)
class EndpointChange:
    """One change of one endpoint's standing."""

    upstream: str
    endpoint: str
    health: Health
    """After it."""
    reason: EjectionReason | None
    """Why it is not usable any more; None for one that is again, or that fails its checks."""
    why: str
    """In words."""
    at: float
    """Seconds on the process's monotonic clock."""
    seconds: float = 0.0
    """How long it is left out; 0 for one that is not."""
    times: int = 0
    """How often it has been left out lately, this time included."""

    @property
    def told(self) -> str:
        """For people."""
        if self.health is Health.EJECTED:
            return f"{self.upstream}: {self.endpoint} is left out for {self.seconds:g} s: {self.why}"
        if self.health is Health.SPARED:
            return f"{self.upstream}: {self.endpoint} is bad, and gets few requests: {self.why}"
        if self.health is Health.UNHEALTHY:
            return f"{self.upstream}: {self.endpoint} is left out while its health checks fail: {self.why}"
        return f"{self.upstream}: {self.endpoint} is used again: {self.why}"
