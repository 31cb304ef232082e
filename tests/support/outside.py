"""What may still reach a loop without any act of its own: from the kernel, a thread, or another process.

A loop whose clock jumps asks this before each jump. Between two sockets of the loop itself nothing is late: what one
end writes to a loopback connection can be read at the other end when the call that wrote it returns. So a jump needs
no real time where all the parties are in the loop, and the rest is looked at one by one:

- the kernel owes bytes: written at one end, not yet received at the other, which has read all that it received. The
  kernel waits for an acknowledgement, or sends again what found no room;
- a job in a thread that the loop handed to an executor;
- a child process that runs, or that has ended and is not yet reaped;
- a stranger: somebody outside the loop whom it has asked, such as the thread of the probes; or a pipe.

A client socket that a test opened by hand is no stranger: what the test does not do with it, nobody does.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from pathlib import Path
from typing import Any, Protocol

TCP_INFO_BYTES = 216
_RECEIVED = struct.Struct("=Q")
"""`tcpi_bytes_received` of `struct tcp_info` (linux/tcp.h, since 4.19): data, and one for a FIN."""
_RECEIVED_AT = 128
_NOT_SENT = struct.Struct("=I")
_NOT_SENT_AT = 144
_SENT = struct.Struct("=QQ")
"""`tcpi_bytes_sent`, then `tcpi_bytes_retrans`, which is part of it."""
_SENT_AT = 200
_ESTABLISHED = 1
"""`tcpi_state`: a connection of which no end has closed."""
SIOCOUTQ = termios.TIOCOUTQ
JOB_LOOKS = 500
"""For so many looks of a millisecond a job in a thread holds up the clock; one that takes longer waits for something
that is to come. It is not told in seconds, in which a busy machine may have run neither the loop nor the thread."""
SLEEPING = {"S", "T", "t"}
"""States of a process (proc_pid_stat(5)) that wait for something, or that somebody has stopped."""


class Child(Protocol):
    """A process that the loop has started, such as a transport of asyncio's."""

    def get_pid(self) -> int | None: ...
    def get_returncode(self) -> int | None: ...


class Outside:
    """What is under way to one loop. Made anew for each loop."""

    def __init__(self) -> None:
        self.transports: Any = {}
        """The loop's own, by descriptor: asyncio keeps them."""
        self._jobs: dict[asyncio.Future[Any], int] = {}
        """How many looks each of them has left."""
        self._children: list[Child] = []
        self._ports: dict[int, int] = {}
        """Where the loop listens, by descriptor."""
        self._by_hand: dict[int, int] = {}
        """The port at the other end of each connection that is no transport's; 0 where it is no connection."""

    def job_began(self, job: asyncio.Future[Any]) -> None:
        self._jobs[job] = JOB_LOOKS
        job.add_done_callback(self._jobs.pop)

    def child_began(self, child: Child) -> None:
        self._children.append(child)

    def is_transport(self, fd: int) -> bool:
        transport = self.transports.get(fd)
        return (
            transport is not None and transport._sock is not None
        )  # None: closed, and its number is free again

    def seen(self, fd: int) -> None:
        """The loop begins to wait for `fd`, which no transport has."""
        self.gone(fd)
        is_listener, port = _described(fd)
        (self._ports if is_listener else self._by_hand)[fd] = port

    def gone(self, fd: int) -> None:
        self._ports.pop(fd, None)
        self._by_hand.pop(fd, None)

    def looked(self) -> None:
        """The loop has waited for a moment, and nothing came."""
        for job, left in self._jobs.items():
            self._jobs[job] = max(0, left - 1)

    def is_at_work(self) -> bool:
        """A child runs, or a thread has a job that was not looked at `JOB_LOOKS` times."""
        self._children = [child for child in self._children if child.get_returncode() is None]
        return any(map(_is_running, self._children)) or any(self._jobs.values())

    def has_stranger(self) -> bool:
        """Somebody else holds the other end of something that the loop waits for, or has a long job for it."""
        if self._jobs or self._children:
            return True
        ports = set(self._ports.values())
        if not ports.issuperset(self._by_hand.values()):
            return True
        ends = self._ends()
        return any(
            peer not in ends and not {name[1], peer[1]} & ports and _is_open(sock)
            for name, (peer, sock) in ends.items()
        )

    def is_owed_bytes(self) -> bool:
        """The kernel has bytes of a connection between two transports of the loop that it has to hand over."""
        ends = self._ends()
        for name, (peer, sock) in ends.items():
            other = ends.get(peer)
            if (
                other is not None
                and _number(sock, SIOCOUTQ)
                and other[0] == name
                and _is_owed(sock, other[1])
            ):
                return True
        return False

    def _ends(self) -> dict[Any, tuple[Any, socket.socket]]:
        """The name of each connected TCP socket of a transport: its peer's name, and the socket."""
        return {
            each.get_extra_info("sockname"): (each.get_extra_info("peername"), each._sock)
            for each in list(self.transports.values())
            if each._sock is not None and isinstance(each.get_extra_info("peername"), tuple)
        }


def _is_owed(sender: socket.socket, receiver: socket.socket) -> bool:
    """Bytes written by `sender` that `receiver` has not got, though it has read all that it got."""
    if _number(receiver, termios.FIONREAD):
        return False
    info = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    sent, again = _SENT.unpack_from(info, _SENT_AT)
    (waiting,) = _NOT_SENT.unpack_from(info, _NOT_SENT_AT)
    (received,) = _RECEIVED.unpack_from(
        receiver.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES), _RECEIVED_AT
    )
    return bool(sent - again + waiting > received)


def _number(sock: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock, request, b"\0\0\0\0"), "little")


def _is_open(sock: socket.socket) -> bool:
    """No end has closed: then there is nothing more to hear of it."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


def _described(fd: int) -> tuple[bool, int]:
    """Whether it listens; and its own port if it does, else that of the other end, 0 where there is none."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False, 0
    try:
        is_listener = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        name = sock.getsockname() if is_listener else sock.getpeername()
        return is_listener, name[1] if sock.family in (socket.AF_INET, socket.AF_INET6) else 0
    except OSError:
        return False, 0
    finally:
        sock.detach()


def _is_running(child: Child) -> bool:
    """It is not asleep: it computes, waits for a core or a disk, or has ended and the loop is about to hear of it."""
    try:
        told = Path(f"/proc/{child.get_pid()}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return told.rpartition(")")[2].split()[0] not in SLEEPING
