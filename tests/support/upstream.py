"""A scripted upstream: each connection is answered by a coroutine of the test, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Serve = Callable[["Peer"], Awaitable[None]]


@dataclass
class Peer:
    """One accepted connection, as the script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        """Read one request head; raises IncompleteReadError when the proxy closes first."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> None:
        """Wait until the proxy has closed its side."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


@dataclass
class Upstream:
    """A listening script; `heads` are the request heads that it was sent, in order."""

    port: int
    connections: int = 0
    open: int = 0
    heads: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def scripted(serve: Serve) -> AsyncIterator[Upstream]:
    """Run `serve` for each connection."""
    upstream = Upstream(0)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        upstream.open += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await serve(Peer(reader, writer))
        finally:
            upstream.open -= 1
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(response: bytes, upstream_heads: list[bytes] | None = None) -> Serve:
    """A script that reads heads (and bodies by Content-Length) and gives each the same response."""

    async def serve(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if upstream_heads is not None:
                upstream_heads.append(head)
            length = content_length(head)
            if length:
                await peer.reader.readexactly(length)
            await peer.send(response)

    return serve


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def field_of(head: bytes, name: bytes) -> bytes | None:
    """The value of one header field in a raw head."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None
