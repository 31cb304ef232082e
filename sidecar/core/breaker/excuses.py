"""Which failures in a breaker's window are not counted, since they are those of an unusable endpoint.

While another endpoint is usable, what unusable ones did says nothing of the upstream (SPEC-UPSTREAM, Ejection). An
endpoint is found to be unusable after some failures, which stand in the window by then: they are taken out of its
counts, and put back if in the end no endpoint is usable, or once the endpoint is usable again. So it is remembered
where the failures of each endpoint stand. Successes stay: they were some.

Memory: at most twice what the window holds, in entries of a bucket (time) or a call (count). Nothing without
failures.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from sidecar.core.breaker.window import EXCUSED, FAILED, Window
from sidecar.core.ejection.peers import Peers

_PRUNED_FROM: Final = 512


class Excuses:
    """Of one breaker in one state period."""

    __slots__ = ("_excused", "_marks", "_noted", "_prune_at", "_version")

    def __init__(self) -> None:
        self._marks: dict[Hashable, dict[tuple[int, int], int]] = {}
        """Of each endpoint: place and mark in the window, and how many calls have it."""
        self._excused: frozenset[Hashable] = frozenset()
        self._noted = 0
        self._prune_at = _PRUNED_FROM
        self._version = -1

    def failing(self, window: Window) -> set[Hashable]:
        """Endpoints that have a failure in the window."""
        return {
            endpoint
            for endpoint, marks in self._marks.items()
            if any(mark & FAILED and window.holds(place) for place, mark in marks)
        }

    def note(self, endpoint: Hashable, place: int, mark: int, window: Window) -> None:
        """A call of this endpoint stands there with this mark, which is no plain success."""
        marks = self._marks.setdefault(endpoint, {})
        count = marks.get((place, mark), 0)
        marks[place, mark] = count + 1
        self._noted += not count
        if self._noted > self._prune_at:
            self._prune(window)

    def change(self, endpoint: Hashable, place: int, mark: int) -> None:
        """One that was noted has got another mark."""
        marks = self._marks.get(endpoint, {})
        count = marks.get((place, mark), 0)
        if count > 1:
            marks[place, mark] = count - 1
        elif count:
            del marks[place, mark]
            self._noted -= 1

    def _prune(self, window: Window) -> None:
        """Forget what has left the window."""
        kept = {}
        for endpoint, marks in self._marks.items():
            held = {key: count for key, count in marks.items() if window.holds(key[0])}
            if held:
                kept[endpoint] = held
        self._marks = kept
        self._noted = sum(map(len, kept.values()))
        self._prune_at = max(_PRUNED_FROM, 2 * self._noted)

    def settle(self, peers: Peers, window: Window, now: float) -> bool:
        """Take out and put back what is to be. Returns whether other endpoints count than before."""
        if self._version == peers.version:
            return False
        self._version = peers.version
        window.expire(now)
        excused = frozenset(endpoint for endpoint in self._marks if not peers.counts(endpoint))
        for endpoint in excused ^ self._excused:
            is_excused = endpoint in excused
            for (place, mark), count in self._marks.get(endpoint, {}).items():
                before, after = (mark, EXCUSED) if is_excused else (EXCUSED, mark)
                window.change(place, before, after, now, count)
        self._excused = excused
        return True

    def clear(self) -> None:
        """A new state period."""
        self._marks = {}
        self._excused = frozenset()
        self._noted, self._prune_at, self._version = 0, _PRUNED_FROM, -1
