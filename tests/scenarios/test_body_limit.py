"""A request's body that is longer than its route takes: refused as soon as that is known, in either version."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import ResponseReceived
from tests.scenarios.acting import VERSIONS, acting
from tests.scenarios.stage import OK, hang, saying
from tests.support.raw import RawPeer, raw_client

ROUTE = "- {name: app, upstream: app, max_request_body: 1KiB}"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(size: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, b"x" * size)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("size", "status"), [(1, 200), (1024, 200), (1025, 413), (200_000, 413)])
async def test_the_limit_is_the_last_size_that_is_taken(size: int, status: int, version: str) -> None:
    async with acting(ROUTE, saying(OK)) as to:
        reply = await to.ask(version, b"/", method=b"POST", body=b"x" * size)
        assert reply.status == status
        if status == 413:
            assert b"error=http_request_error" in reply.fields[b"proxy-status"]


async def test_a_length_that_is_too_long_is_refused_before_the_body_comes() -> None:
    async with acting(ROUTE) as to, raw_client(to.port) as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\nExpect: 100-continue\r\n\r\n"
        )
        (response,) = await client.responses([b"POST"])
        assert (response.status, response.interims) == (413, [])
        assert to.ended.told[0][3:] == (0, "body_too_large")


@pytest.mark.parametrize("sizes", [[1024], [1000, 24], [1] * 1024])
async def test_chunks_up_to_the_limit_pass(sizes: list[int]) -> None:
    async with acting(ROUTE, saying(OK)) as to, raw_client(to.port) as client:
        await client.send(CHUNKED + b"".join(map(chunk, sizes)) + b"0\r\n\r\n")
        (response,) = await client.responses([b"POST"])
        assert (response.status, len(to.requests[0].body)) == (200, 1024)


@pytest.mark.parametrize("pieces", [1, 5])
async def test_chunks_are_counted_as_they_come_and_the_breaker_hears_nothing(pieces: int) -> None:
    async with acting(ROUTE, hang) as to, raw_client(to.port) as client:
        await client.send(CHUNKED)
        for _ in range(pieces):
            await client.send(chunk(1100 // pieces))
        (response,) = await client.responses([b"POST"])
        assert response.status == 413
        tally = to.worker.assembly.breakers["app", "app"].tally
        assert (tally.failed, tally.successful) == (0, 0)


async def test_a_stream_of_http_2_is_refused_while_it_comes_and_the_others_go_on() -> None:
    pseudo = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a"))
    async with acting(ROUTE, RawPeer.echo) as to, raw_client(to.port) as client:
        codec = Connection(Role.CLIENT)
        long, short = codec.open_stream(pseudo, ()), codec.open_stream(pseudo, ())
        codec.send_data(long, b"x" * 600)
        codec.send_data(short, b"x" * 600)
        codec.end(short)
        await client.send(codec.take())
        found: dict[int, int] = {}
        read = 0
        for step in range(100):
            if step == 2:
                codec.send_data(long, b"x" * 600)
                await client.send(codec.take())
            if len(client.received) == read:
                await asyncio.wait_for(client.read_some(), 60.0) if step > 2 else None
            data, read = client.received[read:], len(client.received)
            for event in codec.receive(data, 0.0):
                if isinstance(event, ResponseReceived):
                    found[1 if event.stream is long else 2] = event.status
            if len(found) == 2:
                break
        assert found == {1: 413, 2: 200}


async def test_an_answer_that_has_begun_is_cut_short() -> None:
    async def eager(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        while await peer.read_some():
            pass

    async with acting(ROUTE, eager) as to, raw_client(to.port) as client:
        await client.send(CHUNKED + chunk(10))
        while b"abc" not in client.received:
            await client.read_some()
        await client.send(chunk(2000))
        await client.read_to_end()
        (response,) = await client.responses([b"POST"])
        assert (response.status, response.is_cut) == (200, True)
