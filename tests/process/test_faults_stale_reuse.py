"""A sidecar that is held for a moment, and an upstream that closes its idle connection meanwhile."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.process.setting import served
from tests.support.raw import RawPeer, raw_client, raw_upstream

pytestmark = pytest.mark.process

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
async def test_a_request_that_came_while_it_was_held_does_not_meet_the_end_of_an_idle_connection(
    tmp_path: Path, method: bytes
) -> None:
    """30 of 30, each on the connection that the request before it has left."""
    ended, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: RawPeer) -> None:
        """Answer two requests; whoever asks for a kept connection finds that it ends when the test says so."""
        while (request := await peer.request()) is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            if request.method == b"GET":
                await ended.wait()
                peer.writer.close()
                await peer.writer.wait_closed()
                gone.set()
                return

    data = b"%b / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\ndata" % method
    statuses = []
    async with raw_upstream(script) as app, served(tmp_path, app.port) as to, raw_client(to.port) as client:
        for _ in range(30):
            await client.send(GET)
            assert [answer.status for answer in await client.responses([b"GET"])] == [200]
            client.received = b""
            to.process.process.send_signal(signal.SIGSTOP)
            try:
                await client.send(data)
                ended.set()
                await gone.wait()
            finally:
                to.process.process.send_signal(signal.SIGCONT)
            ended.clear()
            gone.clear()
            statuses += [answer.status for answer in await client.responses([method])]
            client.received = b""
    assert statuses == [200] * 30
