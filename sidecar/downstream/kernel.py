"""What only the kernel knows of a client's connection, and what only it can do."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8  # include/net/tcp_states.h


def waiting_bytes(transport: asyncio.Transport) -> int:
    """What was written and the other side has not taken: here and in the kernel (tcp(7), SIOCOUTQ)."""
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            waiting += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return waiting


def has_left(transport: asyncio.Transport) -> bool:
    """True if the other side has closed or reset its connection, whatever still waits to be read."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return False
    state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state in (_TCP_CLOSE, _TCP_CLOSE_WAIT)


def has_unread(transport: asyncio.Transport) -> bool:
    """True if bytes have arrived that nobody has read yet (tcp(7), SIOCINQ)."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    with contextlib.suppress(OSError):
        return fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)) != bytes(4)
    return False


def reset(transport: asyncio.Transport) -> None:
    """End with a reset, not a FIN: an answer that ends with its connection would look whole."""
    with contextlib.suppress(OSError, AttributeError):
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
