"""A sidecar with routes of one's own, asked in both versions of HTTP: what tests of routing actions stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.core.observe import ObservedExchange
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import DataReceived, ResponseReceived, StreamReset
from sidecar.runtime.worker import Worker
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, RawUpstream, Request, Script, raw_client, raw_upstream
from tests.support.silent import Silent

VERSIONS = ["1.1", "2"]
Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Reply:
    """What a client got."""

    status: int
    fields: dict[bytes, bytes]
    """Values by lower-case name; those of a field that came several times, joined."""
    body: bytes


class Ended(Silent):
    """Keeps what is told of exchanges at their ends."""

    def __init__(self) -> None:
        self.told: list[tuple[str | None, int, str, int, str | None]] = []
        """Route, status, details, attempts, and why the sidecar refused it."""

    def finished(self, exchange: ObservedExchange) -> None:
        reason = None if exchange.reason is None else exchange.reason.value
        self.told.append(
            (exchange.route_name, exchange.status, exchange.detail, len(exchange.attempts), reason)
        )


@dataclass
class Acting:
    """The sidecar, and the app that its upstreams `app` and `other` are."""

    worker: Worker
    app: RawUpstream
    port: int
    ended: Ended

    @property
    def requests(self) -> list[Request]:
        return self.app.requests

    async def ask(
        self,
        version: str,
        target: bytes = b"/",
        *pairs: tuple[bytes, bytes],
        method: bytes = b"GET",
        host: bytes = b"example.test",
        body: bytes = b"",
    ) -> Reply:
        """One request on a connection of its own."""
        if version == "2":
            return await self._ask_2(target, pairs, method, host, body)
        lines = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        data = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (method, target, host, lines, length, body)
        async with raw_client(self.port) as client:
            await client.send(data)
            (response,) = await client.responses([method])
        fields: dict[bytes, bytes] = {}
        for key, value in response.fields:
            fields[key] = b"%b, %b" % (fields[key], value) if key in fields else value
        return Reply(response.status, fields, response.body)

    async def _ask_2(self, target: bytes, pairs: Pairs, method: bytes, host: bytes, body: bytes) -> Reply:
        codec = Connection(Role.CLIENT)
        pseudo: Pairs = (
            (b":method", method), (b":scheme", b"http"), (b":path", target), (b":authority", host),
        )  # fmt: skip
        async with raw_client(self.port) as client:
            lowered = tuple((name.lower(), value) for name, value in pairs)
            stream = codec.open_stream(pseudo, (), pairs=lowered, is_end=not body)
            if body:
                codec.send_data(stream, body)
                codec.end(stream)
            await client.send(codec.take())
            status, fields, answer, read = 0, {}, b"", 0
            while True:
                while len(client.received) == read:
                    await client.read_some()
                data, read = client.received[read:], len(client.received)
                for event in codec.receive(data, 0.0):
                    if isinstance(event, ResponseReceived):
                        status, fields = event.status, dict(event.lookup)
                    if isinstance(event, DataReceived):
                        answer += event.data
                    is_over = isinstance(event, StreamReset) or getattr(event, "is_end", False)
                    if is_over and getattr(event, "stream", None) is stream:
                        return Reply(status, fields, answer)


@asynccontextmanager
async def acting(routes: str, script: Script = RawPeer.echo, header: str = HEADER) -> AsyncIterator[Acting]:
    """Run `routes` (items of the list, in YAML) before an app, and leave nothing behind."""
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream(script) as app:
            upstreams = ", ".join(
                f'{name}: {{endpoints: ["127.0.0.1:{app.port}"]}}' for name in ("app", "other")
            )
            text = f"upstreams: {{{upstreams}}}\nroutes:\n{routes}\n"
            async with running(text, header) as worker:
                ended = Ended()
                worker.service.observe = ended
                yield Acting(worker, app, port(worker), ended)
                await assert_clean(worker)
        assert app.problems == []
    assert complaints.found == []
