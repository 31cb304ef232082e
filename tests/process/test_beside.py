"""Hedges, retries and copies with clients and servers that are nobody's test code: grpcio and curl."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.process.setting import Served, written
from tests.support.grpc_service import NAME, GrpcService, grpc_service
from tests.support.process import sidecar
from tests.support.raw import RawPeer, raw_upstream

pytestmark = pytest.mark.process

PATIENCE_SECONDS = 100.0
"""Against hanging."""
MESSAGE = bytes(range(256)) * 40


@pytest.fixture
def services() -> Iterator[tuple[GrpcService, GrpcService]]:
    with grpc_service() as one, grpc_service() as other:
        yield one, other


@asynccontextmanager
async def served(folder: Path, ports: list[int], route: str, upstream: str = "") -> AsyncIterator[Served]:
    """A sidecar in front of several endpoints."""
    file, inbound, probes = written(folder, ports[0], route=route, upstream=upstream)
    head, app, tail = file.read_text().rpartition(f'"127.0.0.1:{ports[0]}"')
    file.write_text(head + ", ".join([app, *(f'"127.0.0.1:{port}"' for port in ports[1:])]) + tail)
    async with sidecar(file, probes, folder / "sidecar.log") as process:
        yield Served(process, inbound)


async def call(port: int, method: str, **options: Any) -> tuple[bytes, Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked = channel.unary_unary(f"/{NAME}/{method}").with_call
        return await asyncio.to_thread(lambda: asked(MESSAGE, timeout=PATIENCE_SECONDS, **options))


async def until(is_so: Any) -> None:
    """Wait for what happens in the servers' threads."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110  # the servers' threads set no event of this loop
            await asyncio.sleep(0.01)


async def test_a_call_that_is_slow_is_answered_by_another_server_and_cancelled_at_the_first(
    tmp_path: Path, services: tuple[GrpcService, GrpcService]
) -> None:
    one, other = services
    route = "hedge: {after: 200ms}, retry: {non_idempotent: true}"
    upstream = "protocol: http2, load_balancing: {policy: round_robin}"
    other.let_go.set()
    async with served(tmp_path, [one.port, other.port], route, upstream) as to:
        for _ in range(4):  # whichever of them is asked first
            response, _ = await call(to.port, "Slow")
            assert response == MESSAGE
        await until(lambda: len(one.ended) == len(one.calls) >= 1)
        hedged = len(one.calls)
        assert [*one.messages, *other.messages] == [MESSAGE] * (4 + hedged)
        start = 'sidecar_hedge_attempts_total{sidecar_route="app",sidecar_listener="inbound",sidecar_upstream="app",'
        assert await to.metric(start + 'sidecar_hedge_outcome="won"}') == hedged
        assert sum("x-sidecar-retry" in seen for seen in other.metadata) == hedged


async def test_a_call_that_fails_after_its_head_is_tried_again(
    tmp_path: Path, services: tuple[GrpcService, GrpcService]
) -> None:
    """Nothing of it was handed on: the head alone says nothing."""
    one, other = services
    one.failures = other.failures = 1
    route = "retry: {attempts: 2, on: [gateway_error], non_idempotent: true}"
    async with served(tmp_path, [one.port, other.port], route, "protocol: http2") as to:
        response, told = await call(to.port, "Begin")
        assert response == MESSAGE
        assert ("x-initial", "yes") in [(key, value) for key, value in told.initial_metadata()]
        assert [*one.messages, *other.messages] == [MESSAGE] * len([*one.calls, *other.calls])
        assert len([*one.calls, *other.calls]) >= 2
        where = 'sidecar_route="app",sidecar_listener="inbound",sidecar_upstream="app"'
        tried = await to.metric(f'sidecar_retry_attempts_total{{{where},sidecar_retry_reason="grpc_status"')
        assert tried == len([*one.calls, *other.calls]) - 1


async def test_where_each_try_fails_after_its_head_the_client_gets_the_status_and_its_words(
    tmp_path: Path, services: tuple[GrpcService, GrpcService]
) -> None:
    one, other = services
    one.failures = other.failures = 10
    route = "retry: {attempts: 1, on: [gateway_error], non_idempotent: true}"
    async with served(tmp_path, [one.port, other.port], route, "protocol: http2") as to:
        with pytest.raises(grpc.RpcError) as raised:
            await call(to.port, "Begin")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert raised.value.details() == "after its head"  # type: ignore[attr-defined]
        assert len([*one.calls, *other.calls]) == 2


async def test_a_call_is_copied_for_another_server(
    tmp_path: Path, services: tuple[GrpcService, GrpcService]
) -> None:
    app, shadow = services
    route = "mirror: {upstream: shadow, methods: [POST]}"
    file, inbound, probes = written(tmp_path, app.port, route=route, upstream="protocol: http2")
    more = f'shadow: {{endpoints: ["127.0.0.1:{shadow.port}"], protocol: http2}}, '
    file.write_text(file.read_text().replace("upstreams: {", "upstreams: {" + more, 1))
    shadow.failures = 1
    async with sidecar(file, probes, tmp_path / "sidecar.log"):
        response, _ = await call(inbound, "Begin")
        assert response == MESSAGE
        await until(lambda: shadow.messages == [MESSAGE])
        assert (app.messages, len(app.calls)) == ([MESSAGE], 1)
        assert shadow.metadata[0]["x-sidecar-mirror"] == "1"
        assert "x-sidecar-mirror" not in app.metadata[0]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
async def test_curl_is_answered_by_whoever_is_first(tmp_path: Path, version: str) -> None:
    async def hangs(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async def answers(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")

    async with raw_upstream(hangs) as one, raw_upstream(answers) as other:
        route = "hedge: {after: 200ms}"
        upstream = "load_balancing: {policy: round_robin}"
        async with served(tmp_path, [one.port, other.port], route, upstream) as to:
            for _ in range(4):
                process = await asyncio.create_subprocess_exec(
                    "curl", "-sS", "--max-time", "30", version, f"http://127.0.0.1:{to.port}/",
                    stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                body, _ = await process.communicate()
                assert (process.returncode, body) == (0, b"first")
            assert len(other.requests) == 4
            assert await to.metric("sidecar_hedge_attempts_total{") >= 1
