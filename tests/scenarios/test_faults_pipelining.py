"""What a client sends ahead waits as bytes, and only so many of them, whatever stands in front of it.

One exchange of a connection lives at a time. A request that has to wait is not read: it stays in the sidecar as it
came, at most 64 KiB of it, and what is beyond stays in the client's and the kernel's own buffers.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import struct

import pytest

from sidecar.forwarding.exchange import Exchange
from tests.scenarios.stage import OK, get, hang, inbound, post, stage
from tests.scenarios.test_upgrades import SWITCHING, UPGRADE
from tests.support.raw import RawClient, RawPeer, raw_client, read_responses, turns
from tests.support.sockets import unread_bytes

MAX_WAITING_BYTES = 64 * 1024
PIECE_BYTES = 4096
RESET = struct.pack("ii", 1, 0)
SLOW = get(b"/slow")


class Live:
    """The exchanges in memory, whoever holds them, that were made since it began; nothing older is looked at."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()  # for good: to look through all that came before would take seconds, each time

    def __len__(self) -> int:
        gc.collect()
        return sum(isinstance(one, Exchange) for one in gc.get_objects())


@pytest.fixture
def live() -> Live:
    return Live()


async def flood(client: RawClient, data: bytes) -> int:
    """Send all of `data` in small pieces, each read before the next; how much of it the sidecar has taken.

    The client will leave by a reset: a FIN behind what nobody reads cannot be seen.
    """
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    for at in range(0, len(data), PIECE_BYTES):
        client.writer.write(data[at : at + PIECE_BYTES])
        await turns(4)
    await turns(50)
    waiting = client.writer.transport.get_write_buffer_size()
    return len(data) - waiting - unread_bytes(sock)


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


AHEAD = {
    "gets": get(b"/next"),
    "short gets": b"GET / HTTP/1.1\r\nHost:x\r\n\r\n",
    "odd gets": get(b"/next", b"Connection: keep-alive", b"Accept: a", b"Accept: b"),
    "no route": get(b"/no-route"),
    "posts": post(b"body", b"/next"),
    "chunked posts": b"POST /next HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "heads": b"HEAD /next HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.0": b"GET /next HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    "upgrades": UPGRADE,
    "upgrades with a body": UPGRADE.replace(b"GET", b"POST")[:-2] + b"Content-Length: 4\r\n\r\nbody",
    "expectations": post(b"body", b"/next", b"Expect: 100-continue"),
    "large heads": get(b"/next", b"X-Large: " + b"a" * 20_000),
    "large bodies": post(bytes(20_000), b"/next"),
    "empty lines": b"\r\n" * 20,
    "nonsense": b"nonsense\r\n\r\n",
}
ROUTE = "match: {path: {regex: '/|/slow|/next|/chat'}}"


@pytest.mark.parametrize("ahead", AHEAD)
async def test_what_waits_behind_a_slow_request_is_bytes_and_few(live: Live, ahead: str) -> None:
    """234 kB behind one slow GET became 5 MiB of exchanges."""
    async with stage(hang, route=ROUTE) as to, raw_client(to.port) as client:
        await client.send(SLOW)
        while not to.app.received:
            await turns()
        data = AHEAD[ahead]
        taken = await flood(client, data * (234_000 // len(data)))
        assert len(live) == 1
        assert len(to.worker.service.exchanges) == 1
        assert taken <= MAX_WAITING_BYTES + PIECE_BYTES
        assert len(to.app.peers) == 1


@pytest.mark.parametrize("how", ["one write", "each its own write", "bytewise"])
async def test_however_it_is_sent_one_exchange_lives(live: Live, how: str) -> None:
    async with stage(hang) as to, raw_client(to.port) as client:
        # Few enough for the kernel's buffers: the end of a client whose bytes find no room in them is behind these.
        count = {"one write": 1500, "each its own write": 300, "bytewise": 40}[how]
        if how == "each its own write":
            for _ in range(count):
                await client.send(get(b"/next"))
        else:
            await client.send(get(b"/next") * count, is_bytewise=how == "bytewise")
        await turns(50)
        assert len(live) == 1
        assert len(to.worker.service.exchanges) == 1


async def test_sixty_clients_that_send_ahead_cost_sixty_exchanges(live: Live) -> None:
    """They reached 168 MiB."""
    async with stage(hang) as to:
        connected = [await asyncio.open_connection("127.0.0.1", to.port) for _ in range(60)]
        clients = [RawClient(reader, writer) for reader, writer in connected]
        taken = await asyncio.gather(*(flood(client, get(b"/next") * 6000) for client in clients))
        assert len(live) == 60
        assert max(taken) <= MAX_WAITING_BYTES + len(get(b"/next")) + PIECE_BYTES
        for client in clients:
            client.writer.close()
        await turns(50)


WAITING = {
    "a body that the app does not take": b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    "an expectation": b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
    "an upgrade that is being decided": UPGRADE,
    "an upgrade with a body": UPGRADE.replace(b"GET", b"POST")[:-2] + b"Content-Length: 4\r\n\r\nbody",
    "a HEAD": b"HEAD /slow HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.0": b"GET /slow HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
}


@pytest.mark.parametrize("first", WAITING)
async def test_whatever_is_in_front_of_it_what_waits_is_bytes_and_few(live: Live, first: str) -> None:
    async with stage(hang) as to, raw_client(to.port) as client:
        await client.send(WAITING[first])
        while not to.app.received:
            await turns()
        taken = await flood(client, get(b"/next") * 6000)
        assert len(live) == 1
        assert taken <= MAX_WAITING_BYTES + PIECE_BYTES


async def test_a_client_that_takes_no_answers_has_one_exchange_at_most(live: Live) -> None:
    """Its requests are answered at once, until its answers fill the sockets."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000)

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(answer)

    async with stage(script) as to, raw_client(to.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await flood(client, get(b"/next") * 6000)
        answered = -1
        while answered != len(to.requests):
            answered = len(to.requests)
            await turns(200)
        assert answered < 6000
        assert len(live) <= 1
        sock = client.writer.get_extra_info("socket")
        waiting = client.writer.transport.get_write_buffer_size() + unread_bytes(sock)
        taken = 6000 * len(get(b"/next")) - waiting
        assert taken <= answered * len(get(b"/next")) + MAX_WAITING_BYTES + PIECE_BYTES


async def test_what_has_waited_is_answered_in_order_and_whole(live: Live, gate: asyncio.Event) -> None:
    """Nothing of it is lost or doubled, wherever it was cut between the sidecar and the kernel."""

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await gate.wait()
            await peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b%b"
                % (len(request.target) + len(request.body), request.target, request.body)
            )

    count = 1500
    async with stage(script) as to, raw_client(to.port) as client:
        wanted = []
        data = []
        for number in range(count):
            target, body = b"/%d" % number, b"body%d" % number
            kind = number % 3
            wanted.append(target + (body if kind else b""))
            chunks = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            data.append((get(target), post(body, target), chunks % (target, len(body), body))[kind])
        await flood(client, b"".join(data))
        assert len(live) == 1
        gate.set()
        while client.received.count(b"HTTP/1.1 200 OK\r\n") < count or not client.received.endswith(
            wanted[-1]
        ):
            assert not client.is_ended
            await client.read_some()
        answers = read_responses(client.received, [b"GET"] * count, is_ended=False)
        assert [answer.body for answer in answers] == wanted
        assert len(to.app.peers) == 1


async def test_a_client_that_leaves_with_a_queue_leaves_nothing(live: Live) -> None:
    """It is noticed though it is not read any more, as long as its end is not behind a full window."""
    async with stage(hang) as to:
        async with raw_client(to.port) as client:
            await client.send(SLOW)
            await flood(client, get(b"/next") * 2500)
            client.writer.transport.abort()
        await asyncio.sleep(1)
        assert len(live) == 0
        assert len(to.app.received.split(b"\r\n\r\n")) == 2


async def test_a_client_with_a_queue_is_not_late_with_what_it_has_sent() -> None:
    """The time of a head that waits begins when it is its turn; its bytes have been there all along."""

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(5)
            await peer.send(OK)

    header = inbound("timeouts: {head: 2s, body: 2s, idle: 2s}")
    async with stage(script, header=header) as to, raw_client(to.port) as client:
        await client.send(SLOW + post(b"body") + get(b"/last"))
        answers = await client.responses([b"GET", b"POST", b"GET"])
        assert [answer.status for answer in answers] == [200, 200, 200]


async def test_what_is_read_ahead_of_an_upgrade_goes_through_the_tunnel(gate: asyncio.Event) -> None:
    """All 300 kB of it, most of which waited in the kernel, and in order."""
    received = asyncio.get_running_loop().create_future()
    ahead = b"".join(b"%08d" % number for number in range(37_500))

    async def script(peer: RawPeer) -> None:
        await peer.head()
        await gate.wait()
        await peer.send(SWITCHING)
        peer.rest = peer.rest.partition(b"\r\n\r\n")[2]
        while len(peer.rest) < len(ahead):
            assert await peer.read_some()
        received.set_result(peer.rest)

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(UPGRADE)
        while not to.app.received:
            await turns()
        assert await flood(client, ahead) <= MAX_WAITING_BYTES + PIECE_BYTES
        gate.set()
        assert await received == ahead
