"""A sidecar, two apps, a nameserver, a collector, a file: everything that a scene may break."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bench.machine import PAGE_BYTES, tree
from tests.support.dns import DnsServer, Reply, dns_server
from tests.support.ports import accepts, free_ports
from tests.support.process import http_get

NAME = "app.test"
START_SECONDS = 30.0
GENERATIONS_SECONDS = 20.0
"""At most, for a change of the file to arrive."""
LONGEST_WAIT_SECONDS = 2.0
"""Of a breaker: `max_open_for`."""
FILE = """\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
admin: {{address: "127.0.0.1:{admin}"}}
probes: {{address: "127.0.0.1:{probes}"}}
drain: {{delay: 0s}}
telemetry:
  otlp: {{endpoint: "http://127.0.0.1:{collector}", protocol: http/protobuf}}
  traces: {{sample_ratio: 1}}
  metrics: {{interval: 1s}}
upstreams:
  one: {{endpoints: ["127.0.0.1:{first}"]}}
  two: {{endpoints: ["127.0.0.1:{first}", "127.0.0.1:{second}"]}}
  named: {{endpoints: ["app.test:{first}"]}}
defaults:
  timeouts: {{request: 2s}}
  circuit_breaker: {{open_for: 1s, max_open_for: {wait}s}}
routes:
- {{name: two, match: {{path: {{prefix: /two}}}}, upstream: two}}
- {{name: named, match: {{path: {{prefix: /named}}}}, upstream: named}}
- {{name: one, upstream: one}}
"""


class World:
    """One scene's."""

    def __init__(self, directory: Path, ports: dict[str, int], dns: DnsServer, stdout: Any) -> None:
        self.directory = directory
        self.ports = ports
        self.dns = dns
        self.stdout = stdout
        self.text = FILE.format(wait=LONGEST_WAIT_SECONDS, **ports)
        self.file = directory / "sidecar.yaml"
        self.clock = directory / "clock"
        self.log = directory / "log"
        self.apps: dict[str, subprocess.Popen[bytes]] = {}
        self.process: subprocess.Popen[bytes]

    # The sidecar

    def start(self) -> None:
        self.file.write_text(self.text)
        self.clock.write_text("0")
        environment = {
            **os.environ,
            "KILL_LIST_NAMESERVER": self.dns.address,
            "KILL_LIST_CLOCK": str(self.clock),
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2000",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.kill_list.prepared", str(self.file)],
                stdin=subprocess.DEVNULL, stdout=self.stdout or log, stderr=log, env=environment,
            )  # fmt: skip

    async def ready(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while not await self._is_well():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _is_well(self) -> bool:
        """Ready, and its name resolved."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            if (await http_get(self.ports["probes"], "/readyz"))[0] == 200:
                return (await http_get(self.ports["inbound"], "/named"))[0] == 200
        return False

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def mebibytes(self) -> float:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
        return 0.0

    def children(self) -> list[int]:
        """The loading process, while there is one."""
        return tree(self.process.pid)[1:]

    async def metric(self, start: str) -> float:
        _, text = await http_get(self.ports["probes"], "/metrics")
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))

    # The apps

    def serve(self, *which: str) -> None:
        for name in which or ("first", "second"):
            self.apps[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.upstream", str(self.ports[name])]
            )

    async def serving(self, *which: str) -> None:
        """Begin, and wait until they take connections."""
        self.serve(*which)
        for name in which or ("first", "second"):
            async with asyncio.timeout(START_SECONDS):
                while not await accepts(self.ports[name]):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    def kill(self, name: str) -> None:
        self.apps[name].kill()
        self.apps[name].wait()

    def signal_app(self, name: str, number: int) -> None:
        self.apps[name].send_signal(number)

    # The file

    async def changed(self, number: int) -> None:
        """Write a good file that differs, and wait until it is in use."""
        before = await self.metric("sidecar_config_generation")
        new = self.file.with_name("new")
        new.write_text(self.text.replace("request: 2s", f"request: 2{number:03}ms"))
        new.replace(self.file)
        async with asyncio.timeout(GENERATIONS_SECONDS):
            while await self.metric("sidecar_config_generation") == before:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


@asynccontextmanager
async def world(directory: Path, stdout: Any = None) -> AsyncIterator[World]:
    """Everything is well, but for the collector, which there is not yet."""
    names = ("inbound", "admin", "probes", "collector", "first", "second")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    async with dns_server() as dns:
        dns.replies[NAME] = Reply(("127.0.0.1",), ttl=1)
        made = World(directory, ports, dns, stdout)
        await made.serving()
        made.start()
        try:
            await made.ready()
            yield made
        finally:
            await asyncio.to_thread(made.end)
            for name in made.apps:
                made.kill(name)
