"""`sidecar tune` against a real process: by its admin API, and by the log that it has written."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process.setting import written
from tests.support.process import sidecar

pytestmark = pytest.mark.process

GOOD, BAD = 300, 60


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            status = b"500 X" if head.startswith(b"GET /bad") else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def ask(to: int, path: bytes, count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", to)
    for _ in range(count):
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    writer.close()


async def command(*words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "tune", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_process_and_its_log_tell_the_same(tmp_path: Path) -> None:
    server = await asyncio.start_server(app, "127.0.0.1", 0)
    async with server:
        await compare(tmp_path, server.sockets[0].getsockname()[1])


async def compare(tmp_path: Path, to: int) -> None:
    file, inbound, probes = written(tmp_path, to)
    text = file.read_text().replace('{format: "off"}', "{attempts: true}")
    file.write_text(text)
    admin = text.partition("admin: {address: ")[2].partition('"')[2].partition('"')[0]
    log = tmp_path / "log"
    async with sidecar(file, probes, log):
        await ask(inbound, b"/", GOOD)
        await ask(inbound, b"/bad", BAD)
        code, out, err = await command("app", "--from", f"http://{admin}", "--json")
        assert (code, err) == (1, "")
        live: dict[str, Any] = json.loads(out)
        assert (await command("none", "--admin", f"http://{admin}"))[0] == 2
    assert (live["calls"], live["refused"]) == (GOOD + BAD, BAD - 5)
    assert live["reason"].startswith("1 outage is in the data")
    lines = tmp_path / "access.log"
    lines.write_text("".join(one for one in log.read_text().splitlines(keepends=True) if one.startswith("{")))
    code, out, err = await command("app", "--from", str(lines), "--config", str(file), "--json")
    assert (code, err) == (1, "")
    read = json.loads(out)
    for key in ("calls", "refused", "present", "is_recommended", "outages"):
        assert read[key] == live[key]
