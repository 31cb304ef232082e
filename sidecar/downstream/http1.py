"""HTTP/1.1 server side: the bytes of one client connection ↔ one request and its answer at a time.

Here is what asyncio calls, and the loop over what was read: whose bytes they are, and whether it is their turn. It
knows nothing of routes: a complete head becomes an `Exchange`, which then answers to this connection as its
`ServerStream`. Owned by its listener; `phase.py` says how long each of its phases may last.

It stands on parts, each a class that alone writes what it keeps and knows those below it. From the bottom up:

    phase_clock.py     its phase, and how long that may last
    http1_flow.py      when it is read, and what waits meanwhile
    http1_between.py   whether and when there is a next request
    http1_partial.py   a request of which a part is here
    http1_memory.py    what it holds of the memory of all connections
    http1_answers.py   an answer as bytes, and what follows its end
    http1_heads.py     from the bytes of a head to an exchange
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from sidecar.core.errors import Reason
from sidecar.core.plain import read_request
from sidecar.core.snapshot import HttpVersion
from sidecar.downstream.http1_between import LET_IN, Stay
from sidecar.downstream.http1_flow import BEHIND, TURN
from sidecar.downstream.http1_heads import HeadReader
from sidecar.downstream.http2_connection import http2_connection
from sidecar.downstream.phase import ENDED, Phase, Then
from sidecar.downstream.secured import Secured
from sidecar.forwarding.sweep import Sweep
from sidecar.http1 import parse
from sidecar.transport.link import Link
from sidecar.transport.turns import REQUEST_UNITS

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

_IDLE: Final = Phase.IDLE
"""Read from a module global in the hot path: an enum's own lookup costs 15 to 50 ns each time."""


class ClientConnection(HeadReader):
    """One client. Writes `_is_reading`."""

    __slots__ = ("_is_reading",)

    def __init__(self, listener: ListenerTerms, secured: Secured | None = None) -> None:
        """`secured`: its TLS, whose handshake is over; it has its place at the listener then."""
        HeadReader.__init__(self, listener, secured)
        self._is_reading = False

    def __repr__(self) -> str:
        peer = self.link.peer if hasattr(self, "link") else None
        return f"<ClientConnection {peer} {self.phase.name} {self._exchange!r}>"

    @property
    def is_silent(self) -> bool:
        return self.phase is _IDLE and not self._behind and self._secured is None

    # When its phase has lasted too long (`phase_clock.py`)

    def _overdue(self, then: Then, now: float) -> None:
        match then:
            case Then.CLOSE:
                self._close_idle(now)
            case Then.REFUSE_HEAD:
                self._refuse(parse.Refused(Reason.REQUEST_TIMEOUT, "the request head took too long"), now)
            case Then.REFUSE_BODY:
                self._refuse(parse.Refused(Reason.REQUEST_TIMEOUT, "the request body stalled"), now)
            case Then.CUT:
                self.link.reset()

    # What asyncio does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = Link(cast(asyncio.Transport, transport))
        if self._secured is not None or self.listener.accept(self):
            self.link.bound_buffers(self._service.memory.buffer_bytes)
            self._enter(_IDLE, self._service.clock())
            if self.listener.protocol is HttpVersion.HTTP2:
                self._become_http2(b"")  # or a plain request would be served before anybody asks what it is
        else:
            self._enter(Phase.CLOSING, self._service.clock())
            self.link.abort()

    def take_over(self, link: Link, data: bytes) -> None:
        """In the place of `connection_made`, where the client was heard by another protocol before: `data` is what it
        has sent so far."""
        self.link = link
        self._enter(_IDLE, self._service.clock())
        if self.listener.protocol is HttpVersion.HTTP2:
            self._become_http2(data)
            return
        link.set_sink(self)
        self.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.listener.gate is not None:
            self._leave_gate()
        self._enter(Phase.CLOSED, self._since)
        Sweep.remove(self)
        self.listener.forget(self)
        self.link.lost()
        self._drop_read()
        self._give_back()
        exchange = self._leave_exchange()
        if exchange is not None:
            self._service.turns.end(partial(exchange.gone, Reason.CLIENT_GONE, "the client went away"))

    def data_received(self, data: bytes) -> None:
        try:
            if self.phase is _IDLE and not self._behind:
                gate = self.listener.gate
                if gate is not None and not self._may_begin(gate, data):
                    return
                plain = read_request(data)
                if plain is not None:
                    data = self._take_plain(plain, data)
                    if not data:
                        return
            self._take(data)
        except Exception as error:
            self._break_off(error)

    def _break_off(self, error: Exception) -> None:
        """A mistake of ours ends this connection and its exchange, and nothing else."""
        message = "an error in reading from a client; its connection is ended"
        self._service.loop.call_exception_handler({"message": message, "exception": error})
        exchange = self._leave_exchange()
        if exchange is not None:
            exchange.abandon()
        self.link.reset()

    # From bytes to requests

    def _take(self, data: bytes) -> None:
        """Work through `data` as far as answers allow."""
        if self._is_reading or self._pauses & TURN:
            self._keep(data)
            self._charge()
            return
        if self._behind:
            data = self._take_kept() + data
        self._is_reading = True
        try:
            while data:
                data = self._take_next(data)
        finally:
            self._is_reading = False
        if self._stay is Stay.VISITOR and self._verdict is not None and self.phase is Phase.HEAD:
            self._answer(self._verdict, self._service.clock())  # the rest of its head may never come
        if self._account is not None:
            self._note_moved()
        elif self._behind or self._unfinished is not None or self._body_left or self._chunked is not None:
            self._charge()

    def _take_next(self, data: bytes) -> bytes:
        """The next piece of it; returns the rest."""
        if self._body_left:
            return self._take_body(data)
        if self._chunked is not None:
            return self._take_chunks(self._chunked, data)
        if self.phase in ENDED:
            return b""  # nobody listens any more
        if not self._keep_alive and (self._is_distrusted or not self._is_switching()):
            return self._disregard()
        if self._exchange is not None or self._is_write_paused:
            return self._keep(data)
        if self._unfinished is not None:
            return self._go_on_with_head(self._unfinished, data)
        gate = self.listener.gate
        if gate is not None and self.place < LET_IN:
            return self._keep_at_gate(gate, data)
        units = self._service.turns.take(REQUEST_UNITS)
        return self._begin_head(data) if units else self._put_off(data)

    def _go_on(self, *, is_due: bool = False) -> None:
        """Work through what was kept, if it is its turn. Raises nothing: whoever calls has ended another request, and
        has nothing to do with this one."""
        if self._is_reading or not self._behind or (self._pauses & TURN and not is_due):
            return
        data = self._take_kept()
        self._resume(BEHIND)
        try:
            self._take(data)
        except Exception as error:
            self._break_off(error)

    # Where HTTP/2 follows

    def _become_http2(self, data: bytes) -> None:
        """The client has begun with the preface: another protocol hears it from now on."""
        listener, link = self.listener, self.link
        served = http2_connection(listener, link, self._secured)
        self._part()
        link.set_sink(served)
        listener.replace(self, served)
        served.start(data)
