"""One address that accepts traffic: its socket, its connections and their limits.

Decides who is let in, and lets go of everybody in a drain. Owned by `runtime/`.
"""

from __future__ import annotations

import asyncio
import socket

from sidecar.core.snapshot import Address, Listener, Trust
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.phase import limits
from sidecar.forwarding.service import Service
from sidecar.transport.bind import BACKLOG, bind


class ListenerSocket:
    """A bound and accepting listener. `policy` may be replaced by a reload that keeps its address."""

    def __init__(self, policy: Listener, service: Service) -> None:
        self.service = service
        self.name = policy.name
        self.is_accepting = True
        self.adopt(policy)
        self.refused_connections = 0
        self._connections: set[ClientConnection] = set()
        self._bound: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None

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
        self.forwarded = policy.forwarded
        self.phase_seconds = limits(policy.timeouts, is_draining=not self.is_accepting)
        """How long each phase of a connection may last, by its value."""
        self.small_head_bytes = min(
            policy.limits.url_bytes, policy.limits.head_bytes, 4 * policy.limits.headers
        )
        """A head up to this size cannot break a limit (a header field takes at least four bytes)."""
        self.is_trusted = policy.trust is Trust.ALL

    async def start(self) -> None:
        """Bind and accept.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        loop = self.service.loop
        address = self.policy.address
        self._bound = bind(address, f"listeners.{self.name}.address")
        serve = loop.create_server if address.path is None else loop.create_unix_server
        self._server = await serve(lambda: ClientConnection(self), sock=self._bound, backlog=BACKLOG)

    def stop_accepting(self) -> None:
        """No new connections, but for those that the kernel has accepted already: they are served once more, as what
        is readable is on the others. Those without a request under way are closed."""
        if self.is_accepting and self._server is not None:
            self.is_accepting = False
            self.adopt(self.policy)
            self._accept_queued()
            self._server.close()
        for connection in list(self._connections):
            connection.drain()

    def _accept_queued(self) -> None:
        """Closing a listening socket resets what waits in its queue."""
        assert self._bound is not None
        for _ in range(BACKLOG):
            try:
                accepted, _address = self._bound.accept()
            except OSError:  # none is left, or no descriptor for it
                return
            accepted.setblocking(False)
            connecting = self.service.loop.connect_accepted_socket(lambda: ClientConnection(self), accepted)
            self.service.loop.create_task(connecting)

    def close(self) -> None:
        """Cut everything."""
        self.stop_accepting()
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
