"""A worker's end of what control hands over: connections of listeners with `balance: exact`.

While there is no control process, the worker accepts those by itself, as from any other listener's socket. Owned by
the event loop of one worker.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Final

from sidecar.core.across.dealing import Load
from sidecar.core.snapshot import Dealt
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding.visitors import Visitors
from sidecar.runtime.crossing import Joined
from sidecar.transport.handed import Handed, has_free_file, receive

_LOG = logging.getLogger("sidecar.runtime")
MOST_WAITING: Final = 64
"""Connections of one listener that wait here to be taken; the next ones wait on their way."""
RECEIVES_A_TURN: Final = 64
LOOK_SECONDS: Final = 0.01


class Hands:
    """What one worker is handed."""

    def __init__(
        self,
        joined: Joined,
        listeners: Callable[[], Iterable[ListenerSocket]],
        is_dealt: Callable[[ListenerSocket], bool],
        visitors: Visitors,
    ) -> None:
        """`listeners`: those in use. `is_dealt`: whether somebody hands over now what connects there. `visitors`: of
        this worker; they have files for those whom it has none for."""
        self._joined = joined
        self._visitors = visitors
        self._listeners = listeners
        self._is_dealt = is_dealt
        self._handed: dict[ListenerSocket, Handed] = {}
        self._ends: list[socket.socket] = []
        """Where connections come from: its own end, and those of neighbours that are not there."""
        self._is_reading = False
        self._load = Load(0, 0)

    def __repr__(self) -> str:
        return f"<Hands {self._load.open} open, {self._load.taken} taken>"

    def start(self) -> None:
        self._ends.append(self._joined.hand)
        self.listeners_changed()

    def close(self) -> None:
        self._stop_reading()
        self._ends.clear()
        for handed in self._handed.values():
            handed.close()
        self._handed.clear()

    def __bool__(self) -> bool:
        """Whether there is any such listener."""
        return bool(self._handed)

    def take_last(self) -> bool:
        """What is still on its way, when nobody hands over anything more. Whether there is any to serve: what came
        before this call was taken as it came."""
        for end in self._ends:
            while self._has_file(end) and (received := receive(end)) is not None:
                self._put(*received)
        return any(one.connection_count for one in self._handed)

    def adopt(self, end: socket.socket) -> None:
        """Take what a neighbour that is not there was handed."""
        if end not in self._ends:
            self._stop_reading()
            self._ends.append(end)
            self._read_on()

    def leave(self, end: socket.socket) -> None:
        """It is back."""
        self._stop_reading()
        if end in self._ends:
            self._ends.remove(end)
        self._read_on()

    def listeners_changed(self) -> None:
        """There are others, or control has come or gone, or the end has begun: who accepts what."""
        exact = {one for one in self._listeners() if one.policy.balance is Dealt.EXACT}
        for listener in self._handed.keys() - exact:
            self._let_go(listener)
        for listener in exact - self._handed.keys():
            handed = self._handed[listener] = Handed()
            listener.queues.add(handed)
        for listener in exact:
            listener.queues.take_own(is_on=not self._is_dealt(listener))
        self._read_on()
        self.tell_load()

    def _let_go(self, listener: ListenerSocket) -> None:
        handed = self._handed.pop(listener)
        listener.queues.remove(handed)
        listener.queues.take_own(is_on=True)
        for connection in handed.rest():
            listener.take(connection)
        handed.close()

    # Reading

    def _read_on(self) -> None:
        if self._is_reading or not self._ends:
            return
        self._is_reading = True
        loop = asyncio.get_running_loop()
        for end in self._ends:
            loop.add_reader(end.fileno(), self._receive, end)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            loop = asyncio.get_running_loop()
            for end in self._ends:
                loop.remove_reader(end.fileno())

    def _receive(self, end: socket.socket) -> None:
        for _ in range(RECEIVES_A_TURN):
            if any(len(handed) >= MOST_WAITING for handed in self._handed.values()) or not self._has_file(
                end
            ):
                self._stop_reading()
                asyncio.get_running_loop().call_later(LOOK_SECONDS, self._read_on)
                break
            received = receive(end)
            if received is None:
                break
            if end is self._joined.hand:
                self._load = self._load._replace(taken=self._load.taken + 1)
            self._put(*received)
        self.tell_load()

    def _has_file(self, end: socket.socket) -> bool:
        """Whether there is a descriptor for the next one: without, the kernel drops the connection of a message that
        is read. Else one that is kept for such a client becomes free, where it can be told that there is none."""
        if has_free_file(end):
            return True
        waiting = sum(len(handed) for handed in self._handed.values())
        return self._visitors.has_place(waiting) and self._visitors.give_file()

    def _put(self, name: str, connection: socket.socket) -> None:
        for listener in self._listeners():
            if listener.name == name:
                handed = self._handed.get(listener)
                if handed is not None and listener.queues.is_accepting:
                    handed.put(connection)
                else:  # it ends, or is balanced otherwise since then: whoever has connected is served once
                    listener.take(connection)
                return
        _LOG.debug("a connection came for %s, which is no listener any more", name)
        connection.close()

    def tell_load(self) -> None:
        """How many connections there are now, and how many came."""
        if not self._handed:
            return
        count = sum(one.connection_count + len(handed) for one, handed in self._handed.items())
        self._load = self._load._replace(open=count)
        self._joined.across.tell_load(self._load)
