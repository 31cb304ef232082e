"""Small servers and clients for network namespaces, each a process: `python -m tests.support.pod_programs NAME …`.

A server says "ready" when it listens. A client prints what it got, and exits 1 with the reason if that was nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


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


async def listen(handle: Handle, address: str, port: int, context: ssl.SSLContext | None = None) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(one, address, port, ssl=context)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


def serve(name: str, address: str, port: str, *files: str) -> None:
    if name == "grpc":
        from tests.support.grpc_service import grpc_service

        with grpc_service(address=f"[{address}]:{port}" if ":" in address else f"{address}:{port}"):
            print("ready", flush=True)
            threading.Event().wait()
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    handles: dict[str, Handle] = {"http": http, "websocket": websocket, "greeting": greeting, "redis": redis}
    asyncio.run(listen(handles[name], address, int(port), context))


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
        serve(*rest)
    elif name == "talk":
        asyncio.run(talk(*rest))
    elif name == "grpc":
        call_grpc(*rest)
    else:
        asyncio.run(open_websocket(*rest))


if __name__ == "__main__":
    main(*sys.argv[1:])
