"""From the bytes of one head by HTTP/1.1 to the exchange of its request, or to a refusal.

Decides what a client's bytes begin: HTTP/2, a head that is whole or not, a plain request or another one. A plain head
is read by `core/plain.py`, every other one by `reader.py`. Stands on `http1_answers.py`. Of what is above it, it
calls `_become_http2` alone.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from sidecar.core.grpc_status import is_grpc
from sidecar.core.headers import TELLS_OF_CLIENT
from sidecar.core.hosts import asked_port, normal_host
from sidecar.core.memory_budget import FIELD_BYTES, STEP_BYTES, charge_of_head
from sidecar.core.plain import BLOCK, FILLED, PlainRequest, read_request
from sidecar.core.request import PLAIN, Asked, Request, Traits
from sidecar.downstream import reader
from sidecar.downstream.client_lines import MOST_KEPT, Known, tell_of_client
from sidecar.downstream.http1_answers import AnswerWriter
from sidecar.downstream.phase import Phase
from sidecar.downstream.secured import Secured
from sidecar.downstream.sniff import Sniffed, sniff
from sidecar.forwarding.connect import TunnelExchange
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.http1 import parse
from sidecar.http1.llhttp import HEAD_END
from sidecar.http1.parse import known_hosts

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

EMPTY_BYTES: Final = 8192
"""Of empty lines that are passed over at once; the next ones are asked for anew, as a request would be."""
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+").match
_OF_CLIENT: Final = TELLS_OF_CLIENT
_ANSWER: Final = Phase.ANSWER
"""Read from a module global in the hot path: an enum's own lookup costs 15 to 50 ns each time."""


class HeadReader(AnswerWriter):
    """Writes `_is_fresh` and `_forwarded`, and begins `_exchange`."""

    __slots__ = ("_forwarded", "_is_fresh", "_secured")

    def __init__(self, listener: ListenerTerms, secured: Secured | None) -> None:
        AnswerWriter.__init__(self, listener)
        self._is_fresh = True
        """Nothing was read yet but, perhaps, the beginning of HTTP/2's preface."""
        self._forwarded: Known | None = None
        """A host, and the lines that tell an upstream of this client's address."""
        self._secured = secured
        """Its TLS; None in clear text."""

    @property
    def is_secured(self) -> bool:
        return self._secured is not None

    @abstractmethod
    def _become_http2(self, data: bytes) -> None:
        """The client has begun with the preface: another protocol hears it from now on."""

    # What the bytes begin

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

    def _take_whole_head(self, head: bytes, rest: bytes) -> bytes:
        plain = read_request(head)
        if plain is not None:
            return self._take_plain(plain, head + rest if rest else head)
        return self._take_head(head, rest, self._service.clock())

    # Requests

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
            if size > STEP_BYTES and not self._take_large_head(size, len(fields), data[:start]):
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
            elif known[0] == host and (
                not fields.template.tells_of_client
                if type(fields) is FILLED
                else _OF_CLIENT.isdisjoint(lookup)
            ):
                request.added = known[1]
                if known[3] is None and type(fields) is BLOCK and len(lookup) <= MOST_KEPT:
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

    def _take_large_head(self, size: int, fields: int, head: bytes) -> bool:
        """A plain head that holds more than a step of memory; False where it is refused."""
        self._service.turns.take(fields)
        return self._charge_head(size, self._service.clock(), head)

    def _take_head(self, head: bytes, rest: bytes, now: float) -> bytes:
        """Begin the exchange of any other request."""
        try:
            request, keeps_alive = reader.read_request(self.listener, head)
        except parse.Refused as refused:
            self._refuse(refused, now, head)
            return b""
        if not keeps_alive:
            self._keep_no_longer()
        self._service.turns.take(len(request.fields))  # each is looked at several times
        size = charge_of_head(len(head), len(request.fields))
        if size > STEP_BYTES and not self._charge_head(size, now, head):
            return b""
        verdict = self._verdict if self._secured is None else self._secure(self._secured, request)
        request.asked = self.link.asked
        if request.method == b"CONNECT":
            return self._take_connect(request, rest, verdict)
        if self.listener.tells_of_client:
            self._tell_of_client(request)
        return self._start(request, rest, 0, verdict)

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

    # CONNECT

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

    # Refusals

    def _refuse(self, refused: parse.Refused, now: float, head: bytes = b"") -> None:
        """Nothing that arrives from here on can be trusted: answer this, then close."""
        self._answer(GivenUp(refused.reason, refused.detail), now, head)

    def _answer(self, error: GivenUp, now: float, head: bytes = b"") -> None:
        """Whatever it was about to ask, and close. `head`: that of its request, where it is whole."""
        if self._unfinished is not None:
            head = self._unfinished.whole()
        self._distrust()
        exchange = self._exchange
        if exchange is not None:
            exchange.gone(error.reason, error.detail)
            return
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        target = rest.partition(b" ")[0]
        # By HEAD an answer has no body (RFC 9110 9.3.2); any other method makes none, and may be malformed.
        known = method if method == b"HEAD" else b""
        request = Request().take(self.listener.name, known, target[:1024], b"", b"", [], {})
        if self._secured is not None:
            request.tls = self._secured.told
        self._enter(_ANSWER, now)
        self._exchange = Exchange().take(self._service, self, request)
        self._exchange.begin(error)
