"""The same rows with real sockets, beside other proxies with what they have for it.

    python -m tests.bench.one_bad_endpoint.live [--only TEXT] [--proxies NAME,NAME] [--method POST] [--seconds N]
        [--markdown]

Twenty clients in a closed loop, each with one connection; endpoints, clients and chance are those of the table in
virtual time. All proxies have the defaults of their means, and 15 s for a request (`peers/`). The endpoints and the
clients run in this process, the proxy in one of its own on another core. The proxies take their turns in each row.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import cast

import uvloop

from tests.bench.one_bad_endpoint.__main__ import p99
from tests.bench.one_bad_endpoint.proxies import PROXIES, Proxy, started
from tests.bench.one_bad_endpoint.rows import BEGINS, Row, rows_with
from tests.support.ports import free_ports

CLIENTS = 20
CLIENT_SECONDS = 20.0
"""A client gives up after this; no proxy is to let it come to that."""
PAUSE_SECONDS = 0.05
"""After an answer that is the proxy's own, since nobody asks on at once where there is nobody."""
PROXYS_OWN = frozenset({0, 502, 503, 504})
ANSWERS = {status: f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok".encode() for status in (200, 500)}
REQUESTS = {
    b"GET": b"GET / HTTP/1.1\r\nHost: app\r\n\r\n",
    b"POST": b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n",
}
"""By method. What may be sent again, and what may not."""


@dataclass
class Seen:
    """What came of one proxy in one row, from the beginning of the trouble on."""

    good: int = 0
    bad: int = 0
    to_bad: int = 0
    """Requests that reached the bad endpoints."""
    seconds: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.good / max(self.good + self.bad, 1)


class Group:
    """The endpoints of one run, and its clock."""

    def __init__(self, row: Row, seed: int) -> None:
        self.row = row
        self.rng = random.Random(seed)
        self.ports = free_ports(row.count)
        self.seen = Seen()
        self.began = inf
        self.connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []

    @property
    def now(self) -> float:
        """Seconds since the clients began; before, all is well."""
        return max(time.monotonic() - self.began, 0.0)

    @property
    def is_measured(self) -> bool:
        return self.now >= BEGINS

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number, port in enumerate(self.ports):
            made = await loop.create_server(lambda number=number: Connection(self, number), "127.0.0.1", port)
            self._servers.append(made)

    def refuse(self) -> None:
        """Those that refuse from now on listen no more."""
        for number, server in enumerate(self._servers[: self.row.bad]):
            if self.row.answer(self.rng, BEGINS).status == 0:
                server.close()
                for connection in [one for one in self.connections if one.number == number]:
                    connection.transport.abort()

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.transport.abort()


class Connection(asyncio.Protocol):
    """One of a proxy with an endpoint."""

    transport: asyncio.Transport

    def __init__(self, group: Group, number: int) -> None:
        self.number = number
        self._group = group
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._group.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._group.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read:
            _, _, self._read = self._read.partition(b"\r\n\r\n")
            self._answer()

    def _answer(self) -> None:
        group = self._group
        plan = group.row.plan(self.number, group.rng, group.now)
        group.seen.to_bad += group.is_measured and self.number < group.row.bad
        if plan.seconds < inf and plan.status:
            asyncio.get_running_loop().call_later(plan.seconds, self._write, ANSWERS[plan.status])

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


class Client:
    """One request after the other, on one connection as long as that lives."""

    def __init__(self, port: int, method: bytes) -> None:
        self._port = port
        self._request = REQUESTS[method]
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> int:
        """The status; 0 where there was no answer."""
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                return await self._ask()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.close()
            return 0

    async def _ask(self) -> int:
        if self._ends is None:
            self._ends = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._ends
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, length = head.partition(b"content-length: ")
        await reader.readexactly(int(length.split(b"\r\n")[0] or 0))
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None

    async def go(self, group: Group, until: float) -> None:
        while group.now < until:
            began = time.monotonic()
            status = await self.ask()
            if group.is_measured:
                group.seen.good += status == 200
                group.seen.bad += status != 200
                group.seen.seconds.append(time.monotonic() - began)
            if status in PROXYS_OWN:
                await asyncio.sleep(PAUSE_SECONDS)
        self.close()


async def run(proxy: Proxy, row: Row, seconds: float, core: int, method: bytes) -> Seen:
    """One proxy in one row."""
    group = Group(row, seed=1)
    await group.listen()
    with ExitStack() as stack:
        stack.callback(group.close)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # In a thread: it asks the endpoints, which answer here.
        port = await asyncio.to_thread(stack.enter_context, started(proxy, group.ports, directory, core))
        group.began = time.monotonic()
        clients = asyncio.gather(*(Client(port, method).go(group, BEGINS + seconds) for _ in range(CLIENTS)))
        await asyncio.sleep(BEGINS)
        group.refuse()
        await clients
    return group.seen


def told(seen: Seen, seconds: float) -> str:
    return f"{100 * seen.share:.2f} %, {1000 * p99(seen.seconds):.0f} ms, {seen.to_bad / seconds:.1f}/s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.one_bad_endpoint.live", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--method", choices=["GET", "POST"], default="GET", help="a POST is sent once")
    parser.add_argument("--proxies", default=",".join(PROXIES))
    parser.add_argument("--seconds", type=float, default=30.0, help="of trouble")
    parser.add_argument("--markdown", action="store_true", help="the table as it stands in the README")
    options = parser.parse_args()
    rows = rows_with(options.only)
    here, there = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {here})
    names = options.proxies.split(",")
    if options.markdown:
        print(f"| situation | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}", flush=True)
    for row in rows:
        cells = [
            told(
                uvloop.run(run(PROXIES[name], row, options.seconds, there, options.method.encode())),
                options.seconds,
            )
            for name in names
        ]
        if options.markdown:
            print(f"| {row.name} | {' | '.join(cells)} |", flush=True)
        else:
            print(
                row.name,
                *(f"  {name:<8} {cell}" for name, cell in zip(names, cells, strict=True)),
                sep="\n",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
