"""Chance and turns by weight, for any number of items at the same cost.

* `WeightedDraw`: Walker's alias method in Vose's form (1991). Each item is a column of the same width, filled up by
  at most one other item, so that a draw is one random number and one comparison. To build it takes time in proportion
  to the number of items.
* `WeightedTurns`: earliest deadline first, as in Envoy: an item's next turn comes 1 ÷ weight after its last one. A
  heap finds the earliest in O(log n).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from heapq import heapify, heapreplace
from typing import Generic, TypeVar

T = TypeVar("T")


class WeightedDraw(Generic[T]):
    """Items by chance, each in proportion to its weight."""

    __slots__ = ("_aliases", "_items", "_limits")

    def __init__(self, items: Sequence[T], weights: Sequence[float]) -> None:
        """`weights` are above zero; there is at least one item."""
        count = len(items)
        mean = sum(weights) / count
        heights = [weight / mean for weight in weights]
        self._items = items
        self._limits = [1.0] * count
        self._aliases = list(range(count))
        low = [number for number, height in enumerate(heights) if height < 1.0]
        high = [number for number, height in enumerate(heights) if height >= 1.0]
        while low and high:
            small, large = low.pop(), high[-1]
            self._limits[small], self._aliases[small] = heights[small], large
            heights[large] -= 1.0 - heights[small]
            if heights[large] < 1.0:
                low.append(high.pop())

    def draw(self, rng: random.Random) -> T:
        point = rng.random() * len(self._items)
        column = int(point)
        return self._items[column if point - column < self._limits[column] else self._aliases[column]]


class WeightedTurns(Generic[T]):
    """Items in turn, each as often as its weight says, spread evenly."""

    __slots__ = ("_due", "_items", "_periods")

    def __init__(self, items: Sequence[T], weights: Sequence[float], rng: random.Random) -> None:
        """`weights` are above zero. `rng`: many that begin together do not begin with the same item."""
        self._items = items
        self._periods = [1.0 / weight for weight in weights]
        self._due = [(period * rng.random(), number) for number, period in enumerate(self._periods)]
        heapify(self._due)

    def next(self, avoid: Collection[T] = ()) -> T | None:
        """The one whose turn it is; who is to be avoided loses his. None: too few others are found at once."""
        for _ in range(len(avoid) + 1):
            due, number = self._due[0]
            heapreplace(self._due, (due + self._periods[number], number))
            item = self._items[number]
            if item not in avoid:
                return item
        return None
