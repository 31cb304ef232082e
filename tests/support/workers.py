"""A sidecar with several workers as real processes, and clients that notice each connection that is cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ports import free_ports
from tests.support.process import Running, admin, sidecar
from tests.support.upstream import answering, scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONFIG = """\
version: 1
workers: {workers}
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  app: {{endpoints: ["localhost:{app}"]}}
routes:
- {{name: app, match: {{path: {{prefix: /}}}}, upstream: app{route}}}
{top}
"""
SERVED = 'http_server_request_duration_seconds_count{sidecar_route="app"'
CLIENTS = 26
"""The kernel gives each of two workers some of them: that one gets all happens once in 2^25 times."""


@dataclass
class Pod:
    """A running sidecar with several workers."""

    running: Running
    file: Path
    inbound: int
    admin: int
    seen: Awaitable[list[int]] | None = None
    """By `meanwhile`."""

    def pids(self) -> dict[str, int]:
        """Of each process, by its name: the last that has said that it serves."""
        lines = map(json.loads, filter(lambda one: '"process.started"' in one, self._lines()))
        return {line["worker"]: line["pid"] for line in lines}

    def _lines(self) -> list[str]:
        return self.running.log.read_text().splitlines()

    async def served(self) -> float:
        """Requests that all have answered, by `/metrics`."""
        _, text = await self.running.get("/metrics")
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(SERVED))

    async def ask(self, path: str, method: str = "GET") -> Any:
        status, text = await admin(self.admin, method, path)
        assert status in (200, 202, 422), text
        return json.loads(text)

    async def generations(self) -> list[int]:
        """Of the configuration in use, by worker."""
        return [worker["generation"] for worker in (await self.ask("/status"))["workers"]]

    async def until(self, path: str, is_so: Callable[[Any], bool]) -> Any:
        """Ask the admin API until it answers as wanted."""
        while True:
            with contextlib.suppress(OSError):  # control may not be there now
                if is_so(answer := await self.ask(path)):
                    return answer
            await asyncio.sleep(0.02)


@asynccontextmanager
async def pod(
    folder: Path,
    *,
    workers: int = 2,
    end: int = 0,
    app: int = 0,
    route: str = "",
    top: str = "",
    command: Sequence[str] = ("-m", "sidecar", "run"),
    meanwhile: Callable[[int, int], Coroutine[Any, Any, list[int]]] | None = None,
) -> AsyncIterator[Pod]:
    """A pod that ends with the exit code `end`. `app`: the port of one that is there already; further keys of the
    route, and of the file. `meanwhile`: runs while it starts, with the ports of probes and admin API."""
    inbound, probes, admin_port = free_ports(3)
    async with scripted(answering(OK)) as own:
        file = folder / "sidecar.yaml"
        file.write_text(
            CONFIG.format(
                workers=workers,
                inbound=inbound,
                probes=probes,
                admin=admin_port,
                app=app or own.port,
                route=f", {route}" if route else "",
                top=top,
            )
        )
        seen = asyncio.ensure_future(meanwhile(probes, admin_port)) if meanwhile else None
        async with sidecar(file, probes, folder / "log", command) as running:
            await running.logged('"process.started"', times=1 + workers if workers > 1 else 1)
            yield Pod(running, file, inbound, admin_port, seen)
        assert running.process.returncode == end, running.log.read_text()


def connections_of(pid: int, port: int) -> int:
    """Connections of clients to this port of loopback that a process has open (/proc/net/tcp, proc(5))."""
    established, local = "01", f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[1] == local and row[3] == established}
    files = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(one in inodes for one in files)


async def kill(one: Pod, worker: str) -> int:
    """Kill a worker, and wait for the one that takes its place. Returns the connections that it had."""
    victim = one.pids()[worker]
    os.kill(victim, signal.SIGSTOP)  # so that it takes no more of them
    had = connections_of(victim, one.inbound)
    os.kill(victim, signal.SIGKILL)
    while one.pids()[worker] == victim:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await one.until("/status", lambda status: all(row["is_there"] for row in status["workers"]))
    return had


@dataclass
class Load:
    """Clients that ask again and again, each on a connection that it keeps as long as it lasts."""

    port: int
    answered: int = 0
    cut: int = 0
    """Connections that ended before an answer was whole."""
    wrong: int = 0
    refused: int = 0
    is_over: bool = False
    is_warm: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self) -> None:
        while not self.is_over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionError:
                self.refused += 1
                await asyncio.sleep(0.01)
                continue
            try:
                while not self.is_over:
                    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    head = await reader.readuntil(b"\r\n\r\n")
                    body = await reader.readexactly(2)
                    self.wrong += not head.startswith(b"HTTP/1.1 200") or body != b"ok"
                    self.answered += 1
                    if self.answered > CLIENTS * 10:
                        self.is_warm.set()
            except (ConnectionError, asyncio.IncompleteReadError):
                self.cut += 1
            finally:
                writer.close()


@asynccontextmanager
async def load(port: int) -> AsyncIterator[Load]:
    one = Load(port)
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(one.client())
        await one.is_warm.wait()
        yield one
        one.is_over = True
