"""How many connections to upstreams this process may have open, over all of them together.

Each is an open file, of which a process has only so many (`runtime/file_limits.py`). At the limit an idle one makes
room, of whatever upstream; without any, who needs another is told that this process lacks something. Owned by the
assembly of the data path, shared by its clusters.
"""

from __future__ import annotations

from collections.abc import Callable


class ConnectionBudget:
    """Counts them; a cluster takes a place before it connects and gives it back when the connection has closed."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._idle_closers: dict[object, Callable[[], bool]] = {}

    def __repr__(self) -> str:
        return f"<ConnectionBudget {self.taken} of {self.most}>"

    def join(self, cluster: object, close_one_idle: Callable[[], bool]) -> None:
        """`close_one_idle` closes an idle connection of this cluster; False if it has none."""
        self._idle_closers[cluster] = close_one_idle

    def leave(self, cluster: object) -> None:
        self._idle_closers.pop(cluster, None)

    def take(self) -> bool:
        """Take a place; False when there is none and no idle connection anywhere."""
        if self.taken >= self.most and not any(close() for close in list(self._idle_closers.values())):
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        self.taken -= 1
