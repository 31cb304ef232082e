"""Two sidecars that know each other by their certificates: requests, gRPC and WebSocket between them, by TLS."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio

from tests.process.test_grpc import Calls
from tests.support.certificates import Certificates
from tests.support.grpc_service import grpc_service
from tests.support.ports import free_ports
from tests.support.process import http_get, sidecar
from tests.support.raw import RawPeer, RawUpstream, echo_of, raw_client, raw_upstream

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

ORDERS, PAYMENTS = "spiffe://shop/ns/orders", "spiffe://shop/ns/payments"
ASK = (
    b"GET /%b/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def accepted(key: bytes) -> bytes:
    """The answer to a WebSocket's key (RFC 6455 4.2.2): between sidecars by HTTP/2 it is made anew."""
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % proof
    )


FAR = """\
version: 1
listeners:
  inbound: {{address: "127.0.0.1:{port}", tls: {{certificate: {shown}, client_ca: "{ca}", client: require}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:0"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
  grpc: {{endpoints: ["127.0.0.1:{grpc}"], protocol: http2}}
routes:
- {{name: app, match: {{client: ["{orders}"]}}, upstream: app}}
- {{name: grpc, match: {{path: {{prefix: /test.Service}}, client: ["{orders}"]}}, upstream: grpc}}
"""
NEAR = """\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{port}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:0"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  http1: {{endpoints: ["127.0.0.1:{far}"], {tls}, protocol: http1}}
  http2: {{endpoints: ["127.0.0.1:{far}"], {tls}, protocol: http2}}
  auto: {{endpoints: ["127.0.0.1:{far}"], {tls}, protocol: auto}}
routes:
- {{name: http1, match: {{path: {{prefix: /http1}}}}, upstream: http1}}
- {{name: http2, match: {{path: {{prefix: /http2}}}}, upstream: http2}}
- {{name: rest, upstream: auto}}
"""


@dataclass(frozen=True)
class Pair:
    """Two sidecars, by TLS between them, which know each other; by the first segment of a path with a protocol."""

    port: int
    """Of the one that the caller speaks to."""
    app: RawUpstream
    """Behind the other one, which takes orders' calls alone."""


async def serve(peer: RawPeer) -> None:
    """The app: what it is asked for, or a WebSocket that sends back what comes."""
    while (request := await peer.request()) is not None:
        key = request.value(b"sec-websocket-key")
        if key is None:
            await peer.send(echo_of(request.method, request.target))
            continue
        await peer.send(accepted(key))
        while await peer.read_some():
            await peer.send(peer.rest)
            peer.rest = b""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    made = Certificates(folder)
    us, them = made.pair("orders", ORDERS), made.pair("payments", PAYMENTS)
    port, far, probes, far_probes = free_ports(4)
    tls = (
        f'tls: {{ca: "{made.ca}", server_name: payments, identities: ["{PAYMENTS}"], '
        f'certificate: {{chain: "{us.chain}", key: "{us.key}"}}}}'
    )
    with grpc_service() as service:
        async with raw_upstream(serve) as app:
            file, far_file = folder / "near.yaml", folder / "far.yaml"
            file.write_text(NEAR.format(port=port, probes=probes, far=far, tls=tls))
            far_file.write_text(
                FAR.format(
                    port=far, probes=far_probes, app=app.port, grpc=service.port, orders=ORDERS, ca=made.ca,
                    shown=f'{{chain: "{them.chain}", key: "{them.key}"}}',
                )
            )  # fmt: skip
            async with (
                sidecar(far_file, far_probes, folder / "far.log"),
                sidecar(file, probes, folder / "log"),
            ):
                yield Pair(port, app)


@pytest.mark.parametrize("protocol", ["http1", "http2", "auto"])
async def test_requests_go_between_them_and_the_app_is_told_who_asks(pair: Pair, protocol: str) -> None:
    for _ in range(3):
        status, body = await http_get(pair.port, f"/{protocol}/x")
        assert (status, body) == (200, f"GET /{protocol}/x")
    told = pair.app.requests[-1].value(b"x-forwarded-client-cert")
    assert told is not None
    assert f"URI={ORDERS}".encode() in told


@pytest.mark.parametrize("protocol", ["http1", "auto"])
async def test_a_websocket_goes_by_http1_and_by_extended_connect(pair: Pair, protocol: str) -> None:
    async with raw_client(pair.port) as client:
        await client.send(ASK % protocol.encode())
        while b"\r\n\r\n" not in client.received:
            await client.read_some()
        assert client.received.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in client.received
        client.received = b""
        for size in (1, 1000, 100_000, 3):
            await client.send(b"m" * size)
        async with asyncio.timeout(100):
            while len(client.received) < 101_004:
                await client.read_some()


async def test_grpc_goes_between_them(pair: Pair) -> None:
    client = Calls(pair.port)
    response, call = await client.unary("Echo", b"hello")
    assert (response, call.code()) == (b"hello", grpc.StatusCode.OK)
    client.channel.close()
