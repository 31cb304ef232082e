"""What only the kernel knows of a connection, and what only it can do (Linux: tcp(7), socket(7))."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8  # include/net/tcp_states.h
_SIOCOUTQNSD = 0x894B  # include/uapi/linux/sockios.h; Python has no name for it
_SO_BUF_LOCK = 72  # include/uapi/asm-generic/socket.h; Python has no name for it
_UNACKED_END = 28
"""Where `tcpi_unacked` ends in `struct tcp_info` (include/uapi/linux/tcp.h)."""
_LOOSE_LOWAT_BYTES = 64 * 1024
ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL
"""Events of `poll_readable`: the other side sends nothing more."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def untaken_bytes(transport: asyncio.Transport) -> int:
    """What was written and the other side's system has no room for: here and in the kernel (tcp(7), SIOCOUTQNSD).

    What is on its way counts as taken: it is acknowledged some time later, which is no progress.
    """
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        ask = termios.TIOCOUTQ if sock.family == socket.AF_UNIX else _SIOCOUTQNSD
        with contextlib.suppress(OSError):
            waiting += struct.unpack("i", fcntl.ioctl(sock.fileno(), ask, bytes(4)))[0]
    return waiting


def fileno(transport: asyncio.Transport) -> int:
    """The descriptor of its socket; -1 where it has none."""
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def has_left(transport: asyncio.Transport) -> bool:
    """True if the other side has closed or reset its connection, whatever still waits to be read."""
    return is_left(transport.get_extra_info("socket"))


def is_left(sock: Any) -> bool:
    """The same of a socket that is nobody's yet."""
    if sock is not None and sock.family == socket.AF_UNIX:
        return _has_ended(sock, ENDED)
    return _state(sock) in (_TCP_CLOSE, _TCP_CLOSE_WAIT)


def is_reset(transport: asyncio.Transport) -> bool:
    """True if the connection is gone in both directions."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return _has_ended(sock, ENDED & ~select.POLLRDHUP)
    return _state(sock) == _TCP_CLOSE


def _has_ended(sock: Any, by: int) -> bool:
    """Of a UNIX socket, which has no state to ask for: whether there is one of these events."""
    descriptor = sock.fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return any(events & by for _, events in poll.poll(0))


def poll_readable(transport: asyncio.Transport) -> Callable[[int], list[tuple[int, int]]]:
    """What tells, called with 0, whether something waits to be read: bytes, an end, or an error; empty if not.

    Made once for each transport that is asked about: making it takes longer than asking (0.5 µs).
    """
    poll = select.poll()
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    return poll.poll


def set_reset_on_close(transport: asyncio.Transport) -> None:
    """Make closing send a reset at once (SO_LINGER of zero seconds)."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def bound_unsent(sock: Any) -> None:
    """Let the kernel take no more than 64 KiB beyond what is on its way (tcp(7), TCP_NOTSENT_LOWAT).

    What a slow peer does not take then waits where it is counted. Accepted connections inherit it from the socket
    that listens.
    """
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _LOOSE_LOWAT_BYTES)


def bound_receiving(bound: socket.socket, size: int) -> None:
    """For those that are accepted from now on: their own `bound_buffers` would come behind what has arrived."""
    with contextlib.suppress(OSError):
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def receive_freely(bound: socket.socket) -> None:
    """Undo `bound_receiving` of another process on the same socket (socket(7), SO_BUF_LOCK; Linux 5.14)."""
    with contextlib.suppress(OSError):
        bound.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)


def bound_buffers(transport: asyncio.Transport, size: int) -> None:
    """Let at most about `size` bytes wait in each direction, in this process and in the kernel (socket(7)).

    The kernel doubles what it is told, for its own bookkeeping. What waits already stays until it is taken.
    """
    transport.set_write_buffer_limits(high=size)
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


def waiting(listening: Any) -> int:
    """How many connections wait to be accepted from it (tcp(7): of a listening socket, `tcpi_unacked`). 0 where the
    kernel does not say, as of a UNIX socket."""
    if listening.family == socket.AF_UNIX:
        return 0
    try:
        told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_END)
    except OSError:
        return 0
    return int(struct.unpack_from("I", told, _UNACKED_END - 4)[0]) if len(told) == _UNACKED_END else 0


def _state(sock: Any) -> int | None:
    if sock is None or sock.family == socket.AF_UNIX:
        return None
    try:
        state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return _TCP_CLOSE
    return state


KEEP_ALIVE_SECONDS = 60
"""A connection that carries nothing is asked for a sign of life after so long, then each `KEEP_ALIVE_INTERVAL`."""
KEEP_ALIVE_INTERVAL_SECONDS = 15
KEEP_ALIVE_TRIES = 4


def keep_alive(sock: Any) -> None:
    """Have the kernel find out by itself that the other side is gone (tcp(7), TCP_KEEPIDLE and the following)."""
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_TRIES)


def limit_unacknowledged(transport: asyncio.BaseTransport, seconds: float) -> None:
    """End the connection when what was sent stays unacknowledged for so long (tcp(7), TCP_USER_TIMEOUT)."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # it closes this very moment
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
