"""Handshakes and aborts for long: python -m tests.bench.soak.tls [--minutes 30] [--rate 100] [--every 10].

A real sidecar whose listener speaks TLS and asks for a certificate, and clients that come, mostly, to leave: within
the first message, within the handshake, right behind it or behind a request, with a reset or without, by an alert,
or never. Others are well behaved: TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2, resumed, with a certificate and without one.

Prints and judges as `tests.bench.soak` does. Exit code 1 if memory grew by more than the bound, or something is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from tests.bench.rotation import answer_all
from tests.bench.soak import http2
from tests.bench.soak.__main__ import REST_SECONDS, tell, watched
from tests.bench.soak.samples import Watch
from tests.bench.soak.traffic import Clients
from tests.support.authority import Authority
from tests.support.ports import free_ports
from tests.support.process import sidecar
from tests.support.raw import raw_upstream
from tests.support.tls_client import GET, Closed, TlsClient, tls_client

FILE = """\
version: 1
listeners:
  inbound:
    address: "127.0.0.1:{inbound}"
    timeouts: {{handshake: 2s}}
    tls: {{certificate: {pair}, client_ca: "{ca}", client: request}}
admin: {{address: "127.0.0.1:{admin}"}}
probes: {{address: "127.0.0.1:{probes}"}}
drain: {{delay: 0s}}
telemetry: {{access_log: {{format: "off"}}}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"], timeouts: {{idle: 10s}}}}}}
routes: [{{name: app, upstream: app}}]
"""
STALL_SECONDS = 3.0
"""A client that never goes on waits so long: longer than the sidecar does."""
MOST_AT_ONCE = 60
"""Clients: where the machine is held up, more would come together than before, and resident memory keeps a peak."""


class Handshakes(Clients):
    """The clients of one TLS listener."""

    def __init__(self, port: int, authority: Authority) -> None:
        super().__init__(port, port, most_at_once=MOST_AT_ONCE)
        self._authority = authority
        self._plain = authority.client(alpn=["http/1.1"])
        self._http2 = authority.client(alpn=["h2"])
        self._known = authority.client(authority.pair("client.test", uris=["spiffe://test/ns/a/sa/b"]))
        self._old = authority.client()
        self._old.maximum_version = ssl.TLSVersion.TLSv1_2
        self._strange = ssl.create_default_context()
        self._sessions: list[ssl.SSLSession] = []

    def kinds(self) -> dict[str, tuple[int, Callable[[], Awaitable[None]]]]:
        return {
            "request": (20, self.request),
            "request, then reset": (10, self.request_and_reset),
            "TLS 1.2": (5, self.request_of_old),
            "with a certificate": (10, self.request_of_known),
            "resumed": (5, self.resumed),
            "HTTP/2": (5, self.http2),
            "reset behind the handshake": (10, self.reset_behind),
            "reset in the handshake": (15, self.reset_within),
            "leaves in the handshake": (5, self.leave_within),
            "half a first message": (5, self.half),
            "connects and leaves": (3, self.leave_at_once),
            "does not trust us": (3, self.alert),
            "nonsense": (2, self.nonsense),
            "never goes on": (2, self.stall),
        }

    async def one(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await super().one(name, act)
        except (Closed, ssl.SSLError, RuntimeError) as error:
            self.done[f"{name}: {type(error).__name__}"] += 1

    # The kinds

    async def request(self) -> None:
        async with self._shaken(self._plain) as client:
            await client.ask(GET)
            with contextlib.suppress(ssl.SSLError):
                client.tls.unwrap()
            await client.flush()

    async def request_and_reset(self) -> None:
        async with self._shaken(self._plain) as client:
            await client.ask(GET)
            _reset(client)

    async def request_of_old(self) -> None:
        async with self._shaken(self._old) as client:
            await client.ask(GET)

    async def request_of_known(self) -> None:
        async with self._shaken(self._known) as client:
            await client.ask(GET)

    async def resumed(self) -> None:
        session = self._sessions.pop() if self._sessions else None
        async with tls_client(self.inbound, self._plain, session=session) as client:
            await client.ask(GET)
            if client.tls.session_reused:
                self.done["resumed indeed"] += 1
            if client.tls.session is not None:
                self._sessions.append(client.tls.session)

    async def http2(self) -> None:
        async with self._shaken(self._http2) as client:
            await client.send(http2.requests({1: b"/", 3: b"/"}))
            await client.read()
            await client.read()
            _reset(client)

    async def reset_behind(self) -> None:
        async with self._shaken(self._plain) as client:
            _reset(client)

    async def reset_within(self) -> None:
        async with self._begun() as (client, first):
            client.writer.write(first)
            await asyncio.sleep(self.rng.random() * 0.02)
            _reset(client)

    async def leave_within(self) -> None:
        async with self._begun() as (client, first):
            client.writer.write(first)
            await client.reader.read(1)

    async def half(self) -> None:
        async with self._begun() as (client, first):
            client.writer.write(first[: self.rng.randrange(1, len(first))])
            await asyncio.sleep(self.rng.random() * 0.1)
            if self.rng.random() < 0.5:
                _reset(client)

    async def leave_at_once(self) -> None:
        async with self._begun():
            pass

    async def alert(self) -> None:
        async with self._begun(self._strange) as (client, first):
            client.writer.write(first)
            with contextlib.suppress(ssl.SSLError):
                await client.handshake()
            await client.flush()

    async def stall(self) -> None:
        async with self._begun() as (client, first):
            client.writer.write(first)
            await asyncio.sleep(STALL_SECONDS)

    def _shaken(self, context: ssl.SSLContext) -> contextlib.AbstractAsyncContextManager[TlsClient]:
        return tls_client(self.inbound, context)

    @asynccontextmanager
    async def _begun(self, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[TlsClient, bytes]]:
        """A connection, and its first message, which is not sent."""
        async with tls_client(self.inbound, context or self._plain, is_shaken=False) as client:
            yield client, client.first_flight()


def _reset(client: TlsClient) -> None:
    """What was written is gone already, or never goes."""
    connection = client.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def soak(options: argparse.Namespace, folder: Path) -> int:
    inbound, probes, admin = free_ports(3)
    authority = Authority(folder)
    file, door = folder / "sidecar.yaml", folder / "door"
    os.environ["SOAK_LOOK"] = str(door)
    async with raw_upstream(answer_all) as app:
        more = {"pair": authority.pair("a.test").yaml(), "ca": authority.path, "app": app.port}
        file.write_text(FILE.format(inbound=inbound, probes=probes, admin=admin, **more))
        command = ("-m", "tests.bench.soak.looked_at")
        async with sidecar(file, probes, folder / "log", command) as running:
            watch = Watch(running.process.pid, probes, door)
            before = await watch.sample()
            print("before the load", before.line(), sep="\n", flush=True)
            clients = Handshakes(inbound, authority)
            samples, halfway = await watched(
                watch, clients, options.minutes * 60, options.rate, options.every
            )
            await clients.end()
            await asyncio.sleep(REST_SECONDS)
            after, held = await watch.sample(), await watch.held()
    print("after the load", after.line(), sep="\n")
    print(f"clients: {', '.join(f'{name} {count:,}' for name, count in sorted(clients.done.items()))}")
    return tell(samples, before, after, halfway, held)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=100.0, help="clients a second, of all kinds")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-soak-") as name:
        return uvloop.run(soak(options, Path(name)))


if __name__ == "__main__":
    sys.exit(main())
