"""HTTP/1.1 server side: the bytes of one client connection ↔ one request and its answer at a time.

Decides framing towards the client, keep-alive, and when to read. It knows nothing of routes: a complete head
becomes an `Exchange`, which then answers to this connection as its `ServerStream`. A plain head is read by
`core/plain.py`, every other one by `reader.py`. Owned by its listener; `phase.py` says how long each of its phases
may last.

It stands on parts, each a class that alone writes what it keeps and knows those below it. From the bottom up:

    phase_clock.py     its phase, and how long that may last
    http1_flow.py      when it is read, and what waits meanwhile
    http1_between.py   whether and when there is a next request
    http1_partial.py   a request of which a part is here
    http1_memory.py    what it holds of the memory of all connections
    http1_answers.py   an answer as bytes, and what follows its end
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from sidecar.core.block import Block
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import is_grpc
from sidecar.core.hosts import asked_port, normal_host
from sidecar.core.memory_budget import FIELD_BYTES, STEP_BYTES, charge_of_head
from sidecar.core.plain import PlainRequest, read_request
from sidecar.core.request import PLAIN, Asked, Request, Traits
from sidecar.downstream import reader
from sidecar.downstream.client_lines import MOST_KEPT, NAMES, Known, tell_of_client
from sidecar.downstream.http1_answers import AnswerWriter
from sidecar.downstream.http1_between import LET_IN, Stay
from sidecar.downstream.http1_flow import BEHIND, TURN
from sidecar.downstream.http2 import Http2ClientConnection
from sidecar.downstream.phase import ENDED, Phase, Then
from sidecar.downstream.secured import Secured
from sidecar.downstream.sniff import Sniffed, sniff
from sidecar.forwarding.connect import TunnelExchange
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.sweep import Sweep
from sidecar.http1 import parse
from sidecar.http1.llhttp import HEAD_END
from sidecar.http1.parse import known_hosts
from sidecar.transport.link import Link
from sidecar.transport.turns import REQUEST_UNITS

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

EMPTY_BYTES = 8192
"""Of empty lines that are passed over at once; the next ones are asked for anew, as a request would be."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+").match
_FORWARDED: Final = NAMES

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_IDLE: Final = Phase.IDLE
_ANSWER: Final = Phase.ANSWER


class ClientConnection(AnswerWriter):
    """One client."""

    __slots__ = ("_forwarded", "_is_fresh", "_is_reading", "_secured")

    def __init__(self, listener: ListenerTerms, secured: Secured | None = None) -> None:
        """`secured`: its TLS, whose handshake is over; it has its place at the listener then."""
        super().__init__(listener)
        self._is_reading = False
        self._is_fresh = True
        """Nothing was read yet but, perhaps, the beginning of HTTP/2's preface."""
        self._forwarded: Known | None = None
        """A host, and the lines that tell an upstream of this client's address."""
        self._secured = secured
        """Its TLS; None in clear text."""

    def __repr__(self) -> str:
        peer = self.link.peer if hasattr(self, "link") else None
        return f"<ClientConnection {peer} {self.phase.name} {self._exchange!r}>"

    @property
    def is_secured(self) -> bool:
        return self._secured is not None

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
        else:
            self._enter(Phase.CLOSING, self._service.clock())
            self.link.abort()

    def take_over(self, link: Link, data: bytes) -> None:
        """In the place of `connection_made`, where the client was heard by another protocol before: `data` is what it
        has sent so far."""
        self.link = link
        self._enter(_IDLE, self._service.clock())
        link.set_sink(self)
        self.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._leave_gate()
        self._enter(Phase.CLOSED, self._since)
        Sweep.remove(self)
        self.listener.forget(self)
        self.link.lost()
        self._keep_only(b"")
        self._drop_body()
        self._drop_head()
        self._give_back()
        exchange, self._exchange = self._exchange, None
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
        exchange, self._exchange = self._exchange, None
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
        if not self._keep_alive:
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
        """Work through what was kept, if it is its turn."""
        if self._is_reading or not self._behind or (self._pauses & TURN and not is_due):
            return
        data = self._take_kept()
        self._resume(BEHIND)
        try:
            self._take(data)
        except (
            Exception
        ) as error:  # whoever called has ended another request, and has nothing to do with this one
            self._break_off(error)

    # Heads

    def _begin_head(self, data: bytes) -> bytes:
        plain = read_request(data)
        if plain is not None:
            return self._take_plain(plain, data)
        if self._is_fresh:
            sniffed = sniff(data, self.listener.protocol)
            if sniffed is Sniffed.UNDECIDED:
                self._enter(Phase.HEAD, self._service.clock())
                return self._keep(data)
            self._is_fresh = False
            if sniffed is Sniffed.HTTP2:
                self._become_http2(data)
                return b""
        empty = _EMPTY_LINES(data, 0, EMPTY_BYTES)  # between requests (RFC 9112 2.2)
        if empty is not None:
            return data[empty.end() :]
        if data == b"\r":
            return self._keep(data)
        end = data.find(HEAD_END)
        now = self._service.clock()
        if end >= 0:
            end += len(HEAD_END)
            return self._take_head(data[:end], data[end:], now)
        self._enter(Phase.HEAD, now)
        return self._begin_unfinished(data)

    def _become_http2(self, data: bytes) -> None:
        """The client has begun with the preface: another protocol hears it from now on."""
        listener, link = self.listener, self.link
        self._part()
        served = Http2ClientConnection(listener, link, self._secured)
        link.set_sink(served)
        listener.replace(self, served)
        served.start(data)

    def _take_whole_head(self, head: bytes, rest: bytes) -> bytes:
        plain = read_request(head)
        if plain is not None:
            return self._take_plain(plain, head + rest if rest else head)
        return self._take_head(head, rest, self._service.clock())

    def _take_plain(self, plain: PlainRequest, data: bytes) -> bytes:
        """Begin the exchange of a plain request, the usual case; returns what is behind it."""
        method, target, fields, lookup, start = plain
        host = lookup.get(b"host")
        listener = self.listener
        if host not in known_hosts:
            return self._take_head(data[:start], data[start:], self._service.clock())
        if start > listener.small_head_bytes:
            # As `fits`, without the call: 1,600 instructions less for a traced request, which is seldom small.
            is_sure = start <= listener.cookieless_head_bytes and b"cookie" not in lookup
            if not is_sure and not reader.fits(listener, start, target, fields, lookup):
                return self._take_head(data[:start], data[start:], self._service.clock())
            size = start + FIELD_BYTES * len(fields)  # `charge_of_head`
            if size > STEP_BYTES and not self._take_large_head(size, len(fields)):
                return b""
        if not listener.is_trusted:
            fields, lookup = parse.without_internal(fields, lookup)
        request = Request()  # `take`, without the call
        request.listener = listener.name
        request.method = method
        request.target = target
        request.origin_target = target
        request.host = host
        request.fields = fields
        request.lookup = lookup
        request.length = 0
        request.traits = PLAIN
        request.added = b""
        request.asked = self.link.asked
        request.tls = None
        verdict = self._verdict if self._secured is None else self._secure(self._secured, request)
        if listener.tells_of_client:
            known = self._forwarded
            if known is None or known[2] is not listener.forwarded:
                self._tell_of_client(request)
            elif known[3] is lookup:
                request.added = known[1]
            elif known[0] == host and _FORWARDED.isdisjoint(lookup):
                request.added = known[1]
                if known[3] is None and fields.__class__ is Block and len(lookup) <= MOST_KEPT:
                    self._forwarded = host, known[1], known[2], lookup  # its first head was not known yet
            else:
                self._tell_of_client(request)
        if b"content-type" in lookup and is_grpc(lookup[b"content-type"]):
            request.traits = Traits(is_grpc=True)
        if b"content-length" in lookup:
            request.length = int(lookup[b"content-length"])
            if request.length:
                return self._start(request, data, start, verdict)
        self._is_fresh = False
        exchange = self._exchange = Exchange().take(self._service, self, request)
        self.phase = _ANSWER  # which has no limit, so nothing else of `_enter` is needed: 0.1 µs less
        exchange.begin(verdict)
        return data[start:] if len(data) > start else b""

    def _take_large_head(self, size: int, fields: int) -> bool:
        """A plain head that holds more than a step of memory; False where it is refused."""
        self._service.turns.take(fields)
        return self._charge_head(size, self._service.clock())

    def _take_head(self, head: bytes, rest: bytes, now: float) -> bytes:
        """Begin the exchange of any other request."""
        try:
            request, keeps_alive = reader.read_request(self.listener, head)
        except parse.Refused as refused:
            self._refuse(refused, now)
            return b""
        if not keeps_alive:
            self._keep_no_longer()
        self._service.turns.take(len(request.fields))  # each is looked at several times
        size = charge_of_head(len(head), len(request.fields))
        if size > STEP_BYTES and not self._charge_head(size, now):
            return b""
        verdict = self._verdict if self._secured is None else self._secure(self._secured, request)
        request.asked = self.link.asked
        if request.method == b"CONNECT":
            return self._take_connect(request, rest, verdict)
        if self.listener.tells_of_client:
            self._tell_of_client(request)
        return self._start(request, rest, 0, verdict)

    def _take_connect(self, request: Request, rest: bytes, verdict: GivenUp | None) -> bytes:
        """Begin a tunnel. Where a route takes its host, what it carries may be requests of that route."""
        if verdict is None and self._secured is None and self._is_taken_by_route(request):
            asked = Asked(normal_host(request.host).decode(), asked_port(request.host, 0), is_original=False)
            self.link.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self._part()
            self.listener.detect(self, self.link, asked, rest)
            return b""
        tunnel = TunnelExchange()
        self._exchange = tunnel.take(self._service, self, request)
        self._enter(_ANSWER, self._service.clock())
        tunnel.begin(verdict)
        return rest

    def _is_taken_by_route(self, request: Request) -> bool:
        table = self._service.tables.get(request.listener)
        return table is not None and table.takes_host(request.host, asked_port(request.host, 0))

    def _tell_of_client(self, request: Request) -> None:
        self._forwarded = tell_of_client(request, self.listener, self.link.peer, self._forwarded)

    def _secure(self, secured: Secured, request: Request) -> GivenUp | None:
        """Note what the client's handshake has shown; returns why the request is not taken, if it is not."""
        request.tls = secured.told
        return secured.refusal(request.host) or self._verdict

    def _start(self, request: Request, data: bytes, start: int, verdict: GivenUp | None) -> bytes:
        """Begin the exchange whose body starts at `start`; returns what is behind it."""
        service = self._service
        exchange = self._exchange = Exchange().take(service, self, request)
        length, size = request.length, len(data)
        end = start + length
        refusal: GivenUp | None = None
        if not length:
            self.phase = _ANSWER  # without a limit: see `_take_plain`
            rest = data[start:] if size > start else b""
        elif length > 0 and end <= size:
            body = exchange.body
            assert body is not None
            # A view of a short body would keep all that came with it in memory, which is charged to nobody.
            body.arrived_whole(memoryview(data)[start:end] if 2 * length > size else data[start:end])
            self.phase = _ANSWER
            rest = data[end:] if size > end else b""
        else:
            rest, refusal = self._begin_body(exchange, request, data[start:])
        exchange.begin(refusal or verdict)
        body = exchange.body
        if body is not None and body.held_bytes > STEP_BYTES and self._is_serving(exchange):
            self._charge()
        return rest

    def _is_serving(self, exchange: Exchange) -> bool:
        """It has not ended yet. A call: by what was assigned, a type checker would know the answer."""
        return exchange is self._exchange

    # Refusals

    def _refuse(self, refused: parse.Refused, now: float) -> None:
        """Nothing that arrives from here on can be trusted: answer this, then close."""
        self._answer(GivenUp(refused.reason, refused.detail), now)

    def _answer(self, error: GivenUp, now: float) -> None:
        """Whatever it was about to ask, and close."""
        head = self._unfinished.whole() if self._unfinished is not None else b""
        self._distrust()
        exchange = self._exchange
        if exchange is not None:
            exchange.gone(error.reason, error.detail)
            return
        target = head.partition(b"\r\n")[0].partition(b" ")[2].partition(b" ")[0]
        request = Request().take(self.listener.name, b"", target[:1024], b"", b"", [], {})
        if self._secured is not None:
            request.tls = self._secured.told
        self._enter(_ANSWER, now)
        self._exchange = Exchange().take(self._service, self, request)
        self._exchange.begin(error)
