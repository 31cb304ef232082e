"""What the sidecar's own questions to an endpoint have shown: its state, by how many in a row were answered well.

Decides alone: `now` is monotonic seconds. What follows from a state for the endpoint's use is decided beside what its
requests have shown (`ejection/peers.py`).
"""

from __future__ import annotations

import random
from enum import Enum
from typing import Final, NamedTuple

from sidecar.core.snapshot import HealthCheckPolicy

JITTER: Final = 0.05
"""Each pause is longer or shorter by up to this share, so that the checks of many sidecars do not fall together."""


class CheckState(Enum):
    """What checks have shown of an endpoint."""

    UNKNOWN = "unknown"
    """Too few have ended. It is used."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class CheckEnd(Enum):
    """How one check ended: `sidecar.health.result`."""

    PASSED = "passed"
    FAILED = "failed"
    IGNORED = "ignored"
    """It says nothing of the endpoint: our own loop was late, or we had no file to open, or it was called off."""


class CheckVerdict(NamedTuple):
    """What one check came to."""

    end: CheckEnd
    why: str = ""
    """In words, for one that did not pass."""


class CheckRecord:
    """Of one endpoint."""

    __slots__ = ("at", "bad", "good", "state", "why")

    def __init__(self) -> None:
        self.state = CheckState.UNKNOWN
        self.good = 0
        """Checks in a row that passed, up to the last one."""
        self.bad = 0
        self.at: float | None = None
        """When the last one ended that counts."""
        self.why = ""
        """What was wrong in the last one; empty if it passed."""

    def __repr__(self) -> str:
        return f"<CheckRecord {self.state.value}, {self.good} passed, {self.bad} failed in a row>"

    def take(self, verdict: CheckVerdict, policy: HealthCheckPolicy, now: float) -> None:
        """One has ended. The first one that passes is enough for a state that was unknown."""
        if verdict.end is CheckEnd.IGNORED:
            return
        self.at, self.why = now, verdict.why
        if verdict.end is CheckEnd.PASSED:
            self.good, self.bad = self.good + 1, 0
            if self.state is CheckState.UNKNOWN or self.good >= policy.healthy:
                self.state = CheckState.HEALTHY
        else:
            self.good, self.bad = 0, self.bad + 1
            if self.bad >= policy.unhealthy:
                self.state = CheckState.UNHEALTHY


def first_pause(policy: HealthCheckPolicy, rng: random.Random) -> float:
    """Seconds until the first check of an endpoint: anywhere in the interval."""
    return rng.random() * policy.interval_seconds


def next_pause(policy: HealthCheckPolicy, rng: random.Random) -> float:
    """Seconds from the beginning of one check to that of the next."""
    return policy.interval_seconds * (1.0 - JITTER + 2.0 * JITTER * rng.random())
