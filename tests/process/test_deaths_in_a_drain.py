"""A worker dies while its pod ends: what connects to its sockets is served, or refused, and never left hanging."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.process import http_get, sidecar
from tests.support.upstream import Peer, scripted
from tests.support.workers import OK, Pod, connections_of

pytestmark = pytest.mark.process

SLOW = 24
"""Requests that both workers have some of: that one gets all happens once in 2^23 times."""
CALLS = 24
HANGING_SECONDS = 60.0


@dataclass
class Draining:
    """A pod in which every worker has requests under way that hold its drain up."""

    pod: Pod
    outbound: int
    slow: list[asyncio.Task[tuple[int, str]]]
    let_go: asyncio.Event

    @property
    def pids(self) -> dict[str, int]:
        return self.pod.pids()

    def terminate(self) -> None:
        self.pod.running.process.send_signal(signal.SIGTERM)


def listening(port: int) -> int:
    """Sockets that listen on this port of loopback (/proc/net/tcp, proc(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1] == f"0100007F:{port:04X}" and row[3] == "0A" for row in rows)


async def answers(calls: Sequence[Awaitable[tuple[int, str]]]) -> set[int]:
    """The statuses of all of them; one that hangs is an error."""
    async with asyncio.timeout(HANGING_SECONDS):
        return {status for status, _ in await asyncio.gather(*calls)}


async def sent(port: int) -> Awaitable[tuple[int, str]]:
    """A request that is on its way: its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()

    async def answer() -> tuple[int, str]:
        try:
            text = (await reader.read()).decode()
        finally:
            writer.close()
        return int(text.split(" ", 2)[1]), text

    return answer()


async def until_listening(port: int, count: int) -> None:
    while listening(port) != count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@asynccontextmanager
async def draining(folder: Path, delay: str = "0s") -> AsyncIterator[Draining]:
    """Before SIGTERM."""
    (inbound, outbound, probes, admin), let_go = free_ports(4), asyncio.Event()
    arrived = 0
    all_arrived = asyncio.Event()

    async def answer(peer: Peer) -> None:
        nonlocal arrived
        if b"/slow" in (await peer.head()):
            arrived += 1
            if arrived == SLOW:
                all_arrived.set()
            await let_go.wait()
        await peer.send(OK)

    async with scripted(answer) as app:
        file = folder / "sidecar.yaml"
        file.write_text(
            f"""version: 1
workers: 2
listeners:
  inbound: {{address: "127.0.0.1:{inbound}"}}
  outbound: {{address: "127.0.0.1:{outbound}", direction: outbound}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: {delay}}}
drain_timeout: 100s
upstreams: {{app: {{endpoints: ["127.0.0.1:{app.port}"]}}}}
routes:
- {{name: in, listener: inbound, upstream: app, timeouts: {{request: 10m}}}}
- {{name: out, listener: outbound, upstream: app}}
"""
        )
        async with sidecar(file, probes, folder / "log") as running:
            pod = Pod(running, file, inbound, admin)
            await running.logged('"process.started"', times=3)
            slow = [asyncio.ensure_future(http_get(inbound, "/slow")) for _ in range(SLOW)]
            await all_arrived.wait()
            assert all(connections_of(pod.pids()[number], inbound) for number in "12")
            try:
                yield Draining(pod, outbound, slow, let_go)
            finally:
                let_go.set()
                await asyncio.gather(*slow, return_exceptions=True)
            await running.ended()


async def test_the_app_still_makes_its_calls_when_a_worker_was_killed_in_a_drain(tmp_path: Path) -> None:
    async with draining(tmp_path) as one:
        one.terminate()
        await until_listening(one.pod.inbound, 0)
        os.kill(one.pids["1"], signal.SIGKILL)
        calls = [http_get(one.outbound, "/") for _ in range(CALLS)]
        assert await answers(calls) == {200}
        assert not all(task.done() for task in one.slow), "the other worker still has its own"


async def test_who_connects_before_the_drain_begins_is_served_though_a_worker_was_killed(
    tmp_path: Path,
) -> None:
    async with draining(tmp_path, delay="100s") as one:
        one.terminate()
        await one.pod.running.logged('"process.draining"')
        os.kill(one.pids["1"], signal.SIGKILL)
        calls = [http_get(one.pod.inbound, "/") for _ in range(CALLS)]
        assert await answers(calls) == {200}
        one.pod.running.process.send_signal(signal.SIGINT)


async def test_what_waits_in_the_socket_of_a_worker_that_hung_is_served_once_and_the_socket_ends(
    tmp_path: Path,
) -> None:
    """Its neighbour has let nobody in for long when it is killed."""
    async with draining(tmp_path) as one:
        hung = one.pids["1"]
        os.kill(hung, signal.SIGSTOP)
        one.terminate()
        await until_listening(one.pod.inbound, 1)
        calls = [await sent(one.pod.inbound) for _ in range(CALLS)]
        os.kill(hung, signal.SIGKILL)
        assert await answers(calls) == {200}
        await until_listening(one.pod.inbound, 0)
        with pytest.raises(ConnectionError):
            await http_get(one.pod.inbound, "/")
