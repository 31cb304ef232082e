"""Between a client and a server: passes bytes on, at once or after a while, until somebody cuts it off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    """`port` leads to `to`. What comes in is passed on `delay_seconds` later, in its order."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self.delay_seconds = 0.0
        self.is_cut = False
        """Bytes are swallowed, and connections stay open: a partition."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    def break_off(self) -> None:
        """Reset every connection that is there."""
        for end in self._ends:
            end.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:  # nobody is there at present
            writer.close()
            return
        tasks = {
            asyncio.create_task(self._pass(reader, other_writer)),
            asyncio.create_task(self._pass(other_reader, writer)),
        }
        ends = {writer, other_writer}
        self._tasks |= tasks
        self._ends |= ends
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._tasks -= tasks
        self._ends -= ends
        for one in ends:
            one.close()
            with contextlib.suppress(ConnectionError):
                await one.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def late() -> None:
            while True:
                at, data = await waiting.get()
                await asyncio.sleep(at - loop.time())
                if not self.is_cut:
                    writer.write(data)

        writing = asyncio.create_task(late())
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    waiting.put_nowait((loop.time() + self.delay_seconds, data))
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def close(self) -> None:
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)


@asynccontextmanager
async def relay(to: int) -> AsyncIterator[Relay]:
    made = Relay(to)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
