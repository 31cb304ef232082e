"""Which endpoint gets the next attempt.

* `least_request`: power of two choices by requests in flight (Mitzenmacher, 2001). Two random candidates and the less
  busy one: close to "least loaded" without a scan and without the herd that follows a global minimum.
* `peak_ewma`: the same by the time that attempts take, times those in flight.
* `round_robin`: in turn.

Endpoints that are ejected are not in the choice, spared ones have 2 % of the picks together, and one that has just
come back a growing share. An attempt that has failed stays in its endpoint's load for a while (`linger`): what fails
fast would look idle, and attract all that comes.

All of them take the same time whatever the number of endpoints. Nothing here reads a clock or knows a connection.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, Generic, Protocol, TypeVar

from sidecar.core.ejection.change import Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.ejection.standing import Standing
from sidecar.core.snapshot import Balancing

SPARED_SHARE: Final = 0.02
"""Of the picks, for all spared endpoints together, while others are usable."""
REDRAWS: Final = 4
"""Draws for one that was not tried yet, before a list of the others is made."""


class Loaded(Protocol):
    in_flight: int
    lingering: int
    """Failed attempts that still count in its load."""
    standing: Standing


T = TypeVar("T", bound=Loaded)
Choice = TypeVar("Choice")


def _even_pick(candidates: Sequence[T], rng: random.Random, avoid: T | None) -> T | None:
    """`_of_two` by requests in flight alone, where no failed attempt lingers: the usual case, without two calls."""
    count = len(candidates)
    if avoid is not None or count < 2:
        return _of_two(candidates, rng, avoid, _requests)
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    if second >= first:
        second += 1
    a, b = candidates[first], candidates[second]
    return a if a.in_flight <= b.in_flight else b


def _requests(one: Loaded) -> float:
    return one.in_flight + one.lingering


def _peak_ewma(one: Loaded) -> float:
    # With an equal time the one with fewer in flight; one of which nothing is known counts as quick.
    return one.standing.ewma * (one.in_flight + one.lingering + 1)


def _of_two(
    candidates: Sequence[T], rng: random.Random, avoid: T | None, load: Callable[[T], float]
) -> T | None:
    """The one of two random ones with less load, None without any. `avoid` was tried already: it is chosen again only
    if there is nothing else."""
    count = len(candidates)
    if count <= 1:
        return candidates[0] if count else None
    if avoid is not None:
        candidates = _without(candidates, avoid)
        count = len(candidates)
        if count == 1:
            return candidates[0]
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    if second >= first:
        second += 1
    a, b = candidates[first], candidates[second]
    return a if load(a) <= load(b) else b


def _without(candidates: Sequence[T], avoid: T) -> Sequence[T]:
    return [one for one in candidates if one is not avoid] or candidates


class Balancer(Generic[T]):
    """The choice of one upstream. `renew` tells it of each change of endpoints or of what is thought of them."""

    __slots__ = (
        "_all", "_clock", "_is_even", "_lingering", "_policy", "_ready", "_rng", "_slow_until", "_spared", "_turn",
    )  # fmt: skip

    def __init__(self, policy: Balancing, rng: random.Random, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._all: Sequence[T] = ()
        self._ready: Sequence[T] = ()
        self._spared: Sequence[T] = ()
        self._lingering: deque[tuple[float, T]] = deque()
        self._turn = 0
        self._slow_until = -inf
        self._is_even = True
        """All endpoints are alike, and are chosen by their requests in flight."""

    def renew(self, places: Sequence[T], peers: Peers, policy: Balancing, now: float) -> None:
        """These are the endpoints, and this is thought of them."""
        self._policy = policy
        self._all = places
        count = len(places)
        self._spared = [one for one in places if one.standing.health is Health.SPARED]
        self._ready = [one for one in places if one.standing.health is Health.USABLE]
        if not self._ready or len(self._ready) < peers.policy.panic * count:
            self._ready = self._spared if self._spared and not self._ready else places
            self._spared = ()
        back = [one.standing for one in self._ready if one.standing.share(now) < 1.0]
        # Where all are new there is nobody to take their share.
        is_slow = 0 < len(back) < len(self._ready)
        self._slow_until = max(one.back_at + one.slow_seconds for one in back) if is_slow else -inf
        self._settle()

    def _settle(self) -> None:
        self._is_even = (
            self._policy is Balancing.LEAST_REQUEST
            and len(self._ready) == len(self._all)
            and not self._lingering
            and self._slow_until == -inf
        )

    def linger(self, place: T, seconds: float) -> None:
        """An attempt there has failed, and counts in its load for so long."""
        place.lingering += 1
        self._lingering.append((self._clock() + seconds, place))
        self._is_even = False

    def pick(self, avoid: T | None = None) -> T | None:
        """The endpoint of the next attempt, None without any. `avoid` was tried already."""
        if self._is_even:
            return _even_pick(self._all, self._rng, avoid)
        now = self._clock()
        self._let_go(now)
        candidates = self._ready
        if self._spared and self._rng.random() < SPARED_SHARE:
            candidates = self._spared
        chosen = self._choose(candidates, avoid)
        if chosen is not None and now < self._slow_until:
            share = chosen.standing.share(now)
            if share < 1.0 and self._rng.random() >= share:
                chosen = self._choose_other(candidates, chosen, avoid)
        return chosen

    def _choose(self, candidates: Sequence[T], avoid: T | None) -> T | None:
        if self._policy is Balancing.ROUND_ROBIN:
            return self._next(candidates, avoid)
        load = _peak_ewma if self._policy is Balancing.PEAK_EWMA else _requests
        chosen = _of_two(candidates, self._rng, None, load)
        for _ in range(REDRAWS):
            if chosen is not avoid or avoid is None:
                return chosen
            chosen = _of_two(candidates, self._rng, None, load)
        return chosen if chosen is not avoid else _of_two(candidates, self._rng, avoid, load)

    def _choose_other(self, candidates: Sequence[T], slow: T, avoid: T | None) -> T:
        """One that comes back has had its share."""
        for _ in range(REDRAWS):
            other = self._choose(candidates, avoid)
            if other is not None and other is not slow:
                return other
        return slow

    def _next(self, candidates: Sequence[T], avoid: T | None) -> T | None:
        for _ in range(min(len(candidates), 2)):
            self._turn = (self._turn + 1) % len(candidates)
            if candidates[self._turn] is not avoid:
                break
        return candidates[self._turn] if candidates else None

    def _let_go(self, now: float) -> None:
        lingering = self._lingering
        while lingering and lingering[0][0] <= now:
            lingering.popleft()[1].lingering -= 1
        if now >= self._slow_until:
            self._slow_until = -inf
        self._settle()


def pick_weighted(choices: Sequence[tuple[Choice, int]], total: int, rng: random.Random) -> Choice:
    """One of `choices` by its weight; `total` is the sum of all weights and above zero."""
    point = rng.random() * total
    for choice, weight in choices:
        point -= weight
        if point < 0:
            return choice
    return choices[-1][0]
