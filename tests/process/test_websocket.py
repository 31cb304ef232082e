"""A WebSocket through a real process, between aiohttp's client and aiohttp's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.process.setting import Served, served

pytestmark = pytest.mark.process


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


@asynccontextmanager
async def talking(
    folder: Path, route: str = ""
) -> AsyncIterator[tuple[Served, aiohttp.ClientWebSocketResponse]]:
    """A WebSocket to an echo, through a sidecar."""
    app = web.Application()
    app.router.add_get("/chat", echo)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = runner.addresses[0]
    try:
        async with (
            served(folder, address[1], route=route) as to,
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"http://127.0.0.1:{to.port}/chat", protocols=("chat",), max_msg_size=0
            ) as socket,
        ):
            yield to, socket
    finally:
        await runner.cleanup()


async def test_messages_of_every_kind_and_size_come_back(tmp_path: Path) -> None:
    async with talking(tmp_path) as (_, socket):
        assert socket.protocol == "chat"
        for text in ("", "hello", "é" * 70_000):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=10) == text
        large = bytes(range(256)) * 4096 * 8
        await socket.send_bytes(large)
        assert await socket.receive_bytes(timeout=20) == large
        for number in range(500):
            await socket.send_str(str(number))
        assert [await socket.receive_str(timeout=10) for _ in range(500)] == [
            str(number) for number in range(500)
        ]


async def test_the_closing_handshake_passes_with_its_code(tmp_path: Path) -> None:
    async with talking(tmp_path) as (_, socket):
        await socket.send_str("end")
        message = await socket.receive(timeout=10)
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4001, "as you wish")


async def test_it_outlives_the_deadline_of_its_handshake(tmp_path: Path) -> None:
    async with talking(tmp_path, "timeouts: {request: 200ms}") as (_, socket):
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < 0.5:
            await socket.send_str("still there")
            assert await socket.receive_str(timeout=10) == "still there"


async def test_a_handshake_that_the_app_refuses_is_an_ordinary_answer(tmp_path: Path) -> None:
    async with talking(tmp_path) as (to, _), aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"http://127.0.0.1:{to.port}/elsewhere")
        assert caught.value.status == 404
