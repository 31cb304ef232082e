"""A reload that changes what a listener asks of its clients: who came on other terms is served once more at most."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from sidecar.config.load.assembly import load_text
from sidecar.http2.frames import GOAWAY
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import Stage, app_routes, get, saying, stage
from tests.scenarios.test_faults_clocks import until
from tests.scenarios.test_tls import OK, asking, listening
from tests.support.authority import Authority
from tests.support.proxy import HEADER
from tests.support.raw import raw_client
from tests.support.tls_client import tls_client


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def reload(to: Stage, header: str) -> None:
    await install(to.worker, header + app_routes(to.app.port))


async def install(worker: Worker, text: str) -> None:
    await worker.control.active.install(load_text(text).snapshot)


async def test_who_showed_no_certificate_is_served_once_more(authority: Authority) -> None:
    pair = authority.pair("a.test")
    async with stage(saying(OK), header=listening(pair)) as to:
        async with tls_client(to.port, authority.client()) as client:
            assert (await client.ask()).values(b"connection") == []
            await reload(to, listening(pair, tls=asking(authority, "require")))
            answer = await client.ask()
            assert (answer.status, answer.values(b"connection")) == (200, [b"close"])
            assert await client.read() == b""
        with pytest.raises(ssl.SSLError):
            async with tls_client(to.port, authority.client()) as client:
                await client.ask()


async def test_who_asks_nothing_is_closed(authority: Authority) -> None:
    pair = authority.pair("a.test")
    async with (
        stage(saying(OK), header=listening(pair, tls=asking(authority, "require"))) as to,
        tls_client(to.port, authority.client(authority.pair("web.test"))) as client,
    ):
        assert (await client.ask()).status == 200
        await reload(to, listening(pair, tls=asking(authority, "request")))
        assert await asyncio.wait_for(client.read(), 30) == b""


async def test_clear_text_ends_where_tls_begins(authority: Authority) -> None:
    async with stage(saying(OK)) as to, raw_client(to.port) as client:
        await client.send(get())
        await client.responses([b"GET"])
        await reload(to, listening(authority.pair("a.test")))
        await client.send(get())
        first, second = await client.responses([b"GET"] * 2)
        assert (first.values(b"connection"), second.values(b"connection")) == ([], [b"close"])


async def test_a_handshake_under_way_is_of_the_terms_that_it_began_on(authority: Authority) -> None:
    pair = authority.pair("a.test")
    async with (
        stage(saying(OK), header=listening(pair)) as to,
        tls_client(to.port, authority.client(), is_shaken=False) as client,
    ):
        hello = client.first_flight()
        client.writer.write(hello[:10])
        await client.writer.drain()
        await until(lambda: to.worker.listeners["inbound"].connection_count == 1)
        await reload(to, listening(pair, tls=asking(authority, "require")))
        client.writer.write(hello[10:])
        await client.handshake()
        assert (await client.ask()).values(b"connection") == [b"close"]


async def test_http2_is_asked_to_go(authority: Authority) -> None:
    pair = authority.pair("a.test")
    async with (
        stage(saying(OK), header=listening(pair)) as to,
        tls_client(to.port, authority.client(alpn=("h2",))) as client,
    ):
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        got = await client.read()
        await reload(to, listening(pair, tls="minimum_version: 1.3"))
        while data := await asyncio.wait_for(client.read(), 30):
            got += data
        assert bytes([GOAWAY]) in kinds(got)


def kinds(data: bytes) -> list[bytes]:
    """Of all frames."""
    found = []
    while data:
        found.append(data[3:4])
        data = data[9 + int.from_bytes(data[:3], "big") :]
    return found


@pytest.mark.parametrize("change", ["another certificate", "nothing", "another limit"])
async def test_who_would_be_let_in_again_stays(authority: Authority, change: str) -> None:
    pair = authority.pair("a.test")
    after = {
        "another certificate": listening(authority.pair("a.test", "b.test")),
        "nothing": listening(pair),
        "another limit": listening(pair, listener="limits: {connections: 100}"),
    }[change]
    async with (
        stage(saying(OK), header=listening(pair)) as to,
        tls_client(to.port, authority.client()) as client,
    ):
        await client.ask()
        await reload(to, after)
        for _ in range(2):
            assert (await client.ask()).values(b"connection") == []


async def test_clear_text_stays_in_clear_text() -> None:
    async with stage(saying(OK)) as to, raw_client(to.port) as client:
        await client.send(get())
        await client.responses([b"GET"])
        await reload(to, HEADER)
        await client.send(get())
        assert [one.values(b"connection") for one in await client.responses([b"GET"] * 2)] == [[], []]
