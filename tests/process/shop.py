"""A shop for the dashboard's tests: an app whose paths do as they are told, and a sidecar with a dozen routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession, web

from tests.scenarios.operator import Operator
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar

NAMES = (
    "checkout-to-payments",
    "checkout-to-inventory",
    "cart-to-pricing",
    "search",
    "catalog",
    "recommendations",
    "accounts",
    "sessions",
    "shipping-quotes",
    "invoices",
    "webhooks",
    "legacy-soap",
)

BREAKER = "consecutive_failures: 5, open_for: 60s, max_open_for: 60s, candidate: {consecutive_failures: 3}"


@dataclass
class Shop:
    """The app's moods by route (200 without one, or a status), its latency and words, and the sidecar before it."""

    folder: Path
    inbound: int
    probes: int
    hand: Operator
    session: ClientSession
    moods: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    says: str = "said"
    outbound: int = 0
    """Where the app would call others, if the file has such a listener."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.hand.port}/"

    @property
    def file(self) -> Path:
        return self.folder / "sidecar.yaml"

    async def handle(self, request: web.Request) -> web.Response:
        route = request.path.split("/")[1]
        await asyncio.sleep(self.seconds.get(route, 0))
        return web.Response(status=self.moods.get(route, 200), text=self.says, content_type="text/html")

    async def ask(self, route: str, times: int = 1, **headers: str) -> list[int]:
        """Real requests through the sidecar, one after the other; their statuses."""
        statuses = []
        for _ in range(times):
            async with self.session.get(
                f"http://127.0.0.1:{self.inbound}/{route}", headers=headers
            ) as answer:
                statuses.append(answer.status)
        return statuses

    def sidecar(self) -> AbstractAsyncContextManager[Running]:
        """The process, for as long as the block."""
        return sidecar(self.file, self.probes, self.folder / "log")


@asynccontextmanager
async def shop(
    folder: Path, *, names: tuple[str, ...] = NAMES, service: str = "shop", breaker: str = BREAKER
) -> AsyncIterator[Shop]:
    """The app runs and the file is written; the sidecar is for the caller to start."""
    inbound, admin, probes, app = free_ports(4)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(ClientSession())
        one = Shop(folder, inbound, probes, Operator(admin), session)
        served = web.Application()
        served.router.add_get("/{tail:.*}", one.handle)
        runner = web.AppRunner(served)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", app).start()
        routes = "".join(_route(name, breaker) for name in names)
        one.file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
admin: {{address: "127.0.0.1:{admin}", trace_url: "http://jaeger.test:16686/trace/{{trace_id}}"}}
probes: {{address: "127.0.0.1:{probes}"}}
telemetry: {{service_name: {json.dumps(service)}, access_log: {{format: "off"}}}}
drain_timeout: 1s
drain: {{delay: 0s}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"], limits: {{adaptive: observe}}}}
routes:
{routes}""")
        yield one


def _route(name: str, breaker: str) -> str:
    match = f"match: {{path: {{prefix: /{name}}}}}"
    return f"- {{name: {name}, {match}, upstream: app, circuit_breaker: {{{breaker}}}}}\n"
