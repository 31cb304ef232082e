"""What stands before a sidecar that has nothing left to serve another client with, and how that one is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from sidecar.forwarding.visitors import MOST_VISITORS
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import DataReceived, GoawayReceived, ResponseReceived
from tests.scenarios.stage import OK, Stage, get, stage
from tests.support.raw import RawClient, RawPeer, Response, raw_client, turns
from tests.support.tls_client import TlsClient

NEVER = get(b"/never")
PSEUDO = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/"))
BEGUN = [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", b"PRI * HTTP/2"]


async def answer_but_never(peer: RawPeer) -> None:
    """`/never` is not answered; the script ends when the sidecar closes the connection."""
    while (request := await peer.request()) is not None:
        if request.target == b"/never":
            while await peer.read_some():
                pass
            return
        await peer.send(OK)


@asynccontextmanager
async def waiting(count: int, header: str) -> AsyncIterator[tuple[Stage, list[RawClient]]]:
    """So many clients, each of which waits for its answer."""
    async with stage(answer_but_never, header=header) as to, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(to.port)) for _ in range(count)]
        for client in clients:
            await client.send(NEVER)
        while len(to.requests) < count:
            await turns()
        yield to, clients


def is_told(response: Response) -> bool:
    """It is the answer of SPEC 4 to our own lack, and to limits that are reached."""
    status = (response.value(b"proxy-status") or b"").decode()
    return (
        (response.status, response.value(b"retry-after"), response.value(b"connection"))
        == (503, b"1", b"close")
        and status.startswith("sidecar; error=connection_limit_reached; ")
        and b'"urn:sidecar:problem:overloaded"' in response.body
    )


async def leave(to: Stage, client: RawClient) -> None:
    """It goes, and that was seen."""
    before = to.worker.service.open_connections
    client.writer.close()
    while to.worker.service.open_connections >= before:
        await turns()


async def assert_begun_is_not_kept(to: Stage, busy: Sequence[RawClient], data: bytes) -> None:
    """Who has only begun to ask gives its place back."""
    loop = asyncio.get_running_loop()
    async with raw_client(to.port) as client:
        began = loop.time()
        await client.send(data)
        await client.read_to_end()
        assert loop.time() - began < 1.0
        while to.worker.service.open_connections > len(busy):
            await turns()


async def assert_silent_ones_keep_nobody_out(to: Stage, busy: Sequence[RawClient]) -> None:
    """Hundreds who say nothing are few at a time, and who asks among them is told."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        for _ in range(10 * MOST_VISITORS):
            await stack.enter_async_context(raw_client(to.port))
        began = loop.time()
        assert is_told(await to.ask())
        assert loop.time() - began < 2.0
        assert to.worker.service.open_connections <= len(busy) + MOST_VISITORS


async def assert_told_by_http2(to: Stage, busy: Sequence[RawClient]) -> None:
    """The first request is answered so, and the connection ends."""
    async with raw_client(to.port) as client:
        found, body = await asked_by_http2(client)
        assert (found["status"], found["retry-after"]) == ("503", "1")
        assert "error=connection_limit_reached" in found["proxy-status"]
        assert b'"urn:sidecar:problem:overloaded"' in body
        while to.worker.service.open_connections > len(busy):
            await turns()


async def assert_told_in_overload(to: Stage, busy: Sequence[RawClient]) -> None:
    """While new work has to wait, who cannot be served is told at once all the same."""
    listener = to.worker.listeners["inbound"]
    listener.shut(to.worker.service.clock())
    asked = asyncio.ensure_future(to.ask())
    while not asked.done():
        listener.take_up(1, to.worker.service.clock())
        await turns()
    assert is_told(asked.result())
    listener.open()
    assert all(not client.received for client in busy)


async def asked_by_http2(client: RawClient) -> tuple[dict[str, str], bytes]:
    """Status and two fields of the answer to one request, and its body; the connection ends with it."""
    codec = Connection(Role.CLIENT)
    codec.open_stream(PSEUDO, (), is_end=True)
    await client.send(codec.take())
    await client.read_to_end()
    told = codec.receive(client.received, 0.0)
    assert any(isinstance(event, GoawayReceived) for event in told)
    (answer,) = [event for event in told if isinstance(event, ResponseReceived)]
    body = b"".join(event.data for event in told if isinstance(event, DataReceived))
    found = {"status": str(answer.status)}
    for key in ("proxy-status", "retry-after"):
        found[key] = answer.lookup.get(key.encode(), b"").decode()
    return found, body


async def is_told_by_tls(client: TlsClient) -> bool:
    """The same of the answer to one request, by the protocol that was agreed on."""
    if client.tls.selected_alpn_protocol() != "h2":
        return is_told(await client.ask())
    codec = Connection(Role.CLIENT)
    codec.open_stream(PSEUDO, (), is_end=True)
    await client.send(codec.take())
    told: list[object] = []
    while not any(isinstance(event, ResponseReceived) for event in told):
        told += codec.receive(await client.read(), 0.0)
    (answer,) = [event for event in told if isinstance(event, ResponseReceived)]
    return answer.status == 503 and b"connection_limit_reached" in answer.lookup.get(b"proxy-status", b"")
