"""A WebSocket passes from each HTTP version to each: by an upgrade (RFC 6455), by an extended CONNECT (RFC 8441)."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.transition import State
from sidecar.http2.errors import ErrorCode
from tests.scenarios.websockets import ACCEPT, FIELDS, KEY, Versions, versions
from tests.support.http2_ends import End, connect, http2_client, without_setting
from tests.support.proxy import port, running
from tests.support.raw import turns

PAIRS = pytest.mark.parametrize(("client", "upstream"), [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")])
BY_2 = pytest.mark.parametrize("upstream", ["1", "2"])
TO_2 = pytest.mark.parametrize("client", ["1", "2"])
OPEN = "circuit_breaker: {mode: forced_open}"
OPENS = "circuit_breaker: {consecutive_failures: 1, open_for: 60s}"


def has_no_tunnel(to: Versions) -> bool:
    return not to.worker.service.exchanges


@PAIRS
async def test_the_handshake_is_translated(client: str, upstream: str) -> None:
    async with versions(client, upstream) as to, to.asking() as asking:
        asked = await to.next_asked()
        assert (asked.method, asked.protocol) == ((b"GET", b"CONNECT")[upstream == "2"], b"websocket")
        assert (asked.path, asked.fields[b"sec-websocket-version"]) == (b"/chat?room=1", b"13")
        assert (asked.fields[b"sec-websocket-protocol"], asked.fields[b"x-kept"]) == (b"chat", b"1")
        assert (b"sec-websocket-key" in asked.fields) is (upstream == "1")
        if client == "1" == upstream:
            assert asked.fields[b"sec-websocket-key"] == KEY
        end = await asked.accept()
        status, fields = await asking.answer()
        assert (fields[b"x-way"], fields[b"sec-websocket-protocol"]) == (b"in", b"chat")
        if client == "1":
            assert (status, fields[b"upgrade"], fields[b"connection"]) == (101, b"websocket", b"Upgrade")
            assert fields[b"sec-websocket-accept"] == ACCEPT
        else:
            assert status == 200
            assert {b"upgrade", b"connection", b"sec-websocket-accept", b"content-length"}.isdisjoint(fields)
        await end.end()


@PAIRS
async def test_bytes_pass_both_ways_and_each_direction_ends_by_itself(client: str, upstream: str) -> None:
    async with versions(client, upstream) as to:
        for number, first in enumerate(("client", "upstream")):
            async with to.talking() as ends:
                for one, other in (ends, ends[::-1]):
                    await one.send(b"\0\xff\r\n\r\n")
                    assert await other.read_exactly(6) == b"\0\xff\r\n\r\n"
                one, other = ends if first == "client" else ends[::-1]
                await one.send(b"last")
                await one.end()
                assert await other.read_to_end() == b"last"
                await other.send(b"still there")
                assert await one.read_exactly(11) == b"still there"
                await other.end()
                assert await one.read_to_end() == b""
                await turns(20)
                assert (has_no_tunnel(to), one.was_cut, other.was_cut) == (True, "", "")
            assert to.breaker.state is State.CLOSED, number


@PAIRS
async def test_a_slow_reader_holds_the_other_side_and_gets_every_byte(client: str, upstream: str) -> None:
    block = bytes(range(256)) * 256
    count = 300

    async def flood(end: End) -> None:
        for _ in range(count):
            await end.send(block)
            progress.append(len(block))

    async with versions(client, upstream) as to, to.talking() as ends:
        for one, other in (ends, ends[::-1]):
            progress: list[int] = []
            sending = asyncio.create_task(flood(one))
            before = -1
            while before != len(progress):
                before = len(progress)
                await turns(100)
            assert sum(progress) < count * len(block) * 3 // 4, "nobody held it"
            assert await other.read_exactly(count * len(block)) == block * count
            await sending


@PAIRS
@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_a_side_that_is_cut_ends_the_other_and_what_it_had_sent_arrives(
    client: str, upstream: str, who: str
) -> None:
    async with versions(client, upstream) as to, to.talking() as ends:
        one, other = ends if who == "client" else ends[::-1]
        await one.send(b"last words")
        assert await other.read_exactly(10) == b"last words"
        await one.cut()
        assert await other.read_to_end() == b""
        is_stream = (upstream if who == "client" else client) == "2"
        assert other.was_cut == ("CANCEL" if is_stream else "")
        await other.end()
        await turns(50)
        assert has_no_tunnel(to)


@PAIRS
async def test_a_client_that_leaves_before_the_answer_leaves_nothing(client: str, upstream: str) -> None:
    async with versions(client, upstream) as to, to.asking() as asking:
        asked = await to.next_asked()
        await asking.leave()
        if asked.stream is not None:
            assert await asked.stream.read() == b""
            assert asked.stream.was_cut == "CANCEL"
        await turns(50)
        await asyncio.sleep(1)
        assert has_no_tunnel(to)


@PAIRS
async def test_what_is_no_switch_is_an_ordinary_answer(client: str, upstream: str) -> None:
    statuses = (200, 404, 426, 503) if (client, upstream) == ("1", "1") else (404, 426, 503)
    async with versions(client, upstream) as to:
        for status in statuses:
            async with to.asking() as asking:
                await (await to.next_asked()).refuse(status)
                assert (await asking.answer())[0] == status
                assert await asking.body() == b"no"


@pytest.mark.parametrize("status", [200, 204])
async def test_a_2xx_that_is_no_switch_does_not_tell_a_client_of_http2_that_it_is_one(status: int) -> None:
    """To an extended CONNECT any 2xx says that the tunnel is open (RFC 8441 5)."""
    async with versions("2", "1", route=OPENS) as to:
        async with to.asking() as asking:
            await (await to.next_asked()).refuse(status)
            answered, fields = await asking.answer()
            assert answered == 502
            assert b"protocol_error: the upstream has answered %d" % status in fields[b"proxy-status"]
        assert to.breaker.state is State.CLOSED
        async with to.talking() as (one, other):
            await one.send(b"a")
            assert await other.read() == b"a"


@pytest.mark.parametrize(
    ("route", "status", "details"),
    [
        (f"{OPEN}, fallback: {{status: 200, body: x}}", 503, b"circuit_open"),
        (f"{OPEN}, fallback: {{status: 403, body: x}}", 403, b"fallback=response"),
    ],
)
async def test_a_fallback_of_2xx_does_not_serve_a_websocket_of_http2(
    route: str, status: int, details: bytes
) -> None:
    async with versions("2", "1", route=route) as to, to.asking() as asking:
        answered, fields = await asking.answer()
        assert (answered, details in fields[b"proxy-status"]) == (status, True)


async def test_a_route_that_answers_2xx_itself_does_not_take_a_websocket_of_http2() -> None:
    routes = "routes: [{name: app, respond: {status: 200, body: x}}]"
    async with running(routes) as worker, http2_client(port(worker)) as connection:
        stream = await connect(connection, b"/chat", FIELDS)
        assert await stream.head() == 405
        assert b"this route answers by itself" in await stream.read_to_end()


@PAIRS
async def test_a_tunnel_ends_when_nothing_has_moved_for_its_time(client: str, upstream: str) -> None:
    loop = asyncio.get_running_loop()
    async with (
        versions(client, upstream, route="timeouts: {request: 1s, idle: 4s}") as to,
        to.talking() as ends,
    ):
        for number in range(3):
            await asyncio.sleep(3)
            await ends[number % 2].send(b".")
            assert await ends[(number + 1) % 2].read() == b"."
        began = loop.time()
        assert [await end.read_to_end() for end in ends] == [b"", b""]
        assert 4 <= loop.time() - began <= 8
        assert [end.was_cut for end in ends] == ["CANCEL" if one == "2" else "" for one in (client, upstream)]
        assert to.breaker.state is State.CLOSED


@PAIRS
async def test_a_handshake_that_takes_too_long_is_504(client: str, upstream: str) -> None:
    async with versions(client, upstream, route="timeouts: {request: 1s}") as to, to.asking() as asking:
        asked = await to.next_asked()
        assert (await asking.answer())[0] == 504
        if asked.stream is not None:
            assert await asked.stream.read() == b""
            assert asked.stream.was_cut == "CANCEL"


@PAIRS
async def test_an_open_breaker_answers_503_and_the_upstream_hears_nothing(client: str, upstream: str) -> None:
    async with versions(client, upstream, route="circuit_breaker: {mode: forced_open}") as to:
        async with to.asking() as asking:
            status, fields = await asking.answer()
            assert (status, b"circuit_open" in fields[b"proxy-status"]) == (503, True)
        assert to.asked.empty()


@PAIRS
async def test_the_end_of_the_sidecar_cuts_a_tunnel(client: str, upstream: str) -> None:
    """Behind a drain, whose time is up, the client's connection ends altogether."""
    async with versions(client, upstream) as to, to.talking() as ends:
        await to.worker.stop()
        for end in ends:
            assert await end.read_to_end() == b""
        assert ends[1].was_cut == ("CANCEL" if upstream == "2" else "")
        assert has_no_tunnel(to)


# Where the client speaks HTTP/2


@BY_2
async def test_what_a_client_sends_ahead_of_the_answer_is_passed_on_behind_the_switch(upstream: str) -> None:
    async with versions("2", upstream) as to, http2_client(port(to.worker)) as connection:
        stream = await connect(connection, b"/chat", FIELDS)
        await stream.send(b"ahead")
        await stream.end()
        asked = await to.next_asked()
        await turns(20)
        end = await asked.accept()
        assert await end.read_to_end() == b"ahead"
        await end.send(b"answer")
        await end.end()
        assert (await stream.head(), await stream.read_to_end(), stream.was_cut) == (200, b"answer", "")


@BY_2
async def test_tunnels_and_requests_share_a_connection(upstream: str) -> None:
    async with versions("2", upstream) as to, http2_client(port(to.worker)) as connection:
        pairs = []
        for number in range(5):
            stream = await connect(connection, b"/%d" % number, FIELDS)
            asked = await to.next_asked()
            pairs.append((stream, await asked.accept()))
        for number, (stream, end) in enumerate(pairs):
            await stream.send(b"%d" % number)
            assert await end.read() == b"%d" % number
        await pairs[2][0].cut()
        assert await pairs[2][1].read_to_end() == b""
        await pairs[3][0].send(b"still")
        assert await pairs[3][1].read() == b"still"
        for _, end in pairs:
            await end.end()


@pytest.mark.parametrize("accept", [b"", b"d3Jvbmc=", ACCEPT.lower()])
async def test_a_switch_with_a_wrong_accept_is_502_and_counts(accept: bytes) -> None:
    async with versions("2", "1", route=OPENS) as to, to.asking() as asking:
        await (await to.next_asked()).accept(accept=accept)
        status, fields = await asking.answer()
        assert (status, b"http_protocol_error" in fields[b"proxy-status"]) == (502, True)
        assert b"Sec-WebSocket-Accept" in await asking.body()


async def test_each_handshake_has_a_key_of_its_own() -> None:
    keys = set()
    async with versions("2", "1") as to:
        for _ in range(3):
            async with to.asking() as asking:
                asked = await to.next_asked()
                keys.add(asked.fields[b"sec-websocket-key"])
                await asked.refuse(404)
                assert (await asking.answer())[0] == 404
    assert len(keys) == 3


# Where the upstream speaks HTTP/2


@TO_2
async def test_an_upstream_without_the_setting_is_502_and_counts_nothing(client: str) -> None:
    async with versions(client, "2", route=OPENS, server=without_setting) as to:
        for _ in range(3):
            async with to.asking() as asking:
                status, _ = await asking.answer()
                assert status == 502
                assert b"SETTINGS_ENABLE_CONNECT_PROTOCOL" in await asking.body()
        assert (to.asked.empty(), to.breaker.state) == (True, State.CLOSED)


async def test_a_handshake_without_a_key_cannot_become_a_connect() -> None:
    async with versions("1", "2", route=OPENS) as to:
        async with to.asking() as asking:
            await (await to.next_asked()).refuse(404)
            assert (await asking.answer())[0] == 404
        answer = await keyless(to)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"Sec-WebSocket-Key" in answer
        assert to.breaker.state is State.CLOSED


async def keyless(to: Versions) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port(to.worker))
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: short\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_refused_stream_is_asked_once_more() -> None:
    async with versions("1", "2") as to, to.asking() as asking:
        first = await to.next_asked()
        assert first.stream is not None
        connection = first.stream._connection
        connection.codec.reset(first.stream._stream, ErrorCode.REFUSED_STREAM)
        connection.flush()
        end = await (await to.next_asked()).accept()
        assert (await asking.answer())[0] == 101
        await end.end()
