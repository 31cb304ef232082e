"""`balance: exact`: each worker has as many connections as any other, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.upstream import Peer, Serve, answering, scripted

pytestmark = pytest.mark.process

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SERVE = answering(OK)
CONFIG = """\
version: 1
workers: 3
listeners: {{inbound: {{address: "127.0.0.1:{inbound}", balance: exact}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
routes:
- {{name: app, upstream: app}}
"""


@dataclass
class Clients:
    """Connections that stay, each with the worker that serves it."""

    running: Running
    inbound: int
    stack: AsyncExitStack
    writers: dict[int, asyncio.StreamWriter] = field(default_factory=dict)

    async def open(self, count: int) -> list[int]:
        """So many more; returns their numbers."""
        first = len(self.writers)
        return [await self._open(number) for number in range(first, first + count)]

    async def _open(self, number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.inbound)
        self.stack.callback(writer.close)
        self.writers[number] = writer
        writer.write(f"GET /connection/{number}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(100):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        return number

    async def workers(self, numbers: list[int]) -> dict[int, str]:
        """Who served these, by the access log."""
        found = {}
        for number in numbers:
            log = await self.running.logged(f"/connection/{number}/")
            line = next(line for line in log.splitlines() if f"/connection/{number}/" in line)
            found[number] = str(json.loads(line)["worker"])
        return found


@asynccontextmanager
async def pod(folder: Path, serve: Serve = SERVE) -> AsyncIterator[tuple[Clients, Path]]:
    inbound, probes, admin = free_ports(3)
    async with scripted(serve) as app, AsyncExitStack() as stack:
        file = folder / "sidecar.yaml"
        file.write_text(CONFIG.format(inbound=inbound, probes=probes, admin=admin, app=app.port))
        async with sidecar(file, probes, folder / "log") as running:
            await running.logged('"process.started"', times=4)
            yield Clients(running, inbound, stack), file


async def dealt(running: Running) -> dict[str, float]:
    """What came of connections that were accepted in one place, by a scrape."""
    _, text = await running.get("/metrics")
    return {
        event: sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(f'sidecar_balance_exact_total{{sidecar_balance_event="{event}"')
        )
        for event in ("handed_over", "waited")
    }


def pid_of(running: Running, worker: str) -> int:
    """The last process of that name."""
    started = [
        json.loads(line) for line in running.log.read_text().splitlines() if '"process.started"' in line
    ]
    return int([line["pid"] for line in started if line["worker"] == worker][-1])


async def test_connections_are_dealt_out_to_the_unit_and_again_when_a_worker_was_replaced(
    tmp_path: Path,
) -> None:
    async with pod(tmp_path) as (clients, _):
        assert await dealt(clients.running) == {"handed_over": 0, "waited": 0}
        first = await clients.workers(await clients.open(30))
        assert await dealt(clients.running) == {"handed_over": 30, "waited": 0}
        assert Counter(first.values()) == {"1": 10, "2": 10, "3": 10}

        for number in [number for number, worker in first.items() if worker == "2"][:6]:
            clients.writers[number].close()
        await asyncio.sleep(0)
        os.kill(pid_of(clients.running, "1"), signal.SIGKILL)
        await clients.running.logged('"process.started"', times=5)
        then = await clients.workers(await clients.open(21))
        # 0, 4 and 10 were left: 35 in all, 12 each but for one.
        after = Counter(then.values())
        assert sorted([after["1"], after["2"] + 4, after["3"] + 10]) == [11, 12, 12]


def leave_no_file(pid: int) -> None:
    """From now on this process can open no file but in the gaps between those that it has."""
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, highest + 1))


async def first_bytes(inbound: int, stack: AsyncExitStack) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", inbound)
    stack.callback(writer.close)
    writer.write(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
    return await reader.read(12)


async def test_who_is_handed_to_a_worker_without_a_file_for_them_is_answered_503(tmp_path: Path) -> None:
    """Each holds its place for good, so that nobody can be closed for another one."""
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def never(peer: Peer) -> None:
        seen.put_nowait(await peer.head())
        await asyncio.Event().wait()

    async with pod(tmp_path, never) as (clients, _):
        for worker in "123":
            leave_no_file(pid_of(clients.running, worker))
        refused = 0
        for _ in range(60):
            asked = asyncio.create_task(first_bytes(clients.inbound, clients.stack))
            taken = asyncio.create_task(seen.get())
            await asyncio.wait({asked, taken}, return_when=asyncio.FIRST_COMPLETED, timeout=100)
            if asked.done():
                assert asked.result() == b"HTTP/1.1 503"
                refused += 1
            assert taken.cancel() == asked.done()
            clients.stack.callback(asked.cancel)
        assert refused >= 30
        assert (await dealt(clients.running))["handed_over"] == 60
        await clients.stack.aclose()


async def test_while_control_hangs_workers_accept_by_themselves_until_there_is_another(
    tmp_path: Path,
) -> None:
    async with pod(tmp_path) as (clients, _), asyncio.timeout(200):
        await clients.open(3)
        control = pid_of(clients.running, "control")
        os.kill(control, signal.SIGSTOP)
        await clients.workers(await clients.open(10))
        assert "control does not answer" in clients.running.log.read_text()
        log = await clients.running.logged('"process.started"', times=5)
        assert f"control (pid {control}): it was ended by SIGKILL" in log
        assert "it has not said anything for too long" in log
        before = (await dealt(clients.running))["handed_over"]
        while (await dealt(clients.running))["handed_over"] == before:
            await clients.open(1)


async def test_without_control_and_after_a_reload_everybody_is_served(tmp_path: Path) -> None:
    async with pod(tmp_path) as (clients, file):
        await clients.open(5)
        before = await dealt(clients.running)
        os.kill(pid_of(clients.running, "control"), signal.SIGKILL)
        await clients.workers(await clients.open(5))
        await clients.running.logged('"process.started"', times=5)
        assert (await dealt(clients.running))["handed_over"] >= before["handed_over"] == 5
        exact = file.read_text()
        file.write_text(exact.replace("balance: exact", "balance: kernel"))
        os.kill(clients.running.process.pid, signal.SIGHUP)
        await clients.running.logged("balance: exact → kernel")
        await clients.workers(await clients.open(10))
        file.write_text(exact)
        os.kill(clients.running.process.pid, signal.SIGHUP)
        await clients.running.logged("balance: kernel → exact")
        await clients.open(30)
        every = await clients.workers(list(clients.writers))
        assert sorted(Counter(every.values()).values()) == [16, 17, 17]
