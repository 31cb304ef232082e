"""The connections of one endpoint: which of them the next request gets.

Decides synchronously; opening and waiting are its `Cluster`'s. Owned by that cluster, touched on the event loop only.
Last in, first out: the youngest connection is the least likely to have been closed by the other side, and the oldest
ones get a chance to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from typing import Any

from sidecar.core.endpoint_facts import EndpointFacts
from sidecar.core.errors import Reason
from sidecar.core.snapshot import Endpoint
from sidecar.transport.tls.client import ServerIdentity
from sidecar.upstream.http1 import UpstreamConnection
from sidecar.upstream.lease import CLOSED_AT_ONCE, Fate, Lease, LeaseLine, LeasePool, Seeker


class Pool(LeasePool):
    """One endpoint with its connections; `in_flight` is what the balancer compares."""

    __slots__ = (
        "_connections", "begun_at", "cluster", "endpoint", "facts", "idle", "in_flight", "is_own_pod", "is_retired",
        "is_shared", "lingering", "secure", "standing",
    )  # fmt: skip

    def __init__(self, cluster: LeaseLine, endpoint: Endpoint, secure: ServerIdentity | None = None) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.secure = secure
        self.facts = EndpointFacts(endpoint, "1.1", "http" if secure is None else "https")
        self.is_own_pod = False
        self.is_shared = False
        self.in_flight = self.lingering = 0
        self.begun_at = -inf
        self.is_retired = False
        """True once the endpoint has left the cluster: connections are not kept any more."""
        self.idle: dict[Lease, None] = {}
        """Ready for the next attempt, the youngest last."""
        self._connections: set[Lease] = set()

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

    def take(self, now: float, is_sure: bool) -> Lease | None:
        """The youngest idle connection that may still be used, or None.

        `is_sure`: the request could not be sent again, so the kernel is asked whether the upstream has closed
        (0.5 µs). Others are saved by being sent once more.
        """
        idle = self.idle
        while idle:
            connection, _ = idle.popitem()
            if connection.expires > now and not (is_sure and connection.has_ended_unseen()):
                return connection
            connection.abort()
        return None

    def close_one_idle(self, now: float) -> bool:
        """Make room for a connection to elsewhere."""
        connection = self.take(now, True) if self.idle else None
        if connection is not None:
            connection.abort()
        return connection is not None

    def new_connection(self) -> UpstreamConnection:
        return UpstreamConnection(self)

    def hand_out(self, connection: UpstreamConnection, seekers: Sequence[Seeker]) -> list[Seeker]:
        """Give it to the one who waits for it; without one it lies idle."""
        now = asyncio.get_running_loop().time()
        if not seekers:
            connection.release(Fate.REUSABLE, now)
            connection.is_reused = False
        give(connection, seekers)
        return []

    def add(self, connection: Lease) -> None:
        """Count a connection that was just opened, in the place that the cluster reserved for it."""
        self._connections.add(connection)

    def forget(self, connection: Lease) -> None:
        """A connection has closed, idle or not."""
        if connection in self._connections:
            self._connections.remove(connection)
            self.idle.pop(connection, None)
            self.cluster.connection_closed()

    def idle_due(self, idle_seconds: float) -> float:
        """When the first of the idle ones is to be closed; infinite without any."""
        return min((min(one.idle_since + idle_seconds, one.expires) for one in self.idle), default=inf)

    def close_idle(self, idle_seconds: float, now: float) -> None:
        """Close what has been idle for so long, and what its upstream is about to close.

        Reckoned as in `idle_due`: what is due by that is closed, however floats round.
        """
        due = [one for one in self.idle if min(one.idle_since + idle_seconds, one.expires) <= now]
        for one in due:
            del self.idle[one]
        self._close(due)

    def close_all_idle(self) -> int:
        """Returns how many there were."""
        idle = list(self.idle)
        self.idle.clear()
        self._close(idle)
        return len(idle)

    def _close(self, connections: list[Lease]) -> None:
        """A few in a turn of the loop. They are idle no more, so that nobody gets one meanwhile."""
        for connection in connections:
            self.cluster.turns.end(connection.abort)

    def all_connections(self) -> list[Any]:
        """All that are open, and can be held back (`UpstreamConnection.hold_for_memory`)."""
        return list(self._connections)

    def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        self.is_retired = True
        self.close_all_idle()


def give(connection: Any, seekers: Sequence[Seeker]) -> None:
    """Give one that was just opened, and serves one request at a time, to the one who waits for it."""
    for seeker in seekers:
        if connection.is_open:
            seeker.leased(connection)
        else:
            seeker.not_leased(Reason.CONNECTION_RESET, CLOSED_AT_ONCE)
