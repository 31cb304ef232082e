"""A worker's side of its channel: answers what control asks, and says what happens here.

`handlers` is where a kind of message gets its handler. While there is no control process, what is told is lost, and
what must not be lost is told again when there is one (`on_connected`). Owned by the worker's event loop.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.runtime.actor import Part
from sidecar.runtime.workers.channel import Message, NoAnswer, WorkerChannel
from sidecar.runtime.workers.exchange import CAPACITY, Arrived, handling

Handler = Callable[[Any], Awaitable[Any]]


class ControlEnd:
    """The way to control."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.on_connected: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        self.part: Part[Arrived] = Part("control_end", handling(self._handle), capacity=CAPACITY)
        self._channel: WorkerChannel | None = None

    async def connect(self, end: socket.socket) -> None:
        """A control process is there."""
        before = self._channel
        self._channel = await WorkerChannel.over(end, self._arrived, self._lost)
        if before is not None:
            before.close()
        for tell in self.on_connected:
            tell()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    @property
    def is_connected(self) -> bool:
        return self._channel is not None and self._channel.is_open

    def tell(self, kind: str, body: Any = None) -> bool:
        """False where it cannot be said. Never waits."""
        return self._channel is not None and self._channel.tell(kind, body)

    async def ask(self, kind: str, body: Any, seconds: float) -> Any:
        """Raises: NoAnswer."""
        if self._channel is None:
            raise NoAnswer("there is no control process")
        return await self._channel.ask(kind, body, seconds)

    def _arrived(self, channel: WorkerChannel, message: Message) -> None:
        if not self.part.tell(Arrived(channel, message)):
            channel.fail(message, "this worker has too much to do")

    async def _handle(self, _channel: WorkerChannel, message: Message) -> Any:
        handler = self.handlers.get(message.kind)
        return None if handler is None else await handler(message.body)

    def _lost(self, channel: WorkerChannel) -> None:
        if self._channel is channel:
            self._channel = None
            for tell in self.on_lost:
                tell()
