"""A WebSocket through real processes, between aiohttp's client and aiohttp's server.

Both speak HTTP/1.1. Of two sidecars the first has an upgrade from its client and an extended CONNECT to its upstream,
the second one the reverse; of three, the one in the middle has HTTP/2 on both sides.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web

from tests.process.setting import served
from tests.process.test_http2_clients import H2, PATIENCE_SECONDS, run, server
from tests.support.ports import free_ports

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

MOST_HOPS = 3


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT and message.data == "end":
            await socket.close(code=4001, message=b"as you wish")
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


HOPS = pytest.mark.parametrize("hops", range(1, MOST_HOPS + 1))


async def in_a_row(stack: AsyncExitStack, folder: Path, app: int, hops: int, upstream: str = "") -> list[int]:
    """Start so many sidecars, each in front of the one before; the ports of each, that of the app's first.

    `upstream`: keys for the app; the others are reached by HTTP/2.
    """
    ports: list[int] = []
    for number in range(hops):
        place = folder / str(number)
        place.mkdir()
        to = await stack.enter_async_context(served(place, app, upstream=upstream))
        ports.append(to.port)
        app, upstream = to.port, H2
    return ports


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def row(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[int]]:
    """The ports by which an echo is reached through one sidecar, two and three."""
    async with echoing() as app, AsyncExitStack() as stack:
        yield await in_a_row(stack, tmp_path_factory.mktemp("row"), app, MOST_HOPS)


@asynccontextmanager
async def talking(port: int) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket by the sidecar on that port."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/chat", protocols=("chat",), max_msg_size=0) as socket,
    ):
        yield socket


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/chat", echo)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@HOPS
async def test_messages_of_every_kind_and_size_come_back(row: list[int], hops: int) -> None:
    async with talking(row[hops - 1]) as socket:
        assert socket.protocol == "chat"
        for text in ("", "hello", "é" * 70_000):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=100) == text
        large = bytes(range(256)) * 4096 * 8
        await socket.send_bytes(large)
        assert await socket.receive_bytes(timeout=100) == large
        for number in range(500):
            await socket.send_str(str(number))
        assert [await socket.receive_str(timeout=100) for _ in range(500)] == [
            str(number) for number in range(500)
        ]


@HOPS
async def test_the_closing_handshake_passes_with_its_code(row: list[int], hops: int) -> None:
    async with talking(row[hops - 1]) as socket:
        await socket.send_str("end")
        message = await socket.receive(timeout=100)
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4001, "as you wish")


async def test_it_outlives_the_deadline_of_its_handshake(tmp_path: Path) -> None:
    async with (
        echoing() as app,
        served(tmp_path, app, route="timeouts: {request: 3s}") as to,
        talking(to.port) as socket,
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < 3.2:
            await socket.send_str("still there")
            assert await socket.receive_str(timeout=100) == "still there"
            await asyncio.sleep(0.2)


@HOPS
async def test_a_handshake_that_the_app_refuses_is_an_ordinary_answer(row: list[int], hops: int) -> None:
    port = row[hops - 1]
    async with talking(port), aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"http://127.0.0.1:{port}/elsewhere")
        assert caught.value.status == 404


NODE_SERVER = r"""
const http2 = require('http2');
const server = http2.createServer({settings: {enableConnectProtocol: true}});
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':method'] !== 'CONNECT' || headers[':protocol'] !== 'websocket') {
    stream.respond({':status': 400}, {endStream: true});
    return;
  }
  stream.respond({':status': 200, 'sec-websocket-protocol': headers['sec-websocket-protocol']});
  stream.pipe(stream);
});
server.listen(Number(process.argv[1]), '127.0.0.1');
"""
"""Sends back what comes, whatever it is, and then its end."""
NODE_CLIENT = r"""
const http2 = require('http2');
const crypto = require('crypto');
const session = http2.connect('http://127.0.0.1:' + process.argv[1]);
const size = Number(process.argv[2]);
const told = {size: 0};
session.on('remoteSettings', (settings) => {
  told.setting = settings.enableConnectProtocol;
  const stream = session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/chat',
    'sec-websocket-version': '13', 'sec-websocket-protocol': 'chat',
  }, {endStream: false});
  const hash = crypto.createHash('sha256');
  stream.on('response', (headers) => {
    told.status = headers[':status'];
    told.protocol = headers['sec-websocket-protocol'];
    stream.end(Buffer.alloc(size, 'ab'));
  });
  stream.on('data', (data) => { told.size += data.length; hash.update(data); });
  stream.on('end', () => { told.hash = hash.digest('hex'); });
  stream.on('error', (error) => { told.error = String(error); });
  stream.on('close', () => { console.log(JSON.stringify(told)); session.close(); });
});
"""


async def test_node_gets_a_tunnel_to_node_and_every_byte_back(tmp_path: Path) -> None:
    """Through one sidecar, and through two."""
    size = 20_000_000
    digest = hashlib.sha256(b"ab" * (size // 2)).hexdigest()
    [app] = free_ports(1)
    async with server("node", app, "-e", NODE_SERVER, str(app)), AsyncExitStack() as stack:
        for port in await in_a_row(stack, tmp_path, app, 2, H2):
            async with asyncio.timeout(PATIENCE_SECONDS):
                told = json.loads(await run("node", "-e", NODE_CLIENT, str(port), str(size)))
            assert told == {
                "size": size,
                "setting": True,
                "status": 200,
                "protocol": "chat",
                "hash": digest,
            }
