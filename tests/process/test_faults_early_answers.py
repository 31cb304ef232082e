"""Programs that write their whole upload before they read get the answer that was there after the head."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.ports import free_ports
from tests.support.process import http_get, sidecar
from tests.support.raw import RawPeer, raw_upstream

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

UPLOAD_BYTES = 20_000_000

URLLIB = f"""\
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], data=bytes({UPLOAD_BYTES}), method=sys.argv[2])
try:
    answer = urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, len(answer.read()))
"""
HTTP_CLIENT = f"""\
import http.client, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(url.netloc)
pieces = (bytes(100_000) for _ in range({UPLOAD_BYTES // 100_000}))
connection.request(sys.argv[2], url.path, body=pieces, encode_chunked=True,
                   headers={{"Transfer-Encoding": "chunked"}})
answer = connection.getresponse()
print(answer.status, len(answer.read()))
"""
FETCH = f"""\
const [url, method] = process.argv.slice(1);
const answer = await fetch(url, {{method, body: new Uint8Array({UPLOAD_BYTES})}});
console.log(answer.status, (await answer.arrayBuffer()).byteLength);
"""
NODE_HTTP = f"""\
import http from "node:http";
const [url, method] = process.argv.slice(1);
const request = http.request(url, {{method, headers: {{"content-length": {UPLOAD_BYTES}}}}}, (answer) => {{
  let size = 0;
  answer.on("data", (data) => (size += data.length));
  answer.on("end", () => console.log(answer.statusCode, size));
}});
request.end(Buffer.alloc({UPLOAD_BYTES}));
"""


def curl(url: str, method: str, upload: Path) -> list[str]:
    """Without `Expect`, which would spare it the upload; `-w` writes as the others do."""
    return [
        "curl", "-sS", "-X", method, "-H", "Expect:", "--data-binary", f"@{upload}", "-o", "/dev/null",
        "-w", "%{http_code} %{size_download}", url,
    ]  # fmt: skip


def command(client: str, url: str, method: str, upload: Path) -> list[str]:
    """How that client is called; skips the test where it is not installed."""
    program = {"fetch": "node", "node http": "node", "curl": "curl"}.get(client, sys.executable)
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if client == "curl":
        return curl(url, method, upload)
    if program == "node":
        source = FETCH if client == "fetch" else NODE_HTTP
        return ["node", "--input-type=module", "-e", source, url, method]
    return [program, "-c", URLLIB if client == "urllib" else HTTP_CLIENT, url, method]


@dataclass(frozen=True)
class Early:
    """An answer that nobody needs the body for."""

    status: int
    path: str


EARLY = {
    "open breaker": Early(503, "/open"),
    "fallback": Early(203, "/instead"),
    "no route": Early(404, "/no-route"),
    "413": Early(413, "/app/large"),
    "401": Early(401, "/app/secret"),
}
BY_BREAKERS = ("open breaker", "fallback")


async def app(peer: RawPeer) -> None:
    """Fails at a GET; answers uploads from the head alone, one with a close and its body unread, one without."""
    await peer.head()
    if peer.rest.startswith(b"GET "):
        await peer.request()
        await peer.send(b"HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    elif b"/large " in peer.rest:
        await peer.send(b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
    else:
        await peer.send(b"HTTP/1.1 401 X\r\nContent-Length: 3\r\n\r\nwho")
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Setting:
    """A sidecar that gives each of the early answers, and the upload."""

    port: int
    upload: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answering(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    folder = tmp_path_factory.mktemp("early")
    upload = folder / "upload"
    upload.write_bytes(bytes(UPLOAD_BYTES))
    port, probes = free_ports(2)
    async with raw_upstream(app) as upstream:
        file = folder / "sidecar.yaml"
        file.write_text(configuration(port, probes, upstream.port))
        async with sidecar(file, probes, folder / "log"):
            for early in (EARLY[name] for name in BY_BREAKERS):
                statuses = [(await http_get(port, early.path))[0] for _ in range(7)]
                assert statuses[-1] == early.status
            yield Setting(port, upload)


def configuration(port: int, probes: int, app: int) -> str:
    """However long the clients take, an open breaker stays open."""
    return f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{port}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:0"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}}}
routes:
- {{name: app, upstream: app, match: {{path: {{prefix: /app}}}}}}
- name: open
  upstream: app
  match: {{path: {{prefix: /open}}}}
  circuit_breaker: &long {{open_for: 10m, max_open_for: 10m}}
- name: instead
  upstream: app
  match: {{path: {{prefix: /instead}}}}
  circuit_breaker: *long
  fallback: {{status: 203, body: instead}}
"""


async def run(arguments: list[str]) -> tuple[str, str]:
    """What a program writes, and how it complains."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    return output.decode().strip(), errors.decode().strip()


@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("client", ["urllib", "http.client in chunks", "fetch", "node http", "curl"])
async def test_a_client_gets_its_early_answer(answering: Setting, client: str, early: str) -> None:
    """POST of 20 MB: `fetch` was told EPIPE and `urllib` a broken pipe, 3 of 3."""
    to_be = EARLY[early]
    called = command(client, f"http://127.0.0.1:{answering.port}{to_be.path}", "POST", answering.upload)
    output, errors = await run(called)
    status, _, size = output.partition(" ")
    assert status == str(to_be.status), errors[-300:]
    assert int(size) > 0


@pytest.mark.parametrize("client", ["urllib", "fetch"])
async def test_a_put_is_no_different(answering: Setting, client: str) -> None:
    called = command(client, f"http://127.0.0.1:{answering.port}/no-route", "PUT", answering.upload)
    output, errors = await run(called)
    assert output.partition(" ")[0] == "404", errors[-300:]
