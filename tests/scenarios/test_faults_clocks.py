"""Each timeout of a client counts from the moment that it is about, is never early, and at most 60 ms late.

Clients come at ten phases of a second, at the same time: what is looked at once a second is late by up to one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tests.scenarios.stage import OK, get, hang, inbound, post, saying, stage
from tests.scenarios.test_upgrades import UPGRADE, echoing, head_of
from tests.support.raw import RawClient, RawPeer, Response, Script, raw_client

T = TypeVar("T")
LATE_SECONDS = 0.06
PHASES = [number / 10 for number in range(10)]

POST_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % CHUNKED
EXPECTING = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

TWO_SECONDS = inbound("timeouts: {head: 2s, body: 2s, idle: 2s}")
TWO_SECONDS_NOT_IDLE = inbound("timeouts: {head: 2s, body: 2s, idle: 30s}")


def now() -> float:
    return asyncio.get_running_loop().time()


async def at_each(port: int, phases: list[float], talk: Callable[[RawClient], Awaitable[T]]) -> list[T]:
    """What `talk` returns for a client of each phase, in their order; they are there at the same time."""

    async def one(phase: float) -> T:
        await asyncio.sleep(phase)
        async with raw_client(port) as client:
            return await talk(client)

    return await asyncio.gather(*map(one, phases))


async def assert_on_time(port: int, seconds: float, talk: Callable[[RawClient], Awaitable[float]]) -> None:
    """Whatever the phase: `talk` ends `seconds` after the moment that it returns, never early, and hardly late."""

    async def late_by(client: RawClient) -> float:
        began = await talk(client)
        return round(now() - began - seconds, 4)

    late = dict(zip(PHASES, await at_each(port, PHASES, late_by), strict=True))
    assert {phase: by for phase, by in late.items() if not 0 <= by <= LATE_SECONDS} == {}


async def assert_told_408(client: RawClient) -> None:
    client.received = b""
    await client.read_to_end()
    (response,) = await client.responses([b"POST"])
    assert (response.status, response.value(b"connection")) == (408, b"close")


# The innocent


@pytest.mark.parametrize("body", ["length", "chunks"])
async def test_a_body_that_follows_its_head_is_in_time_whatever_came_before(body: str) -> None:
    """33 s of an idle connection are none of the body's: 12 of 40 were told 408."""

    async def talk(client: RawClient) -> list[int]:
        await client.send(get())
        await client.responses([b"GET"])
        await asyncio.sleep(33)
        await client.send(POST_HEAD if body == "length" else CHUNKED_HEAD)
        await asyncio.sleep(0.3)
        await client.send(b"hello" if body == "length" else b"5\r\nhello\r\n0\r\n\r\n")
        return [answer.status for answer in await client.responses([b"GET", b"POST"])]

    async with stage(saying(OK)) as to:
        phases = [number / 40 for number in range(40)]
        assert await at_each(to.port, phases, talk) == [[200, 200]] * 40


@pytest.mark.parametrize("pause_seconds", [1.2, 1.5, 1.7, 1.9, 1.99])
@pytest.mark.parametrize("piecewise", ["head", "body", "chunks", "next head"])
async def test_a_client_that_is_just_in_time_is_served(pause_seconds: float, piecewise: str) -> None:
    pieces = {
        "head": [post(b"hello")[:20], post(b"hello")[20:]],
        "body": [POST_HEAD, b"h", b"el", b"lo"],
        "chunks": [CHUNKED_HEAD, b"5\r\nhe", b"llo\r\n", b"0\r\n\r\n"],
        "next head": [post(b"hello"), post(b"again")[:7], post(b"again")[7:]],
    }[piecewise]
    count = 2 if piecewise == "next head" else 1

    async def talk(client: RawClient) -> list[int]:
        for piece in pieces:
            await client.send(piece)
            await asyncio.sleep(pause_seconds)
        return [answer.status for answer in await client.responses([b"POST"] * count)]

    async with stage(saying(OK), header=TWO_SECONDS) as to:
        assert await at_each(to.port, PHASES, talk) == [[200] * count] * len(PHASES)


# The guilty: from when, and until when


async def first_head(client: RawClient) -> None:
    """A connection's first request does not get further than this."""
    await client.send(b"POST / HTTP/1.1\r\nHo")


async def first_byte(client: RawClient) -> None:
    await client.send(b"P")


async def next_head(client: RawClient) -> None:
    await client.send(post(b"hello", b"/answered"))
    await client.responses([b"POST"])
    client.received = b""
    await asyncio.sleep(1.33)
    await client.send(b"POST / HTTP/1.1\r\nHo")


async def head_behind_a_request(client: RawClient) -> None:
    """The beginning of the next request comes with the whole of one, which is answered at once."""
    await client.send(post(b"hello", b"/answered") + b"POST / HT")
    await client.responses([b"POST"])
    client.received = b""


async def length(client: RawClient) -> None:
    await client.send(POST_HEAD + b"he")


async def nothing_of_a_length(client: RawClient) -> None:
    await client.send(POST_HEAD)


async def chunk(client: RawClient) -> None:
    await client.send(CHUNKED_HEAD + b"5\r\nhe")


async def between_chunks(client: RawClient) -> None:
    await client.send(CHUNKED_HEAD + b"5\r\nhello\r\n")


async def length_of_the_next(client: RawClient) -> None:
    await next_head(client)
    await client.send(b"st: x\r\nContent-Length: 5\r\n\r\nhe")


async def body_that_moved(client: RawClient) -> None:
    """Each piece of a body gives the next one its time anew."""
    await client.send(POST_HEAD)
    for piece in (b"h", b"e", b"l"):
        await asyncio.sleep(1.37)
        await client.send(piece)


async def holding_for(request_target: bytes, peer: RawPeer) -> None:
    """Answer what asks for `request_target`, and leave the rest waiting."""
    while (request := await peer.request()) is not None:
        if request.target == request_target:
            await peer.send(OK)


async def answering_some(peer: RawPeer) -> None:
    await holding_for(b"/answered", peer)


@pytest.mark.parametrize(
    "stall",
    [
        first_head, first_byte, next_head, head_behind_a_request,
        length, nothing_of_a_length, chunk, between_chunks, length_of_the_next, body_that_moved,
    ],
)  # fmt: skip
async def test_a_client_that_stalls_is_told_so_in_time(stall: Callable[[RawClient], Awaitable[None]]) -> None:
    async def talk(client: RawClient) -> float:
        await stall(client)
        began = now()
        await assert_told_408(client)
        return began

    async with stage(answering_some, header=TWO_SECONDS_NOT_IDLE) as to:
        await assert_on_time(to.port, 2, talk)


async def test_a_head_that_moves_does_not_get_its_time_anew() -> None:
    async def talk(client: RawClient) -> float:
        began = now()
        for piece in (b"POST / HTTP/1.1\r\n", b"Host: x\r\n", b"X-A: 1\r\n"):
            await client.send(piece)
            await asyncio.sleep(0.6)
        await assert_told_408(client)
        return began

    async with stage(header=inbound("timeouts: {head: 2s, body: 30s, idle: 30s}")) as to:
        await assert_on_time(to.port, 2, talk)


async def nothing(client: RawClient) -> None:
    """A connection that was opened ahead of its first request."""


async def one_get(client: RawClient) -> None:
    await client.send(get())
    await client.responses([b"GET"])


async def no_route(client: RawClient) -> None:
    await client.send(get(b"/no-route"))
    await client.responses([b"GET"])


async def post_in_pieces(client: RawClient) -> None:
    await client.send(POST_HEAD)
    await asyncio.sleep(1.21)
    await client.send(b"hello")
    await client.responses([b"POST"])


async def skipped_body(client: RawClient) -> None:
    """The answer came first, and the rest of the body after it."""
    await client.send(POST_HEAD.replace(b" / ", b" /no-route "))
    await client.responses([b"POST"])
    await asyncio.sleep(1.21)
    await client.send(b"hello")


@pytest.mark.parametrize("first", [nothing, one_get, no_route, post_in_pieces, skipped_body])
async def test_an_idle_connection_is_closed_in_time(first: Callable[[RawClient], Awaitable[None]]) -> None:
    async def talk(client: RawClient) -> float:
        await first(client)
        began, before = now(), client.received
        await client.read_to_end()
        assert client.received == before
        return began

    header = inbound("timeouts: {head: 30s, body: 30s, idle: 2s}")
    async with stage(saying(OK), header=header, route="match: {path: {exact: /}}") as to:
        await assert_on_time(to.port, 2, talk)


async def test_an_answer_that_is_not_taken_is_cut_in_time() -> None:
    """Not a byte moves any more from when the sockets are full, which they are at once."""
    size = 16 * 1024 * 1024
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    async with stage(saying(answer), header=inbound("timeouts: {head: 30s, body: 2s, idle: 30s}")) as to:

        async def talk(client: RawClient) -> float:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            address = client.writer.get_extra_info("sockname")
            await client.send(get())
            began = now()
            await until(lambda: any(one.peer == address for one in to.worker.service.exchanges))
            await until(lambda: all(one.peer != address for one in to.worker.service.exchanges))
            return began

        await assert_on_time(to.port, 2, talk)


async def until(condition: Callable[[], bool]) -> None:
    """Look every 5 ms, for a virtual minute."""
    for _ in range(12_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


# Whose turn it is


def continuing_after(seconds: float) -> Script:
    """Ask for the body of each request so many seconds after its head."""

    async def script(peer: RawPeer) -> None:
        while await peer.read_some():
            if b"\r\n\r\n" in peer.rest:
                await asyncio.sleep(seconds)
                await peer.send(CONTINUE)
                await peer.request()
                await peer.send(OK)

    return script


async def continued(client: RawClient) -> None:
    while CONTINUE not in client.received:
        assert not client.is_ended, client.received
        await client.read_some()


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_client_that_waits_for_100_is_not_late(framing: str) -> None:
    """The upstream takes its time for the 100; the client was told to wait for it."""
    head = EXPECTING if framing == "length" else EXPECTING.replace(b"Content-Length: 4", CHUNKED)

    async def talk(client: RawClient) -> Response:
        await client.send(head)
        await continued(client)
        await asyncio.sleep(1.9)
        await client.send(b"body" if framing == "length" else b"4\r\nbody\r\n0\r\n\r\n")
        return (await client.responses([b"PUT"]))[0]

    async with stage(continuing_after(5), header=TWO_SECONDS) as to:
        answers = await at_each(to.port, PHASES, talk)
        assert [answer.status for answer in answers] == [200] * len(PHASES)
        assert [seen.body for seen in to.requests] == [b"body"] * len(PHASES)


async def test_a_client_that_was_told_to_go_on_and_does_not_is_late() -> None:
    """The time of its body begins with the 100."""

    async def talk(client: RawClient) -> float:
        await client.send(EXPECTING)
        await continued(client)
        began = now()
        await assert_told_408(client)
        return began

    async with stage(continuing_after(5), header=TWO_SECONDS) as to:
        await assert_on_time(to.port, 2, talk)


async def test_a_client_that_waits_for_a_100_that_never_comes_hears_of_the_upstream() -> None:
    """The upstream is late, not the client."""

    async def talk(client: RawClient) -> float:
        began = now()
        await client.send(EXPECTING)
        (response,) = await client.responses([b"PUT"])
        assert response.status == 504
        return began

    async with stage(hang, header=TWO_SECONDS, route="timeouts: {request: 6s}") as to:
        await assert_on_time(to.port, 6, talk)


async def test_the_next_request_after_an_expectation_has_its_own_time() -> None:
    """Neither is the wait for a 100 counted for the next request, nor is the next one's clock left out."""

    async def talk(client: RawClient) -> float:
        await client.send(EXPECTING)
        await continued(client)
        await client.send(b"body")
        await client.responses([b"PUT"])
        await asyncio.sleep(2.5)
        await client.send(POST_HEAD)
        began = now()
        await assert_told_408(client)
        return began

    async with stage(continuing_after(5), header=TWO_SECONDS_NOT_IDLE) as to:
        await assert_on_time(to.port, 2, talk)


async def test_a_body_that_the_upstream_holds_back_is_not_late() -> None:
    """The upstream takes nothing for 5 s: the client could not send if it wanted to."""
    body = bytes(8 * 1024 * 1024)

    async def script(peer: RawPeer) -> None:
        await asyncio.sleep(5)
        assert await peer.request() is not None
        await peer.send(OK)

    async def talk(client: RawClient) -> int:
        client.writer.write(post(body))
        return (await client.responses([b"POST"]))[0].status

    async with stage(script, header=TWO_SECONDS) as to:
        assert await at_each(to.port, PHASES, talk) == [200] * len(PHASES)


# The other timeouts in seconds: a route's and an upstream's


@pytest.mark.parametrize("moved", [0, 3])
async def test_a_quiet_tunnel_ends_in_time(moved: int) -> None:
    async def talk(client: RawClient) -> float:
        await client.send(UPGRADE)
        await head_of(client)
        began = now()
        for _ in range(moved):
            await asyncio.sleep(1.37)
            await client.send(b"x")
            await client.read_some()
            began = now()
        await client.read_to_end()
        return began

    async with stage(echoing, route="timeouts: {request: 1s, idle: 4s}") as to:
        await assert_on_time(to.port, 4, talk)


@pytest.mark.parametrize("moved", [0, 3])
async def test_a_quiet_exchange_ends_in_time(moved: int) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for _ in range(moved):
            await asyncio.sleep(1.37)
            await peer.send(b"x")
        await hang(peer)

    async def talk(client: RawClient) -> float:
        await client.send(get())
        began = now()
        while not client.is_ended:
            before = client.received
            await client.read_some()
            if client.received != before:
                began = now()
        return began

    async with stage(script, route="timeouts: {request: 60s, idle: 4s}") as to:
        await assert_on_time(to.port, 4, talk)


async def test_an_idle_upstream_connection_is_closed_in_time() -> None:
    """Each answer comes 1 s after its request, so each client has a connection of its own."""

    async def script(peer: RawPeer) -> None:
        assert await peer.request() is not None
        await asyncio.sleep(1)
        await peer.send(OK)
        await peer.read_some()
        ended.append(now())

    async def talk(client: RawClient) -> float:
        await client.send(get())
        await client.responses([b"GET"])
        return now()

    ended: list[float] = []
    async with stage(script, upstream="timeouts: {idle: 2s}") as to:
        answered = await at_each(to.port, PHASES, talk)
        await asyncio.sleep(5)
        late = [round(end - began - 2, 4) for began, end in zip(answered, ended, strict=True)]
        assert [by for by in late if not 0 <= by <= LATE_SECONDS] == []
