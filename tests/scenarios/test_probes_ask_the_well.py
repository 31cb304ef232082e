"""A breaker that has opened asks, when its wait is over, an endpoint that is believed to be well."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.proxy import port, running


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: bytes) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _ask(to: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", to)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head = await reader.read()
    writer.close()
    return int(head[9:12])


@pytest.mark.parametrize("seed", range(10))
async def test_the_first_probe_goes_to_an_endpoint_that_answers(seed: int) -> None:
    async with AsyncExitStack() as stack:
        ports = []
        for status in (b"500",) * 4 + (b"200",) * 2:
            server = await asyncio.start_server(
                lambda r, w, status=status: _serve(r, w, status), "127.0.0.1", 0
            )
            stack.callback(server.close)
            ports.append(server.sockets[0].getsockname()[1])
        where = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
        breaker = (
            "circuit_breaker: {consecutive_failures: 3, open_for: 5s}, "
            "retry: {budget: {ratio: 0, min_per_second: 0}}"
        )
        worker = await stack.enter_async_context(
            running(
                f"upstreams: {{app: {{endpoints: [{where}]}}}}\n"
                f"routes: [{{name: app, upstream: app, {breaker}}}]\n"
            )
        )
        worker.service.rng.seed(seed)
        seen = set[int]()
        for _ in range(500):
            seen.add(await _ask(port(worker)))
            if 503 in seen:
                break
            await asyncio.sleep(0.5)
        if not seen.issuperset({200, 503}):
            return  # by this chance it never opened, or before anybody was known to be well
        await asyncio.sleep(10.0)
        assert await _ask(port(worker)) == 200
