"""A connection that waited in the kernel's queue for too long, in an overload: it is answered 503 and closed at once.

Nothing is made of it, no protocol and no exchange, so it has no line in the access log and costs a small part of a
request: only so does a queue of thousands come to its end soon, on a tenth of the time. It is read once, and what it
sent is looked at no further than for HTTP/2.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from sidecar.core import headers
from sidecar.core.errors import Reason
from sidecar.forwarding import answers, date
from sidecar.forwarding.service import Service
from sidecar.http2 import frames
from sidecar.http2.errors import ErrorCode

READ_BYTES: Final = 64 * 1024
"""A request that is longer may be reset instead of answered: closing a socket with unread input does that."""
_HTTP2_BEGINS: Final = b"PRI "
_GOODBYE: Final = frames.settings({}) + frames.goaway(0, ErrorCode.NO_ERROR, b"")
"""Nothing was processed: what it asked for may be sent again (RFC 9113 6.8)."""


def answer(service: Service, *, is_stranger: bool) -> bytes:
    """To whatever it asked."""
    told = answers.answer(
        Reason.OVERLOADED,
        "this sidecar is overloaded",
        request_id=service.ids.trace_id(),
        date_line=date.line(),
        route=None,
        retry_after_seconds=1.0,
        is_stranger=is_stranger,
    )
    lines = [headers.status_line(told.status), *told.head.own, b"Connection: close\r\n\r\n", told.body]
    return b"".join(lines)


def refuse(taken: socket.socket, service: Service, *, is_stranger: bool) -> None:
    """Tell whoever has asked something, and close."""
    with contextlib.suppress(OSError):  # it has left, or has said nothing
        taken.setblocking(False)
        data = taken.recv(READ_BYTES)
        if data.startswith(_HTTP2_BEGINS):
            taken.send(_GOODBYE)
        elif data:
            taken.send(answer(service, is_stranger=is_stranger))
    taken.close()
