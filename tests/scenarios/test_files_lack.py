"""At the limit of open files who comes is answered 503 at once: nobody is left waiting in the kernel's queue."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sidecar.downstream.phase import LAST_CALL_SECONDS
from tests.scenarios.lacking import (
    BEGUN,
    NEVER,
    answer_but_never,
    assert_begun_is_not_kept,
    assert_silent_ones_keep_nobody_out,
    assert_told_by_http2,
    assert_told_in_overload,
    is_told,
    is_told_by_tls,
    leave,
    waiting,
)
from tests.scenarios.stage import GET, Stage, inbound, stage
from tests.support.authority import Authority
from tests.support.open_files import every_file_taken
from tests.support.proxy import HEADER
from tests.support.raw import RawClient, raw_client, turns
from tests.support.tls_client import tls_client


@asynccontextmanager
async def full(busy: int = 2, header: str = HEADER) -> AsyncIterator[tuple[Stage, list[RawClient]]]:
    """There are files for `busy` clients, all of whom wait for their answers."""
    async with waiting(busy, header) as (to, clients):
        to.worker.service.max_open_connections = busy
        yield to, clients


# Who comes


async def test_who_comes_beyond_the_open_files_is_answered_503_until_somebody_goes() -> None:
    async with full() as (to, busy):
        socket_ = to.worker.listeners["inbound"]
        for number in range(1, 4):
            assert is_told(await to.ask())
            assert socket_.turned_away == number
        assert len(to.requests) == len(busy), "no upstream was asked"
        assert to.metric("sidecar_listener_turned_away_total") == 3
        await leave(to, busy[0])
        assert (await to.ask()).status == 200
        assert socket_.turned_away == 3
        busy[1].writer.close()


async def test_a_request_with_a_body_is_answered_503_too() -> None:
    async with full() as (to, _):
        data = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        assert is_told(await to.ask(data, b"POST"))


@pytest.mark.parametrize("data", BEGUN)
async def test_what_was_only_begun_does_not_keep_its_place(data: bytes) -> None:
    async with full() as (to, busy):
        await assert_begun_is_not_kept(to, busy, data)


async def test_an_idle_connection_goes_first_and_the_newcomer_is_served() -> None:
    async with full(busy=3) as (to, busy):
        to.worker.service.max_open_connections += 1
        async with raw_client(to.port) as idle:
            await idle.send(GET)
            assert [one.status for one in await idle.responses([b"GET"])] == [200]
            assert is_told(await to.ask()), "what follows an answer may be on its way"
            await asyncio.sleep(2 * LAST_CALL_SECONDS)  # virtual
            assert (await to.ask()).status == 200
            await idle.read_to_end()
        assert to.worker.listeners["inbound"].turned_away == 1
        assert all(not client.received for client in busy)


async def test_an_idle_connection_is_found_behind_hundreds_that_are_not() -> None:
    async with full(busy=300) as (to, _):
        to.worker.service.max_open_connections += 1
        async with raw_client(to.port) as idle:
            await idle.send(GET)
            assert [one.status for one in await idle.responses([b"GET"])] == [200]
            await asyncio.sleep(2 * LAST_CALL_SECONDS)  # virtual
            answers = [await to.ask() for _ in range(3)]
            assert answers[-1].status == 200
            await idle.read_to_end()


async def test_hundreds_who_say_nothing_keep_nobody_from_an_answer() -> None:
    async with full() as (to, busy):
        await assert_silent_ones_keep_nobody_out(to, busy)


# By HTTP/2 and TLS


async def test_by_http2_the_first_request_is_answered_503_and_the_connection_ends() -> None:
    async with full() as (to, busy):
        await assert_told_by_http2(to, busy)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_by_tls_the_handshake_is_made_and_the_request_answered_503(
    tmp_path: Path, protocol: str
) -> None:
    authority = Authority(tmp_path)
    context = authority.client(alpn=(protocol,))
    header = inbound(f"tls: {{certificates: [{authority.pair('a.test').yaml()}]}}")
    async with stage(answer_but_never, header=header) as to, AsyncExitStack() as stack:
        busy = await stack.enter_async_context(tls_client(to.port, authority.client()))
        await busy.send(NEVER)
        while not to.requests:
            await turns()
        to.worker.service.max_open_connections = 1
        async with tls_client(to.port, context) as client:
            assert client.tls.selected_alpn_protocol() == protocol
            assert await is_told_by_tls(client)
        assert to.worker.listeners["inbound"].turned_away == 1


async def test_in_an_overload_too_who_comes_is_answered_at_once() -> None:
    async with full() as (to, busy):
        await assert_told_in_overload(to, busy)


# No open file at all


async def ask_with(peer: socket.socket, port: int) -> bytes:
    """The answer to one request by a socket that is there already."""
    loop = asyncio.get_running_loop()
    peer.setblocking(False)
    await loop.sock_connect(peer, ("127.0.0.1", port))
    await loop.sock_sendall(peer, GET)
    answer = b""
    while more := await loop.sock_recv(peer, 4096):
        answer += more
    return answer


async def test_without_any_open_file_who_comes_is_answered_503_until_there_are_some() -> None:
    async with stage(answer_but_never) as to:
        listener, visitors = to.worker.listeners["inbound"], to.worker.service.beside.visitors
        peers = [socket.socket() for _ in range(3)]
        with every_file_taken():  # both ends are in this process
            for peer in peers:
                answer = await ask_with(peer, to.port)
                assert answer.startswith(b"HTTP/1.1 503 "), answer
                assert b"error=connection_limit_reached" in answer
            assert listener.turned_away == len(peers)
        for peer in peers:
            peer.close()
        assert (await to.ask()).status == 200
        assert not visitors.is_short_of_files
        assert listener.turned_away == len(peers)
