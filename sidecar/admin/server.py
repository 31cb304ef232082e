"""The admin API (SPEC 11): JSON over HTTP; GET reads, POST changes. Its own listener, never on the data path.

Long answers are made in turns of a millisecond, so that a thousand routes are not seen in the latency of requests.
What changes something, or tried to, is in the event log with who asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sidecar.admin import outcomes, views
from sidecar.admin.answers import answer, listed
from sidecar.admin.breakers import moment_of
from sidecar.admin.changes import LEVELS, Changes
from sidecar.admin.events import Event, Events
from sidecar.admin.guard import Guard
from sidecar.admin.long_answers import LongAnswers
from sidecar.admin.middleware import BROWSER_FIELDS, around_all
from sidecar.admin.page import Page
from sidecar.admin.process import Data, Process
from sidecar.admin.readings import OwnReadings, Readings, Table
from sidecar.admin.scrape import metrics_response
from sidecar.admin.tap_query import wanted
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.failover import FailoverChange
from sidecar.core.listing import EndpointsChange
from sidecar.core.snapshot import Address
from sidecar.core.transition import Transition
from sidecar.serving.http import HttpServer
from sidecar.serving.message import Request, Response
from sidecar.serving.routes import Routes
from sidecar.transport.bind import OWNER_ONLY

MAX_LONG_ANSWERS = 16
"""At once: the dashboard asks for up to four, each second."""
STOP_SECONDS = 1.0
"""How long the end waits for answers under way."""


class AdminServer:
    """An HTTP server over one `Process`."""

    def __init__(self, process: Process, events: Events) -> None:
        self.readings: Readings = OwnReadings(process, events)
        """What GET shows; of several processes, what all have to show is put in its place before `start`."""
        self._process = process
        self._events = events
        self._page = Page()
        self.server = HttpServer(
            "admin.address",
            end_seconds=STOP_SECONDS,
            socket_mode=OWNER_ONLY,
            fields=BROWSER_FIELDS,
            on_ending=self._close_streams,
        )
        self._routes = Routes()

    @property
    def port(self) -> int:
        """Where it listens; for tests that bind port 0."""
        return self.server.port

    @property
    def operations(self) -> set[tuple[str, str]]:
        """Method and path of all that is served: what the description of the API has to name."""
        return self._routes.operations

    async def start(self, address: Address) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound; the text names its key and a remedy.
        """
        guard = Guard(self._process.snapshot.admin, self._page.paths)
        await guard.start()
        self._routes = self._routed()
        self.server.start(around_all(self._routes.dispatch, guard, self._process.audit), address)

    async def stop(self) -> None:
        await self.server.stop()

    def _routed(self) -> Routes:
        routes = Routes()
        routes.get("/status", self._status)
        routes.get("/breakers/{route}", self._breaker)
        long_answers = LongAnswers(MAX_LONG_ANSWERS)
        for path, handler in (
            ("/routes", self._all_routes),
            ("/history", self._history),
            ("/breakers", self._breakers),
            ("/upstreams", self._upstreams),
            ("/config", self._config),
            ("/outcomes/{route}", self._outcomes),
            ("/metrics", self._metrics),
        ):
            routes.get(path, long_answers.wrap(handler))
        routes.get("/events", self._stream, has_head=False)
        routes.get("/tap", self._tap, has_head=False)
        routes.get("/loglevel", self._log_level)
        routes.get("/openapi.json", _described)
        self._page.add_to(routes)
        Changes(self._process, self.readings).add_to(routes)
        return routes

    def _close_streams(self) -> None:
        self._events.close()
        self._process.taps.close()

    # GET

    async def _status(self, _request: Request) -> Response:
        return answer(await self.readings.status())

    async def _all_routes(self, request: Request) -> Response:
        async with self.readings.turn:
            return await _listed(await self.readings.routes(request.query.get("since")))

    async def _history(self, _request: Request) -> Response:
        return await _listed(await self.readings.history())

    async def _outcomes(self, request: Request) -> Response:
        return await _listed(await self.readings.outcomes(*outcomes.asked(request)))

    async def _breakers(self, request: Request) -> Response:
        return await _listed(await self.readings.breakers(_chosen(request, "route")))

    async def _breaker(self, request: Request) -> Response:
        return await _listed(await self.readings.breaker(request.matched["route"]))

    async def _upstreams(self, request: Request) -> Response:
        return await _listed(await self.readings.upstreams(_chosen(request, "name")))

    async def _config(self, request: Request) -> Response:
        process = self._process
        chosen = _chosen(request, "route")
        routes = [one for one in process.snapshot.routes if chosen is None or one.name in chosen]

        def written() -> Iterator[Data]:
            for route in routes:
                yield {"name": route.name, **process.written(route)}

        return await listed(await process.config(), "routes", written(), inside="active")

    async def _metrics(self, request: Request) -> Response:
        return await metrics_response(request, self._process)

    async def _log_level(self, _request: Request) -> Response:
        return answer({"level": self._process.log_level, "levels": list(LEVELS)})

    async def _stream(self, request: Request) -> None:
        reader = self._events.reader(request.headers.get("last-event-id"))
        await reader.serve(request, self.words)

    async def _tap(self, request: Request) -> None:
        await self._process.taps.serve(request, wanted(request, self._process))

    def words(self, event: Event) -> Mapping[str, Any]:
        """An event as JSON has it."""
        content = event.content
        if isinstance(content, Transition):
            return views.transition(content, moment_of(self._process))
        if isinstance(content, FailoverChange):
            return views.failover_change(content, moment_of(self._process))
        if isinstance(content, EndpointChange):
            return views.endpoint_change(content, moment_of(self._process))
        if isinstance(content, EndpointsChange):
            return views.endpoints_change(content, self._process.clusters.values())
        return content


async def _listed(table: Table) -> Response:
    return await listed(table.head, table.key, table.rows)


def _chosen(request: Request, key: str) -> frozenset[str] | None:
    """The names that a query gives, once each, to see no more than those; None: all. Unknown ones are nothing."""
    return frozenset(request.query.all(key)) if key in request.query else None


async def _described(_request: Request) -> Response:
    return Response(body=_description(), kind="application/json; charset=utf-8")


@cache
def _description() -> bytes:
    """Of this API, an OpenAPI file that tests hold to what is answered. Most processes are never asked for it."""
    return Path(__file__).with_name("openapi.json").read_bytes()
