"""The read-only listener for the kubelet and Prometheus: /livez /readyz /startupz /metrics.

Knows nothing of the data path but what it is given as `Vitals`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Final, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.admin import prometheus
from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import Address
from sidecar.core.sources import Sources

KEEP_ALIVE_SECONDS: Final = 75.0
"""How long a connection without a request is kept."""


class Vitals(Protocol):
    """What the probes ask the process."""

    @property
    def numbers(self) -> Numbers: ...
    @property
    def is_started(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...
    def sources(self) -> Sources: ...


class Probes:
    """An aiohttp server of four resources."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._runner: web.AppRunner | None = None

    async def start(self, address: Address) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound.
        """
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/startupz", self._startupz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = runner(app, end_seconds=1.0)
        await self._runner.setup()
        await listen(self._runner, address)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

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


def runner(app: web.Application, *, end_seconds: float) -> web.AppRunner:
    """An aiohttp server beside the data path. `end_seconds`: how long its end waits for answers under way.

    A request that is not HTTP gets its 400 and is not logged: whoever can connect could fill the log.
    """
    logger = logging.getLogger("sidecar.admin.http")
    logger.addFilter(_is_not_a_clients_mistake)
    return web.AppRunner(
        app,
        access_log=None,
        logger=logger,
        shutdown_timeout=end_seconds,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
    )


async def listen(runner: web.AppRunner, address: Address) -> None:
    """Bind and serve. Raises: OSError, which names the address."""
    site: web.BaseSite
    if address.path is not None:
        site = web.UnixSite(runner, address.path)
    else:
        site = web.TCPSite(runner, address.host, address.port)
    try:
        await site.start()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno is not None else str(error)
        raise OSError(error.errno, f"cannot listen on {address}: {why}") from error


def _yes_or_no(is_yes: bool, why_not: str) -> web.Response:
    return web.Response(text="ok\n") if is_yes else web.Response(status=503, text=f"{why_not}\n")


def _is_not_a_clients_mistake(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
