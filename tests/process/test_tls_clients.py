"""Real clients of TLS, before a sidecar: curl, OpenSSL, Node, nghttp2's tools; nginx and Envoy, known ones."""

from __future__ import annotations

import json
import re
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.process.setting import Served, served
from tests.process.test_http2_clients import ended, loaded, run, server
from tests.support.authority import Authority, Pair
from tests.support.envoy import envoy
from tests.support.ports import free_ports
from tests.support.raw import RawPeer, raw_upstream

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

WEB = "spiffe://cluster.local/ns/shop/sa/web"
NODE = r"""
const fs = require('fs');
const [port, ca, cert, key, kind] = process.argv.slice(1);
const tls = {ca: fs.readFileSync(ca), cert: fs.readFileSync(cert), key: fs.readFileSync(key), servername: 'b.test'};
const url = 'https://127.0.0.1:' + port;
const told = {body: ''};
function listen(stream) {
  stream.setEncoding('utf8');
  stream.on('data', (data) => { told.body += data; });
}
if (kind === 'h2') {
  const session = require('http2').connect(url, tls);
  const stream = session.request({':path': '/', ':authority': 'b.test'});
  stream.on('response', (headers) => { told.status = headers[':status']; told.alpn = session.alpnProtocol; });
  listen(stream);
  stream.on('close', () => { console.log(JSON.stringify(told)); session.close(); });
  stream.end();
} else {
  require('https').get(url, {...tls, headers: {host: 'b.test'}}, (answer) => {
    told.status = answer.statusCode; told.alpn = answer.socket.alpnProtocol || '';
    listen(answer);
    answer.on('end', () => console.log(JSON.stringify(told)));
  });
}
"""
NGINX = string.Template("""\
daemon off; pid $folder/pid; error_log $folder/error.log; worker_processes 1;
events {}
http {
  access_log off;
  client_body_temp_path $folder/a; proxy_temp_path $folder/b; fastcgi_temp_path $folder/c;
  uwsgi_temp_path $folder/d; scgi_temp_path $folder/e;
  upstream sidecar { server 127.0.0.1:$to; keepalive 4; }
  server {
    listen 127.0.0.1:$port;
    location / {
      proxy_pass https://sidecar; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host b.test;
      proxy_ssl_server_name on; proxy_ssl_name b.test; proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca;
      proxy_ssl_certificate $chain; proxy_ssl_certificate_key $key; proxy_ssl_protocols $version;
    }
  }
}
""")

ENVOY = string.Template("""\
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": $type.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: peer
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: /}, route: {cluster: sidecar, host_rewrite_literal: b.test}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": $type.filters.http.router.v3.Router}
  clusters:
  - name: sidecar
    type: STATIC
    load_assignment:
      cluster_name: sidecar
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $to}}}}]}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": $type.upstreams.http.v3.HttpProtocolOptions
        auto_config: {}
    transport_socket:
      name: tls
      typed_config:
        "@type": $type.transport_sockets.tls.v3.UpstreamTlsContext
        sni: b.test
        common_tls_context:
          alpn_protocols: [$protocol]
          tls_params: {tls_minimum_protocol_version: $version, tls_maximum_protocol_version: $version}
          tls_certificates: [{certificate_chain: {filename: "$chain"}, private_key: {filename: "$key"}}]
          validation_context:
            trusted_ca: {filename: "$ca"}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: b.test}}]
""")
"""Speaks whichever HTTP the handshake gives it."""


async def tell_certificate(peer: RawPeer) -> None:
    """An app that answers with what it was told of the client's certificate."""
    while (request := await peer.request()) is not None:
        body = request.value(b"x-forwarded-client-cert") or b"nobody"
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@dataclass
class Setting:
    sidecar: Served
    authority: Authority
    client: Pair

    def curl(self, *more: str, name: str = "b.test", is_shown: bool = True) -> list[str | Path]:
        shown: list[str | Path] = ["--cert", self.client.chain, "--key", self.client.key] if is_shown else []
        port = self.sidecar.port
        where = ["--connect-to", f"{name}:443:127.0.0.1:{port}", f"https://{name}/"]
        return ["-s", "-S", "--max-time", "30", "--cacert", self.authority.path, *shown, *more, *where]

    async def handshakes(self, result: str) -> float:
        return await self.sidecar.metric(
            f'sidecar_tls_handshakes_total{{sidecar_listener="inbound",sidecar_tls_result="{result}"}}'
        )


@asynccontextmanager
async def setting(folder: Path, rule: str = "require", more: str = "") -> AsyncIterator[Setting]:
    authority = Authority(folder)
    pairs = ", ".join(authority.pair(name).yaml() for name in ("a.test", "b.test"))
    tls = f'tls: {{certificates: [{pairs}], client: {rule}, client_ca: "{authority.path}"{more}}}'
    async with raw_upstream(tell_certificate) as app, served(folder, app.port, listener=tls) as sidecar:
        yield Setting(sidecar, authority, authority.pair(uris=[WEB], common_name="web"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def requiring(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    async with setting(tmp_path_factory.mktemp("require")) as to:
        yield to


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def requesting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    async with setting(tmp_path_factory.mktemp("request"), "request") as to:
        yield to


VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


@VERSIONS
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
async def test_curl_is_known_by_its_certificate(requiring: Setting, version: str, http: str) -> None:
    limit = ["--tls-max", version, f"--tlsv{version}"]
    told = await run("curl", *requiring.curl(*limit, http, "-w", " %{http_version} %{http_code}"))
    assert f"URI={WEB} " in told
    assert told.endswith("2 200" if http == "--http2" else "1.1 200")


async def test_curl_without_a_certificate_or_the_right_ca_is_refused(
    requiring: Setting, tmp_path: Path
) -> None:
    before = {name: await requiring.handshakes(name) for name in ("certificate", "alert", "done")}
    code, _, errors = await ended("curl", *requiring.curl(is_shown=False))
    assert code == 56
    assert "certificate required" in errors
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other-ca")
    code, _, errors = await ended("curl", *requiring.curl("--cacert", str(other.path)))
    assert code == 60
    code, _, _ = await ended("curl", *requiring.curl(name="c.test"))  # which it looks at behind the handshake
    assert code == 60
    assert {
        name: await requiring.handshakes(name) - count for name, count in before.items()
    } == dict.fromkeys(before, 1)
    plain = ["-s", "--max-time", "30", f"http://127.0.0.1:{requiring.sidecar.port}/"]
    code, _, _ = await ended("curl", *plain)
    assert code in (52, 56)
    log = await requiring.sidecar.process.logged("this port speaks TLS, and the client sent plain HTTP")
    assert '"kind":"tls.handshake_failed"' in log


@VERSIONS
async def test_openssl_gets_the_certificate_of_the_name_and_resumes_for_that_name_alone(
    requesting: Setting, tmp_path: Path, version: str
) -> None:
    session = tmp_path / "session"

    async def connect(name: str, *more: str | Path) -> str:
        """Ask for a page, so that a session of TLS 1.3 comes."""
        asked = tmp_path / "asked"
        asked.write_bytes(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % name.encode())
        arguments = [
            "s_client", "-connect", f"127.0.0.1:{requesting.sidecar.port}", "-servername", name, "-CAfile",
            requesting.authority.path, "-verify_return_error", "-verify_hostname", name, "-ign_eof",
            f"-tls{version.replace('.', '_')}", *more,
        ]  # fmt: skip
        line = " ".join(f"'{argument}'" for argument in arguments)
        return await run("sh", "-c", f"openssl {line} < '{asked}'")

    first = await connect("b.test", "-sess_out", session)
    assert "Verify return code: 0 (ok)" in first
    assert re.search(r"subject=CN ?= ?b\.test", first)
    assert "HTTP/1.1 200 OK" in first
    assert "Reused" in await connect("b.test", "-sess_in", session)
    other = await connect("a.test", "-sess_in", session)
    assert "Reused" not in other
    assert re.search(r"subject=CN ?= ?a\.test", other)


@pytest.mark.parametrize("kind", ["h1", "h2"])
async def test_node_speaks_both_versions_of_http(requiring: Setting, kind: str) -> None:
    arguments = [requiring.authority.path, requiring.client.chain, requiring.client.key, kind]
    told = json.loads(await run("node", "-e", NODE, str(requiring.sidecar.port), *arguments))
    assert told["status"] == 200
    assert f"URI={WEB}" in told["body"]
    if kind == "h2":
        assert told["alpn"] == "h2"


async def test_nghttp2s_tools_speak_http2_over_tls(requesting: Setting) -> None:
    url = f"https://127.0.0.1:{requesting.sidecar.port}/"
    assert await run("nghttp", "--no-verify-peer", "-H", ":authority: a.test", url) == "nobody"
    summary = await loaded(requesting.sidecar, 400, "-c", "8", "-m", "10", "-H", ":authority: a.test", url)
    assert "Application protocol: h2" in summary


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_nginx_shows_its_certificate_on_connections_that_it_keeps(
    requiring: Setting, tmp_path: Path, version: str
) -> None:
    before = await requiring.handshakes("done")
    [port] = free_ports(1)
    folder = tmp_path / "nginx"
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        NGINX.substitute(
            folder=folder, to=requiring.sidecar.port, port=port, ca=requiring.authority.path,
            chain=requiring.client.chain, key=requiring.client.key, version=version,
        )
    )  # fmt: skip
    async with server("nginx", port, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"):
        for _ in range(4):
            told = await run("curl", "-s", "--max-time", "30", f"http://127.0.0.1:{port}/")
            assert f"URI={WEB}" in told
    assert await requiring.handshakes("done") == before + 1


@pytest.mark.parametrize(("protocol", "version"), [("h2", "TLSv1_3"), ("http/1.1", "TLSv1_2")])
async def test_envoy_shows_its_certificate_and_speaks_what_the_handshake_gives(
    requiring: Setting, tmp_path: Path, protocol: str, version: str
) -> None:
    before = await requiring.handshakes("done")
    [port] = free_ports(1)
    text = ENVOY.substitute(
        type="type.googleapis.com/envoy.extensions", to=requiring.sidecar.port, port=port,
        ca=requiring.authority.path, chain=requiring.client.chain, key=requiring.client.key, version=version,
        protocol=protocol,
    )  # fmt: skip
    with envoy(tmp_path, text, port):
        for _ in range(4):
            told = await run("curl", "-s", "--max-time", "30", f"http://127.0.0.1:{port}/")
            assert f"URI={WEB}" in told
    assert await requiring.handshakes("done") == before + 1
