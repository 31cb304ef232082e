"""`python -m tests.bench.handshakes`: do thousands of slow handshakes hold up others?

One client with a kept TLS connection asks a hundred times a second, first alone, then while thousands of connections
send the first message of a handshake a byte at a time, as these all hang up together, then while hundreds send theirs
at once. The load comes from another process. Told are the times that its answers took, and how late the sidecar's own
loop was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.bench.rotation import answer_all
from tests.process.setting import Served, served
from tests.support.authority import Authority
from tests.support.raw import raw_upstream
from tests.support.tls_client import tls_client

INTERVAL_SECONDS = 0.01
AFTER_SECONDS = 1.0
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"


class Observer:
    """Asks again and again, and notes how long each answer took."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self._port = port
        self._trust = trust
        self.seconds: list[float] = []
        self.is_over = False

    async def run(self) -> None:
        async with tls_client(self._port, self._trust) as client:
            while not self.is_over:
                began = time.monotonic()
                assert (await client.ask(GET)).status == 200
                self.seconds.append(time.monotonic() - began)
                await asyncio.sleep(INTERVAL_SECONDS)

    def take(self) -> dict[str, float]:
        ordered = sorted(self.seconds)
        self.seconds = []
        return {
            "answers": len(ordered),
            "p50_ms": round(1e3 * ordered[len(ordered) // 2], 2),
            "p99_ms": round(1e3 * ordered[len(ordered) * 99 // 100], 2),
            "most_ms": round(1e3 * ordered[-1], 2),
        }


async def slow(port: int, trust: ssl.SSLContext, count: int, seconds: float) -> None:
    """So many handshakes that never end: a byte of the first message each second."""
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(count):
            client = await stack.enter_async_context(tls_client(port, trust, is_shaken=False))
            clients.append((client, client.first_flight()))
            if number % 100 == 0:
                await asyncio.sleep(0)
        until = time.monotonic() + seconds
        at = 0
        while time.monotonic() < until:
            for number, (client, first) in enumerate(clients):
                client.writer.write(first[at : at + 1])
                if number % 50 == 0:
                    await asyncio.sleep(0.02)
            at += 1
        print("over", flush=True)
        await asyncio.to_thread(sys.stdin.readline)


async def at_once(port: int, trust: ssl.SSLContext, count: int) -> None:
    """So many handshakes whose first messages come together; they go on, and end."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            client = await stack.enter_async_context(tls_client(port, trust, is_shaken=False))
            clients.append((client, client.first_flight()))
        for client, first in clients:
            client.writer.write(first)
        for client, _ in clients:
            await client.handshake()
            await asyncio.sleep(0)


@asynccontextmanager
async def load(kind: str, port: int, ca: Path, count: int, seconds: float) -> AsyncIterator[None]:
    """In a process of its own, so that it does not hold up who looks. Slow ones hang up at the end of the block."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.handshakes",
        "--load",
        kind,
        "--port",
        str(port),
        "--ca",
        str(ca),
    ]
    more = ["--connections", str(count), "--seconds", str(seconds)]
    process = await asyncio.create_subprocess_exec(
        *command, *more, stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield
        await process.communicate(b"\n")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def late_turns(to: Served) -> dict[str, float]:
    """How often the sidecar's loop was later than so many milliseconds, since its start."""
    _, text = await to.process.get("/metrics")
    found = {}
    for line in text.splitlines():
        if line.startswith("sidecar_loop_lag_seconds_bucket"):
            bound = line.partition('le="')[2].partition('"')[0]
            found[bound] = float(line.rpartition(" ")[2])
    whole = found["+Inf"]
    return {
        f"over {float(bound) * 1e3:g} ms": whole - count for bound, count in found.items() if bound != "+Inf"
    }


async def measure(count: int, seconds: float, folder: Path) -> dict[str, object]:
    authority = Authority(folder)
    tls = f"tls: {{certificate: {authority.pair('a.test').yaml()}}}, limits: {{connections: 20000}}"
    told: dict[str, object] = {}
    async with raw_upstream(answer_all) as app, served(folder, app.port, listener=tls) as to:
        observer = Observer(to.port, authority.trust)
        watching = asyncio.create_task(observer.run())
        before = await late_turns(to)

        async def tell(part: str) -> None:
            nonlocal before
            after = await late_turns(to)
            told[part] = {**observer.take(), "loop": {name: after[name] - before[name] for name in after}}
            before = after

        await asyncio.sleep(seconds)
        await tell("alone")
        async with load("slow", to.port, authority.path, count, seconds):
            await tell("slow")
        await asyncio.sleep(AFTER_SECONDS)
        await tell("all hang up")
        async with load("at-once", to.port, authority.path, 500, seconds):
            await tell("at once")
        observer.is_over = True
        await watching
        told["resident_kib"] = to.process.memory_kib()
    return told


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.handshakes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each part")
    parser.add_argument("--load", choices=("slow", "at-once"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ca", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        trust = ssl.create_default_context(cafile=str(options.ca))
        if options.load == "slow":
            asyncio.run(slow(options.port, trust, options.connections, options.seconds))
        else:
            asyncio.run(at_once(options.port, trust, options.connections))
        return 0
    with tempfile.TemporaryDirectory(prefix="sidecar-handshakes-") as folder:
        told = asyncio.run(measure(options.connections, options.seconds, Path(folder)))
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
