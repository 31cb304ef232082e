"""Thousands of clients that hold memory: python -m tests.bench.bad_states [--connections N] [STATE ...].

For each bad state a sidecar process of its own gets bursts of connections, two unless `--bursts` says otherwise;
meanwhile one honest client goes on.
Prints, in MiB: what the sidecar takes before, at the most in each burst, and some seconds after each, with what the
kernel holds for its sockets beside it (`ss -m`); how many connections it closed, and the honest client's times.

STATE: `head` (60 KB of a head without an end), `body` (60 KB of a longer body), `reader` (5 MB that nobody reads),
`pipeline` (60 KB of requests behind one that is not answered), `idle`. Without any: all. The process's hard limit of
open files bounds the number: the sidecar needs two for each connection.

With `--limit` the sidecar runs in a memory cgroup of that size (root, and a cgroup that may be divided), as `inject`
has it: the budget is then a quarter of it. Told besides: the most that was used, what sockets took at the most, and
whether the kernel killed it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import re
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

from tests.bench import contained
from tests.process.setting import Served
from tests.support.ports import free_ports
from tests.support.process import sidecar

MIB = 1024 * 1024
WAITING = 60_000
LARGE_BYTES = 5_000_000
AT_ONCE = 200
AFTER_SECONDS = 13.0
"""Until what a burst has left is measured: memory goes back to the system 10 s after the last time at the latest."""
GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
_SKMEM = re.compile(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+)")

STATES = {
    "head": b"GET / HTTP/1.1\r\nHost: app\r\n"
    + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 990) for n in range(60)),
    "body": b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\n" + b"b" * WAITING,
    "reader": b"GET /large HTTP/1.1\r\nHost: app\r\n\r\n",
    "pipeline": b"GET /never HTTP/1.1\r\nHost: app\r\n\r\n" + GET * (WAITING // len(GET)),
    "idle": GET,
}


# The app


class App(asyncio.Protocol):
    """Answers `ok`, 5 MB, or nothing; takes every body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /large"):
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE_BYTES
            self._transport.writelines((head, LARGE))
        elif data.startswith(b"GET / "):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


LARGE = bytes(LARGE_BYTES)


def _app(port: int) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(serve())


@contextlib.contextmanager
def app_process() -> Iterator[int]:
    """An app in a process of its own; its port."""
    (port,) = free_ports(1)
    process = multiprocessing.get_context("fork").Process(target=_app, args=(port,), daemon=True)
    process.start()
    try:
        yield port
    finally:
        process.terminate()
        process.join()


# What is measured


def sockets_bytes(port: int, app: int) -> int:
    """What the kernel holds for the sidecar's own ends."""
    found = subprocess.run(
        ["ss", "-tmnH", f"( sport = :{port} or dport = :{app} )"], capture_output=True, text=True, check=True
    )
    return sum(sum(_signed(int(part)) for part in one.groups()) for one in _SKMEM.finditer(found.stdout))


def _signed(number: int) -> int:
    """What the kernel has forward may be negative for a moment, and `ss` prints it without a sign."""
    return number - (1 << 32) if number >= 1 << 31 else number


@dataclass
class Honest:
    """Times of one client that asks all the time, in seconds."""

    times: list[float] = field(default_factory=list)
    refused: int = 0
    """Answered 503 at once."""
    failures: int = 0

    def told(self) -> str:
        times = sorted(self.times) or [0.0]
        p50, p99 = (times[len(times) * part // 100] * 1e3 for part in (50, 99))
        return f"{len(times):5d} {p50:7.1f} {p99:8.1f} {self.refused:5d} {self.failures:5d}"


PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.01


@contextlib.contextmanager
def asking(port: int) -> Iterator[Honest]:
    """One honest client, in a process of its own: what this one has to do is no part of its times."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_ask_on, args=(port, there), daemon=True)
    process.start()
    honest = Honest()
    try:
        yield honest
    finally:
        here.send(None)
        honest.times, honest.refused, honest.failures = here.recv()
        process.join()


def _ask_on(port: int, told: Connection) -> None:
    """Until told to end: a new connection each time, since anybody's may be closed for want of memory."""
    honest = Honest()
    while not told.poll(PAUSE_SECONDS):
        began = time.monotonic()
        status = _status(port)
        honest.refused += status == b"503"
        honest.failures += status not in (b"200", b"503")
        honest.times.append(time.monotonic() - began)
    told.send((honest.times, honest.refused, honest.failures))


def _status(port: int) -> bytes:
    """Of the answer; empty where there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as peer:
            peer.sendall(GET)
            return peer.recv(1000)[9:12]
    except OSError:
        return b""


@dataclass
class Peak:
    """The most that was seen, in bytes."""

    resident: int = 0
    sockets: int = 0
    both: int = 0

    def told(self) -> str:
        return f"{self.resident / MIB:6.1f} + {self.sockets / MIB:6.1f}"


async def measure(to: Served, app: int) -> tuple[int, int]:
    return to.process.memory_kib() * 1024, await asyncio.to_thread(sockets_bytes, to.port, app)


async def watch(to: Served, app: int, peak: Peak) -> None:
    while True:
        resident, sockets = await measure(to, app)
        if resident + sockets > peak.both:
            peak.resident, peak.sockets, peak.both = resident, sockets, resident + sockets
        await asyncio.sleep(0.25)


# The attack


async def attack(port: int, count: int, data: bytes, hold_seconds: float) -> None:
    """In a process of its own, whose work is nobody's time here."""
    process = multiprocessing.get_context("fork").Process(
        target=_attack, args=(port, count, data, hold_seconds), daemon=True
    )
    process.start()
    await asyncio.to_thread(process.join)


def _attack(port: int, count: int, data: bytes, hold_seconds: float) -> None:
    uvloop.run(hold_open(port, count, data, hold_seconds))


async def hold_open(port: int, count: int, data: bytes, hold_seconds: float) -> None:
    """Open `count` connections, send `data` on each, and hold them."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(AT_ONCE)
    opened: list[socket.socket] = []

    async def one(number: int) -> None:
        async with gate:
            peer = socket.socket()
            opened.append(peer)
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.bind((f"127.0.{1 + number // 250}.{1 + number % 250}", 0))
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(20.0):
                    await loop.sock_connect(peer, ("127.0.0.1", port))
                    await loop.sock_sendall(peer, data)

    try:
        await asyncio.gather(*(one(number) for number in range(count)))
        await asyncio.sleep(hold_seconds)
    finally:
        for peer in opened:
            peer.close()


async def phase(to: Served, app: int, work: Awaitable[None]) -> tuple[Peak, Honest]:
    """What is seen while `work` is done."""
    peak = Peak()
    watching = asyncio.create_task(watch(to, app, peak))
    try:
        with asking(to.port) as honest:
            await work
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return peak, honest


def _written(folder: Path, app: int, memory: str) -> tuple[Path, int, int]:
    """A configuration whose other limits are out of the way: its path, the inbound port and the probes' port."""
    inbound, probes, admin = free_ports(3)
    file = folder / "sidecar.yaml"
    file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}", limits: {{connections: 30000}}}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
{f"limits: {{memory: {memory}}}" if memory else ""}
upstreams:
  app:
    endpoints: ["127.0.0.1:{app}"]
    limits: {{max_connections: 30000, max_pending: 30000, max_requests: 30000}}
routes: [{{name: app, upstream: app, timeouts: {{request: 300s}}}}]
""")
    return file, inbound, probes


async def run_state(name: str, options: argparse.Namespace, group: contained.Group | None) -> None:
    """The bursts, each with what is seen before, meanwhile and afterwards."""
    with tempfile.TemporaryDirectory() as written, app_process() as app:
        folder = Path(written)
        file, port, probes = _written(folder, app, "" if group is not None else options.memory)
        command = ("-m", "sidecar", "run")
        if group is not None:
            command = ("-m", "tests.bench.contained", str(group.folder))
        async with sidecar(file, probes, folder / "log", command) as process:
            to = Served(process, port)
            peak, honest = await phase(to, app, asyncio.sleep(3.0))
            _tell(name, "before", peak, honest)
            for burst in range(1, options.bursts + 1):
                attacking = attack(port, options.connections, STATES[name], options.hold)
                peak, honest = await phase(to, app, attacking)
                _tell(name, f"burst {burst}", peak, honest, await _closed(to))
                if group is not None:
                    tell_group(name, group)
                _, honest = await phase(to, app, asyncio.sleep(AFTER_SECONDS))
                resident, sockets = await measure(to, app)
                _tell(name, f"after {burst}", Peak(resident, sockets), honest)


def tell_group(name: str, group: contained.Group) -> None:
    most, sockets = group.most_bytes()
    kills = group.kills()
    print(
        f"{name:9} cgroup   most {most / MIB:6.1f}, sockets {sockets / MIB:6.1f}, killed {kills} times",
        flush=True,
    )


async def _closed(to: Served) -> str:
    """How many connections were closed to give memory back, so far, by what they held."""
    _, text = await to.process.get("/metrics")
    found = re.findall(r'sidecar_memory_closed_total\{sidecar_memory_held="(\w+)"\} (\d+)', text)
    return ", ".join(f"{count} {held}" for held, count in found if count != "0") or "none"


def _tell(name: str, when: str, peak: Peak, honest: Honest, closed: str = "") -> None:
    print(f"{name:9} {when:8} {peak.told()}   {honest.told()}   {closed}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("states", nargs="*", metavar="STATE", help=f"one of {', '.join(STATES)}")
    parser.add_argument("--connections", type=int, default=10_000, help="in each burst")
    parser.add_argument("--bursts", type=int, default=2, help="one after another")
    parser.add_argument("--memory", default="32MiB", help="the budget of all connections")
    parser.add_argument("--hold", type=float, default=5.0, help="seconds after the last one was opened")
    parser.add_argument("--limit", type=int, default=0, help="MiB of a memory cgroup; 0: none")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(
        "state     when      resident + sockets   honest client: requests, p50, p99, refused, failures  closed so far"
    )
    for name in options.states or STATES:
        with contained.made(options.limit * MIB) if options.limit else contextlib.nullcontext() as group:
            uvloop.run(run_state(name, options, group))


if __name__ == "__main__":
    main()
