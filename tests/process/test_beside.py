"""Hedges, retries and copies with clients and servers that are nobody's test code: grpcio and curl."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.process.setting import Served, Way, several
from tests.support.grpc_service import NAME, GrpcService, grpc_service
from tests.support.raw import RawPeer, RawUpstream, raw_upstream

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_SECONDS = 100.0
"""Against hanging."""
MESSAGE = bytes(range(256)) * 40
H2 = "protocol: http2"
TURNS = "load_balancing: {policy: round_robin}"
AGAIN = "on: [gateway_error], non_idempotent: true"
CALLS = {
    "hedged": Way((), "hedge: {after: 200ms}, retry: {non_idempotent: true}", f"{H2}, {TURNS}"),
    "again": Way((), f"retry: {{attempts: 2, {AGAIN}}}", H2),
    "in-vain": Way((), f"retry: {{attempts: 1, {AGAIN}}}", H2),
}
"""Each in front of two services that no other test calls."""


@dataclass
class Beside:
    """By the name of the way to them: its sidecar, and the services."""

    served: dict[str, Served]
    services: dict[str, tuple[GrpcService, GrpcService]]
    first: RawUpstream
    """Answers curl; the other endpoint hangs."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beside(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Beside]:
    async def hangs(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async def answers(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")

    async with AsyncExitStack() as stack:
        services = {
            name: (stack.enter_context(grpc_service()), stack.enter_context(grpc_service()))
            for name in (*CALLS, "copied")
        }
        app, shadow = services["copied"]
        hanging, first = [await stack.enter_async_context(raw_upstream(one)) for one in (hangs, answers)]
        ways = {name: replace(way, ports=[one.port for one in services[name]]) for name, way in CALLS.items()}
        ways["copied"] = Way([app.port], "mirror: {upstream: shadow, methods: [POST]}", H2)
        ways["curl"] = Way([hanging.port, first.port], "hedge: {after: 200ms}", TURNS)
        shadows = {"shadow": Way([shadow.port], upstream=H2)}
        folder = tmp_path_factory.mktemp("beside")
        served = await stack.enter_async_context(several(folder, ways, shadows))
        yield Beside(served, services, first)


def labels(name: str) -> str:
    """Of what is counted on that way."""
    return f'sidecar_route="{name}",sidecar_listener="{name}",sidecar_upstream="{name}"'


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
    beside: Beside,
) -> None:
    to, (one, other) = beside.served["hedged"], beside.services["hedged"]
    other.let_go.set()
    for _ in range(4):  # whichever of them is asked first
        response, _ = await call(to.port, "Slow")
        assert response == MESSAGE
    await until(lambda: len(one.ended) == len(one.calls) >= 1)
    hedged = len(one.calls)
    assert [*one.messages, *other.messages] == [MESSAGE] * (4 + hedged)
    start = f'sidecar_hedge_attempts_total{{{labels("hedged")},sidecar_hedge_outcome="won"}}'
    assert await to.metric(start) == hedged
    assert sum("x-sidecar-retry" in seen for seen in other.metadata) == hedged


async def test_a_call_that_fails_after_its_head_is_tried_again(beside: Beside) -> None:
    """Nothing of it was handed on: the head alone says nothing."""
    to, (one, other) = beside.served["again"], beside.services["again"]
    one.failures = other.failures = 1
    response, told = await call(to.port, "Begin")
    assert response == MESSAGE
    assert ("x-initial", "yes") in [(key, value) for key, value in told.initial_metadata()]
    assert [*one.messages, *other.messages] == [MESSAGE] * len([*one.calls, *other.calls])
    assert len([*one.calls, *other.calls]) >= 2
    start = f'sidecar_retry_attempts_total{{{labels("again")},sidecar_retry_reason="grpc_status"'
    assert await to.metric(start) == len([*one.calls, *other.calls]) - 1


async def test_where_each_try_fails_after_its_head_the_client_gets_the_status_and_its_words(
    beside: Beside,
) -> None:
    to, (one, other) = beside.served["in-vain"], beside.services["in-vain"]
    one.failures = other.failures = 10
    with pytest.raises(grpc.RpcError) as raised:
        await call(to.port, "Begin")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    assert raised.value.details() == "after its head"  # type: ignore[attr-defined]
    assert len([*one.calls, *other.calls]) == 2


async def test_a_call_is_copied_for_another_server(beside: Beside) -> None:
    to, (app, shadow) = beside.served["copied"], beside.services["copied"]
    shadow.failures = 1
    response, _ = await call(to.port, "Begin")
    assert response == MESSAGE
    await until(lambda: shadow.messages == [MESSAGE])
    assert (app.messages, len(app.calls)) == ([MESSAGE], 1)
    assert shadow.metadata[0]["x-sidecar-mirror"] == "1"
    assert "x-sidecar-mirror" not in app.metadata[0]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
async def test_curl_is_answered_by_whoever_is_first(beside: Beside, version: str) -> None:
    to = beside.served["curl"]
    start = f"sidecar_hedge_attempts_total{{{labels('curl')},"
    answered, hedged = len(beside.first.requests), await to.metric(start)
    for _ in range(4):
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--max-time", "30", version, f"http://127.0.0.1:{to.port}/",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        body, _ = await process.communicate()
        assert (process.returncode, body) == (0, b"first")
    assert len(beside.first.requests) == answered + 4
    assert await to.metric(start) > hedged
