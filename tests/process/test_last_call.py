"""A sidecar leaves while its clients are at their busiest: each request that reached it gets its answer."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.process.setting import served
from tests.support.raw import raw_upstream

pytestmark = pytest.mark.process

CLIENTS = 24
ANSWERS_BEFORE = 20
"""That each client has had when the end begins."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Busy:
    """A client that sends its next request as soon as it has an answer, until nobody takes its connection."""

    port: int
    is_warm: asyncio.Event = field(default_factory=asyncio.Event)
    answers: int = 0
    last_calls: int = 0
    """Answers that ended their connection."""
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return
            try:
                while await self._ask(reader, writer):
                    pass
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"after {self.answers} answers: {error!r}")
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One exchange; whether the connection goes on."""
        writer.write(GET)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        if not head.startswith(b"http/1.1 200 "):
            self.failures.append(f"after {self.answers} answers: {head.decode()}")
        self.answers += 1
        if self.answers >= ANSWERS_BEFORE:
            self.is_warm.set()
        is_last = b"\r\nconnection: close\r\n" in head
        self.last_calls += is_last
        return not is_last


@pytest.mark.parametrize("delay", ["0s", "300ms"])
async def test_no_busy_client_is_reset_by_a_drain(delay: str, tmp_path: Path) -> None:
    async with raw_upstream() as app, served(tmp_path, app.port, delay=delay) as to:
        clients = [Busy(to.port) for _ in range(CLIENTS)]
        running = [asyncio.create_task(client.run()) for client in clients]
        for client in clients:
            await client.is_warm.wait()
        to.process.process.send_signal(signal.SIGTERM)
        assert await to.process.ended() == 0
        await asyncio.gather(*running)
    assert [failure for client in clients for failure in client.failures] == []
    assert sum(client.last_calls for client in clients) >= CLIENTS
