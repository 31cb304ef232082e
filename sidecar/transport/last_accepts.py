"""How a listening socket ends without a reset: what has connected is taken, and what comes now is refused.

A client is connected as soon as the kernel says so, which is before the connection is accepted. Closing the socket
resets all that wait in its accept queue (tcp(7), listen(2)), although they may have sent a request already. So
the socket is first told to let nobody else in, then its queue is emptied, and then it may be closed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from array import array
from typing import Final

_SO_ATTACH_FILTER: Final = 26  # include/uapi/asm-generic/socket.h; Python has no name for it
_SO_DETACH_FILTER: Final = 27
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06  # include/uapi/linux/filter.h
_FLAGS_AT, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12  # RFC 9293 3.1
_DROP, _KEEP = 0, 0xFFFFFFFF
_NO_SYN = (
    (_LOAD_BYTE, 0, 0, _FLAGS_AT),
    (_AND, 0, 0, _SYN_OR_ACK),
    (_JUMP_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, _DROP),
    (_RETURN, 0, 0, _KEEP),
)
"""A packet that opens a connection is dropped; the end of a handshake that has begun is not."""


def last_accepts(bound: socket.socket, *, is_shared: bool = False) -> list[socket.socket]:
    """Every connection that waits to be accepted, after which there are no others; `bound` is to be closed then.

    `is_shared`: other processes have it open too, so that closing would not end it; it listens no more after this.

    Who connects between the two tries again after a second, as TCP does, and is refused then. Where the kernel has no
    filters (gVisor), a connection that comes in these microseconds is reset as before.
    """
    with contextlib.suppress(OSError):
        if bound.family == socket.AF_UNIX:
            bound.shutdown(socket.SHUT_RD)  # `connect` is refused from here on; the queue stays
        else:
            _attach(bound, _NO_SYN)
    taken = []
    with contextlib.suppress(OSError):  # BlockingIOError: there is no more
        while True:
            connection, _ = bound.accept()
            connection.setblocking(False)
            taken.append(connection)
    if is_shared:
        with contextlib.suppress(OSError):
            bound.shutdown(socket.SHUT_RDWR)
    return taken


def listen_again(bound: socket.socket, backlog: int) -> None:
    """Undo `last_accepts` of a process that has ended, for the one that takes its place. Of one that listens, nothing
    changes.

    Raises:
        OSError: it cannot listen.
    """
    if bound.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # there is no filter
            bound.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    bound.listen(backlog)


def is_listening(bound: socket.socket) -> bool:
    """Whether anybody can connect: not where a process of ours has shut it down, which all that have it can see."""
    return bool(bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _attach(bound: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    code = array("B", b"".join(struct.pack("=HBBI", *step) for step in program))
    address, _ = code.buffer_info()
    bound.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))
