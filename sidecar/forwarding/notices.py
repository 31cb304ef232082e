"""Tells the other workers of inbound exchanges that were cut short here, and ends the calls below those of theirs.

One datagram a worker and turn of the loop, over UNIX sockets that all of them have from before the fork. The table of
`core/across/` is written first, so a call that comes behind the message finds the exchange ended. Nothing waits: a
worker whose queue is full is not told, which a number in the shared table says; it looks there each 25 ms as long as
anything of it hangs on others, and then reads all of that again. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast

from sidecar.core.across.exchanges import AcrossWorkers
from sidecar.core.across.notice import MOST_BYTES, MOST_IN_A_DATAGRAM, notice, read_notices
from sidecar.core.errors import Reason
from sidecar.forwarding.beside import OtherLoops
from sidecar.forwarding.lineage import end_with_caller
from sidecar.forwarding.story import Story
from sidecar.transport.turns import Turns

LOOK_SECONDS: Final = 0.025
READS_A_TURN: Final = 16


class Notices(OtherLoops):
    """Of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        turns: Turns,
        across: AcrossWorkers,
        own: socket.socket,
        others: Mapping[int, socket.socket],
    ) -> None:
        """`own` is where messages arrive, `others` where they go, by worker; none of them blocks, and whoever made
        them closes them."""
        self._loop = loop
        self._clock = clock
        self._turns = turns
        self._across = across
        self._own = own
        self._others = others
        self._untold: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.on_counted: Callable[[], None] = lambda: None
        """Who is told of each connection of a client that has come or gone."""
        self.told = 0
        """Exchanges that the others were told of."""
        self.lost = 0
        """Messages that found a full queue."""
        loop.add_reader(own.fileno(), self._read)

    def __repr__(self) -> str:
        return f"<Notices told={self.told} lost={self.lost}>"

    def numbers(self) -> dict[str, int]:
        """How often each of these happened so far."""
        across = self._across
        return {"told": self.told, "not_told": self.lost, "no_room": across.refused, "torn": across.torn}

    def close(self) -> None:
        """Neither tell nor hear any more."""
        self._loop.remove_reader(self._own.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def tell(self, span_id: bytes, why: Reason) -> None:
        self._untold.append(notice(span_id, why))
        if len(self._untold) >= MOST_IN_A_DATAGRAM:
            self._send()
        elif len(self._untold) == 1:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        if not self._untold:
            return
        self.told += len(self._untold)
        datagram = b"".join(self._untold)
        self._untold.clear()
        for worker, other in self._others.items():
            try:
                other.send(datagram)
            except OSError:  # its queue is full, or the kernel has no memory
                self.lost += 1
                self._across.lost(worker)

    def watch(self) -> None:
        if self._timer is None and self._across.is_attached:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def counted(self) -> None:
        self.on_counted()

    def _look(self) -> None:
        self._timer = None
        if self._across.has_news():
            self._end(self._across.look_again())
        self.watch()

    def _read(self) -> None:
        now = self._clock()
        for _ in range(READS_A_TURN):
            try:
                datagram = self._own.recv(MOST_BYTES)
            except OSError:  # BlockingIOError: there is no more
                break
            if not datagram:
                self._end(self._across.look_again())
            for span_id, why in read_notices(datagram):
                self._end(self._across.told(span_id, why, now))

    def _end(self, handles: tuple[object, ...]) -> None:
        for call in handles:
            self._turns.end(partial(end_with_caller, cast(Story, call)))
