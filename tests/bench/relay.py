"""A relay of bytes that does nothing else: python -m tests.bench.relay FILE.

FILE has its own port and the upstream's. It tells how little a proxy in Python on uvloop can take: a connection to
the upstream for each client's, one read and one write each way, no HTTP. What is measured beyond it is work.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import uvloop


class Side(asyncio.Protocol):
    """One of the two connections."""

    def __init__(self) -> None:
        self.other: Side | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []
        """What came before there was another side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is None or other.transport is None:
            self.early.append(data)
        else:
            other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Client(Side):
    """A client's; asks for the other side."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__()
        self._upstream_port = upstream_port
        self._asking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        upstream = Side()
        upstream.other = self
        await asyncio.get_running_loop().create_connection(lambda: upstream, "127.0.0.1", self._upstream_port)
        self.other = upstream
        assert upstream.transport is not None
        upstream.transport.writelines(self.early)
        self.early.clear()


async def serve(port: int, upstream_port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(upstream_port), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(*map(int, Path(sys.argv[1]).read_text().split())))
