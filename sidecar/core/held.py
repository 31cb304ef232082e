"""When the event loop was held: stopped by a signal, starved by others, or busy with one long turn.

In such a time nothing is read, so whatever seems to be late may have been there all along. Keeps the last of these
times and says how much of a span they cover; measures nothing, and knows no clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

HELD_SECONDS: Final = 0.02
"""A turn longer than this is one in which the loop was held."""
SHARE: Final = 0.25
"""An attempt that saw more of its time go by with a held loop says nothing of its upstream."""
KEPT: Final = 64
"""Times that are kept; those that follow each other at once are one."""
_GAP_SECONDS: Final = 0.002


class HeldTimes:
    """The last times in which the loop was held. Owned by the loop."""

    __slots__ = ("_spans", "until")

    def __init__(self) -> None:
        self._spans: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self.until = float("-inf")
        """When the last one ended."""

    def __repr__(self) -> str:
        return f"<HeldTimes {list(self._spans)}>"

    def note(self, begin: float, end: float) -> None:
        """It was held from `begin` to `end`, which is not before the end of any other."""
        spans = self._spans
        if spans and begin <= spans[-1][1] + _GAP_SECONDS:
            begin = min(begin, spans.pop()[0])
        spans.append((begin, end))
        self.until = end

    def seconds(self, since: float, now: float) -> float:
        """For how long it was held between the two."""
        total = 0.0
        for begin, end in reversed(self._spans):
            if end <= since:
                break
            total += max(0.0, min(end, now) - max(begin, since))
        return total

    def blinds(self, seconds: float, now: float) -> bool:
        """Whether in the last `seconds` the loop was held for too long to judge what was late in them."""
        return self.until > now - seconds and self.seconds(now - seconds, now) > SHARE * seconds
