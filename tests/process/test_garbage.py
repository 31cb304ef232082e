"""Garbage for a while: each piece gets its answer or its cut, and everybody else is served as before."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from tests.process.setting import served
from tests.support.process import http_get
from tests.support.raw import raw_client, raw_upstream

pytestmark = pytest.mark.process

VALID = (
    b"POST /a?b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-One: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
)
CONNECTIONS = 600
AT_ONCE = 20


def piece(rng: random.Random) -> bytes:
    """Random bytes, or a good request with some of its bytes changed, lost or doubled."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(1, 2000))
    data = bytearray(VALID * rng.randrange(1, 4))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data))
        change = rng.randrange(3)
        if change == 0:
            data[at] = rng.randrange(256)
        elif change == 1:
            del data[at : at + rng.randrange(1, 8)]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
    return bytes(data)


async def send(port: int, data: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(data)
        async with asyncio.timeout(0.05):
            while answer := await reader.read(65536):
                assert b"\r\n\r\n" in answer or b"HTTP/1.1" not in answer[:8]
    writer.close()


async def test_garbage_costs_the_others_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    rng = random.Random(1)
    async with raw_upstream() as app, served(tmp_path, app.port) as to:
        assert (await http_get(to.port, "/warm"))[0] == 200
        before = to.process.memory_kib()
        async with raw_client(to.port) as good:
            for _ in range(CONNECTIONS // AT_ONCE):
                await asyncio.gather(*(send(to.port, piece(rng)) for _ in range(AT_ONCE)))
                good.received = b""
                await good.send(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")
                (response,) = await good.responses([b"GET"])
                assert (response.status, response.body) == (200, b"GET /good")
        assert to.process.memory_kib() - before < 16 * 1024
        assert await to.metric('http_server_request_duration_seconds_count{http_request_method="_OTHER"') > 0
    assert app.problems == []
    log = to.process.log.read_text()
    assert "Traceback" not in log
    assert "broke off" not in log
