"""Idle connections of one endpoint. Decides synchronously which one to use; the caller does the I/O.

Owned by its `Cluster`, touched on the event loop only. Last in, first out: the youngest connection is the least
likely to have been closed by the other side, and the oldest ones get a chance to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.snapshot import Endpoint
from sidecar.upstream.connection import UpstreamConnection

if TYPE_CHECKING:
    from sidecar.upstream.cluster import Cluster


class Pool:
    """One endpoint with its connections; `in_flight` is what the balancer compares."""

    __slots__ = ("_connections", "cluster", "endpoint", "idle", "in_flight", "is_retired")

    def __init__(self, cluster: Cluster, endpoint: Endpoint) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.in_flight = 0
        self.is_retired = False
        """True once the endpoint has left the cluster: connections are not kept any more."""
        self.idle: list[UpstreamConnection] = []
        """Ready for the next attempt, the youngest last: whoever takes one begins on it at once."""
        self._connections: set[UpstreamConnection] = set()

    def __repr__(self) -> str:
        return (
            f"<Pool {self.endpoint} idle={len(self.idle)} open={len(self._connections)}"
            f" in_flight={self.in_flight}>"
        )

    @property
    def idle_count(self) -> int:
        return len(self.idle)

    @property
    def open_count(self) -> int:
        return len(self._connections)

    def take(self) -> UpstreamConnection | None:
        """The youngest idle connection, or None."""
        return self.idle.pop() if self.idle else None

    def add(self, connection: UpstreamConnection) -> None:
        """Count a connection that was just opened, in the slot that the cluster reserved for it."""
        self._connections.add(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has closed, idle or not."""
        if connection in self._connections:
            self._connections.remove(connection)
            if connection in self.idle:
                self.idle.remove(connection)
            self.cluster.connection_closed()

    def close_idle(self, since: float) -> None:
        """Close what has been idle since `since` or longer."""
        for connection in [idle for idle in self.idle if idle.idle_since <= since]:
            connection.abort()

    def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        self.is_retired = True
        for connection in list(self.idle):
            connection.abort()
