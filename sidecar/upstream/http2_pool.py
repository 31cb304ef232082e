"""The connections of one endpoint that speaks HTTP/2: which of them carries the next request.

Decides synchronously; opening and waiting are its `Cluster`'s. Few connections carry all requests: one more is opened
when the others are at the peer's limit of streams, and a second one where an upstream has one address alone, since a
service's virtual address (ClusterIP) pins each connection to one pod. Owned by that cluster, on the event loop only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.endpoint_facts import EndpointFacts
from sidecar.core.errors import Reason
from sidecar.core.snapshot import Endpoint
from sidecar.http2.settings import age_seconds
from sidecar.http2.streams import STREAMS_BEFORE_SETTINGS
from sidecar.transport.tls.client import ServerIdentity
from sidecar.upstream.http2 import Http2UpstreamConnection
from sidecar.upstream.http2_stream import SentStream
from sidecar.upstream.lease import CLOSED_AT_ONCE, LeaseLine, Seeker, SharingPool

if TYPE_CHECKING:
    from sidecar.upstream.connecting import Connecting

LEAST_CONNECTIONS: Final = 2
"""To the only address of an upstream, as soon as one is busy."""
MORE_EVERY_SECONDS: Final = 1.0
"""Between two attempts to have that second one, where the endpoint refuses it."""
JOIN_MOST: Final = 100
"""Who may wait for the same connection: what a peer allows is not known before it is open."""


class Http2Pool(SharingPool):
    """One endpoint with its connections; `in_flight` is what the balancer compares."""

    __slots__ = (
        "begun_at", "cluster", "connecting", "endpoint", "facts", "idle", "in_flight", "is_own_pod", "is_retired",
        "is_shared", "lingering", "may_ping", "more_from", "secure", "standing", "stream_limit",
    )  # fmt: skip

    def __init__(self, cluster: LeaseLine, endpoint: Endpoint, secure: ServerIdentity | None = None) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.secure = secure
        self.facts = EndpointFacts(endpoint, "2", "http" if secure is None else "https")
        self.is_own_pod = False
        self.is_shared = True
        self.in_flight = self.lingering = 0
        self.begun_at = -inf
        self.is_retired = False
        self.may_ping = True
        self.stream_limit = STREAMS_BEFORE_SETTINGS
        self.more_from = -inf
        """From when on a second connection may be tried, in seconds on the loop's clock."""
        self.connecting: Connecting | None = None
        """The connection that is being opened, which others may join."""
        self.idle: dict[Http2UpstreamConnection, None] = {}  # type: ignore[assignment]
        """All of them: whether one has room for one more request says `take`."""

    def __repr__(self) -> str:
        return f"<Http2Pool {self.endpoint} open={len(self.idle)} in_flight={self.in_flight}>"

    @property
    def idle_count(self) -> int:
        return sum(connection.is_idle for connection in self.idle)

    @property
    def open_count(self) -> int:
        return len(self.idle)

    def take(self, now: float, is_sure: bool) -> SentStream | None:
        """A place on the connection that carries least, or None."""
        best: Http2UpstreamConnection | None = None
        least = 0
        for one in self.idle:
            load = one.codec.load.open_streams
            if (best is None or load < least) and one.has_room_at(now):
                best, least = one, load
        if best is None:
            return None
        if least and len(self.idle) < LEAST_CONNECTIONS and self.connecting is None and now >= self.more_from:
            self.more_from = now + MORE_EVERY_SECONDS
            self.cluster.open_more(self)
        return SentStream().take(best)

    @property
    def may_join(self) -> int:
        """How many may wait for the same connection, one at least."""
        return max(1, min(JOIN_MOST, self.stream_limit))

    def new_connection(self) -> Http2UpstreamConnection:
        return Http2UpstreamConnection(self)

    def add(self, connection: Http2UpstreamConnection) -> None:
        """Count a connection that was just opened, in the place that the cluster reserved for it."""
        if not connection.is_open:  # lost before anybody could use it
            self.cluster.connection_closed()
            return
        self.idle[connection] = None
        connection.expires = connection.now() + age_seconds(random.random())

    def hand_out(self, connection: Http2UpstreamConnection, seekers: Sequence[Seeker]) -> list[Seeker]:
        """Give each a place on a new connection; returns those whom it has none for."""
        left = []
        for number, seeker in enumerate(seekers):
            if not connection.is_open:
                seeker.not_leased(Reason.CONNECTION_RESET, CLOSED_AT_ONCE, is_counted=number == 0)
                continue
            place = connection.place()
            if place is None:
                left.append(seeker)
            else:
                seeker.leased(place)
        self.came_free(connection, connection.now())
        return left

    def came_free(self, connection: Http2UpstreamConnection, now: float) -> None:
        cluster = self.cluster
        if cluster.waits:
            if cluster.suits_first(self):
                place = connection.place()
                if place is not None:
                    cluster.hand_to_waiter(place)
            elif not connection.codec.load.open_streams:
                connection.close()  # makes room for a connection to elsewhere
                return
        if connection.codec.load.open_streams:
            return
        if self.is_retired:
            connection.close()
        elif cluster.idle_timer is None:
            cluster.watch_idle(now)

    def forget(self, connection: Any) -> None:
        if connection in self.idle:
            del self.idle[connection]
            self.cluster.connection_closed()

    def close_one_idle(self, now: float) -> bool:
        """Make room for a connection to elsewhere."""
        for connection in self.idle:
            if connection.is_idle:
                connection.close()
                return True
        return False

    def idle_due(self, idle_seconds: float) -> float:
        """When the first of those without a stream is to be closed; infinite without any."""
        idle = (one for one in self.idle if one.is_idle and not one.is_leaving)
        return min((min(one.idle_since + idle_seconds, one.expires) for one in idle), default=inf)

    def close_idle(self, idle_seconds: float, now: float) -> None:
        """Close what has been without a stream for so long, and what is too old. Reckoned as in `idle_due`."""
        for connection in list(self.idle):
            due = min(connection.idle_since + idle_seconds, connection.expires)
            if connection.is_idle and due <= now and not connection.is_leaving:
                connection.leave()

    def close_all_idle(self) -> int:
        """Returns how many there were."""
        idle = [one for one in self.idle if one.is_idle and not one.is_leaving]
        for connection in idle:
            connection.leave()
        return len(idle)

    def retire(self) -> None:
        """Close what is idle now, and the rest as its last stream ends."""
        self.is_retired = True
        self.close_all_idle()
