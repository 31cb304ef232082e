"""A client's connection of which it is not known what it speaks: one that was intercepted, or is behind a CONNECT.

Decides by the client's first bytes (`sniff.py`). Requests of HTTP go on as any other connection's; everything else is
a tunnel to where the client was going, or to the upstream of a route that takes all of a host. Where the client says
nothing for `detect_timeout` the server may speak first: it is connected, and whoever of the two is heard first
decides. Owned by its listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

from sidecar.core.errors import Reason
from sidecar.core.head import ResponseHead
from sidecar.core.memory_budget import CONNECTION_BYTES, Claim, Held
from sidecar.core.plain import Field
from sidecar.core.request import TUNNEL, Asked, Request, Traits
from sidecar.core.snapshot import ORIGINAL, Unmatched
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.http2_connection import http2_connection
from sidecar.downstream.phase import Phase, Then
from sidecar.downstream.phase_clock import UNSEEN, PhaseClock
from sidecar.downstream.sniff import Detected, FirstBytes
from sidecar.forwarding.connect import TunnelExchange
from sidecar.forwarding.live import LiveRoute
from sidecar.forwarding.streams import ServerStream
from sidecar.forwarding.sweep import Expiring, Sweep
from sidecar.forwarding.visitors import Lack
from sidecar.transport.channel import Channel
from sidecar.transport.intercept import asked_by
from sidecar.transport.link import Link

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

_TRAITS = Traits(upgrade=TUNNEL)


class OpaqueConnection(PhaseClock, ServerStream):
    """One client."""

    __slots__ = (
        "_behind",
        "_exchange",
        "_first",
        "_has_ended",
        "_is_gone_on",
        "_is_visitor",
        "_service",
        "_since",
        "_untaken",
        "_until_first",
        "bucket",
        "due",
        "is_retired",
        "link",
        "listener",
        "phase",
    )  # fmt: skip

    link: Link
    is_secured = False

    def __init__(self, listener: ListenerTerms) -> None:
        self.listener = listener
        self._service = listener.service
        self.phase = Phase.DETECT
        self.is_retired = False
        self._since = 0.0
        self.due = inf
        self.bucket: set[Expiring] | None = None
        self._untaken = UNSEEN
        self._behind = b""
        """Read, and given to nobody yet."""
        self._first = FirstBytes()
        self._exchange: TunnelExchange | None = None
        self._has_ended = False
        self._is_gone_on = False
        """Another protocol hears its link now."""
        self._is_visitor = False
        """There is nothing left to serve it with."""
        self._until_first: _UntilFirst | None = None
        """Between it and its tunnel, while neither side has said anything."""

    def __repr__(self) -> str:
        peer = self.link.peer if hasattr(self, "link") else None
        return f"<OpaqueConnection {peer} {self.phase.name}>"

    @property
    def peer(self) -> tuple[str, int] | None:
        return self.link.peer

    @property
    def _asked(self) -> Asked:
        asked = self.link.asked
        assert asked is not None, "else it is a connection of HTTP"
        return asked

    @property
    def is_silent(self) -> bool:
        return self.phase is Phase.DETECT and not self._behind

    # How it begins

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted from the kernel: it may have been intercepted."""
        link = self.link = Link(cast(asyncio.Transport, transport))
        asked = asked_by(transport)
        if asked is None:
            self._is_gone_on = True
            connection = ClientConnection(self.listener)
            link.set_sink(connection)
            connection.connection_made(transport)
            return
        link.asked = asked
        if not self.listener.accept(self) or self._is_loop(asked):
            self._enter(Phase.CLOSING, self._service.clock())
            link.reset()
            return
        self._begin(b"")

    def _is_loop(self, asked: Asked) -> bool:
        """It was going to one of our own ports, or it is a connection that this process has just opened."""
        return self._service.passing.is_loop(asked, self.link.peer)

    def take_over(self, link: Link, data: bytes) -> None:
        """Go on with a connection that has been told that its CONNECT is answered."""
        self.link = link
        link.set_sink(self)
        self._begin(data)

    def _begin(self, data: bytes) -> None:
        self.link.bound_buffers(self._service.memory.buffer_bytes)
        self._enter(Phase.DETECT, self._service.clock())
        if self._asked.port in self.listener.opaque_ports:
            self._behind = data
            self._tunnel("")
        elif data:
            self.data_received(data)

    # What is heard

    def data_received(self, data: bytes) -> None:
        if self.phase is not Phase.DETECT and self._until_first is None:
            self._behind += data  # its destination is being connected: `_tunnel` has stopped the reading
            self.link.pause_again()
            return
        try:
            self._behind += data
            self._decide(self._first.feed(data))
        except Exception as error:
            self._break_off(error)

    def _decide(self, spoken: Detected) -> None:
        waiting = self._until_first
        if spoken is Detected.UNDECIDED:
            if waiting is not None:
                self._enter(Phase.DETECT, self._service.clock())
            return
        if spoken in (Detected.HTTP1, Detected.HTTP2):
            if waiting is not None:
                waiting.part()
            self._become_http(spoken)
        elif waiting is not None:
            self._hand_on(waiting)
        else:
            self._tunnel(self._first.server_name)

    def _become_http(self, spoken: Detected) -> None:
        listener, link = self.listener, self.link
        served = http2_connection(listener, link) if spoken is Detected.HTTP2 else None
        data, self._behind = self._behind, b""
        self._go_on()
        if served is None:
            connection = ClientConnection(listener)
            listener.replace(self, connection)
            connection.take_over(link, data)
        else:
            link.set_sink(served)
            listener.replace(self, served)
            served.start(data)

    def _go_on(self) -> None:
        self._is_gone_on = True
        self._enter(Phase.TUNNEL, self._since)
        Sweep.remove(self)

    def _break_off(self, error: Exception) -> None:
        """A mistake of ours ends this connection, and nothing else."""
        message = "an error in reading from a client; its connection is ended"
        self._service.loop.call_exception_handler({"message": message, "exception": error})
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        self.link.reset()

    def eof_received(self) -> bool:
        self._has_ended = True
        waiting = self._until_first
        if waiting is not None:
            self._hand_on(waiting)
        elif self.phase is Phase.DETECT:
            self._tunnel("")  # a client that only listens
        return True

    def connection_lost(self, error: Exception | None) -> None:
        waiting, self._until_first = self._until_first, None
        if waiting is not None and waiting.protocol is not None:
            waiting.protocol.connection_lost(error)
            return
        self._enter(Phase.CLOSED, self._since)
        Sweep.remove(self)
        self.listener.forget(self)
        self.link.lost()
        self._behind = b""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self.listener.service.turns.end(
                partial(exchange.gone, Reason.CLIENT_GONE, "the client went away")
            )

    def pause_writing(self) -> None:
        if self._until_first is not None:
            self._until_first.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._until_first is not None:
            self._until_first.protocol.resume_writing()

    # The tunnel

    def _tunnel(self, server_name: str) -> None:
        """Connect to where it was going. `server_name`: what a TLS client has asked for."""
        if self._is_visitor:
            self._enter(Phase.CLOSING, self._service.clock())
            self.link.reset()  # what it speaks has no word for it
            return
        asked = self._asked
        is_known = bool(self._behind) or self._has_ended or asked.port in self.listener.opaque_ports
        if not is_known:
            self._until_first = _UntilFirst(self)
        else:
            self.link.pause()
        self._enter(Phase.ANSWER, self._service.clock())
        request = Request().take(
            self.listener.name,
            b"CONNECT",
            asked.authority,
            b"",
            server_name.encode() or asked.authority,
            [],
            {},
        )
        request.traits = _TRAITS
        request.asked = asked
        exchange = TunnelExchange().take(self._service, self, request)
        self._exchange = cast(TunnelExchange, exchange)
        exchange.route = self._route_for(request.host)
        exchange.begin()

    def _route_for(self, host: bytes) -> LiveRoute | None:
        """The route whose upstream gets the bytes: it takes all of this host, and its upstream stands at the port
        that was asked for. Else TLS meant for one port would be sent to another that speaks something else."""
        listener = self.listener
        table = self._service.tables.get(listener.name)
        route = None if table is None else table.find_bytes(host, self._asked.port)
        if route is None or not route.destinations:
            return None
        policies = [destination.cluster.policy for destination in route.destinations]
        if any(policy.tls is not None for policy in policies):
            return None  # it would be TLS within TLS
        is_there = any(
            one.port == self._asked.port or one == ORIGINAL for policy in policies for one in policy.endpoints
        )
        return route if is_there or listener.unmatched is Unmatched.REFUSE else None

    def _overdue(self, then: Then, now: float) -> None:
        waiting = self._until_first
        if waiting is None:
            self._tunnel("")
        else:
            self._hand_on(waiting)

    def _hand_on(self, waiting: _UntilFirst) -> None:
        """The tunnel hears the client from now on, or as soon as there is one."""
        self._until_first = None
        if waiting.protocol is None:
            self.link.pause()
            return
        self._enter(Phase.TUNNEL, self._since)
        protocol, behind, self._behind = waiting.protocol, self._behind, b""
        self.link.set_sink(protocol)
        if behind:
            protocol.data_received(behind)
        if self._has_ended:
            protocol.eof_received()

    def parted(self) -> None:
        """Its tunnel is given up: it goes on without it."""
        self._until_first = None
        self._is_gone_on = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.tunnel is None:
            exchange.gone(Reason.CLIENT_GONE, "its client speaks HTTP after all")

    # What an exchange asks for (`forwarding.streams.ServerStream`)

    def send_switch(self, head: ResponseHead, upgrade: bytes) -> None:
        """Nobody waits for an answer."""

    def hand_over(self, protocol: Any) -> tuple[Channel, bytes, bool]:
        self._enter(Phase.TUNNEL, self._since)
        Sweep.remove(self)
        self.link.keep_alive()
        waiting = self._until_first
        if waiting is not None and not self._behind and not self._has_ended:
            waiting.protocol = protocol
            return waiting, b"", False
        self._until_first = None
        behind, self._behind = self._behind, b""
        self.link.set_sink(protocol)
        self.link.resume()
        return self.link, behind, self._has_ended

    def server_spoke(self) -> None:
        """Before the client: it is no HTTP."""
        waiting = self._until_first
        if waiting is not None:
            self._hand_on(waiting)

    def send_whole(self, head: ResponseHead, body: bytes | memoryview) -> None:
        """There is no tunnel. Whatever the client speaks, it understands a connection that is reset."""
        self.link.reset()

    def end(self, trailers: Sequence[Field]) -> None:
        self._exchange = None
        if self.phase is Phase.TUNNEL and not self._is_gone_on:
            self.listener.forget(self)

    def reset(self, reason: Reason) -> None:
        self.link.reset()

    def send_interim(self, head: ResponseHead) -> None: ...
    def send_head(self, head: ResponseHead) -> None: ...
    def send_data(self, data: bytes | memoryview) -> None: ...
    def flush(self) -> None: ...
    def hold(self) -> None: ...
    def resume(self) -> None: ...

    # What its listener asks for

    def was_idle(self, at: float) -> bool:
        """It is not known yet what it brings."""
        return False

    def turn_away(self, lack: Lack) -> None:
        """Its connection is reset, but whoever takes its place for HTTP is told, and answers no."""
        self._is_visitor = True

    def drain(self) -> None:
        """It is served once, as who has connected before."""

    def retire(self) -> None:
        """Whoever takes its place is told (`ListenerSocket.replace`); a tunnel that there is goes on."""
        self.is_retired = True

    def claim(self, now: float) -> Claim | None:
        size = CONNECTION_BYTES + len(self._behind)
        return Claim(self, self.link.address, size, now - self._since)

    def end_for_memory(self) -> Held | None:
        if self.phase is Phase.CLOSED:
            return None
        held = Held.TUNNEL if self.phase is Phase.TUNNEL else Held.IDLE
        exchange = self._exchange
        if exchange is not None:
            exchange.gone(Reason.OVERLOADED, "its connection was closed to give memory back")
        self.link.abort()
        return held


class _UntilFirst:
    """A tunnel's client side while nobody has said anything. Whoever is heard first decides what it is: the server,
    and it stays a tunnel; the client, and it may turn out to be HTTP, for which the tunnel is given up."""

    __slots__ = ("_connection", "_is_parted", "is_lost", "protocol")

    def __init__(self, connection: OpaqueConnection) -> None:
        self._connection = connection
        self._is_parted = False
        self.is_lost = False
        self.protocol: Any = None
        """The tunnel's; set by `hand_over`."""

    def part(self) -> None:
        """The tunnel is over, and its client goes on without it."""
        self._connection.parted()
        self._is_parted = True
        if self.protocol is not None:
            self.protocol.connection_lost(None)

    @property
    def can_half_close(self) -> bool:
        return not self._is_parted and self._connection.link.can_half_close

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._is_parted else self._connection.link.unsent_bytes

    def untaken_bytes(self) -> int:
        return 0 if self._is_parted else self._connection.link.untaken_bytes()

    def write(self, data: Any, /) -> None:
        if not self._is_parted:
            self._connection.server_spoke()
            self._connection.link.write(data)

    def pause(self) -> None:
        if not self._is_parted:
            self._connection.link.pause()

    def resume(self) -> None:
        if not self._is_parted:
            self._connection.link.resume()

    def end_writing(self) -> None:
        if not self._is_parted:
            self._connection.server_spoke()
            self._connection.link.end_writing()

    def close(self) -> None:
        if not self._is_parted:
            self._connection.link.close()

    def break_off(self) -> None:
        if not self._is_parted:
            self._connection.link.break_off()

    def abort(self) -> None:
        if not self._is_parted:
            self._connection.link.abort()

    def lost(self) -> None:
        self.is_lost = True
        if not self._is_parted:
            self._connection.link.lost()

    def set_sink(self, protocol: Any) -> None:
        self.protocol = protocol
        if not self._is_parted:
            self._connection.link.set_sink(protocol)
