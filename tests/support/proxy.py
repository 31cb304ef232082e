"""A whole sidecar inside the test's event loop: real sockets, and the loop's own clock."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sidecar.config.load import load_text
from sidecar.runtime.crossing import Joined
from sidecar.runtime.file_limits import FileLimits
from sidecar.runtime.worker import Worker

HEADER = """\
version: 1
listeners:
  inbound: {address: "127.0.0.1:0"}
  outbound: {address: "127.0.0.1:0"}
probes: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
telemetry: {access_log: {format: "off"}}
"""
"""The part of a configuration that tests do not care about."""


def chance() -> random.Random:
    """What is left to chance, the same in each run of one test: what came out well once does so for ever."""
    name, _, _ = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
    return random.Random(name)


@asynccontextmanager
async def running(
    routes: str,
    header: str = HEADER,
    *,
    limits: FileLimits | None = None,
    environ: Mapping[str, str] | None = None,
    joined: Joined | None = None,
) -> AsyncIterator[Worker]:
    """A started `Worker` with `header` + `routes` (YAML). Its ports are `port(worker, "inbound")`."""
    loop = asyncio.get_running_loop()
    snapshot = load_text(header + routes).snapshot
    log = os.open(os.devnull, os.O_WRONLY)
    try:
        worker = Worker(
            snapshot,
            environ or {},
            log_fd=log,
            clock=loop.time,
            limits=limits,
            joined=joined,
            rng=chance(),
        )
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()
    finally:
        os.close(log)


def port(worker: Worker, listener: str = "inbound") -> int:
    return worker.listeners[listener].address.port
