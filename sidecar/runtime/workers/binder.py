"""Gives listeners their sockets, which the supervisor has bound: a worker's own, and those of missing neighbours.

Owned by the event loop of one process.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Final

from sidecar.core.snapshot import Address
from sidecar.downstream.listener import ListenerSocket
from sidecar.runtime.workers.sockets import Identity, SharedSockets, identity
from sidecar.transport.bind import BACKLOG, Bound
from sidecar.transport.last_accepts import is_listening, listen_again

HANDED_SECONDS: Final = 5.0
"""How long the sockets of a new address may be on their way."""


class Binder:
    """The `bind` of a data path."""

    def __init__(
        self, sockets: SharedSockets, number: int | None, listeners: Callable[[], Iterable[ListenerSocket]]
    ) -> None:
        """`number`: of the worker; None: this process knows the sockets and accepts nothing. `listeners`: those in
        use."""
        self.sockets = sockets
        self._number = number
        self._listeners = listeners
        self._adopted: set[int] = set()
        self._is_handed_on = False
        self._arrived = asyncio.Event()

    async def bind(self, address: Address, key: str) -> Bound:
        """Raises: OSError, if nobody sends the socket."""
        one = identity(address, key)
        try:
            async with asyncio.timeout(HANDED_SECONDS):
                while one not in self.sockets:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise OSError(f"{key}: the supervisor has sent no socket for {address}") from None
        is_lent = self.sockets.is_lent(address, key)
        if self._number is None:
            one_of_all = self.sockets.all_of(one)[0].dup()
            return Bound.of(one_of_all, is_shared=True, accepts=False, is_lent=is_lent)
        own, *others = [each.dup() for each in self.sockets.of(one, self._number)]
        if not is_lent:
            for each in (own, *others):
                listen_again(each, BACKLOG)
        return Bound.of(own, is_shared=True, others=tuple(others), is_lent=is_lent)

    def take(self, one: Identity, files: list[int]) -> None:
        """The sockets of a new address have come."""
        self.sockets.add(one, [socket.socket(fileno=file) for file in files])
        files.clear()
        self._arrived.set()

    def keep(self, identities: tuple[Identity, ...]) -> None:
        """These are in use, and no others."""
        for number in self._adopted:
            self._accept(number, is_on=False)
        self.sockets.keep(identities)
        self.accept_for_missing()

    def adopt(self, number: int) -> None:
        """A neighbour is not there: take from its sockets as well, or end them, where this worker has ended its
        own."""
        self._adopted.add(number)
        self._accept(number, is_on=True)

    def leave(self, number: int) -> None:
        """It is back."""
        self._adopted.discard(number)
        self._accept(number, is_on=False)

    def hand_on(self) -> None:
        """Another process has all sockets, and takes from each of them."""
        self._is_handed_on = True

    def accept_for_missing(self) -> None:
        """Listeners may be others than before."""
        for number in self._adopted:
            self._accept(number, is_on=True)

    def _accept(self, number: int, *, is_on: bool) -> None:
        if self._is_handed_on:
            return
        by = {}
        for one in self._listeners():
            by[identity(one.policy.address, f"listeners.{one.policy.name}.address")] = one
        for place, queue in self.sockets.neighbours(number):
            listener = by.get(place)
            if listener is None:
                continue
            if not is_on:
                listener.queues.remove(queue)
            elif is_listening(queue):  # else it has ended it itself, and there is nothing to wait for
                listener.take_from(queue)
