"""SIGUSR2 of a process that serves alone: starts its successor, and hears whether it serves. On the event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from sidecar.runtime.upgrade import Succession

GRACE_SECONDS: Final = 10.0
"""Beyond the drain of this process, its successor has so long to end."""
LOOK_SECONDS: Final = 0.02
"""Between two looks whether it has."""


class Upgrading:
    """Owned by the event loop."""

    def __init__(
        self, on_replaced: Callable[[int], None], on_kept: Callable[[], None], hindrance: str = ""
    ) -> None:
        """`on_replaced` is told the process that serves in this one's place, `on_kept` is called where nothing came
        of it. `hindrance`: as of `Succession`."""
        self._on_replaced = on_replaced
        self._on_kept = on_kept
        self._succession = Succession(hindrance)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_under_way(self) -> bool:
        """A successor has been started, and has not said yet whether it serves."""
        return self._succession.successor is not None

    @property
    def is_over(self) -> bool:
        """Another process serves."""
        return self._succession.is_over

    def begin(self, sockets: Iterable[socket.socket]) -> None:
        """Start the program anew, with all sockets that listen, unless that is under way."""
        loop = asyncio.get_running_loop()
        if self._succession.begin([one.fileno() for one in sockets], loop.time()):
            one = self._succession.successor
            assert one is not None
            loop.add_reader(one.fileno(), self._look, -inf)
            self._timer = loop.call_at(one.due, self._look, inf)
        else:
            self._on_kept()

    def end(self) -> None:
        """This process ends: so does who was to take over."""
        self._let_go()
        self._succession.end()

    async def ended(self) -> None:
        """Wait for who was told to end with this process, and does the same as it: no longer than a while."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GRACE_SECONDS
        while not self._succession.has_ended():
            if loop.time() >= until:
                self._succession.kill()
                until = inf
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, now: float) -> None:
        """It has spoken, or will not, or (`now` is infinite) its time is over."""
        self._let_go()
        pid = self._succession.look(now)
        if pid is not None:
            self._on_replaced(pid)
        else:
            self._on_kept()

    def _let_go(self) -> None:
        if self._succession.successor is not None:
            asyncio.get_running_loop().remove_reader(self._succession.successor.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
