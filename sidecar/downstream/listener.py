"""One address that accepts traffic: its socket, its connections and their limits.

Decides who is let in, and lets go of everybody in a drain. Owned by `runtime/`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from itertools import islice
from typing import Any, Final

from sidecar.core.own_lack import is_own_lack
from sidecar.core.snapshot import Address, Listener, Trust
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.phase import limits
from sidecar.downstream.terms import ListenerTerms
from sidecar.forwarding.service import Service
from sidecar.transport import kernel
from sidecar.transport.bind import bind
from sidecar.transport.last_accepts import last_accepts

_LOG = logging.getLogger("sidecar.downstream")

ACCEPTS_A_TURN: Final = 64
"""Of the loop, for one listener."""
LOOKS_FOR_IDLE: Final = 256
"""Connections that are looked at for an idle one, when another needs its place."""
RETRY_SECONDS: Final = 0.1
MEMORY_RETRY_SECONDS: Final = 0.002
"""While connections are being closed to give memory back, which takes some turns of the loop."""

LEAST_HEAD_FIELD_BYTES: Final = 4
"""A header field takes at least so many: a name of one byte, a colon, CRLF."""


class ListenerSocket(ListenerTerms):
    """A bound and accepting listener. `policy` may be replaced by a reload that keeps its address."""

    def __init__(self, policy: Listener, service: Service) -> None:
        self.service = service
        self.name = policy.name
        self.is_ending = service.is_draining
        """Each answer closes its connection."""
        self._is_accepting = True
        self.adopt(policy)
        self.refused_connections = 0
        self._connections: set[ClientConnection] = set()
        self._bound: socket.socket | None = None
        self._port = 0
        self._is_watching = False
        self._buffer_bytes = service.memory.buffer_bytes
        """As those that are accepted begin."""
        self.waits_for_room = 0
        """How often a client had to wait in the kernel's queue, for want of open files or of memory here."""
        self._taking: set[asyncio.Task[object]] = set()
        """The last connections out of the accept queue, until they are among the others."""

    def __repr__(self) -> str:
        return f"<ListenerSocket {self.name} {self.policy.address} connections={len(self._connections)}>"

    @property
    def connection_count(self) -> int:
        """Those that wait to be taken over included."""
        return len(self._connections) + len(self._taking)

    def connections(self) -> list[ClientConnection]:
        """All that are open now."""
        return list(self._connections)

    @property
    def address(self) -> Address:
        """Where it listens; the real port where 0 was asked for."""
        asked = self.policy.address
        if asked.path is not None or self._bound is None or asked.port:
            return asked
        return Address(asked.host, self._port)

    def adopt(self, policy: Listener) -> None:
        """Take new limits and timeouts; connections that are there keep their place."""
        self.policy = policy
        self.limits = policy.limits
        self.forwarded = policy.forwarded
        self.phase_seconds = limits(policy.timeouts, is_ending=not self._is_accepting)
        """How long each phase of a connection may last, by its value."""
        self.small_head_bytes = min(
            policy.limits.url_bytes, policy.limits.head_bytes, LEAST_HEAD_FIELD_BYTES * policy.limits.headers
        )
        """A head up to this size cannot break a limit."""
        self.is_trusted = policy.trust is Trust.ALL

    async def start(self) -> None:
        """Bind and accept.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        address = self.policy.address
        bound = self._bound = bind(address, f"listeners.{self.name}.address")
        if address.path is None:
            self._port = bound.getsockname()[1]
        self._watch_queue()

    # Accepting: by hand, since no more may be taken from the kernel's queue than can be served

    def _watch_queue(self) -> None:
        if self._bound is not None and self._is_accepting and not self._is_watching:
            self._is_watching = True
            self.service.loop.add_reader(self._bound.fileno(), self._accept_some)

    def _leave_queue(self) -> None:
        """What comes from now on waits in the kernel's queue."""
        if self._bound is not None and self._is_watching:
            self._is_watching = False
            self.service.loop.remove_reader(self._bound.fileno())

    def _accept_some(self) -> None:
        assert self._bound is not None
        for _ in range(ACCEPTS_A_TURN):
            if not self._has_room():
                self._wait_for_room()
                return
            try:
                taken, _address = self._bound.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            taken.setblocking(False)
            self._take(taken)

    def _has_room(self) -> bool:
        """Whether another connection can be served; an idle one is closed for it."""
        service = self.service
        if service.memory.has_none_left:
            return False
        if service.open_connections + len(self._taking) < service.max_open_connections:
            return True
        idle = next((one for one in islice(self._connections, LOOKS_FOR_IDLE) if one.is_idle), None)
        if idle is not None:
            idle.abort()
        return False

    def _cannot_accept(self, error: OSError) -> None:
        """No descriptor, or no memory: what waits is looked at again when something may have come free."""
        if is_own_lack(error):  # else the client was gone again
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Until a connection has closed, or for a moment: one may have become idle."""
        self.waits_for_room += 1
        self._leave_queue()
        seconds = MEMORY_RETRY_SECONDS if self.service.memory.has_none_left else RETRY_SECONDS
        self.service.loop.call_later(seconds, self._watch_queue)

    def _connection(self) -> Any:
        """A protocol, as loops want one: they ask for its methods alone."""
        return ClientConnection(self)

    def stop_accepting(self) -> None:
        """No new connections. What has connected or sent a request already is served once more.

        A connection that has been quiet for long is closed now, any other when it has had `LAST_CALL_SECONDS`: the
        request that follows an answer is on its way for as long as the network takes.
        """
        self.is_ending = True
        if self._is_accepting and self._bound is not None:
            self._is_accepting = False
            self.adopt(self.policy)
            self._leave_queue()
            for taken in last_accepts(self._bound):
                self._take(taken)
            self._bound.close()
        for connection in list(self._connections):
            connection.drain()

    def _take(self, taken: socket.socket) -> None:
        loop = self.service.loop
        task = loop.create_task(loop.connect_accepted_socket(self._connection, taken))
        self._taking.add(task)
        task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[object]) -> None:
        self._taking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.debug("a connection was gone before it was accepted: %r", error)
        self.service.departed.set()

    def close(self) -> None:
        """Cut everything."""
        self.stop_accepting()
        for connection in list(self._connections):
            connection.abort()

    # What connections say

    def accept(self, connection: ClientConnection) -> bool:
        """Whether another one is let in."""
        if len(self._connections) >= self.limits.connections:
            self.refused_connections += 1
            return False
        self._connections.add(connection)
        self.service.open_connections += 1
        memory = self.service.memory
        memory.joined()
        if memory.buffer_bytes != self._buffer_bytes and self._bound is not None:
            self._buffer_bytes = memory.buffer_bytes
            kernel.bound_receiving(self._bound, self._buffer_bytes)
        return True

    def forget(self, connection: ClientConnection) -> None:
        """It has closed, or became a tunnel."""
        if connection in self._connections:
            self._connections.remove(connection)
            self.service.open_connections -= 1
            self.service.memory.left()
        self.service.departed.set()
        if not self._is_watching:
            self._watch_queue()
