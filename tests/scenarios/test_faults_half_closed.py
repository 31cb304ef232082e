"""Each direction of a tunnel ends by itself: what was said before an end arrives, whichever end was first."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.scenarios.stage import app_routes, get, stage
from tests.scenarios.test_upgrades import SWITCHING, UPGRADE, head_of
from tests.support.clean import assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import PATIENCE_SECONDS, RawClient, RawPeer, Script, raw_client, raw_upstream, turns

LONG = hashlib.shake_128(b"a long answer").digest(3 * 1024 * 1024)
FLOOD = hashlib.shake_128(b"what was sent meanwhile").digest(100_000)


async def switched(peer: RawPeer) -> None:
    await peer.request()
    await peer.send(SWITCHING)


async def read_all(reader: asyncio.StreamReader, *, slowly: bool = False) -> bytes:
    """Up to the FIN. Slowly: with a pause of a virtual second before each 256 KiB."""
    received = bytearray()
    while True:
        if slowly:
            await asyncio.sleep(1)
        data = await reader.read(256 * 1024)
        if not data:
            return bytes(received)
        received += data


async def tunnel(client: RawClient) -> bytes:
    """Switch protocols; what came behind the head."""
    await client.send(UPGRADE)
    _, rest = await head_of(client)
    return rest


@asynccontextmanager
async def tunnelled(script: Script) -> AsyncIterator[RawClient]:
    """A client that has switched; afterwards the connections of both sides must be gone by themselves."""
    async with stage(script, route="timeouts: {idle: 20s}") as to, raw_client(to.port) as client:
        async with asyncio.timeout(PATIENCE_SECONDS):
            client.received = await tunnel(client)
            yield client
        await turns(50)
        assert (to.app.open_count, to.cluster.connections, to.cluster.in_flight) == (0, 0, 0)
        assert to.worker.service.exchanges == set()
        assert to.worker.listeners["inbound"].connection_count == 0


async def test_an_answer_that_comes_after_the_clients_end_arrives() -> None:
    """As `docker attach` with something on its standard input."""

    async def script(peer: RawPeer) -> None:
        await switched(peer)
        assert peer.rest + await read_all(peer.reader) == b"abc"
        await asyncio.sleep(3)
        await peer.send(b"3 bytes.")

    async with tunnelled(script) as client:
        await client.send(b"abc")
        client.writer.write_eof()
        assert client.received + await read_all(client.reader) == b"3 bytes."


async def test_what_the_client_says_after_the_upstreams_end_arrives() -> None:
    """100,000 bytes were lost."""
    received = asyncio.get_running_loop().create_future()

    async def script(peer: RawPeer) -> None:
        await switched(peer)
        await peer.send(b"bye")
        peer.writer.write_eof()
        received.set_result(peer.rest + await read_all(peer.reader))

    async with tunnelled(script) as client:
        assert client.received + await read_all(client.reader) == b"bye"
        for at in range(0, len(FLOOD), 10_000):
            await client.send(FLOOD[at : at + 10_000])
            await asyncio.sleep(1)
        client.writer.write_eof()
        assert await received == FLOOD


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("is_client_first", [False, True])
async def test_what_is_on_its_way_at_an_end_arrives(*, is_client_first: bool, is_slow: bool) -> None:
    """3 MB are under way one way when that way ends, and the other way goes on, and ends later."""
    received = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_first: bool) -> bytes:
        if is_first:
            writer.write(LONG)
            writer.write_eof()
            return await read_all(reader)
        data = await read_all(reader, slowly=is_slow)
        writer.write(FLOOD)
        writer.write_eof()
        return data

    async def script(peer: RawPeer) -> None:
        await switched(peer)
        received.set_result(await talk(peer.reader, peer.writer, is_first=not is_client_first))

    async with tunnelled(script) as client:
        answered = client.received + await talk(client.reader, client.writer, is_first=is_client_first)
        asked = await received
        first, second = (asked, answered) if is_client_first else (answered, asked)
        assert (len(first), len(second)) == (len(LONG), len(FLOOD))
        assert (first, second) == (LONG, FLOOD)


@pytest.mark.parametrize("is_slow", [False, True])
async def test_both_ways_at_once_arrive_whole(*, is_slow: bool) -> None:
    received = asyncio.get_running_loop().create_future()

    async def script(peer: RawPeer) -> None:
        await switched(peer)
        peer.writer.write(LONG)
        peer.writer.write_eof()
        received.set_result(await read_all(peer.reader, slowly=is_slow))

    async with tunnelled(script) as client:
        client.writer.write(LONG[::-1])
        client.writer.write_eof()
        answered = client.received + await read_all(client.reader, slowly=is_slow)
        assert (len(answered), len(await received)) == (len(LONG), len(LONG))
        assert (answered, await received) == (LONG, LONG[::-1])


@pytest.mark.parametrize("is_slow", [False, True])
async def test_what_was_sent_before_an_end_arrives_though_the_other_side_never_stops_sending(
    *, is_slow: bool
) -> None:
    """A close with bytes unread is a reset, which destroys what is under way the other way (RFC 9112 9.6)."""

    async def script(peer: RawPeer) -> None:
        await switched(peer)
        peer.writer.write(LONG)
        peer.writer.write_eof()
        await read_all(peer.reader)

    async def chatter(client: RawClient) -> None:
        while not client.writer.transport.is_closing():
            client.writer.write(b"are you there? " * 100)
            await asyncio.sleep(0.05)

    async with tunnelled(script) as client:
        talking = asyncio.create_task(chatter(client))
        try:
            answered = client.received + await read_all(client.reader, slowly=is_slow)
        finally:
            talking.cancel()
        assert len(answered) == len(LONG)
        assert answered == LONG
        client.writer.write_eof()


async def test_what_is_sent_ahead_of_the_switch_and_an_end_behind_it_arrive() -> None:
    """Both in one write with the request: the other protocol's bytes come before anybody has agreed to it."""
    asked = asyncio.get_running_loop().create_future()

    async def script(peer: RawPeer) -> None:
        await peer.head()
        await asyncio.sleep(1)
        ahead = peer.rest.partition(b"\r\n\r\n")[2]
        await peer.send(SWITCHING + b"welcome")
        asked.set_result(ahead + await read_all(peer.reader))
        await peer.send(b" and goodbye")

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(UPGRADE + b"abc")
        _, rest = await head_of(client)
        client.writer.write_eof()
        assert rest + await read_all(client.reader) == b"welcome and goodbye"
        assert await asked == b"abc"


@pytest.mark.parametrize("is_client_first", [False, True])
async def test_a_half_closed_tunnel_in_which_nothing_moves_ends_when_it_is_idle(
    *, is_client_first: bool
) -> None:
    async def script(peer: RawPeer) -> None:
        await switched(peer)
        if not is_client_first:
            peer.writer.write_eof()
        await read_all(peer.reader)
        if is_client_first:
            await asyncio.sleep(1000)

    async with stage(script, route="timeouts: {idle: 4s}") as to, raw_client(to.port) as client:
        began = asyncio.get_running_loop().time()
        await tunnel(client)
        if is_client_first:
            client.writer.write_eof()
        (exchange,) = to.worker.service.exchanges
        for _ in range(2000):
            if exchange not in to.worker.service.exchanges:
                break
            await asyncio.sleep(0.01)
        took = asyncio.get_running_loop().time() - began
        assert 4 <= took <= 4.1


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_a_half_closed_tunnel_ends_when_the_other_end_is_reset(who: str) -> None:
    ended = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await switched(peer)
        if who == "upstream":
            await read_all(peer.reader)
            peer.writer.transport.abort()
        else:
            peer.writer.write_eof()
            await peer.read_some()
        ended.set()

    async with tunnelled(script) as client:
        if who == "upstream":
            client.writer.write_eof()
            assert await read_all(client.reader) == b""
        else:
            assert await read_all(client.reader) == b""
            client.writer.transport.abort()
        await ended.wait()


async def test_a_unix_upstream_answers_after_the_clients_end(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawPeer(0, reader, writer)
        await switched(peer)
        assert peer.rest + await read_all(reader) == b"abc"
        writer.write(LONG)
        writer.close()

    path = tmp_path / "app.sock"
    async with await asyncio.start_unix_server(serve, path):
        routes = (
            f"upstreams: {{app: {{endpoints: ['unix:{path}']}}}}\nroutes: [{{name: app, upstream: app}}]\n"
        )
        async with running(routes, HEADER) as worker, raw_client(port(worker)) as client:
            rest = await tunnel(client)
            await client.send(b"abc")
            client.writer.write_eof()
            assert rest + await read_all(client.reader) == LONG
            client.writer.close()
            await assert_clean(worker)


async def test_an_answer_that_ends_with_its_connection_arrives_though_the_client_sends_on() -> None:
    """No tunnel, and the same reset: `close` on unread bytes would destroy what is under way to the client."""

    async def script(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        peer.writer.write(LONG)
        await peer.writer.drain()

    async with (
        raw_upstream(script) as app,
        running(app_routes(app.port)) as worker,
        raw_client(port(worker)) as client,
    ):
        await client.send(get(b"/", b"Connection: close"))
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(40):
            await client.send(b"nobody waits for this")
            await asyncio.sleep(0.01)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        (response,) = await client.responses([b"GET"])
        assert (len(response.body), response.is_cut, client.is_reset) == (len(LONG), False, False)
        client.writer.close()
        await assert_clean(worker)
