"""A body of any length through a sidecar process, with a fast side and a slow one: how far did its memory grow?"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from pathlib import Path

from tests.process.setting import Served, served
from tests.support.raw import RawPeer, raw_upstream

MIB = 1024 * 1024
BLOCK = hashlib.shake_128(b"body").digest(MIB)
PAUSES = 8
"""How often the slow side stops until the fast one has been stopped by it."""
ROUTE = "timeouts: {request: 10m}"


class Flow:
    """What has gone in at one end, of `total` bytes."""

    def __init__(self, total: int, *, is_chunked: bool) -> None:
        self.total = total
        self.is_chunked = is_chunked
        self.sent = 0

    async def send(self, writer: asyncio.StreamWriter) -> None:
        while self.sent < self.total:
            if self.is_chunked:
                writer.writelines((b"%x\r\n" % MIB, BLOCK, b"\r\n"))
            else:
                writer.write(BLOCK)
            await writer.drain()
            self.sent += MIB
        if self.is_chunked:
            writer.write(b"0\r\n\r\n")

    @property
    def framing(self) -> bytes:
        """The header field that goes with it."""
        return b"Transfer-Encoding: chunked" if self.is_chunked else b"Content-Length: %d" % self.total

    async def stalls(self) -> None:
        """Wait until nothing more is taken."""
        before = -1
        while before != self.sent and self.sent < self.total:
            before = self.sent
            await asyncio.sleep(0.03)

    async def take(self, reader: asyncio.StreamReader, to: Served) -> int:
        """Read it all, with pauses, and compare it; the sidecar's largest resident memory on the way, in KiB."""
        peak = size = 0
        step = self.total // PAUSES
        next_pause = 0
        while size < self.total:
            if size >= next_pause:
                next_pause += step
                await self.stalls()
            take = self._take_chunk if self.is_chunked else self._take_block
            size = await take(reader, size)
            peak = max(peak, to.process.memory_kib())
        return peak

    @staticmethod
    async def _take_block(reader: asyncio.StreamReader, size: int) -> int:
        assert await reader.readexactly(MIB) == BLOCK
        return size + MIB

    @staticmethod
    async def _take_chunk(reader: asyncio.StreamReader, size: int) -> int:
        """The sidecar cuts chunks as it likes."""
        length = int(await reader.readuntil(b"\r\n"), 16)
        data = await reader.readexactly(length + 2)
        at = size % MIB
        assert (BLOCK * (length // MIB + 2))[at : at + length] == data[:-2]
        return size + length


async def _connected(
    to: Served, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name = "a.test" if tls is not None else None
    return await asyncio.open_connection("127.0.0.1", to.port, limit=2 * MIB, ssl=tls, server_hostname=name)


async def _ask(to: Served, tls: ssl.SSLContext | None) -> None:
    """A small answer: what the process needs at all, it has afterwards."""
    reader, writer = await _connected(to, tls)
    writer.write(b"GET /small HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def growth_by_answer(
    folder: Path,
    total: int,
    *,
    is_chunked: bool = False,
    tls: ssl.SSLContext | None = None,
    upstream: str = "",
    client_tls: ssl.SSLContext | None = None,
    listener: str = "",
) -> int:
    """KiB that a sidecar's memory grows by while a slow client reads an answer of `total` bytes.

    `tls`: the upstream's, `client_tls`: the client's; `upstream`, `listener`: keys of theirs in the configuration.
    """
    flow = Flow(total, is_chunked=is_chunked)

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.target == b"/small":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % flow.framing)
            await flow.send(peer.writer)

    async with (
        raw_upstream(script, tls) as app,
        served(folder, app.port, route=ROUTE, upstream=upstream, listener=listener) as to,
    ):
        await _ask(to, client_tls)
        before = to.process.memory_kib()
        reader, writer = await _connected(to, client_tls)
        writer.write(b"GET /long HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        peak = await flow.take(reader, to)
        writer.close()
        return peak - before


async def growth_by_request(
    folder: Path,
    total: int,
    *,
    is_chunked: bool = False,
    tls: ssl.SSLContext | None = None,
    upstream: str = "",
    client_tls: ssl.SSLContext | None = None,
    listener: str = "",
) -> int:
    """KiB that a sidecar's memory grows by while a slow upstream reads a request of `total` bytes; as above."""
    flow = Flow(total, is_chunked=is_chunked)
    peak = 0
    stage: list[Served] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal peak
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            peak = await flow.take(reader, stage[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    app = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2 * MIB, ssl=tls)
    port = app.sockets[0].getsockname()[1]
    async with app, served(folder, port, route=ROUTE, upstream=upstream, listener=listener) as to:
        stage.append(to)
        await _ask(to, client_tls)
        before = to.process.memory_kib()
        reader, writer = await _connected(to, client_tls)
        writer.write(b"PUT /long HTTP/1.1\r\nHost: a.test\r\n%b\r\n\r\n" % flow.framing)
        await flow.send(writer)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        return peak - before
