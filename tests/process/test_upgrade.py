"""SIGUSR2: the program is started anew and takes over, under load, and no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.upstream import answering, scripted

pytestmark = pytest.mark.process

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLIENTS = 8
CONFIG = """\
version: 1
workers: {workers}
listeners: {{inbound: {{address: "127.0.0.1:{inbound}", balance: {balance}}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "unix:{folder}/admin"}}
telemetry: {{access_log: {{format: "off"}}}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
routes:
- {{name: app, upstream: app}}
"""


@dataclass
class Load:
    """Half of the clients keep their connection until an answer closes it; the others take a new one each time."""

    port: int
    probes: int
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    is_over: bool = False

    async def client(self, *, keeps: bool) -> None:
        while not self.is_over:
            try:
                await self._connection(keeps=keeps)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed.append(repr(error))

    async def _connection(self, *, keeps: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while not self.is_over:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(2)
                if not head.startswith(b"http/1.1 200") or body != b"ok":
                    self.failed.append(head.decode())
                self.answered += 1
                await asyncio.sleep(0.005)
                if not keeps or b"connection: close" in head:
                    return
        finally:
            writer.close()

    async def kubelet(self, running: Running) -> None:
        while not self.is_over:
            # A connection that has said nothing for half a second may be cut.
            with contextlib.suppress(ConnectionError, IndexError):
                status, _ = await running.get("/readyz")
                if status != 200:
                    self.failed.append(f"/readyz: {status}")
            await asyncio.sleep(0.05)

    async def until_answered(self, more: int) -> None:
        goal = self.answered + more
        while self.answered < goal:  # noqa: ASYNC110 - clients answer it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def load(port: int, running: Running) -> AsyncIterator[Load]:
    one = Load(port, running.probes)
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(one.client(keeps=bool(number % 2)))
        group.create_task(one.kubelet(running))
        try:
            await one.until_answered(50)
            yield one
        finally:
            one.is_over = True


def told(running: Running, what: str) -> list[str]:
    return [line for line in running.log.read_text().splitlines() if what in line]


async def until_told(running: Running, what: str, times: int = 1) -> str:
    async with asyncio.timeout(120):
        while len(told(running, what)) < times:  # noqa: ASYNC110 - it stands in a file
            await asyncio.sleep(0.02)
    return told(running, what)[-1]


def pid_in(line: str) -> int:
    """The one that a line of the log names."""
    found = re.search(r"process (\d+) has", line)
    assert found is not None
    return int(found[1])


async def ended(pid: int) -> None:
    """When a process that is not ours has ended."""
    loop, file, is_over = asyncio.get_running_loop(), os.pidfd_open(pid), asyncio.Event()
    try:
        loop.add_reader(file, is_over.set)
        async with asyncio.timeout(60):
            await is_over.wait()
        loop.remove_reader(file)
    finally:
        os.close(file)


@asynccontextmanager
async def bound_to(path: Path) -> AsyncIterator[socket.socket]:
    """Where a service manager hears what is told to it (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(path))
        one.setblocking(False)
        yield one


def with_another(port: int) -> tuple[str, str]:
    """What makes the file one with a second listener: text, and what to write in its place."""
    return "}}\n", f'}}, other: {{direction: inbound, address: "127.0.0.1:{port}"}}}}\n'


async def test_the_program_is_started_anew_and_takes_every_socket_over_and_no_request_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbound, probes, *others = free_ports(4)
    file, log = tmp_path / "sidecar.yaml", tmp_path / "log"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    async with bound_to(tmp_path / "notify") as systemd, scripted(answering(OK)) as app:

        def write(workers: int, balance: str = "kernel", more: str = "") -> None:
            text = CONFIG.format(
                workers=workers,
                inbound=inbound,
                probes=probes,
                app=app.port,
                folder=tmp_path,
                balance=balance,
            )
            file.write_text(text + more)

        write(1)
        async with sidecar(file, probes, log) as running, load(inbound, running) as clients:
            pids = [running.process.pid]
            write(3, more="nonsense: 1\n")
            os.kill(pids[0], signal.SIGUSR2)
            await until_told(running, "no upgrade in place: the new process did not serve (exit code 2)")
            await clients.until_answered(50)
            in_use = f'address: "127.0.0.1:{app.port}"'
            for times, workers, wrong in (
                (1, 1, with_another(app.port)),
                (2, 2, (f'address: "unix:{tmp_path}/admin"', in_use)),
            ):  # it has the sockets of listeners by then, and ends again
                write(workers)
                file.write_text(file.read_text().replace(*wrong, 1))
                os.kill(pids[0], signal.SIGUSR2)
                await until_told(running, "the new process did not serve (exit code 1)", times)
                await clients.until_answered(50)
            try:
                for (workers, balance), port in zip(((3, "kernel"), (2, "exact")), others, strict=True):
                    write(workers, balance)
                    file.write_text(file.read_text().replace(*with_another(port), 1))
                    os.kill(pids[-1], signal.SIGUSR2)
                    pids.append(pid_in(await until_told(running, "has taken over", times=len(pids))))
                    await ended(pids[-2])
                    await clients.until_answered(100)
                assert await running.process.wait() == 0
                clients.is_over = True
            finally:
                os.kill(pids[-1], signal.SIGTERM)
                await ended(pids[-1])
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(systemd.recv(1000).decode())
    assert clients.failed == []
    *_, last = told(running, f'"pid":{pids[0]},')
    assert "as it was asked to by its successor, " in last
    main = [one for pid in pids[1:] for one in ("READY=1", f"MAINPID={pid}")]
    assert messages == ["READY=1", *main, "STOPPING=1"]


async def asked(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> str:
    """The status of `/readyz` on a connection that is there already; empty where it has been cut."""
    reader, writer = connection
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return (await reader.read()).decode()[9:12]
    except ConnectionError:
        return ""
    finally:
        writer.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_probe_that_came_before_the_end_is_told_that_the_pod_is_ready_though_the_workers_have_gone(
    tmp_path: Path, workers: int
) -> None:
    inbound, probes = free_ports(2)
    file, statuses = tmp_path / "sidecar.yaml", []
    file.write_text(
        CONFIG.format(
            workers=workers, inbound=inbound, probes=probes, app=1, folder=tmp_path, balance="kernel"
        )
    )
    async with sidecar(file, probes, tmp_path / "log") as running:
        successor = None
        os.kill(running.process.pid, signal.SIGUSR2)
        try:
            # Others each time, as they may say nothing for half a second only.
            while successor is None:
                kept = [await asyncio.open_connection("127.0.0.1", probes) for _ in range(60)]
                await asyncio.sleep(0.2)
                if lines := told(running, "has taken over"):
                    successor = pid_in(lines[-1])
                for connection in kept:
                    statuses.append(await asked(connection))
                    await asyncio.sleep(0.01)
            assert await running.process.wait() == 0
        finally:
            if successor is not None:
                os.kill(successor, signal.SIGTERM)
                await ended(successor)
    assert set(statuses) <= {"200", ""}
