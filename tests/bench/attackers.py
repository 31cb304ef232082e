"""Attackers beside an honest client: how long it waits before, during and after each attack.

    python -m tests.bench.attackers [--tree DIR] [--rate 60] [--seconds 4]

A sidecar of its own process, with the routes of `tests/support/worst.py`; the honest client asks at a steady pace by
kept connections, each attack comes from another process at a fixed rate, by a new connection each time, as strangers
do. The last column is the sidecar's CPU time for one attack, which other work on the machine does not change; the
latencies it does. `--tree` takes the sidecar of another checkout, to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.ports import free_ports
from tests.support.worst import FILE, TRACEPARENT, filled, heads, noise

HONEST_RATE: Final = 100
"""Requests a second."""
HONEST: Final = b"GET /honest HTTP/1.1\r\nHost: honest.test\r\n\r\n"
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GIVEN_UP_SECONDS: Final = 5.0
REPOSITORY: Final = Path(__file__).parents[2]


def attacks() -> dict[str, bytes]:
    """What is sent, by a name for people."""
    worst = heads()
    field_text = b"GET / HTTP/1.1\r\nHost: x\r\nx-a: " + noise(b"ab") + b"c\r\n\r\n"
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n"
    return {
        "a plain head of 60 KB": worst["a plain head of that size"],
        "Connection: a,a,…": worst["Connection: a,a,a,a,a,a,…"],
        "a query of %41&…": worst["query %41&…"],
        "a field for many expressions": field_text,
        "TRACE with long names": worst["TRACE, 120 names, Max-Forwards: 0"],
        "Transfer-Encoding: ,,,…": worst["Transfer-Encoding: ,,,,,,,,,,,,…"],
        "a path of %41…": worst["path %41…, host with a rewritten prefix"],
        "sampled strangers": b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % TRACEPARENT,
        "Upgrade: foo": upgrade,
        "200 requests at once": filled(b"GET /v1x1/?a=1 HTTP/1.1\r\nHost: x\r\n\r\n", 8000),
    }


@dataclass
class Waits:
    """Of an honest client, in seconds."""

    taken: list[float] = field(default_factory=list)
    failed: int = 0

    def __str__(self) -> str:
        ordered = sorted(self.taken) or [0.0]
        p50, p99 = (ordered[int(len(ordered) * share)] * 1e3 for share in (0.5, 0.99))
        return f"{p50:7.2f} {p99:8.2f}" + (f" ({self.failed} failed)" if self.failed else "")


@asynccontextmanager
async def running(tree: Path, log: Path) -> AsyncIterator[tuple[int, int]]:
    """A sidecar and the app behind it: the port of the listener that believes nobody, and the sidecar's process."""
    mesh, street, probes, admin = free_ports(4)
    app = await asyncio.start_server(_answering, "127.0.0.1", 0)
    app_port = app.sockets[0].getsockname()[1]
    file = log.with_name("sidecar.yaml")
    file.write_text(
        "version: 1\nlisteners:\n"
        f"  mesh: {{address: '127.0.0.1:{mesh}', direction: inbound}}\n"
        f"  street: {{address: '127.0.0.1:{street}', direction: inbound, trust: none}}\n"
        f"probes: {{address: '127.0.0.1:{probes}'}}\nadmin: {{address: '127.0.0.1:{admin}'}}\n"
        "telemetry: {access_log: {format: 'off'}}\n" + FILE.replace("127.0.0.1:9", f"127.0.0.1:{app_port}")
    )
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "run", str(file)), cwd=tree, stdout=out, stderr=out
        )
    try:
        async with asyncio.timeout(60):
            await _listening(street)
        yield street, process.pid
    finally:
        process.kill()
        await process.wait()
        app.close()


async def _listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def cpu_seconds(pid: int) -> float:
    """Of a process, in user and kernel mode (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
    writer.close()


async def honest(port: int, seconds: float) -> Waits:
    """Ask at a steady pace for so long. A request that waits for the one before counts from when it was due."""
    waits, pending = Waits(), set()
    begin = time.perf_counter()
    for number in range(int(seconds * HONEST_RATE)):
        due = begin + number / HONEST_RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(_ask(port, due, waits))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    return waits


_idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []


async def _ask(port: int, due: float, waits: Waits) -> None:
    try:
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            reader, writer = _idle.pop() if _idle else await asyncio.open_connection("127.0.0.1", port)
            writer.write(HONEST)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        waits.failed += 1
        return
    waits.taken.append(time.perf_counter() - due)
    waits.failed += b" 200 " not in head
    _idle.append((reader, writer))


async def attack(port: int, name: str, rate: float, seconds: float) -> None:
    """Send it so often, by new connections, and read what comes."""
    data, pending = attacks()[name], set()
    begin = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        task = asyncio.create_task(_attack_once(port, data))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.wait(pending, timeout=GIVEN_UP_SECONDS)


async def _attack_once(port: int, data: bytes) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            await reader.read(65536)
            writer.close()


async def measure(tree: Path, options: argparse.Namespace) -> None:
    print(f"{'attack':<32}{'before':>17}{'during':>20}{'after':>20}   p50 and p99, ms; CPU ms of an attack")
    with tempfile.TemporaryDirectory() as folder:
        for name in attacks():
            _idle.clear()
            async with running(tree, Path(folder) / "log") as (street, pid):
                await honest(street, 1.0)  # what the first requests cost is nobody's attack
                used = cpu_seconds(pid)
                before = await honest(street, options.seconds / 2)
                usual, used = cpu_seconds(pid) - used, cpu_seconds(pid)
                attacker = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.bench.attackers", "--attack", name, "--port", str(street)),
                    *("--rate", str(options.rate), "--seconds", str(options.seconds)),
                    cwd=REPOSITORY,
                    env=os.environ,
                )
                during = await honest(street, options.seconds)
                await attacker.wait()
                used = cpu_seconds(pid) - used - 2 * usual  # as many honest requests in twice the time
                after = await honest(street, options.seconds / 2)
            cost = 1000 * used / (options.rate * options.seconds)
            print(f"{name:<32} {before!s:>16}    {during!s:>16}    {after!s:>16} {cost:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attackers")
    parser.add_argument("--tree", default=str(REPOSITORY), help="a checkout whose sidecar is attacked")
    parser.add_argument("--rate", type=float, default=60.0, help="attacks a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each attack")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        asyncio.run(attack(options.port, options.attack, options.rate, options.seconds))
    else:
        asyncio.run(measure(Path(options.tree).resolve(), options))


if __name__ == "__main__":
    main()
