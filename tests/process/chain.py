"""Four instrumented services in a row, a sidecar beside each: eight processes on loopback.

client → sidecar → service 1 → sidecar → sidecar → service 2 → … → service 4
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_ports
from tests.support.process import END_SECONDS, http_get

HOPS = 4
START_SECONDS = 240.0
"""Against hanging: eight processes start at once, perhaps on a busy machine."""
SERVICE = Path(__file__).parent / "service.py"
INSTRUMENT = Path(sys.executable).parent / "opentelemetry-instrument"

CONFIG = """\
version: 1
listeners:
  inbound: {{address: "127.0.0.1:{inbound}"}}
  outbound: {{address: "127.0.0.1:{outbound}"}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
  next: {{endpoints: ["127.0.0.1:{next}"]}}
routes:
- {{name: in, upstream: app}}
- {{name: out, listener: outbound, match: {{hosts: [next.test]}}, upstream: next}}
- name: unaided
  listener: outbound
  match: {{hosts: [next.test], path: {{prefix: /unaided}}}}
  upstream: next
  deadline: {{recover_from_trace: false}}
"""


@dataclass(frozen=True)
class Hop:
    """The ports of one service and its sidecar."""

    app: int
    inbound: int
    outbound: int
    probes: int
    admin: int


@dataclass
class Request:
    """One request as a service saw it."""

    headers: dict[str, str]
    is_connected: bool
    end: str
    """Empty while it is being served."""

    @property
    def budget_ms(self) -> int:
        return int(self.headers["x-envoy-expected-rq-timeout-ms"])


class Chain:
    """What a client can do with it, and what the services say when they are asked directly."""

    def __init__(self, hops: list[Hop]) -> None:
        self.hops = hops
        self._runs = itertools.count()

    def new_run(self) -> str:
        """A name for one request and all that it causes."""
        return f"run-{next(self._runs)}"

    async def served(self, run: str) -> list[Request]:
        """What the services were sent in `run`, in the order of the hops; asked at once."""
        bodies = await asyncio.gather(*(http_get(hop.app, f"/served?run={run}") for hop in self.hops))
        told: list[dict[str, Any]] = [one for _, body in bodies for one in json.loads(body)]
        return [Request(**one) for one in told]

    async def until(self, run: str, is_so: Callable[[list[Request]], bool]) -> list[Request]:
        """Wait until what the services saw of `run` is as wanted."""
        while True:
            requests = await self.served(run)
            if is_so(requests):
                return requests
            await asyncio.sleep(0.005)

    async def reached_the_end(self, run: str) -> None:
        """Wait until the last service has the request."""
        await self.until(run, lambda requests: len(requests) == HOPS)

    async def is_over(self, run: str) -> list[Request]:
        """Wait until nobody is at it any more."""
        return await self.until(run, lambda requests: all(one.end for one in requests))

    @asynccontextmanager
    async def client(self, method: str, target: str, header: str = "") -> AsyncIterator[asyncio.StreamReader]:
        """A client that has sent its request; it closes its socket at the end of the block."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.hops[0].inbound)
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: one.test\r\n{length}{header}\r\n".encode())
        try:
            yield reader
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextmanager
def running_chain(folder: Path) -> Iterator[Chain]:
    """Start everything at once, wait until all of it answers, and end it."""
    ports = iter(free_ports(HOPS * 5))
    hops = [Hop(*itertools.islice(ports, 5)) for _ in range(HOPS)]
    processes = []
    try:
        for number, hop in enumerate(hops):
            below = hops[number + 1] if number + 1 < HOPS else None
            processes.append(_start_sidecar(folder, number, hop, below))
            processes.append(_start_service(folder, number, hop, is_last=below is None))
        until = time.monotonic() + START_SECONDS
        for hop in hops:
            _wait_for(f"http://127.0.0.1:{hop.probes}/readyz", until, folder)
            _wait_for(f"http://127.0.0.1:{hop.app}/served?run=none", until, folder)
        yield Chain(hops)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start_sidecar(folder: Path, number: int, hop: Hop, below: Hop | None) -> subprocess.Popen[bytes]:
    file = folder / f"sidecar-{number}.yaml"
    file.write_text(
        CONFIG.format(
            app=hop.app, inbound=hop.inbound, outbound=hop.outbound, probes=hop.probes, admin=hop.admin,
            next=below.inbound if below is not None else hop.inbound,
        )
    )  # fmt: skip
    return _start(folder / f"sidecar-{number}.log", [sys.executable, "-m", "sidecar", "run", str(file)], {})


def _start_service(folder: Path, number: int, hop: Hop, *, is_last: bool) -> subprocess.Popen[bytes]:
    command = [str(INSTRUMENT), sys.executable, str(SERVICE), str(hop.app)]
    if not is_last:
        command.append("http://next.test")
    variables = {
        "http_proxy": f"http://127.0.0.1:{hop.outbound}",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        # One of them samples nothing: the context goes on all the same.
        "OTEL_TRACES_SAMPLER": "always_off" if number == 1 else "parentbased_always_on",
    }
    return _start(folder / f"service-{number}.log", command, variables)


def _start(log: Path, command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        )


def _wait_for(url: str, until: float, folder: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until:
        with contextlib.suppress(OSError, urllib.error.URLError), direct.open(url, timeout=1.0) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    logs = "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(folder.glob("*.log")))
    raise AssertionError(f"{url} does not answer\n{logs}")
