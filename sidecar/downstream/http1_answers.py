"""A client's answers by HTTP/1.1: from what an exchange says to the bytes of its connection.

Decides how the body of an answer is framed, whether its head says that the connection ends with it, and what follows
its end: the next request, the rest of a body that is read past, or the end of the connection. This is the exchange's
`ServerStream` (`forwarding/streams.py`). Stands on `http1_memory.py` and calls nothing that is above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from sidecar.core import headers
from sidecar.core.errors import Reason
from sidecar.core.head import ResponseHead
from sidecar.core.plain import ANSWER_BLOCK, BLOCK, Field
from sidecar.core.request import PLAIN, TUNNEL
from sidecar.downstream.gate import OUTSIDE
from sidecar.downstream.http1_between import Stay
from sidecar.downstream.http1_flow import BEHIND, HOLD, MEMORY, TURN
from sidecar.downstream.http1_memory import ClientMemory
from sidecar.downstream.phase import Phase
from sidecar.forwarding import date
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.streams import ServerStream
from sidecar.forwarding.sweep import Sweep
from sidecar.transport.link import Link

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

JOIN_BYTES: Final = 8192
"""A body piece up to this size is copied behind the head into one write; beyond, the copy costs more."""
_status_line: Final = headers.STATUS_LINES.get  # to ask it as a method takes 500 instructions more here
_BODYLESS: Final = frozenset({204, 304})

# How an answer's body is written.
_AS_IT_IS: Final = 0
_CHUNKED: Final = 1
_BODYLESS_FORM: Final = 2
"""Not at all."""

# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_IDLE: Final = Phase.IDLE
_AT_IDLE: Final = int(_IDLE)
"""A plain number: to look up by a member of an enum takes 30 ns more."""
_BODY: Final = Phase.BODY
_ANSWER: Final = Phase.ANSWER
_UNSENT: Final = Phase.UNSENT
_SKIP: Final = Phase.SKIP


class AnswerWriter(ClientMemory, ServerStream):
    """Writes `_pending_head` and `_answer_form`, and ends `_exchange`."""

    __slots__ = ("_answer_form", "_pending_head")

    def __init__(self, listener: ListenerTerms) -> None:
        ClientMemory.__init__(self, listener)
        self._pending_head: bytes | None = None
        """It is written with the first piece of the body, or by `flush`."""
        self._answer_form = _AS_IT_IS

    @property
    def peer(self) -> tuple[str, int] | None:
        return self.link.peer

    # The request's body, which has nowhere to go

    def hold(self) -> None:
        self._pause(HOLD)
        self._charge()
        if self.phase is _BODY:
            self._enter(_ANSWER, self._service.clock())

    def resume(self) -> None:
        if not self._pauses and self._account is None:
            return  # nothing was held back, as where a body is here whole: 0.15 µs less
        self._resume(HOLD)
        if self._account is not None:
            self._charge()
        if self.phase is _ANSWER:
            phase = self._phase_of_request()
            if phase is not _ANSWER:
                self._enter(phase, self._service.clock())

    # Its head and its body

    def send_interim(self, head: ResponseHead) -> None:
        exchange = self._exchange
        if exchange is None or exchange.request.traits.http_version != "1.1":
            return
        lines = _lines(head)
        lines.append(b"\r\n")
        self.link.write(b"".join(lines))
        if self.phase is _ANSWER and self._is_body_due() and not self._pauses & HOLD:
            self._enter(_BODY, self._service.clock())  # it has been told to go on

    def send_head(self, head: ResponseHead) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        lines, request = _lines(head), exchange.request
        if type(head.fields) is ANSWER_BLOCK:
            pass  # its request is no HEAD, its status allows a body, whose length it says
        elif request.method == b"HEAD" or head.status in _BODYLESS:
            self._answer_form = _BODYLESS_FORM
        elif head.length is None:
            if request.traits.http_version == "1.1":
                self._answer_form = _CHUNKED
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self._keep_no_longer()
        if request.traits is not PLAIN or not self._keep_alive or self.listener.is_ending or self._stay:
            self._end_head(exchange, lines)
        else:
            lines.append(b"\r\n")
        self._pending_head = b"".join(lines)

    def _end_head(self, exchange: Exchange, lines: list[bytes]) -> None:
        request = exchange.request
        if (
            self.listener.is_ending
            or self._stay
            or (request.traits.expects_continue and not exchange.request_bytes)
            or request.method == b"CONNECT"
        ):
            # Whether the body of an `Expect` still comes, or the bytes of a tunnel, is anybody's guess (RFC 9110
            # 10.1.1).
            self._keep_no_longer()
        if not self._keep_alive:
            lines.append(b"Connection: close\r\n\r\n")
        elif request.traits.http_version == "1.0":
            lines.append(b"Connection: keep-alive\r\n\r\n")
        else:
            lines.append(b"\r\n")

    def send_data(self, data: bytes | memoryview) -> None:
        form = self._answer_form
        if form == _BODYLESS_FORM:
            return
        head = self._pending_head
        size = len(data)
        if self._is_write_paused:
            self._charge(size)
        if form:
            if size > JOIN_BYTES:
                lead = b"%x\r\n" % size
                self.link.writelines((lead if head is None else head + lead, data, b"\r\n"))
                self._pending_head = None
                return
            data = b"".join((b"%x\r\n" % size, data, b"\r\n"))
        if head is None:
            self.link.write(data)
        elif size > JOIN_BYTES:
            self.link.writelines((head, data))
            self._pending_head = None
        else:
            self.link.write(head + data)
            self._pending_head = None

    def send_whole(self, head: ResponseHead, body: bytes | memoryview) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        request, fields = exchange.request, head.fields
        if (
            type(fields) is not ANSWER_BLOCK
            or request.traits is not PLAIN
            or not self._keep_alive
            or self._body_left
            or self._chunked is not None
            or self.listener.is_ending
            or self._stay
        ):
            self._send_unusual(exchange, head, body)
            return
        # As `_lines`, without the call.
        drop = head.drop
        pieces: list[bytes | memoryview] = [
            _status_line(head.status) or headers.status_line(head.status),
            fields.kept if fields.drop is drop else fields.keep(drop),
            b"" if head.has_own_date else date.line(),
            head.added.lines, *head.own, b"\r\n",
        ]  # fmt: skip
        if len(body) > JOIN_BYTES:
            self.link.writelines((b"".join(pieces), body))
        else:
            pieces.append(body)
            write = self.link.write
            write(b"".join(pieces))

    def _send_unusual(self, exchange: Exchange, head: ResponseHead, body: bytes | memoryview) -> None:
        """Send any other whole answer."""
        lines, request = _lines(head), exchange.request
        if self._is_body_due() and not self._can_skip_body():
            self._keep_no_longer()
        if head.length is None and request.method != b"HEAD" and head.status not in _BODYLESS:
            lines.append(b"Content-Length: %d\r\n" % len(body))  # HTTP/2 ends a message without it
        if request.traits is not PLAIN or not self._keep_alive or self.listener.is_ending or self._stay:
            self._end_head(exchange, lines)
        else:
            lines.append(b"\r\n")
        write = self.link.write if self._keep_alive else self.link.write_last
        if not body or request.method == b"HEAD" or head.status in _BODYLESS:
            write(b"".join(lines))
        elif len(body) > JOIN_BYTES:
            self.link.writelines((b"".join(lines), body))
        else:
            write(b"".join((*lines, body)))

    def flush(self) -> None:
        head = self._pending_head
        if head is not None:
            self._pending_head = None
            self.link.write(head)

    def reset(self, reason: Reason) -> None:
        self._pending_head = None
        self._keep_no_longer()
        self.link.reset()

    # Its end

    def end(self, trailers: Sequence[Field]) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self._exchange = None
        if (
            self.phase is not _ANSWER  # `_UNSENT` where the client does not take what was written
            or self._pauses
            or self._has_ended
            or self._pending_head is not None
            or self._answer_form
            or self._body_left
            or self._chunked is not None
            or not self._keep_alive
            or self._account is not None
        ):
            self._end_unusual(exchange, trailers)
            if self._account is not None:
                self._charge()
            return
        now = exchange.ended
        listener = self.listener
        self.place = OUTSIDE
        self.phase = _IDLE  # `_enter`, without the call
        self._since = now
        due = now + listener.phase_seconds[_AT_IDLE]
        if due < self.due:
            self._watch(due, now)
        if self._behind or listener.gate is not None:
            self._next_request()

    def _leave_exchange(self) -> Exchange | None:
        """Its answer has nobody to go to any more."""
        exchange, self._exchange = self._exchange, None
        return exchange

    def _end_unusual(self, exchange: Exchange, trailers: Sequence[Field]) -> None:
        """The same where something is left to be written or read, or the connection ends."""
        self.place = OUTSIDE
        if self.phase is Phase.TUNNEL:
            self.listener.forget(self)
            return
        if self._pending_head is not None:
            self.flush()
        form, self._answer_form = self._answer_form, _AS_IT_IS
        self._uncharge_head()
        if form == _CHUNKED:
            self.link.write(b"0\r\n%b\r\n" % (headers.trailer_block(trailers) if trailers else b""))
        is_body_due = self._is_body_due()
        if exchange.request.method == b"CONNECT":
            is_body_due = True  # of a tunnel that was refused, bytes may be on their way
        if self._pauses & HOLD:
            self._resume(HOLD)
        if not self._keep_alive or self._has_ended or (is_body_due and not self._can_skip_body()):
            self._close(exchange.ended, is_body_due=is_body_due)
        elif self._is_write_paused:
            self._await_taking(_UNSENT, exchange.ended)
        elif is_body_due:
            self._enter(_SKIP, exchange.ended)
        else:
            self._enter(_IDLE, exchange.ended)
            self._next_request()

    def _close(self, now: float, *, is_body_due: bool) -> None:
        """Close once what was written has gone out, and let the client read it to its end.

        Closing a socket with unread input resets it, which destroys the answer on its way (RFC 9112 9.6): where
        something may still come, the connection ends in our direction and is read on for a time.
        """
        link = self.link
        if link.is_closing:
            return
        may_come = is_body_due or self._is_distrusted or bool(self._behind) or link.is_readable()
        self._distrust()
        if may_come and link.can_half_close and not self._has_ended and self._stay is not Stay.VISITOR:
            self._await_taking(Phase.LINGER, now)
            link.end_writing()
            self._read_to_end()
        else:
            self._await_taking(Phase.CLOSING, now)
            link.close()

    # Where another protocol follows

    def send_switch(self, head: ResponseHead, upgrade: bytes) -> None:
        lines = _lines(head)
        if upgrade == TUNNEL:
            self.link.keep_alive()
            lines.append(b"\r\n")
            self.link.write(b"".join(lines))
            return
        lines += (b"Connection: Upgrade\r\nUpgrade: ", upgrade, b"\r\n\r\n")
        self.link.write(b"".join(lines))

    def hand_over(self, protocol: Any) -> tuple[Link, bytes, bool]:
        behind = self._take_kept()
        self._part()
        self.link.set_sink(protocol)
        self._resume(HOLD | BEHIND | TURN | MEMORY)
        return self.link, behind, self._has_ended

    def _part(self) -> None:
        """Another protocol hears the client from now on: nothing of it waits or is held here any more."""
        self._leave_gate()
        self._enter(Phase.TUNNEL, self._service.clock())
        Sweep.remove(self)
        if self._account is not None:
            self._uncharge_head()
            self._charge()


def _lines(head: ResponseHead) -> list[bytes]:
    """A response's head in HTTP/1.1's form, but for what is the connection's own affair."""
    status = head.status
    first = _status_line(status) or headers.status_line(status)
    has_date, drop, fields = head.has_own_date, head.drop, head.fields
    if type(fields) is ANSWER_BLOCK or (type(fields) is BLOCK and b"date" not in fields.lookup):
        kept = fields.kept if fields.drop is drop else fields.keep(drop)
        return [first, kept, b"" if has_date else date.line(), head.added.lines, *head.own]
    out = [first]
    for key, line, _ in fields:
        if key not in drop:
            out.append(line)
        elif key == b"date" and not has_date:
            out.append(line)
            has_date = True
    if not has_date:
        out.append(date.line())
    out.append(head.added.lines)
    out += head.own
    return out
