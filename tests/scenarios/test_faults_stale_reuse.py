"""A pooled connection whose end is known, or due, is given to nobody.

The loop is held while the upstream closes and the client sends: both wait in the kernel when it looks again. Here
the two happen within one step of the test, which is the same.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.stage import OK, get, post, saying, stage
from tests.support.clean import assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawClient, RawPeer, RawUpstream, raw_client, turns

BODY = b"data"
REQUESTS = {
    "post": post(BODY, b"/again"),
    "post without a body": post(b"", b"/again"),
    "put": post(BODY, b"/again").replace(b"POST", b"PUT"),
    "patch": post(BODY, b"/again").replace(b"POST", b"PATCH"),
    "chunks": b"POST /again HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\n\r\n",
}


def raw(writer: asyncio.StreamWriter) -> socket.socket:
    """The socket itself, past asyncio: what is done to it is done at once."""
    sock: socket.socket = writer.get_extra_info("socket")
    return socket.socket(fileno=socket.dup(sock.fileno()))


def say_and_do(client: RawClient, data: bytes, act: Callable[[], None], *, is_request_first: bool) -> None:
    """Both before the loop goes round; whose news the loop is told first is as it came."""
    with raw(client.writer) as sock:
        if is_request_first:
            sock.sendall(data)
        act()
        if not is_request_first:
            sock.sendall(data)


def end(peer: RawPeer) -> None:
    with raw(peer.writer) as sock:
        sock.shutdown(socket.SHUT_WR)


def say_goodbye(peer: RawPeer) -> None:
    """As servers do that end an idle connection with an answer to nobody."""
    with raw(peer.writer) as sock:
        sock.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)


ORDERS = pytest.mark.parametrize("is_request_first", [True, False])


@ORDERS
@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("how", [end, say_goodbye])
async def test_a_request_does_not_meet_a_connection_whose_end_has_arrived(
    how: Callable[[RawPeer], None], request_: str, *, is_request_first: bool
) -> None:
    """30 of 30: it got a 502 each time, since it may not be sent a second time."""
    data = REQUESTS[request_]
    method = data.split(b" ")[0]
    async with stage() as to, raw_client(to.port) as client:
        statuses = []
        for _ in range(30):
            await client.send(get())
            assert (await client.responses([b"GET"]))[0].status == 200
            client.received = b""
            (idle,) = [peer for peer in to.app.peers if peer.is_open]
            say_and_do(client, data, lambda peer=idle: how(peer), is_request_first=is_request_first)
            (answer,) = await client.responses([method])
            client.received = b""
            statuses.append((answer.status, answer.body))
            await turns(5)
            for peer in to.app.peers:
                if peer.is_open:
                    end(peer)
            await turns(5)
        assert statuses == [(200, method + b" /again")] * 30
        assert [seen.target for seen in to.requests] == [b"/", b"/again"] * 30
        assert to.breaker.state.value == "closed"


@ORDERS
async def test_of_several_idle_connections_one_that_is_open_is_taken(*, is_request_first: bool) -> None:
    """Three lie in the pool, all but the one that has waited longest are at their end."""
    gate = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.method == b"GET":
                await gate.wait()
            await peer.send(OK)

    async with stage(script) as to, raw_client(to.port) as client:
        asked = [asyncio.create_task(to.ask()) for _ in range(3)]
        while len(to.requests) < 3:
            await turns()
        gate.set()
        await asyncio.gather(*asked)

        def end_all_but_one() -> None:
            for peer in to.app.peers[1:]:
                end(peer)

        say_and_do(client, post(BODY), end_all_but_one, is_request_first=is_request_first)
        (answer,) = await client.responses([b"POST"])
        assert (answer.status, len(to.requests)) == (200, 4)


async def test_many_posts_at_once_meet_no_connection_whose_end_has_arrived() -> None:
    """Ten idle connections end while ten clients send."""
    gate = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.method == b"GET":
                await gate.wait()
            await peer.send(OK)

    async with stage(script) as to:
        async with asyncio.timeout(60):
            asked = [asyncio.create_task(to.ask()) for _ in range(10)]
            while len(to.requests) < 10:
                await turns()
            gate.set()
            await asyncio.gather(*asked)
        idle = [peer for peer in to.app.peers if peer.is_open]
        assert len(idle) == 10
        clients = [await asyncio.open_connection("127.0.0.1", to.port) for _ in range(10)]
        await turns(10)
        for _, writer in clients:
            with raw(writer) as sock:
                sock.sendall(post(BODY))
        for peer in idle:
            end(peer)
        for reader, writer in clients:
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()


@ORDERS
async def test_a_unix_socket_whose_end_has_arrived_is_not_used_again(
    tmp_path: Path, *, is_request_first: bool
) -> None:
    """There the kernel tells nothing of a state; that nothing can be read any more it does tell."""
    app = RawUpstream()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawPeer(len(app.peers), reader, writer)
        app.peers.append(peer)
        await peer.echo()
        peer.is_open = False
        writer.close()

    path = tmp_path / "app.sock"
    async with await asyncio.start_unix_server(serve, path):
        routes = (
            f"upstreams: {{app: {{endpoints: ['unix:{path}']}}}}\nroutes: [{{name: app, upstream: app}}]\n"
        )
        async with running(routes, HEADER) as worker, raw_client(port(worker)) as client:
            await client.send(get())
            await client.responses([b"GET"])
            client.received = b""
            say_and_do(client, post(BODY), lambda: end(app.peers[0]), is_request_first=is_request_first)
            (answer,) = await client.responses([b"POST"])
            assert answer.status == 200
            client.writer.close()
            await assert_clean(worker)


# What the upstream says of its patience (`Keep-Alive: timeout=`, RFC 2068 19.7.1.1)


def patient(seconds: float, field: bytes, *, framing: bytes = b"Content-Length: 2\r\n\r\nok") -> object:
    """Answer with `field`, and end a connection that was idle for so long."""

    async def script(peer: RawPeer) -> None:
        while True:
            reading = asyncio.create_task(peer.request())
            done, _ = await asyncio.wait([reading], timeout=seconds if peer.requests else None)
            if not done or reading.result() is None:
                reading.cancel()
                return
            body = b"" if reading.result().method == b"HEAD" else framing.partition(b"\r\n\r\n")[2]  # type: ignore[union-attr]
            head = framing.partition(b"\r\n\r\n")[0]
            await peer.send(b"HTTP/1.1 200 OK\r\n%b\r\n%b\r\n\r\n%b" % (field, head, body))

    return script


FIELDS = [
    b"Keep-Alive: timeout=1",
    b"keep-alive: Timeout=1, max=100",
    b"Keep-Alive: max=100, timeout=1",
    b"Connection: keep-alive\r\nKeep-Alive: timeout=1",
]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("idle_seconds", [0.9995, 1.0, 1.1, 1.5])
async def test_a_connection_is_not_used_again_when_its_upstreams_patience_is_at_an_end(
    field: bytes, idle_seconds: float
) -> None:
    """Just before as well: what is sent then arrives too late."""
    async with stage(patient(1, field)) as to:  # type: ignore[arg-type]
        for _ in range(3):
            assert (await to.ask(post(BODY), b"POST")).status == 200
            await asyncio.sleep(idle_seconds)
        assert [len(peer.requests) for peer in to.app.peers] == [1, 1, 1]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\n\r\nok",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"X-Many: %b\r\nContent-Length: 2\r\n\r\nok" % (b"a" * 9000),
    ],
    ids=["length", "chunks", "large head"],
)
async def test_whichever_way_the_answer_is_read_its_upstreams_patience_is_heeded(
    method: bytes, framing: bytes
) -> None:
    script = patient(2, b"Keep-Alive: timeout=2", framing=framing)
    async with stage(script) as to:  # type: ignore[arg-type]
        await to.ask(b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % method, method)
        await asyncio.sleep(1.9995)
        assert (await to.ask(post(BODY), b"POST")).status == 200
        assert len(to.app.peers) == 2


async def test_a_connection_within_its_upstreams_patience_is_used_again() -> None:
    """The last answer's word counts, and the patience begins with each answer anew."""
    async with stage(patient(20, b"Keep-Alive: timeout=20")) as to:  # type: ignore[arg-type]
        for _ in range(4):
            assert (await to.ask(post(BODY), b"POST")).status == 200
            await asyncio.sleep(15)
        assert len(to.app.peers) == 1


@pytest.mark.parametrize(
    "value", [b"timeout", b"timeout=", b"timeout=x", b"timeout=-1", b"max=5", b"", b"=,;"]
)
async def test_a_patience_that_cannot_be_read_is_none(value: bytes) -> None:
    async with stage(patient(50, b"Keep-Alive: " + value)) as to:  # type: ignore[arg-type]
        for _ in range(2):
            assert (await to.ask(post(BODY), b"POST")).status == 200
            await asyncio.sleep(20)
        assert len(to.app.peers) == 1


async def test_the_upstreams_patience_goes_no_further() -> None:
    """It is a field of the connection alone (RFC 9110 7.6.1): the client is not told."""
    async with stage(saying(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=9\r\n\r\n"))) as to:
        assert (await to.ask()).value(b"keep-alive") is None
