"""The breakers of several workers act as one: they open together, and probe as one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.upstream import Peer, scripted

pytestmark = pytest.mark.process

WORKERS = 3
FAILURES = 8
CLIENTS = 24
"""On connections of their own: that all of them meet one worker happens once in 3^23 times."""
STARTED = '"process.started"'
CONFIG = """\
version: 1
workers: {workers}
listeners: {{inbound: {{address: "127.0.0.1:{inbound}", balance: exact}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
routes:
- name: app
  upstream: app
  circuit_breaker: {{consecutive_failures: {failures}, minimum_calls: 100, open_for: {open_for}}}
"""


@dataclass
class Outage:
    """An upstream that fails, and counts what reaches it; then one that is well, and answers when it may."""

    served: int = 0
    at_once: int = 0
    most_at_once: int = 0
    is_well: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    is_probed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    def recover(self) -> None:
        self.is_well, self.most_at_once = True, 0
        self.may_answer.clear()

    async def serve(self, peer: Peer) -> None:
        while True:
            await peer.head()
            self.served += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            if self.is_well:
                self.is_probed.set()
            await self.may_answer.wait()
            self.at_once -= 1
            status = b"200 OK" if self.is_well else b"500 No"
            await peer.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Clients:
    """Connections that each worker has its share of."""

    running: Running
    port: int
    streams: list[Streams] = field(default_factory=list)
    answered: int = 0

    async def open_anew(self) -> None:
        self.close()
        self.streams = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(CLIENTS)]

    def close(self) -> None:
        for _, writer in self.streams:
            writer.close()

    async def ask(self, number: int) -> int:
        """One request; its status."""
        reader, writer = self.streams[number]
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(100):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        self.answered += 1
        return int(head.split(b" ", 2)[1])

    def keep_asking(self) -> asyncio.Future[list[None]]:
        """Each client asks until it is answered 200."""

        async def ask(number: int) -> None:
            while await self.ask(number) != 200:  # noqa: ASYNC110 - so as not to fill the core
                await asyncio.sleep(0.01)

        return asyncio.gather(*(ask(number) for number in range(CLIENTS)))


@asynccontextmanager
async def pod(folder: Path, open_for: str) -> AsyncIterator[tuple[Clients, Outage]]:
    inbound, probes, admin = free_ports(3)
    outage = Outage()
    async with scripted(outage.serve) as app:
        file = folder / "sidecar.yaml"
        file.write_text(
            CONFIG.format(
                inbound=inbound, probes=probes, admin=admin, app=app.port,
                workers=WORKERS, failures=FAILURES, open_for=open_for,
            )
        )  # fmt: skip
        async with sidecar(file, probes, folder / "log") as running:
            await running.logged(STARTED, times=WORKERS + 1)
            clients = Clients(running, inbound)
            await clients.open_anew()
            try:
                yield clients, outage
            finally:
                clients.close()


async def until_all_refuse(clients: Clients) -> None:
    """Twenty requests a second, so that what one worker has seen is told before the next request, until a whole round
    was refused."""
    refused = number = 0
    async with asyncio.timeout(60):
        while refused < CLIENTS:
            refused = refused + 1 if await clients.ask(number % CLIENTS) == 503 else 0
            number += 1
            await asyncio.sleep(0 if refused else 0.05)


async def test_failures_that_several_workers_saw_open_all_and_one_probe_closes_all(tmp_path: Path) -> None:
    async with pod(tmp_path, open_for="2s") as (clients, outage):
        await until_all_refuse(clients)
        # Alone each worker would have needed eight. Calls of others may have been let in before they heard.
        assert FAILURES <= outage.served < WORKERS * FAILURES

        outage.recover()
        probing = clients.keep_asking()
        async with asyncio.timeout(60):
            await outage.is_probed.wait()
        before = clients.answered
        while clients.answered < before + 5 * CLIENTS:  # noqa: ASYNC110 - all others are refused
            await asyncio.sleep(0.01)
        assert (outage.at_once, outage.most_at_once) == (1, 1)

        outage.may_answer.set()
        async with asyncio.timeout(60):
            await probing
            while {await clients.ask(number) for number in range(CLIENTS)} != {200}:
                pass


async def test_a_worker_that_comes_later_begins_with_the_state_of_the_others(tmp_path: Path) -> None:
    async with pod(tmp_path, open_for="1m") as (clients, outage):
        await until_all_refuse(clients)
        served = outage.served

        started = [json.loads(one) for one in clients.running.log.read_text().splitlines() if STARTED in one]
        os.kill(next(one["pid"] for one in started if one["worker"] == "2"), signal.SIGKILL)
        await clients.running.logged(STARTED, times=WORKERS + 2)
        await clients.open_anew()

        async with asyncio.timeout(60):
            while {await clients.ask(number) for number in range(CLIENTS)} != {503}:
                pass
        assert outage.served - served < FAILURES, "eight failures of its own would have opened it as well"
