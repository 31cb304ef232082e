"""An upstream that answers before it has read the request, and closes: its answer is what the client gets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sidecar.core.transition import State
from tests.scenarios.stage import app_routes
from tests.support.clean import assert_clean
from tests.support.proxy import port, running
from tests.support.raw import raw_client, turns

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"


@pytest.mark.parametrize("answer_bytes", [4, 30_000])
async def test_an_answer_is_read_though_its_upstream_resets_what_is_still_sent(answer_bytes: int) -> None:
    """The reset is noticed by the next write, before anything that came ahead of it was read."""
    answer = b"HTTP/1.1 401 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % answer_bytes
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with running(app_routes(server.getsockname()[1])) as worker, raw_client(port(worker)) as client:
            await client.send(HEAD + b"unread")
            app, _ = await loop.sock_accept(server)
            await turns(10)
            client.writer.write(b"more")  # the sidecar passes this on before it reads the answer
            app.setblocking(True)
            app.sendall(answer + bytes(answer_bytes))
            app.close()  # with bytes unread, so that the kernel sends a reset
            (response,) = await client.responses([b"POST"])
            assert (response.status, len(response.body), response.is_cut) == (401, answer_bytes, False)
            assert worker.assembly.breakers["app", "app"].state is State.CLOSED
            assert worker.assembly.breakers["app", "app"].numbers(loop.time()).failed == 0
            client.writer.close()
            await assert_clean(worker)


@pytest.mark.parametrize("rest", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_reset_without_a_whole_answer_is_a_failure(rest: bytes) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with running(app_routes(server.getsockname()[1])) as worker, raw_client(port(worker)) as client:
            await client.send(HEAD + b"unread")
            app, _ = await loop.sock_accept(server)
            await turns(10)
            client.writer.write(b"more")
            app.sendall(rest)
            app.close()
            await client.read_to_end()
            assert client.received.startswith(b"HTTP/1.1 %d" % (200 if rest else 502))
            assert worker.assembly.breakers["app", "app"].numbers(loop.time()).failed == 1
            client.writer.close()
            await assert_clean(worker)
