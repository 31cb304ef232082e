"""The three services of the demo, as anybody would write them: they know nothing of sidecars.

`/fast` takes 100 ms, `/slow?seconds=S` 1 to 10 s, `/batch?size=N` N steps of 200 ms. `/entry?seconds=S` is an entry
in the ledger (`ledger.py`), which the last service asks by gRPC. A service with a neighbour works for a moment and
then asks that one the same; the last one does the work. What a service is told of time is a header.
Owned by one event loop, as the counts and faults are.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import ClientError, ClientSession, web

from sidecar.config.schema.units import parse_duration

BUDGET_HEADER = "x-envoy-expected-rq-timeout-ms"
USER_ID = "user.id"
"""In the baggage."""
FAST_SECONDS = 0.1
STEP_SECONDS = 0.2
OWN_SECONDS = 0.03
"""What a service with a neighbour does itself, so that budgets fall visibly."""
MARGIN_SECONDS = 0.1
"""A batch hands in what it has this long before its time is over: the answer has to travel."""
_URI = re.compile("URI=([^;,]+)")
FAILING = frozenset({2, 5, 8})
"""Which of ten calls fail while `Faults.has_errors`: 30 %, spread evenly, so that each run tells the same."""


@dataclass
class Faults:
    """What is wrong with a service now."""

    has_errors: bool = False
    latency_seconds: float = 0.0
    count: int = 0
    """Calls since the last change."""

    def set(self, *, has_errors: bool = False, latency_seconds: float = 0.0) -> None:
        self.has_errors, self.latency_seconds, self.count = has_errors, latency_seconds, 0

    def fails_this(self) -> bool:
        self.count += 1
        return self.has_errors and self.count % 10 in FAILING


@dataclass
class Served:
    """One call, as the service saw it; kept beyond its end."""

    service: str
    path: str
    budget_ms: int | None
    trace_id: str
    request_id: str
    user_id: str
    began: float
    """Monotonic seconds."""
    status: int = 0
    """0 while it runs, 499 if it was cancelled."""
    seconds: float = 0.0
    method: str = "GET"
    client: str = ""
    """Who called, by the certificate of its sidecar; empty in clear text."""

    def __str__(self) -> str:
        """The line that the service logs."""
        budget = "-" if self.budget_ms is None else f"{self.budget_ms}ms"
        return (
            f"{self.service} {self.method} {self.path} {self.status} {self.seconds * 1000:.0f}ms budget={budget} "
            f"request_id={self.request_id} trace_id={self.trace_id} user={self.user_id}"
        )


@dataclass(frozen=True)
class Asked:
    """One call to the neighbour, as the service that made it saw it."""

    status: int
    reason: str
    """The sidecar's own reason, empty for an answer of the neighbour."""
    seconds: float


class AsksLedger(Protocol):
    """What the last service knows of the ledger."""

    async def enter(self, seconds: float, metadata: Sequence[tuple[str, str]]) -> LedgerAnswer: ...


class LedgerAnswer(Protocol):
    @property
    def http_status(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def words(self) -> str: ...


@dataclass
class Service:
    """One service on a port that stays its own while it is dead."""

    name: str
    log: Callable[[Served], None]
    neighbour: str | None = None
    proxy: str = ""
    """Its sidecar's outbound listener, as `http_proxy` would name it."""
    ledger: AsksLedger | None = None
    """Asked by the last service."""
    faults: Faults = field(default_factory=Faults)
    served: list[Served] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    running: int = 0
    """Calls being served now."""

    def __post_init__(self) -> None:
        self._socket = _reserved(0)
        self.port: int = self._socket.getsockname()[1]
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    @property
    def is_alive(self) -> bool:
        return self._runner is not None

    async def start(self) -> None:
        """Accept calls."""
        app = web.Application()
        for path in ("/fast", "/slow", "/batch", "/entry"):
            app.router.add_get(path, self._serve)
        # As with most frameworks, a handler goes on when its client has left: only the last service, which has no
        # call of its own that could be ended, asks to be told.
        is_last = self.neighbour is None
        self._runner = web.AppRunner(app, handler_cancellation=is_last, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        self._session = ClientSession()
        await web.SockSite(self._runner, self._socket).start()

    async def stop(self) -> None:
        """Die: connections end, and new ones are refused, as the port is kept but nobody listens."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
            self._socket.close()  # again, unless its start was cancelled and no site knew of it
            self._socket = _reserved(self.port)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    async def _serve(self, request: web.Request) -> web.Response:
        headers = request.headers
        this = Served(
            self.name,
            request.path,
            _integer(headers.get(BUDGET_HEADER)),
            (headers.get("traceparent", "") + "--").split("-")[1],
            headers.get("x-request-id", "-"),
            user_id(headers),
            time.monotonic(),
            client="".join(_URI.findall(headers.get("x-forwarded-client-cert", ""))[:1]),
        )
        self.served.append(this)
        self.running += 1
        this_status = 499
        try:
            answer = await self._answer(request, this)
            this_status = answer.status
        finally:
            self.running -= 1
            this.status = this_status
            this.seconds = time.monotonic() - this.began
            self.log(this)
        return answer

    async def _answer(self, request: web.Request, this: Served) -> web.Response:
        if self.faults.fails_this():
            return web.json_response({"error": "out of luck"}, status=500)
        try:
            seconds = _budget_seconds(request, this)
            if self.neighbour is not None:
                await asyncio.sleep(OWN_SECONDS)
                return await self._ask(request, this)
            await asyncio.sleep(self.faults.latency_seconds)
            if request.path == "/entry":
                return await self._enter(request, this)
            return await _work(request, seconds)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)

    async def _ask(self, request: web.Request, this: Served) -> web.Response:
        """Ask the neighbour the same.

        The trace and the baggage are passed on, as OpenTelemetry's instrumentation of a client would do, and the
        request id, as a logger's would; no deadline. `?timeout=` is a wish of this service's own, so it becomes a
        header here.
        """
        headers = _passed_on(request, this)
        query = dict(request.query)
        if "timeout" in query:
            headers["x-request-timeout-ms"] = str(round(parse_duration(query.pop("timeout")) * 1000))
        assert self._session is not None
        started = time.monotonic()
        try:
            async with self._session.get(
                f"http://{self.neighbour}{request.path}", params=query, headers=headers, proxy=self.proxy
            ) as answer:
                text = await answer.text()
                status, kind = answer.status, answer.content_type
        except (ClientError, OSError) as error:
            status, kind, text = 502, "application/json", json.dumps({"error": str(error)})
        self.asked.append(Asked(status, reason_in(kind, text), time.monotonic() - started))
        return web.Response(status=status, text=text, content_type=kind)

    async def _enter(self, request: web.Request, this: Served) -> web.Response:
        """Have the ledger do it; metadata is what headers are between the others."""
        if self.ledger is None:
            return web.json_response({"error": "nobody keeps a ledger here"}, status=501)
        await asyncio.sleep(OWN_SECONDS)
        seconds = min(10.0, max(0.0, float(request.query.get("seconds", FAST_SECONDS))))
        entered = await self.ledger.enter(seconds, list(_passed_on(request, this).items()))
        data = {"ledger": entered.code, "words": entered.words}
        return web.json_response(data, status=entered.http_status)


def _passed_on(request: web.Request, this: Served) -> dict[str, str]:
    kept = ("traceparent", "tracestate", "x-request-id")
    headers = {name: request.headers[name] for name in kept if name in request.headers}
    return {**headers, "baggage": f"{USER_ID}={this.user_id}"}


async def _work(request: web.Request, budget_seconds: float | None) -> web.Response:
    """Raises: ValueError, for a query that says nothing of use."""
    if request.path == "/fast":
        await asyncio.sleep(FAST_SECONDS)
        return web.json_response({"result": "done"})
    if request.path == "/slow":
        seconds = min(10.0, max(1.0, float(request.query.get("seconds", random.uniform(1, 10)))))
        await asyncio.sleep(seconds)
        return web.json_response({"result": "done", "seconds": round(seconds, 3)})
    return await _batch(int(request.query.get("size", "10")), budget_seconds)


async def _batch(size: int, budget_seconds: float | None) -> web.Response:
    """As many steps as there is time for: part of the result, in time, is worth more than a 504."""
    loop = asyncio.get_running_loop()
    until = None if budget_seconds is None else loop.time() + budget_seconds - MARGIN_SECONDS
    results: list[int] = []
    while len(results) < size and (until is None or loop.time() + STEP_SECONDS <= until):
        await asyncio.sleep(STEP_SECONDS)
        results.append(len(results) + 1)
    done = len(results)
    return web.json_response({"results": results, "done": done, "of": size, "is_complete": done >= size})


def _budget_seconds(request: web.Request, this: Served) -> float | None:
    """What the sidecar says is left, or `?timeout=` if that is less. Raises: ValueError."""
    given = [] if this.budget_ms is None else [this.budget_ms / 1000]
    if "timeout" in request.query:
        given.append(parse_duration(request.query["timeout"]))
    return min(given, default=None)


def reason_in(content_type: str, text: str) -> str:
    """The reason in a problem document of the sidecar's; empty for anything else."""
    if content_type != "application/problem+json":
        return ""
    return str(json.loads(text).get("type", "")).rpartition(":")[2]


def user_id(headers: Mapping[str, str]) -> str:
    """Who asks: the client says it in a field of its own, a service in the baggage."""
    for member in headers.get("baggage", "").split(","):
        name, _, value = member.partition("=")
        if name.strip() == USER_ID:
            return value.strip()
    return headers.get("x-user-id", "-")


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _reserved(port: int) -> socket.socket:
    """A socket that has the port and refuses connections until somebody listens on it."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    one.setblocking(False)
    return one
