"""A client's connection until its TLS handshake is over: then it is one of HTTP, as if it had begun there.

Reads the client's first message by itself, chooses the certificate by it, and hands all bytes to OpenSSL in turns
that hold the loop for a bounded time: a signature takes a quarter of a millisecond, and nobody is kept from sending a
thousand first messages at once. What waits for its turn is not read on, and counts in the budget of memory. Owned by
its listener, like every connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final, cast

from sidecar.core.alpn import HTTP_2
from sidecar.core.client_tls import ClientTls, xfcc_line
from sidecar.core.errors import Reason
from sidecar.core.memory_budget import CONNECTION_BYTES, SECURED_BYTES, Account, Claim, Held, settled
from sidecar.core.snapshot import ClientCertificate
from sidecar.core.tls_numbers import Handshake
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.http2_connection import http2_connection
from sidecar.downstream.phase import Phase, Then
from sidecar.downstream.phase_clock import UNSEEN, PhaseClock
from sidecar.downstream.secured import Secured
from sidecar.forwarding.sweep import Expiring, Sweep
from sidecar.forwarding.visitors import Lack
from sidecar.transport.link import Link
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.tls.hello import ClientHello, HelloReader, HelloTooLong, NotTls
from sidecar.transport.tls.served import ServedCertificates, shown_by
from sidecar.transport.tls.transport import Handshaking, TlsTransport
from sidecar.transport.turns import TURN_UNITS

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

HANDSHAKES_A_TURN: Final = 8
"""Of the loop, begun or gone on with, at most: about 4 ms. Fewer where each takes longer, as with keys of RSA."""
_UNITS: Final = TURN_UNITS // HANDSHAKES_A_TURN
_UNITS_A_SECOND: Final = TURN_UNITS / 0.004
_NO_COMMON_PROTOCOL: Final = b"\x15\x03\x03\x00\x02\x02\x78"
"""The alert `no_application_protocol` as a record (RFC 7301 3.2): Python's OpenSSL goes on without one."""
_RESULTS: Final = {
    Reason.TLS_CERTIFICATE: Handshake.CERTIFICATE,
    Reason.TLS_ALERT: Handshake.ALERT,
}


class ClientHandshake(PhaseClock, Handshaking):
    """One client that is not heard yet."""

    __slots__ = (
        "_account", "_behind", "_hello", "_is_waiting", "_raw", "_reader", "_served", "_service",
        "_since", "_tls", "_untaken", "bucket", "due", "is_retired", "link", "listener", "phase",
    )  # fmt: skip

    link: Link
    _raw: asyncio.Transport

    def __init__(self, listener: ListenerTerms, served: ServedCertificates) -> None:
        self.listener = listener
        self._served = served
        """Those that were current when it connected."""
        self._service = listener.service
        self.phase = Phase.HANDSHAKE
        self.is_retired = False
        self._since = 0.0
        self.due = inf
        self.bucket: set[Expiring] | None = None
        self._untaken = UNSEEN
        self._reader: HelloReader | None = HelloReader()
        self._hello = ClientHello()
        self._behind = b""
        """Read, and not given to OpenSSL yet."""
        self._is_waiting = False
        """For a turn of the loop with time left."""
        self._tls: TlsTransport | None = None
        self._account: Account | None = None

    def __repr__(self) -> str:
        peer = self.link.peer if hasattr(self, "link") else None
        return f"<ClientHandshake {peer} {self.phase.name}>"

    is_secured = True

    def was_idle(self, at: float) -> bool:
        """It has not had its turn: nobody else gets its place."""
        return False

    @property
    def is_silent(self) -> bool:
        return self._reader is not None and not self._reader.raw

    def turn_away(self, lack: Lack) -> None:
        """Whoever takes its place is told (`ListenerSocket.replace`), and answers no."""

    def drain(self) -> None:
        """It is served once, as who has connected before."""

    def retire(self) -> None:
        """Whoever takes its place is told (`ListenerSocket.replace`)."""
        self.is_retired = True

    def _overdue(self, then: Then, now: float) -> None:
        self._end(Handshake.TIMEOUT, "the handshake took too long")

    # What the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        self.link = Link(self._raw)
        if self.listener.accept(self):
            self._enter(Phase.HANDSHAKE, self._service.clock())
        else:
            self._enter(Phase.CLOSING, self._service.clock())
            self.link.abort()

    def data_received(self, data: bytes) -> None:
        if self.phase is not Phase.HANDSHAKE:
            return
        try:
            if self._reader is not None:
                data = self._read_hello(self._reader, data)
            if data:
                self._wait(data)
        except Exception as error:
            self._break_off(error)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """What is unsent has a bound of its own: a certificate and its chain."""

    def resume_writing(self) -> None:
        """See above."""

    def connection_lost(self, error: Exception | None) -> None:
        tls, self._tls = self._tls, None
        if self.phase is Phase.HANDSHAKE:
            self._finish(Handshake.LEFT, "the client went away")
        elif self.phase is Phase.CLOSING:
            self._forget()
        if tls is not None:
            tls.connection_lost(error)
        self.link.lost()

    def _break_off(self, error: Exception) -> None:
        """A mistake of ours ends this connection, and nothing else."""
        message = "an error in a handshake with a client; its connection is ended"
        self._service.loop.call_exception_handler({"message": message, "exception": error})
        self._end(Handshake.FAILED, "an error in the sidecar")

    # The first message

    def _read_hello(self, reader: HelloReader, data: bytes) -> bytes:
        """Returns all that has come, once that is the whole message."""
        try:
            hello = reader.feed(data)
        except NotTls as other:
            self._end(Handshake.NOT_TLS, f"this port speaks TLS, and the client sent {other}")
            return b""
        except HelloTooLong:
            self._end(Handshake.TOO_LONG, "the first message of its handshake is too long")
            return b""
        if hello is None:
            self._charge(2 * len(reader.raw))
            return b""
        self._reader = None
        self._hello = hello
        if hello.protocols and hello.protocols.isdisjoint(self._served.offered):
            self.link.write(_NO_COMMON_PROTOCOL)
            offered = ", ".join(sorted(self._served.offered))
            self._end(Handshake.NO_PROTOCOL, f"it offers no protocol of HTTP that is spoken here ({offered})")
            return b""
        return bytes(reader.raw)

    # In turns

    def _wait(self, data: bytes) -> None:
        self._behind += data
        if self._is_waiting:
            self._charge(len(self._behind))
        elif self._service.beside.handshakes.take(_UNITS):
            self._go_on()
        else:
            self._is_waiting = True
            self.link.pause()
            self._charge(len(self._behind))
            self._service.beside.handshakes.later(self._take_turn)

    def _take_turn(self) -> None:
        if self.phase is not Phase.HANDSHAKE:
            return
        if not self._service.beside.handshakes.take(_UNITS):
            self._service.beside.handshakes.later(self._take_turn)
            return
        self._is_waiting = False
        self.link.resume()
        try:
            self._go_on()
        except Exception as error:
            self._break_off(error)

    def _go_on(self) -> None:
        """Give OpenSSL what has come, and take from this turn what that took."""
        data, self._behind = self._behind, b""
        self._charge(0)
        began = self._service.clock()
        self._feed(data)
        took = int((self._service.clock() - began) * _UNITS_A_SECOND)
        if took > _UNITS:
            self._service.beside.handshakes.take(took - _UNITS)

    def _feed(self, data: bytes) -> None:
        """`shaken` or `failed` may follow from it."""
        tls = self._tls
        if tls is None:
            served = self._served
            tls = self._tls = TlsTransport(self, served.wrap(self._chosen), is_server=True)
            tls.sni = self._hello.server_name or None
            tls.connection_made(self._raw)
        tls.data_received(data)

    @property
    def _chosen(self) -> int:
        return self._served.index_of(self._hello.server_name)

    def _charge(self, size: int) -> None:
        if size or self._account is not None:  # mostly neither
            self._account = settled(self._account, self._service.memory, self._service.clock(), size)

    # How it ends (`transport.tls.transport.Handshaking`)

    def shaken(self, transport: TlsTransport) -> None:
        """From here on it is a connection of HTTP."""
        listener = self.listener
        secured = Secured(self._told(transport), self._served)
        served = None
        if transport.facts is not None and transport.facts.alpn == HTTP_2:
            served = http2_connection(listener, Link(cast(asyncio.Transport, transport)), secured)
        self._tls = None
        self._release(Phase.TUNNEL)
        listener.shaken(Handshake.DONE)
        self._raw.set_protocol(cast(asyncio.BaseProtocol, transport))
        if served is not None:
            listener.replace(self, served)
            transport.attach(served)
            served.start(b"")
        else:
            connection = ClientConnection(listener, secured)
            listener.replace(self, connection)
            transport.attach(connection)

    def _told(self, transport: TlsTransport) -> ClientTls:
        """Raises: TlsFailed."""
        served, facts, name = self._served, transport.facts, self._hello.server_name
        assert facts is not None
        shown = shown_by(transport) if served.rule is not ClientCertificate.OFF else None
        if shown is None:
            return ClientTls("", name, facts.version)
        identity = shown.identity
        transport.facts = replace(facts, identity=identity or None)
        return ClientTls(identity, name, facts.version, xfcc_line(shown, served.pairs[self._chosen].uris))

    def failed(self, transport: TlsTransport, error: TlsFailed) -> None:
        if self.phase is Phase.HANDSHAKE:
            self.listener.shaken(_RESULTS.get(error.reason, Handshake.FAILED), self.link.peer, error.detail)
            self._release(Phase.CLOSING)  # it keeps its place until its socket has closed

    def _end(self, result: Handshake, detail: str) -> None:
        """By us: what was written still goes out, and nothing else."""
        if self.phase is not Phase.HANDSHAKE:
            return
        self.listener.shaken(result, self.link.peer, detail)
        self._release(Phase.CLOSING)
        if result is Handshake.NO_PROTOCOL:
            self.link.close()
        else:
            self.link.abort()

    def _finish(self, result: Handshake, detail: str) -> None:
        self.listener.shaken(result, self.link.peer, detail)
        self._forget()

    def _forget(self) -> None:
        self._release(Phase.CLOSED)
        self.listener.forget(self)

    def _release(self, phase: Phase) -> None:
        self._enter(phase, self._since)
        Sweep.remove(self)
        self._behind = b""
        self._reader = None
        self._charge(0)

    # Memory

    def claim(self, now: float) -> Claim | None:
        """What its end would give back."""
        size = (
            CONNECTION_BYTES
            + SECURED_BYTES
            + (self._account.charged_bytes if self._account is not None else 0)
        )
        return Claim(self, self.link.address, size, now - self._since)

    def end_for_memory(self) -> Held | None:
        """Give back what it holds; returns what that was, None if it must not be ended any more."""
        if self.phase is not Phase.HANDSHAKE:
            return None
        self._end(Handshake.MEMORY, "its connection was closed to give memory back")
        return Held.HANDSHAKE
