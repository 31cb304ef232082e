"""Which worker gets a connection that was accepted for all of them: the one with the fewest.

A worker tells how many connections it has and how many it was handed so far, in shared memory (`segment.py`). What
was handed and is not told yet counts as well, so a burst is dealt out to the unit. A number that is read while it is
written may send one connection to the wrong worker, and does nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Load(NamedTuple):
    """What a worker told."""

    open: int
    """Connections of those listeners."""
    taken: int
    """So many were handed to this process in all."""


class Dealing:
    """Who has been handed how many. Workers have numbers."""

    __slots__ = ("_handed",)

    def __init__(self) -> None:
        self._handed: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Dealing {self._handed}>"

    def joined(self, worker: int, load: Load) -> None:
        """A worker has come: what it was handed so far is what it says."""
        self._handed[worker] = load.taken

    def left(self, worker: int) -> None:
        """A worker has gone; nothing is for it any more."""
        self._handed.pop(worker, None)

    def order(self, loads: Iterable[tuple[int, Load]]) -> list[int]:
        """The workers that have come, the least loaded first; at equal load who was handed fewer goes first."""
        handed = self._handed
        found = [
            (load.open + max(0, handed[worker] - load.taken), handed[worker], worker)
            for worker, load in loads
            if worker in handed
        ]
        return [worker for _, _, worker in sorted(found)]

    def gave(self, worker: int) -> None:
        """It was handed one more."""
        self._handed[worker] += 1
