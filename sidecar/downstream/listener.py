"""One address that accepts traffic: its socket, its connections and their limits.

Decides who is let in, and lets go of everybody in a drain. Owned by `runtime/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from sidecar.core.memory_budget import SECURED_BYTES, Account
from sidecar.core.overload import Overload
from sidecar.core.own_lack import is_own_lack
from sidecar.core.request import Asked
from sidecar.core.snapshot import Address, Direction, Forwarded, Listener, Trust, Unmatched
from sidecar.core.tls_numbers import Handshake
from sidecar.downstream.gate import Gate, Place, Waiting
from sidecar.downstream.handshake import ClientHandshake
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.http2 import Http2ClientConnection
from sidecar.downstream.opaque import OpaqueConnection
from sidecar.downstream.phase import LAST_CALL_SECONDS
from sidecar.downstream.phase import limits as phase_limits
from sidecar.downstream.refusing import Refusing
from sidecar.downstream.terms import ListenerTerms
from sidecar.forwarding.service import Service
from sidecar.forwarding.visitors import Lack
from sidecar.transport import in_process, kernel
from sidecar.transport.bind import Bind, Bound, bind_own
from sidecar.transport.given import GIVEN
from sidecar.transport.handed import Handed
from sidecar.transport.last_accepts import last_accepts
from sidecar.transport.link import Link
from sidecar.transport.tls.served import ServedCertificates

_LOG = logging.getLogger("sidecar.downstream")

ACCEPTS_A_TURN: Final = 64
"""Of the loop, for one listener."""
LOOKS_FOR_IDLE: Final = 256
"""Connections that are looked at at once for an idle one, when another needs its place."""
RETRY_SECONDS: Final = 0.02
"""While there is no open file: a client that says nothing loses its place to another one by then."""
ACCEPT_COST: Final = 3
"""Of a new connection with its first request, in requests on a connection that is there."""
LEFT_FOR_ONE: Final = 16
"""Connections whose clients have left that are closed, at most, for each one that is taken."""
RESUME_SECONDS: Final = 0.001
RESUMES_A_TURN: Final = 256
"""Connections that are read again in one turn when an overload has ended."""
MEMORY_RETRY_SECONDS: Final = 0.002
"""While connections are being closed to give memory back, which takes some turns of the loop."""

LEAST_HEAD_FIELD_BYTES: Final = 4
"""A header field takes at least so many: a name of one byte, a colon, CRLF."""


LEAST_AGE: Final = 0.9
AGE_SPREAD: Final = 0.2
"""Of `max_connection_age`."""


class _Takes(Enum):
    """Which new connections."""

    ALL = 1
    HANDED = 2
    """Those alone that another process of ours hands over: who connects is another program's."""
    NONE = 3


AnyClient = ClientConnection | Http2ClientConnection | ClientHandshake | OpaqueConnection


class ListenerSocket(ListenerTerms):
    """A bound and accepting listener. `policy` may be replaced by a reload that keeps its address."""

    def __init__(self, policy: Listener, service: Service, served: ServedCertificates | None = None) -> None:
        """`served`: of a listener with `tls`."""
        self.service = service
        self.name = policy.name
        self.is_ending = service.is_draining
        """Each answer closes its connection."""
        self._takes = _Takes.ALL
        self.served = served
        """What new connections are shown; None in clear text. Another set may take its place at any moment."""
        self.handshakes = Counter[Handshake]()
        self.last_handshakes: dict[Handshake, tuple[str, str]] = {}
        """Of each result since somebody told of them: address and detail of the last one."""
        self.adopt(policy)
        self.refused_connections = 0
        self._connections: dict[AnyClient, float] = {}
        """With the time when each was let in, in this order."""
        self._bound: Bound | None = None
        self._queues: list[socket.socket | Handed] = []
        """What connections are taken from: its own socket, those of neighbours that are not there, and what another
        process hands over."""
        self._is_watching = False
        self.gate: Gate | None = None
        self._at_gate = Account(service.memory, service.clock())
        """What was read of those who wait there. What stands behind another request counts with its connection
        too."""
        self.overload = Overload()
        """While it is on, new work waits in `gate` and in the kernel's queue."""
        self._refusing = Refusing(service)
        self._buffer_bytes = service.memory.buffer_bytes
        """As those that are accepted begin."""
        self.waits_for_room = 0
        """How often a client had to wait in the kernel's queue, for want of open files or of memory here."""
        self._to_look_at: list[AnyClient] = []
        """For an idle one, the oldest last: where the last look has ended, so that each is looked at in turn."""
        self._taking: set[asyncio.Task[object]] = set()
        """The last connections out of the accept queue, until they are among the others."""

    def __repr__(self) -> str:
        return f"<ListenerSocket {self.name} {self.policy.address} connections={len(self._connections)}>"

    @property
    def connection_count(self) -> int:
        """Those that wait to be taken over included."""
        return len(self._connections) + len(self._taking)

    def connections(self) -> list[AnyClient]:
        """All that are open now."""
        return list(self._connections)

    @property
    def turned_away(self) -> int:
        """Clients who were told that no file was left to open for them, so far."""
        return self.service.beside.visitors.without_file[self.name]

    @property
    def address(self) -> Address:
        """Where it listens; the real port where 0 was asked for, and the real address of a socket that was lent."""
        asked, bound = self.policy.address, self._bound
        if bound is None:
            return asked
        if bound.lent_at is not None:
            return bound.lent_at
        return asked if asked.path is not None or asked.port else Address(asked.host, bound.port)

    @property
    def is_lent(self) -> bool:
        """Whoever began this process keeps its socket: what waits in it at the end is for the next process."""
        return self._bound is not None and self._bound.lent_at is not None

    @property
    def serves(self) -> bool:
        """This process is one of those that take its connections."""
        return self._bound is not None and self._bound.accepts

    @property
    def takes_connect(self) -> bool:
        return self.policy.direction is Direction.OUTBOUND

    @property
    def unmatched(self) -> Unmatched:
        return self.policy.unmatched

    @property
    def opaque_ports(self) -> frozenset[int]:
        return self.policy.opaque_ports

    def adopt(self, policy: Listener) -> None:
        """Take new limits and timeouts; connections that are there keep their place."""
        self.policy = policy
        self.limits = policy.limits
        self.forwarded = policy.forwarded
        self.owns_client_cert = policy.direction is Direction.INBOUND or policy.tls is not None
        self.tells_of_client = policy.forwarded is not Forwarded.KEEP or self.owns_client_cert
        self.protocol = policy.protocol
        self.phase_seconds = phase_limits(policy.timeouts, is_ending=not self.is_accepting)
        """How long each phase of a connection may last, by its value."""
        limits = policy.limits
        self.cookieless_head_bytes = min(
            limits.url_bytes,
            limits.head_bytes,
            LEAST_HEAD_FIELD_BYTES * limits.headers,
            limits.parameters,  # a byte each, at least
        )
        """A plain head up to this size cannot break a limit if it has no `Cookie`."""
        self.small_head_bytes = min(self.cookieless_head_bytes, limits.cookies)  # a semicolon each
        """A head up to this size cannot break a limit."""
        self.is_trusted = policy.trust is Trust.ALL

    def retire(self) -> None:
        """All connections that are here were made on other terms than those of now: each ends with its next answer,
        HTTP/2 with its open streams."""
        for connection in self.connections():
            connection.retire()

    def retire_old(self, now: float) -> None:
        """Connections that have been here for `max_connection_age`, each up to a tenth sooner or later, so that those
        that came together do not all come again together."""
        age_seconds = self.policy.max_connection_age_seconds
        old = []
        for connection, since in self._connections.items():
            share = (now - since) / age_seconds
            if share < LEAST_AGE:
                break
            if share >= LEAST_AGE + AGE_SPREAD * (id(connection) // 64 % 100) / 100:
                old.append(connection)
        for connection in old:
            connection.retire()

    async def bind(self, bind: Bind = bind_own) -> None:
        """Get a socket, that listens.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        self._bound = await bind(self.policy.address, f"listeners.{self.name}.address")

    def start(self) -> None:
        """Accept. Comes after `bind`, when nothing can go wrong any more: a process that could not serve would reset
        whom it has accepted, and of a socket that another one has too, that one would have served them."""
        bound = self._bound
        if bound is not None and bound.accepts:
            self.service.beside.visitors.keep_files()
            self._queues += [bound.listening, *bound.others]
            self._watch_queue()

    @property
    def is_accepting(self) -> bool:
        """New connections are let in."""
        return self._takes is not _Takes.NONE

    def accept_own(self, *, is_on: bool) -> None:
        """Take connections from its own socket, or leave that to another process, which hands them over."""
        if self._bound is not None and self._bound.accepts:
            for queue in (self._bound.listening, *self._bound.others):
                (self.accept_also if is_on else self.accept_no_more)(queue)

    def accept_also(self, queue: socket.socket | Handed) -> None:
        """Take connections from there too, until `accept_no_more`."""
        is_ours = self._takes is _Takes.ALL or isinstance(queue, Handed)
        if self.is_accepting and is_ours and queue not in self._queues:
            self._leave_queue()
            self._queues.append(queue)
            self._watch_queue()

    def accept_no_more(self, queue: socket.socket | Handed) -> None:
        """Whose that is takes them again."""
        if queue in self._queues:
            self._leave_queue()
            self._queues.remove(queue)
            self._watch_queue()

    # Accepting: by hand, since no more may be taken from the kernel's queue than can be served

    def _watch_queue(self) -> None:
        is_wanted = self.is_accepting and not self._is_watching and self.gate is None
        if self._queues and is_wanted:
            self._is_watching = True
            for queue in self._queues:
                self.service.loop.add_reader(queue.fileno(), self._accept_some, queue)

    def _leave_queue(self) -> None:
        """What comes from now on waits in the kernel's queue."""
        if self._is_watching:
            self._is_watching = False
            for queue in self._queues:
                self.service.loop.remove_reader(queue.fileno())

    def _accept_some(self, queue: socket.socket | Handed) -> None:
        if self.service.beside.visitors.is_short_of_files:
            self.service.beside.visitors.keep_files()
        for _ in range(ACCEPTS_A_TURN):
            if not self._has_room():
                self._wait_for_room()
                return
            try:
                taken, _address = queue.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if self._finds_file(error):
                    continue
                self._cannot_accept(error)
                return
            taken.setblocking(False)
            self.take(taken)

    def _accept_waiting(self, most: int) -> int:
        """In an overload: up to so many of those who are still there. Returns how many were taken.

        Who has left the kernel's queue meanwhile costs a tenth of a connection here, and would cost a whole one.
        """
        taken = 0
        queues = self._queues[:]
        for _ in range(most * LEFT_FOR_ONE):
            if not queues or taken >= most or not self._has_room():
                break
            try:
                one, _address = queues[0].accept()
            except OSError as error:
                if not self._finds_file(error):
                    del queues[0]
                continue
            if kernel.is_left(one):
                one.close()
                self._refusing.gone_clients += 1
                continue
            one.setblocking(False)
            self.take(one)
            taken += 1
        return taken

    def _has_room(self) -> bool:
        """Whether another connection can be taken: to be served, or to be told that it cannot be."""
        service = self.service
        if service.memory.has_none_left:
            return service.memory.is_full and service.beside.visitors.has_place(len(self._taking))
        coming = len(self._taking)
        if not self._has_file(coming):
            return not self._closes_idle() and service.beside.visitors.has_place(coming)
        if self._to_look_at:
            self._to_look_at.clear()
        return self._has_connection(coming) or service.beside.visitors.has_place(coming)

    def _has_connection(self, coming: int) -> bool:
        """Whether this listener may have one more that is served, beside `coming` more."""
        served = len(self._connections) - self.service.beside.visitors.at[self.name] + coming
        return served < self.limits.connections

    def _has_file(self, coming: int) -> bool:
        """Whether there is one for a connection that is served, beside those of `coming` more."""
        service = self.service
        visitors = service.beside.visitors
        served = service.open_connections - len(visitors) + coming
        return served < service.max_open_connections and not visitors.is_short_of_files

    def _closes_idle(self) -> bool:
        """Close one for who comes: its file is free in the next turn of the loop. False where none was found."""
        if not self._to_look_at:
            self._to_look_at = list(self._connections)
            self._to_look_at.reverse()
        # A request of who has just connected, or was just answered, is on its way for as long as the network takes.
        before = self.service.clock() - LAST_CALL_SECONDS
        for _ in range(min(LOOKS_FOR_IDLE, len(self._to_look_at))):
            one = self._to_look_at.pop()
            if one.was_idle(before):
                one.abort()
                return True
        return False

    def _finds_file(self, error: OSError) -> bool:
        """There was none to accept with, although there should be, as when the whole system has too many: whether one
        that was kept is free now."""
        if not is_own_lack(error) or self._closes_idle():
            return False
        visitors = self.service.beside.visitors
        return visitors.has_place(len(self._taking)) and visitors.give_file()

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
        served = self.served
        if served is not None:
            return ClientHandshake(self, served)
        return ClientConnection(self) if self.unmatched is Unmatched.REFUSE else OpaqueConnection(self)

    def detect(self, connection: AnyClient, link: Link, asked: Asked, data: bytes) -> None:
        link.asked = asked
        opaque = OpaqueConnection(self)
        self.replace(connection, opaque)
        opaque.take_over(link, data)

    # Overload: what is new waits, and is taken up in turn (`pressure.py` says when and how much)

    @property
    def refused_requests(self) -> int:
        """In overload, so far."""
        return self._refusing.requests + (self.gate.refused if self.gate is not None else 0)

    @property
    def gone_clients(self) -> int:
        """Who left while they waited for their turn, so far."""
        return self._refusing.gone_clients + (self.gate.gone if self.gate is not None else 0)

    @property
    def has_waiting(self) -> bool:
        """Whether anybody had to wait since the last `window`."""
        return self.gate is not None and self.gate.had_to_wait

    def shut(self, now: float) -> None:
        """From now on new work waits. Connections come to the gate one by one, with their next request."""
        self.gate = Gate(now)
        self._leave_queue()

    def take_up(self, count: int, now: float) -> None:
        """Up to so many requests, from the kernel's queue and from connections that wait."""
        gate = self.gate
        if gate is None:
            return
        if count and self.is_accepting and self._queues:
            cost = ACCEPT_COST * self._accept_waiting(max(1, count // (2 * ACCEPT_COST)))
            count -= min(cost, count // 2)
        self._refuse_unread(gate, now)
        gate.turn(count, now)
        self._at_gate.hold(gate.held_bytes)

    def _refuse_unread(self, gate: Gate, now: float) -> None:
        """Those in front of a queue that is too long: whoever came last would otherwise be forgotten in it. Not where
        nobody could be told in clear text."""
        if self.served is not None or self.unmatched is not Unmatched.REFUSE or not self.is_accepting:
            return
        for queue in self._queues:
            if not isinstance(queue, socket.socket):
                continue
            with contextlib.suppress(OSError):  # there are fewer, or no file is left
                for _ in range(gate.too_many(kernel.waiting(queue), now)):
                    self._refusing.refuse(queue.accept()[0], is_stranger=not self.is_trusted)

    def window(self, now: float) -> None:
        if self.gate is not None:
            self.gate.window(now)

    def open(self) -> None:
        """Nothing has to wait any more."""
        gate, self.gate = self.gate, None
        if gate is not None:
            self._refusing.requests += gate.refused
            self._refusing.gone_clients += gate.gone
            self._at_gate.hold(0)
            self._let_all_in(gate.close())
        self._watch_queue()

    def _let_all_in(self, left: list[Waiting]) -> None:
        """In slices: thousands may have been waiting for something to do."""
        for one in left[-RESUMES_A_TURN:]:
            if one.place in (Place.WATCHED, Place.QUEUED):
                one.let_in(is_refused=False)
        del left[-RESUMES_A_TURN:]
        if left:
            self.service.loop.call_later(RESUME_SECONDS, self._let_all_in, left)

    def listening(self) -> tuple[socket.socket, ...]:
        """Its own sockets; none while it has none."""
        return () if self._bound is None else (self._bound.listening, *self._bound.others)

    def hand_on(self) -> None:
        """Another process has the same sockets and serves: it takes who connects from now on, and no socket ends
        here. What this process was handed by then it serves."""
        if self._takes is _Takes.ALL:
            self._takes = _Takes.HANDED
        self._leave_queue()
        self._queues = [queue for queue in self._queues if isinstance(queue, Handed)]
        self._watch_queue()

    def stop_accepting(self) -> None:
        """No new connections. What has connected or sent a request already is served once more.

        A connection that has been quiet for long is closed now, any other when it has had `LAST_CALL_SECONDS`: the
        request that follows an answer is on its way for as long as the network takes.
        """
        self.is_ending = True
        if self.is_accepting and self._bound is not None:
            takes, self._takes = self._takes, _Takes.NONE
            self.adopt(self.policy)
            self._leave_queue()
            queues, self._queues = self._queues, []
            own = (self._bound.listening, *self._bound.others)
            if self._bound.accepts and takes is _Takes.ALL:
                queues += [queue for queue in own if queue not in queues]
            for queue in queues:
                if isinstance(queue, Handed):
                    last = queue.rest()
                elif self.is_lent or GIVEN.lends(queue):
                    last = []
                else:
                    last = last_accepts(queue, is_shared=self._bound.is_shared)
                for taken in last:
                    self.take(taken)
            for queue in own:
                queue.close()
        for connection in list(self._connections):
            self.service.turns.end(connection.drain)

    def take(self, taken: socket.socket) -> None:
        """Serve this connection, in whatever state the listener is."""
        self._take(taken, self._connection)

    def take_in_process(self, host: str, asked: Asked | None) -> socket.socket:
        """Serve a caller in this very process, as if it came by the network from `host`; returns its end. `asked`:
        where it was going, if that is not this listener.

        Raises:
            OSError: there is no room for another connection.
        """
        if self.service.memory.has_none_left or not self._has_file(len(self._taking)):
            self._closes_idle()  # for who comes next
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        ours, theirs = in_process.pair()
        self._take(theirs, lambda: in_process.Arriving(self._connection(), host, asked))
        return ours

    def _take(self, taken: socket.socket, connection: Callable[[], Any]) -> None:
        loop = self.service.loop
        task = loop.create_task(loop.connect_accepted_socket(connection, taken))
        self._taking.add(task)
        task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[object]) -> None:
        self._taking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.debug("a connection was gone before it was accepted: %r", error)
        if self.service.beside.others is not None:
            self.service.beside.others.counted()
        self.service.departed.set()

    def close(self) -> None:
        """Cut everything."""
        self.stop_accepting()
        self._refusing.close()
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.close()
            self._at_gate.hold(0)
        for connection in list(self._connections):
            connection.abort()

    # What connections say

    def shaken(self, result: Handshake, peer: tuple[str, int] | None = None, detail: str = "") -> None:
        self.handshakes[result] += 1
        if (
            detail and result is not Handshake.LEFT
        ):  # whoever looks whether the port is open leaves all day long
            self.last_handshakes[result] = (peer[0] if peer is not None else "", detail)

    def accept(self, connection: AnyClient) -> bool:
        """Whether another one is let in: to be served, or to be told that it cannot be."""
        memory, lack = self.service.memory, self._lack()
        if lack is not None and not self._lets_in_visitor(connection, lack):
            return False
        self._connections[connection] = self.service.clock()
        self.service.open_connections += 1
        memory.joined()
        if isinstance(connection, ClientHandshake):
            memory.charge(SECURED_BYTES)
        if memory.buffer_bytes != self._buffer_bytes:
            self._buffer_bytes = memory.buffer_bytes
            for queue in self.listening():
                kernel.bound_receiving(queue, self._buffer_bytes)
        return True

    def _lack(self) -> Lack | None:
        """What there is none of for another one; None: it is served."""
        if self.service.memory.is_full and self.service.memory.has_none_left:
            return Lack.MEMORY
        if not self._has_connection(0):
            return Lack.CONNECTIONS
        return None if self._has_file(0) else Lack.FILES

    def _lets_in_visitor(self, connection: AnyClient, lack: Lack) -> bool:
        """It is counted, and told if there is something to tell it with."""
        visitors, memory = self.service.beside.visitors, self.service.memory
        if lack is Lack.MEMORY:
            if isinstance(connection, ClientHandshake):
                self.refused_connections += 1  # a handshake takes far more than the answer "no"
                return False
            memory.refused += 1
        elif lack is Lack.CONNECTIONS:
            self.refused_connections += 1
            if visitors.is_crowded:
                return False
        visitors.came(connection, self.name, lack)
        return True

    def replace(
        self,
        connection: AnyClient,
        by: AnyClient,
    ) -> None:
        """It goes on as another protocol's, in the same place."""
        self._connections[by] = self._connections.pop(connection)
        self.service.beside.visitors.replaced(connection, by)
        if connection.is_retired:
            by.retire()

    def forget(self, connection: AnyClient) -> None:
        """It has closed, or became a tunnel."""
        if connection in self._connections:
            del self._connections[connection]
            self.service.beside.visitors.left(connection)
            self.service.open_connections -= 1
            self.service.memory.left()
            if connection.is_secured:
                self.service.memory.charge(-SECURED_BYTES)
            if self.service.beside.others is not None:
                self.service.beside.others.counted()
        self.service.departed.set()
        if not self._is_watching:
            self._watch_queue()
