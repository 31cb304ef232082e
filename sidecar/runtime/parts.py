"""The small supervised parts of a process: what ticks, what serves HTTP beside the data path, what observes.

Each is a `Run` for `actor.Part`. The larger ones are in `reload.py` and `upstream/resolver.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sidecar.core.snapshot import Address
from sidecar.runtime.actor import Mailbox, Run

TICK_SECONDS = 1.0


class Server(Protocol):
    """An HTTP server that is not the data path."""

    async def start(self, address: Address) -> None:
        """Raises: OSError, when the address cannot be bound."""

    async def stop(self) -> None: ...


class Served:
    """Keeps a server up at one address."""

    def __init__(self, server: Server, address: Address) -> None:
        self._server = server
        self._address = address
        self._is_up = False

    async def start(self) -> None:
        """Bind now, so that an address which cannot be had is known before anything is served.

        Raises:
            OSError: the address cannot be bound.
        """
        await self._server.start(self._address)
        self._is_up = True

    async def run(self, mailbox: Mailbox[Any]) -> None:
        try:
            if not self._is_up:
                await self.start()
            async for _ in mailbox:
                pass
        finally:
            self._is_up = False
            await self._server.stop()


def every_second(act: Callable[[], None]) -> Run[Any]:
    """Do something about once a second."""

    async def run(mailbox: Mailbox[Any]) -> None:
        while True:
            act()
            await mailbox.get(TICK_SECONDS)

    return run


def keeping_alive(is_alive: Callable[[], bool], renew: Callable[[], None]) -> Run[Any]:
    """Look after threads: when one has ended by itself this part crashes, and begins again with `renew`."""

    async def run(mailbox: Mailbox[Any]) -> None:
        if not is_alive():
            renew()
        while True:
            await mailbox.get(TICK_SECONDS)
            if not is_alive():
                raise RuntimeError("a thread has ended")

    return run
