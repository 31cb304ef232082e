"""`Expect: 100-continue` is answered by the upstream, so a rejected request never sends its body."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.stage import OK, Stage, stage
from tests.support.raw import RawPeer, raw_client, turns

HEAD = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def continuing(peer: RawPeer) -> None:
    """Ask for the body, take it, say ok; and so on."""
    while True:
        await peer.head()
        if not peer.rest:
            return
        await peer.send(CONTINUE)
        await peer.request()
        await peer.send(OK)


async def rejecting(peer: RawPeer) -> None:
    """Answer from the head alone."""
    await peer.head()
    await peer.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
    while await peer.read_some():
        pass


async def test_the_body_goes_when_the_upstream_asks_for_it() -> None:
    async with stage(continuing) as to, raw_client(to.port) as client:
        for number in range(2):
            await client.send(HEAD)
            while client.received.count(CONTINUE) <= number:
                await client.read_some()
            assert not to.app.peers[0].rest.endswith(b"body")
            await client.send(b"body")
            while len(to.requests) <= number:
                await turns()
            response = (await client.responses([b"PUT"] * (number + 1)))[-1]
            assert (response.interims, response.status, response.body) == ([(100, [])], 200, b"ok")
        assert [(seen.body, seen.value(b"expect")) for seen in to.requests] == [
            (b"body", b"100-continue")
        ] * 2
        assert len(to.app.peers) == 1


async def test_a_rejected_request_never_sends_its_body() -> None:
    async with stage(rejecting) as to, raw_client(to.port) as client:
        await client.send(HEAD)
        await client.read_to_end()
        (response,) = await client.responses([b"PUT"])
        assert (response.status, response.body, response.interims) == (417, b"no", [])
        assert response.value(b"connection") == b"close"
        assert to.app.received.endswith(b"\r\n\r\n")
        assert to.cluster.connections == 0


async def test_a_client_that_does_not_wait_sends_its_body_with_the_head() -> None:
    async with stage(continuing) as to, raw_client(to.port) as client:
        await client.send(HEAD + b"body")
        (response,) = await client.responses([b"PUT"])
        assert (response.status, to.requests[0].body) == (200, b"body")


async def refused_by_no_route(to: Stage) -> bytes:
    return HEAD.replace(b"PUT /", b"PUT /elsewhere")


async def refused_by_deadline(to: Stage) -> bytes:
    return HEAD.replace(b"\r\n\r\n", b"\r\nx-request-timeout-ms: 0\r\n\r\n")


async def refused_by_breaker(to: Stage) -> bytes:
    for _ in range(5):
        await to.ask()
    return HEAD


@pytest.mark.parametrize(
    ("prepare", "status"), [(refused_by_no_route, 404), (refused_by_deadline, 504), (refused_by_breaker, 503)]
)
async def test_a_request_that_the_sidecar_refuses_never_sends_its_body(prepare, status: int) -> None:  # type: ignore[no-untyped-def]
    async def failing(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")

    async with stage(failing, route="match: {path: {exact: /}}") as to:
        data = await prepare(to)
        before = len(to.requests)
        async with raw_client(to.port) as client:
            await client.send(data)
            await client.read_to_end()
            (response,) = await client.responses([b"PUT"])
            assert (response.status, response.interims) == (status, [])
            assert response.value(b"connection") == b"close"
        assert len(to.requests) == before


async def test_an_upstream_that_never_says_continue_is_cut_at_the_deadline() -> None:
    async def silent(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async with stage(silent, route="timeouts: {request: 1s}") as to, raw_client(to.port) as client:
        began = asyncio.get_running_loop().time()
        await client.send(HEAD)
        (response,) = await client.responses([b"PUT"])
        assert response.status == 504
        assert asyncio.get_running_loop().time() - began == pytest.approx(1, abs=0.03)


async def test_an_expectation_of_an_http_1_0_client_is_ignored() -> None:
    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            assert request.value(b"expect") is None
            await peer.send(OK)

    async with stage(script) as to:
        response = await to.ask(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"body", b"PUT")
        assert (response.status, to.requests[0].body) == (200, b"body")
