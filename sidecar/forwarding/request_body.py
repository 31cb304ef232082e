"""The request's body on its way to the upstream: held for a moment, then passed on as it arrives.

Decides when the client must stop sending: while nobody takes the body, and while the upstream's socket is full.
Owned by its exchange; made only for requests that have a body.
"""

from __future__ import annotations

import asyncio

from sidecar.core.headers import trailer_block
from sidecar.core.plain import Field
from sidecar.forwarding.client import Client

MAX_HELD_BYTES = 64 * 1024
"""Kept while there is no upstream connection yet; beyond it the client is not read any more."""


class RequestBody:
    """From the client's callbacks to the upstream's transport."""

    __slots__ = (
        "_client",
        "_held",
        "_held_back_since",
        "_is_chunked",
        "_sink",
        "held_back_seconds",
        "is_complete",
        "is_untouched",
        "size",
        "trailers",
    )

    def __init__(self, client: Client, *, is_chunked: bool) -> None:
        self.size = 0
        """Body bytes that have arrived."""
        self.is_complete = False
        self.is_untouched = True
        """No upstream has been given any of it, so another one still can."""
        self.trailers: list[Field] = []
        self.held_back_seconds = 0.0
        """For so long the client could send no more, since the upstream took nothing."""
        self._held_back_since: float | None = None
        self._client = client
        self._is_chunked = is_chunked
        self._held: list[bytes | memoryview] = []
        self._sink: asyncio.Transport | None = None

    def hold_back(self, now: float) -> None:
        """Note that the upstream takes no more for now."""
        self._held_back_since = now

    def let_go(self, now: float) -> None:
        """Note that it does again."""
        if self._held_back_since is not None:
            self.held_back_seconds += now - self._held_back_since
            self._held_back_since = None

    def arrived(self, data: bytes) -> None:
        self.size += len(data)
        sink = self._sink
        if sink is not None:
            self._write(sink, data)
            return
        self._held.append(data)
        if self.size > MAX_HELD_BYTES:
            self._client.pause_reading()

    def arrived_whole(self, data: bytes | memoryview) -> None:
        """All of it is here, before the exchange begins: there is nobody to hold back."""
        self.size = len(data)
        self.is_complete = True
        self._held.append(data)

    def completed(self, trailers: list[Field]) -> None:
        self.is_complete = True
        self.trailers = trailers
        if self._sink is not None:
            self._write_end(self._sink)

    def send_to(self, sink: asyncio.Transport, head: bytes) -> None:
        """Send `head` and what is held, in one write where that is possible, and from now on what arrives."""
        self.is_untouched = self.is_untouched and not (self.size or self.is_complete)
        self._sink = sink
        if self.size > MAX_HELD_BYTES and not self.is_complete:
            # Before what is held is written: where that fills the upstream's socket, the client stays paused.
            self._client.resume_reading()
        held, self._held = self._held, []
        if self._is_chunked:
            sink.write(head)
            for data in held:
                self._write(sink, data)
        else:
            sink.writelines((head, *held))
        if self.is_complete:
            self._write_end(sink)

    def stop(self) -> None:
        """The attempt is over: nothing more goes to its connection."""
        if self._sink is not None:
            self.is_untouched = self.is_untouched and self.size == 0
            self._sink = None

    def _write(self, sink: asyncio.Transport, data: bytes | memoryview) -> None:
        if not self._is_chunked:
            sink.write(data)
        elif len(data) < 4096:
            sink.write(b"".join((b"%x\r\n" % len(data), data, b"\r\n")))
        else:
            sink.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def _write_end(self, sink: asyncio.Transport) -> None:
        if self._is_chunked:
            sink.write(b"0\r\n%b\r\n" % (trailer_block(self.trailers) if self.trailers else b""))
