"""A steady open-loop load, each request with its moment and its fate."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

CLIENT_SECONDS = 5.0
"""A client waits so long for its answer."""
MOST_KEPT = 16
CIRCUIT_OPEN = "circuit_open"
_BY_BREAKER = b'details="circuit_open'


@dataclass(frozen=True)
class Call:
    """`at` is when it was due, in seconds of the loop's clock."""

    at: float
    seconds: float
    fate: str
    """The status, `circuit_open` behind it where the breaker refused; or why there is none."""

    @property
    def is_good(self) -> bool:
        return self.fate == "200"


@dataclass
class Load:
    """Requests for `path`, at a fixed rate, whatever becomes of the earlier ones."""

    port: int
    rate: float
    path: str = "/"
    calls: list[Call] = field(default_factory=list)
    _kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            at += 1 / self.rate
            await asyncio.sleep(max(0.0, at - loop.time()))
            task = asyncio.create_task(self._call(at))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def last(self) -> None:
        """Wait for those under way, then close what was kept."""
        if self._running:
            await asyncio.wait(set(self._running))
        for _, writer in self._kept:
            writer.close()

    async def _call(self, at: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(at + CLIENT_SECONDS):
                fate = await self._ask()
        except TimeoutError:
            fate = "no answer"
        except (OSError, asyncio.IncompleteReadError):
            fate = "connection lost"
        self.calls.append(Call(at, loop.time() - at, fate))

    async def _ask(self) -> str:
        reader, writer = (
            self._kept.pop() if self._kept else await asyncio.open_connection("127.0.0.1", self.port)
        )
        is_kept = False
        try:
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: app\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"\r\ncontent-length: ")[2].split(b"\r\n", 1)[0]))
            is_kept = b"connection: close" not in head and len(self._kept) < MOST_KEPT
            return head.split(b" ", 2)[1].decode() + (f" {CIRCUIT_OPEN}" if _BY_BREAKER in head else "")
        finally:
            if is_kept:
                self._kept.append((reader, writer))
            else:
                with contextlib.suppress(OSError, RuntimeError):
                    writer.close()
