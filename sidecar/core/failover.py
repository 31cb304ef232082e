"""How much of its load an upstream keeps while others take over (SPEC-UPSTREAM, failover).

It keeps all until less than `below` of its endpoints is usable, and from then on 1.4 times the usable share, so that
load goes over by degrees. That falls at once, and rises only after it has been better for as long as `back` says, and
then over 30 s: what comes and goes in less time moves nothing to and fro.

Decides alone: every method takes `now` (monotonic seconds). What has changed is returned, for the caller to tell.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple, TypeVar

from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass
from sidecar.core.snapshot import FailoverPolicy

OVERPROVISION: Final = 1.4
"""An upstream bears its load with five of seven endpoints (Envoy's overprovisioning factor)."""
RAMP_SECONDS: Final = 30.0
"""In which the load comes back, from nothing to all."""

SUM_NOISE: Final = 1e-6
"""Of a share that is a sum of many steps."""

T = TypeVar("T")


class Supply(NamedTuple):
    """The endpoints of an upstream at this moment; none is usable while its breaker is open."""

    usable: int
    total: int

    @property
    def ratio(self) -> float:
        return self.usable / self.total if self.total else 0.0

    @property
    def share(self) -> float:
        """What part of its load it bears."""
        return min(1.0, self.ratio * OVERPROVISION)


class FailoverPhase(Enum):
    """Where the load of an upstream is."""

    HOME = "home"
    """All of it with itself."""
    AWAY = "away"
    """Some of it with others, or all."""


@dataclass(frozen=True, **SLOTTED)
class FailoverChange:
    """A failover has begun or ended."""

    route: str
    upstream: str
    to: tuple[str, ...]
    phase: FailoverPhase
    """After it."""
    supply: Supply
    is_open: bool
    """The upstream's breaker is."""
    at: float

    @property
    def told(self) -> str:
        """For people."""
        usable, count = self.supply
        if self.phase is FailoverPhase.HOME:
            return (
                f"{self.route}: {self.upstream} has its load back: {usable} of {count} endpoints are usable"
            )
        why = "its breaker is open" if self.is_open else f"{usable} of {count} endpoints are usable"
        keeps = f"it keeps {self.supply.share:.0%} of its load" if usable else "all of its load goes over"
        return f"{self.route}: {', '.join(self.to)} takes over from {self.upstream}: {why}, {keeps}"


class Failover:
    """Of one upstream, as one route sees it."""

    __slots__ = ("_back_since", "_better_since", "_kept", "_looked_at", "phase", "policy", "since")

    def __init__(self, policy: FailoverPolicy, now: float) -> None:
        self.policy = policy
        self.phase = FailoverPhase.HOME
        self.since = now
        """When the phase began."""
        self._kept = 1.0
        self._looked_at = now
        """Until when `_kept` has been reckoned."""
        self._better_since: float | None = None
        """From when on it could have borne more than it keeps."""
        self._back_since: float | None = None
        """From when on `back` has held."""

    def __repr__(self) -> str:
        return f"<Failover {self.phase.value}, {self._kept:.0%} kept>"

    @property
    def kept(self) -> float:
        """The share of its load that it keeps, as of the last look."""
        return self._kept

    def look(self, supply: Supply, now: float) -> bool:
        """See what has become of it. Returns whether the phase is another now."""
        if self.phase is FailoverPhase.HOME:
            if supply.ratio >= self.policy.below or supply.share >= 1.0:
                return False
            self._kept, self._looked_at = supply.share, now
            self._better_since = self._back_since = None
            return self._enter(FailoverPhase.AWAY, now)
        is_back = self._is_back(supply, now)
        goal = 1.0 if is_back else supply.share
        if goal <= self._kept:
            self._kept, self._better_since = goal, None
        elif self._better_since is None:
            self._better_since = now
        else:
            begin = max(self._better_since + self.policy.back.seconds, self._looked_at)
            if now > begin:
                self._kept = min(goal, self._kept + (now - begin) / RAMP_SECONDS)
        self._looked_at = now
        if not is_back or self._kept < 1.0 - SUM_NOISE:
            return False
        self._kept = 1.0
        return self._enter(FailoverPhase.HOME, now)

    def _is_back(self, supply: Supply, now: float) -> bool:
        """Whether `back` has held for long enough."""
        back = self.policy.back
        if supply.ratio < back.share:
            self._back_since = None
        elif self._back_since is None:
            self._back_since = now
        return self._back_since is not None and now - self._back_since >= back.seconds

    def _enter(self, phase: FailoverPhase, now: float) -> bool:
        self.phase, self.since = phase, now
        return True


def taker(supplies: Iterable[tuple[T, Supply]], own: Supply, rng: random.Random) -> T | None:
    """Who takes a request that an upstream does not keep; None: nobody, so that it keeps it after all.

    Args: supplies: those that may, in their order. Each takes what it bears of what comes to it, and leaves the rest
        to the next. One with fewer usable endpoints than the upstream itself (`own`) takes nothing.
    """
    last: T | None = None
    for other, supply in supplies:
        if not supply.usable or supply.usable < own.usable:
            continue
        share = supply.share
        if share >= 1.0 or rng.random() < share:
            return other
        last = other
    return None if own.usable else last
