"""An upstream that speaks HTTP/2, without sockets: connections with the frames that a test sends them."""

from __future__ import annotations

import asyncio

from sidecar.core import websocket
from sidecar.core.head import NOTHING, RequestHead
from sidecar.core.request import Request, Traits
from sidecar.core.snapshot import HttpVersion
from sidecar.upstream.cluster import Cluster, Wait
from sidecar.upstream.http2 import Http2UpstreamConnection
from sidecar.upstream.http2_pool import Http2Pool
from sidecar.upstream.http2_stream import SentStream
from tests.http2.wire import ACK, SETTINGS, Frame, frame, frames_of, setting
from tests.support.by_hand import (
    HandConnecting,
    HandLoop,
    HandTransport,
    Hearing,
    Waiting,
    connected,
    hand_cluster,
    request,
)

MAX_CONCURRENT_STREAMS = 3
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


class Upstream:
    """One endpoint; the test opens its connections and says what they hear."""

    def __init__(self, max_connections: int = 1024) -> None:
        self.turns_loop = HandLoop()
        """Where the turns are counted; nothing happens in it by itself."""
        self.cluster: Cluster = hand_cluster(
            self.turns_loop, max_connections=max_connections, protocol=HttpVersion.HTTP2
        )
        self.loop = asyncio.get_running_loop()
        self.cluster._clock = self.loop.time
        pool = self.cluster.pools[0]
        assert isinstance(pool, Http2Pool)
        self.pool = pool

    def connect(self, *, limit: int | None = None, says: bool = True) -> Peer:
        """One more connection in the pool. Its peer has said how many streams it allows, or nothing yet."""
        self.cluster.connections += 1
        self.cluster.budget.take()
        connection = self.pool.new_connection()
        peer = Peer(connection, connected(connection))
        self.pool.add(connection)
        if says:
            peer.say_settings(limit)
        return peer

    def open(self, connecting: HandConnecting) -> Peer:
        """A connection that was asked for has come about: hand it to those who wait for it."""
        connection = self.pool.new_connection()
        peer = Peer(connection, connected(connection))
        self.pool.add(connection)
        seekers, connecting.seekers = connecting.seekers, []
        connecting._on_end(connecting, True)
        left = self.pool.hand_out(connection, seekers)
        if left:
            self.cluster._stand_in_line(connecting, left)  # type: ignore[arg-type]
        return peer

    def ask(self, asked: Request | None = None) -> Call:
        """A request, on the place that the pool gives."""
        place = self.pool.take(self.loop.time(), is_sure=True)
        assert place is not None
        return Call(place, asked=asked)

    def seek(self, seeker: Waiting | None = None) -> Wait:
        wait = self.cluster.wait_for(self.pool, seeker or Waiting())
        assert isinstance(wait, Wait)
        return wait


class Call:
    """One request that was sent, and what came of it."""

    def __init__(self, place: SentStream, length: int = 0, asked: Request | None = None) -> None:
        self.place = place
        self.sink = Hearing()
        self.stream = place.begin(self.sink)
        head = request_head(length)
        head.request = asked or head.request
        self.stream.send_head(head)

    @property
    def heard(self) -> list[object]:
        return list(self.sink.notes)


class Asking(Waiting):
    """Who sends its request as soon as it has a place, as an attempt does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def leased(self, lease: object) -> None:
        assert isinstance(lease, SentStream)
        self.calls.append(Call(lease))


class Peer:
    """The upstream's side of one connection."""

    def __init__(self, connection: Http2UpstreamConnection, transport: HandTransport) -> None:
        self.connection = connection
        self.transport = transport

    def say(self, *frames: bytes) -> None:
        """All in one read."""
        self.connection.data_received(b"".join(frames))

    def say_settings(self, limit: int | None = None) -> None:
        pairs = [] if limit is None else [(MAX_CONCURRENT_STREAMS, limit)]
        self.say(setting(*pairs), frame(SETTINGS, ACK, 0))

    async def frames(self, *kinds: int) -> list[Frame]:
        """What was written since the last call, of these kinds if any are named."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [one for one in frames_of(self.transport.take()) if not kinds or one.kind in kinds]

    def lose(self) -> None:
        self.connection.connection_lost(None)


def switching(http_version: str = "2") -> Request:
    """The handshake of a WebSocket."""
    asked = request(b"GET", traits=Traits(http_version=http_version, upgrade=b"websocket"))
    asked.lookup = {websocket.KEY: KEY} if http_version == "1.1" else {}
    return asked


def request_head(length: int = 0, method: bytes | None = None) -> RequestHead:
    head = RequestHead()
    head.request = request(method or (b"POST" if length else b"GET"), length=length)
    head.target, head.authority = b"/", b"app"
    head.drop, head.added, head.own = frozenset(), NOTHING, []
    return head
