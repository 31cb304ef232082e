"""One address that accepts traffic: its socket, its connections and their limits.

Decides who is let in and, once a second, looks after connections that take too long. Owned by `runtime/`.
"""

from __future__ import annotations

import asyncio
import logging

from sidecar.core.plain import Field
from sidecar.core.snapshot import Address, Listener, Trust
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.phase import limits
from sidecar.forwarding.service import Service
from sidecar.transport.bind import BACKLOG, bind

_LOG = logging.getLogger("sidecar.downstream")


class ListenerSocket:
    """A bound and accepting listener. `policy` may be replaced by a reload that keeps its address."""

    def __init__(self, policy: Listener, service: Service) -> None:
        self.service = service
        self.name = policy.name
        self.adopt(policy)
        self.now = service.clock()
        """The time at the last look, so that nobody needs a clock for a figure in seconds."""
        self.refused_connections = 0
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<ListenerSocket {self.name} {self.policy.address} connections={len(self._connections)}>"

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    @property
    def address(self) -> Address:
        """Where it listens; the real port where 0 was asked for."""
        asked = self.policy.address
        if asked.path is not None or self._server is None or asked.port:
            return asked
        sockets = getattr(self._server, "sockets", ())
        return Address(asked.host, sockets[0].getsockname()[1]) if sockets else asked

    def adopt(self, policy: Listener) -> None:
        """Take new limits and timeouts; connections that are there keep their place."""
        self.policy = policy
        self.limits = policy.limits
        self.timeouts = policy.timeouts
        self.small_head_bytes = min(
            policy.limits.url_bytes, policy.limits.head_bytes, 4 * policy.limits.headers
        )
        """A read up to this size cannot break a limit (a header field takes at least four bytes)."""
        self.is_trusted = policy.trust is Trust.ALL

    def is_too_large(self, head_bytes: int, url: bytes, fields: list[Field]) -> bool:
        """Whether a head of that size breaks a limit."""
        limits = self.limits
        return head_bytes > limits.head_bytes or len(url) > limits.url_bytes or len(fields) > limits.headers

    async def start(self) -> None:
        """Bind and accept.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        loop = self.service.loop
        address = self.policy.address
        bound = bind(address, f"listeners.{self.name}.address")
        serve = loop.create_server if address.path is None else loop.create_unix_server
        self._server = await serve(lambda: ClientConnection(self), sock=bound, backlog=BACKLOG)
        self._timer = loop.call_later(1.0, self._check)

    def stop_accepting(self) -> None:
        """No new connections; those without a request under way are closed."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drain()

    def close(self) -> None:
        """Cut everything."""
        self.stop_accepting()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections):
            connection.abort()

    # What connections say

    def accept(self, connection: ClientConnection) -> bool:
        if len(self._connections) >= self.limits.connections:
            self.refused_connections += 1
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)

    def _check(self) -> None:
        self.now = self.service.clock()
        for connection in list(self._connections):
            connection.check(self.now)
        self._timer = self.service.loop.call_later(1.0, self._check)
