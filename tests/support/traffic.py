"""Requests without end over keep-alive connections, each answer checked and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """What came back so far."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def take_seconds(self) -> list[float]:
        """The times since the last call, sorted."""
        taken, self.seconds = sorted(self.seconds), []
        return taken


@asynccontextmanager
async def traffic(
    port: int, paths: Sequence[str], *, connections: int, per_second: float, first_at: float | None = None
) -> AsyncIterator[Traffic]:
    """Send GETs to `paths` in turn, evenly paced over all connections, until the end of the block. `first_at`: of the
    first one, by the loop's clock; else now."""
    record = Traffic()
    gap = connections / per_second
    begin = asyncio.get_running_loop().time() if first_at is None else first_at
    tasks = [
        asyncio.create_task(_client(port, paths, gap, begin + gap * number / connections, record))
        for number in range(connections)
    ]
    try:
        yield record
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                record.failures.append(repr(result))


async def _client(port: int, paths: Sequence[str], gap: float, due: float, record: Traffic) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            for path in paths:
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                due = max(due + gap, loop.time() - 1.0)
                started = time.perf_counter()  # the loop's own clock counts milliseconds
                writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                record.requests += 1
                record.seconds.append(time.perf_counter() - started)
                if not head.startswith(b"HTTP/1.1 200 "):
                    record.failures.append(head.decode())
    except (OSError, EOFError, asyncio.IncompleteReadError) as error:
        record.failures.append(f"connection lost: {error!r}")
    finally:
        writer.close()
