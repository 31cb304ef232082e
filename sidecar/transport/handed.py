"""Connections that another process of ours has accepted: sent over a UNIX socket (SCM_RIGHTS, unix(7)), and taken
here as if from a listening socket.

One message is one connection, with the name of its listener. Nothing waits: what a full queue does not take stays
with whoever sends.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Final

MOST_NAME_BYTES: Final = 1024
_FILES: Final = 4
"""Room for more than the one, so that what should not come is closed instead of being lost."""


def hand_over(end: socket.socket, listener: str, connection: socket.socket) -> bool:
    """Whether the other side's queue took it. The caller closes `connection` in any case where it did."""
    try:
        socket.send_fds(end, [listener.encode()], [connection.fileno()])
    except OSError:  # full, or no memory
        return False
    return True


def has_free_file(end: socket.socket) -> bool:
    """Whether this process has a descriptor left for what comes from there."""
    try:
        os.close(os.dup(end.fileno()))
    except OSError:
        return False
    return True


def receive(end: socket.socket) -> tuple[str, socket.socket] | None:
    """The next connection with its listener's name; None if there is none now.

    Without `has_free_file` a connection would be lost.
    """
    try:
        name, files, _, _ = socket.recv_fds(end, MOST_NAME_BYTES, _FILES)
    except OSError:  # BlockingIOError: there is none
        return None
    if len(files) != 1:
        for file in files:
            os.close(file)
        return None
    connection = socket.socket(fileno=files[0])
    os.set_inheritable(connection.fileno(), False)
    connection.setblocking(False)
    return name.decode(errors="replace"), connection


class Handed:
    """Those of one listener that have come and are not taken yet. Owned by the event loop."""

    def __init__(self) -> None:
        """Raises: OSError, without a descriptor."""
        self._waiting: deque[socket.socket] = deque()
        self._is_there = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<Handed {len(self)} waiting>"

    def fileno(self) -> int:
        """Readable while one waits."""
        return self._is_there

    def put(self, connection: socket.socket) -> None:
        if not self._waiting:
            os.eventfd_write(self._is_there, 1)
        self._waiting.append(connection)

    def accept(self) -> tuple[socket.socket, None]:
        """The one that came first. Raises: BlockingIOError, if there is none."""
        if not self._waiting:
            raise BlockingIOError
        connection = self._waiting.popleft()
        if not self._waiting:
            os.eventfd_read(self._is_there)
        return connection, None

    def rest(self) -> list[socket.socket]:
        """All that wait."""
        return [self.accept()[0] for _ in range(len(self._waiting))]

    def close(self) -> None:
        for connection in self.rest():
            connection.close()
        os.close(self._is_there)
