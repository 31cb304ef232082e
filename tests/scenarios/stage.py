"""One app, one sidecar in front of it, and strict readers on both sides: what most scenarios stand on.

When the block ends well, nothing may be left behind: no exchange, no connection, no complaint in a log, and no
request that the app could have read in two ways.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.admin import prometheus
from sidecar.core.breaker import Breaker
from sidecar.core.numbers import RouteNumbers
from sidecar.runtime.worker import Worker
from sidecar.upstream.cluster import Cluster
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, RawUpstream, Request, Response, Script, raw_client, raw_upstream

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(target: bytes = b"/", *lines: bytes) -> bytes:
    """A GET with these field lines."""
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (target, b"".join(line + b"\r\n" for line in lines))


def post(body: bytes, target: bytes = b"/", *lines: bytes) -> bytes:
    """A POST with a body of known length."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % (target, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def saying(*answers: bytes) -> Script:
    """A script that gives each request on a connection the next of `answers`, then the last one for ever."""

    async def script(peer: RawPeer) -> None:
        number = 0
        while await peer.request() is not None:
            await peer.send(answers[min(number, len(answers) - 1)])
            number += 1

    return script


async def hang(peer: RawPeer) -> None:
    """Take a request and never answer; ends when the sidecar closes the connection."""
    while await peer.read_some():
        pass


def app_routes(to: int, *, route: str = "", upstream: str = "") -> str:
    """Everything goes to the app on port `to`; `route` and `upstream` are further keys, in flow style."""
    extra = f", {upstream}" if upstream else ""
    return f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{to}"]{extra}}}}}
routes: [{{name: app, upstream: app{f", {route}" if route else ""}}}]
"""


def scraped(worker: Worker, start: str) -> float:
    """The sum of all samples of a scrape whose lines start with `start`."""
    text = "".join(prometheus.render(worker.numbers, worker.sources(), openmetrics=False, wall_offset=0.0))
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))


def numbers_of(worker: Worker, route: str) -> RouteNumbers:
    """Brought up to now."""
    (found,) = [one for one in worker.numbers.routes() if one.name == route]
    found.fold()
    return found


def tried_again(worker: Worker) -> dict[str, int]:
    """How many attempts were begun after another one, by why; what never happened is left out."""
    found: Counter[str] = Counter()
    for route in worker.numbers.routes():
        route.fold()
        for (_, cause), count in route.retries.items():
            found[cause.value] += count
    return dict(+found)


@dataclass
class Stage:
    """A sidecar that runs, and the app behind it."""

    worker: Worker
    app: RawUpstream
    port: int

    @property
    def breaker(self) -> Breaker:
        return self.worker.assembly.breakers["app", "app"]

    @property
    def cluster(self) -> Cluster:
        return self.worker.assembly.clusters["app"]

    @property
    def requests(self) -> list[Request]:
        """What the app was asked, in order."""
        return self.app.requests

    @property
    def numbers(self) -> RouteNumbers:
        return numbers_of(self.worker, "app")

    def metric(self, start: str) -> float:
        """What a scrape shows now: the sum of the samples whose lines start with `start`."""
        return scraped(self.worker, start)

    async def ask(self, data: bytes = GET, method: bytes = b"GET") -> Response:
        """The answer to one request on a connection of its own."""
        (response,) = await self.ask_all(data, [method])
        return response

    async def ask_all(self, data: bytes, methods: Sequence[bytes]) -> list[Response]:
        """The answers to pipelined requests on a connection of their own."""
        async with raw_client(self.port) as client:
            await client.send(data)
            return await client.responses(list(methods))


@asynccontextmanager
async def stage(
    script: Script = RawPeer.echo,
    *,
    route: str = "",
    upstream: str = "",
    header: str = HEADER,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Stage]:
    """Run the app's `script` for each connection behind a sidecar whose one route takes everything; by TLS with a
    context of the app's."""
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with (
            raw_upstream(script, tls) as app,
            running(app_routes(app.port, route=route, upstream=upstream), header) as worker,
        ):
            yield Stage(worker, app, port(worker))
            await assert_clean(worker)
        assert app.problems == []
    assert complaints.found == []


def inbound(options: str) -> str:
    """The usual header with further keys on the inbound listener."""
    return HEADER.replace(
        'inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:0", {options}}}'
    )
