"""No peer holds the loop: what one of them sends is worked off a little each turn, whatever pieces it comes in.

Work is counted in calls of functions, of Python's and of C's, so that no load on the machine can change it; what
these are in milliseconds tells `tests/bench/hold.py`. All run on uvloop, which reads up to 2 MiB in one turn, and on
asyncio's own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from sidecar.core import plain
from tests.scenarios.stage import app_routes, get, stage
from tests.support.clean import assert_clean
from tests.support.proxy import running
from tests.support.raw import RawClient, RawPeer, raw_client, turns
from tests.support.tiny import KINDS, VARYING, Work, app_for, flooded

FLOOD_BYTES = 200_000
FLOOD_BYTES_OF_REQUESTS = 120_000
"""Where each piece is a whole request, fewer of them are more than one turn may do."""
MOST_CALLS = 100_000
"""In one turn: 20 ms, since a call takes about 0.2 µs with all that it does (`hold.py`: ms ÷ these)."""
MOST_NEIGHBOUR_TURNS = 16
"""From a neighbour's request to its answer; with nobody else there it takes 7."""
ROUTE = 'match: {path: {regex: "/quick|/flood|/tunnel"}}, timeouts: {request: 60s}'

IS_PLAIN = str(plain.__file__).endswith(".py")
REQUESTS = {
    f"client: {name}"
    for name in (
        "heads that no route takes",
        "HEADs that no route takes",
        "heads of HTTP/1.0",
        "heads without time left",
        "heads that the app answers",
        "heads with an upgrade",
        "bodies of a byte",
        "bodies of a chunk",
    )
}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}


def run(loop: str, work: Coroutine[Any, Any, Work]) -> Work:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(work)


async def flood(name: str) -> Work:
    size = FLOOD_BYTES_OF_REQUESTS if name in REQUESTS else FLOOD_BYTES
    with app_for(name, size) as app:
        async with running(app_routes(app.port, route=ROUTE, upstream=KINDS[name].upstream)) as worker:
            work = await flooded(worker, name, app, size)
            if "tunnel" in name:
                app.close()  # each direction of a tunnel ends by itself
            await assert_clean(worker)
            return work


@pytest.fixture(autouse=True, scope="module")
def many_lines_of_a_name() -> None:
    """So no further one of them is remembered."""
    for number in range(2 * plain.MAX_LINES_OF_A_NAME):
        assert plain.read_request(b"GET / HTTP/1.1\r\nHost: x\r\n%b:%d\r\n\r\n" % (VARYING, number))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", KINDS)
def test_no_turn_of_the_loop_does_much_for_one_peer(name: str, loop: str) -> None:
    """1.3 million chunks of one byte held a neighbour for 5 s."""
    work = run(loop, flood(name))
    assert work.problems == []
    assert work.most <= MOST_CALLS
    if name in REQUESTS and IS_PLAIN:  # calls within compiled modules are not seen
        assert work.total > 1.5 * MOST_CALLS, "else all of it at once would not be found"
    assert work.neighbour_turns <= MOST_NEIGHBOUR_TURNS
    assert work.neighbour_answers > 0


# What is joined, what is not held back, and what is too much

CHUNK = b"1\r\nx\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
COUNT = 10_000
MOST_JOINED = 40
"""Chunks for 60 kB that came in a few reads."""
TOO_MANY = 1_300_000


def chunk_sizes(data: bytes) -> list[int]:
    """Of each chunk of a whole message, the last one of 0 included. In linear time, unlike the strict readers."""
    sizes = []
    at = data.index(b"\r\n\r\n") + 4
    while not sizes or sizes[-1]:
        end = data.index(b"\r\n", at)
        sizes.append(int(data[at:end], 16))
        at = end + 2 + sizes[-1] + 2
    assert at == len(data)
    return sizes


async def received_by(peer: RawPeer) -> bytes:
    """A whole request whose body is chunked."""
    pieces = []
    while data := await peer.reader.read(1 << 20):
        pieces.append(data)
        if data.endswith(LAST):
            break
    return b"".join(pieces)


async def answered(client: RawClient) -> bytes:
    """A whole answer whose body is chunked."""
    pieces = [b""]
    while not pieces[-1].endswith(LAST):
        assert not client.is_ended
        await client.read_some()
        pieces.append(client.received)
        client.received = b""
    return b"".join(pieces)


async def test_chunks_of_a_client_that_come_together_go_on_together() -> None:
    async def script(peer: RawPeer) -> None:
        assert await peer.request() is not None
        await peer.send(b"HTTP/1.1 204 X\r\n\r\n")

    async with stage(script) as to:
        response = await to.ask(POST + CHUNK * COUNT + LAST, b"POST")
        assert response.status == 204
        (seen,) = to.requests
        assert seen.body == b"x" * COUNT
        assert len(chunk_sizes(to.app.received)) <= MOST_JOINED


async def test_chunks_of_an_upstream_that_come_together_go_on_together() -> None:
    async def script(peer: RawPeer) -> None:
        assert await peer.request() is not None
        await peer.send(ANSWER + CHUNK * COUNT + LAST)

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(get())
        (response,) = await client.responses([b"GET"])
        assert response.body == b"x" * COUNT
        assert len(chunk_sizes(client.received)) <= MOST_JOINED


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_a_piece_that_comes_alone_is_not_held_back(side: str) -> None:
    """What is joined is what one read brings: nobody waits for a second piece."""
    ends: list[RawPeer] = []

    async def script(peer: RawPeer) -> None:
        ends.append(peer)
        await peer.head()
        if side == "upstream":
            await peer.send(ANSWER)
        while await peer.read_some():
            pass

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(POST)
        while not ends or (side == "upstream" and b"\r\n\r\n" not in client.received):
            await (turns() if not ends else client.read_some())
        for count in range(1, 50):
            if side == "client":
                await client.send(CHUNK)
                await turns(6)
                assert ends[0].received.partition(b"\r\n\r\n")[2].count(b"x\r\n") == count
            else:
                await ends[0].send(CHUNK)
                await client.read_some()
                assert client.received.endswith(CHUNK * count)


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_a_body_of_many_small_pieces_is_served(side: str) -> None:
    """20,000 chunks of a byte: a terminal, say. They are few enough for one connection."""
    sizes = []

    async def script(peer: RawPeer) -> None:
        if side == "client":
            sizes.extend(chunk_sizes(await received_by(peer)))
        else:
            await peer.head()
        await peer.send(ANSWER)
        for _ in range(200 if side == "upstream" else 0):
            await peer.send(CHUNK * 100)
        await peer.send(LAST)

    async with stage(script) as to, raw_client(to.port) as client:
        if side == "client":
            await client.send(POST)
            for _ in range(200):
                await client.send(CHUNK * 100)
            await client.send(LAST)
            assert (await answered(client)).startswith(b"HTTP/1.1 200 ")
        else:
            await client.send(get())
            sizes.extend(chunk_sizes(await answered(client)))
        assert sum(sizes) == 20_000


async def test_events_are_no_flood() -> None:
    """100,000 of a few bytes each: more of it is said than framed."""
    event = b"d\r\ndata: 12345\n\n\r\n"
    count = 100_000

    async def script(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(ANSWER)
        for _ in range(count // 1000):
            peer.writer.write(event * 1000)
            await peer.writer.drain()
        await peer.send(LAST)

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(get())
        assert sum(chunk_sizes(await answered(client))) == 13 * count


async def test_a_request_that_is_mostly_framing_is_refused() -> None:
    """1.3 million chunks of a byte, 8 MB for 1.3: nobody needs that."""
    received = 0

    async def script(peer: RawPeer) -> None:
        nonlocal received
        while data := await peer.reader.read(1 << 20):
            received += len(data)

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(POST)
        for _ in range(TOO_MANY // 1000):
            client.writer.write(CHUNK * 1000)
            await client.writer.drain()
        await client.send(LAST)
        (response,) = await client.responses([b"POST"])
        assert response.status in (400, 413)
        assert response.value(b"connection") == b"close"
        assert received < TOO_MANY
        assert to.breaker.state.value == "closed"


async def test_an_answer_that_is_mostly_framing_is_cut() -> None:
    async def script(peer: RawPeer) -> None:
        assert await peer.request() is not None
        await peer.send(ANSWER)
        for _ in range(TOO_MANY // 1000):
            peer.writer.write(CHUNK * 1000)
            await peer.writer.drain()
        await peer.send(LAST)

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(get())
        received = 0
        while not client.is_ended and not client.received.endswith(LAST):
            received += len(client.received)
            client.received = client.received[-5:]
            await client.read_some()
        assert client.is_ended, "all of it went on"
        assert received < TOO_MANY * 6
