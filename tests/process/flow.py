"""A body of any length through a sidecar process, with a fast side and a slow one: how far did its memory grow?"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from tests.process.setting import Served, served
from tests.support.process import http_get
from tests.support.raw import RawPeer, raw_upstream

MIB = 1024 * 1024
BLOCK = hashlib.shake_128(b"body").digest(MIB)
PAUSES = 8
"""How often the slow side stops until the fast one has been stopped by it."""
ROUTE = "timeouts: {request: 10m}"


class Flow:
    """What has gone in at one end, of `total` bytes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.sent = 0

    async def send(self, writer: asyncio.StreamWriter) -> None:
        while self.sent < self.total:
            writer.write(BLOCK)
            await writer.drain()
            self.sent += MIB

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
        while size < self.total:
            if size % step == 0:
                await self.stalls()
            data = await reader.readexactly(MIB)
            assert data == BLOCK
            size += MIB
            peak = max(peak, to.process.memory_kib())
        return peak


async def growth_by_answer(folder: Path, total: int) -> int:
    """KiB that a sidecar's memory grows by while a slow client reads an answer of `total` bytes."""
    flow = Flow(total)

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.target == b"/small":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            await flow.send(peer.writer)

    async with raw_upstream(script) as app, served(folder, app.port, route=ROUTE) as to:
        assert (await http_get(to.port, "/small"))[0] == 200
        before = to.process.memory_kib()
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port, limit=2 * MIB)
        writer.write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        peak = await flow.take(reader, to)
        writer.close()
        return peak - before


async def growth_by_request(folder: Path, total: int) -> int:
    """KiB that a sidecar's memory grows by while a slow upstream reads a request of `total` bytes."""
    flow = Flow(total)
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

    app = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2 * MIB)
    async with app, served(folder, app.sockets[0].getsockname()[1], route=ROUTE) as to:
        stage.append(to)
        assert (await http_get(to.port, "/small"))[0] == 200
        before = to.process.memory_kib()
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        writer.write(b"PUT /long HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % total)
        await flow.send(writer)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        return peak - before
