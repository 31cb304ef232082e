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

    __slots__ = ("_connections", "_idle", "cluster", "endpoint", "in_flight", "is_retired")

    def __init__(self, cluster: Cluster, endpoint: Endpoint) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.in_flight = 0
        self.is_retired = False
        """True once the endpoint has left the cluster: connections are not kept any more."""
        self._idle: list[UpstreamConnection] = []
        self._connections: set[UpstreamConnection] = set()

    def __repr__(self) -> str:
        return (
            f"<Pool {self.endpoint} idle={len(self._idle)} open={len(self._connections)}"
            f" in_flight={self.in_flight}>"
        )

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def open_count(self) -> int:
        return len(self._connections)

    def take(self) -> UpstreamConnection | None:
        """The youngest idle connection, or None."""
        return self._idle.pop() if self._idle else None

    def add(self, connection: UpstreamConnection) -> None:
        """Count a connection that was just opened, in the slot that the cluster reserved for it."""
        self._connections.add(connection)

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a reusable connection, or hand it to an exchange that waits for one."""
        cluster = self.cluster
        if self.is_retired:
            connection.abort()
        elif not cluster.waiters or not cluster.hand_to_waiter(connection):
            connection.idle_since = cluster.looked_at
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection has closed, idle or not."""
        if connection in self._connections:
            self._connections.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self.cluster.connection_closed()

    def close_idle(self, since: float) -> None:
        """Close what has been idle since `since` or longer."""
        for connection in [idle for idle in self._idle if idle.idle_since <= since]:
            connection.abort()

    def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        self.is_retired = True
        for connection in list(self._idle):
            connection.abort()
