"""A listener that has as many connections as `limits.connections` allows: who comes is answered 503 and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sidecar.forwarding.visitors import MOST_VISITORS
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
from tests.scenarios.stage import GET, Stage, get, inbound, stage
from tests.support.authority import Authority
from tests.support.proxy import port
from tests.support.raw import RawClient, raw_client, turns
from tests.support.tls_client import tls_client

BUSY = 2
FULL = inbound(f"limits: {{connections: {BUSY}}}")


@asynccontextmanager
async def full(header: str = FULL) -> AsyncIterator[tuple[Stage, list[RawClient]]]:
    """Every connection that the listener may have waits for its answer."""
    async with waiting(BUSY, header) as (to, clients):
        yield to, clients


async def test_who_comes_beyond_it_is_answered_503_and_counted_until_somebody_goes() -> None:
    async with full() as (to, busy):
        listener = to.worker.listeners["inbound"]
        for number in range(1, 4):
            response = await to.ask()
            assert is_told(response)
            assert b"limits.connections" in response.body
            assert listener.refused_connections == number
        assert len(to.requests) == BUSY, "no upstream was asked"
        assert to.metric('sidecar_listener_refused_total{sidecar_listener="inbound"}') == 3
        assert listener.turned_away == 0, "it is no lack of open files"
        await leave(to, busy[0])
        assert (await to.ask()).status == 200
        assert listener.refused_connections == 3


async def test_another_listener_takes_clients_meanwhile() -> None:
    async with full() as (to, _), raw_client(port(to.worker, "outbound")) as client:
        await client.send(GET)
        assert [one.status for one in await client.responses([b"GET"])] == [404], "it has no route"


async def test_those_who_are_told_so_take_no_place_from_who_comes_when_there_is_one() -> None:
    async with full() as (to, busy), AsyncExitStack() as stack:
        for _ in range(MOST_VISITORS):
            await stack.enter_async_context(raw_client(to.port))
        listener = to.worker.listeners["inbound"]
        while listener.refused_connections < MOST_VISITORS:
            await turns()
        await leave(to, busy[0])
        assert (await to.ask()).status == 200


@pytest.mark.parametrize("data", BEGUN)
async def test_what_was_only_begun_does_not_keep_its_place(data: bytes) -> None:
    async with full() as (to, busy):
        await assert_begun_is_not_kept(to, busy, data)


async def test_hundreds_who_say_nothing_keep_nobody_from_an_answer_and_are_few_at_a_time() -> None:
    async with full() as (to, busy):
        await assert_silent_ones_keep_nobody_out(to, busy)


async def test_by_http2_the_first_request_is_answered_503_and_the_connection_ends() -> None:
    async with full() as (to, busy):
        await assert_told_by_http2(to, busy)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_by_tls_the_handshake_is_made_and_the_request_answered_503(
    tmp_path: Path, protocol: str
) -> None:
    authority = Authority(tmp_path)
    certificates = f"tls: {{certificates: [{authority.pair('a.test').yaml()}]}}"
    header = inbound(f"limits: {{connections: 1}}, {certificates}")
    async with stage(answer_but_never, header=header) as to, AsyncExitStack() as stack:
        busy = await stack.enter_async_context(tls_client(to.port, authority.client()))
        await busy.send(NEVER)
        while not to.requests:
            await turns()
        async with tls_client(to.port, authority.client(alpn=(protocol,))) as client:
            assert client.tls.selected_alpn_protocol() == protocol
            assert await is_told_by_tls(client)
        assert to.worker.listeners["inbound"].refused_connections == 1


async def test_in_an_overload_too_who_comes_is_answered_at_once() -> None:
    async with full() as (to, busy):
        await assert_told_in_overload(to, busy)


async def test_in_a_drain_no_more_than_a_few_of_those_who_wait_are_told_and_the_others_are_closed() -> None:
    async with full() as (to, _), AsyncExitStack() as stack:
        listener = to.worker.listeners["inbound"]
        waiting = [await stack.enter_async_context(raw_client(to.port)) for _ in range(4 * MOST_VISITORS)]
        for client in waiting:
            await client.send(get())
        listener.stop_accepting()
        for client in waiting:
            await client.read_to_end()
        told = [client for client in waiting if client.received.startswith(b"HTTP/1.1 503 ")]
        assert len(told) >= MOST_VISITORS
        assert all(not client.received or client in told for client in waiting)
        assert listener.refused_connections == len(waiting)
