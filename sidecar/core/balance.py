"""Which endpoint gets the next attempt.

How one is chosen among candidates is `candidates.py`'s, by the upstream's policy; here is who is one. Endpoints that
are ejected are not, spared ones are only tried now and then (`trial`), and one that has just come back has a growing
share. Groups of endpoints take over from one another by degrees (`tiers.py`). An attempt that has failed stays in its
endpoint's load for a while (`linger`): what fails fast would look idle, and attract all that comes.

With `ring_hash` a request that has a key gets the endpoint of that key (`ring.py`), or the next one on the ring that
is usable, was not tried, and has less than 1.25 times its part of the load (Mirrokni and others, 2018). One without a
key is sent by `least_request`.

All of it takes the same time whatever the number of endpoints. Nothing here reads a clock or knows a connection.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from math import ceil, inf
from typing import Final, Generic, TypeVar

from sidecar.core.candidates import REDRAWS, Candidates, Loaded, T
from sidecar.core.ejection.change import Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.ring import Ring
from sidecar.core.snapshot import Balancing
from sidecar.core.tiers import divide

SPARED_SHARE: Final = 0.02
"""Of the requests, for all spared endpoints together, while others are usable."""
SPARED_SECONDS: Final = 2.0
"""Between two trials of a spared endpoint, on average, unless the last one's answer was good: what it fails shows no
more at a thousand requests a second than at ten."""
COSTLY_SECONDS: Final = 4.0
"""The same where the failure of the trial is its client's; twice as long after each, up to the ejection's `base`."""
LOAD_BOUND: Final = 1.25
"""Of its part of the load, for an endpoint that a key leads to."""
MOST_STEPS: Final = 512
"""On the ring, for one pick: where nearly all endpoints are out, one that is left is chosen without the ring."""
_KEYS: Final = float(1 << 64)
_LOW: Final = (1 << 16) - 1
"""The bits of a key that have no part in its place on the ring."""

Choice = TypeVar("Choice")


def _even_pick(candidates: Sequence[T], rng: random.Random) -> T | None:
    """The choice of two by requests in flight alone, where no failed attempt lingers: the usual case, without two
    calls."""
    count = len(candidates)
    if count < 2:
        return candidates[0] if count else None
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    if second >= first:
        second += 1
    a, b = candidates[first], candidates[second]
    return a if a.in_flight <= b.in_flight else b


class Balancer(Generic[T]):
    """The choice of one upstream. `renew` tells it of each change of endpoints or of what is thought of them."""

    __slots__ = (
        "_all", "_clock", "_costly_at", "_costly_seconds", "_groups", "_is_even", "_lingering",
        "_most_costly_seconds", "_policy", "_ready", "_ring", "_rng", "_slow_until", "_spared_at", "_tried", "spared",
    )  # fmt: skip

    def __init__(self, policy: Balancing, rng: random.Random, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._all: Sequence[T] = ()
        self._ready: Sequence[T] = ()
        self._groups: list[Candidates[T]] = []
        self.spared: Candidates[T] | None = None
        """Where there are some, `trial` is to be asked before `pick`."""
        self._spared_at = -inf
        """When a spared one may be tried again, if the last one that was, `_tried`, has not answered well."""
        self._costly_at = -inf
        """The same for a request that cannot be sent again."""
        self._costly_seconds = COSTLY_SECONDS
        """From a trial until the next one with such a request."""
        self._most_costly_seconds = COSTLY_SECONDS
        self._tried: T | None = None
        self._ring: Ring | None = None
        self._lingering: deque[tuple[float, T]] = deque()
        self._slow_until = -inf
        self._is_even = True
        """All endpoints are alike, and are chosen by their requests in flight."""

    def renew(
        self, places: Sequence[T], peers: Peers, policy: Balancing, now: float, zone: str | None = None
    ) -> None:
        """These are the endpoints, and this is thought of them.

        `zone`: ours, whose endpoints go first; None: all zones are alike.
        """
        self._policy = policy
        self._all = places
        spared: Sequence[T] = [one for one in places if one.standing.health is Health.SPARED]
        ready: Sequence[T] = [one for one in places if one.standing.health is Health.USABLE]
        if not ready or len(ready) < peers.policy.panic * len(places):
            ready, spared = spared if spared and not ready else places, ()
        self._ready = ready
        self._groups = [
            Candidates(group, share, policy, self._rng) for group, share in divide(places, ready, zone)
        ]
        self._spare(spared, peers.policy.base_seconds, now)
        back = [one.standing for one in ready if one.standing.share(now) < 1.0]
        # Where all are new there is nobody to take their share.
        is_slow = 0 < len(back) < len(ready)
        self._slow_until = max(one.back_at + one.slow_seconds for one in back) if is_slow else -inf
        self._place_on_ring()
        self._settle()

    def _spare(self, spared: Sequence[T], base_seconds: float, now: float) -> None:
        """These are spared. The first of them have just failed: they are not tried at once."""
        was_none = self.spared is None
        self.spared = Candidates(spared, SPARED_SHARE, self._policy, self._rng) if spared else None
        self._most_costly_seconds = max(base_seconds, SPARED_SECONDS)
        if self._tried not in spared:
            self._tried = None
        if was_none and spared:
            self._costly_seconds = min(COSTLY_SECONDS, self._most_costly_seconds)
            self._await_trial(len(spared), now)

    def _await_trial(self, count: int, now: float) -> None:
        self._spared_at = now + SPARED_SECONDS / count
        self._costly_at = now + self._costly_seconds / count

    def trial(self, *, is_free: bool) -> T | None:
        """The spared endpoint that this request is to try; None: it is not its turn.

        `is_free`: the request can be sent again, so that a failure would be nobody's. Another one is taken for it
        only where none of these has come for a time that doubles with each.
        """
        spared, tried = self.spared, self._tried
        if spared is None or self._rng.random() >= SPARED_SHARE:
            return None
        now = self._clock()
        if tried is not None and tried.standing.streak:
            self._costly_seconds = min(COSTLY_SECONDS, self._most_costly_seconds)
        elif now < (self._spared_at if is_free else self._costly_at):
            return None
        elif not is_free:
            self._costly_seconds = min(2.0 * self._costly_seconds, self._most_costly_seconds)
        self._await_trial(spared.count, now)
        self._tried = chosen = spared.pick()
        return chosen

    def use_ring(self, ring: Ring | None) -> None:
        """Keys are looked up there from now on; None: by nothing."""
        self._ring = ring
        self._place_on_ring()

    def _place_on_ring(self) -> None:
        """Who is where on the ring, each group for itself."""
        if self._ring is None:
            return
        for group in self._groups:
            places = {str(one.endpoint): one for one in reversed(group.places)}
            group.on_ring = [places.get(name) for name in self._ring.names]

    def _settle(self) -> None:
        self._is_even = (
            self._policy in (Balancing.LEAST_REQUEST, Balancing.RING_HASH)
            and len(self._groups) <= 1
            and len(self._ready) == len(self._all)
            and all(group.is_even and group.count == len(self._all) for group in self._groups)
            and not self._lingering
            and self._slow_until == -inf
        )

    def linger(self, place: T, seconds: float) -> None:
        """An attempt there has failed, and counts in its load for so long."""
        place.lingering += 1
        self._lingering.append((self._clock() + seconds, place))
        self._is_even = False

    def pick(self, avoid: Collection[T] = (), key: int | None = None, load: int = 1) -> T | None:
        """The endpoint of the next attempt, None without any.

        Args:
            avoid: those that were tried already, the last one last. One is chosen again only if there is nobody
                else, and the last one only if it is the only one.
            key: of the request, for `ring_hash`.
            load: attempts in flight to all endpoints, this one included; of interest with a key alone.
        """
        if key is not None and self._ring is not None:
            return self._by_key(key, avoid, load)
        if self._is_even and not avoid:
            return _even_pick(self._all, self._rng)
        now = self._clock()
        self._let_go(now)
        is_single = (
            self.spared is None and len(self._groups) == 1
        )  # the usual case, without a generator: 1 µs
        for group in self._groups if is_single else self._in_order(self._rng.random()):
            chosen = group.pick(avoid)
            if chosen is not None:
                return self._slowly(group, chosen, avoid, now) if now < self._slow_until else chosen
        return self.pick(tuple(avoid)[-1:] if len(avoid) > 1 else ()) if avoid else None

    def pick_well(self, avoid: Collection[T], key: int | None = None, load: int = 1) -> T | None:
        """The same for a request that has failed elsewhere: one that is not suspect, and not of those to `avoid`.
        None: a few picks have found nobody."""
        others = [*avoid]
        for _ in range(REDRAWS):
            chosen = self.pick(others, key, load)
            if chosen is None or chosen in others:
                return None
            if not chosen.standing.is_suspect:
                return chosen
            others.append(chosen)
        return None

    def pick_for_probe(self, failed: Sequence[T], key: int | None = None, load: int = 1) -> T | None:
        """The endpoint that a probe of a breaker asks, by the policy among the best ones there are: those that
        answered well last, then those that have not failed, then any other; of all only where no probe of this
        outage has failed. Where one has failed at each, that at which it was longest ago. It looks at all
        endpoints, once each probe.

        Args: failed: where probes have failed, the last one last.
        """
        in_play = [one for group in self._groups for one in group.places]
        rest = set(in_play).difference(failed)
        wanted = {one for one in rest if one.standing.is_well}
        wanted = wanted or {one for one in rest if not one.standing.longest} or rest
        if not wanted:
            wanted = set([one for one in failed if one in in_play][:1])
        return self.pick({one for one in in_play if one not in wanted}, key, load)

    def _in_order(self, point: float) -> Iterator[Candidates[T]]:
        """The group whose turn it is, then the others, spared ones last. `point`: by chance or by a key, from 0 up to
        1."""
        first = self._group_at(point)
        if first is not None:
            yield first
        for group in self._groups:
            if group is not first:
                yield group
        if self.spared is not None:
            yield self.spared

    def _group_at(self, point: float) -> Candidates[T] | None:
        for group in self._groups:
            point -= group.share
            if point < 0.0:
                return group
        return self._groups[-1] if self._groups else None

    def _slowly(self, group: Candidates[T], chosen: T, avoid: Collection[T], now: float) -> T:
        """One that comes back has had its share: another one, if a few picks find it; where that one comes back, too,
        one of another group that does not."""
        if self._rng.random() < chosen.standing.share(now):
            return chosen
        other = chosen
        for _ in range(REDRAWS):
            found = group.pick(avoid)
            if found is not None and found is not chosen:
                other = found
                break
        if other.standing.share(now) >= 1.0 or len(self._groups) == 1:
            return other
        for later in self._groups:
            found = None if later is group else later.pick(avoid)
            if found is not None and found.standing.share(now) >= 1.0:
                return found
        return other

    # By key

    def _by_key(self, key: int, avoid: Collection[T], load: int) -> T | None:
        now = self._clock()
        self._let_go(now)
        is_single = self.spared is None and len(self._groups) == 1
        early: T | None = None
        for group in self._groups if is_single else self._in_order(key / _KEYS):
            if early is not None and group is self.spared:
                break
            chosen = self._on_ring(group, key, avoid, load, now) if group.on_ring else None
            if chosen is None:
                chosen = group.pick(avoid)
            if chosen is None:
                continue
            if now >= self._slow_until or _is_back(chosen, key, now):
                return chosen
            if early is None:
                early = chosen
        if early is not None:
            return early
        return self.pick(tuple(avoid)[-1:] if len(avoid) > 1 else (), key, load) if avoid else None

    def _on_ring(
        self, group: Candidates[T], key: int, avoid: Collection[T], load: int, now: float
    ) -> T | None:
        """The first one from the key's point on that may have it; if all have too much, the first usable one."""
        ring, on_ring = self._ring, group.on_ring
        assert ring is not None
        bound = LOAD_BOUND * load * group.share / group.weight
        is_slow = now < self._slow_until
        first: T | None = None
        begin = ring.find(key)
        for place in range(begin, begin + min(MOST_STEPS, len(ring))):
            one = on_ring[ring.owner(place)]
            if one is None or one is first or one in avoid:
                continue
            part = bound * (one.endpoint.weight or 1)
            if is_slow:
                part *= one.standing.share(now)
            is_in_time = not is_slow or _is_back(one, key, now)
            if is_in_time and one.in_flight + one.lingering < ceil(part):
                return one
            if first is None:
                first = one
        return first

    def _let_go(self, now: float) -> None:
        lingering = self._lingering
        if lingering or self._slow_until != -inf:
            while lingering and lingering[0][0] <= now:
                lingering.popleft()[1].lingering -= 1
            if now >= self._slow_until:
                self._slow_until = -inf
            self._settle()


def _is_back(one: Loaded, key: int, now: float) -> bool:
    """Whether an endpoint that comes back by and by may have this key again: they come one after the other, each to
    stay, so that it begins with a tenth of them also where nothing is in flight."""
    return (key & _LOW) <= one.standing.share(now) * _LOW


def pick_weighted(choices: Sequence[tuple[Choice, int]], total: int, rng: random.Random) -> Choice:
    """One of `choices` by its weight; `total` is the sum of all weights and above zero."""
    point = rng.random() * total
    for choice, weight in choices:
        point -= weight
        if point < 0:
            return choice
    return choices[-1][0]
