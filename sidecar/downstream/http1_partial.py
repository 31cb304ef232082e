"""A request by HTTP/1.1 of which a part is here: its unfinished head, then a body that one read did not bring whole.

Decides where the body ends, and whose turn it is meanwhile: the client's, to send more, or the upstream's. Passes on
what arrives to the exchange; of a request that is answered already, the rest is read past. Stands on
`http1_between.py`. Of what is above it, it calls `_take_whole_head`, and `_refuse` for what is malformed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sidecar.core.chunked import ChunkedBody, MalformedChunk, TooLarge
from sidecar.core.errors import Reason
from sidecar.core.plain import Field
from sidecar.core.request import Request
from sidecar.downstream import reader
from sidecar.downstream.http1_between import BetweenRequests
from sidecar.downstream.http1_flow import HOLD
from sidecar.downstream.phase import Phase
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.given_up import GivenUp
from sidecar.http1 import parse
from sidecar.http1.llhttp import MalformedHead
from sidecar.http1.unfinished import UnfinishedHead
from sidecar.transport.turns import SLICE_UNITS

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

MAX_SKIP_BYTES: Final = 64 * 1024
"""Rest of a request body that is read past to keep a connection; beyond it, it is closed."""

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_IDLE: Final = Phase.IDLE
_BODY: Final = Phase.BODY
_ANSWER: Final = Phase.ANSWER
_SKIP: Final = Phase.SKIP


class PartialReader(BetweenRequests):
    """Writes `_unfinished`, `_body_left`, `_chunked` and `_is_distrusted`."""

    __slots__ = ("_body_left", "_chunked", "_is_distrusted", "_unfinished")

    def __init__(self, listener: ListenerTerms) -> None:
        BetweenRequests.__init__(self, listener)
        self._unfinished: UnfinishedHead | None = None
        self._body_left = 0
        """Of a request's body whose length is known: bytes that are still to come."""
        self._chunked: ChunkedBody | None = None
        """Reads the present request's body."""
        self._is_distrusted = False
        """What arrives is not read any more, since it could be read in two ways."""

    @abstractmethod
    def _refuse(self, refused: parse.Refused, now: float, head: bytes = b"") -> None:
        """Nothing that arrives from here on can be trusted: answer this, then close. `head`: that of its request, if
        it was read whole and no exchange has begun."""

    @abstractmethod
    def _take_whole_head(self, head: bytes, rest: bytes) -> bytes:
        """Begin what it asks for; returns what is left of `rest`, which came behind it."""

    def _distrust(self) -> None:
        """Read nothing more of what arrives, and drop what is here of it."""
        self._is_distrusted = True
        self._keep_no_longer()
        self._drop_read()

    def _disregard(self) -> bytes:
        """Of a client that goes on behind its last request: nothing of it is read, nor is what is to come."""
        self._is_distrusted = True
        return b""

    # Its head

    def _begin_unfinished(self, data: bytes) -> bytes:
        unfinished = self._unfinished = UnfinishedHead(is_request=True)
        return self._go_on_with_head(unfinished, data)

    def _go_on_with_head(self, unfinished: UnfinishedHead, data: bytes) -> bytes:
        try:
            used = unfinished.add(data)
        except MalformedHead as error:
            line, _, fields = unfinished.whole().partition(b"\r\n")
            version = "1.0" if line.endswith(b"1.0") else "1.1"
            self._refuse(reader.refusal_of(error, fields, version), self._service.clock())
            return b""
        if used is None:
            self._check_unfinished(unfinished)
            return b""
        self._unfinished = None
        return self._take_whole_head(unfinished.whole(), data[used:])

    def _check_unfinished(self, unfinished: UnfinishedHead) -> None:
        """One that is malformed or too large already is not read to its end."""
        try:
            reader.check_unfinished(self.listener, unfinished)
        except parse.Refused as refused:
            self._refuse(refused, self._service.clock())

    # Its body

    def _begin_body(self, exchange: Exchange, request: Request, data: bytes) -> tuple[bytes, GivenUp | None]:
        """What is here of a body that comes in pieces, before its exchange begins."""
        if request.length > 0:
            self._body_left = request.length
        else:
            self._chunked = ChunkedBody(self.listener.limits.headers, self.listener.limits.head_bytes)
        self.link.bound_buffers(self._service.memory.buffer_bytes)
        phase = _ANSWER if request.traits.expects_continue and not data else _BODY
        self._enter(phase, self._service.clock())
        if not data:
            return b"", None
        if self._chunked is None:
            self._body_left -= len(data)
            exchange.data(data)
            return b"", None
        try:
            return self._read_chunks(self._chunked, exchange, data), None
        except MalformedChunk as error:
            self._distrust()
            return b"", GivenUp(_reason_of(error), str(error))

    def _take_body(self, data: bytes) -> bytes:
        """Pass on the body of a known length, and return what is behind it."""
        piece = data[: self._body_left]
        self._body_left -= len(piece)
        exchange = self._exchange
        if exchange is not None:
            self._note_progress()
            exchange.data(piece)
        if not self._body_left:
            self._message_read(())
        return data[len(piece) :]

    def _note_progress(self) -> None:
        if self.phase is _BODY:
            self._since = self._service.clock()
        elif self.phase is _ANSWER and not self._pauses & HOLD:
            self._enter(_BODY, self._service.clock())  # it did not wait for the 100

    def _take_chunks(self, chunked: ChunkedBody, data: bytes) -> bytes:
        exchange = self._exchange
        if exchange is not None:
            self._note_progress()
        try:
            return self._read_chunks(chunked, exchange, data)
        except MalformedChunk as error:
            self._refuse(parse.Refused(_reason_of(error), str(error)), self._service.clock())
            return b""

    def _read_chunks(self, chunked: ChunkedBody, exchange: Exchange | None, data: bytes) -> bytes:
        """Pass on what this turn of the loop has time for, joined; returns what is behind the body."""
        units = self._service.turns.take(SLICE_UNITS)
        read = chunked.feed(data, 0, units) if units else 0
        body = chunked.take()
        if body and exchange is not None:
            exchange.data(body)
        if chunked.is_done:
            self._chunked = None
            self._message_read(chunked.trailers)
            return data[read:]
        return self._put_off(data[read:]) if read < len(data) else b""

    def _message_read(self, trailers: Sequence[Field]) -> None:
        """The request is whole."""
        if trailers and any(key == b"connection" for key, _, _ in trailers):
            self._keep_no_longer()  # some reader heeds it, though it frames nothing here (RFC 9110 6.5.1)
        exchange = self._exchange
        if exchange is not None:
            if self.phase is _BODY:
                self._enter(_ANSWER, self._service.clock())
            exchange.end(trailers)
        elif self.phase is _SKIP:
            self._enter(_IDLE, self._service.clock())

    def _drop_head(self) -> None:
        """The unfinished one, and what came too early."""
        self._unfinished = None
        self._keep_only(b"")

    def _drop_read(self) -> None:
        """All that was read and not worked through."""
        self._unfinished = self._chunked = None
        self._body_left = 0
        self._keep_only(b"")

    # What is left of the body

    def _is_body_due(self) -> bool:
        return bool(self._body_left) or self._chunked is not None

    def _can_skip_body(self) -> bool:
        """Whether the rest of the body is known to be short."""
        return self._chunked is None and self._body_left <= MAX_SKIP_BYTES

    def _phase_of_request(self) -> Phase:
        """Whose turn it is, apart from what the client has not taken yet."""
        exchange = self._exchange
        is_body_due = self._is_body_due()
        if exchange is None:
            return _SKIP if is_body_due else _IDLE
        if not is_body_due or self._pauses & HOLD:
            return _ANSWER
        return _ANSWER if exchange.request.traits.expects_continue and not exchange.request_bytes else _BODY


def _reason_of(error: MalformedChunk) -> Reason:
    return Reason.HEAD_TOO_LARGE if isinstance(error, TooLarge) else Reason.BAD_REQUEST
