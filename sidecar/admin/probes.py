"""The read-only listener for the kubelet and Prometheus: /livez /readyz /startupz /metrics.

Knows nothing of the data path but what it is given as `Vitals`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from sidecar.admin.long_answers import LongAnswers
from sidecar.admin.probe_thread import LoopVitals, ProbeThread
from sidecar.admin.scrape import metrics_response
from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import Address
from sidecar.core.sources import Sources
from sidecar.serving.http import HttpServer
from sidecar.serving.message import Request, Response
from sidecar.serving.routes import Routes
from sidecar.upstream import app_probe
from sidecar.upstream.app_probe import AppProbe

MAX_SCRAPES: Final = 8
"""Of `/metrics` at once."""


class Vitals(LoopVitals, Protocol):
    """What the probes ask the process."""

    @property
    def numbers(self) -> Numbers: ...
    async def scraped(self) -> tuple[Numbers, Sources]:
        """All that is counted."""


class Probes:
    """An HTTP server of five resources, and a thread for the time in which its loop is late."""

    def __init__(self, vitals: Vitals, app_probes: str = "") -> None:
        """`app_probes`: those of the pod's own containers (`upstream/app_probe.py`), as the environment has them."""
        self._vitals = vitals
        self._app_probes: Mapping[str, AppProbe] = {}
        self._app_probes_problem = ""
        try:
            self._app_probes = app_probe.read(app_probes)
        except ValueError as error:
            self._app_probes_problem = str(error)
        self.server = HttpServer("probes.address", end_seconds=1.0)
        self._thread: ProbeThread | None = None

    async def start(self, address: Address) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        routes = Routes()
        routes.get("/livez", self._livez)
        routes.get("/readyz", self._readyz)
        routes.get("/startupz", self._startupz)
        routes.get("/app-probe/{container}/{kind}", self._app_probe)
        routes.get("/metrics", LongAnswers(MAX_SCRAPES).wrap(self._metrics))
        bound = self.server.start(routes.dispatch, address)
        loop = asyncio.get_running_loop()
        self._thread = ProbeThread(bound, self._vitals, loop.call_soon_threadsafe, self.server.adopt)
        self._thread.start()

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)
        await self.server.stop()

    async def _livez(self, _request: Request) -> Response:
        return Response(200, "ok\n")

    async def _readyz(self, _request: Request) -> Response:
        return _yes_or_no(self._vitals.is_ready, "draining or not started")

    async def _startupz(self, _request: Request) -> Response:
        return _yes_or_no(self._vitals.is_started, "not started")

    async def _app_probe(self, request: Request) -> Response:
        """A probe of a container of this pod, made in the kubelet's place."""
        name = f"{request.matched['container']}/{request.matched['kind']}"
        probe = self._app_probes.get(name)
        if probe is None:
            why = self._app_probes_problem or f"{app_probe.ENVIRONMENT} has no probe {name[:100]!r}"
            return Response(500, f"{why}\n")
        asked_at = request.client.about("sockname")
        address = asked_at[0] if isinstance(asked_at, tuple) else "127.0.0.1"
        try:
            await app_probe.ask(probe, address)
        except app_probe.NotWell as error:
            return _yes_or_no(False, str(error))
        return _yes_or_no(True, "")

    async def _metrics(self, request: Request) -> Response:
        return await metrics_response(request, self._vitals)


def _yes_or_no(is_yes: bool, why_not: str) -> Response:
    return Response(200, "ok\n") if is_yes else Response(503, f"{why_not}\n")
