"""An upgrade becomes a tunnel: after 101 the bytes are nobody's business but the two ends'."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.scenarios.stage import OK, get, stage
from tests.support.raw import RawClient, RawPeer, raw_client, turns

UPGRADE = get(b"/chat", b"Connection: Upgrade, X-Hop", b"Upgrade: echo", b"X-Hop: 1", b"X-Kept: 1")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Way: in\r\n\r\n"


async def echoing(peer: RawPeer) -> None:
    """Accept the upgrade and send back what comes, until the other end closes."""
    await peer.request()
    await peer.send(SWITCHING)
    while data := await peer.reader.read(65536):
        await peer.send(data)


async def head_of(client: RawClient) -> tuple[bytes, bytes]:
    while b"\r\n\r\n" not in client.received:
        await client.read_some()
    head, _, rest = client.received.partition(b"\r\n\r\n")
    return head, rest


async def expect(client: RawClient, end: bytes) -> None:
    while not client.received.endswith(end):
        assert not client.is_ended
        await client.read_some()


async def test_bytes_pass_both_ways_after_a_switch() -> None:
    async with stage(echoing) as to, raw_client(to.port) as client:
        await client.send(UPGRADE)
        head, rest = await head_of(client)
        assert head.split(b"\r\n")[0] == b"HTTP/1.1 101 Switching Protocols"
        fields = {
            line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in head.split(b"\r\n")[1:]
        }
        assert (fields[b"connection"], fields[b"upgrade"], fields[b"x-way"], rest) == (
            b"Upgrade",
            b"echo",
            b"in",
            b"",
        )
        (seen,) = to.requests
        assert (seen.value(b"connection"), seen.value(b"upgrade")) == (b"Upgrade", b"echo")
        assert (seen.value(b"x-kept"), seen.value(b"x-hop")) == (b"1", None)
        for piece in (b"one", b"\0\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            await client.send(piece)
            await expect(client, piece)


async def test_what_both_sides_send_ahead_is_not_lost() -> None:
    async def eager(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(SWITCHING + b"welcome")
        await peer.send(await peer.reader.readexactly(5) if len(peer.rest) < 5 else peer.rest)

    async with stage(eager) as to, raw_client(to.port) as client:
        await client.send(UPGRADE + b"hello")
        await expect(client, b"\r\n\r\nwelcomehello")
        await client.read_to_end()


@pytest.mark.parametrize("ahead", [b"hello", b"h" * 40_000])
async def test_what_a_client_sends_ahead_is_not_lost_where_it_asks_for_a_close_too(ahead: bytes) -> None:
    """`close` is about the next request, and behind a switch there is none."""
    asked = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await asked.wait()
        await peer.send(SWITCHING)
        while data := peer.rest or await peer.reader.read(65536):
            peer.rest = b""
            await peer.send(data)

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(UPGRADE.replace(b"Upgrade, X-Hop", b"close, Upgrade, X-Hop") + ahead)
        await turns(20)
        asked.set()
        await expect(client, b"\r\n\r\n" + ahead)
        await client.send(b"more")
        await expect(client, ahead + b"more")


async def test_behind_an_upgrade_that_is_declined_a_client_that_asked_for_a_close_gets_one() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await turns(20)
        await peer.send(OK)

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(UPGRADE.replace(b"Upgrade, X-Hop", b"close, Upgrade, X-Hop") + get(b"/next"))
        (answer,) = await client.responses([b"GET", b"GET"])
        assert (answer.status, answer.value(b"connection")) == (200, b"close")
        assert len(to.requests) == 1


async def test_an_upgrade_that_is_declined_is_an_ordinary_exchange() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(OK)

    async with stage(script) as to:
        answers = await to.ask_all(UPGRADE + get(b"/next"), [b"GET", b"GET"])
        assert [answer.body for answer in answers] == [b"ok", b"ok"]
        assert [request.target for request in to.requests] == [b"/chat", b"/next"]


async def test_an_upgrade_to_http_2_is_not_passed_on() -> None:
    async with stage() as to:
        response = await to.ask(
            get(b"/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
        )
        (seen,) = to.requests
    assert response.status == 200
    assert {b"upgrade", b"http2-settings", b"connection"} & {key for key, _ in seen.fields} == set()


async def test_a_switch_that_nobody_asked_for_is_a_protocol_error() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(SWITCHING)
        await peer.read_some()

    async with stage(script) as to:
        response = await to.ask()
        assert response.status == 502
        assert b"error=http_protocol_error" in (response.value(b"proxy-status") or b"")


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_when_both_ends_have_closed_nothing_is_left(who: str) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(SWITCHING)
        if who == "client":
            await peer.read_some()

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(UPGRADE)
        await head_of(client)
        if who == "client":
            client.writer.close()
        else:
            await client.read_to_end()
            client.writer.close()
        await turns(20)
        assert (to.app.open_count, to.cluster.connections, to.cluster.in_flight) == (0, 0, 0)


async def test_a_tunnel_outlives_the_deadline_of_its_handshake_and_ends_when_idle() -> None:
    route = "timeouts: {request: 1s, idle: 4s}"
    loop = asyncio.get_running_loop()
    async with stage(echoing, route=route) as to, raw_client(to.port) as client:
        await client.send(UPGRADE)
        await head_of(client)
        for number in range(3):
            await asyncio.sleep(3)
            await client.send(b"%d" % number)
            await expect(client, b"%d" % number)
        began = loop.time()
        await client.read_to_end()
        assert 4 <= loop.time() - began <= 8
        assert to.breaker.state.value == "closed"


async def test_a_handshake_that_takes_too_long_is_cut() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async with stage(script, route="timeouts: {request: 1s}") as to:
        assert (await to.ask(UPGRADE)).status == 504


async def test_a_tunnel_holds_back_who_sends_faster_than_the_other_takes() -> None:
    block = bytes(65536)
    total = 48 * 1024 * 1024
    received = 0
    may_read = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        nonlocal received
        await peer.request()
        await peer.send(SWITCHING)
        await may_read.wait()
        while received < total:
            data = await peer.reader.read(1 << 20)
            assert data, "the tunnel ended early"
            received += len(data)
        await peer.send(b"done")

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(UPGRADE)
        await head_of(client)
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < total:
                client.writer.write(block)
                await client.writer.drain()
                sent += len(block)

        sending = asyncio.create_task(send())
        before = -1
        while before != sent:
            before = sent
            await turns(100)
        assert sent < total / 2
        may_read.set()
        await sending
        await expect(client, b"done")


@pytest.mark.parametrize(("pause_seconds", "is_whole"), [(20, True), (60, False)])
async def test_what_waits_for_an_end_that_takes_nothing_is_not_kept_for_ever(
    pause_seconds: float, *, is_whole: bool
) -> None:
    """The tunnel ends when it was idle for its time, and what waits then has as long to move once more."""

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(SWITCHING)
        await peer.send(bytes(20_000_000))

    async with stage(script, route="timeouts: {idle: 15s}") as to, raw_client(to.port) as client:
        await client.send(UPGRADE)
        _, rest = await head_of(client)
        (exchange,) = to.worker.service.exchanges
        reading = client.writer.transport
        assert isinstance(reading, asyncio.ReadTransport)
        reading.pause_reading()
        await asyncio.sleep(pause_seconds)
        reading.resume_reading()
        with contextlib.suppress(ConnectionError):
            await client.read_to_end()
        assert len(rest) < exchange.response_bytes < 20_000_000
        received = len(client.received.partition(b"\r\n\r\n")[2])
        assert (received == exchange.response_bytes) is is_whole
