"""The server beside the data path: what it reads, what it answers, and what no client can make of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import struct
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.admin import request_facts
from sidecar.core.snapshot import Address
from sidecar.serving.connection import HEAD_SECONDS, IDLE_SECONDS, LINGER_SECONDS, MAX_HEAD_BYTES
from sidecar.serving.http import HttpServer
from sidecar.serving.message import Handler, Request, Response
from sidecar.serving.routes import Routes
from tests.scenarios.operator import serving_by
from tests.support.certificates import Certificates
from tests.support.open_files import every_file_taken, open_files
from tests.support.raw import RawClient, raw_client

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def echo(request: Request) -> Response:
    """Method, path and body."""
    body = b""
    while piece := await request.client.read():
        body += piece
    return Response(200, f"{request.method} {request.path} ".encode() + body)


async def unread(request: Request) -> Response:
    return Response(200, f"{request.method} {request.path}")


def post(body: bytes, *fields: str, path: str = "/x") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answers(client: RawClient, *methods: bytes) -> list[tuple[int, bytes]]:
    return [(one.status, one.body) for one in await client.responses(list(methods))]


async def is_refused(handler: Handler, data: bytes) -> int:
    """The status of the one answer that this gets, behind which the connection ends."""
    async with serving_by(handler) as server, raw_client(server.port) as client:
        await client.send(data)
        await client.read_to_end()
        assert not client.is_reset
        (answer,) = await client.responses([b"GET"])
        assert answer.value(b"connection") == b"close"
        return answer.status


# What is read


@pytest.mark.parametrize("is_bytewise", [False, True])
async def test_requests_that_come_together_are_answered_in_their_order(is_bytewise: bool) -> None:
    chunked = post(
        b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n", "Transfer-Encoding: chunked", path="/c"
    )
    data = GET + post(b"body", "Content-Length: 4", path="/a%20b") + chunked + b"\r\n" + GET
    async with serving_by(echo) as server, raw_client(server.port) as client:
        await client.send(data, is_bytewise=is_bytewise)
        assert await answers(client, b"GET", b"POST", b"POST", b"GET") == [
            (200, b"GET / "), (200, b"POST /a b body"), (200, b"POST /c abcde"), (200, b"GET / ")
        ]  # fmt: skip
        assert server.connection_count == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % b"&".join([b"a=b"] * 1025), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"X:\r\n" * 100), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n\r\n" % b",".join([b"close"] * 33), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * MAX_HEAD_BYTES), 431),
        (b"GET /%b" % (b"x" * (MAX_HEAD_BYTES + 1)), 431),
        (b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"%41" * 6000), 414),
    ],
)
async def test_what_is_no_request_is_told_so_and_never_reaches_a_handler(head: bytes, status: int) -> None:
    async def nobody(_: Request) -> Response:
        raise AssertionError("a handler was asked")

    assert await is_refused(nobody, head) == status


@pytest.mark.parametrize(
    ("data", "has_body"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", False),
        (b"HEAD / HTTP/3.0\r\n", False),
        (b"HEAD /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"%41" * 6000), False),
        (GET.replace(b"GET", b"HEAD") + b"GET / HTTP/1.1\r\n\r\n", True),
    ],
)
async def test_what_is_refused_has_no_body_by_head(data: bytes, has_body: bool) -> None:
    async with serving_by(echo) as server, raw_client(server.port) as client:
        await client.send(data)
        await client.read_to_end()
    head, _, body = client.received.rpartition(b"\r\n\r\n")
    assert b"\r\nContent-Length: " in head
    assert bool(body) is has_body


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/3.0\r\n", b"GET /\r\n", b"\r\n\r\n", b"GET / HTTP/1.1 \r\nHost: a"]
)
async def test_a_first_line_that_is_none_is_refused_before_its_head_has_ended(line: bytes) -> None:
    assert await is_refused(echo, line) in (400, 505)


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_a_target_in_absolute_form_says_which_host_is_asked(version: str) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, f"{request.headers.all('host')} {request.path}")

    async with serving_by(handler) as server, raw_client(server.port) as client:
        await client.send(f"GET http://elsewhere:1/x?y {version}\r\nHost: localhost\r\nX: y\r\n\r\n".encode())
        assert await answers(client, b"GET") == [(200, b"['elsewhere:1'] /x")]


async def test_a_body_that_is_malformed_is_400_and_nothing_behind_it_is_read() -> None:
    data = post(b"3\r\nabcX\r\n", "Transfer-Encoding: chunked") + GET
    assert await is_refused(echo, data) == 400


@given(pieces=st.lists(st.binary(max_size=40) | st.sampled_from([GET, GET[:-2], b"\r\n", b"POST / HTTP/1.1\r\n",
       b"Host: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n",
       b"Expect: 100-continue\r\n"]), max_size=12))  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_nothing_escapes_and_the_next_client_is_served(pieces: list[bytes]) -> None:
    escaped: list[object] = []

    async def converse() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
        async with serving_by(echo) as server:
            async with raw_client(server.port) as client:
                for piece in pieces:
                    await client.send(piece)
                client.writer.write_eof()
                await client.read_to_end()
            async with raw_client(server.port) as client:
                await client.send(GET)
                assert await answers(client, b"GET") == [(200, b"GET / ")]

    asyncio.run(converse())
    assert not escaped


async def test_behind_a_request_that_is_handled_little_more_is_read() -> None:
    may_end = asyncio.Event()

    async def slow(_: Request) -> Response:
        await may_end.wait()
        return Response()

    async with serving_by(slow) as server, raw_client(server.port) as client:
        client.writer.write(GET * 2_000_000)
        await asyncio.sleep(5.0)
        assert client.writer.transport.get_write_buffer_size() > 32_000_000
        client.writer.transport.abort()
        may_end.set()


# Bodies that nobody wants


async def test_a_body_that_no_handler_reads_is_dropped_and_the_connection_goes_on() -> None:
    async with serving_by(unread) as server, raw_client(server.port) as client:
        await client.send(post(b"x" * 300_000, "Content-Length: 300000") + GET)
        assert await answers(client, b"POST", b"GET") == [(200, b"POST /x"), (200, b"GET /")]


async def test_a_client_that_ends_with_an_unread_body_is_not_waited_for() -> None:
    loop = asyncio.get_running_loop()
    async with serving_by(unread) as server, raw_client(server.port) as client:
        await client.send(post(b"b", "Content-Length: 4"))
        assert await answers(client, b"POST") == [(200, b"POST /x")]
        began = loop.time()
        client.writer.write(b"ody")
        client.writer.write_eof()
        await client.read_to_end()
        assert loop.time() - began < LINGER_SECONDS / 2


async def test_a_body_without_an_end_does_not_hold_its_connection() -> None:
    loop = asyncio.get_running_loop()
    async with serving_by(unread) as server, raw_client(server.port) as client:
        began = loop.time()
        await client.send(post(b"x", "Content-Length: 300000"))
        await client.read_to_end()
        assert await answers(client, b"POST") == [(200, b"POST /x")]
        assert loop.time() - began == pytest.approx(LINGER_SECONDS, abs=0.3)
        await asyncio.sleep(LINGER_SECONDS)
        assert server.connection_count == 0


async def test_of_many_bodies_one_piece_is_read_in_a_turn() -> None:
    turns_of_pieces: list[int] = []
    turn = 0

    async def handler(request: Request) -> Response:
        while await request.client.read():
            turns_of_pieces.append(turn)
        return Response()

    def next_turn() -> None:
        nonlocal turn, counting
        turn += 1
        counting = loop.call_soon(next_turn)

    loop = asyncio.get_running_loop()
    counting = loop.call_soon(next_turn)
    data = post(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n", "Transfer-Encoding: chunked", "Connection: close")
    async with serving_by(handler) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(server.port)) for _ in range(9)]
        for client in clients:
            client.writer.write(data)
        for client in clients:
            await client.read_to_end()
    counting.cancel()
    assert len(turns_of_pieces) > 40
    assert len(set(turns_of_pieces)) == len(turns_of_pieces)


async def test_behind_what_is_refused_little_is_dropped() -> None:
    async with serving_by(unread) as server, raw_client(server.port) as client:
        await client.send(b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n")
        client.writer.write(b"x" * 64_000_000)
        await asyncio.sleep(LINGER_SECONDS / 2)
        assert client.writer.transport.get_write_buffer_size() > 32_000_000
        assert await client.reader.readuntil(b"\r\n") == b"HTTP/1.1 400 Bad Request\r\n"
        client.writer.transport.abort()


async def test_whoever_asks_whether_to_send_is_told_only_if_somebody_reads() -> None:
    head = post(b"", "Content-Length: 4", "Expect: 100-continue")
    async with serving_by(echo) as server, raw_client(server.port) as client:
        await client.send(head)
        while b"100 Continue\r\n\r\n" not in client.received:
            await client.read_some()
        await client.send(b"body")
        while b"POST /x body" not in client.received:
            await client.read_some()
    async with serving_by(unread) as server, raw_client(server.port) as client:
        await client.send(head)
        (answer,) = await client.responses([b"POST"])
        assert (answer.status, answer.value(b"connection")) == (200, b"close")
        assert b"100 Continue" not in client.received


async def test_a_client_that_leaves_amid_its_body_ends_who_reads_it() -> None:
    ended = asyncio.Event()

    async def reading(request: Request) -> Response:
        try:
            while await request.client.read():
                pass
        finally:
            ended.set()
        return Response()

    async with serving_by(reading) as server:
        async with raw_client(server.port) as client:
            await client.send(post(b"x", "Content-Length: 4"))
        async with asyncio.timeout(1.0):
            await ended.wait()
        await asyncio.sleep(0.1)
        assert server.connection_count == 0


@pytest.mark.parametrize("handler", [echo, unread])
async def test_whoever_sends_no_body_keeps_nobody_out(handler: Handler) -> None:
    async with serving_by(handler) as server, contextlib.AsyncExitStack() as stack:
        server.max_connections = 3
        clients = [await stack.enter_async_context(raw_client(server.port)) for _ in range(3)]
        for client in clients:
            await client.send(post(b"b", "Content-Length: 4"))
            await asyncio.sleep(0.1)
        async with raw_client(server.port) as honest:
            await honest.send(GET)
            assert (await honest.responses([b"GET"]))[0].status == 200
        await clients[0].read_to_end()
        assert b"\r\n\r\nPOST /x b" not in clients[0].received
        await clients[1].send(b"ody" + GET)
        assert [one[0] for one in await answers(clients[1], b"POST", b"GET")] == [200, 200]
        assert server.connection_count == 2


# What is answered


async def test_old_clients_and_those_who_end_their_side_get_their_answer() -> None:
    async with serving_by(unread) as server:
        async with raw_client(server.port) as client:
            await client.send(b"GET /old HTTP/1.0\r\n\r\n")
            await client.read_to_end()
            assert client.received.endswith(b"Connection: close\r\n\r\nGET /old")
        async with raw_client(server.port) as client:
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
            while client.received.count(b"Connection: keep-alive\r\n\r\nGET /") < 2:
                await client.read_some()
        async with raw_client(server.port) as client:
            client.writer.write(GET)
            client.writer.write_eof()
            await client.read_to_end()
            assert await answers(client, b"GET") == [(200, b"GET /")]


@pytest.mark.parametrize("handler", [echo, unread])
@pytest.mark.parametrize(
    "behind", [b"", b"\r\n", GET[:-1], b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nbo"]
)
async def test_who_ends_its_side_is_answered_all_that_it_has_sent_before(
    handler: Handler, behind: bytes
) -> None:
    loop = asyncio.get_running_loop()
    async with serving_by(handler) as server, raw_client(server.port) as client:
        began = loop.time()
        client.writer.write(GET + post(b"body", "Content-Length: 4") + GET + behind)
        client.writer.write_eof()
        await client.read_to_end()
        assert client.received.count(b"HTTP/1.1 200 OK") >= 3
        assert client.received.count(b"GET /") == 2
        assert b"POST /x" in client.received
        assert loop.time() - began < LINGER_SECONDS / 2


async def test_head_and_304_have_no_body_and_every_answer_says_when_and_who() -> None:
    async def handler(request: Request) -> Response:
        return Response(304 if request.path == "/kept" else 200, b"abc", fields={"ETag": '"x"'})

    async with serving_by(handler) as server, raw_client(server.port) as client:
        await client.send(GET.replace(b"GET", b"HEAD") + GET.replace(b"/ ", b"/kept ") + GET)
        head, kept, whole = await client.responses([b"HEAD", b"GET", b"GET"])
    assert (head.status, head.body, head.value(b"content-length")) == (200, b"", b"3")
    assert (kept.status, kept.body, kept.values(b"content-type")) == (304, b"", [])
    assert whole.body == b"abc"
    for one in (head, kept, whole):
        assert (one.value(b"server"), one.value(b"etag")) == (b"sidecar", b'"x"')
        assert (one.value(b"date") or b"").endswith(b" GMT")


async def test_pieces_go_out_as_chunks_and_to_an_old_client_until_the_end() -> None:
    async def pieces(request: Request) -> None:
        await request.client.begin(Response())
        for piece in (b"one", b"", b"two"):
            await request.client.write(piece)

    async with serving_by(pieces) as server:
        async with raw_client(server.port) as client:
            await client.send(GET * 2)
            first, second = await client.responses([b"GET", b"GET"])
            assert (first.body, second.body, first.is_chunked) == (b"onetwo", b"onetwo", True)
        async with raw_client(server.port) as client:
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            await client.read_to_end()
            assert client.received.endswith(b"\r\n\r\nonetwo")


async def test_a_handler_that_breaks_is_logged_and_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(request: Request) -> Response:
        if request.path == "/bad":
            raise LookupError("no such thing")
        return Response(200, b"", fields={"X": "a\r\nb" if request.path == "/split" else "a"})

    with caplog.at_level(logging.ERROR):
        async with serving_by(breaks) as server:
            async with raw_client(server.port) as client:
                await client.send(GET.replace(b"/ ", b"/bad ") + GET)
                assert [one[0] for one in await answers(client, b"GET", b"GET")] == [500, 200]
            async with raw_client(server.port) as client:
                await client.send(GET.replace(b"/ ", b"/split "))
                await client.read_to_end()
                assert client.received == b""
            assert server.connection_count == 0
    assert ["GET /bad broke off" in one.message for one in caplog.records] == [True, False]


@pytest.mark.parametrize(
    ("line", "status", "allowed", "matched"),
    [
        ("GET /fixed", 200, None, {}),
        ("GET /fix%65d?x=%zz", 200, None, {}),
        ("HEAD /fixed", 200, None, {}),
        ("POST /fixed", 405, b"GET,HEAD", {}),
        ("DELETE /of/a/b", 405, b"GET,POST", {}),
        ("GET /of/a%2Fb/c%20d", 200, None, {"one": "a/b", "two": "c d"}),
        ("HEAD /of/a/b", 405, b"GET,POST", {}),
        ("GET /of/a/", 404, None, {}),
        ("GET /of/a", 404, None, {}),
        ("GET /%2Ffixed", 404, None, {}),
        ("GET /fixed/", 404, None, {}),
        ("OPTIONS *", 404, None, {}),
        ("GET http://elsewhere/fixed", 200, None, {}),
    ],
)
async def test_paths_and_methods(
    line: str, status: int, allowed: bytes | None, matched: dict[str, str]
) -> None:
    seen: list[dict[str, str]] = []

    async def keep(request: Request) -> Response:
        seen.append(dict(request.matched))
        return Response()

    routes = Routes()
    routes.get("/fixed", keep)
    routes.get("/of/{one}/{two}", keep, has_head=False)
    routes.post("/of/{one}/{two}", keep)
    method, _, target = line.partition(" ")
    async with serving_by(routes.dispatch) as server, raw_client(server.port) as client:
        await client.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        (answer,) = await client.responses([method.encode()])
    assert (answer.status, answer.value(b"allow"), seen) == (
        status,
        allowed,
        [matched] if status == 200 else [],
    )


async def test_an_answer_that_breaks_off_looks_broken_to_its_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(request: Request) -> None:
        await request.client.begin(Response())
        await request.client.write(b"half")
        raise LookupError("no such thing")

    async with serving_by(breaks) as server, raw_client(server.port) as client:
        await client.send(GET)
        await client.read_to_end()
    assert client.received.endswith(b"\r\n4\r\nhalf\r\n")
    assert ["GET / broke off" in one.message for one in caplog.records] == [True]


async def test_a_connection_error_of_the_handlers_own_is_a_bug_like_any_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(_: Request) -> Response:
        raise ConnectionRefusedError("somebody else's connection")

    async with serving_by(breaks) as server, raw_client(server.port) as client:
        await client.send(GET)
        assert [one[0] for one in await answers(client, b"GET")] == [500]
    assert ["GET / broke off" in one.message for one in caplog.records] == [True]


async def test_what_a_handler_sends_itself_may_close_too() -> None:
    async def handler(request: Request) -> None:
        response = Response(200, b"last")
        response.closes = True
        await request.client.send(response)

    async with serving_by(handler) as server, raw_client(server.port) as client:
        await client.send(GET * 2)
        await client.read_to_end()
        (answer,) = await client.responses([b"GET", b"GET"])
    assert (answer.body, answer.value(b"connection")) == (b"last", b"close")


# Clients that leave, on the loop that serves (uvloop)


async def a_while() -> None:
    """In which the loop turns often, however long each turn takes: real time alone says nothing of that."""
    for _ in range(40):
        await asyncio.sleep(0.002)


async def resetting(port: int, data: bytes) -> socket.socket:
    """A client that has sent this, and whose end is a reset."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, data)
    return sock


def test_whoever_has_left_before_he_was_accepted_is_nobody(caplog: pytest.LogCaptureFixture) -> None:
    known: list[object] = []

    async def handler(request: Request) -> Response:
        about = request.client.about
        known.extend(
            [request.remote, about("sockname"), about("peercert"), request_facts.peer_process(request)]
        )
        return Response()

    async def converse() -> None:
        async with serving_by(handler) as server:
            sock = await resetting(server.port, GET)
            sock.close()  # before the loop, which has not turned, has accepted it
            with socket.create_server(("127.0.0.1", 0)) as listening:
                sock = await resetting(listening.getsockname()[1], b"")
                accepted, _ = listening.accept()
                accepted.setblocking(False)
                sock.close()
                server.adopt(accepted, GET)
            await a_while()
            assert server.connection_count == 0

    uvloop.run(converse())
    assert len(known) >= 4
    assert caplog.records == []


def connect(sock: socket.socket, port: int, data: bytes) -> None:
    """By the kernel alone: a loop may open files for it, and import modules. Sends this."""
    sock.connect(("127.0.0.1", port))
    sock.sendall(data)
    sock.setblocking(False)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_comes_while_no_file_can_be_opened_waits_until_one_can(
    run: Callable[[Coroutine[None, None, None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def converse() -> None:
        loop = asyncio.get_running_loop()
        async with serving_by(unread) as server:
            with socket.socket() as early, socket.socket() as late:
                with open_files(3):  # not even where one is closed for it
                    for sock in (early, late):
                        connect(sock, server.port, GET)
                        await a_while()
                for sock in (early, late):
                    assert (await loop.sock_recv(sock, 1000)).startswith(b"HTTP/1.1 200")

    run(converse())
    assert caplog.records == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_where_every_file_is_taken_one_client_after_the_other_is_answered(
    run: Callable[[Coroutine[None, None, None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def converse() -> None:
        loop = asyncio.get_running_loop()
        async with serving_by(unread) as server:
            with contextlib.ExitStack() as all_of_them:
                idle, *clients = [all_of_them.enter_context(socket.socket()) for _ in range(6)]
                connect(idle, server.port, b"")
                await a_while()
                all_of_them.enter_context(every_file_taken())
                for sock in clients:
                    connect(sock, server.port, GET)
                for sock in clients:
                    assert (await loop.sock_recv(sock, 1000)).startswith(b"HTTP/1.1 200")
                assert await loop.sock_recv(idle, 1) == b""  # its file was needed for somebody else

    run(converse())
    assert caplog.records == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_unix_socket_that_is_left_to_another_process_keeps_its_file(
    run: Callable[[Coroutine[None, None, None]], None], tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"

    async def converse() -> None:
        server = HttpServer("admin.address", end_seconds=1.0)
        server.start(unread, Address("", 0, str(path)))
        assert server.listening is not None
        with server.listening.dup():
            server.leave()
            await a_while()
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
        await server.stop()
        assert path.exists()

    run(converse())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_reset_behind_the_last_answer_leaves_nothing(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    escaped: list[object] = []

    async def converse() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
        socks: list[socket.socket] = []

        async def handler(request: Request) -> None:
            await request.client.send(Response())
            socks[0].close()

        async with serving_by(handler) as server:
            socks.append(await resetting(server.port, GET.replace(b"Host", b"Connection: close\r\nHost")))
            await a_while()
            assert (socks[0].fileno(), server.connection_count) == (-1, 0)
        gc.collect()

    run(converse())
    assert not escaped


def test_however_much_has_come_one_read_takes_little_of_it() -> None:
    sizes: list[int] = []

    async def converse() -> None:
        socks: list[socket.socket] = []
        is_done = asyncio.Event()

        async def handler(request: Request) -> Response:
            while sum(sizes) < 20_000_000:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        socks[0].send(b"x" * 1_000_000)
                sizes.append(len(await request.client.read()))
            is_done.set()
            return Response()

        async with serving_by(handler) as server:
            socks.append(await resetting(server.port, post(b"", "Content-Length: 99000000")))
            async with asyncio.timeout(30.0):
                await is_done.wait()
            socks[0].close()

    uvloop.run(converse())
    assert max(sizes) <= 160_000


def test_an_answer_that_many_do_not_take_is_in_memory_once() -> None:
    body = b"x" * 8_000_000

    async def handler(_: Request) -> Response:
        return Response(200, body)

    async def converse() -> int:
        async with serving_by(handler) as server:
            tracemalloc.start()
            socks = [await resetting(server.port, GET) for _ in range(9)]
            await a_while()
            grown, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert server.connection_count == len(socks)
            for sock in socks:
                sock.close()
            return grown

    assert uvloop.run(converse()) < len(body)


def test_a_connection_that_has_ended_is_not_left_to_the_garbage_collector() -> None:
    async def converse() -> None:
        ends: list[weakref.ref[object]] = []

        async def handler(request: Request) -> Response:
            ends.append(weakref.ref(request.client))
            return Response()

        gc.collect()
        gc.disable()
        async with serving_by(handler) as server:
            async with raw_client(server.port) as client:
                await client.send(GET)
                await client.responses([b"GET"])
            await a_while()
            assert (server.connection_count, [one() for one in ends]) == (0, [None])

    try:
        uvloop.run(converse())
    finally:
        gc.enable()


# Its end


@asynccontextmanager
async def at_work(handler: Handler) -> AsyncIterator[tuple[HttpServer, RawClient]]:
    """One request is under way."""
    server = HttpServer("probes.address", end_seconds=1.0)
    server.start(handler, Address("127.0.0.1", 0))
    async with raw_client(server.port) as client:
        await client.send(GET)
        await asyncio.sleep(0.1)
        yield server, client
    await server.stop()


async def test_the_end_waits_for_an_answer_that_comes_in_time() -> None:
    async def soon(_: Request) -> Response:
        await asyncio.sleep(0.5)
        return Response(200, b"done")

    async with at_work(soon) as (server, client):
        await server.stop()
        (answer,) = await client.responses([b"GET"])
        assert (answer.body, answer.value(b"connection")) == (b"done", b"close")


async def test_the_end_cuts_an_answer_that_comes_too_late() -> None:
    async def never(_: Request) -> Response:
        await asyncio.Event().wait()
        return Response()

    loop = asyncio.get_running_loop()
    async with at_work(never) as (server, client):
        began = loop.time()
        await server.stop()
        await client.read_to_end()
        assert (loop.time() - began, client.received) == (pytest.approx(1.0, abs=0.1), b"")


async def test_an_idle_connection_and_a_begun_head_have_their_time() -> None:
    loop = asyncio.get_running_loop()
    async with serving_by(unread) as server, raw_client(server.port) as client:
        await client.send(GET)
        await client.responses([b"GET"])
        await asyncio.sleep(IDLE_SECONDS - 1.0)
        assert server.connection_count == 1
        began = loop.time()
        await client.send(GET[:10])
        await client.read_to_end()
        assert loop.time() - began == pytest.approx(HEAD_SECONDS, abs=0.1)


STATES = {
    "silent": b"",
    "amid a head": GET[:9],
    "idle": GET,
    "handled": GET.replace(b"/ ", b"/never "),
    "amid a body that is read": post(b"x", "Content-Length: 9", path="/read"),
    "amid a body that is dropped": post(b"x", "Content-Length: 9"),
    "amid an answer that is not taken": GET.replace(b"/ ", b"/stream "),
    "refused": b"no head\r\n\r\n" + b"x" * 100_000,
}


async def in_each_state(request: Request) -> Response | None:
    if request.path == "/read":
        return await echo(request)
    if request.path == "/never":
        await asyncio.Event().wait()
    if request.path != "/stream":
        return Response()
    await request.client.begin(Response())
    while True:
        await request.client.write(b"x" * 100_000)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_the_end_leaves_nothing_in_whatever_state_a_connection_is(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    escaped: list[object] = []

    async def converse() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
        server = HttpServer("probes.address", end_seconds=0.05)
        for state, data in STATES.items():
            server.start(in_each_state, Address("127.0.0.1", 0))
            with await resetting(server.port, data):
                await a_while()
                assert server.connection_count == 1, state
                await server.stop()
                assert server.connection_count == 0, state
                assert asyncio.all_tasks() == {asyncio.current_task()}, state

    run(converse())
    gc.collect()
    assert not escaped


# By TLS


@asynccontextmanager
async def by_tls(
    handler: Handler, directory: Path
) -> AsyncIterator[tuple[HttpServer, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server, and a connection to it."""
    certificates = Certificates(directory)
    files = certificates.pair("server", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    server = HttpServer("probes.address", end_seconds=1.0, tls=lambda: context)
    server.start(handler, Address("127.0.0.1", 0))
    trusting = ssl.create_default_context(cafile=certificates.ca)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=trusting, server_hostname="localhost"
    )
    try:
        yield server, reader, writer
    finally:
        writer.transport.abort()
        await server.stop()


async def test_the_last_answer_by_tls_ends_its_connection_at_once(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with by_tls(echo, tmp_path) as (server, reader, writer):
        began = loop.time()
        writer.write(post(b"body", "Content-Length: 4") + post(b"", "Content-Length: 0", "Connection: close"))
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2
        assert loop.time() - began < LINGER_SECONDS / 2
        writer.close()
        await asyncio.sleep(0.1)
        assert server.connection_count == 0


async def test_a_large_last_answer_by_tls_has_time_to_be_taken(tmp_path: Path) -> None:
    size = 16_000_000

    async def large(_: Request) -> Response:
        return Response(200, b"x" * size)

    async with by_tls(large, tmp_path) as (_, reader, writer):
        writer.write(GET.replace(b"Host", b"Connection: close\r\nHost"))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(2 * LINGER_SECONDS)
        assert len(await reader.read()) == size


async def test_the_end_cuts_a_client_by_tls_that_says_nothing_to_it(tmp_path: Path) -> None:
    async with by_tls(unread, tmp_path) as (server, _, writer):
        await asyncio.sleep(0.1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # so it never answers the end
        await server.stop()
        await asyncio.sleep(0.1)
        assert server.connection_count == 0


async def test_a_refused_request_by_tls_is_told_so_while_more_of_it_comes(tmp_path: Path) -> None:
    async with by_tls(unread, tmp_path) as (_, reader, writer):
        writer.write(b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * 3_000_000)
        assert b" 400 " in await reader.readuntil(b"\r\n")
