"""Replicas that act as one, for tests: sidecars in the test's loop, one Redis, one upstream that may fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.load import load_text
from sidecar.core.breaker import Breaker
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.support.process import admin, http_get
from tests.support.proxy import HEADER, port, running
from tests.support.redis_server import RedisServer, redis_server

LONG = "open_for: 60s, max_open_for: 60s"
BREAKER = "open_for: 400ms, max_open_for: 1s, half_open: {max_wait: 2s}"


@dataclass
class Flaky:
    """An upstream that answers what it is told, after a while if it is told so, and counts."""

    status: int = 200
    calls: int = 0
    port: int = 0
    seen: list[int] = field(default_factory=list)
    """The status of each call."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Flaky]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                status = self.status
                self.calls += 1
                self.seen.append(status)
                writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def app() -> AsyncIterator[Flaky]:
    async with Flaky().serving() as app:
        yield app


class Replica:
    """One sidecar of the fleet."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    @property
    def breaker(self) -> Breaker:
        return self.worker.assembly.breakers["pay", "app"]

    @property
    def state(self) -> State:
        return self.breaker.state

    @property
    def is_linked(self) -> bool:
        return self.worker.control.fleet.side().link.numbers.is_linked

    @property
    def told(self) -> dict[str, Any]:
        """As `/status` has it."""
        found = self.worker.control.fleet.told()
        assert found is not None
        return found

    @property
    def shared(self) -> dict[str, Any]:
        """As `/breakers` has it."""
        found = self.worker.control.fleet.told_of(self.breaker)
        assert found is not None
        return found

    async def call(self) -> int:
        """One request; its status."""
        status, _ = await http_get(port(self.worker, "outbound"), "/", host="pay")
        return status

    async def ask(self, method: str, path: str) -> dict[str, Any]:
        """What the admin API answers."""
        _, body = await admin(self.worker.control.admin.server.bound_port, method, path)
        found: dict[str, Any] = json.loads(body)
        return found


def configuration(app: int, redis: int, breaker: str = BREAKER, more: str = "") -> str:
    return f"""
share: {{redis: {{url: "redis://127.0.0.1:{redis}", fleet: shop{more}}}}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}}}
routes:
- name: pay
  listener: outbound
  upstream: app
  circuit_breaker: {{scope: fleet, {breaker}, warm_up: off}}
"""


@asynccontextmanager
async def replica(name: str, text: str) -> AsyncIterator[Replica]:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={name}"}
    async with running(text, HEADER, environ=environ) as worker:
        yield Replica(worker)


@asynccontextmanager
async def replicas(count: int, text: str | list[str]) -> AsyncIterator[list[Replica]]:
    """`text`: the configuration of all, or of each."""
    texts = [text] * count if isinstance(text, str) else text
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(replica(f"r{number}", one)) for number, one in enumerate(texts)
        ]
        yield started


@asynccontextmanager
async def under_load(fleet: list[Replica]) -> AsyncIterator[list[int]]:
    """Every replica is called all the time; what was answered."""
    answers: list[int] = []
    is_over = asyncio.Event()

    async def calls(one: Replica) -> None:
        while not is_over.is_set():
            answers.append(await one.call())
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for one in fleet:
            group.create_task(calls(one))
        try:
            yield answers
        finally:
            is_over.set()


def are_one(fleet: list[Replica]) -> bool:
    return all(one.is_linked and not one.told["is_alone"] for one in fleet)


async def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Against hanging: no test says how soon something is to be."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.005)


async def fails(one: Replica, app: Flaky) -> None:
    """It alone sees the upstream fail, until it opens."""
    app.status = 500
    while one.state is not State.OPEN:
        assert await one.call() in (500, 503)


async def install(one: Replica, text: str) -> None:
    """Put another configuration in place, as a reload does."""
    control = one.worker.control
    await control.active.install(load_text(HEADER + text).snapshot)
    control.adopt_fleet()
