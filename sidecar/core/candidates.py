"""Endpoints of one upstream among which the next attempt's is chosen, by one of the policies.

* `least_request`: power of two choices by requests in flight (Mitzenmacher, 2001). Two random candidates and the less
  busy one: close to "least loaded" without a scan and without the herd that follows a global minimum.
* `peak_ewma`: the same by the time that attempts take, times those in flight. What was seen of an endpoint loses its
  weight by time, also while nobody asks it: otherwise one slow answer would keep one of two endpoints idle for ever.
* `round_robin`: in turn.

With weights, candidates are drawn by weight, and what is compared is divided by it; of two that are equal the first
one drawn is taken, so that an idle upstream keeps to its weights as a busy one does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from math import inf, log
from typing import Final, Generic, Protocol, TypeVar

from sidecar.core.ejection.standing import EWMA_SECONDS, Standing
from sidecar.core.snapshot import Balancing, Endpoint
from sidecar.core.weighted import WeightedDraw, WeightedTurns

REDRAWS: Final = 4
"""Draws for one that is not to be avoided, before a list of the others is made."""
FEW: Final = 16
"""Among so few the list is made at once."""


class Loaded(Protocol):
    """An endpoint, as far as the choice knows it."""

    in_flight: int
    lingering: int
    """Failed attempts that still count in its load."""
    standing: Standing

    @property
    def endpoint(self) -> Endpoint: ...


T = TypeVar("T", bound=Loaded)


def requests_of(one: Loaded) -> float:
    return one.in_flight + one.lingering


def _requests_by_weight(one: Loaded) -> float:
    return (one.in_flight + one.lingering) / (one.endpoint.weight or 1)


def _peak_ewma(one: Loaded) -> float:
    """The logarithm of it, so that what both of two have lost since the same moment need not be known."""
    # With an equal time the one with fewer in flight; one of which nothing is known counts as quick.
    standing = one.standing
    if not standing.ewma:
        return -inf
    return log(standing.ewma * (one.in_flight + one.lingering + 1)) + standing.ewma_at / EWMA_SECONDS


def _peak_ewma_by_weight(one: Loaded) -> float:
    return _peak_ewma(one) - log(one.endpoint.weight or 1)


class Candidates(Generic[T]):
    """Of one group; made anew with each change of it."""

    __slots__ = (
        "_draw",
        "_load",
        "_rng",
        "_turns",
        "count",
        "is_even",
        "on_ring",
        "places",
        "share",
        "weight",
    )

    def __init__(self, places: Sequence[T], share: float, policy: Balancing, rng: random.Random) -> None:
        """`share`: what part of the requests is theirs. There is at least one of them."""
        weights = [one.endpoint.weight or 1 for one in places]
        self.places = places
        self.count = len(places)
        self.share = share
        self.weight = sum(weights)
        """Of all together."""
        self.is_even = min(weights) == max(weights)
        self.on_ring: Sequence[T | None] = ()
        """The endpoints by their numbers on the ring."""
        self._rng = rng
        self._load: Callable[[Loaded], float] = requests_of if self.is_even else _requests_by_weight
        if policy is Balancing.PEAK_EWMA:
            self._load = _peak_ewma if self.is_even else _peak_ewma_by_weight
        self._draw = None if self.is_even else WeightedDraw(places, weights)
        self._turns = WeightedTurns(places, weights, rng) if policy is Balancing.ROUND_ROBIN else None

    def pick(self, avoid: Collection[T] = ()) -> T | None:
        """None if there is nobody but those to `avoid`."""
        if self._turns is not None:
            chosen = self._turns.next(avoid)
            return chosen if chosen is not None else self._of_two(self._others(avoid))
        if not avoid:
            return self._of_two(self.places) if self._draw is None else self._of_two_drawn(self._draw)
        if self.is_even and self.count <= FEW:
            return self._of_two(self._others(avoid))
        first = self._drawn(avoid)
        if first in avoid:
            return self._of_two(self._others(avoid))
        second = self._drawn((*avoid, first))
        return second if second not in avoid and self._load(second) < self._load(first) else first

    def _of_two_drawn(self, draw: WeightedDraw[T]) -> T:
        rng = self._rng
        first = draw.draw(rng)
        second = draw.draw(rng)
        for _ in range(REDRAWS):
            if second is not first:
                return second if self._load(second) < self._load(first) else first
            second = draw.draw(rng)
        return first

    def _drawn(self, avoid: Collection[T]) -> T:
        """One by its weight; another than those to `avoid`, if a few draws find one."""
        chosen = self._one()
        for _ in range(REDRAWS):
            if chosen not in avoid:
                break
            chosen = self._one()
        return chosen

    def _one(self) -> T:
        if self._draw is not None:
            return self._draw.draw(self._rng)
        return self.places[int(self._rng.random() * self.count)]

    def _others(self, avoid: Collection[T]) -> Sequence[T]:
        return [one for one in self.places if one not in avoid]

    def _of_two(self, places: Sequence[T]) -> T | None:
        """Of two random ones the one with less load, None without any."""
        count = len(places)
        if count <= 1:
            return places[0] if count else None
        rng = self._rng
        first = int(rng.random() * count)
        second = int(rng.random() * (count - 1))
        if second >= first:
            second += 1
        a, b = places[first], places[second]
        return a if self._load(a) <= self._load(b) else b
