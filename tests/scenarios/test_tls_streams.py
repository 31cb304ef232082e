"""What streams through a listener with TLS: bodies both ways, slow readers, tunnels, broken answers, a drain."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from pathlib import Path

import pytest

from tests.scenarios.stage import saying, stage
from tests.scenarios.test_tls import listening
from tests.support.authority import Authority
from tests.support.raw import RawPeer
from tests.support.tls_client import Closed, TlsClient, tls_client

SIZE = 3 * 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def content(size: int = SIZE) -> bytes:
    """No two pieces of it are alike."""
    return b"".join(hashlib.sha256(number.to_bytes(4)).digest() for number in range(size // 32))


async def send_back(peer: RawPeer) -> None:
    """What comes goes back at once, as it comes."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await peer.reader.read(65_536)
    body = head.partition(b"\r\n\r\n")[2]
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
    left = SIZE
    while body:
        left -= len(body)
        await peer.send(body)
        body = await peer.reader.read(65_536) if left else b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_large_bodies_pass_both_ways_at_once_and_whole(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    body = content()
    context = authority.client()
    context.maximum_version = version
    async with (
        stage(send_back, header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, context) as client,
    ):
        head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % SIZE

        async def upload() -> None:
            await client.send(head)
            for start in range(0, SIZE, 50_000):
                await client.send(body[start : start + 50_000])

        sending = asyncio.create_task(upload())
        answer = await client.answer(b"POST")
        await sending
        assert (answer.status, answer.body) == (200, body)


async def test_slow_reader_holds_the_upstream_back_and_gets_all(authority: Authority) -> None:
    body = content(16 * 1024 * 1024)
    sent = 0

    async def script(peer: RawPeer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 65_536):
            await peer.send(body[start : start + 65_536])
            sent = start

    async with (
        stage(script, header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        before, now = -1, 0
        while before != now:  # until nothing moves any more
            before, now = now, sent
            await asyncio.sleep(1.0)
        assert now < len(body) // 2
        assert to.worker.service.memory.used_bytes < 2 * 1024 * 1024
        answer = await client.answer()
        assert answer.body == body


async def test_tunnel_passes_bytes_both_ways(authority: Authority) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        while data := await peer.reader.read(65_536):
            await peer.send(data.upper())

    async with (
        stage(script, header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        got = b""
        while b"\r\n\r\n" not in got:
            got += await client.read()
        assert got.startswith(b"HTTP/1.1 101 ")
        await client.send(b"hello")
        assert await client.read() == b"HELLO"


async def read_to_the_end_of_tls(client: TlsClient) -> None:
    while await client.read():
        pass


async def test_answer_that_breaks_off_has_no_end_of_tls(authority: Authority) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\nhalf")

    async with (
        stage(script, header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.send(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
        with pytest.raises(Closed):
            await read_to_the_end_of_tls(client)


async def test_pipelined_requests_are_answered_in_turn(authority: Authority) -> None:
    async with (
        stage(saying(OK), header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" * 50)
        got = b""
        while got.count(b"200 OK") < 50:
            got += await client.read()
        assert len(to.requests) == 50


async def test_request_that_comes_with_the_end_of_the_handshake_is_answered(authority: Authority) -> None:
    async with (
        stage(saying(OK), header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client(), is_shaken=False) as client,
    ):
        client.writer.write(client.first_flight())
        await client.handshake_and_send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_drain_serves_who_is_in_a_handshake_once(authority: Authority) -> None:
    async with (
        stage(saying(OK), header=listening(authority.pair("a.test"))) as to,
        tls_client(to.port, authority.client(), is_shaken=False) as client,
    ):
        client.writer.write(client.first_flight())
        while not to.worker.listeners["inbound"].connections():  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.01)
        to.worker.listeners["inbound"].stop_accepting()
        await client.handshake()
        answer = await client.ask()
        assert answer.status == 200
        assert answer.value(b"connection") == b"close"
        assert await client.read() == b""
