"""Two sidecars that know each other by their certificates: requests, gRPC and WebSocket between them, by TLS."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.process.setting import Served, served
from tests.process.test_grpc import Calls
from tests.support.certificates import Certificates
from tests.support.grpc_service import grpc_service
from tests.support.process import http_get
from tests.support.raw import RawPeer, raw_client, raw_upstream

pytestmark = pytest.mark.process

ORDERS, PAYMENTS = "spiffe://shop/ns/orders", "spiffe://shop/ns/payments"
ASK = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def accepted(key: bytes) -> bytes:
    """The answer to a WebSocket's key (RFC 6455 4.2.2): between sidecars by HTTP/2 it is made anew."""
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % proof
    )


@asynccontextmanager
async def pair(
    folder: Path, app: int, protocol: str, behind: str = "protocol: http1"
) -> AsyncIterator[Served]:
    """The one that the caller speaks to; behind it, by TLS, that of the app, which takes orders' calls alone."""
    made = Certificates(folder)
    us, them = made.pair("orders", ORDERS), made.pair("payments", PAYMENTS)
    asked = (
        f'tls: {{certificate: {{chain: "{them.chain}", key: "{them.key}"}}, client_ca: "{made.ca}", '
        "client: require}"
    )
    shown = (
        f'tls: {{ca: "{made.ca}", server_name: payments, identities: ["{PAYMENTS}"], '
        f'certificate: {{chain: "{us.chain}", key: "{us.key}"}}}}, protocol: {protocol}'
    )
    near, far = folder / "near", folder / "far"
    near.mkdir()
    far.mkdir()
    async with (
        served(far, app, listener=asked, upstream=behind, route=f'match: {{client: ["{ORDERS}"]}}') as last,
        served(near, last.port, upstream=shown) as first,
    ):
        yield first


@pytest.mark.parametrize("protocol", ["http1", "http2", "auto"])
async def test_requests_go_between_them_and_the_app_is_told_who_asks(tmp_path: Path, protocol: str) -> None:
    async with raw_upstream() as app, pair(tmp_path, app.port, protocol) as to:
        for _ in range(3):
            status, body = await http_get(to.port, "/x")
            assert (status, body) == (200, "GET /x")
        told = app.peers[0].requests[0].value(b"x-forwarded-client-cert")
        assert told is not None
        assert f"URI={ORDERS}".encode() in told


@pytest.mark.parametrize("protocol", ["http1", "auto"])
async def test_a_websocket_goes_by_http1_and_by_extended_connect(tmp_path: Path, protocol: str) -> None:
    async def script(peer: RawPeer) -> None:
        request = await peer.request()
        assert request is not None
        await peer.send(accepted(request.value(b"sec-websocket-key") or b""))
        while await peer.read_some():
            await peer.send(peer.rest)
            peer.rest = b""

    async with (
        raw_upstream(script) as app,
        pair(tmp_path, app.port, protocol) as to,
        raw_client(to.port) as client,
    ):
        await client.send(ASK)
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


async def test_grpc_goes_between_them(tmp_path: Path) -> None:
    with grpc_service() as service:
        async with pair(tmp_path, service.port, "auto", behind="protocol: http2") as to:
            client = Calls(to.port)
            response, call = await client.unary("Echo", b"hello")
            assert (response, call.code()) == (b"hello", grpc.StatusCode.OK)
            client.channel.close()
