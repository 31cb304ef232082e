"""Small servers and clients for network namespaces, in processes: `python -m tests.support.pod_programs NAME …`.

A process may have several servers, and says "ready" when all of them listen. A client prints what it got, and exits 1
with the reason if that was nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Server:
    """`files`: certificate and key of one that speaks TLS."""

    name: str
    address: str
    port: int
    files: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """As an argument of the command."""
        return ",".join((self.name, self.address, str(self.port), *self.files))

    @classmethod
    def of(cls, words: str) -> Server:
        name, address, port, *files = words.split(",")
        return cls(name, address, int(port), tuple(files))


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1: tells what it was asked, by whom, and where."""
    while line := await reader.readline():
        fields = {}
        while (field := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode().partition(":")
            fields[name.lower()] = value.strip()
        told = {
            "line": line.decode().strip(),
            "fields": fields,
            "peer": writer.get_extra_info("peername")[0],
            "at": writer.get_extra_info("sockname")[0],
        }
        status = b"500 No" if "/fail" in told["line"] else b"200 OK"
        body = json.dumps(told).encode()
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the upgrade and sends back what comes, as it is."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    while data := await reader.read(65536):
        writer.write(data)


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As MySQL and mail do: the server speaks first."""
    peer = writer.get_extra_info("peername")[0]
    writer.write(f"hello {peer}\n".encode())
    writer.write(b"you said " + await reader.readline())


async def redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As Redis and PostgreSQL do: the client speaks first, and it is no HTTP."""
    while (line := await reader.readline()).startswith(b"*"):
        for _ in range(2 * int(line[1:])):
            last = await reader.readline()
        writer.write(b"+PONG\r\n" if last.strip() == b"PING" else b"-ERR\r\n")


HANDLES: dict[str, Handle] = {"http": http, "websocket": websocket, "greeting": greeting, "redis": redis}


async def listen(handle: Handle, address: str, port: int, context: ssl.SSLContext | None) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    await asyncio.start_server(one, address, port, ssl=context)


async def listen_all(servers: list[Server]) -> None:
    for server in servers:
        context = None
        if server.files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*server.files)
        await listen(HANDLES[server.name], server.address, server.port, context)
    print("ready", flush=True)
    await asyncio.Event().wait()


def serve(servers: list[Server]) -> None:
    with contextlib.ExitStack() as stack:
        for server in servers:
            if server.name == "grpc":
                from tests.support.grpc_service import grpc_service

                host = f"[{server.address}]" if ":" in server.address else server.address
                stack.enter_context(grpc_service(address=f"{host}:{server.port}"))
        asyncio.run(listen_all([server for server in servers if server.name != "grpc"]))


async def connected(host: str, port: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """By a CONNECT, where `http_proxy` says so."""
    proxy = urlsplit(os.environ.get("http_proxy", ""))
    if not proxy.hostname or not proxy.port:
        return await asyncio.open_connection(host, int(port))
    reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port)
    writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return reader, writer


async def talk(host: str, port: str, *lines: str) -> None:
    """Send each line when it is its turn, and print what comes; `-` waits for the server first. By `http_proxy` where
    that is set."""
    reader, writer = await connected(host, port)
    for line in lines:
        if line != "-":
            writer.write(line.encode().decode("unicode_escape").encode())
        print((await asyncio.wait_for(reader.readline(), 100)).decode(), end="", flush=True)
    writer.close()


def call_grpc(target: str, *proxy: str) -> None:
    import grpc

    with grpc.insecure_channel(target) as channel:
        method = channel.unary_unary(
            "/test.Service/Echo", request_serializer=None, response_deserializer=None
        )
        print(method(b"hello", timeout=100).decode())


async def open_websocket(host: str, port: str) -> None:
    reader, writer = await connected(host, port)
    writer.write(
        f"GET /chat HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x81\x85\0\0\0\0hello")
    print(head.split(b"\r\n")[0].decode(), await reader.readexactly(11))
    writer.close()


def main(name: str, *rest: str) -> None:
    if name == "serve":
        serve([Server.of(words) for words in rest])
    elif name == "talk":
        asyncio.run(talk(*rest))
    elif name == "grpc":
        call_grpc(*rest)
    else:
        asyncio.run(open_websocket(*rest))


if __name__ == "__main__":
    main(*sys.argv[1:])
