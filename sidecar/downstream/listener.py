"""One address that accepts traffic: its socket, its connections and their limits.

Decides who is let in and, once a second, looks after connections that take too long. Owned by `runtime/`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket

from sidecar.core.plain import Field
from sidecar.core.snapshot import Address, Listener, Trust
from sidecar.downstream.bind import BACKLOG, bind
from sidecar.downstream.connection import ClientConnection
from sidecar.downstream.last_accepts import last_accepts
from sidecar.forwarding.service import Service

CHECK_SECONDS = 1.0
"""Between two looks at all connections; `ClientConnection.touched` is up to this much too early."""
LAST_CALL_SECONDS = 0.5
"""How long a connection may still bring a request once nobody else is accepted."""

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
        self.is_ending = service.is_draining
        """Each answer closes its connection."""
        self._is_accepting = True
        self._connections: set[ClientConnection] = set()
        self._bound: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None
        self._taking: set[asyncio.Task[object]] = set()
        """The last connections out of the accept queue, until they are among the others."""
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<ListenerSocket {self.name} {self.policy.address} connections={len(self._connections)}>"

    @property
    def connection_count(self) -> int:
        """Those that wait to be taken over included."""
        return len(self._connections) + len(self._taking)

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
        bound = self._bound = bind(address, f"listeners.{self.name}.address")
        serve = loop.create_server if address.path is None else loop.create_unix_server
        self._server = await serve(lambda: ClientConnection(self), sock=bound, backlog=BACKLOG)
        self._timer = loop.call_later(CHECK_SECONDS, self._check)

    def stop_accepting(self) -> None:
        """No new connections. What has connected or sent a request already is served once more.

        A connection that has been quiet for long is closed now, any other when it has had `LAST_CALL_SECONDS`: the
        request that follows an answer is on its way for as long as the network takes.
        """
        self.is_ending = True
        now = self.service.clock()
        if self._is_accepting and self._bound is not None and self._server is not None:
            self._is_accepting = False
            for taken in last_accepts(self._bound):
                self._take(taken)
            self._server.close()
            self.service.loop.call_later(LAST_CALL_SECONDS, self._end_idle, math.inf)
        self._end_idle(now - LAST_CALL_SECONDS - CHECK_SECONDS)

    def _take(self, taken: socket.socket) -> None:
        loop = self.service.loop
        task = loop.create_task(loop.connect_accepted_socket(lambda: ClientConnection(self), taken))
        self._taking.add(task)
        task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[object]) -> None:
        self._taking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.debug("a connection was gone before it was accepted: %r", error)
        self.service.departed.set()

    def _end_idle(self, quiet_since: float) -> None:
        for connection in list(self._connections):
            connection.drain(quiet_since)

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
        self.service.departed.set()

    def _check(self) -> None:
        self.now = self.service.clock()
        for connection in list(self._connections):
            connection.check(self.now)
        self._timer = self.service.loop.call_later(CHECK_SECONDS, self._check)
