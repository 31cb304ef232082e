"""Server-sent events to one client, without an end: a heartbeat where nothing happens, a cut for who takes nothing.

What is sent, in which order and how much of it is kept is its `Source`'s: `events.py` and `tap.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

from sidecar.serving.message import ClientGone, Request, Response

HEARTBEAT_SECONDS: Final = 15.0
"""A comment is sent after this long without an event, so that proxies and dead peers are noticed."""
WRITE_SECONDS: Final = 30.0
"""A reader that takes nothing for this long is cut."""


class Source(Protocol):
    """What one client is sent."""

    wake: asyncio.Event
    """Set when there may be something, and when it is over."""
    is_over: bool
    pause_seconds: float
    """After each piece, so that a source that never ends has a pace."""

    def greeting(self) -> bytes:
        """What comes first."""

    def take(self) -> bytes:
        """The next piece; empty where there is none now."""


class Stream:
    """One client, from its request to its end."""

    def __init__(self, request: Request) -> None:
        self._client = request.client

    @property
    def is_gone(self) -> bool:
        """Whether the client has left, which a stream learns by itself only when it next sends something."""
        return self._client.is_gone

    async def serve(self, source: Source) -> None:
        """Send what comes until the client goes or `source` is over.

        Raises:
            TimeoutError: it took nothing for `WRITE_SECONDS`, and its connection is cut.
        """
        try:
            with contextlib.suppress(ClientGone):
                async with asyncio.timeout(WRITE_SECONDS):
                    head = Response(kind="text/event-stream", fields={"Cache-Control": "no-store"})
                    await self._client.begin(head)
                    await self._client.write(source.greeting())
                while not source.is_over and not self.is_gone:
                    await self._send_all(source)
                    await self._wait(source)
        except TimeoutError:
            self._client.abort()
            raise

    async def _send_all(self, source: Source) -> None:
        while data := source.take():
            await self._write(data)
            if source.pause_seconds:
                await asyncio.sleep(source.pause_seconds)

    async def _wait(self, source: Source) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await source.wake.wait()
            source.wake.clear()
        except TimeoutError:
            await self._write(b": still here\n\n")

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(WRITE_SECONDS):
            await self._client.write(data)
