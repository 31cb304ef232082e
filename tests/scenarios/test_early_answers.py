"""An upstream that answers before it has read the request, and closes: its answer is what the client gets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest

from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from sidecar.upstream.http1 import UpstreamConnection
from tests.scenarios.stage import app_routes
from tests.support.clean import assert_clean
from tests.support.proxy import port, running
from tests.support.raw import RawClient, raw_client, turns

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"


@dataclass
class Upload:
    """A sidecar between a client that has begun to upload, and an app that has accepted and reads nothing."""

    worker: Worker
    client: RawClient
    app: socket.socket
    server: socket.socket


@asynccontextmanager
async def upload(request: bytes = HEAD + b"unread") -> AsyncIterator[Upload]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with running(app_routes(server.getsockname()[1])) as worker, raw_client(port(worker)) as client:
            await client.send(request)
            app, _ = await asyncio.get_running_loop().sock_accept(server)
            with app:
                await turns(10)
                yield Upload(worker, client, app, server)
            client.writer.close()
            await assert_clean(worker)


@pytest.mark.parametrize("answer_bytes", [4, 30_000])
async def test_an_answer_is_read_though_its_upstream_resets_what_is_still_sent(answer_bytes: int) -> None:
    """The reset is noticed by the next write, before anything that came ahead of it was read."""
    answer = b"HTTP/1.1 401 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % answer_bytes
    async with upload() as to:
        to.client.writer.write(b"more")  # the sidecar passes this on before it reads the answer
        to.app.setblocking(True)
        to.app.sendall(answer + bytes(answer_bytes))
        to.app.close()  # with bytes unread, so that the kernel sends a reset
        (response,) = await to.client.responses([b"POST"])
        assert (response.status, len(response.body), response.is_cut) == (401, answer_bytes, False)
        breaker = to.worker.assembly.breakers["app", "app"]
        assert breaker.state is State.CLOSED
        assert breaker.numbers(asyncio.get_running_loop().time()).failed == 0


@pytest.mark.parametrize("rest", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_reset_without_a_whole_answer_is_a_failure(rest: bytes) -> None:
    async with upload() as to:
        to.client.writer.write(b"more")
        to.app.sendall(rest)
        to.app.close()
        await to.client.read_to_end()
        assert to.client.received.startswith(b"HTTP/1.1 %d" % (200 if rest else 502))
        breaker = to.worker.assembly.breakers["app", "app"]
        assert breaker.numbers(asyncio.get_running_loop().time()).failed == 1


async def test_a_connection_that_still_holds_the_request_serves_no_other() -> None:
    """The upstream answered and stays, but reads no more: what came next would pile up behind, without an end."""
    loop = asyncio.get_running_loop()
    async with upload(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") as to:
        (exchange,) = to.worker.service.exchanges
        connection = cast(UpstreamConnection, exchange.attempts[0]._lease)
        while not connection.unsent_bytes:
            await to.client.send(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            await turns(10)
        assert not connection.is_write_paused
        await to.client.send(b"20000\r\n" + bytes(0x20000) + b"\r\n0\r\n\r\n")
        while exchange.body is None or not exchange.body.is_complete:
            await turns()
        assert connection.is_write_paused
        to.app.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert [answer.status for answer in await to.client.responses([b"POST"])] == [200]
        async with raw_client(port(to.worker)) as other:
            await other.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            fresh, _ = await loop.sock_accept(to.server)
            assert (await loop.sock_recv(fresh, 4096)).startswith(b"GET / ")
            fresh.sendall(b"HTTP/1.1 204 X\r\n\r\n")
            assert [answer.status for answer in await other.responses([b"GET"])] == [204]
        fresh.close()
