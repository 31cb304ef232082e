"""An operator at the admin listener: asks, changes, and listens to events."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sidecar.core.snapshot import Address, Snapshot
from sidecar.runtime.worker import Worker
from sidecar.serving.http import HttpServer
from sidecar.serving.message import Handler
from tests.support.contract import check_answer, check_event
from tests.support.proxy import chance
from tests.support.raw import Response, raw_client


@asynccontextmanager
async def serving(
    snapshot: Snapshot, log: Path | str = os.devnull, *, path: str | None = None
) -> AsyncIterator[Worker]:
    """A started `Worker` with this configuration, whose log goes to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    worker = Worker(
        snapshot, {}, path=path, log_fd=descriptor, clock=asyncio.get_running_loop().time, rng=chance()
    )
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()
        os.close(descriptor)


@asynccontextmanager
async def serving_by(handler: Handler) -> AsyncIterator[HttpServer]:
    """The server of admin and probes, whose every path and method is that handler's."""
    server = HttpServer("probes.address", end_seconds=1.0)
    server.start(handler, Address("127.0.0.1", 0))
    try:
        yield server
    finally:
        await server.stop()


class Operator:
    """Asks one admin listener, one request to a connection, and holds every answer to the API's description."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 0
        """Of the last answer."""

    async def send(self, method: str, path: str, *lines: str, host: str | None = None) -> Response:
        """The bare answer."""
        name = host if host is not None else f"127.0.0.1:{self.port}"
        fields = "".join(f"{line}\r\n" for line in (f"Host: {name}", "Connection: close", *lines))
        async with raw_client(self.port) as client:
            await client.send(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode())
            await client.read_to_end()
            (response,) = await client.responses([method.encode()])
        kind = (response.value(b"content-type") or b"").decode()
        check_answer(method, path, response.status, kind, response.body)
        self.status = response.status
        return response

    async def get(self, path: str, *lines: str) -> Any:
        return json.loads((await self.send("GET", path, *lines)).body)

    async def post(self, path: str, *lines: str) -> Any:
        return json.loads((await self.send("POST", path, *lines)).body)

    @asynccontextmanager
    async def events(self, last_id: str | None = None) -> AsyncIterator[Listening]:
        """Listen to `/events`, from now on or after `last_id`."""
        after = () if last_id is None else (f"Last-Event-ID: {last_id}",)
        async with self.stream("/events", *after) as listening:
            yield listening

    @asynccontextmanager
    async def stream(self, path: str, *lines: str) -> AsyncIterator[Listening]:
        """Listen to an answer that has no end, from behind its greeting on."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        fields = "".join(f"{line}\r\n" for line in ("Host: localhost", *lines))
        writer.write(f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"text/event-stream" in head
        listening = Listening(reader)
        await listening.block()
        try:
            yield listening
        finally:
            writer.close()


class Listening:
    """The events of one connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._text = b""
        self.last_id = ""

    async def block(self) -> dict[str, str]:
        """The next block of lines that end with an empty one."""
        while b"\n\n" not in self._text:
            size = await self._reader.readline()  # a chunk's
            self._text += await self._reader.readexactly(int(size, 16))
            await self._reader.readexactly(2)
        raw, _, self._text = self._text.partition(b"\n\n")
        block = dict(line.split(": ", 1) for line in raw.decode().split("\n"))
        self.last_id = block.get("id", self.last_id)
        return block

    async def next(self) -> tuple[str, Any]:
        """The next event: its kind and its data."""
        block: dict[str, str] = {}
        while "data" not in block:
            block = await self.block()
        data = json.loads(block["data"])
        check_event(block["event"], data)
        return block["event"], data


def operator(worker: Worker) -> Operator:
    return Operator(worker.control.admin.port)
