"""A client that speaks TLS by hand: in pieces of any size, with a session of an earlier connection, or half-way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.raw import Response, read_responses

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"


class Closed(Exception):
    """The other side has ended its direction, and nothing is left to read."""


class TlsClient:
    """One connection. All errors of TLS come as `ssl.SSLError`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        name: str | None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._got = b""

    async def handshake(self, *, piece_bytes: int = 0) -> None:
        """`piece_bytes`: send so many at a time; 0: all at once."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send(piece_bytes)
                await self._receive()
            else:
                await self._send(piece_bytes)
                return

    async def handshake_and_send(self, data: bytes) -> None:
        """The rest of it, with `data` behind the last flight in the same write."""
        while True:
            await self._receive()
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send(0)
            else:
                self.tls.write(data)
                await self._send(0)
                return

    def first_flight(self) -> bytes:
        """The first message, which is not sent."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read()
        raise AssertionError("nothing was asked of the other side")

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self._send(0)

    async def read(self) -> bytes:
        """Some bytes; empty behind the end of TLS. Raises: Closed, where there is no such end."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self._receive()
            except ssl.SSLZeroReturnError:
                return b""

    async def answer(self, method: bytes = b"GET") -> Response:
        """The next answer, whole."""
        while True:
            found = read_responses(self._got, [method], is_ended=False) if self._got else []
            if found:
                self._got = b""
                return found[0]
            data = await self.read()
            assert data, f"closed behind {self._got!r}"
            self._got += data

    async def ask(self, data: bytes = GET) -> Response:
        await self.send(data)
        return await self.answer()

    async def flush(self) -> None:
        """Send what TLS has to say, such as an alert."""
        await self._send(0)

    @property
    def shown(self) -> tuple[str, ...]:
        """The DNS names of the certificate that was shown."""
        certificate: dict[str, Any] = self.tls.getpeercert() or {}
        return tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")

    async def _send(self, piece_bytes: int) -> None:
        data = self._outgoing.read()
        step = piece_bytes or len(data) or 1
        for start in range(0, len(data), step):
            self.writer.write(data[start : start + step])
            await self.writer.drain()
            if piece_bytes:
                await asyncio.sleep(0)

    async def _receive(self) -> None:
        try:
            data = await self.reader.read(65536)
        except ConnectionError as error:
            raise Closed from error
        if not data:
            raise Closed
        self._incoming.write(data)


@asynccontextmanager
async def tls_client(
    port: int,
    context: ssl.SSLContext,
    name: str | None = "a.test",
    session: ssl.SSLSession | None = None,
    *,
    is_shaken: bool = True,
) -> AsyncIterator[TlsClient]:
    """A connection to this host; with `is_shaken`, its handshake is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = TlsClient(reader, writer, context, name, session)
    try:
        if is_shaken:
            await client.handshake()
        yield client
    finally:
        writer.close()
