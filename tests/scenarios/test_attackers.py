"""Every worst head at once beside an honest client, which is answered as if nobody else were there."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.stage import OK, saying
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import port, running
from tests.support.raw import RawClient, raw_client, raw_upstream
from tests.support.worst import FILE, HEADER, heads

HONEST = b"GET /honest HTTP/1.1\r\nHost: honest.test\r\n\r\n"
AT_ONCE = 40
"""Attackers: fewer than the app's own backlog has room for."""


async def attack(to: int, data: bytes) -> None:
    """Send it, and read until the sidecar has said something or has closed."""
    async with raw_client(to) as client:
        await client.send(data)
        while not client.received and not client.is_ended:
            await client.read_some()


async def ask(client: RawClient, number: int) -> int:
    await client.send(HONEST)
    return (await client.responses([b"GET"] * (number + 1)))[number].status


@pytest.mark.parametrize("listener", ["mesh", "street"])
async def test_an_honest_client_is_answered_beside_all_attackers(listener: str) -> None:
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream(saying(OK)) as app:
            routes = FILE.replace("127.0.0.1:9", f"127.0.0.1:{app.port}")
            async with running(routes, HEADER) as worker, raw_client(port(worker, listener)) as client:
                at = port(worker, listener)
                worst, answered = [*heads().values()], 0
                for first in range(0, len(worst), AT_ONCE):
                    attacks = [
                        asyncio.create_task(attack(at, head)) for head in worst[first : first + AT_ONCE]
                    ]
                    while not all(one.done() for one in attacks):
                        assert await ask(client, answered) == 200
                        answered += 1
                assert await ask(client, answered) == 200
                client.writer.close()
                await assert_clean(worker)
    assert complaints.found == []
