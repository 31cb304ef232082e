"""A real Redis of a test's: Debian's `redis-server`, started, stopped, and started again on its port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_ports

PROGRAM = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
needs_redis = pytest.mark.skipif(PROGRAM is None, reason="Debian's package `redis-server` is not installed")


class RedisServer:
    """One that keeps nothing on the disk."""

    def __init__(self, folder: Path, port: int, options: tuple[str, ...], first: tuple[str, ...]) -> None:
        self._folder = folder
        self.port = port
        self._options = options
        self._first = first
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        assert PROGRAM is not None
        plain = () if "--tls-port" in self._options else ("--port", str(self.port))
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, *self._first, *plain, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self._folder), *self._options, stdout=DEVNULL, stderr=DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(100):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.returncode is None, "it has ended at once"
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    async def ask(self, *command: str) -> bytes:
        """Send one command by hand, and return its first line; empty where it hangs up instead."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(one.encode()), one.encode()) for one in command)
            writer.write(b"*%d\r\n%s" % (len(command), parts))
            async with asyncio.timeout(100):
                return (await reader.readline()).rstrip()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@asynccontextmanager
async def redis_server(
    folder: Path, *options: str, port: int | None = None, first: tuple[str, ...] = ()
) -> AsyncIterator[RedisServer]:
    """`options`: of the command line, such as `--requirepass pw`; `first` stands before all others."""
    server = RedisServer(folder, port or free_ports(1)[0], options, first)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
