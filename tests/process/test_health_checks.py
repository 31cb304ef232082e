"""Health checks of real servers by a real process: grpcio, nginx by TLS, and a process that was stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.process.setting import Served, Way, served, several
from tests.support.authority import Authority
from tests.support.grpc_health import GrpcHealth, grpc_health
from tests.support.nginx import needs_nginx, nginx_by_tls
from tests.support.raw import RawPeer, ask, raw_upstream

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_SECONDS = 60.0


async def count(to: Served, state: str, upstream: str = "app") -> float:
    return await to.metric(
        f'sidecar_health_endpoints{{sidecar_upstream="{upstream}",sidecar_health_state="{state}"}}'
    )


async def until(to: Served, state: str, upstream: str = "app") -> None:
    """The only endpoint is `healthy` or `unhealthy`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await count(to, state, upstream):  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.03)


QUICK = "interval: 200ms, timeout: 200ms"
OF_BREAKER = (
    "circuit_breaker: {consecutive_failures: 1, open_for: 100ms, max_open_for: 100ms, warm_up: off, "
    "half_open: {check: {grpc: {}}}}"
)
WAYS = {
    "whole": Way((), upstream=f'protocol: http2, health_check: {{grpc: {{service: ""}}, {QUICK}}}'),
    "named": Way(
        (), upstream=f"protocol: http2, health_check: {{grpc: {{service: shop.Payments}}, {QUICK}}}"
    ),
    "without": Way(
        (), upstream="protocol: http2, health_check: {grpc: {}, interval: 2s, timeout: 2s, unhealthy: 1}"
    ),
    "breaker": Way((), OF_BREAKER, "protocol: http2"),
}
"""Each in front of a server of its own."""


@dataclass
class Asked:
    """By the name of the way to it: a sidecar, and the server that it asks."""

    served: dict[str, Served]
    servers: dict[str, GrpcHealth]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(grpc_health(has_health=name != "without")) for name in WAYS}
        servers["whole"].states = {"": "SERVING"}
        servers["named"].states = {"shop.Payments": "SERVING"}
        servers["breaker"].states = {"": "NOT_SERVING"}
        ways = {name: replace(way, ports=[servers[name].port]) for name, way in WAYS.items()}
        async with several(tmp_path_factory.mktemp("asked"), ways) as served:
            yield Asked(served, servers)


@pytest.mark.parametrize(("name", "service"), [("whole", ""), ("named", "shop.Payments")])
async def test_a_grpc_server_is_asked_in_its_own_words(asked: Asked, name: str, service: str) -> None:
    to, health = asked.served[name], asked.servers[name]
    await until(to, "healthy", name)
    for state in ("NOT_SERVING", "UNKNOWN", "SERVICE_UNKNOWN"):
        health.states[service] = state
        await until(to, "unhealthy", name)
        health.states[service] = "SERVING"
        await until(to, "healthy", name)
    health.states.clear()  # NOT_FOUND
    await until(to, "unhealthy", name)
    assert set(health.asked) == {service}
    assert max(health.timeouts) <= 0.21, (
        "each is told its deadline; a busy machine comes to it later, or too late"
    )


async def test_a_grpc_server_without_that_service_is_unhealthy_and_says_why(asked: Asked) -> None:
    to = asked.served["without"]
    await until(to, "unhealthy", "without")
    assert "grpc:UNIMPLEMENTED" in to.process.log.read_text()


async def test_a_breaker_is_closed_by_what_a_grpc_server_says_of_itself(asked: Asked) -> None:
    to, health = asked.served["breaker"], asked.servers["breaker"]
    names = 'sidecar_route="breaker",sidecar_upstream="breaker"'
    closed = f'sidecar_circuit_breaker_state{{{names},sidecar_circuit_breaker_state="closed"'
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await to.metric(closed):  # what failed while the sidecar's own loop was late counts for nothing
            answer = await ask(to.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.status == 502, "grpcio resets what is no gRPC"
        while len(health.asked) < 3:
            assert await to.metric(closed) == 0
        assert await to.metric(closed) == 0
        health.states[""] = "SERVING"
        while not await to.metric(closed):
            pass


PROTOCOLS = ("http1", "http2", "auto")


@needs_nginx
async def test_nginx_is_asked_by_the_tls_and_protocol_of_each_upstream(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("a.test")
    (tmp_path / "html").mkdir()
    page = tmp_path / "html" / "healthz"
    page.write_text("well")
    log = tmp_path / "asked"
    server = f"ssl_certificate {pair.chain}; ssl_certificate_key {pair.key}; root {tmp_path}/html; access_log {log};"
    with nginx_by_tls(tmp_path, server) as nginx:
        tls = f'tls: {{ca: "{authority.path}", server_name: a.test}}'
        check = f"health_check: {{path: /healthz, {QUICK}}}"
        ways = {one: Way([nginx], upstream=f"{tls}, protocol: {one}, {check}") for one in PROTOCOLS}
        async with several(tmp_path, ways) as served:
            for state in ("healthy", "unhealthy", "healthy"):
                if state == "healthy":
                    page.write_text("well")
                else:
                    page.unlink()
                for protocol in PROTOCOLS:
                    await until(served[protocol], state, protocol)
    asked = log.read_text()
    assert '"GET /healthz HTTP/1.1"' in asked
    assert '"GET /healthz HTTP/2.0"' in asked


async def test_a_process_that_was_stopped_blames_nobody(tmp_path: Path) -> None:
    """SIGSTOP for longer than each check may take, twice over: answers come meanwhile, and time-outs pass."""
    arrived = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            arrived.set()
            await asyncio.sleep(0.03)
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    check = "health_check: {path: /, interval: 1500ms, timeout: 1500ms, unhealthy: 1}"
    async with raw_upstream(script) as app, served(tmp_path, app.port, upstream=check) as to:
        await until(to, "healthy")
        for _ in range(2):
            arrived.clear()
            await arrived.wait()
            to.process.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2)  # the thing that is tested: it lasts longer than the check may
            to.process.process.send_signal(signal.SIGCONT)
            assert await count(to, "healthy") == 1
        ended = 'sidecar_health_checks_total{sidecar_upstream="app",sidecar_health_result="%s"'
        assert await to.metric(ended % "failed") == 0
        assert await to.metric(ended % "passed") > 0
