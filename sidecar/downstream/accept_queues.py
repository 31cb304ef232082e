"""What one listener takes its connections from: its own sockets, those of neighbours that are not there, and what
another process hands over.

Accepts by hand, since no more may be taken from the kernel's queue than can be served or told no; how many that is,
`connected.py` decides. Owned by its listener; `runtime/workers/` adds the queues of others.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from enum import Enum
from typing import Final

from sidecar.core.own_lack import is_own_lack
from sidecar.core.snapshot import Address
from sidecar.downstream.connected import Connected
from sidecar.forwarding.service import Service
from sidecar.transport import kernel
from sidecar.transport.bind import Bind, Bound
from sidecar.transport.given import GIVEN
from sidecar.transport.handed import Handed
from sidecar.transport.last_accepts import last_accepts

ACCEPTS_A_TURN: Final = 64
"""Of the loop, for one listener."""
LEFT_FOR_ONE: Final = 16
"""Connections whose clients have left that are closed, at most, for each one that is taken."""
RETRY_SECONDS: Final = 0.02
"""While there is no open file: a client that says nothing loses its place to another one by then."""
MEMORY_RETRY_SECONDS: Final = 0.002
"""While connections are being closed to give memory back, which takes some turns of the loop."""


class _Takes(Enum):
    """Which new connections."""

    ALL = 1
    HANDED = 2
    """Those alone that another process of ours hands over: who connects is another program's."""
    NONE = 3


class AcceptQueues:
    """See the module."""

    __slots__ = (
        "_connected", "_is_held", "_is_watching", "_queues", "_service", "_take", "_takes", "bound",
        "waits_for_room",
    )  # fmt: skip

    def __init__(self, connected: Connected, service: Service) -> None:
        self._connected = connected
        self._service = service
        self.bound: Bound | None = None
        """Its own socket, from `bind` on."""
        self._queues: list[socket.socket | Handed] = []
        self._takes = _Takes.ALL
        self._take: Callable[[socket.socket], None] | None = None
        """Serves a connection; None before `start`, and after `stop`, so that no cycle is left."""
        self._is_watching = False
        self._is_held = False
        """Between `hold` and `go_on`."""
        self.waits_for_room = 0
        """How often a client had to wait in the kernel's queue, for want of open files or of memory here."""

    def __repr__(self) -> str:
        return f"<AcceptQueues {self._takes.name} of {len(self._queues)}>"

    # Which queues

    async def bind(self, bind: Bind, address: Address, key: str) -> None:
        """Get a socket, that listens.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        self.bound = await bind(address, key)

    @property
    def is_lent(self) -> bool:
        """Whoever began this process keeps its socket: what waits in it at the end is for the next process."""
        return self.bound is not None and self.bound.lent_at is not None

    @property
    def accepts_own(self) -> bool:
        """This process is one of those that take what connects to its own socket."""
        return self.bound is not None and self.bound.accepts

    @property
    def is_accepting(self) -> bool:
        """New connections are taken, or will be."""
        return self._takes is not _Takes.NONE

    def listening(self) -> tuple[socket.socket, ...]:
        """Its own sockets; none while it has none."""
        return () if self.bound is None else (self.bound.listening, *self.bound.others)

    def start(self, take: Callable[[socket.socket], None]) -> None:
        """Accept, and give each to `take`."""
        self._take = take
        if self.accepts_own:
            self._service.beside.visitors.keep_files()
            self._queues += self.listening()
        self.watch()

    def take_own(self, *, is_on: bool) -> None:
        """Take connections from its own sockets, or leave that to another process, which hands them over."""
        for queue in self.listening() if self.accepts_own else ():
            (self.add if is_on else self.remove)(queue)

    def add(self, queue: socket.socket | Handed) -> None:
        """Take connections from there too, until `remove`."""
        is_ours = self._takes is _Takes.ALL or isinstance(queue, Handed)
        if self.is_accepting and is_ours and queue not in self._queues:
            self._leave()
            self._queues.append(queue)
            self.watch()

    def remove(self, queue: socket.socket | Handed) -> None:
        """Whose that is takes them again."""
        if queue in self._queues:
            self._leave()
            self._queues.remove(queue)
            self.watch()

    def hand_on(self) -> None:
        """Another process has the same sockets and serves: it takes who connects from now on, and no socket ends
        here. What this process was handed by then it serves."""
        if self._takes is _Takes.ALL:
            self._takes = _Takes.HANDED
        self._leave()
        self._queues = [queue for queue in self._queues if isinstance(queue, Handed)]
        self.watch()

    def stop(self, *, is_last: bool = True) -> list[socket.socket]:
        """Nothing is taken any more, and its own sockets close. Returns the last connections, which are to be served
        once; none of a socket that another process serves after this one. `is_last`: no other worker takes any more
        either; else a UNIX socket, which is one for all, is left to those that do."""
        takes, self._takes = self._takes, _Takes.NONE
        self._leave()
        self._take = None
        queues, self._queues = self._queues, []
        if self.accepts_own and takes is _Takes.ALL:
            queues += [queue for queue in self.listening() if queue not in queues]
        last = [taken for queue in queues for taken in self._last_of(queue, is_last)]
        for queue in self.listening():
            queue.close()
        return last

    def end(self, queue: socket.socket) -> list[socket.socket]:
        """After `stop`: let nobody else in by the socket of a neighbour that died before it could end it. Returns the
        last connections, as `stop` does."""
        return self._last_of(queue, is_last=True)

    def _last_of(self, queue: socket.socket | Handed, is_last: bool) -> list[socket.socket]:
        if isinstance(queue, Handed):
            return queue.rest()
        is_left = not is_last and queue.family == socket.AF_UNIX
        if is_left or self.is_lent or GIVEN.lends(queue):
            return []
        return last_accepts(queue, is_shared=self.bound is not None and self.bound.is_shared)

    # When

    def hold(self) -> None:
        """What comes from now on waits in the kernel's queue, but for what `take_waiting` takes."""
        self._is_held = True
        self._leave()

    def go_on(self) -> None:
        """All are taken again as they come."""
        self._is_held = False
        self.watch()

    def watch(self) -> None:
        """Take connections as they come, unless there is a reason not to: something may have come free."""
        is_wanted = self.is_accepting and not self._is_watching and not self._is_held
        if self._queues and is_wanted and self._take is not None:
            self._is_watching = True
            for queue in self._queues:
                self._service.loop.add_reader(queue.fileno(), self._accept_some, queue, self._take)

    def _leave(self) -> None:
        """What comes from now on waits in the kernel's queue."""
        if self._is_watching:
            self._is_watching = False
            for queue in self._queues:
                self._service.loop.remove_reader(queue.fileno())

    def _wait_for_room(self) -> None:
        """Until a connection has closed, or for a moment: one may have become idle."""
        self.waits_for_room += 1
        self._leave()
        seconds = MEMORY_RETRY_SECONDS if self._service.memory.has_none_left else RETRY_SECONDS
        self._service.loop.call_later(seconds, self.watch)

    # Taking

    def _accept_some(self, queue: socket.socket | Handed, take: Callable[[socket.socket], None]) -> None:
        visitors = self._service.beside.visitors
        if visitors.is_short_of_files:
            visitors.keep_files()
        for _ in range(ACCEPTS_A_TURN):
            if not self._connected.has_room():
                self._wait_for_room()
                return
            try:
                taken, _address = queue.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EINVAL:
                    self.remove(queue)  # another process has ended it: it would wake the loop for ever
                    return
                if not is_own_lack(error):
                    return  # the client was gone again
                if self._connected.gives_file():
                    continue
                self._wait_for_room()
                return
            taken.setblocking(False)
            take(taken)

    def take_waiting(self, most: int) -> tuple[int, int]:
        """In an overload: take up to so many of those who are still there. Returns how many were taken, and how many
        had left the kernel's queue.

        Who has left costs a tenth of a connection here, and would cost a whole one.
        """
        taken = left = 0
        queues = self._queues[:]
        for _ in range(most * LEFT_FOR_ONE):
            if self._take is None or not queues or taken >= most or not self._connected.has_room():
                break
            try:
                one, _address = queues[0].accept()
            except OSError as error:
                if not (is_own_lack(error) and self._connected.gives_file()):
                    del queues[0]
                continue
            if kernel.is_left(one):
                one.close()
                left += 1
                continue
            one.setblocking(False)
            self._take(one)
            taken += 1
        return taken, left

    def in_kernel(self) -> list[socket.socket]:
        """The queues that the kernel keeps, of those in use."""
        return [queue for queue in self._queues if isinstance(queue, socket.socket)]
