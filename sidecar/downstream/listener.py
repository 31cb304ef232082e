"""One address that accepts traffic: what it grants its connections, and the parts that have their own decisions.

Who is let in is `connected.py`'s to decide, where connections are taken from and when `accept_queues.py`'s, and what
is taken up in an overload `taking_up.py`'s; a listener puts them together, opens and shuts the gate, and lets go of
everybody in a drain. Owned by `runtime/`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from typing import Any, Final

from sidecar.core.overload import Overload
from sidecar.core.request import Asked
from sidecar.core.snapshot import Address, Direction, Forwarded, Listener, Trust, Unmatched
from sidecar.core.tls_numbers import Handshake
from sidecar.downstream.accept_queues import AcceptQueues
from sidecar.downstream.connected import AnyClient, Connected
from sidecar.downstream.gate import Gate
from sidecar.downstream.handshake import ClientHandshake
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.opaque import OpaqueConnection
from sidecar.downstream.phase import limits as phase_limits
from sidecar.downstream.taking_up import TakingUp
from sidecar.downstream.terms import ListenerTerms
from sidecar.forwarding.service import Service
from sidecar.transport import in_process, kernel
from sidecar.transport.bind import Bind, bind_own
from sidecar.transport.link import Link
from sidecar.transport.tls.served import ServedCertificates

LEAST_HEAD_FIELD_BYTES: Final = 4
"""A header field takes at least so many: a name of one byte, a colon, CRLF."""


class ListenerSocket(ListenerTerms):
    """A bound and accepting listener. `policy` may be replaced by a reload that keeps its address."""

    def __init__(self, policy: Listener, service: Service, served: ServedCertificates | None = None) -> None:
        """`served`: of a listener with `tls`."""
        self.service = service
        self.is_ending = service.is_draining
        """Each answer closes its connection."""
        self.served = served
        """What new connections are shown; None in clear text. Another set may take its place at any moment."""
        self.handshakes = Counter[Handshake]()
        self.last_handshakes: dict[Handshake, tuple[str, str]] = {}
        """Of each result since somebody told of them: address and detail of the last one."""
        self._connected = Connected(policy, service)
        self.queues = AcceptQueues(self._connected, service)
        """Where connections come from; other processes' queues are added there."""
        self._taking_up = TakingUp(self.queues, service)
        self.gate: Gate | None = None
        self.overload = Overload()
        """While it is on, new work waits in `gate` and in the kernel's queue."""
        self._buffer_bytes = service.memory.buffer_bytes
        """As those that are accepted begin."""
        self.adopt(policy)

    def __repr__(self) -> str:
        return f"<ListenerSocket {self.name} {self.policy.address} connections={len(self._connected)}>"

    @property
    def address(self) -> Address:
        """Where it listens; the real port where 0 was asked for, and the real address of a socket that was lent."""
        asked, bound = self.policy.address, self.queues.bound
        if bound is None:
            return asked
        if bound.lent_at is not None:
            return bound.lent_at
        return asked if asked.path is not None or asked.port else Address(asked.host, bound.port)

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
        """Take a new name, limits and timeouts; connections that are there keep their place."""
        self.policy = policy
        self.name = policy.name
        self.limits = policy.limits
        self.forwarded = policy.forwarded
        self.owns_client_cert = policy.direction is Direction.INBOUND or policy.tls is not None
        self.tells_of_client = policy.forwarded is not Forwarded.KEEP or self.owns_client_cert
        self.protocol = policy.protocol
        self.phase_seconds = phase_limits(policy.timeouts, is_ending=not self.queues.is_accepting)
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
        self._connected.adopt(policy)

    # From its socket to its end

    async def bind(self, bind: Bind = bind_own) -> None:
        """Get a socket, that listens.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        await self.queues.bind(bind, self.policy.address, f"listeners.{self.name}.address")

    def start(self) -> None:
        """Accept. Comes after `bind`, when nothing can go wrong any more: a process that could not serve would reset
        whom it has accepted, and of a socket that another one has too, that one would have served them."""
        self.queues.start(self.take)

    def take(self, taken: socket.socket) -> None:
        """Serve this connection, in whatever state the listener is."""
        self._connected.begin(taken, self._connection)

    def take_from(self, queue: socket.socket) -> None:
        """Serve those who connect to the socket of a neighbour that is not there; once this listener has stopped,
        those alone who have connected by now, and the socket ends."""
        if self.queues.is_accepting:
            self.queues.add(queue)
            return
        for taken in self.queues.end(queue):
            self.take(taken)

    def take_in_process(self, host: str, asked: Asked | None) -> socket.socket:
        """Serve a caller in this very process, as if it came by the network from `host`; returns its end. `asked`:
        where it was going, if that is not this listener.

        Raises:
            OSError: there is no room for another connection.
        """
        if not self._connected.has_room_within():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        ours, theirs = in_process.pair()
        self._connected.begin(theirs, lambda: in_process.Arriving(self._connection(), host, asked))
        return ours

    def _connection(self) -> Any:
        """A protocol, as loops want one: they ask for its methods alone."""
        served = self.served
        if served is not None:
            return ClientHandshake(self, served)
        return ClientConnection(self) if self.unmatched is Unmatched.REFUSE else OpaqueConnection(self)

    def stop_accepting(self, *, is_last: bool = True) -> None:
        """No new connections. What has connected or sent a request already is served once more. `is_last`: as of
        `AcceptQueues.stop`.

        A connection that has been quiet for long is closed now, any other when it has had `LAST_CALL_SECONDS`: the
        request that follows an answer is on its way for as long as the network takes.
        """
        self.is_ending = True
        if self.queues.is_accepting:
            last = self.queues.stop(is_last=is_last)
            self.adopt(self.policy)  # whose times are others from now on
            for taken in last:
                self.take(taken)
        for connection in self.connections():
            self.service.turns.end(connection.drain)

    def close(self) -> None:
        """Cut everything."""
        self.stop_accepting()
        gate, self.gate = self.gate, None
        self._taking_up.close(gate)
        for connection in self.connections():
            connection.abort()

    # Its connections

    @property
    def connection_count(self) -> int:
        """Those that wait to be taken over included."""
        return len(self._connected)

    def connections(self) -> list[AnyClient]:
        """All that are open now."""
        return self._connected.all()

    @property
    def refused_connections(self) -> int:
        """So far: those that there was no place for."""
        return self._connected.refused

    @property
    def turned_away(self) -> int:
        """Clients who were told that no file was left to open for them, so far."""
        return self.service.beside.visitors.without_file[self.name]

    def retire(self) -> None:
        """All connections that are here were made on other terms than those of now: each ends with its next answer,
        HTTP/2 with its open streams."""
        for connection in self.connections():
            connection.retire()

    def retire_old(self, now: float) -> None:
        """The same for those that have been here for `max_connection_age`."""
        self._connected.retire_old(now)

    # Overload: what is new waits, and is taken up in turn (`pressure.py` says when and how much)

    @property
    def refused_requests(self) -> int:
        """In overload, so far."""
        return self._taking_up.refused(self.gate)

    @property
    def gone_clients(self) -> int:
        """Who left while they waited for their turn, so far."""
        return self._taking_up.gone(self.gate)

    @property
    def has_waiting(self) -> bool:
        """Whether anybody had to wait since the last `window`."""
        return self.gate is not None and self.gate.had_to_wait

    def shut(self, now: float) -> None:
        """From now on new work waits. Connections come to the gate one by one, with their next request."""
        self.gate = Gate(now)
        self.queues.hold()

    def take_up(self, count: int, now: float) -> None:
        """Up to so many requests, from the kernel's queue and from connections that wait."""
        gate = self.gate
        if gate is None:
            return
        count = self._taking_up.take_connections(count)
        if (
            self.served is None and self.unmatched is Unmatched.REFUSE
        ):  # else nobody could be told in clear text
            self._taking_up.refuse_unread(gate, now, is_stranger=not self.is_trusted)
        self._taking_up.take_requests(gate, count, now)

    def window(self, now: float) -> None:
        if self.gate is not None:
            self.gate.window(now)

    def open(self) -> None:
        """Nothing has to wait any more."""
        gate, self.gate = self.gate, None
        if gate is not None:
            self._taking_up.end(gate)
        self.queues.go_on()

    # What connections say

    def accept(self, connection: AnyClient) -> bool:
        if not self._connected.let_in(connection):
            return False
        buffer_bytes = self.service.memory.buffer_bytes
        if buffer_bytes != self._buffer_bytes:
            self._buffer_bytes = buffer_bytes
            for queue in self.queues.listening():
                kernel.bound_receiving(queue, buffer_bytes)
        return True

    def shaken(self, result: Handshake, peer: tuple[str, int] | None = None, detail: str = "") -> None:
        self.handshakes[result] += 1
        if (
            detail and result is not Handshake.LEFT
        ):  # whoever looks whether the port is open leaves all day long
            self.last_handshakes[result] = (peer[0] if peer is not None else "", detail)

    def detect(self, connection: AnyClient, link: Link, asked: Asked, data: bytes) -> None:
        link.asked = asked
        opaque = OpaqueConnection(self)
        self.replace(connection, opaque)
        opaque.take_over(link, data)

    def replace(self, connection: AnyClient, by: AnyClient) -> None:
        self._connected.replace(connection, by)

    def forget(self, connection: AnyClient) -> None:
        self._connected.forget(connection)
        self.queues.watch()
