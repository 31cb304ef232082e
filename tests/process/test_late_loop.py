"""A sidecar whose loop is held blames nobody: answers that came in time are answers, and no breaker opens."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.process.setting import served
from tests.support.raw import RawClient, RawPeer, Script, raw_client, raw_upstream

pytestmark = pytest.mark.process

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CALLS = 20


async def status(client: RawClient) -> int:
    """Of its next answer."""
    (answer,) = await client.responses([b"GET"])
    client.received = b""
    return answer.status


def held_back() -> tuple[asyncio.Semaphore, asyncio.Event, Script]:
    """An upstream that says when a request has come, and answers when it is let go."""
    arrived, release = asyncio.Semaphore(0), asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            arrived.release()
            await release.wait()
            await peer.send(OK)

    return arrived, release, script


async def test_answers_that_came_while_it_was_stopped_are_answers(tmp_path: Path) -> None:
    """SIGSTOP for 4.1 s, in which every answer comes and every deadline passes: twice over."""
    arrived, release, script = held_back()
    async with raw_upstream(script) as app, AsyncExitStack() as stack:
        route = "timeouts: {request: 4s}, circuit_breaker: {consecutive_failures: 2, minimum_calls: 4}"
        to = await stack.enter_async_context(served(tmp_path, app.port, route=route))
        clients = [await stack.enter_async_context(raw_client(to.port)) for _ in range(CALLS)]
        for _ in range(2):
            release.clear()
            for client in clients:
                await client.send(GET)
            for _ in range(CALLS):
                await arrived.acquire()
            to.process.process.send_signal(signal.SIGSTOP)
            release.set()
            await asyncio.sleep(4.1)  # the thing that is tested: it lasts longer than the deadlines
            to.process.process.send_signal(signal.SIGCONT)
            statuses = [await status(client) for client in clients]
            assert statuses == [200] * CALLS
        assert await to.metric("sidecar_circuit_breaker_transitions_total") == 0


async def test_a_time_out_in_a_stop_opens_nothing(tmp_path: Path) -> None:
    """The app answers after the stop alone: every call is out of time, and none of them says anything of the app."""
    arrived, release, script = held_back()
    async with raw_upstream(script) as app, AsyncExitStack() as stack:
        route = (
            "timeouts: {request: 4s}, "
            "circuit_breaker: {consecutive_failures: 2, minimum_calls: 4, count_timeout_after: 3800ms}"
        )
        to = await stack.enter_async_context(served(tmp_path, app.port, route=route))
        clients = [await stack.enter_async_context(raw_client(to.port)) for _ in range(CALLS)]
        for client in clients:
            await client.send(GET)
        for _ in range(CALLS):
            await arrived.acquire()
        to.process.process.send_signal(signal.SIGSTOP)
        # The thing that is tested: of their four seconds, hardly any is of a running sidecar.
        await asyncio.sleep(4.1)
        to.process.process.send_signal(signal.SIGCONT)
        statuses = [await status(client) for client in clients]
        release.set()
        assert statuses == [504] * CALLS
        assert (
            await to.metric(
                'sidecar_circuit_breaker_calls_total{sidecar_route="app",sidecar_upstream="app",sid'
            )
            == 0
        )
        assert await to.metric("sidecar_circuit_breaker_transitions_total") == 0


async def test_busy_loops_beside_it_open_nothing(tmp_path: Path) -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(OK)

    async with raw_upstream(script) as app, AsyncExitStack() as stack:
        to = await stack.enter_async_context(served(tmp_path, app.port, route="timeouts: {request: 2s}"))
        client = await stack.enter_async_context(raw_client(to.port))
        busy = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass") for _ in range(4)
        ]
        try:
            for _ in range(300):
                await client.send(GET)
                assert await status(client) == 200
        finally:
            for one in busy:
                one.kill()
                await one.wait()
        assert await to.metric("sidecar_circuit_breaker_transitions_total") == 0
