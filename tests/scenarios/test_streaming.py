"""Bodies are streamed both ways: what one side does not take, the other side is not asked for."""

from __future__ import annotations

import asyncio

from tests.scenarios.stage import OK, get, saying, stage
from tests.support.raw import RawPeer, raw_client, turns

MIB = 1024 * 1024
BLOCK = bytes(64 * 1024)
TOTAL = 48 * MIB
MOST_UNDER_WAY = 24 * MIB
"""The kernel's buffers of two connections and a little of the sidecar's own; far less than `TOTAL`."""


class Sender:
    """Writes `TOTAL` bytes as fast as they are taken."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_broken = False

    async def run(self, writer: asyncio.StreamWriter) -> None:
        try:
            while self.sent < TOTAL:
                writer.write(BLOCK)
                await writer.drain()
                self.sent += len(BLOCK)
        except ConnectionError:
            self.is_broken = True

    async def stalls(self) -> int:
        """Wait until nothing more is taken; what was sent by then."""
        before = -1
        while before != self.sent:
            before = self.sent
            await turns(100)
        return self.sent


async def take_body(peer: RawPeer) -> int:
    """Take a body of `TOTAL` bytes, without keeping it, behind a head that was read."""
    size = len(peer.rest.partition(b"\r\n\r\n")[2])
    peer.rest = b""
    while size < TOTAL:
        data = await peer.reader.read(MIB)
        assert data, "the body ended early"
        size += len(data)
    return size


async def test_a_client_that_does_not_read_stops_the_upstream() -> None:
    """With a length. Chunks go through `writelines`, which stops nobody in asyncio's own loop of Python 3.12 and
    3.13; the sidecar runs on uvloop, and `tests/process/test_streaming.py` sends chunks through it."""
    sender = Sender()

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        await sender.run(peer.writer)
        await peer.read_some()

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(get())
        assert await sender.stalls() < MOST_UNDER_WAY
        await client.reader.readuntil(b"\r\n\r\n")
        size = 0
        while size < TOTAL:
            data = await client.reader.read(MIB)
            assert data
            size += len(data)
        assert (size, sender.sent) == (TOTAL, TOTAL)


async def test_an_upstream_that_does_not_read_stops_the_client() -> None:
    sender = Sender()
    may_read = asyncio.Event()
    size = 0

    async def script(peer: RawPeer) -> None:
        nonlocal size
        await peer.head()
        await may_read.wait()
        size = await take_body(peer)
        await peer.send(OK)
        await peer.read_some()

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        sending = asyncio.create_task(sender.run(client.writer))
        assert await sender.stalls() < MOST_UNDER_WAY
        may_read.set()
        await sending
        (response,) = await client.responses([b"PUT"])
        assert (response.status, response.body, size) == (200, b"ok", TOTAL)


async def test_a_request_body_waits_for_its_connection_in_a_bounded_place() -> None:
    sender = Sender()

    async def script(peer: RawPeer) -> None:
        while True:
            await peer.head()
            if not peer.rest:
                return
            if peer.rest.startswith(b"GET"):
                peer.rest = b""
                await first_may_end.wait()
            else:
                await take_body(peer)
            await peer.send(OK)

    first_may_end = asyncio.Event()
    async with (
        stage(script, upstream="limits: {max_connections: 1}") as to,
        raw_client(to.port) as first,
        raw_client(to.port) as second,
    ):
        await first.send(get())
        while not to.app.received:
            await turns()
        await second.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        sending = asyncio.create_task(sender.run(second.writer))
        assert await sender.stalls() < MOST_UNDER_WAY
        first_may_end.set()
        await sending
        assert [answer.status for answer in await second.responses([b"PUT"])] == [200]
        assert [answer.status for answer in await first.responses([b"GET"])] == [200]


async def test_an_answer_begins_before_the_request_has_ended() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.send(b"5\r\nearly\r\n")
        while not peer.rest.endswith(b"0\r\n\r\n"):
            await peer.read_some()
        peer.rest = b""
        await peer.send(b"4\r\nlate\r\n0\r\n\r\n")
        await peer.read_some()

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nup\r\n")
        while b"early" not in client.received:
            await client.read_some()
        assert b"late" not in client.received
        await client.send(b"0\r\n\r\n")
        (response,) = await client.responses([b"PUT"])
        assert response.body == b"earlylate"


async def test_each_piece_of_an_answer_goes_on_at_once() -> None:
    step = asyncio.Semaphore(0)

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        for piece in (b"a", b"b", b"c"):
            await step.acquire()
            await peer.send(piece)
        await peer.read_some()

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(get())
        while b"\r\n\r\n" not in client.received:
            await client.read_some()
        for piece in (b"\r\n\r\na", b"ab", b"bc"):
            step.release()
            await client.read_some()
            assert client.received.endswith(piece)


async def test_a_body_of_many_small_chunks_arrives_whole() -> None:
    pieces = 20_000
    body = b"1\r\nx\r\n" * pieces + b"0\r\n\r\n"
    async with stage(saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)) as to:
        async with raw_client(to.port) as client:
            await client.send(get(b"/", b"Connection: close"))
            await client.read_to_end()
            (response,) = await client.responses([b"GET"])
        assert response.body == b"x" * pieces
