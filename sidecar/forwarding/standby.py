"""Who takes over from an upstream of a route that has too few usable endpoints (`failover`).

How much the upstream keeps is decided in `core/failover.py`; here is what that is asked with, and which request finds
out whether an upstream that gets none is well again. Owned by the event loop; a `Detour` by its exchange's `Takers`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from math import inf
from typing import Final, Generic, Protocol, TypeVar

from sidecar.core.breaker import Breaker
from sidecar.core.failover import Failover, FailoverChange, Supply, taker
from sidecar.core.transition import State
from sidecar.upstream.cluster import Cluster

NOTHING_OWN: Final = Supply(0, 1)


class Relieved(Protocol):
    """An upstream as one route sees it."""

    breaker: Breaker
    cluster: Cluster


D = TypeVar("D", bound=Relieved)


def supply_of(destination: Relieved) -> Supply:
    """What an upstream has to offer. With its breaker open it has nothing."""
    peers = destination.cluster.peers
    return Supply(0 if destination.breaker.is_shut else peers.usable, len(peers.members))


class Standby(Generic[D]):
    """Of one upstream of a route."""

    __slots__ = ("_trial_at", "failover", "moved", "targets", "trials")

    def __init__(self, failover: Failover, targets: Sequence[D]) -> None:
        self.failover = failover
        """Outlives this over reloads."""
        self.targets = tuple(targets)
        """In the order in which they take over."""
        self.moved = {target.cluster.name: 0 for target in targets}
        """Requests that went to each of them, since this was made."""
        self.trials = 0
        """Requests that were to find out how the upstream is."""
        self._trial_at = -inf

    def __repr__(self) -> str:
        return f"<Standby {self.failover!r} → {', '.join(self.moved)}>"

    def look(self, home: D, now: float) -> FailoverChange | None:
        """See how much the upstream keeps from now on. Returns what is news."""
        supply = supply_of(home)
        if not self.failover.look(supply, now):
            return None
        breaker, names, phase = home.breaker, tuple(self.moved), self.failover.phase
        return FailoverChange(breaker.route, breaker.upstream, names, phase, supply, breaker.is_shut, now)

    def keeps(self, rng: random.Random) -> bool:
        """Whether one more request stays with the upstream."""
        kept = self.failover.kept
        return kept >= 1.0 or rng.random() < kept

    def takes_trial(self, home: D, now: float) -> bool:
        """Whether a request that may be sent again is to find out how the upstream is, which gets none otherwise: one
        each `open_for`."""
        breaker = home.breaker
        if breaker.is_shut:
            is_open = breaker.state is State.OPEN
            is_wanted = breaker.is_probe_due(now) and breaker.next_check(now) == inf if is_open else True
            # While it is half-open, the breaker itself says how many it takes.
            if not is_wanted or breaker.state is State.FORCED_OPEN or (is_open and now < self._trial_at):
                return False
        elif not self._is_stuck(home) or now < self._trial_at:
            return False
        self._trial_at = now + breaker.policy.open_seconds
        self.trials += 1
        return True

    @staticmethod
    def _is_stuck(home: Relieved) -> bool:
        """Without requests nobody would know that an endpoint is well again: none is usable, and not all of them have
        checks that say so."""
        peers = home.cluster.peers
        return not peers.usable and peers.unhealthy < len(peers.members)

    def taker(self, own: Supply, rng: random.Random, asked: Collection[D] = ()) -> D | None:
        """Who takes a request that the upstream, with `own` to offer, does not keep. Nobody is asked twice."""
        supplies = ((one, supply_of(one)) for one in self.targets if one not in asked)
        chosen = taker(supplies, own, rng)
        if chosen is not None:
            self.moved[chosen.cluster.name] += 1
        return chosen


class Detour(Generic[D]):
    """The way of one exchange whose upstream has others to take over."""

    __slots__ = ("asked", "home", "standby")

    def __init__(self, home: D, standby: Standby[D]) -> None:
        self.home = home
        self.standby = standby
        self.asked: list[D] = []
        """Those that refused it, or failed in a trial."""

    def __repr__(self) -> str:
        return f"<Detour {len(self.asked)} asked>"

    def has_next(self) -> bool:
        """Whether somebody takes over who has not been asked."""
        return any(supply_of(one).usable for one in self.standby.targets if one not in self.asked)

    def next(self, refused: D, rng: random.Random) -> D | None:
        """Who is asked after `refused`: somebody who takes over, or else the upstream itself after all."""
        self.asked.append(refused)
        other = self.standby.taker(NOTHING_OWN, rng, self.asked)
        if other is None and self.home not in self.asked and not self.home.breaker.is_shut:
            return self.home
        return other
