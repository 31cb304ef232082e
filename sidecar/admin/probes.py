"""The read-only listener for the kubelet and Prometheus: /livez /readyz /startupz /metrics.

Knows nothing of the data path but what it is given as `Vitals`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from aiohttp import web

from sidecar.admin import prometheus
from sidecar.admin.long_answers import LongAnswers
from sidecar.admin.probe_thread import LoopVitals, ProbeThread
from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import Address
from sidecar.core.sources import Sources
from sidecar.serving.http import HttpServer

MAX_SCRAPES: Final = 8
"""Of `/metrics` at once."""


class Vitals(LoopVitals, Protocol):
    """What the probes ask the process."""

    @property
    def numbers(self) -> Numbers: ...
    def sources(self) -> Sources: ...


class Probes:
    """An aiohttp server of four resources, and a thread for the time in which its loop is late."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self.server = HttpServer("probes.address", end_seconds=1.0)
        self._thread: ProbeThread | None = None

    async def start(self, address: Address) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/startupz", self._startupz)
        app.router.add_get("/metrics", LongAnswers(MAX_SCRAPES).wrap(self._metrics))
        bound = await self.server.start(app, address)
        loop = asyncio.get_running_loop()
        self._thread = ProbeThread(bound, self._vitals, loop.call_soon_threadsafe, self.server.adopt)
        self._thread.start()

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)
        await self.server.stop()

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _yes_or_no(self._vitals.is_ready, "draining or not started")

    async def _startupz(self, _request: web.Request) -> web.Response:
        return _yes_or_no(self._vitals.is_started, "not started")

    async def _metrics(self, request: web.Request) -> web.Response:
        return await metrics_response(request, self._vitals)


async def metrics_response(request: web.Request, vitals: Vitals) -> web.Response:
    """The numbers as Prometheus text, or OpenMetrics where that is asked for; requests go on between pieces."""
    is_open = prometheus.wants_openmetrics(request.headers.get("Accept", ""))
    wall_offset = time.time() - time.monotonic()
    sources = await asyncio.to_thread(vitals.sources)
    pieces = []
    for piece in prometheus.render(vitals.numbers, sources, openmetrics=is_open, wall_offset=wall_offset):
        pieces.append(piece)
        await asyncio.sleep(0)
    kind = prometheus.OPENMETRICS_CONTENT_TYPE if is_open else prometheus.TEXT_CONTENT_TYPE
    return web.Response(body="".join(pieces).encode(), headers={"Content-Type": kind})


def _yes_or_no(is_yes: bool, why_not: str) -> web.Response:
    return web.Response(text="ok\n") if is_yes else web.Response(status=503, text=f"{why_not}\n")
