"""Java on both sides of a sidecar: the JDK's own clients and servers, and grpc-java's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.process.setting import served
from tests.support.authority import Authority
from tests.support.java_peer import JARS, JavaPeer, as_pkcs12, java_peer, needs_grpc_java, needs_java
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), needs_java]

BIG = 1_000_000
TRIES = 20
"""A busy machine may keep a server from ending a call in time: then another one shows it."""
CONFIGURATION = """\
version: 1
listeners:
  inbound: {{address: "127.0.0.1:{clear}"}}
  outbound: {{address: "127.0.0.1:{outbound}"}}
  tls: {{address: "127.0.0.1:{tls}", direction: inbound,
    tls: {{certificate: {front}, client_ca: "{ca}", client: require}},
    timeouts: {{handshake: 60s}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  clear: {{endpoints: ["127.0.0.1:{app}"], timeouts: {{connect: 60s}}}}
  tls: {{endpoints: ["127.0.0.1:{tls_app}"], protocol: auto, timeouts: {{connect: 60s}},
    tls: {{ca: "{ca}", server_name: app.test, certificate: {ours}}}}}
defaults: {{circuit_breaker: {{mode: disabled}}, timeouts: {{request: 60s}}}}
routes:
- {{name: clear, upstream: tls, critical: true}}
- {{name: tls, listener: tls, upstream: clear, critical: true}}
- {{name: called, listener: outbound, match: {{hosts: [app.test]}}, upstream: clear}}
"""
"""What comes in clear text goes on by TLS, and the other way round."""


@dataclass
class Setting:
    java: JavaPeer
    process: Running
    clear: str
    """Where the sidecar is asked, in clear text and by mutual TLS."""
    tls: str
    outbound: int

    async def ask(self, *words: object) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(await asyncio.to_thread(self.java.ask, *words))
        assert "error" not in told, told
        return told

    def url(self, way: str) -> str:
        return self.tls if "-" in way or way.endswith("tls") else self.clear


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def to(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    folder = tmp_path_factory.mktemp("java")
    authority = Authority(folder)
    app, ours, client = (authority.pair(f"{name}.test") for name in ("app", "ours", "client"))
    front = authority.pair("localhost", addresses=["127.0.0.1"])
    with java_peer("Peer.java", authority.path, as_pkcs12(app), as_pkcs12(client)) as java:
        ports = json.loads(await asyncio.to_thread(java.said))
        clear, outbound, tls, probes, admin = free_ports(5)
        file = folder / "sidecar.yaml"
        file.write_text(
            CONFIGURATION.format(
                clear=clear, outbound=outbound, tls=tls, probes=probes, admin=admin, ca=authority.path,
                front=front.yaml(), ours=ours.yaml(), app=ports["clear"], tls_app=ports["tls"],
            )
        )  # fmt: skip
        async with sidecar(file, probes, folder / "sidecar.log") as process:
            yield Setting(java, process, f"http://127.0.0.1:{clear}", f"https://127.0.0.1:{tls}", outbound)


WAYS = pytest.mark.parametrize(
    ("way", "version"),
    [
        ("h1", "HTTP_1_1"),
        ("h2", "HTTP_1_1"),
        ("h1-tls", "HTTP_1_1"),
        ("h2-1.2", "HTTP_2"),
        ("h2-1.3", "HTTP_2"),
    ],
)


@WAYS
async def test_bodies_come_back_whole(to: Setting, way: str, version: str) -> None:
    identity = "CN=ours.test" if to.url(way) == to.clear else ""
    seen = f"{version} {identity}"
    url = f"{to.url(way)}/echo"
    assert await to.ask("call", way, url, 4, 20_000) == {"good": 4, "seen": seen}
    assert await to.ask("call", way, url, 2, BIG) == {"good": 2, "seen": seen}


@WAYS
async def test_answers_without_a_body_keep_the_connections(to: Setting, way: str, version: str) -> None:
    asked = [("GET", "/204"), ("HEAD", "/echo"), ("GET", "/304"), ("OPTIONS", "/200"), ("GET", "/404")]
    told = [await to.ask("get", way, method, f"{to.url(way)}{path}") for method, path in asked]
    assert [one["status"] for one in told] == [204, 200, 304, 200, 404]
    assert {one["version"] for one in told} == {version}
    assert {one["size"] for one in told} == {0}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_offer_of_h2c_is_not_taken_and_not_passed_on(to: Setting, method: str) -> None:
    """`java.net.http` offers it with each first request, one with a body too, and goes on by HTTP/1.1."""
    first = await to.ask("get", "h2", method, f"{to.clear}/echo")
    again = await to.ask("get", "h2", method, f"{to.clear}/echo")
    for told in (first, again):
        assert (told["status"], told["version"], told["upgrade"]) == (200, "HTTP_1_1", "no")
    assert first["port"] == again["port"]


@WAYS
async def test_a_body_that_is_refused_is_not_sent(to: Setting, way: str, version: str) -> None:
    told = await to.ask("refused", way, f"{to.url(way)}/refuse", BIG)
    assert (told["status"], told["version"]) == (413, version)


@WAYS
async def test_a_client_that_leaves_ends_the_call_below(to: Setting, way: str, version: str) -> None:
    assert await to.ask("leave", way, f"{to.url(way)}/wait") == {"first": "begun", "then": "left"}


async def test_nobody_comes_in_without_a_certificate(to: Setting) -> None:
    told = json.loads(await asyncio.to_thread(to.java.ask, "get", "h2-nobody", "GET", f"{to.tls}/200"))
    assert "error" in told


async def test_the_old_client_goes_through_its_proxy_and_keeps_the_connection(to: Setting) -> None:
    for method, size in (("GET", 0), ("POST", 1000), ("GET", 0), ("HEAD", 0)):
        told = await to.ask("old", "http://app.test/echo", to.outbound, method)
        assert (told["status"], told["size"]) == (200, size)
    told = await to.ask("old", "http://other.test/echo", to.outbound, "GET")
    assert told["status"] == 404


async def test_a_post_that_its_server_drops_is_not_sent_again(to: Setting) -> None:
    """The old client repeats one by itself where a connection ends without an answer; it is given one."""
    told = await to.ask("old", "http://app.test/drop", to.outbound, "POST")
    assert told["status"] == 502
    assert await to.ask("heard") == {"event": "dropped"}
    # And no second one:
    assert await to.ask("leave", "h1", f"{to.clear}/wait") == {"first": "begun", "then": "left"}


# gRPC


@dataclass
class Grpc:
    java: JavaPeer
    port: int

    async def ask(self, word: str, *words: object) -> str:
        return await asyncio.to_thread(self.java.ask, word, self.port, *words)

    async def heard(self) -> str:
        return await asyncio.to_thread(self.java.ask, "heard")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grpc(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Grpc]:
    with java_peer("GrpcPeer.java", jars=JARS) as java:
        app = int(await asyncio.to_thread(java.said))
        folder, route = tmp_path_factory.mktemp("grpc"), "critical: true, deadline: {offset: 60ms}"
        async with served(folder, app, upstream="protocol: http2", route=route) as to:
            yield Grpc(java, to.port)


@needs_grpc_java
async def test_grpc_java_measures_its_windows_as_it_likes(grpc: Grpc) -> None:
    """It sends a PING for DATA that it reads, as client and as server."""
    assert await grpc.ask("echo", 300) == "300"
    assert await grpc.ask("down", 200, 100_000) == "20000000"
    assert await grpc.ask("up", 200, 100_000) == "20000000"


@needs_grpc_java
async def test_an_error_of_grpc_java_comes_through(grpc: Grpc) -> None:
    assert await grpc.ask("fail") == "FAILED_PRECONDITION: 100 % wrong: é [0, -1, 1]"


@needs_grpc_java
async def test_a_deadline_that_a_server_of_grpc_java_keeps_is_told_as_one(grpc: Grpc) -> None:
    for _ in range(TRIES):
        told = await grpc.ask("slow", 1000)
        assert told.startswith("DEADLINE_EXCEEDED: "), told
        assert await grpc.heard() == "begun"
        if await grpc.heard() == "late":
            break
    assert "at the deadline that it was told" in told


@needs_grpc_java
async def test_a_call_that_a_client_of_grpc_java_cancels_ends_at_its_server(grpc: Grpc) -> None:
    assert await grpc.ask("cancel") == "begun"
    assert await grpc.heard() == "left"
