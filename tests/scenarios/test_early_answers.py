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


async def test_a_connection_that_still_holds_the_request_serves_no_other() -> None:
    """The upstream answered and stays, but reads no more: what came next would pile up behind, without an end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with running(app_routes(server.getsockname()[1])) as worker, raw_client(port(worker)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            app, _ = await loop.sock_accept(server)
            await turns(10)
            (exchange,) = worker.service.exchanges
            connection = exchange.attempts[0].connection
            assert connection is not None
            while not connection.transport.get_write_buffer_size():
                await client.send(b"4000\r\n" + bytes(0x4000) + b"\r\n")
                await turns(10)
            assert not connection.is_write_paused
            await client.send(b"20000\r\n" + bytes(0x20000) + b"\r\n0\r\n\r\n")
            while exchange.body is None or not exchange.body.is_complete:
                await turns()
                assert connection.is_write_paused
            app.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert [answer.status for answer in await client.responses([b"POST"])] == [200]
            async with raw_client(port(worker)) as other:
                await other.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                fresh, _ = await loop.sock_accept(server)
                assert (await loop.sock_recv(fresh, 4096)).startswith(b"GET / ")
                fresh.sendall(b"HTTP/1.1 204 X\r\n\r\n")
                assert [answer.status for answer in await other.responses([b"GET"])] == [204]
            fresh.close()
            app.close()
            client.writer.close()
            await assert_clean(worker)
