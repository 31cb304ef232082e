"""`timeouts.head` bounds the time until an answer's head, and nothing behind it."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.stage import get, hang, stage
from tests.support.raw import RawPeer, raw_client

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha"


async def test_an_upstream_without_a_head_in_time_is_answered_504() -> None:
    loop = asyncio.get_running_loop()
    async with stage(hang, route="timeouts: {request: 10s, head: 500ms}") as to:
        began = loop.time()
        answer = await to.ask()
        assert answer.status == 504
        assert b"no head of an answer within 0.5 s" in (answer.value(b"proxy-status") or b"")
        assert loop.time() - began == pytest.approx(0.5, abs=0.06)


async def test_a_body_behind_a_head_in_time_has_the_time_of_the_whole_request() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(HALF)
        await asyncio.sleep(3)
        await peer.send(b"lf")

    async with (
        stage(script, route="timeouts: {request: 10s, head: 500ms}") as to,
        raw_client(to.port) as client,
    ):
        await client.send(get())
        (answer,) = await client.responses([b"GET"])
        assert (answer.status, answer.body) == (200, b"half")
