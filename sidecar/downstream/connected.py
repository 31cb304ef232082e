"""The connections of one listener, and whether there is room for one more.

Decides who is let in to be served, and who as a visitor (`forwarding/visitors.py`), who is told that there is no
room: for want of memory, of an open file, or of a place among `limits.connections`. Knows nothing of the sockets that
they come from. Owned by its listener; a connection is counted from the moment when it is taken from a queue.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sidecar.core.memory_budget import SECURED_BYTES
from sidecar.core.snapshot import Listener
from sidecar.downstream.handshake import ClientHandshake
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.opaque import OpaqueConnection
from sidecar.downstream.phase import LAST_CALL_SECONDS
from sidecar.forwarding.service import Service
from sidecar.forwarding.visitors import Lack

if TYPE_CHECKING:
    from sidecar.downstream.http2 import Http2ClientConnection

_LOG = logging.getLogger("sidecar.downstream")

LOOKS_FOR_IDLE: Final = 256
"""Connections that are looked at at once for an idle one, when another needs its place."""
LEAST_AGE: Final = 0.9
AGE_SPREAD: Final = 0.2
"""Of `max_connection_age`."""

AnyClient: TypeAlias = "ClientConnection | Http2ClientConnection | ClientHandshake | OpaqueConnection"


class Connected:
    """See the module."""

    __slots__ = ("_coming", "_policy", "_service", "_since", "_to_look_at", "refused")

    def __init__(self, policy: Listener, service: Service) -> None:
        self._service = service
        self._policy = policy
        """Its name, limits and times."""
        self._since: dict[AnyClient, float] = {}
        """When each was let in, in this order."""
        self._coming: set[asyncio.Task[object]] = set()
        """Taken from a queue, until they are among the others."""
        self._to_look_at: list[AnyClient] = []
        """For an idle one, the oldest last: where the last look has ended, so that each is looked at in turn."""
        self.refused = 0
        """Those that there was no place for, or that were no visitors for want of memory, so far."""

    def __repr__(self) -> str:
        return f"<Connected {len(self._since)}, {len(self._coming)} coming>"

    def __len__(self) -> int:
        """Those that are coming included."""
        return len(self._since) + len(self._coming)

    def adopt(self, policy: Listener) -> None:
        """Go by these terms from now on."""
        self._policy = policy

    def all(self) -> list[AnyClient]:
        """Those that are open now."""
        return list(self._since)

    def retire_old(self, now: float) -> None:
        """Connections that have been here for `max_connection_age`, each up to a tenth sooner or later, so that those
        that came together do not all come again together."""
        age_seconds = self._policy.max_connection_age_seconds
        old = []
        for connection, since in self._since.items():
            share = (now - since) / age_seconds
            if share < LEAST_AGE:
                break
            if share >= LEAST_AGE + AGE_SPREAD * (id(connection) // 64 % 100) / 100:
                old.append(connection)
        for connection in old:
            connection.retire()

    # Whether another one may be taken from a queue

    def has_room(self) -> bool:
        """Whether another connection can be taken: to be served, or to be told that it cannot be. An idle one may be
        closed for it, whose place is then free in a later turn of the loop."""
        memory, visitors, coming = self._service.memory, self._service.beside.visitors, len(self._coming)
        if memory.has_none_left:
            return memory.is_full and visitors.has_place(coming)
        if not self._has_file(coming):
            return not self._closes_idle() and visitors.has_place(coming)
        if self._to_look_at:
            self._to_look_at.clear()
        return self._has_place(coming) or visitors.has_place(coming)

    def has_room_within(self) -> bool:
        """The same for one that comes from this very process, and is told there that it cannot be served."""
        if not self._service.memory.has_none_left and self._has_file(len(self._coming)):
            return True
        self._closes_idle()  # for who comes next
        return False

    def gives_file(self) -> bool:
        """No file could be opened for who comes, although there should be one, as when the whole system has too many:
        whether one that was kept is free now."""
        if self._closes_idle():
            return False
        visitors = self._service.beside.visitors
        return visitors.has_place(len(self._coming)) and visitors.give_file()

    def _has_place(self, coming: int) -> bool:
        """Whether this listener may have one more that is served, beside `coming` more."""
        served = len(self._since) - self._service.beside.visitors.at[self._policy.name] + coming
        return served < self._policy.limits.connections

    def _has_file(self, coming: int) -> bool:
        """Whether there is one for a connection that is served, beside those of `coming` more."""
        service = self._service
        visitors = service.beside.visitors
        served = service.open_connections - len(visitors) + coming
        return served < service.max_open_connections and not visitors.is_short_of_files

    def _closes_idle(self) -> bool:
        """Close one for who comes: its file is free in the next turn of the loop. False where none was found."""
        if not self._to_look_at:
            self._to_look_at = list(self._since)
            self._to_look_at.reverse()
        # A request of who has just connected, or was just answered, is on its way for as long as the network takes.
        before = self._service.clock() - LAST_CALL_SECONDS
        for _ in range(min(LOOKS_FOR_IDLE, len(self._to_look_at))):
            one = self._to_look_at.pop()
            if one.was_idle(before):
                one.abort()
                return True
        return False

    # In and out

    def begin(self, taken: socket.socket, protocol: Callable[[], Any]) -> None:
        """Make a connection of it, by what `protocol` makes; that one asks `let_in` itself."""
        loop = self._service.loop
        task = loop.create_task(loop.connect_accepted_socket(protocol, taken))
        self._coming.add(task)
        task.add_done_callback(self._has_come)

    def _has_come(self, task: asyncio.Task[object]) -> None:
        self._coming.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.debug("a connection was gone before it was accepted: %r", error)
        if self._service.beside.others is not None:
            self._service.beside.others.counted()
        self._service.departed.set()

    def let_in(self, connection: AnyClient) -> bool:
        """Whether another one is let in: to be served, or to be told that it cannot be."""
        lack = self._lack()
        if lack is not None and not self._lets_in_visitor(connection, lack):
            return False
        self._since[connection] = self._service.clock()
        self._service.open_connections += 1
        self._service.memory.joined()
        if isinstance(connection, ClientHandshake):
            self._service.memory.charge(SECURED_BYTES)
        return True

    def _lack(self) -> Lack | None:
        """What there is none of for another one; None: it is served."""
        if self._service.memory.is_full and self._service.memory.has_none_left:
            return Lack.MEMORY
        if not self._has_place(0):
            return Lack.CONNECTIONS
        return None if self._has_file(0) else Lack.FILES

    def _lets_in_visitor(self, connection: AnyClient, lack: Lack) -> bool:
        """It is counted, and told if there is something to tell it with."""
        visitors, memory = self._service.beside.visitors, self._service.memory
        if lack is Lack.MEMORY:
            if isinstance(connection, ClientHandshake):
                self.refused += 1  # a handshake takes far more than the answer "no"
                return False
            memory.refused += 1
        elif lack is Lack.CONNECTIONS:
            self.refused += 1
            if visitors.is_crowded:
                return False
        visitors.came(connection, self._policy.name, lack)
        return True

    def replace(self, connection: AnyClient, by: AnyClient) -> None:
        """It goes on as another protocol's, in the same place."""
        self._since[by] = self._since.pop(connection)
        self._service.beside.visitors.replaced(connection, by)
        if connection.is_retired:
            by.retire()

    def forget(self, connection: AnyClient) -> None:
        """It has closed, or became a tunnel, if it was let in at all."""
        if connection in self._since:
            del self._since[connection]
            self._service.beside.visitors.left(connection)
            self._service.open_connections -= 1
            self._service.memory.left()
            if connection.is_secured:
                self._service.memory.charge(-SECURED_BYTES)
            if self._service.beside.others is not None:
                self._service.beside.others.counted()
        self._service.departed.set()
