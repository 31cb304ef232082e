"""Nothing of a connection that has closed waits for the collector, so that what a reload freezes does not stay."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
import uvloop

from sidecar.downstream.http1 import ClientConnection
from sidecar.forwarding.exchange import Exchange
from sidecar.forwarding.tunnel import LINGER_SECONDS, Tunnel
from sidecar.runtime import memory
from sidecar.runtime.worker import Worker
from sidecar.transport.link import Link
from sidecar.upstream.http1 import UpstreamConnection
from tests.scenarios.stage import app_routes
from tests.support.proxy import port, running

pytestmark = pytest.mark.process

EACH = 10
LOOKS = 40
"""Two a second, for what ends by itself."""
OURS = (ClientConnection, UpstreamConnection, Link, Exchange, Tunnel)
GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
KINDS = {
    "answered": GET,
    "closed behind the answer": GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    "pipelined": GET * 20,
    "silent": b"",
    "beginning of a head": GET[:20],
    "malformed head": b"GET / HTTP/1.1\r\nHost: app\r\nx y: z\r\n\r\n",
    "malformed beginning": b"GET / HTTP/1.1\r\nHost: app\r\nx y: z\r\n",
    "beginning of a body": b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 50\r\n\r\nhello",
    "malformed chunk": b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
    "beginning of a chunk": b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    "not answered": b"GET /never HTTP/1.1\r\nHost: app\r\n\r\n",
    "not taken": b"GET /large HTTP/1.1\r\nHost: app\r\n\r\n",
    "cut by the upstream": b"GET /cut HTTP/1.1\r\nHost: app\r\n\r\n",
    "malformed answer": b"GET /odd HTTP/1.1\r\nHost: app\r\n\r\n",
    "tunnel": b"GET /up HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
}
ANSWERS = {
    b"/": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"/large": b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000),
    b"/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    b"/odd": b"HTTP/1.1 odd\r\n\r\n",
    b"/up": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
}


class App(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1] if data.startswith(b"GET ") else b""
        if path in ANSWERS:
            self._transport.write(ANSWERS[path])
        if path == b"/cut":
            self._transport.close()


async def visit(worker: Worker, data: bytes) -> socket.socket:
    """A client that has sent this, and whose sidecar has worked on it."""
    loop = asyncio.get_running_loop()
    peer = socket.socket()
    peer.setblocking(False)
    await loop.sock_connect(peer, ("127.0.0.1", port(worker)))
    await loop.sock_sendall(peer, data)
    return peer


async def left(worker: Worker, peers: list[socket.socket]) -> None:
    """All clients have gone, and the sidecar has seen it."""
    for peer in peers:
        peer.close()
    async with asyncio.timeout(100):
        while worker.service.open_connections or worker.service.exchanges:
            worker.service.departed.clear()
            await worker.service.departed.wait()
    worker.assembly.close_all_idle()
    await asyncio.sleep(0.1)


@contextmanager
def no_collector() -> Iterator[None]:
    gc.unfreeze()  # what an earlier test has left may have been frozen, at the latest by this one's start
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> Counter[str]:
    """How many of ours there are, those among it that nobody can reach."""
    gc.unfreeze()
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, OURS))


async def left_over(before: Counter[str]) -> Counter[str]:
    """What is there and was not before. A tunnel's other side is seen out for its idle time; what only the collector
    would take stays for ever."""
    for _ in range(LOOKS):
        await asyncio.sleep(0.5)
        if not (found := alive() - before):
            break
    return found


async def _visited(*, is_frozen: bool) -> Counter[str]:
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", 0)
    routes = app_routes(
        server.sockets[0].getsockname()[1],
        route="timeouts: {idle: 1s}, circuit_breaker: {mode: disabled}",
    )
    async with running(routes) as worker:
        with no_collector():
            before = alive()  # an error among a test's parameters may keep what it was raised through
            peers = [await visit(worker, data) for data in KINDS.values() for _ in range(EACH)]
            await asyncio.sleep(0.2)
            if is_frozen:
                memory.settle_all()  # as a reload does, with all of them in the midst of something
            await left(worker, peers)
            found = await left_over(before)
    server.close()
    return found


@pytest.mark.parametrize("is_frozen", [False, True], ids=["", "frozen"])
def test_nothing_of_a_closed_connection_waits_for_the_collector(is_frozen: bool) -> None:
    assert LINGER_SECONDS > 1.0, "the idle time of the route is what counts"
    assert uvloop.run(_visited(is_frozen=is_frozen)) == Counter()
