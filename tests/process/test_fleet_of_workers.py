"""Pods with several workers act as one over a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import http_get
from tests.support.redis_server import needs_redis, redis_server
from tests.support.upstream import answering, scripted
from tests.support.workers import CLIENTS, OK, pod

pytestmark = [pytest.mark.process, needs_redis]

BAD = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
SCOPE = "circuit_breaker: {scope: fleet}"


def states(breakers: Any) -> list[str]:
    """Of each worker's breaker."""
    return [worker["state"] for worker in breakers["breakers"][0]["workers"]]


async def test_an_override_for_the_fleet_reaches_every_worker_of_every_pod(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    async with redis_server(tmp_path) as server, scripted(answering(OK)) as app:
        share = f'share: {{redis: {{url: "redis://127.0.0.1:{server.port}/0"}}}}'
        async with (
            pod(folders[0], app=app.port, route=SCOPE, top=share) as one,
            pod(folders[1], app=app.port, route=SCOPE, top=share) as two,
        ):
            status = await two.until("/status", lambda told: (told["fleet"] or {}).get("replicas") == 2)
            assert status["fleet"]["is_alone"] is False
            await one.ask("/breakers/app/open?fleet=true&for=1m", "POST")
            for each in (one, two):
                await each.until("/breakers", lambda told: states(told) == ["forced_open"] * 2)
            assert {(await http_get(two.inbound, "/"))[0] for _ in range(8)} == {503}
            await two.ask("/breakers/app/auto?fleet=true", "POST")
            for each in (one, two):
                await each.until("/breakers", lambda told: states(told) == ["closed"] * 2)
            assert {(await http_get(one.inbound, "/"))[0] for _ in range(8)} == {200}


async def test_while_the_redis_is_away_the_workers_of_a_pod_open_together_and_say_that_they_are_alone(
    tmp_path: Path,
) -> None:
    failures = 8
    route = f"circuit_breaker: {{scope: fleet, consecutive_failures: {failures}, minimum_calls: 100, open_for: 1m}}"
    async with redis_server(tmp_path) as server, scripted(answering(BAD)) as app:
        share = f'share: {{redis: {{url: "redis://127.0.0.1:{server.port}/0"}}}}'
        async with pod(tmp_path, app=app.port, route=route, top=share) as one:
            await one.until("/status", lambda told: (told["fleet"] or {}).get("is_alone") is False)
            await server.kill()
            await one.until("/status", lambda told: told["fleet"]["is_alone"])
            async with connections(one.inbound) as ask:
                statuses = [await ask() for _ in range(CLIENTS)]
                while set(statuses[-CLIENTS:]) != {503}:
                    statuses.append(await ask())
            # A call of another worker may have been let in before it heard; each alone would have taken eight.
            assert failures <= statuses.count(500) < 2 * failures
            await one.until("/breakers", lambda told: states(told) == ["open"] * 2)


@asynccontextmanager
async def connections(port: int) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """So many that both workers have some; each call asks on the next one and returns its answer's status."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CLIENTS)]
    turns = itertools.cycle(streams)

    async def ask() -> int:
        reader, writer = next(turns)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(100):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            await asyncio.sleep(0.05)  # slower than word gets round
        return int(head.split()[1])

    try:
        yield ask
    finally:
        for _, writer in streams:
            writer.close()
