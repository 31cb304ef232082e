"""Many connections that hold memory and do not go on stay within one budget, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from sidecar.core.memory_budget import CONNECTION_BYTES, Held
from sidecar.downstream.accept_queues import ACCEPTS_A_TURN
from sidecar.forwarding.visitors import MOST_VISITORS
from sidecar.runtime import file_limits
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import app_routes
from tests.support.proxy import HEADER, port, running

CONNECTIONS = 500
MIB = 1024 * 1024
LIMIT = 8 * MIB
GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"GET / HTTP/1.1\r\nHost: app\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 990) for n in range(60))
WHOLE = HEAD.replace(b"GET / ", b"GET /never ") + b"\r\n"
LARGE = bytes(2 * MIB)
NO_BREAKER = "circuit_breaker: {mode: disabled}"
"""Requests that are never answered are none of its business here."""
ONE_TURN = ACCEPTS_A_TURN * 256 * 1024
"""What the connections that are accepted in one turn of the loop may bring with one read each."""
OK_LINE = b"HTTP/1.1 200 OK"


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """Each connection takes up to four in this one process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    file_limits.raised()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class App(asyncio.Protocol):
    """`/` is answered, `/large` with 2 MiB, `/never` never."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET / "):
            self._transport.write(OK)
        elif data.startswith(b"GET /large"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE) + LARGE)


@asynccontextmanager
async def attacked() -> AsyncIterator[Worker]:
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", 0)
    limits = "limits: {max_connections: 2000, max_pending: 2000, max_requests: 2000}"
    header = f"{HEADER}limits: {{memory: {LIMIT // MIB}MiB}}\n"
    try:
        async with running(
            app_routes(server.sockets[0].getsockname()[1], upstream=limits, route=NO_BREAKER), header
        ) as worker:
            yield worker
    finally:
        server.close()


class Crowd:
    """Clients that send something and do no more, until they leave together."""

    def __init__(self, worker: Worker) -> None:
        self._to = port(worker)
        self._memory = worker.service.memory
        self._open: list[socket.socket] = []
        self.most = 0
        """Of the budget, at any time that was looked at."""

    async def send(self, data: bytes, count: int = CONNECTIONS) -> None:
        for _ in range(count):
            peer = socket.create_connection(("127.0.0.1", self._to))
            self._open.append(peer)
            peer.setblocking(False)
            peer.send(data)
            await asyncio.sleep(0)
            self.most = max(self.most, self._memory.used_bytes)
        await self._until(lambda: not self._memory.is_over)

    async def send_whole(self, data: bytes, count: int) -> None:
        """One after the other; who is not let in does not get rid of it."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            peer = socket.create_connection(("127.0.0.1", self._to))
            self._open.append(peer)
            peer.setblocking(False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await loop.sock_sendall(peer, data)
            await asyncio.sleep(0.01)

    def close(self) -> None:
        for peer in self._open:
            peer.close()
        self._open.clear()

    async def leave(self) -> None:
        self.close()
        await self._until(lambda: not self._memory.connections)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """All that was sent has been read, and whoever is to go has gone; soon, or when its time is up."""
        for _ in range(200):
            await asyncio.sleep(0.01)
            self.most = max(self.most, self._memory.used_bytes)
            if is_so():
                return
        await asyncio.sleep(
            60.0
        )  # behind what is not read the end of a client is not seen: its request times out


async def served(worker: Worker) -> bytes:
    """The status line of one honest request on a connection of its own."""
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setblocking(False)
        await loop.sock_connect(peer, ("127.0.0.1", port(worker)))
        await loop.sock_sendall(peer, GET)
        return (await loop.sock_recv(peer, 1000)).partition(b"\r\n")[0]


STATES = {
    "head": (HEAD, Held.HEAD),
    "reader": (b"GET /large HTTP/1.1\r\nHost: app\r\n\r\n", Held.ANSWER),
    "pipeline": (b"GET /never HTTP/1.1\r\nHost: app\r\n\r\n" + GET * 2000, Held.PIPELINE),
}


@pytest.mark.parametrize("name", STATES)
async def test_five_hundred_in_a_bad_state_stay_within_the_budget_and_others_are_served(name: str) -> None:
    data, held = STATES[name]
    async with attacked() as worker:
        memory = worker.service.memory
        assert memory.limit_bytes == LIMIT
        crowd = Crowd(worker)
        await crowd.send(data)
        assert await served(worker) == OK_LINE
        assert memory.used_bytes <= LIMIT
        assert crowd.most <= LIMIT + ONE_TURN, "what one turn brings comes on top, until it is closed"
        assert memory.closed[held] > 0
        assert sum(memory.closed.values()) == memory.closed[held]
        await crowd.leave()
        worker.assembly.close_all_idle()
        await asyncio.sleep(0.01)
        assert memory.used_bytes == CONNECTION_BYTES * memory.connections


async def test_idle_connections_are_closed_when_they_are_too_many() -> None:
    async with attacked() as worker:
        memory = worker.service.memory
        memory.resize(MIB)
        crowd = Crowd(worker)
        await crowd.send(GET, MIB // CONNECTION_BYTES + 100)
        assert memory.closed[Held.IDLE] > 0
        assert memory.used_bytes <= MIB
        assert await served(worker) == OK_LINE
        await crowd.leave()


async def test_a_request_that_is_whole_and_not_answered_is_never_closed_for_it() -> None:
    async with attacked() as worker:
        memory = worker.service.memory
        waiting = Crowd(worker)
        await waiting.send(WHOLE, 1)
        crowd = Crowd(worker)
        await crowd.send(HEAD)
        assert memory.closed[Held.HEAD] > 0
        assert len(worker.service.exchanges) == 1
        await waiting.leave()
        await crowd.leave()


async def asked(worker: Worker, data: bytes) -> bytes:
    """All that is answered to `data` on a connection of its own, until that ends."""
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setblocking(False)
        await loop.sock_connect(peer, ("127.0.0.1", port(worker)))
        await loop.sock_sendall(peer, data)
        answer = b""
        while more := await loop.sock_recv(peer, 4096):
            answer += more
        return answer


async def test_where_nobody_can_be_closed_who_comes_is_refused_at_once_until_somebody_goes() -> None:
    async with attacked() as worker:
        memory = worker.service.memory
        crowd = Crowd(worker)
        await crowd.send_whole(WHOLE, 120)
        assert memory.has_none_left
        begun = len(worker.service.exchanges)
        assert LIMIT // (2 * len(WHOLE)) < begun < 120
        refused = memory.refused
        for request in (GET, b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabc"):
            answer = await asked(worker, request)
            assert answer.startswith(b"HTTP/1.1 503 "), answer
            assert b"\r\nRetry-After: 1\r\n" in answer
            assert b"\r\nConnection: close\r\n" in answer
        assert memory.refused == refused + 2
        assert len(worker.service.exchanges) == begun, "those that began go on"
        await crowd.leave()
        assert await served(worker) == OK_LINE
        assert not memory.is_over


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_visitors_who_say_nothing_keep_their_places_from_others_for_a_moment_only(data: bytes) -> None:
    async with attacked() as worker:
        memory = worker.service.memory
        crowd = Crowd(worker)
        await crowd.send_whole(WHOLE, 120)
        begun = worker.listeners["inbound"].connection_count
        silent = Crowd(worker)
        await silent.send_whole(data, 2 * MOST_VISITORS)
        assert worker.listeners["inbound"].connection_count <= begun + MOST_VISITORS
        assert (await asked(worker, GET)).startswith(b"HTTP/1.1 503 ")
        assert memory.has_none_left
        silent.close()
        await crowd.leave()
        assert await served(worker) == OK_LINE


async def test_idle_upstream_connections_go_before_any_client() -> None:
    async with attacked() as worker:
        memory = worker.service.memory
        assert await served(worker) == OK_LINE
        assert worker.assembly.clusters["app"].connections == 1
        crowd = Crowd(worker)
        await crowd.send(HEAD, 200)
        assert worker.assembly.clusters["app"].connections == 0
        assert memory.used_bytes <= LIMIT
        await crowd.leave()
