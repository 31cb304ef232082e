"""How often something may die before it is given up, and how long to wait before it is started again (SPEC 9).

For parts of a process (`actor.py`) and for processes of a pod (`workers/supervisor.py`) alike.
"""

from __future__ import annotations

from collections import deque

MAX_CRASHES = 5
"""In `CRASH_PERIOD_SECONDS`; the next one is the last."""
CRASH_PERIOD_SECONDS = 60.0
FIRST_BACKOFF_SECONDS = 0.1
"""Before the first restart; doubles with each crash of the period (0.1, 0.2, 0.4, 0.8, 1.6 s)."""


class Restarts:
    """The deaths of one thing."""

    def __init__(self) -> None:
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES + 1)

    def backoff(self, now: float) -> float | None:
        """It has died: how many seconds to wait before its next life; None when there were too many."""
        self._crashes.append(now)
        while self._crashes[0] < now - CRASH_PERIOD_SECONDS:
            self._crashes.popleft()
        count = len(self._crashes)
        return None if count > MAX_CRASHES else FIRST_BACKOFF_SECONDS * 2.0 ** (count - 1)

    def told(self) -> str:
        """How often it has died of late."""
        return f"{len(self._crashes)} times within {CRASH_PERIOD_SECONDS:g} s"
