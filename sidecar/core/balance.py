"""Which endpoint gets the next attempt: power of two choices by requests in flight (Mitzenmacher, 2001).

Two random candidates and the less busy one: close to "least loaded" without a scan and without the herd that
follows a global minimum.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    in_flight: int


T = TypeVar("T", bound=Loaded)
Choice = TypeVar("Choice")


def pick(candidates: Sequence[T], rng: random.Random, avoid: T | None = None) -> T | None:
    """One of `candidates`, or None when there are none.

    `avoid` was tried already: it is chosen again only if there is nothing else.
    """
    count = len(candidates)
    if count <= 1:
        return candidates[0] if count else None
    if avoid is not None:
        candidates = [one for one in candidates if one is not avoid] or candidates
        count = len(candidates)
        if count == 1:
            return candidates[0]
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    if second >= first:
        second += 1
    a, b = candidates[first], candidates[second]
    return a if a.in_flight <= b.in_flight else b


def pick_weighted(choices: Sequence[tuple[Choice, int]], total: int, rng: random.Random) -> Choice:
    """One of `choices` by its weight; `total` is the sum of all weights and above zero."""
    point = rng.random() * total
    for choice, weight in choices:
        point -= weight
        if point < 0:
            return choice
    return choices[-1][0]
