"""Is everything as it was before? What a scenario must not leave behind, whatever it did to the proxy."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sidecar.runtime.worker import Worker
from tests.support.raw import turns


class Complaints(logging.Handler):
    """What the proxy, its tasks and its callbacks complained about, from now on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self._loop = loop

    def __enter__(self) -> Complaints:
        self._loop.set_exception_handler(self._unhandled)
        for name in ("sidecar", "asyncio"):
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.set_exception_handler(None)
        for name in ("sidecar", "asyncio"):
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.found.append(f"{context['message']}: {error!r}")


async def assert_clean(worker: Worker, *, idle: int | None = None) -> None:
    """No exchange, request, waiter or connection is left but the pools' idle ones, `idle` in number if given.

    The clients must have closed before. A connection that was cut is gone within a few turns of the loop.
    """
    await turns(50)
    for _ in range(200):  # a client that was not being read is seen to have left at the next look
        if not any(one.connection_count for one in worker.listeners.values()):
            break
        await asyncio.sleep(0.02)
    assert {
        name: one.connection_count for name, one in worker.listeners.items() if one.connection_count
    } == {}
    assert worker.service.exchanges == set()
    assert len(worker.service.sweep) == 0
    for cluster in worker.assembly.clusters.values():
        assert (cluster.in_flight, cluster.pending) == (0, 0)
        assert [pool.in_flight for pool in cluster.pools] == [0] * len(cluster.pools)
        idle_count = sum(pool.idle_count for pool in cluster.pools)
        open_count = sum(pool.open_count for pool in cluster.pools)
        assert (cluster.connections, open_count) == (idle_count, idle_count)
        assert idle is None or idle_count == idle
