"""`max_connection_age`: an old connection ends with its next answer, also where a reload has set it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.downstream.connected import AGE_SPREAD, LEAST_AGE
from sidecar.runtime.worker import Worker
from tests.support.http2_ends import Stream, http2_client
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, Script, raw_client, raw_upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
PSEUDO = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"app"))
DEFAULT_SECONDS = 600.0
"""Of `max_connection_age`."""
STEPS = 30
"""Requests in the time that a connection may last: so often that no other limit ends it."""


LONGER = 1.5
"""Times the age: by then it should have ended."""
ANSWER_SECONDS = 2.0
"""Of one that comes slowly: longer than an old connection that is idle is kept."""


async def answering(peer: RawPeer) -> None:
    while await peer.request() is not None:
        await peer.send(OK)


async def answering_slowly(peer: RawPeer) -> None:
    """The head of each answer comes long before its body."""
    while await peer.request() is not None:
        await peer.send(OK[:-2])
        await asyncio.sleep(ANSWER_SECONDS)
        await peer.send(OK[-2:])


@asynccontextmanager
async def aging(inbound: str = "", script: Script = answering) -> AsyncIterator[Worker]:
    header = HEADER.replace("  inbound: {", f"  inbound: {{{inbound}")
    async with raw_upstream(script) as app:
        routes = f"upstreams: {{app: {{endpoints: ['127.0.0.1:{app.port}']}}}}\nroutes: [{{name: a, upstream: app}}]"
        async with running(routes, header) as worker:
            yield worker


async def until_the_last_answer(worker: Worker, age: float, pause: float | None = None) -> float | None:
    """Ask again and again, `pause` seconds behind each answer, until one says that it is the last, or the connection
    ended between two: after how many seconds, or None if neither comes for `LONGER` than that."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with raw_client(port(worker)) as client:
        while loop.time() - began < LONGER * age:
            client.received = b""
            await client.send(GET)
            responses = await client.responses([b"GET"])
            assert [one.status for one in responses] == [200] * len(responses)
            if not responses or responses[0].value(b"connection") == b"close":
                await client.read_to_end()
                return loop.time() - began
            await asyncio.sleep(age / STEPS if pause is None else pause)
    return None


async def until_goaway(worker: Worker, age: float) -> float | None:
    """The same in HTTP/2, until the server asks for no more streams; what was asked meanwhile is answered."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with http2_client(port(worker)) as client:
        while loop.time() - began < LONGER * age:
            if not client.codec.can_open():
                return loop.time() - began
            stream = Stream(client, client.codec.open_stream(PSEUDO, (), is_end=True))
            client.flush()
            assert await stream.head() == 200
            client.codec.release(stream._stream)
            await asyncio.sleep(age / STEPS)
    return None


@pytest.mark.parametrize("is_http2", [False, True])
@pytest.mark.parametrize(("setting", "age"), [("", DEFAULT_SECONDS), ("max_connection_age: 2m, ", 120.0)])
async def test_a_connection_ends_with_an_answer_within_a_tenth_of_its_age(
    setting: str, age: float, *, is_http2: bool
) -> None:
    async with aging(setting) as worker:
        seconds = await (until_goaway if is_http2 else until_the_last_answer)(worker, age)
    assert seconds is not None
    assert seconds >= LEAST_AGE * age
    assert seconds <= (LEAST_AGE + AGE_SPREAD) * age + age / STEPS + 1


async def test_those_that_ask_nothing_are_closed_as_well() -> None:
    async with aging("max_connection_age: 60s, ") as worker:
        streams = [await asyncio.open_connection("127.0.0.1", port(worker)) for _ in range(20)]
        await until_the_last_answer(worker, 60.0)
        for reader, writer in streams:
            assert await reader.read() == b""
            writer.close()


async def test_a_connection_that_is_never_idle_ends_with_an_answer_that_comes_in_pieces() -> None:
    async with aging("max_connection_age: 60s, ", answering_slowly) as worker:
        seconds = await until_the_last_answer(worker, 60.0, pause=0.0)
    assert seconds is not None
    assert seconds <= (LEAST_AGE + AGE_SPREAD) * 60.0 + 3 * ANSWER_SECONDS


@pytest.mark.parametrize("is_http2", [False, True])
async def test_with_off_a_connection_may_become_as_old_as_it_likes(*, is_http2: bool) -> None:
    async with aging("max_connection_age: off, ") as worker:
        wait = until_goaway if is_http2 else until_the_last_answer
        assert await wait(worker, DEFAULT_SECONDS) is None
