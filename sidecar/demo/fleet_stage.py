"""What the story of a fleet is played on: one upstream, three replicas of whoever calls it, and a Redis for these.

client → sidecar ─┐
client → sidecar ─┼→ payments
client → sidecar ─┘
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector

from sidecar.demo.processes import Change, DemoFailed, Ports, Sidecar, free_ports
from sidecar.demo.services import Service
from sidecar.demo.stage import Answer, Journal

REPLICAS = ("one", "two", "three")
ROUTE = "payments"
PROGRAMS = ("redis-server", "valkey-server")
NO_SERVER = (
    "the replicas meet by a Redis: install `redis-server` or `valkey-server` (apt install redis-server)"
)
NO_CLIENT = "the replicas meet by a Redis: pip install 'sidecar-proxy[redis]'"
START_SECONDS = 20.0


class Redis:
    """The demo's own, which keeps nothing."""

    def __init__(self, program: str, port: int, folder: Path) -> None:
        self._command = [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self._log = folder / "redis.log"
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return when it takes connections. Raises: DemoFailed."""
        process = self._launch()
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        raise DemoFailed(f"the Redis does not start:\n{self._log.read_text()[-2000:]}")

    def _launch(self) -> subprocess.Popen[bytes]:
        """At once, so that a cancellation cannot come between the birth of a process and its record."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        return self._process

    def kill(self) -> None:
        """At once, with no good-bye."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class FleetStage:
    """Everything that runs, and what a client can do with it."""

    def __init__(self, payments: Service, sidecars: list[Sidecar], redis: Redis, journal: Journal) -> None:
        self.payments = payments
        self.sidecars = sidecars
        self.redis = redis
        self.journal = journal
        self.changes: dict[str, list[Change]] = {name: [] for name in REPLICAS}
        """Of each replica's breaker, as they were heard of."""
        self.session = ClientSession(
            connector=TCPConnector(limit=0, force_close=True), timeout=ClientTimeout(total=20)
        )

    async def call(self, replica: int) -> Answer:
        """One call through the sidecar of one replica."""
        sidecar, started = self.sidecars[replica], time.monotonic()
        url = f"http://127.0.0.1:{sidecar.ports.outbound}/fast"
        async with self.session.get(url) as answer:
            await answer.read()
            return Answer(answer.status, time.monotonic() - started, {})

    async def call_all(self) -> list[Answer]:
        """One call through each, at once."""
        return list(await asyncio.gather(*(self.call(number) for number in range(len(self.sidecars)))))

    async def fleets(self) -> list[dict[str, Any]]:
        """How each replica stands to the others."""
        return [await self._fleet(sidecar) for sidecar in self.sidecars]

    async def _fleet(self, sidecar: Sidecar) -> dict[str, Any]:
        async with self.session.get(f"{sidecar.admin}/status") as answer:
            found: dict[str, Any] = (await answer.json())["fleet"]
            return found

    async def until_fleet(self, key: str, value: object, seconds: float = 20.0) -> bool:
        """Wait until all replicas say so of their fleet; whether they do."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if all(one[key] == value for one in await self.fleets()):
                return True
            await asyncio.sleep(0.05)
        return False

    async def until_state(self, state: str, seconds: float = 10.0) -> dict[str, float]:
        """When each breaker was last told to be in this state; those that have come there within so many seconds."""
        until = time.monotonic() + seconds
        while True:
            last = {name: changes[-1] for name, changes in self.changes.items() if changes}
            found = {name: change.at for name, change in last.items() if change.to_state == state}
            if len(found) == len(self.changes) or time.monotonic() > until:
                return found
            await asyncio.sleep(0.01)

    def heard(self, name: str, change: Change) -> None:
        self.changes[name].append(change)
        told = f"{change.from_state} → {change.to_state} ({change.reason})"
        self.journal.on_line("change", f"of replica {name}: {told}")


@asynccontextmanager
async def running_fleet(journal: Journal, otlp: str | None = None) -> AsyncIterator[FleetStage]:
    """Start it all, and end it all whatever happens. Raises: DemoFailed."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise DemoFailed(NO_SERVER)
    if importlib.util.find_spec("redis") is None:
        raise DemoFailed(NO_CLIENT)
    with TemporaryDirectory(prefix="sidecar-demo-") as name:
        folder = Path(name)
        redis_port, *ports = free_ports(1 + 4 * len(REPLICAS))
        redis = Redis(program, redis_port, folder)
        payments = Service(ROUTE, journal.log)
        sidecars = [
            Sidecar(one, Ports(*ports[4 * number : 4 * number + 4]), folder)
            for number, one in enumerate(REPLICAS)
        ]
        for sidecar in sidecars:
            _write(sidecar, payments.port, redis_port, otlp)
        stage = FleetStage(payments, sidecars, redis, journal)
        followers: list[asyncio.Task[None]] = []
        try:
            await redis.start()
            await payments.start()
            for sidecar in sidecars:
                sidecar.start()
            for sidecar in sidecars:
                await sidecar.is_ready(stage.session)
            followers += [asyncio.create_task(_follow(stage, one)) for one in sidecars]
            await asyncio.sleep(0.1)
            yield stage
        finally:
            await _end(stage, followers)


async def _follow(stage: FleetStage, sidecar: Sidecar) -> None:
    await sidecar.follow(stage.session, lambda change: stage.heard(sidecar.name, change))


async def _end(stage: FleetStage, followers: list[asyncio.Task[None]]) -> None:
    for task in followers:
        task.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    await stage.session.close()
    await asyncio.gather(*(one.end() for one in stage.sidecars))
    stage.redis.kill()
    await stage.payments.stop()
    stage.payments.close()


def _write(sidecar: Sidecar, app: int, redis: int, otlp: str | None) -> None:
    telemetry: dict[str, Any] = {"service_name": f"shop-{sidecar.name}", "traces": {"sample_ratio": 1.0}}
    if otlp is not None:
        telemetry["otlp"] = {"endpoint": otlp}
    ports = sidecar.ports
    values = {
        "outbound": ports.outbound,
        "admin": ports.admin,
        "probes": ports.probes,
        "app": app,
        "redis": redis,
    }
    template = Template((resources.files("sidecar.demo") / "fleet.yaml").read_text())
    sidecar.file.write_text(template.substitute(values, telemetry=json.dumps(telemetry)))
