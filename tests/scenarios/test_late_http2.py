"""The code of HTTP/2 cannot be read when the first client begins with it, as where a file of it is being replaced."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.request import Asked
from tests.http2 import wire
from tests.scenarios.stage import OK, Stage, inbound, saying, stage
from tests.scenarios.test_http2_strangers import ask
from tests.support.authority import Authority
from tests.support.own_address import own_address
from tests.support.raw import RawClient, raw_client, turns
from tests.support.tls_client import Closed, TlsClient, tls_client

pytestmark = pytest.mark.plain  # compiled modules import one another without `sys.modules`

LATE = "sidecar.downstream.http2"


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """From its call on it cannot be read; returns what the loop is told of."""

    def begin() -> list[Any]:
        told: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
        monkeypatch.setitem(sys.modules, LATE, None)
        return told

    return begin


async def all_forgotten(to: Stage) -> None:
    while to.worker.service.open_connections:
        await turns()


async def test_in_clear_text_its_connection_ends_and_the_next_one_is_served(
    unreadable: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(saying(OK)) as to:
        told = unreadable()
        async with raw_client(to.port) as client:
            await client.send(wire.PREFACE + wire.setting() + wire.request())
            await client.read_to_end()
        assert told == [ModuleNotFoundError]
        await all_forgotten(to)
        monkeypatch.undo()
        assert (await ask(to.port, b"/"))[0] == 200
        assert len(told) == 1


async def settings_of(client: TlsClient) -> bytes:
    await client.handshake()
    return await client.read()


async def test_by_tls_its_connection_ends_and_is_forgotten(
    tmp_path: Path, unreadable: Callable[[], list[Any]]
) -> None:
    authority = Authority(tmp_path)
    header = inbound(f"tls: {{certificates: [{authority.pair('a.test').yaml()}]}}")
    async with stage(saying(OK), header=header) as to:
        told = unreadable()
        async with tls_client(to.port, authority.client(alpn=("h2",)), is_shaken=False) as client:
            with pytest.raises((Closed, ConnectionError)):
                await settings_of(client)
        assert told == [ModuleNotFoundError]
        await all_forgotten(to)


async def test_on_its_way_elsewhere_its_connection_ends_and_is_forgotten(
    unreadable: Callable[[], list[Any]],
) -> None:
    async with stage(saying(OK), header=inbound("unmatched: pass_through")) as to, AsyncExitStack() as stack:
        told = unreadable()
        asked = Asked(own_address(), 1, is_original=True)
        sock = to.worker.listeners["inbound"].take_in_process("127.0.0.1", asked)
        reader, writer = await asyncio.open_connection(sock=sock)
        stack.callback(writer.close)
        client = RawClient(reader, writer)
        await client.send(wire.PREFACE + wire.setting() + wire.request())
        await client.read_to_end()
        assert told == [ModuleNotFoundError]
        await all_forgotten(to)
