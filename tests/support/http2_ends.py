"""The two ends of tunnels, in either version of HTTP: what a test says to a sidecar and hears from it.

An end of HTTP/2 is one stream of a connection of its own, on the codec that has tests by itself; one of HTTP/1.1 is
the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from sidecar.http2 import events
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.stream import Http2Stream
from tests.support.raw import PATIENCE_SECONDS, RawClient, RawPeer

CHUNK_BYTES = 65_536


class End(ABC):
    """One side of a tunnel."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Returns when there is room for more."""

    @abstractmethod
    async def read(self) -> bytes:
        """What came, as soon as something did; empty at the end. Nothing is taken between two calls."""

    @abstractmethod
    async def end(self) -> None:
        """Send no more; the other direction goes on."""

    @abstractmethod
    async def cut(self) -> None:
        """End both directions as a mistake would."""

    @property
    @abstractmethod
    def was_cut(self) -> str:
        """How the other side has ended it before its time; empty if it did not."""

    async def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.read()
            assert more, f"ended after {len(data)} of {size} bytes {self.was_cut}"
            data += more
        assert len(data) == size
        return data

    async def read_to_end(self) -> bytes:
        data = b""
        while more := await self.read():
            data += more
        return data


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Socket(End):
    """HTTP/1.1, behind the switch."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes = b"") -> None:
        self._reader = reader
        self._writer = writer
        self._rest = rest
        self._was_cut = ""

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def read(self) -> bytes:
        rest, self._rest = self._rest, b""
        if rest:
            return rest
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._reader.read(CHUNK_BYTES)
        except ConnectionError:
            self._was_cut = "RST"
            return b""

    async def end(self) -> None:
        if not self._writer.is_closing():
            self._writer.write_eof()

    async def cut(self) -> None:
        reset(self._writer)

    @property
    def was_cut(self) -> str:
        return self._was_cut


class Stream(End):
    """HTTP/2: one stream."""

    def __init__(self, connection: Http2End, stream: Http2Stream) -> None:
        self._connection = connection
        self._stream = stream
        stream.owner = self
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self._data = b""
        self._is_ended = False
        self._was_cut = ""
        self.moved = asyncio.Event()

    def told(self, event: Any) -> None:
        if isinstance(event, events.ResponseReceived):
            self.status, self.fields = event.status, dict(event.lookup)
        elif isinstance(event, events.DataReceived):
            self._data += event.data
        elif isinstance(event, events.StreamReset):
            self._was_cut = ErrorCode(event.code).name
            self._is_ended = True
        self._is_ended = self._is_ended or getattr(
            event, "is_end", isinstance(event, events.TrailersReceived)
        )
        self.moved.set()

    def lost(self) -> None:
        self._is_ended = True
        self.moved.set()

    async def _move(self) -> None:
        self.moved.clear()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.moved.wait()

    async def head(self) -> int:
        """The status of the answer."""
        while not self.status and not self._is_ended:
            await self._move()
        return self.status

    async def send(self, data: bytes) -> None:
        is_room_left = self._connection.codec.send_data(self._stream, data)
        self._connection.flush()
        while not is_room_left and self._stream.unsent_bytes > CHUNK_BYTES and not self._is_ended:
            await self._move()

    async def read(self) -> bytes:
        while not self._data and not self._is_ended:
            await self._move()
        data, self._data = self._data, b""
        self._connection.codec.credit_stream(self._stream, len(data))
        self._connection.flush()
        return data

    async def end(self) -> None:
        self._connection.codec.end(self._stream)
        self._connection.flush()

    async def cut(self) -> None:
        self._connection.codec.reset(self._stream, ErrorCode.CANCEL)
        self._connection.flush()

    @property
    def was_cut(self) -> str:
        return self._was_cut


@dataclass
class Http2End:
    """One connection. `on_request` is a server's: who is told of each request with its stream."""

    codec: Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    on_request: Callable[[events.RequestReceived, Stream], None] | None = None
    settings: asyncio.Event = field(default_factory=asyncio.Event)

    def flush(self) -> None:
        data = self.codec.take()
        if data:
            self.writer.write(data)

    async def run(self) -> None:
        """Until the connection ends."""
        streams: list[Stream] = []
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(CHUNK_BYTES):
                for event in self.codec.receive(data, 0.0):
                    self._told(event, streams)
                self.flush()
        for stream in streams:
            stream.lost()

    def _told(self, event: Any, streams: list[Stream]) -> None:
        if isinstance(event, events.PeerSettings):
            self.settings.set()
        elif isinstance(event, events.RequestReceived):
            assert self.on_request is not None
            self.on_request(event, Stream(self, event.stream))
        if isinstance(event, events.DataReceived):
            self.codec.credit_connection(len(event.data))
        stream = getattr(event, "stream", None)
        if stream is not None and stream.owner is not None:
            if stream.owner not in streams:
                streams.append(stream.owner)
            stream.owner.told(event)


@asynccontextmanager
async def http2_end(
    codec: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncIterator[Http2End]:
    """A connection whose bytes are looked after until the end of the block."""
    end = Http2End(codec, reader, writer)
    end.flush()
    task = asyncio.create_task(end.run())
    try:
        yield end
    finally:
        writer.close()
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        task.cancel()


# Handshakes

Pairs = tuple[tuple[bytes, bytes], ...]


async def connect(end: Http2End, path: bytes, pairs: Pairs = (), protocol: bytes = b"websocket") -> Stream:
    """An extended CONNECT, as soon as the server has said that it takes one."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await end.settings.wait()
    assert end.codec.peer.is_connect_protocol_enabled
    pseudo = (
        (b":method", b"CONNECT"),
        (b":protocol", protocol),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"x"),
    )
    stream = Stream(end, end.codec.open_stream(pseudo, (), pairs=pairs))
    end.flush()
    return stream


@asynccontextmanager
async def http2_client(port: int) -> AsyncIterator[Http2End]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with http2_end(Connection(Role.CLIENT), reader, writer) as end:
        yield end


async def head_of(client: RawClient) -> tuple[bytes, bytes]:
    """Of an answer of HTTP/1.1, and what came behind it."""
    while b"\r\n\r\n" not in client.received and not client.is_ended:
        await client.read_some()
    head, _, rest = client.received.partition(b"\r\n\r\n")
    return head, rest


OnTunnel = Callable[[Any, End], Awaitable[None]]


def without_setting() -> Connection:
    """A server that never says ENABLE_CONNECT_PROTOCOL."""
    return cast("Connection", WithoutSetting(Connection(Role.SERVER)))


class WithoutSetting:
    """Stands before a codec, which can't be extended where it is compiled."""

    def __init__(self, codec: Connection) -> None:
        self._codec = codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def take(self) -> bytes:
        setting = b"\0\x08\0\0\0\x01"
        data = self._codec.take()
        at = data.find(setting)
        if at < 0:
            return data
        length = int.from_bytes(data[:3], "big") - len(setting)
        return length.to_bytes(3, "big") + data[3:at] + data[at + len(setting) :]


def socket_of(peer: RawPeer) -> Socket:
    """The upstream's end, once its request was read."""
    return Socket(peer.reader, peer.writer, peer.rest)
