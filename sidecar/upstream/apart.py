"""A connection to one endpoint that no request shares and no limit of the upstream counts: for a health check.

It is opened as those of requests are: by the same TLS, and the same protocol. It is an open file like any other, and
has its place in the budget of all connections. Each check has its own, so what is asked for is what the next request
may need: that the endpoint takes a connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.alpn import HTTP_2
from sidecar.core.errors import Reason
from sidecar.core.snapshot import Endpoint, HttpVersion
from sidecar.transport.tls.failures import TlsFailed
from sidecar.upstream.connecting import Connecting
from sidecar.upstream.lease import Lease, LeaseLine, LeasePool, Seeker
from sidecar.upstream.pool import Pool
from sidecar.upstream.pool_kinds import pool_kind

if TYPE_CHECKING:
    from sidecar.core.ejection.change import EndpointChange
    from sidecar.upstream.cluster import Cluster
    from sidecar.upstream.http2_pool import Http2Pool

NOBODY: Final = ()


class Apart(LeaseLine):
    """The place of one such connection, from `begin` to `close`."""

    def __init__(self, cluster: Cluster, endpoint: Endpoint) -> None:
        self.turns = cluster.turns
        self.memory = cluster.memory
        self.is_mesh = cluster.is_mesh
        self.departure = cluster.departure
        self.waited = cluster.waited
        self.peers = cluster.peers
        self.waits = NOBODY
        self.idle_timer: asyncio.TimerHandle | None = None
        self._cluster = cluster
        self._connecting: Connecting | None = None
        self._endpoint = endpoint
        self.pool: Pool | Http2Pool | None = None
        """There as long as the connection, on its way or open: it points back here, and no cycle may be left, since
        a reload would freeze it for good."""
        self._holds_place = self._is_closed = False

    def __repr__(self) -> str:
        return f"<Apart from {self._cluster.name}: {self._endpoint}>"

    def _pool(self, kind: type[Pool] | type[Http2Pool], endpoint: Endpoint) -> Pool | Http2Pool:
        pool = self._cluster.pool_for(kind, endpoint)
        pool.cluster = self
        return pool

    def begin(self, seeker: Seeker, seconds: float) -> bool:
        """Open it, within `seconds`, and tell `seeker`; False: this process may open no more files."""
        if not self._cluster.budget.take():
            return False
        self._holds_place = True
        kind = pool_kind(self._cluster.policy.protocol)
        pool = self.pool = self._pool(kind, self._endpoint)
        connecting = self._connecting = Connecting(pool, seconds, self._connected)
        connecting.seekers.append(seeker)
        return True

    def _connected(self, _: Connecting, has_worked: bool) -> None:
        self._connecting = None
        if not has_worked:
            self.connection_closed()
        elif self._is_closed and self.pool is not None:
            self.pool.retire()

    def close(self, seeker: Seeker) -> None:
        """It is not needed any more, in whatever state."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel(seeker)
        if self.pool is not None:
            self.pool.retire()

    # What its connection may ask

    def pool_speaking(self, pool: LeasePool, alpn: str | None) -> LeasePool:
        is_2 = alpn == HTTP_2
        if self._cluster.policy.protocol is not HttpVersion.AUTO:
            if pool.is_shared and not is_2:
                raise TlsFailed(Reason.TLS_PROTOCOL, "HTTP/2 was not agreed on in the handshake (ALPN)")
        elif not is_2:
            self.pool = spoken = self._pool(Pool, pool.endpoint)
            return spoken
        return pool

    def connection_closed(self) -> None:
        self.pool = None
        if self._holds_place:
            self._holds_place = False
            self._cluster.budget.give_back()

    def linger(self, pool: Any, seconds: float) -> None: ...

    def settle(self, now: float) -> EndpointChange | None:
        return None

    def open_more(self, pool: LeasePool) -> None: ...

    def suits_first(self, pool: LeasePool) -> bool:
        return True

    def hand_to_waiter(self, lease: Lease) -> bool:
        return False

    def watch_idle(self, now: float) -> None: ...
