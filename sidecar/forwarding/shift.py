"""Who is asked instead where the breaker of a weighted upstream refuses an exchange (SPEC 3, "Weights").

The others get its share, in proportion to their own weights, and none of them more than `shift_up_to` times what it
would get anyway: a canary of 10 % can take 20 %, not all that a whole upstream had. One draw for each exchange
decides whether it is among those that the others may take. The bound is exact where a breaker refuses everything; one
that refuses a part (in a ramp) hands on less, and the others stay below the bound.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sidecar.core.balance import pick_weighted
from sidecar.core.errors import Reason
from sidecar.core.snapshot import WhenOpen

if TYPE_CHECKING:
    from sidecar.forwarding.live import Destination, LiveRoute
    from sidecar.forwarding.permit import Refusal


class Shift:
    """Of one exchange, from the first refusal on. No upstream is asked twice."""

    __slots__ = ("_draw", "_rng", "_takers", "_total", "_up_to", "asked", "first")

    def __init__(
        self,
        choices: Sequence[tuple[Destination, int]],
        up_to: float,
        first: Refusal | None,
        rng: random.Random,
    ) -> None:
        """`choices`: the route's upstreams with weights above zero."""
        self._takers = [choice for choice in choices if not choice[0].breaker.is_shut]
        """Those that may be asked yet. One that is shut supplies its probes from its own share."""
        self._total = sum(weight for _, weight in choices)
        self._up_to = up_to
        self._rng = rng
        self._draw = rng.random()
        self.first = first
        """What the client is told if nobody takes it; None: what it is refused with then."""
        self.asked: list[Destination] = []

    def __repr__(self) -> str:
        return f"<Shift {len(self.asked)} asked, {len(self._takers)} left>"

    def next(self, refused: Destination) -> Destination | None:
        """Who is to be asked after `refused` has refused; None: nobody, the exchange is refused."""
        self.asked.append(refused)
        self._takers = [choice for choice in self._takers if choice[0] is not refused]
        others = sum(weight for _, weight in self._takers)
        if self._draw * (self._total - others) >= (self._up_to - 1.0) * others:
            return None
        return pick_weighted(self._takers, others, self._rng)


def shift_from(route: LiveRoute, refused: Destination, refusal: Refusal, rng: random.Random) -> Shift | None:
    """Who may take the share of one that has refused. None: nobody, or it was not asked for its weight."""
    if refusal.reason is not Reason.CIRCUIT_OPEN:
        return None
    return _shift(route, refused, refusal, rng)


def shift_around(route: LiveRoute, shut: Destination, rng: random.Random) -> Shift | None:
    """The same for one that is not even asked, since its breaker would refuse."""
    return None if route.single is shut else _shift(route, shut, None, rng)


def _shift(
    route: LiveRoute, refused: Destination, refusal: Refusal | None, rng: random.Random
) -> Shift | None:
    shares = route.policy.shares
    if shares.when_open is WhenOpen.KEEP or all(choice is not refused for choice, _ in route.choices):
        return None  # the fallback's is none of them
    return Shift(route.choices, shares.shift_up_to, refusal, rng)
