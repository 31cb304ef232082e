"""A connection that waited in the kernel's queue for too long, in an overload: it is answered 503 and closed at once.

Nothing is made of it, no protocol and no exchange, so it has no line in the access log and costs a small part of a
request: only so does a queue of thousands come to its end soon, on a tenth of the time. It is read once, and what it
sent is looked at no further than for HTTP/2 and HEAD. What a client sends may be on its way when its connection is
taken from the queue: one of which nothing has come is kept for a moment, a few at a time.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from sidecar.core import headers
from sidecar.core.errors import Reason
from sidecar.downstream.phase import LAST_CALL_SECONDS
from sidecar.forwarding import answers, date
from sidecar.forwarding.service import Service
from sidecar.http2 import frames
from sidecar.http2.errors import ErrorCode

READ_BYTES: Final = 64 * 1024
"""A request that is longer may be reset instead of answered: closing a socket with unread input does that."""
SILENT_SECONDS: Final = LAST_CALL_SECONDS
"""For one that has said nothing to do so, unless others want its place: they are as many at a time as visitors."""
_HTTP2_BEGINS: Final = b"PRI "
_HEAD_BEGINS: Final = b"HEAD "
_GOODBYE: Final = frames.settings({}) + frames.goaway(0, ErrorCode.NO_ERROR, b"")
"""Nothing was processed: what it asked for may be sent again (RFC 9113 6.8)."""


def answer(service: Service, *, is_stranger: bool, is_head: bool) -> bytes:
    """To whatever it asked; `is_head`: by HEAD, whose answer has no body (RFC 9110 9.3.2)."""
    told = answers.answer(
        Reason.OVERLOADED,
        "this sidecar is overloaded",
        request_id=service.ids.trace_id(),
        date_line=date.line(),
        route=None,
        retry_after_seconds=1.0,
        is_stranger=is_stranger,
    )
    lines = [headers.status_line(told.status), *told.head.own, b"Connection: close\r\n\r\n"]
    return b"".join(lines if is_head else (*lines, told.body))


class Refusing:
    """Those of one listener. Owned by the event loop."""

    __slots__ = ("_service", "_silent")

    def __init__(self, service: Service) -> None:
        self._service = service
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        """Who has said nothing yet, with the end of the time to do so; the oldest first."""

    def __len__(self) -> int:
        return len(self._silent)

    def __repr__(self) -> str:
        return f"<Refusing {len(self)} silent>"

    def refuse(self, taken: socket.socket, *, is_stranger: bool) -> None:
        """Tell whoever has asked something, and close; who has said nothing has a moment to do so."""
        taken.setblocking(False)
        if self._is_told(taken, is_stranger):
            taken.close()
            return
        visitors = self._service.beside.visitors
        while self._silent and len(self._silent) >= visitors.most:
            self._close(next(iter(self._silent)))
        if visitors.is_short_of_files:
            taken.close()
            return
        loop = self._service.loop
        self._silent[taken] = loop.call_later(SILENT_SECONDS, self._close, taken)
        loop.add_reader(taken.fileno(), self._heard, taken, is_stranger)

    def close(self) -> None:
        """Nobody is told any more."""
        for one in list(self._silent):
            self._close(one)

    def _heard(self, one: socket.socket, is_stranger: bool) -> None:
        if self._is_told(one, is_stranger):
            self._close(one)

    def _is_told(self, one: socket.socket, is_stranger: bool) -> bool:
        """Whether there is nothing more to do for it, since it was answered, or has left."""
        try:
            data = one.recv(READ_BYTES)
            if data.startswith(_HTTP2_BEGINS):
                one.send(_GOODBYE)
            elif data:
                is_head = data.startswith(_HEAD_BEGINS)
                one.send(answer(self._service, is_stranger=is_stranger, is_head=is_head))
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _close(self, one: socket.socket) -> None:
        self._silent.pop(one).cancel()
        self._service.loop.remove_reader(one.fileno())
        one.close()
