"""A connection that carries bytes and no requests: it is a tunnel's from the moment it is open.

To the attempt that asks for it, it is an upstream that switches protocols at once: nothing is sent, and `switched`
comes as soon as somebody is connected. So breaker, limits, deadline and telemetry hold for the connecting as for any
attempt. Each has a pool of its own beside that of its endpoint, since it is never idle and never shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from typing import Any, Final, cast

from sidecar.core.errors import Reason
from sidecar.core.head import RequestHead, response_head
from sidecar.core.plain import Field
from sidecar.core.request import TUNNEL, Request
from sidecar.transport.link import Link
from sidecar.upstream.lease import CLOSED_AT_ONCE, Fate, Lease, LeasePool, Seeker
from sidecar.upstream.pool import Pool, give
from sidecar.upstream.streams import ClientStream, Processed, ResponseSink

_SWITCH: Final[list[Field]] = [(b"upgrade", b"Upgrade: %b\r\n" % TUNNEL, TUNNEL)]


class RawConnection(Lease, ClientStream):
    """One of them; read by nobody until it is handed over."""

    __slots__ = (
        "_has_ended",
        "_own_pool",
        "_rest",
        "_sink",
        "_source",
        "expires",
        "idle_since",
        "is_open",
        "is_reused",
        "link",
        "pool",
    )

    link: Link

    def __init__(self, own_pool: RawPool) -> None:
        self.pool = self._own_pool = own_pool
        self.is_open = self.is_reused = False
        self.idle_since = 0.0
        self.expires = inf
        self._sink: ResponseSink | None = None
        self._source: tuple[str, int] | None = None
        """What it leaves from."""
        self._rest = b""
        """What its other side has said before anybody listens."""
        self._has_ended = False

    def leaves_from(self, place: tuple[str, int]) -> None:
        """It is being opened, from there: if it comes back to this process, it is known by that."""
        self._source = place
        self.pool.cluster.departure.sources.add(place)

    def __repr__(self) -> str:
        return f"<RawConnection {self.pool.endpoint} {'open' if self.is_open else 'closed'}>"

    # Lease

    def begin(self, sink: ResponseSink) -> RawConnection:
        self._sink = sink
        return self

    def release(self, fate: Fate, now: float) -> None:
        self._sink = None
        if fate is Fate.HANDED_OVER:
            self._forget()
        else:
            self.abort()

    def hand_over(self, protocol: Any) -> Link:
        self._sink = None
        self.link.set_sink(protocol)
        self.link.resume()
        if self._has_ended:
            asyncio.get_running_loop().call_soon(protocol.eof_received)
        return self.link

    def cannot_switch(self, request: Request) -> str:
        return ""

    def has_ended_unseen(self) -> bool:
        return False

    def abort(self) -> None:
        self._sink = None
        if self.is_open:
            self.link.abort()
            self._forget()

    def let_go(self) -> None:
        """Its opening failed or was called off: see `http1.UpstreamConnection`."""
        self._leave()
        if hasattr(self, "link"):
            self.connection_lost(None)

    def _leave(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            self.pool.cluster.departure.sources.discard(source)

    def _forget(self) -> None:
        self._leave()
        if self.is_open:
            self.is_open = False
            self.pool.cluster.memory.left()
            self._own_pool.forget(self)

    # ClientStream

    def send_head(
        self, head: RequestHead, held: Sequence[Any] = (), trailers: Sequence[Field] | None = None
    ) -> None:
        asyncio.get_running_loop().call_soon(self._switch)  # a stream calls nobody back before it returns

    def _switch(self) -> None:
        if self._sink is not None:
            rest, self._rest = self._rest, b""
            self._sink.switched(response_head(200, _SWITCH, None), rest)

    def send_data(self, data: bytes) -> None:
        """Not called: a CONNECT has no body (RFC 9110 9.3.6)."""

    def end(self, trailers: Sequence[Field]) -> None: ...

    def reset(self, reason: Reason) -> None:
        self.abort()

    def hold(self) -> None: ...
    def resume(self) -> None: ...

    @property
    def unsent_bytes(self) -> int:
        return 0

    # What asyncio does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        link = self.link = Link(cast(asyncio.Transport, transport))
        self.is_open = True
        memory = self.pool.cluster.memory
        memory.joined()
        link.pause()  # whoever speaks first here is heard by the tunnel
        link.bound_unsent()
        link.bound_buffers(memory.buffer_bytes)
        link.keep_alive()

    def connection_lost(self, error: Exception | None) -> None:
        self.link.lost()
        self._forget()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.failed(Reason.CONNECTION_RESET, CLOSED_AT_ONCE, Processed.NEVER)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        self.link.pause_again()

    def eof_received(self) -> bool:
        self._has_ended = True
        return True

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class RawPool(Pool):
    """Of one tunnel, beside the pool of its endpoint: what is thought of the endpoint, both share."""

    __slots__ = ("beside",)

    def __init__(self, beside: LeasePool) -> None:
        super().__init__(beside.cluster, beside.endpoint)
        self.beside = beside
        self.standing = beside.standing

    def new_connection(self) -> Any:
        return RawConnection(self)

    def hand_out(self, connection: Any, seekers: Sequence[Seeker]) -> list[Seeker]:
        """Without anybody who waits it is of no use to others. Its tunnel is in the load of the endpoint's pool."""
        if not seekers:
            connection.abort()
        connection.pool = self.beside
        give(connection, seekers)
        return []
