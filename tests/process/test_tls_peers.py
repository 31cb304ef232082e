"""TLS towards real servers: OpenSSL's, nginx, Python's in threads. What they refuse is told in their own word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from sidecar.cli.dev_certificates import make_ca
from sidecar.core.snapshot import CertificateFiles
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import app_routes, get, post
from tests.scenarios.test_tls_upstream import VERSIONS, made, serving, shown, tls, version
from tests.support.certificates import Certificates
from tests.support.envoy import envoy
from tests.support.nginx import needs_nginx, nginx_by_tls
from tests.support.ports import free_ports
from tests.support.proxy import port, running
from tests.support.raw import Response, raw_client
from tests.support.tls_server import ECHO, tls_server

pytestmark = pytest.mark.process

__all__ = ["made", "version"]
OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="no openssl here")


class Front:
    """A sidecar in front of something on a port of this host."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    async def ask(self, data: bytes) -> Response:
        async with raw_client(port(self.worker)) as client:
            await client.send(data)
            (response,) = await client.responses([b"GET"])
            return response


@asynccontextmanager
async def front(to: int, upstream: str, route: str = "") -> AsyncIterator[Front]:
    async with running(app_routes(to, upstream=upstream, route=route)) as worker:
        yield Front(worker)


# What the other side refuses comes as its alert


async def test_no_common_version(made: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    pair = made.pair("a", "a.test")
    context.load_cert_chain(pair.chain, pair.key)
    with tls_server(context) as server:
        async with front(server.port, tls(made)) as to:
            told = (await to.ask(get())).values(b"proxy-status")[0]
    assert b"error=tls_alert_received" in told
    assert b"the alert protocol_version: no version of TLS is spoken on both sides" in told


@pytest.mark.parametrize("is_foreign", [False, True])
async def test_a_client_certificate_that_is_missing_or_foreign_is_said_and_not_counted(
    made: Certificates, version: ssl.TLSVersion, is_foreign: bool
) -> None:
    """In TLS 1.3 the refusal comes in the place of the answer, and nothing was processed."""
    context = serving(made.pair("a", "a.test"), version, client_ca=made.ca)
    more = "server_name: a.test"
    if is_foreign:
        more += f", {shown(made.pair('us', 'us.test', signed_by=make_ca('stranger')))}"
    with tls_server(context) as server:
        route = "circuit_breaker: {consecutive_failures: 1, warm_up: 0s}"
        async with front(server.port, tls(made, more), route) as to:
            for _ in range(3):
                response = await to.ask(post(b"never processed"))
                if version is VERSIONS["1.2"] and not is_foreign:
                    break  # there it is the alert handshake_failure, which may say anything (RFC 5246 7.4.6)
                assert response.status == 502
                told = response.values(b"proxy-status")[0]
                assert b"error=tls_alert_received" in told, told
                assert to.worker.assembly.breakers["app", "app"].state is State.CLOSED
        assert server.served == [] or version is VERSIONS["1.3"]


async def test_a_name_that_the_server_does_not_know(made: Certificates) -> None:
    context = serving(made.pair("a", "a.test"))
    context.sni_callback = lambda sock, name, ctx: (
        None if name == "a.test" else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    )
    with tls_server(context) as server:
        async with front(server.port, tls(made, "server_name: b.test")) as to:
            told = (await to.ask(get())).values(b"proxy-status")[0]
            assert (
                b"the alert unrecognized_name: it knows no certificate for the name asked for (SNI)" in told
            )
            assert b"error=tls_alert_received" in told


# A pooled connection that the other side has ended, by TLS alone


def _ends(sock: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        sock.unwrap()


def _garbles(sock: ssl.SSLSocket) -> None:
    os.write(sock.fileno(), bytes(50))


@pytest.mark.parametrize("how", [_ends, _garbles])
async def test_a_connection_that_has_ended_by_tls_alone_carries_nothing_more(
    made: Certificates, version: ssl.TLSVersion, how: Callable[[ssl.SSLSocket], None]
) -> None:
    """Its socket stays open. A request that may not be sent twice goes by another connection, and at once."""
    has_ended, may_end = threading.Event(), threading.Event()

    def serve(sock: ssl.SSLSocket) -> None:
        sock.recv(65536)
        sock.sendall(ECHO)
        how(sock)
        has_ended.set()
        may_end.wait(60)

    with tls_server(serving(made.pair("a", "a.test"), version), serve) as server:
        async with front(server.port, tls(made)) as to:
            try:
                for number in (1, 2, 3):
                    assert (await to.ask(post(b"once"))).status == 200
                    await asyncio.to_thread(has_ended.wait, 60)
                    has_ended.clear()
                    for _ in range(
                        20
                    ):  # the loop reads it, or finds it in the kernel when the next one comes
                        await asyncio.sleep(0.005)
                    assert len(server.served) == number
            finally:
                may_end.set()


# OpenSSL's own server


@contextmanager
def s_server(pair: CertificateFiles, *arguments: str) -> Iterator[int]:
    (free,) = free_ports(1)
    assert OPENSSL is not None
    command = [
        OPENSSL,
        "s_server",
        "-accept",
        f"127.0.0.1:{free}",
        "-cert",
        pair.chain,
        "-key",
        pair.key,
        "-www",
    ]
    process = subprocess.Popen(
        [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        while b"ACCEPT" not in process.stdout.readline():
            assert process.poll() is None, "openssl did not start"
        yield free
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_openssl
@pytest.mark.parametrize("arguments", [["-tls1_2"], ["-tls1_3"]], ids=lambda one: one[0])
async def test_openssl_answers(made: Certificates, arguments: list[str]) -> None:
    with s_server(made.pair("a", "a.test"), *arguments) as to_port:
        async with front(to_port, tls(made)) as to:
            response = await to.ask(get())
            assert response.status == 200
            assert b"s_server" in response.body
            facts = to.worker.assembly.clusters["app"].pools[0].facts.tls
            assert facts is not None
            assert facts.version == arguments[0].removeprefix("-tls").replace("_", ".")


@needs_openssl
async def test_openssl_with_no_protocol_in_common_says_so(made: Certificates) -> None:
    with s_server(made.pair("a", "a.test"), "-alpn", "h3") as to_port:
        for protocol in ("http1", "http2", "auto"):
            async with front(to_port, f"{tls(made)}, protocol: {protocol}") as to:
                told = (await to.ask(get())).values(b"proxy-status")[0]
                assert b"error=tls_alert_received" in told, told
                assert b"the alert no_application_protocol" in told


# nginx


@needs_nginx
@pytest.mark.parametrize("protocol", ["http1", "http2", "auto"])
@pytest.mark.parametrize("spoken", ["TLSv1.2", "TLSv1.3"])
async def test_nginx_by_either_http_and_with_both_certificates(
    made: Certificates, tmp_path: Path, protocol: str, spoken: str
) -> None:
    pair, us = made.pair("a", "a.test"), made.pair("us", "spiffe://shop/ns/us")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 16384)
    server = f"""
      ssl_certificate {pair.chain}; ssl_certificate_key {pair.key}; ssl_protocols {spoken};
      ssl_client_certificate {made.ca}; ssl_verify_client on;
      location / {{ return 200 "$ssl_server_name $ssl_client_verify $server_protocol"; }}
      location /large {{ root {tmp_path}; }}
    """
    with nginx_by_tls(tmp_path, server) as to_port:
        more = f"server_name: a.test, {shown(us)}"
        async with front(to_port, f"{tls(made, more)}, protocol: {protocol}") as to:
            http = "HTTP/1.1" if protocol == "http1" else "HTTP/2.0"
            answers = await asyncio.gather(*(to.ask(get()) for _ in range(20)))
            assert {answer.body for answer in answers} == {f"a.test SUCCESS {http}".encode()}
            assert (await to.ask(get(b"/large"))).body == bytes(range(256)) * 16384


@needs_nginx
async def test_nginx_without_a_client_certificate_answers_itself(made: Certificates, tmp_path: Path) -> None:
    """It takes the connection, and answers 400: that is its answer, and no failure of TLS."""
    pair = made.pair("a", "a.test")
    server = f"""
      ssl_certificate {pair.chain}; ssl_certificate_key {pair.key};
      ssl_client_certificate {made.ca}; ssl_verify_client on;
    """
    with nginx_by_tls(tmp_path, server) as to_port:
        async with front(to_port, tls(made)) as to:
            response = await to.ask(get())
            assert response.status == 400
            assert b"No required SSL certificate was sent" in response.body


# Envoy

MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{tls_minimum_protocol_version: {spoken}, tls_maximum_protocol_version: {spoken}}}
            tls_certificates:
            - certificate_chain: {{filename: "{pair.chain}"}}
              private_key: {{filename: "{pair.key}"}}
            validation_context: {{trusted_ca: {{filename: "{ca}"}}}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": "{manager}"
          stat_prefix: peer
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                direct_response:
                  status: 200
                  body: {{inline_string: "ok"}}
                response_headers_to_add:
                - header: {{key: x-seen, value: "%PROTOCOL% %DOWNSTREAM_PEER_URI_SAN%"}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"""


@pytest.mark.parametrize("spoken", ["TLSv1_2", "TLSv1_3"])
async def test_envoy_by_either_http_and_with_both_certificates(
    made: Certificates, tmp_path: Path, spoken: str
) -> None:
    pair, us = made.pair("a", "a.test", "spiffe://shop/ns/a"), made.pair("us", "spiffe://shop/ns/us")
    (to_port,) = free_ports(1)
    more = f'server_name: a.test, identities: ["spiffe://shop/ns/a"], {shown(us)}'
    with envoy(
        tmp_path, ENVOY.format(port=to_port, pair=pair, ca=made.ca, spoken=spoken, manager=MANAGER), to_port
    ):
        for protocol, http in (("http1", b"HTTP/1.1"), ("http2", b"HTTP/2"), ("auto", b"HTTP/2")):
            async with front(to_port, f"{tls(made, more)}, protocol: {protocol}") as to:
                answers = await asyncio.gather(*(to.ask(get()) for _ in range(10)))
                assert {answer.body for answer in answers} == {b"ok"}
                assert answers[0].value(b"x-seen") == http + b" spiffe://shop/ns/us"
        stranger = made.pair("stranger", "x.test", signed_by=make_ca("stranger"))
        async with front(to_port, tls(made, f"server_name: a.test, {shown(stranger)}")) as to:
            told = (await to.ask(get())).values(b"proxy-status")[0]
            assert b"error=tls_alert_received" in told
            assert b"the alert unknown_ca" in told
