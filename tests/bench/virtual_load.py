"""Load on one sidecar in virtual time: real sockets, a seeded service, and how long each answer took.

The clock is virtual (`tests/support/loop.py`): a pause costs nothing, so that what is measured are decisions and not
this machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.support import loop as virtual
from tests.support.proxy import port, running

SEED = 11


@dataclass
class Endpoint:
    """Answers after a time of its own choice."""

    seconds: Callable[[random.Random], float]
    rng: random.Random
    requests: int = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await asyncio.sleep(self.seconds(self.rng))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@dataclass
class Found:
    """What came of the load, after the first seconds."""

    seconds: list[float] = field(default_factory=list)
    asked: int = 0
    """Requests of clients, from the beginning."""
    sent: int = 0
    """Requests at the endpoints, from the beginning."""
    failed: int = 0

    def quantile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def more(self) -> float:
        """Load beyond one request each."""
        return self.sent / max(self.asked, 1) - 1.0


async def measure(
    services: list[Callable[[random.Random], float]],
    rate: float,
    seconds: float,
    *,
    route: str = "",
    upstream: str = "",
    warm_up: float = 5.0,
) -> Found:
    """Requests at random instants, whatever becomes of the earlier ones. `services`: of each endpoint. What came in
    the first `warm_up` seconds is not timed."""
    found = Found()
    endpoints = [Endpoint(service, random.Random(SEED + number)) for number, service in enumerate(services)]
    async with AsyncExitStack() as stack:
        ports = []
        for endpoint in endpoints:
            server = await asyncio.start_server(endpoint.accept, "127.0.0.1", 0)
            stack.callback(server.close)
            ports.append(server.sockets[0].getsockname()[1])
        where = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
        routes = f"""\
upstreams: {{app: {{endpoints: [{where}]{upstream and ", " + upstream}}}}}
routes: [{{name: app, upstream: app{route and ", " + route}}}]
"""
        worker = await stack.enter_async_context(running(routes))
        worker.service.rng.seed(SEED)
        await _offer(port(worker), rate, seconds, warm_up, found)
        await asyncio.sleep(1.0)  # what lost to a hedge is at an end, too
    found.sent = sum(endpoint.requests for endpoint in endpoints)
    return found


async def _offer(to: int, rate: float, seconds: float, warm_up: float, found: Found) -> None:
    loop = asyncio.get_running_loop()
    rng, began, at = random.Random(SEED), loop.time(), 0.0
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask() -> None:
        link = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", to)
        begun = loop.time()
        link[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await link[0].readuntil(b"\r\n\r\n")
        found.failed += not head.startswith(b"HTTP/1.1 200")
        if begun - began >= warm_up:
            found.seconds.append(loop.time() - begun)
        idle.append(link)

    tasks = []
    while (at := at + rng.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, began + at - loop.time()))
        found.asked += 1
        tasks.append(asyncio.create_task(ask()))
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()


def run(services: list[Callable[[random.Random], float]], rate: float, seconds: float, **keys: str) -> Found:
    """`measure` on a loop of its own."""
    virtual.PATIENCE_SECONDS = 0.0003
    with asyncio.Runner(loop_factory=virtual.JumpingLoop) as runner:
        return runner.run(measure(services, rate, seconds, **keys))  # type: ignore[arg-type]


def table(rows: list[tuple[str, ...]]) -> str:
    head, *rest = rows
    lines = ["| " + " | ".join(row) + " |" for row in (head, tuple("---" for _ in head), *rest)]
    return "\n".join(lines)
