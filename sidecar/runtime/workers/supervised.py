"""A child's end of its lifeline, on the event loop: hands orders to their handler, and notices a dead supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from sidecar.runtime.workers.lifeline import Lifeline, LifelineCut
from sidecar.runtime.workers.orders import Order

Obey = Callable[[Order, list[int]], None]
"""Takes the files that it needs out of the list; the rest is closed."""


class Supervised:
    """Owned by the event loop."""

    def __init__(self, lifeline: Lifeline, obey: Obey, on_cut: Callable[[], None]) -> None:
        """`on_cut`: the supervisor has gone, and with it all that keeps this process in order."""
        self._lifeline = lifeline
        self._obey = obey
        self._on_cut = on_cut
        self._is_open = False

    def start(self) -> None:
        self._is_open = True
        asyncio.get_running_loop().add_reader(self._lifeline.fileno(), self._read)

    def send(self, order: Order, files: tuple[int, ...] = ()) -> None:
        """Nothing where the supervisor has gone."""
        if self._is_open:
            try:
                self._lifeline.send(order, files)
            except LifelineCut:
                self._cut()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._lifeline.fileno())
            self._lifeline.close()

    def _read(self) -> None:
        while self._is_open:
            try:
                received = self._lifeline.receive()
            except LifelineCut:
                self._cut()
                return
            if received is None:
                return
            order, files = received
            try:
                self._obey(order, files)
            finally:
                for one in files:
                    os.close(one)

    def _cut(self) -> None:
        if self._is_open:
            self.close()
            self._on_cut()
