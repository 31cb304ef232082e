"""Clients on their way elsewhere, where nothing is left to serve them with.

Requests are answered 503, other bytes end with their connection, and nobody is connected to for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from sidecar.core.request import Asked
from sidecar.forwarding.visitors import MOST_VISITORS, SILENT_SECONDS
from tests.scenarios.lacking import asked_by_http2, is_told
from tests.scenarios.stage import GET, Stage, inbound, stage
from tests.support.own_address import own_address
from tests.support.raw import RawClient, RawUpstream, raw_client, raw_upstream, turns

LACKS = ["files", "connections", "memory"]
OPAQUE_PORT = 6379
BYTES = b"\x00\x01 is no request"


@dataclass
class Lacking:
    """A sidecar in the way of connections to `there`; whoever comes finds that there is no `lack`."""

    stage: Stage
    there: RawUpstream
    lack: str
    stack: AsyncExitStack

    async def come(self, to_port: int | None = None) -> RawClient:
        """One more, of which the kernel told where it was going."""
        service = self.stage.worker.service
        asked = Asked(own_address(), to_port or self.there.port, is_original=True)
        before = service.max_open_connections, service.memory.is_full
        sock = self.stage.worker.listeners["inbound"].take_in_process("127.0.0.1", asked)
        if self.lack == "files":
            service.max_open_connections = 0
        elif self.lack == "memory":
            service.memory.on_over = lambda: None  # nobody is closed for it
            service.memory.charge(service.memory.limit_bytes + 1)
            service.memory.is_full = True
        reader, writer = await asyncio.open_connection(sock=sock)
        self.stack.callback(writer.close)
        await turns()
        service.max_open_connections, service.memory.is_full = before
        if self.lack == "memory":
            service.memory.charge(-service.memory.limit_bytes - 1)
        return RawClient(reader, writer)

    @property
    def counted(self) -> int:
        """Who was turned away, by what it lacked."""
        listener = self.stage.worker.listeners["inbound"]
        return {
            "files": listener.turned_away,
            "connections": listener.refused_connections,
            "memory": self.stage.worker.service.memory.refused,
        }[self.lack]


@asynccontextmanager
async def lacking(lack: str) -> AsyncIterator[Lacking]:
    limits = ", limits: {connections: 1}" if lack == "connections" else ""
    header = inbound(f"unmatched: pass_through, opaque_ports: [{OPAQUE_PORT}]{limits}")
    async with (
        stage(header=header) as to,
        raw_upstream(host=own_address()) as there,
        AsyncExitStack() as stack,
    ):
        if lack == "connections":
            await stack.enter_async_context(raw_client(to.port))
            while not to.worker.service.open_connections:
                await turns()
        yield Lacking(to, there, lack, stack)
        assert there.peers == []


@pytest.mark.parametrize("lack", LACKS)
async def test_a_request_of_http1_is_answered_503(lack: str) -> None:
    async with lacking(lack) as to:
        client = await to.come()
        await client.send(GET)
        (response,) = await client.responses([b"GET"])
        assert is_told(response)
        assert to.counted == 1


@pytest.mark.parametrize("lack", LACKS)
async def test_a_request_of_http2_is_answered_503(lack: str) -> None:
    async with lacking(lack) as to:
        found, _ = await asked_by_http2(await to.come())
        assert (found["status"], found["retry-after"]) == ("503", "1")
        assert "error=connection_limit_reached" in found["proxy-status"]


@pytest.mark.parametrize("lack", LACKS)
async def test_other_bytes_end_with_their_connection(lack: str) -> None:
    async with lacking(lack) as to:
        loop = asyncio.get_running_loop()
        client, began = await to.come(), loop.time()
        await client.send(BYTES)
        await client.read_to_end()
        assert client.received == b""
        assert loop.time() - began < 0.1
        assert to.counted == 1


@pytest.mark.parametrize("lack", LACKS)
async def test_who_says_nothing_ends_when_the_server_would_be_asked_to_speak_first(lack: str) -> None:
    async with lacking(lack) as to:
        loop = asyncio.get_running_loop()
        client, began = await to.come(), loop.time()
        await client.read_to_end()
        assert client.received == b""
        assert 0.9 < loop.time() - began < 1.2


@pytest.mark.parametrize("lack", LACKS)
async def test_one_to_an_opaque_port_ends_at_once(lack: str) -> None:
    async with lacking(lack) as to:
        loop = asyncio.get_running_loop()
        client, began = await to.come(OPAQUE_PORT), loop.time()
        await client.read_to_end()
        assert client.received == b""
        assert loop.time() - began < 0.1


async def test_those_who_say_nothing_give_their_places_to_others() -> None:
    async with lacking("connections") as to:
        silent = [await to.come() for _ in range(MOST_VISITORS)]
        await asyncio.sleep(2 * SILENT_SECONDS)  # virtual
        assert is_told(await to.stage.ask())
        for client in silent:
            await client.read_to_end()
