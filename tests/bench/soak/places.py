"""What stands around the sidecar: apps that are well, flap, are slow or gone, and a collector that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

FLAP_SECONDS = 7.0
"""An app is well for so long, then ill for so long."""
GONE_SECONDS = 11.0
AWAY_SECONDS = 30.0
"""The same for the collector."""
BIG = b"x" * 5_000_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BAD = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nbad"


class App:
    """Answers by path, and is ill while it is told so."""

    def __init__(self) -> None:
        self.is_ill = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # uvloop's transports raise RuntimeError when they are written to once closed.
        ends = (ConnectionError, RuntimeError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        with contextlib.suppress(*ends):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await _read_body(reader, head.lower())
                if not await self._answer(head.split(b" ", 2)[1], writer):
                    break
        writer.close()

    async def _answer(self, target: bytes, writer: asyncio.StreamWriter) -> bool:
        """False where the connection ends with it."""
        if target.startswith(b"/big"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG))
            for at in range(0, len(BIG), 65536):
                writer.write(BIG[at : at + 65536])
                await writer.drain()
        elif target.startswith(b"/stream"):
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                writer.write(b"3e8\r\n%b\r\n" % (b"y" * 1000))
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")
        elif target.startswith(b"/slow"):
            await asyncio.sleep(0.6)
            writer.write(OK)
        elif target.startswith(b"/cut"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            return False
        elif target.startswith(b"/tunnel"):
            writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
            return False
        else:
            writer.write(BAD if self.is_ill else OK)
        await writer.drain()
        return True

    async def flap(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            self.is_ill = not self.is_ill


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"\r\ntransfer-encoding:" in head:
        await reader.readuntil(b"0\r\n\r\n")
    elif b"\r\ncontent-length:" in head:
        await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0]))


async def _collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """OTLP over HTTP: everything is taken."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            await _read_body(reader, (await reader.readuntil(b"\r\n\r\n")).lower())
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
            )
    writer.close()


async def _comes_and_goes(serve: object, port: int, seconds: float) -> None:
    """There for so long, and away for so long."""
    for turn in itertools.count():
        if turn % 2:
            await asyncio.sleep(seconds)
            continue
        server = await asyncio.start_server(serve, "127.0.0.1", port)  # type: ignore[arg-type]
        try:
            await asyncio.sleep(seconds)
        finally:
            server.close()


@asynccontextmanager
async def surroundings(
    good: int, flapping: int, gone: int, collector: int, pace: float = 1.0
) -> AsyncIterator[None]:
    """All of it, on these ports of loopback; what comes and goes does so `pace` times as often."""
    well, ill = App(), App()
    servers = [
        await asyncio.start_server(app.serve, "127.0.0.1", port)
        for app, port in ((well, good), (ill, flapping))
    ]
    tasks = [
        asyncio.create_task(ill.flap(FLAP_SECONDS / pace)),
        asyncio.create_task(_comes_and_goes(well.serve, gone, GONE_SECONDS / pace)),
        asyncio.create_task(_comes_and_goes(_collect, collector, AWAY_SECONDS / pace)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            server.close()
