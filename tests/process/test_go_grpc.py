"""Go's own gRPC on both sides, through one sidecar and through two in a row."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.process.setting import Way, several
from tests.support.go_peer import GoServer, built_grpc, go, go_server, needs_go_grpc

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), needs_go_grpc]
UPSTREAM = "protocol: http2"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return built_grpc(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="module")
def app(peer: str) -> Iterator[GoServer]:
    with go_server(peer) as server:
        yield server


@dataclass(frozen=True)
class Row:
    app: GoServer
    peer: str
    address: str

    async def asks(self, *arguments: str) -> dict[str, object]:
        return await asyncio.to_thread(go, self.peer, arguments[0], self.address, *arguments[1:])

    async def hears(self) -> dict[str, Any]:
        """What the server says next."""
        return await asyncio.to_thread(self.app.heard)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[1, 2])
async def row(
    request: pytest.FixtureRequest, app: GoServer, peer: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Row]:
    """The Go server behind as many sidecars."""
    ways = {"last": Way([app.port], upstream=UPSTREAM)}
    async with several(tmp_path_factory.mktemp("last"), ways) as last:
        if request.param == 1:
            yield Row(app, peer, f"127.0.0.1:{last['last'].port}")
            return
        ways = {"first": Way([last["last"].port], upstream=UPSTREAM)}
        async with several(tmp_path_factory.mktemp("first"), ways) as first:
            yield Row(app, peer, f"127.0.0.1:{first['first'].port}")


async def test_calls_at_once_come_back_whole(row: Row) -> None:
    assert await row.asks("unary", "200", "5000") == {"good": 200}
    assert await row.asks("unary", "4", "3000000") == {"good": 4}


async def test_a_stream_both_ways(row: Row) -> None:
    assert await row.asks("stream", "1000", "10000") == {"good": 1000}


async def test_an_error_comes_with_its_words_and_trailers(row: Row) -> None:
    binary = base64.b64encode(b"\x00\xff\x01").decode()  # as Go writes bytes in JSON
    assert await row.asks("fail") == {
        "code": "ResourceExhausted",
        "message": "100 % wrong: é",
        "binary": binary,
    }


async def test_the_deadline_of_a_call_is_told_and_kept(row: Row) -> None:
    assert await row.asks("wait", "2000") == {"code": "DeadlineExceeded"}
    begun = await row.hears()
    assert (begun["event"], begun["deadline"]) == ("begun", True)
    assert begun["left_ms"] < 2000
    assert (await row.hears())["event"] == "ended"


async def test_a_call_that_its_client_cancels_ends_at_its_server(row: Row) -> None:
    assert await row.asks("leave", "1500") == {"code": "Canceled"}
    assert (await row.hears())["event"] == "begun"
    assert await row.hears() == {"event": "ended", "why": "context canceled"}
