"""A resolver in a hurry, and who hears what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.core.snapshot import Endpoint
from sidecar.upstream.lookup import Answer
from sidecar.upstream.resolver import Resolver, ResolverTimes

PAYMENTS = Endpoint("payments.test", 80)
QUICK = ResolverTimes(
    min_ttl=0.02,
    max_ttl=300.0,
    hosts_file_ttl=0.02,
    lookup_timeout=60.0,
    first_retry=0.02,
    max_first_retry=0.05,
    retry=0.02,
    max_retry=0.05,
)


class Changes:
    """Collects what the resolver tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[tuple[Endpoint, tuple[Endpoint, ...]]] = []
        self._changed = asyncio.Event()

    def __call__(self, endpoint: Endpoint, addresses: tuple[Endpoint, ...]) -> None:
        self.all.append((endpoint, addresses))
        self._changed.set()

    async def count(self, times: int) -> None:
        while len(self.all) < times:
            self._changed.clear()
            await self._changed.wait()

    @property
    def hosts(self) -> list[list[str]]:
        return [[address.host for address in addresses] for _, addresses in self.all]


def answer(*addresses: str, ttl: float | None = 0.0) -> Answer:
    return Answer(addresses, ttl)


@asynccontextmanager
async def running(resolver: Resolver) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(resolver.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
