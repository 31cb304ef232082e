"""Real clients that upload by HTTP/2 get an answer that was made before their upload was whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.process.setting import Served, served
from tests.process.test_http2_clients import (
    H2,
    PATIENCE_SECONDS,
    before_nobody,
    ended,
    open_breaker,
    run,
    server,
)
from tests.support.ports import free_ports
from tests.support.raw import RawPeer, raw_upstream

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

SIZES = (1, 1_000, 65_536, 300_000, 5_000_000)
TRIES = 2
"""What curl makes of a reset depends on how its reads and ours fall together: a fault shows in most of them."""
CLIENT = r"""
const http2 = require('http2');
const session = http2.connect('http://127.0.0.1:' + process.argv[1]);
const told = {size: 0, error: null};
const stream = session.request({':method': 'POST', ':path': process.argv[2]});
stream.setEncoding('utf8');
stream.on('response', (headers) => { told.status = headers[':status']; });
stream.on('data', (data) => { told.size += data.length; });
stream.on('error', (error) => { told.error = String(error); });
stream.on('end', () => { told.isWhole = told.size > 0; });
stream.on('close', () => { console.log(JSON.stringify(told)); session.close(); });
stream.end(Buffer.alloc(Number(process.argv[3])));
"""
SERVER = r"""
const http2 = require('http2');
const server = http2.createServer();
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  stream.respond({':status': Number(headers[':path'].slice(1))});
  stream.end('early');
});
server.listen(Number(process.argv[1]), '127.0.0.1');
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broken(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A sidecar whose breaker is open for paths below `/app`."""
    async with before_nobody(tmp_path_factory.mktemp("broken")) as (sidecar, admin_port):
        await open_breaker(admin_port)
        yield sidecar


async def early(peer: RawPeer) -> None:
    """Answers what the path says as soon as the head has come, and reads the rest."""
    await peer.head()
    code = peer.rest.split(b" ", 2)[1].removeprefix(b"/")
    await peer.send(b"HTTP/1.1 %b X\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly" % code)
    while await peer.read_some():
        pass


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def before_early(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A sidecar in front of an app that answers early, and whose every answer is to come through."""
    folder, route = tmp_path_factory.mktemp("early"), "circuit_breaker: {mode: disabled}"
    async with raw_upstream(early) as app, served(folder, app.port, route=route) as sidecar:
        yield sidecar


def file_of(folder: Path, size: int) -> Path:
    file = folder / f"upload-{size}"
    file.write_bytes(bytes(size))
    return file


async def uploads_by_curl(folder: Path, url: str, sizes: Sequence[int] = SIZES) -> set[str]:
    """The statuses that curl sees for uploads of these sizes, with its own exit code where it fails."""
    seen = set()
    for size in sizes:
        for way in (("-T",), ("-X", "POST", "--data-binary")):
            name = f"{'' if way == ('-T',) else '@'}{file_of(folder, size)}"
            options = (
                "-s",
                "--http2-prior-knowledge",
                "-o",
                folder / "out",
                "-w",
                "%{http_code}",
                *way,
                name,
            )
            for _ in range(TRIES):
                code, said, _errors = await ended("curl", *options, url)
                seen.add(said if not code else f"{said}, exit {code} at {size}")
    return seen


async def test_curl_gets_our_own_answers_to_uploads_of_every_size(tmp_path: Path, broken: Served) -> None:
    url = f"http://127.0.0.1:{broken.port}"
    assert await uploads_by_curl(tmp_path, f"{url}/app") == {"503"}
    assert await uploads_by_curl(tmp_path, f"{url}/other") == {"404"}


@pytest.mark.parametrize("code", [401, 413, 503])
async def test_curl_gets_an_upstreams_early_answers_to_uploads_of_every_size(
    tmp_path: Path, before_early: Served, code: int
) -> None:
    assert await uploads_by_curl(tmp_path, f"http://127.0.0.1:{before_early.port}/{code}") == {str(code)}


async def test_curl_gets_an_early_success_if_the_rest_fits_into_the_windows(
    tmp_path: Path, before_early: Served
) -> None:
    """curl 7.88 goes on with its upload behind a 2xx that is whole, but looks at no WINDOW_UPDATE any more."""
    url = f"http://127.0.0.1:{before_early.port}/200"
    assert await uploads_by_curl(tmp_path, url, SIZES[:3]) == {"200"}


async def test_curl_gets_early_answers_of_an_upstream_of_http2(tmp_path: Path) -> None:
    [port] = free_ports(1)
    async with (
        server("node", port, "-e", SERVER, str(port)),
        served(tmp_path, port, upstream=H2) as sidecar,
    ):
        assert await uploads_by_curl(tmp_path, f"http://127.0.0.1:{sidecar.port}/413") == {"413"}


async def test_nghttp_and_node_get_our_own_answer(tmp_path: Path, broken: Served) -> None:
    url = f"http://127.0.0.1:{broken.port}/app"
    for size in SIZES:
        assert ":status: 503" in await run("nghttp", "-nv", "-d", file_of(tmp_path, size), url)
        told = json.loads(await run("node", "-e", CLIENT, str(broken.port), "/app", str(size)))
        assert (told["status"], told["isWhole"], told["error"]) == (503, True, None)


async def test_grpcio_gets_our_own_answer_to_a_stream_of_requests(broken: Served) -> None:
    def ask(port: int) -> list[tuple[grpc.StatusCode, str]]:
        told = []
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_unary("/app.Service/Method")
            for _ in range(TRIES):
                with pytest.raises(grpc.RpcError) as caught:
                    call((bytes(50_000) for _ in range(100)), timeout=PATIENCE_SECONDS)
                told.append((caught.value.code(), caught.value.details().partition(":")[0]))
        return told

    told = await asyncio.to_thread(ask, broken.port)
    assert set(told) == {(grpc.StatusCode.UNAVAILABLE, "circuit_open")}
