"""Real clients and servers that speak HTTP/2, unmodified, on both sides of a sidecar: curl, nghttp2's tools, Node."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.upstream.http2 import SUSPECT_SECONDS
from tests.process.setting import Served, Way, served, several
from tests.support.ports import accepts, free_ports
from tests.support.process import admin
from tests.support.raw import RawPeer, RawUpstream, raw_upstream

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

H2 = "protocol: http2"
PATIENCE_SECONDS = 60.0
"""Against hanging."""
BIG = 20_000_000
UPLOAD = 300_000
ECHO = r"""
const http2 = require('http2');
const server = http2.createServer();
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':path'] === '/trailers') {
    stream.respond({':status': 200}, {waitForTrailers: true});
    stream.on('wantTrailers', () => stream.sendTrailers({'x-end': 'whole'}));
    stream.end('body');
    return;
  }
  let size = 0;
  stream.on('data', (data) => { size += data.length; });
  stream.on('end', () => {
    stream.respond({':status': 200});
    stream.end(headers[':method'] + ' ' + size);
  });
});
server.listen(Number(process.argv[1]), '127.0.0.1', () => console.log('ready'));
"""
"""An upstream that sends no content-length."""
CLIENT = r"""
const http2 = require('http2');
const session = http2.connect('http://127.0.0.1:' + process.argv[1]);
const told = {body: '', trailers: null};
const stream = session.request({':path': process.argv[2], te: 'trailers'});
stream.setEncoding('utf8');
stream.on('response', (headers) => { told.status = headers[':status']; });
stream.on('data', (data) => { told.body += data; });
stream.on('trailers', (headers) => { told.trailers = headers['x-end']; });
stream.on('close', () => { console.log(JSON.stringify(told)); session.close(); });
stream.end();
"""


def program(name: str) -> str:
    """Its path. Skips where it is missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


async def run(name: str, *arguments: str | Path) -> str:
    """Its output; it must end well."""
    code, output, errors = await ended(name, *arguments)
    assert code == 0, (code, output[-2000:], errors[-2000:])
    return output


async def ended(name: str, *arguments: str | Path) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        program(name), *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode("latin-1"), errors.decode("latin-1")


@asynccontextmanager
async def server(name: str, port: int, *arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server that accepts connections on `port`."""
    process = await asyncio.create_subprocess_exec(
        program(name),
        *map(str, arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await accepts(port):  # noqa: ASYNC110  # a program sets no event
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


@asynccontextmanager
async def files(folder: Path) -> AsyncIterator[int]:
    """nghttpd in front of two files; its port."""
    root = folder / "files"
    root.mkdir()
    (root / "small").write_bytes(b"hello")
    (root / "big").write_bytes(os.urandom(1 << 16) * (BIG >> 16))
    [port] = free_ports(1)
    async with server("nghttpd", port, "--no-tls", "-d", root, str(port)):
        yield port


@asynccontextmanager
async def node_echo() -> AsyncIterator[int]:
    [port] = free_ports(1)
    async with server("node", port, "-e", ECHO, str(port)):
        yield port


async def big(peer: RawPeer) -> None:
    while await peer.request() is not None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        for _ in range(BIG // 100_000):
            await peer.send(b"d" * 100_000)


async def chunks(peer: RawPeer) -> None:
    while await peer.request() is not None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n"
        await peer.send(head + b"4\r\nbody\r\n0\r\nx-end: whole\r\n\r\n")


@dataclass
class Apps:
    """A sidecar with a way to each app."""

    served: dict[str, Served]
    plain: RawUpstream
    """Of HTTP/1.1, as those that send much and in chunks."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def before_apps(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Apps]:
    async with raw_upstream() as plain, raw_upstream(big) as much, raw_upstream(chunks) as in_chunks:
        ways = {
            "plain": Way([plain.port]),
            "big": Way([much.port]),
            "chunks": Way([in_chunks.port]),
        }
        async with several(tmp_path_factory.mktemp("apps"), ways) as served:
            yield Apps(served, plain)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways_to_files(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[dict[str, Served], Path]]:
    """A sidecar in front of nghttpd, and the folder of its files."""
    folder = tmp_path_factory.mktemp("nghttpd")
    async with files(folder) as port:
        breaker = "circuit_breaker: {consecutive_failures: 1, open_for: 60s}"
        ways = {"files": Way([port], upstream=H2), "upgrade": Way([port], breaker, H2)}
        async with several(folder, ways) as served:
            yield served, folder / "files"


@pytest.fixture
def before_files(ways_to_files: tuple[dict[str, Served], Path]) -> tuple[Served, Path]:
    served, folder = ways_to_files
    return served["files"], folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def before_node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("node")
    async with node_echo() as port, served(folder, port, upstream=H2) as sidecar:
        yield sidecar


def upload(folder: Path) -> Path:
    file = folder / "upload"
    file.write_bytes(b"u" * UPLOAD)
    return file


VERSIONS = pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])


@VERSIONS
async def test_curl_gets_heads_and_posts_to_an_upstream_of_http2(
    before_files: tuple[Served, Path], tmp_path: Path, version: str
) -> None:
    sidecar, folder = before_files
    url = f"http://127.0.0.1:{sidecar.port}"
    assert await run("curl", "-s", version, f"{url}/small") == "hello"
    head = await run("curl", "-sI", version, f"{url}/small")
    assert "content-length: 5" in head.lower()
    missing = await run("curl", "-s", version, "-o", "/dev/null", "-w", "%{http_code}", f"{url}/none")
    assert missing == "404"
    out = tmp_path / "out"
    await run("curl", "-s", version, "-o", out, f"{url}/big")
    assert out.read_bytes() == (folder / "big").read_bytes()


@VERSIONS
async def test_an_answer_without_content_length_comes_through_whole(
    before_node: Served, tmp_path: Path, version: str
) -> None:
    url = f"http://127.0.0.1:{before_node.port}/echo"
    assert await run("curl", "-sm", "20", version, url) == "GET 0"
    body = f"@{upload(tmp_path)}"
    assert await run("curl", "-sm", "20", version, "--data-binary", body, url) == f"POST {UPLOAD}"
    chunked = ("-H", "transfer-encoding: chunked") if version == "--http1.1" else ()
    answer = await run("curl", "-sm", "20", version, *chunked, "-X", "PUT", "-T", upload(tmp_path), url)
    assert answer == f"PUT {UPLOAD}"


async def test_curl_by_http2_reaches_an_app_of_http1(before_apps: Apps, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{before_apps.served['plain'].port}/x"
    await run("curl", "-s", "--http2-prior-knowledge", "--data-binary", f"@{upload(tmp_path)}", url)
    assert [(one.method, len(one.body)) for one in before_apps.plain.requests] == [(b"POST", UPLOAD)]


async def test_a_download_from_an_app_of_http1_comes_through_whole(before_apps: Apps, tmp_path: Path) -> None:
    out = tmp_path / "out"
    url = f"http://127.0.0.1:{before_apps.served['big'].port}/"
    await run("curl", "-s", "--http2-prior-knowledge", "-o", out, url)
    assert out.stat().st_size == BIG
    output = await run("nghttp", "-ns", url)
    assert "200" in output


async def test_chunks_and_trailers_of_http1_reach_a_client_of_http2(before_apps: Apps) -> None:
    program("node")
    told = json.loads(await run("node", "-e", CLIENT, str(before_apps.served["chunks"].port), "/"))
    assert told == {"body": "body", "trailers": "whole", "status": 200}


async def test_node_on_both_sides_passes_trailers(before_node: Served) -> None:
    told = json.loads(await run("node", "-e", CLIENT, str(before_node.port), "/trailers"))
    assert told == {"body": "body", "trailers": "whole", "status": 200}
    by_1 = await run("curl", "-si", "--raw", "--http1.1", f"http://127.0.0.1:{before_node.port}/trailers")
    assert by_1.endswith("0\r\nx-end: whole\r\n\r\n")


@asynccontextmanager
async def before_nobody(folder: Path) -> AsyncIterator[tuple[Served, int]]:
    """A sidecar whose route for paths below `/app` leads nowhere, and the port of its admin API."""
    [nobody] = free_ports(1)
    async with served(folder, nobody, route="match: {path: {regex: /app.*}}") as sidecar:
        found = re.search(r"admin: .*:(\d+)", (folder / "sidecar.yaml").read_text())
        assert found is not None
        yield sidecar, int(found[1])


async def open_breaker(port: int) -> None:
    """By hand, since an app that was never there may be starting: for its first 30 s a refusal opens nothing."""
    code, said = await admin(port, "POST", "/breakers/app/open?for=5m")
    assert code == 200, said


async def test_our_own_answers_are_read_by_curl(tmp_path: Path) -> None:
    async with before_nobody(tmp_path) as (sidecar, admin_port):
        url = f"http://127.0.0.1:{sidecar.port}"
        assert await status(f"{url}/other") == "404"
        assert await status(f"{url}/app") == "502"
        await open_breaker(admin_port)
        assert await status(f"{url}/app") == "503"


async def loaded(sidecar: Served, count: int, *arguments: str) -> str:
    """What h2load tells of so many requests, of which none failed but those that the sidecar says it has refused: on
    a busy machine there may be an overload."""
    before = await refused_streams(sidecar)
    output = await run("h2load", "-n", str(count), *arguments)
    refused = await refused_streams(sidecar) - before
    served = count - refused
    assert f"{count} done, {served} succeeded, {refused} failed, {refused} errored, 0 timeout" in output
    return output


async def refused_streams(sidecar: Served) -> int:
    _, text = await sidecar.process.get("/metrics")
    samples = [line for line in text.splitlines() if line.startswith("sidecar_overload_turned_away_total{")]
    assert samples
    return int(sum(float(line.rpartition(" ")[2]) for line in samples))


async def test_h2load_finds_no_failure(before_files: tuple[Served, Path]) -> None:
    sidecar, _ = before_files
    url = f"http://127.0.0.1:{sidecar.port}"
    # Few enough that a turn which takes them all up is short on a busy machine too: a connection of HTTP/2 that is
    # sent away by an overload leaves h2load's requests for it undone, which no counter of streams tells.
    await loaded(sidecar, 2000, "-c", "4", "-m", "8", f"{url}/small")
    await loaded(sidecar, 20, "-c", "2", "-m", "5", f"{url}/big")


async def test_an_upstream_that_is_stopped_gets_no_new_call_on_its_connection(tmp_path: Path) -> None:
    """The kernel of a stopped process takes connections and bytes, and nobody answers them. After one time-out and
    2 s the next call has a connection of its own, and 10 s after its question the first one is gone."""
    root = tmp_path / "files"
    root.mkdir()
    (root / "small").write_bytes(b"hello")
    [port] = free_ports(1)
    async with (
        server("nghttpd", port, "--no-tls", "-d", root, str(port)) as process,
        served(tmp_path, port, upstream=H2, route="timeouts: {request: 1s}") as sidecar,
    ):
        url = f"http://127.0.0.1:{sidecar.port}/small"
        assert await status(url) == "200"
        assert await connections(sidecar) == 1
        process.send_signal(signal.SIGSTOP)
        assert await status(url) == "504"
        assert await connections(sidecar) == 1
        await asyncio.sleep(SUSPECT_SECONDS + 0.5)  # the time is what is tested
        assert await status(url) == "504"
        assert await connections(sidecar) == 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await connections(sidecar):  # noqa: ASYNC110  # another process sets no event
                await asyncio.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        assert await status(url) == "200"


async def status(url: str) -> str:
    return await run("curl", "-s", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}", url)


async def connections(sidecar: Served) -> float:
    """To the upstream, with and without streams."""
    name = 'sidecar_upstream_connections{sidecar_upstream="app",sidecar_connection_state='
    return await sidecar.metric(f'{name}"active"') + await sidecar.metric(f'{name}"idle"')


async def test_an_upgrade_towards_an_upstream_of_http2_is_502_and_counts_nothing(
    ways_to_files: tuple[dict[str, Served], Path],
) -> None:
    fields = (
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    options = [argument for field in fields for argument in ("-H", field)]
    url = f"http://127.0.0.1:{ways_to_files[0]['upgrade'].port}/small"
    for _ in range(3):
        answer = await run("curl", "-si", "--http1.1", *options, url)
        assert answer.startswith("HTTP/1.1 502")
        assert "ENABLE_CONNECT_PROTOCOL" in answer
    assert await status(url) == "200"
