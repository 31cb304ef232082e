"""A client that takes its answer slowly holds back its own upstream connection, and nobody else's request."""

from __future__ import annotations

import asyncio

from tests.scenarios.stage import get, saying, stage
from tests.support.raw import raw_client, turns

BODY = bytes(120_000)
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


async def test_a_connection_whose_last_answer_is_not_taken_yet_serves_the_next_client() -> None:
    """The answer was whole at the sidecar, and its end was what filled the client's socket."""
    count = 100
    async with stage(saying(LONG)) as to, raw_client(to.port) as slow:
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await slow.send(get() * count)
        answered = -1
        while answered != len(to.requests):
            answered = len(to.requests)
            await turns(100)
        assert answered < count
        assert not to.worker.service.exchanges
        async with asyncio.timeout(5):
            assert (await to.ask()).status == 200
        assert len(to.app.peers) == 1
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
