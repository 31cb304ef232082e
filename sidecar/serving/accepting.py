"""Takes the connections of a server beside the data path from its listening socket, by hand.

Where no file can be opened for a connection, uvloop closes all that wait, probes too, and asyncio logs an error for
each and takes nobody for a second. And both, from Python 3.13 on, remove the file of a UNIX socket as they close it,
although an upgrade in place has left that to another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

from sidecar.core.own_lack import is_own_lack

ACCEPTS_A_TURN: Final = 16
"""Of the loop: the data path has its own in between."""
RETRY_SECONDS: Final = 0.02
"""While there is no open file: who waits does so in the kernel's queue."""


class Accepting:
    """From one listening socket, which it closes at the end. Owned by the event loop.

    A file is kept open, and given up for a client who comes when none can be opened: so a probe has its answer.
    """

    __slots__ = ("_bound", "_kept", "_loop", "_make_room", "_retry", "_take")

    def __init__(
        self, bound: socket.socket, take: Callable[[socket.socket], None], make_room: Callable[[], object]
    ) -> None:
        """`take`: is given each connection. `make_room`: closes one that is idle, if there is one, for its file."""
        self._bound = bound
        self._take = take
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._kept: int | None = None
        self._keep_file()
        self._watch()

    def close(self) -> None:
        """Take nothing more. What waits in the kernel's queue is for who else has this socket, if anybody does."""
        self._leave()
        self._give_file()
        self._bound.close()

    def _watch(self) -> None:
        self._retry = None
        self._loop.add_reader(self._bound.fileno(), self._accept_some)

    def _leave(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        else:
            self._loop.remove_reader(self._bound.fileno())

    def _accept_some(self) -> None:
        self._keep_file()
        for _ in range(ACCEPTS_A_TURN):
            try:
                taken, _address = self._bound.accept()
            except OSError as error:  # BlockingIOError: nobody waits; others: the client was gone again
                if not is_own_lack(error):
                    return
                self._make_room()
                if self._give_file():
                    continue
                self._leave()
                self._retry = self._loop.call_later(RETRY_SECONDS, self._watch)
                return
            taken.setblocking(False)
            self._take(taken)

    def _keep_file(self) -> None:
        if self._kept is None:
            with contextlib.suppress(OSError):
                self._kept = os.open(os.devnull, os.O_RDONLY)

    def _give_file(self) -> bool:
        """Whether there was one."""
        kept, self._kept = self._kept, None
        if kept is not None:
            os.close(kept)
        return kept is not None
