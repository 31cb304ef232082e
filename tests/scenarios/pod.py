"""One pod: a sidecar on both sides of a scripted app, and the service that the app calls through it.

    client → inbound listener → app → outbound listener → service

The app is a coroutine for each request that it is sent; it calls out with `Pod.call`, which forwards of the
request's trace context what the chosen kind of app would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from sidecar.core.tracecontext import IdSource
from sidecar.forwarding.exchange import Exchange
from sidecar.runtime.crossing import Crossing
from sidecar.runtime.worker import Worker
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import (
    RawClient,
    RawPeer,
    RawUpstream,
    Request,
    Response,
    Script,
    raw_client,
    raw_upstream,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

App = Callable[["Pod", Request], Awaitable[bytes]]
Forward = Callable[[Request], list[bytes]]
"""Which trace fields an app sends on, given the request that it serves."""

_IDS = IdSource()


def instrumented(request: Request) -> list[bytes]:
    """As OpenTelemetry does: the trace goes on under a span of the app's own."""
    return [with_new_span(request), b"tracestate: " + (request.value(b"tracestate") or b"")]


def instrumented_without_tracestate(request: Request) -> list[bytes]:
    """As some hand-written propagation does."""
    return [with_new_span(request)]


def copying(request: Request) -> list[bytes]:
    """An app without instrumentation that copies `traceparent` from request to request."""
    return [b"traceparent: " + (request.value(b"traceparent") or b"")]


def restarting(request: Request) -> list[bytes]:
    """An app that begins a trace of its own for each call."""
    return [b"traceparent: 00-%b-%b-01" % (_IDS.trace_id(), _IDS.span_id())]


def silent(request: Request) -> list[bytes]:
    """An app that knows nothing of traces."""
    return []


def with_new_span(request: Request) -> bytes:
    version, trace_id, _, flags = (request.value(b"traceparent") or b"").split(b"-")
    return b"traceparent: " + b"-".join((version, trace_id, _IDS.span_id(), flags))


def head(method: bytes, target: bytes, lines: list[bytes]) -> bytes:
    """A request without a body, or with an empty one where the method has a body."""
    length = b"Content-Length: 0\r\n" if method in (b"POST", b"PUT") else b""
    block = b"".join(line + b"\r\n" for line in lines)
    return b"%b %b HTTP/1.1\r\nHost: service\r\n%b%b\r\n" % (method, target, length, block)


@dataclass
class Answer:
    """What an app heard of a call, and when."""

    response: Response
    at: float
    """Seconds on the loop's clock."""

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def why(self) -> bytes | None:
        return self.response.value(b"proxy-status")


@dataclass
class Pod:
    """All that runs, and what was seen."""

    worker: Worker
    service: RawUpstream
    inbound: int
    outbound: int
    started: float
    other: Worker
    """The worker that the app's calls leave through: `worker` where it is the only one."""
    served: list[Request] = field(default_factory=list)
    """What the app was sent, in order."""
    answers: list[Answer] = field(default_factory=list)
    """What the app's calls came to, in the order of their ends."""
    finished: int = 0
    """Requests that the app has done with."""

    @property
    def seconds(self) -> float:
        """Since the start, rounded to a millisecond: virtual time is that exact."""
        return self.at(asyncio.get_running_loop().time())

    def at(self, time: float) -> float:
        return round(time - self.started, 3)

    @property
    def calls(self) -> list[Request]:
        """What reached the service, in order."""
        return self.service.requests

    @property
    def budgets(self) -> list[int]:
        """Milliseconds that each of the calls was given, as the service was told; rounded down on the way."""
        return [int(call.value(b"x-envoy-expected-rq-timeout-ms") or -1) for call in self.calls]

    @property
    def live_calls(self) -> list[Exchange]:
        return [one for one in self.other.service.exchanges if one.request.listener != "inbound"]

    async def call(
        self,
        request: Request,
        *lines: bytes,
        method: bytes = b"GET",
        target: bytes = b"/call",
        forward: Forward = instrumented,
    ) -> Answer:
        """A call of the app in the course of `request`, to its answer."""
        async with raw_client(self.outbound) as client:
            await client.send(head(method, target, [*forward(request), *lines]))
            (response,) = await client.responses([method])
            answer = Answer(response, self.seconds)
            self.answers.append(answer)
            return answer

    @asynccontextmanager
    async def asking(
        self, *lines: bytes, method: bytes = b"GET", target: bytes = b"/"
    ) -> AsyncIterator[RawClient]:
        """A client that has sent its request; it goes away at the end of the block."""
        async with raw_client(self.inbound) as client:
            await client.send(head(method, target, list(lines)))
            yield client

    async def ask(self, *lines: bytes, method: bytes = b"GET", target: bytes = b"/") -> Response:
        """A client's request to its answer."""
        async with self.asking(*lines, method=method, target=target) as client:
            (response,) = await client.responses([method])
            return response

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something to become true: first for what is under way already, then in growing steps."""
        await turns_until(is_so)
        step = 0.001
        async with asyncio.timeout(100):
            while not is_so():
                await asyncio.sleep(step)
                await turns_until(is_so)
                step = min(step * 1.5, 0.1)


async def turns_until(is_so: Callable[[], bool]) -> None:
    """Let the event loop go round until something is true, or nothing can be under way any more."""
    for _ in range(50):
        if is_so():
            return
        await asyncio.sleep(0)


def routes(apps: list[int], service: int, outbound: str, inbound: str, listener: str = "outbound") -> str:
    """One route each way; `outbound` and `inbound` are further keys of them, in flow style."""
    endpoints = ", ".join(f'"127.0.0.1:{app}"' for app in apps)
    return f"""\
upstreams:
  app: {{endpoints: [{endpoints}]}}
  service: {{endpoints: ["127.0.0.1:{service}"]}}
routes:
- {{name: in, upstream: app{f", {inbound}" if inbound else ""}}}
- {{name: out, listener: {listener}, upstream: service{f", {outbound}" if outbound else ""}}}
"""


async def hanging(peer: RawPeer) -> None:
    """A service that takes a request and never answers; ends when its caller closes the connection."""
    await peer.request()
    while await peer.read_some():
        pass


def answering_after(seconds: float) -> Script:
    """A service that needs this long for each request."""

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(seconds)
            await peer.send(OK)

    return script


@asynccontextmanager
async def pod(
    app: App,
    service: Script = hanging,
    *,
    outbound: str = "",
    inbound: str = "",
    listener: str = "outbound",
    trust: str = "all",
    crossing: Crossing | None = None,
    apps: int = 1,
    app_at: int | None = None,
) -> AsyncIterator[Pod]:
    """Run it; in the end nothing may be left, and nobody may have complained. `listener` is what the listener of the
    app's own calls is called, `trust` says whether the inbound one believes its callers. With a `crossing` of two the
    pod has two workers: requests come through the first, and the app's calls leave through the second. `apps`: at so
    many endpoints the app is served, all of them alike; `app_at`: at this port alone, by the test itself.
    """
    loop = asyncio.get_running_loop()
    header = HEADER.replace("  outbound: {", f"  {listener}: {{direction: outbound, ")
    header = header.replace("  inbound: {", f"  inbound: {{trust: {trust}, ")
    stage: list[Pod] = []

    async def serve(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            stage[0].served.append(request)
            answer = await app(stage[0], request)
            stage[0].finished += 1
            await peer.send(answer)

    with Complaints(loop) as complaints:
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(raw_upstream(serve)) for _ in range(apps)]
            service_server = await stack.enter_async_context(raw_upstream(service))
            ports_of_app = [one.port for one in servers] if app_at is None else [app_at]
            text = routes(ports_of_app, service_server.port, outbound, inbound, listener)
            shares = [None] if crossing is None else [crossing.join(0), crossing.join(1)]
            workers = [
                await stack.enter_async_context(running(text, header, joined=share)) for share in shares
            ]
            first, last = workers[0], workers[-1]
            ports = port(first), port(last, listener)
            stage.append(Pod(first, service_server, *ports, loop.time(), last))
            yield stage[0]
            await stage[0].until(lambda: stage[0].finished == len(stage[0].served))
            for worker in workers:
                await assert_clean(worker)
        assert [one.problems for one in servers] == [[]] * apps
        assert service_server.problems == []
    assert complaints.found == []
