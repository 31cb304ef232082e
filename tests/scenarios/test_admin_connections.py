"""The admin and probe listeners keep a place for an operator, the kubelet and Prometheus, whoever else connects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from sidecar.admin.events import MAX_READERS
from sidecar.runtime.worker import Worker
from sidecar.serving.connection import HEAD_SECONDS, IDLE_SECONDS
from sidecar.serving.http import MAX_CONNECTIONS, HttpServer
from sidecar.serving.message import Request, Response
from tests.scenarios.operator import operator, serving_by
from tests.scenarios.stage import app_routes
from tests.support.proxy import running
from tests.support.raw import raw_client

NOBODY = app_routes(9)
SERVERS = ["admin", "probes"]
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def server_of(worker: Worker, name: str) -> HttpServer:
    return worker.control.admin.server if name == "admin" else worker.control.probes.server


@contextlib.asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections that have said nothing."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield opened
    finally:
        for _, writer in opened:
            writer.close()


async def answered(port: int) -> bool:
    """Whether a client of its own connection gets its answer."""
    async with raw_client(port) as client:
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await client.read_to_end()
        return client.received.startswith(b"HTTP/1.1 200 ")


async def is_cut(connection: Connection) -> bool:
    """Whether it has ended, at once."""
    try:
        async with asyncio.timeout(0.05):
            return await connection[0].read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("name", SERVERS)
async def test_whoever_holds_every_connection_idle_makes_room_for_who_asks(name: str) -> None:
    async with running(NOBODY) as worker:
        server = server_of(worker, name)
        async with connected(server.port, MAX_CONNECTIONS) as held:
            assert (server.connection_count, server.refused) == (MAX_CONNECTIONS, 0)
            assert await answered(server.port)
            assert [await is_cut(one) for one in (held[0], held[1], held[-1])] == [True, False, False]
            assert (server.connection_count, server.refused) == (MAX_CONNECTIONS - 1, 1)
        refused = f'sidecar_listener_refused_total{{sidecar_listener="{name}"}} 1'
        assert refused in (await operator(worker).send("GET", "/metrics")).body.decode()


@pytest.mark.parametrize("name", SERVERS)
async def test_a_head_that_never_ends_gives_its_place_back(name: str) -> None:
    loop = asyncio.get_running_loop()
    async with running(NOBODY) as worker:
        server = server_of(worker, name)
        async with connected(server.port, 2) as (silent, slow):
            began = loop.time()
            slow[1].write(GET[:-2] + b"X: ")
            while loop.time() - began < HEAD_SECONDS - 1.5:
                slow[1].write(b"x")
                await asyncio.sleep(1.0)
            assert server.connection_count == 2
            assert await silent[0].read() == b""
            with contextlib.suppress(ConnectionError):
                assert await slow[0].read() == b""
            assert loop.time() - began == pytest.approx(HEAD_SECONDS, abs=0.1)
            assert server.connection_count == 0


@pytest.mark.parametrize("name", SERVERS)
async def test_a_connection_may_be_idle_and_its_next_head_may_not_take_long(name: str) -> None:
    loop = asyncio.get_running_loop()
    async with running(NOBODY) as worker:
        server = server_of(worker, name)
        async with connected(server.port, 1) as ((reader, writer),):
            for _ in range(2):
                writer.write(GET)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                while not await is_quiet(reader):
                    pass
                await asyncio.sleep(IDLE_SECONDS - 5.0)
            began = loop.time()
            writer.write(GET[:-1])
            assert await reader.read() == b""
            assert loop.time() - began == pytest.approx(HEAD_SECONDS, abs=0.1)
            assert server.connection_count == 0


async def is_quiet(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.05):
            await reader.read(65536)
            return False
    except TimeoutError:
        return True


async def test_who_takes_no_answer_gives_its_place_back() -> None:
    async with running(NOBODY) as worker:
        server = worker.control.admin.server
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(GET.replace(b"/metrics", b"/openapi.json") * 150)
        await asyncio.sleep(IDLE_SECONDS - 1.0)
        assert server.connection_count == 1
        await asyncio.sleep(2.0)
        assert server.connection_count == 0
        deaf.close()


async def test_where_every_connection_is_at_work_the_next_one_is_closed_and_counted() -> None:
    may_end, started = asyncio.Event(), asyncio.Semaphore(0)

    async def work(_: Request) -> Response:
        started.release()
        await may_end.wait()
        return Response()

    async with serving_by(work) as server, connected(server.port, MAX_CONNECTIONS) as busy:
        for _, writer in busy:
            writer.write(GET)
        for _ in busy:
            await started.acquire()
        async with connected(server.port, 1) as (one,):
            assert await is_cut(one)
        assert (server.connection_count, server.refused) == (MAX_CONNECTIONS, 1)
        may_end.set()
        for reader, _ in busy:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await answered(server.port)


async def test_streams_of_events_do_not_keep_an_operator_out() -> None:
    async with running(NOBODY) as worker, contextlib.AsyncExitStack() as stack:
        hand = operator(worker)
        for _ in range(MAX_READERS):
            await stack.enter_async_context(hand.events())
        idle = await stack.enter_async_context(connected(hand.port, MAX_CONNECTIONS - MAX_READERS))
        await hand.post("/breakers/app/open")
        assert hand.status == 200
        status = await hand.get("/status")
        assert (status["events"]["readers"], status["breakers"]["open_count"]) == (MAX_READERS, 1)
        assert (await hand.send("GET", "/events")).status == 503
        assert (await hand.get("/status"))["events"]["refused"] == 1
        assert not await is_cut(idle[-1])
