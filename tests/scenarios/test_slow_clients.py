"""A slow client holds back its own upstream connection and nobody else's request, and makes no slow call."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.stage import OK, get, post, saying, stage
from tests.support.raw import RawPeer, raw_client, turns

BODY = bytes(12_000)
"""Small enough to come in one read, also where the kernel has little memory left for sockets."""
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


async def test_a_connection_whose_last_answer_is_not_taken_yet_serves_the_next_client() -> None:
    """The answer was whole at the sidecar, and its end was what filled the client's socket."""
    count = 10_000  # 120 MB: far more than the kernel keeps for both ends
    async with stage(saying(LONG)) as to, raw_client(to.port) as slow:
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await slow.send(get() * count)
        answered = -1
        while answered != len(to.requests):
            answered = len(to.requests)
            await turns(100)
        assert answered < count
        assert not to.worker.service.exchanges
        async with asyncio.timeout(5):
            assert (await to.ask()).status == 200
        assert len(to.app.peers) == 1
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]


SLOW_CALLS_TRIP = (
    "circuit_breaker: {minimum_calls: 1, slow_call_duration: 200ms, slow_call_rate_threshold: 50%}"
)
LARGE_BODY = bytes(16 * 1024 * 1024)
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE_BODY) + LARGE_BODY


async def test_a_client_that_takes_its_answer_slowly_makes_no_slow_call() -> None:
    async with stage(saying(LARGE), route=SLOW_CALLS_TRIP) as to, raw_client(to.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(get())
        while not to.requests:
            await turns()
        await asyncio.sleep(2)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.responses([b"GET"]))[0].body) == len(LARGE_BODY)
        await turns(10)
        assert (to.breaker.tally.successful, to.breaker.tally.slow) == (1, 0)


@pytest.mark.parametrize(("thinking", "slow"), [(0.1, 0), (0.3, 1)])
async def test_a_client_that_sends_its_body_slowly_makes_no_slow_call(thinking: float, slow: int) -> None:
    async def script(peer: RawPeer) -> None:
        assert await peer.request() is not None
        await asyncio.sleep(thinking)
        await peer.send(OK)

    async with stage(script, route=SLOW_CALLS_TRIP) as to, raw_client(to.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        for piece in (b"b", b"o", b"d", b"y"):
            await asyncio.sleep(0.5)
            await client.send(piece)
        assert [answer.status for answer in await client.responses([b"POST"])] == [200]
        await turns(10)
        assert (to.breaker.tally.successful, to.breaker.tally.slow) == (1, slow)


async def test_time_in_which_a_client_neither_sends_nor_takes_is_left_out_once() -> None:
    """It takes no more of an answer that came early, and sends the rest of its body meanwhile."""

    async def script(peer: RawPeer) -> None:
        await peer.send(LARGE[:-1])
        assert await peer.request() is not None
        await asyncio.sleep(0.5)
        await peer.send(LARGE[-1:])

    async with stage(script, route=SLOW_CALLS_TRIP) as to, raw_client(to.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
        await asyncio.sleep(0.3)
        await client.send(b"dy")
        await asyncio.sleep(0.1)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.responses([b"POST"]))[0].body) == len(LARGE_BODY)
        await turns(10)
        assert (to.breaker.tally.successful, to.breaker.tally.slow) == (1, 1)


async def test_an_upstream_that_takes_a_body_slowly_makes_a_slow_call() -> None:
    """The client is held back meanwhile: its body comes late for no fault of its own."""

    async def script(peer: RawPeer) -> None:
        await asyncio.sleep(2)
        assert await peer.request() is not None
        await peer.send(OK)

    async with stage(script, route=SLOW_CALLS_TRIP) as to, raw_client(to.port) as client:
        client.writer.write(post(LARGE_BODY))
        assert [answer.status for answer in await client.responses([b"POST"])] == [200]
        await turns(10)
        assert (to.breaker.tally.successful, to.breaker.tally.slow) == (1, 1)
