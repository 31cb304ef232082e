"""A WebSocket's handshake through a sidecar, from a client of either HTTP version to an upstream of either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.breaker import Breaker
from sidecar.core.websocket import accept_of
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import RequestReceived
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import app_routes, get
from tests.support.clean import Complaints, assert_clean
from tests.support.http2_ends import (
    End,
    Http2End,
    Pairs,
    Socket,
    Stream,
    connect,
    head_of,
    http2_client,
    http2_end,
    reset,
    socket_of,
)
from tests.support.proxy import port, running
from tests.support.raw import PATIENCE_SECONDS, RawPeer, raw_client, raw_upstream

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 1.3."""
FIELDS: Pairs = ((b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat"), (b"x-kept", b"1"))


@dataclass
class Asked:
    """What the upstream was asked, in either version's words."""

    method: bytes
    path: bytes
    protocol: bytes
    fields: dict[bytes, bytes]
    stream: Stream | None = None
    peer: RawPeer | None = None
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    async def accept(self, *, accept: bytes | None = None, status: int = 200) -> End:
        """Switch; `accept` in the place of the right one."""
        if self.stream is not None:
            connection = self.stream._connection
            fields = ((b"sec-websocket-protocol", b"chat"), (b"x-way", b"in"))
            connection.codec.send_head(self.stream._stream, status, (), pairs=fields)
            connection.flush()
            return self.stream
        assert self.peer is not None
        said = accept_of(self.fields[b"sec-websocket-key"]) if accept is None else accept
        await self.peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: chat\r\nX-Way: in\r\n\r\n" % said
        )
        return socket_of(self.peer)

    async def refuse(self, status: int, body: bytes = b"no") -> None:
        self.refused.set()
        if self.stream is not None:
            connection = self.stream._connection
            connection.codec.send_head(self.stream._stream, status, (), pairs=((b"x-way", b"in"),))
            connection.codec.send_data(self.stream._stream, body)
            connection.codec.end(self.stream._stream)
            connection.flush()
        else:
            assert self.peer is not None
            await self.peer.send(
                b"HTTP/1.1 %d X\r\nX-Way: in\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
            )


@dataclass
class Asking:
    """A client that has sent its handshake."""

    version: str
    _stream: Stream | None = None
    _client: Any = None
    _rest: bytes = b""

    async def answer(self) -> tuple[int, dict[bytes, bytes]]:
        """Status and fields; the body is `body`, or the tunnel `end`."""
        if self._stream is not None:
            return await self._stream.head(), self._stream.fields
        head, self._rest = await head_of(self._client)
        first, *lines = head.split(b"\r\n")
        fields = {line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in lines}
        return int(first.split(b" ")[1]), fields

    async def end(self) -> End:
        """Once the answer has switched."""
        status, _ = await self.answer()
        assert status == (200 if self._stream is not None else 101)
        if self._stream is not None:
            return self._stream
        return Socket(self._client.reader, self._client.writer, self._rest)

    async def body(self) -> bytes:
        if self._stream is not None:
            return await self._stream.read_to_end()
        (response,) = await self._client.responses([b"GET"])
        body: bytes = response.body
        return body

    async def leave(self) -> None:
        if self._stream is not None:
            await self._stream.cut()
        else:
            reset(self._client.writer)


@dataclass
class Versions:
    """A sidecar between a client and an upstream."""

    worker: Worker
    client: str
    asked: asyncio.Queue[Asked] = field(default_factory=asyncio.Queue)
    accepted: list[Http2End] = field(default_factory=list)
    """The upstream's connections, of HTTP/2."""

    @property
    def breaker(self) -> Breaker:
        return self.worker.assembly.breakers["app", "app"]

    @asynccontextmanager
    async def asking(self, fields: Pairs = FIELDS) -> AsyncIterator[Asking]:
        if self.client == "2":
            async with http2_client(port(self.worker)) as connection:
                yield Asking("2", await connect(connection, b"/chat?room=1", fields))
            return
        lines = [b"%b: %b" % pair for pair in fields]
        lines += [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + KEY]
        async with raw_client(port(self.worker)) as client:
            await client.send(get(b"/chat?room=1", *lines))
            yield Asking("1", None, client)

    async def next_asked(self) -> Asked:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.asked.get()

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[tuple[End, End]]:
        """Both ends of a tunnel, the client's first."""
        async with self.asking() as asking:
            asked = await self.next_asked()
            upstream = await asked.accept()
            yield await asking.end(), upstream
            await upstream.end()


@asynccontextmanager
async def versions(
    client: str, upstream: str, *, route: str = "", server: Callable[[], Connection] | None = None
) -> AsyncIterator[Versions]:
    """Nothing may be left behind at the end, and nothing was complained about."""
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with app(upstream, server or (lambda: Connection(Role.SERVER))) as (number, bind):
            further = "protocol: http2" if upstream == "2" else ""
            async with running(app_routes(number, route=route, upstream=further)) as worker:
                to = Versions(worker, client)
                bind(to)
                yield to
                await assert_clean(worker)
    assert complaints.found == []


Bind = Callable[[Versions], None]


@asynccontextmanager
async def app(version: str, server: Callable[[], Connection]) -> AsyncIterator[tuple[int, Bind]]:
    """The upstream: its port, and who is told of what it is asked."""
    bound: list[Versions] = []

    async def serve_1(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            fields = dict(request.fields)
            to = bound[0]
            asked = Asked(request.method, request.target, fields.get(b"upgrade", b""), fields, None, peer)
            to.asked.put_nowait(asked)
            await asked.refused.wait()  # what comes behind a switch is the test's

    def on_request(event: RequestReceived, stream: Stream) -> None:
        asked = Asked(event.method, event.path, event.protocol, dict(event.lookup), stream)
        bound[0].asked.put_nowait(asked)

    if version == "1":
        async with raw_upstream(serve_1) as upstream:
            yield upstream.port, bound.append
            assert upstream.problems == []
        return
    async with http2_app(server, on_request, lambda end: bound[0].accepted.append(end)) as number:
        yield number, bound.append


@asynccontextmanager
async def http2_app(
    server: Callable[[], Connection],
    on_request: Callable[[RequestReceived, Stream], None],
    on_connection: Callable[[Http2End], None],
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with http2_end(server(), reader, writer) as end:
            end.on_request = on_request
            on_connection(end)
            await asyncio.Event().wait()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
