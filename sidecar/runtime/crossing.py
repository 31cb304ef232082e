"""What workers of a pod share beside their sockets: the table of live inbound exchanges, who tells whom, and where
connections are handed over.

Made once by the process that forks, before the first fork, and inherited by every worker that it ever forks: so a
worker that comes after a dead one has the same part of the table and the same sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import socket
from collections.abc import Callable, Mapping

from sidecar.core.across.dealing import Load
from sidecar.core.across.exchanges import AcrossWorkers, bury_worker, load_of
from sidecar.core.across.segment import Segment, add_one, read_number
from sidecar.core.callers import CAPACITY
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Direction
from sidecar.forwarding.notices import Notices
from sidecar.transport.turns import Turns

_DIRECTIONS = tuple(Direction)


@dataclass(frozen=True, slots=True)
class Joined:
    """The share of one worker."""

    across: AcrossWorkers
    capacity: int
    """Live inbound exchanges that it has room for."""
    own: socket.socket
    """Where it is told."""
    others: Mapping[int, socket.socket]
    """Where it tells the others, by their numbers."""
    hand: socket.socket
    """Where it takes connections that control has accepted."""

    def notices(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], turns: Turns) -> Notices:
        """Made here, so that a process that serves alone has nothing of it in memory."""
        return Notices(loop, clock, turns, self.across, self.own, self.others)


class Crossing:
    """Of all workers; workers count from 0."""

    def __init__(self, workers: int) -> None:
        """Map the memory (pages are taken as they are used) and make the sockets.

        Raises:
            OSError: no memory or no descriptors.
            ValueError: too many workers."""
        self._segment = Segment(workers, CAPACITY)
        self._memory = mmap.mmap(-1, self._segment.size)
        self._segment.begin(self._memory)
        self._pairs = [_pair(socket.SOCK_DGRAM) for _ in range(workers)]
        self.hands = [_pair(socket.SOCK_SEQPACKET) for _ in range(workers)]
        """Where each worker takes connections that control has accepted, and where control hands them over."""
        self._shut = {one: mmap.mmap(-1, workers) for one in _DIRECTIONS}
        """By worker: 1 where it takes nobody any more from listeners of this direction."""
        self._left = mmap.mmap(-1, 1)
        """1 where another program has all sockets, and is about to serve."""

    def __repr__(self) -> str:
        return f"<Crossing {len(self._pairs)} workers, {self._segment.size} bytes>"

    def join(self, worker: int) -> Joined:
        """In the worker, after its fork."""
        for shut in self._shut.values():
            shut[worker] = 0
        return Joined(
            AcrossWorkers(self._memory, self._segment, worker),
            self._segment.capacity,
            self._pairs[worker][0],
            {number: told for number, (_, told) in enumerate(self._pairs) if number != worker},
            self.hands[worker][0],
        )

    def is_last(self, worker: int, direction: Direction) -> bool:
        """This worker takes nobody any more from listeners of this direction. Whether no other one does."""
        shut = self._shut[direction]
        shut[worker] = 1
        return all(shut[:])

    @property
    def is_left(self) -> bool:
        """Another program has all sockets too, and may serve: whoever finds himself without the process that forks
        ends none of them."""
        return self._left[0] == 1

    def leave(self, *, is_on: bool) -> None:
        """By the process that forks: that is so, or not any more."""
        self._left[0] = is_on

    def load_of(self, worker: int) -> Load:
        """What it told of the connections that it was handed."""
        return load_of(self._memory, self._segment, worker)

    def dealt_one(self) -> None:
        """Control has handed a connection over. Its counters are here, so that they outlive it."""
        add_one(self._memory, self._segment.dealt_at())

    def waited_once(self) -> None:
        """No worker's queue took one."""
        add_one(self._memory, self._segment.waited_at())

    def dealt(self) -> dict[str, int]:
        """What came of connections that were accepted in one place, since the pod began."""
        memory, segment = self._memory, self._segment
        return {
            "handed_over": read_number(memory, segment.dealt_at()),
            "waited": read_number(memory, segment.waited_at()),
        }

    def bury(self, worker: int, now: float) -> None:
        """In the process that forks, once `waitpid` has told that a worker is dead, and before the next one is
        forked: nobody waits any more for what it had under way. `now`: CLOCK_MONOTONIC, in seconds."""
        bury_worker(self._memory, self._segment, worker, now)
        for shut in self._shut.values():
            shut[worker] = 1
        for number, (_, told) in enumerate(self._pairs):
            if number != worker:
                with contextlib.suppress(OSError):  # its queue is full: the part's epoch says it too
                    told.send(b"")

    def close(self) -> None:
        """Of this process alone."""
        for pair in (*self._pairs, *self.hands):
            for end in pair:
                end.close()
        self._memory.close()
        self._left.close()
        for shut in self._shut.values():
            shut.close()


def _pair(kind: int) -> tuple[socket.socket, socket.socket]:
    own, told = socket.socketpair(socket.AF_UNIX, kind)
    own.setblocking(False)
    told.setblocking(False)
    return own, told
