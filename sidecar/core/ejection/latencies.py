"""How long the last successes of one endpoint took, for `slower_than_peers` alone."""

from __future__ import annotations

from array import array
from typing import Final

KEPT: Final = 64
NEEDED: Final = 20
"""Calls of an endpoint, and of each of its peers, below which nothing is compared."""
PEERS_NEEDED: Final = 3


class Latencies:
    """A ring of the last 64; `add` takes constant time. Seconds."""

    __slots__ = ("_next", "_ring")

    def __init__(self) -> None:
        self._ring = array("f")
        self._next = 0

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, seconds: float) -> None:
        if len(self._ring) < KEPT:
            self._ring.append(seconds)
            return
        self._ring[self._next] = seconds
        self._next = (self._next + 1) % KEPT

    def clear(self) -> None:
        self._ring = array("f")
        self._next = 0

    def median(self) -> float | None:
        """None with fewer than 20."""
        count = len(self._ring)
        return sorted(self._ring)[count // 2] if count >= NEEDED else None
