"""Programs that write their whole upload before they read get the answer that was there after the head."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process.setting import Served, served
from tests.support.process import http_get
from tests.support.raw import RawPeer, raw_upstream

pytestmark = pytest.mark.process

UPLOAD_BYTES = 20_000_000
TIMES = 3

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
    path: str = "/app"
    route: str = ""


EARLY = {
    "open breaker": Early(503),
    "fallback": Early(203, route="fallback: {status: 203, body: instead}"),
    "no route": Early(404, path="/no-route"),
    "413": Early(413, path="/app/large"),
    "401": Early(401, path="/app/secret"),
}


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


@asynccontextmanager
async def answering_early(early: str, folder: Path) -> AsyncIterator[tuple[Served, Early]]:
    to_be = EARLY[early]
    route = ", ".join(filter(None, ("match: {path: {prefix: /app}}", to_be.route)))
    async with raw_upstream(app) as upstream, served(folder, upstream.port, route=route) as to:
        if early in ("open breaker", "fallback"):
            for _ in range(6):
                await http_get(to.port, "/app")
            assert (await http_get(to.port, "/app"))[0] == to_be.status
        yield to, to_be


async def run(arguments: list[str]) -> tuple[str, str]:
    """What a program writes, and how it complains."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    return output.decode().strip(), errors.decode().strip()


@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("client", ["urllib", "http.client in chunks", "fetch", "node http", "curl"])
async def test_a_client_gets_its_early_answer_each_time(tmp_path: Path, client: str, early: str) -> None:
    """POST of 20 MB: `fetch` was told EPIPE and `urllib` a broken pipe, 3 of 3."""
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(UPLOAD_BYTES))
    async with answering_early(early, tmp_path) as (to, to_be):
        called = command(client, f"http://127.0.0.1:{to.port}{to_be.path}", "POST", upload)
        seen = [await run(called) for _ in range(TIMES)]
    statuses = [output.partition(" ")[0] or errors[-300:] for output, errors in seen]
    assert statuses == [str(to_be.status)] * TIMES
    assert all(int(output.partition(" ")[2]) > 0 for output, _ in seen)


@pytest.mark.parametrize("client", ["urllib", "fetch"])
async def test_a_put_is_no_different(tmp_path: Path, client: str) -> None:
    async with answering_early("no route", tmp_path) as (to, to_be):
        called = command(client, f"http://127.0.0.1:{to.port}{to_be.path}", "PUT", tmp_path)
        outputs = [await run(called) for _ in range(TIMES)]
    assert [output.partition(" ")[0] for output, _ in outputs] == ["404"] * TIMES, json.dumps(outputs)[:600]
