"""A real process that speaks TLS to its upstream: what is large, long, both ways, or secret."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sidecar.core.snapshot import CertificateFiles
from tests.process.flow import MIB, growth_by_answer, growth_by_request
from tests.process.setting import Served, Way, ended, several, written
from tests.process.test_grpc import Calls
from tests.scenarios.test_tls_upstream import VERSIONS, made, serving, shown, tls, version
from tests.support.certificates import Certificates
from tests.support.grpc_service import grpc_service
from tests.support.process import http_get, sidecar
from tests.support.raw import RawPeer, raw_client, raw_upstream
from tests.support.tls_server import tls_server

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

__all__ = ["made", "version"]
TOTAL = 64 * MIB
MOST_GROWTH_KIB = 24 * 1024


def credentials(pair: CertificateFiles, client_ca: str | None = None) -> grpc.ServerCredentials:
    """Of a gRPC server, which asks its clients for a certificate of `client_ca`, if that is given."""
    return grpc.ssl_server_credentials(
        [(Path(pair.key).read_bytes(), Path(pair.chain).read_bytes())],
        Path(client_ca).read_bytes() if client_ca is not None else None,
        client_ca is not None,
    )


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
async def test_a_long_answer_to_a_slow_reader_comes_whole_and_is_not_kept(
    made: Certificates, tmp_path: Path, version: ssl.TLSVersion, is_chunked: bool
) -> None:
    context = serving(made.pair("a", "a.test"), version)
    grown = await growth_by_answer(tmp_path, TOTAL, is_chunked=is_chunked, tls=context, upstream=tls(made))
    assert grown < MOST_GROWTH_KIB


async def test_a_long_request_to_a_slow_upstream_comes_whole_and_is_not_kept(
    made: Certificates, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = serving(made.pair("a", "a.test"), version)
    assert await growth_by_request(tmp_path, TOTAL, tls=context, upstream=tls(made)) < MOST_GROWTH_KIB


@dataclass
class Apps:
    """A sidecar with a way to each app."""

    served: dict[str, Served]
    has_ended: asyncio.Event
    """The client of a tunnel has."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apps(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Apps]:
    folder, has_ended = tmp_path_factory.mktemp("apps"), asyncio.Event()
    made = Certificates(folder)
    pair, us = made.pair("a", "a.test"), made.pair("us", "spiffe://shop/ns/us")

    async def tunnel(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while await peer.read_some():
            await peer.send(peer.rest)
            peer.rest = b""
        has_ended.set()

    async with AsyncExitStack() as stack:
        mutual = stack.enter_context(grpc_service(credentials(pair, made.ca)))
        expired = stack.enter_context(grpc_service(credentials(made.expired("old", "a.test"))))
        known = tls(made, f"server_name: a.test, {shown(us)}")
        ways = {name: Way([mutual.port], upstream=f"{known}, protocol: {name}") for name in ("http2", "auto")}
        ways["expired"] = Way([expired.port], upstream=f"{tls(made)}, protocol: http2")
        for name, spoken in VERSIONS.items():
            app = await stack.enter_async_context(raw_upstream(tunnel, serving(pair, spoken)))
            ways[f"tunnel-{name.replace('.', '-')}"] = Way([app.port], upstream=tls(made))
        served = await stack.enter_async_context(several(folder, ways))
        yield Apps(served, has_ended)


@pytest.mark.parametrize("name", VERSIONS)
async def test_a_tunnel_goes_both_ways_and_ends_one_way_first(apps: Apps, name: str) -> None:
    """As WebSocket is one; what the side that ended is still sent comes through."""
    apps.has_ended.clear()
    async with raw_client(apps.served[f"tunnel-{name.replace('.', '-')}"].port) as client:
        await client.send(
            b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        while b"\r\n\r\n" not in client.received:
            await client.read_some()
        assert client.received.startswith(b"HTTP/1.1 101 ")
        client.received = b""
        for size in (1, 1000, 100_000, 3):
            await client.send(b"m" * size)
        while len(client.received) < 101_004:
            await client.read_some()
        client.writer.close()
        async with asyncio.timeout(60):
            await apps.has_ended.wait()


@pytest.mark.parametrize("protocol", ["http2", "auto"])
async def test_grpc_goes_by_tls_both_ways_known(apps: Apps, protocol: str) -> None:
    client = Calls(apps.served[protocol].port)
    response, call = await client.unary("Echo", b"hello")
    assert response == b"hello"
    assert call.code() is grpc.StatusCode.OK
    error = await client.failure("Fail")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    client.channel.close()


async def test_a_certificate_that_is_refused_is_unavailable_to_grpc(apps: Apps) -> None:
    client = Calls(apps.served["expired"].port)
    error = await client.failure("Echo")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "tls_certificate_error" in error.details()
    assert "it has expired" in error.details()
    client.channel.close()


async def test_a_reload_with_another_tls_takes_its_place(made: Certificates, tmp_path: Path) -> None:
    """And a file that cannot be used changes nothing, and is told."""
    with tls_server(serving(made.pair("a", "a.test"))) as server:
        file, inbound, probes = written(tmp_path, server.port, upstream=tls(made))
        async with sidecar(file, probes, tmp_path / "sidecar.log") as process:
            assert (await http_get(inbound, "/"))[0] == 200
            text = file.read_text()
            file.write_text(text.replace("server_name: a.test", "server_name: b.test"))
            process.process.send_signal(signal.SIGHUP)
            assert "it is not for 'b.test'" in await answered(inbound, 502)
            file.write_text(text.replace("ca.crt", "none.crt"))
            process.process.send_signal(signal.SIGHUP)
            log = await process.logged("none.crt: there is no such file")
            assert "upstreams.app.tls: " in log
            assert "it is not for 'b.test'" in await answered(inbound, 502)
            file.write_text(text)
            process.process.send_signal(signal.SIGHUP)
            await answered(inbound, 200)


async def answered(inbound: int, wanted: int) -> str:
    """The first answer with this status: a reload takes a moment."""
    async with asyncio.timeout(60):
        while True:
            status, body = await http_get(inbound, "/")
            if status == wanted:
                return body
            await asyncio.sleep(0.05)


async def test_a_file_that_cannot_be_used_keeps_it_from_starting(made: Certificates, tmp_path: Path) -> None:
    pair = made.expired("us", "us.test")
    more = f"server_name: a.test, {shown(pair)}"
    file, _, _ = written(tmp_path, 9, upstream=tls(made, more))
    code, _, errors = await ended(file)
    assert code == 1
    assert errors == (
        f"sidecar: upstreams.app.tls: {pair.chain}: the certificate cannot be used: it has expired\n"
    )


def lines_of(file: str) -> list[str]:
    return Path(file).read_text().splitlines()


async def test_no_byte_of_a_key_is_told_anywhere(made: Certificates, tmp_path: Path) -> None:
    us = made.pair("us", "us.test")
    secret = lines_of(us.key)
    upstream = tls(made, f"server_name: a.test, {shown(us)}")
    with tls_server(serving(made.pair("a", "a.test"), VERSIONS["1.3"], client_ca=made.ca)) as server:
        file, inbound, probes = written(
            tmp_path, server.port, upstream=upstream, top="telemetry: {access_log: {format: json}}"
        )
        text = file.read_text().replace('telemetry: {access_log: {format: "off"}}\n', "")
        file.write_text(text)
        async with sidecar(file, probes, tmp_path / "sidecar.log"):
            assert (await http_get(inbound, "/"))[0] == 200
            admin = int(text.partition('admin: {address: "127.0.0.1:')[2].partition('"')[0])
            told = [
                (await http_get(admin, path, host="localhost"))[1]
                for path in ("/config", "/status", "/upstreams")
            ]
            assert us.key in told[0]
        told.append((tmp_path / "sidecar.log").read_text())
    assert all(len(line) > 20 and line not in text for line in secret[1:2] for text in told)
