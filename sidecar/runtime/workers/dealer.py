"""Control's end of listeners with `balance: exact`: it accepts what comes, and hands it to the least loaded worker.

It serves nothing itself, and holds at most one connection that no worker's queue would take; the rest waits in the
kernel. Without any worker it accepts nothing. Owned by control's event loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Final

from sidecar.core.across.dealing import Dealing
from sidecar.core.own_lack import is_own_lack
from sidecar.core.snapshot import Dealt
from sidecar.downstream.listener import ListenerSocket
from sidecar.runtime.crossing import Crossing
from sidecar.runtime.workers.sockets import SharedSockets, identity
from sidecar.transport.handed import hand_over

ACCEPTS_A_TURN: Final = 64
RETRY_SECONDS: Final = 0.01
AGAIN_SECONDS: Final = 0.25
"""Between two looks at whether a socket that a worker has ended listens again."""


class Dealer:
    """What control accepts for workers, which count from 1."""

    def __init__(
        self, crossing: Crossing, sockets: SharedSockets, listeners: Callable[[], Iterable[ListenerSocket]]
    ) -> None:
        self._crossing = crossing
        self._sockets = sockets
        self._listeners = listeners
        self._dealing = Dealing()
        self._present: set[int] = set()
        self._queues: dict[socket.socket, str] = {}
        """Copies of all listening sockets of these listeners, with their names."""
        self._ended: set[socket.socket] = set()
        """Those of them that do not listen now: the worker that had one has ended, and nobody has its place."""
        self._is_watching = False
        self._held: tuple[str, socket.socket] | None = None

    def __repr__(self) -> str:
        return f"<Dealer {len(self._queues)} queues, {self._crossing.dealt()}>"

    def numbers(self) -> dict[str, int]:
        """What came of the connections; empty as long as no listener has had any of it. From any thread."""
        dealt = self._crossing.dealt()
        return dealt if self._queues or any(dealt.values()) else {}

    def joined(self, worker: int) -> None:
        """A worker is there."""
        self._dealing.joined(worker, self._crossing.load_of(worker - 1))
        self._present.add(worker)
        self._watch()

    def left(self, worker: int) -> None:
        self._dealing.left(worker)
        self._present.discard(worker)
        if not self._present:
            self._stop_watching()

    def listeners_changed(self) -> None:
        """There may be others."""
        self._stop_watching()
        for queue in self._queues:
            queue.close()
        self._queues = {}
        self._ended.clear()
        for listener in self._listeners():
            if listener.policy.balance is Dealt.EXACT:
                one = identity(listener.policy.address, f"listeners.{listener.policy.name}.address")
                self._queues |= {queue.dup(): listener.name for queue in self._sockets.all_of(one)}
        self._watch()

    def hand_on(self) -> None:
        """Another process accepts what connects from now on; what is in hand here is still dealt."""
        self._listeners = tuple  # none, also where a reload that is under way has others
        self.listeners_changed()

    def leave_lent(self) -> None:
        """The end has begun: of sockets that systemd keeps, the workers take by themselves what they still serve, and
        leave the rest to the next process."""
        lent = {listener.name for listener in self._listeners() if listener.queues.is_lent}
        for queue in [queue for queue, name in self._queues.items() if name in lent]:
            self._drop(queue)

    def close(self) -> None:
        """Accept nothing more."""
        self.hand_on()
        if self._held is not None:
            self._held[1].close()
            self._held = None

    def _watch(self) -> None:
        if self._is_watching or not self._present or self._held is not None:
            return
        self._is_watching = True
        for queue in self._queues.keys() - self._ended:
            self._watch_one(queue)

    def _watch_one(self, queue: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(queue.fileno(), self._accept, queue, self._queues[queue])

    def _stop_watching(self) -> None:
        if self._is_watching:
            self._is_watching = False
            for queue in self._queues:
                asyncio.get_running_loop().remove_reader(queue.fileno())

    def _accept(self, queue: socket.socket, name: str) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, _address = queue.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EINVAL:
                    self._leave_ended(queue)
                elif is_own_lack(error):
                    self._pause()
                return
            if not self._deal(name, connection):
                self._held = name, connection
                self._pause()
                return

    def _leave_ended(self, queue: socket.socket) -> None:
        """A worker has ended it. Whoever comes in its place listens again, and tells nobody when."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(queue.fileno())
        self._ended.add(queue)
        loop.call_later(AGAIN_SECONDS, self._look_again, queue)

    def _look_again(self, queue: socket.socket) -> None:
        if queue in self._ended:  # and so among the present ones
            self._ended.discard(queue)
            if self._is_watching:
                self._watch_one(queue)

    def _drop(self, queue: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(queue.fileno())
        del self._queues[queue]
        self._ended.discard(queue)
        queue.close()

    def _deal(self, name: str, connection: socket.socket) -> bool:
        loads = [(worker, self._crossing.load_of(worker - 1)) for worker in self._present]
        for worker in self._dealing.order(loads):
            if hand_over(self._crossing.hands[worker - 1][1], name, connection):
                self._dealing.gave(worker)
                self._crossing.dealt_one()
                connection.close()
                return True
        self._crossing.waited_once()
        return False

    def _pause(self) -> None:
        self._stop_watching()
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        if self._held is not None:  # whose listener may have gone: a worker serves it once
            if not self._deal(*self._held):
                self._pause()
                return
            self._held = None
        self._watch()
