"""Exports over TLS, with an authority of one's own and a client certificate, by both protocols."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest

from sidecar.telemetry.export import make_sink
from sidecar.telemetry.settings import Export
from tests.support.authority import Authority, Pair

REQUEST = b"\x0a\x00"


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(body)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextmanager
def by_http(own: Pair, authority: Authority) -> Iterator[tuple[str, list[bytes]]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.path))
    context.load_cert_chain(own.chain, own.key)
    context.verify_mode = ssl.CERT_REQUIRED
    server = HTTPServer(("127.0.0.1", 0), Taker)
    got = server.got = []  # type: ignore[attr-defined]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/v1/traces", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def by_grpc(own: Pair, authority: Authority) -> Iterator[tuple[str, list[bytes]]]:
    got: list[bytes] = []

    def take(request: bytes, _: grpc.ServicerContext) -> bytes:
        got.append(request)
        return b""

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(take)},
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    pair = own.key.read_bytes(), own.chain.read_bytes()
    credentials = grpc.ssl_server_credentials([pair], authority.path.read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"https://127.0.0.1:{port}", got
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    ("has_authority", "has_certificate", "is_taken"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
@pytest.mark.parametrize("is_direct", [False, True])
def test_a_collector_that_asks_for_certificates(
    protocol: str,
    has_authority: bool,
    has_certificate: bool,
    is_taken: bool,
    is_direct: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Authority(tmp_path, "others").path))
    authority = Authority(tmp_path)
    own, client = authority.pair(addresses=["127.0.0.1"]), authority.pair("sidecar")
    if has_authority:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.path))
    if has_certificate:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(client.chain))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(client.key))
    serve = by_grpc if protocol == "grpc" else by_http
    with serve(own, authority) as (endpoint, got):
        sink = make_sink("traces", Export(protocol, endpoint, None, "none", 1.0), is_direct=is_direct)
        assert (sink.send(REQUEST) == 0) is is_taken
        assert got == ([REQUEST] if is_taken else [])
        sink.close()
