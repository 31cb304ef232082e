"""What may befall the Redis of a fleet: each fault lasts for its block, and at its end the Redis is well again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.support.redis_server import RedisServer
from tests.support.relay import Relay

LINKED_SECONDS = 2.5
"""After a fault, until the sidecar is linked again."""
PASSWORD = "old"


@asynccontextmanager
async def killed(server: RedisServer, _between: Relay) -> AsyncIterator[None]:
    await server.kill()
    yield
    await server.start()


@asynccontextmanager
async def hung(server: RedisServer, _between: Relay) -> AsyncIterator[None]:
    """By SIGSTOP."""
    server.hang()
    yield
    server.go_on()


@asynccontextmanager
async def slow(_server: RedisServer, between: Relay) -> AsyncIterator[None]:
    """Each message takes 100 ms, each way."""
    between.delay_seconds = 0.1
    yield
    between.delay_seconds = 0.0


@asynccontextmanager
async def locked(server: RedisServer, between: Relay) -> AsyncIterator[None]:
    """It has a new password, and its connections are lost."""
    await server.ask("CONFIG", "SET", "requirepass", f"not {PASSWORD}")
    between.break_off()
    yield
    await server.kill()
    await server.start()


@asynccontextmanager
async def flushed(server: RedisServer, _between: Relay) -> AsyncIterator[None]:
    """It forgets all, each second."""

    async def flush() -> None:
        while True:
            await server.ask("FLUSHALL")
            await asyncio.sleep(1.0)

    task = asyncio.create_task(flush())
    yield
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def cut_off(_server: RedisServer, between: Relay) -> AsyncIterator[None]:
    """A partition: bytes are lost, connections stay open."""
    between.is_cut = True
    yield
    between.is_cut = False


Fault = Callable[[RedisServer, Relay], AbstractAsyncContextManager[None]]
FAULTS: dict[str, Fault] = {
    "killed": killed,
    "hung": hung,
    "slow": slow,
    "new password": locked,
    "flushed": flushed,
    "cut off": cut_off,
}
