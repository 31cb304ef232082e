"""What the story is played on: a client, three services in a row, and a sidecar beside each.

client → sidecar → frontend → sidecar → sidecar → orders → sidecar → sidecar → payments

Where grpcio is installed, a fourth one that speaks gRPC is at the end: payments → sidecar → sidecar → ledger
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector

from sidecar.demo.ledger import IS_POSSIBLE, Ledger, LedgerClient
from sidecar.demo.processes import App, Change, Ports, Sidecar, free_ports
from sidecar.demo.secured import Secured
from sidecar.demo.services import Asked, Served, Service

NAMES = ("frontend", "orders", "payments")
USERS = 3
ROUTE = "orders-to-payments"
"""Whose breaker the story is about."""
MEANINGS = {
    ("closed", "open"): "from now on it refuses at once",
    ("open", "half_open"): "one call may try, the probe; all others are refused",
    ("half_open", "closed"): "the probe went well, all may pass again",
    ("half_open", "open"): "the probe failed, so it waits twice as long",
}
"""What a change of state means for callers."""


@dataclass(frozen=True)
class Claim:
    """A sentence whose numbers were measured, and whether what it promises is so."""

    text: str
    holds: bool


@dataclass
class Journal:
    """What has happened so far. Listeners are told each line, for those who print; the live view just reads."""

    scene: str = ""
    promise: str = ""
    """What is to be seen in this scene."""
    before: int = 0
    """Claims of the scenes before."""
    claims: list[Claim] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    calls: list[Served] = field(default_factory=list)
    """In the order in which they ended."""
    note_text: str = ""
    """The last note, or what the breaker that the story is about has done since."""
    on_line: Callable[[str, str], None] = lambda kind, text: None
    """Gets `scene`, `note`, `log`, `claim` or `change`, and the text."""

    def open(self, title: str, promise: str) -> None:
        self.scene, self.promise, self.before, self.note_text = title, promise, len(self.claims), ""
        self.on_line("scene", f"{title}\n   {promise}")

    def note(self, text: str) -> None:
        self.note_text = text
        self.on_line("note", text)

    def log(self, call: Served) -> None:
        self.calls.append(call)
        self.on_line("log", str(call))

    def claim(self, text: str, holds: bool) -> None:
        self.claims.append(Claim(text, holds))
        self.on_line("claim", f"{'ok  ' if holds else 'FAIL'} {text}")

    def change(self, change: Change) -> None:
        self.changes.append(change)
        told = f"{change.from_state} → {change.to_state} ({change.reason})"
        meaning = MEANINGS.get((change.from_state, change.to_state))
        told += f": {meaning}" if meaning else ""
        if change.route == ROUTE:
            self.note_text = f"breaker {told}"
        self.on_line("change", f"{change.route}: {told}")

    def forget(self) -> None:
        """Begin anew: what runs for days must not grow."""
        for record in (self.claims, self.changes, self.calls):
            record.clear()


@dataclass(frozen=True)
class Answer:
    status: int
    """0 for a client that left."""
    seconds: float
    data: dict[str, Any]


class Stage:
    """Everything that runs, and what a client can do with it."""

    def __init__(
        self,
        services: list[Service],
        sidecars: list[Sidecar],
        journal: Journal,
        ledger: Ledger | None = None,
        secured: Secured | None = None,
    ) -> None:
        self.frontend, self.orders, self.payments = services
        self.services = services
        self.ledger = ledger
        """None without grpcio."""
        self.secured = secured
        """None: sidecars speak to each other in clear text."""
        self._context = None if secured is None else secured.context()
        self.ledger_client: LedgerClient | None = None
        """What payments asks it with."""
        self.sidecars = sidecars
        self.journal = journal
        self.given_ms: int | None = None
        """What the client gave its last call."""
        self._numbers = itertools.count(1)
        self.session = ClientSession(
            connector=TCPConnector(limit=0, force_close=True), timeout=ClientTimeout(total=20)
        )

    @property
    def row(self) -> list[Service | Ledger]:
        """All services, with the ledger."""
        return [*self.services, *([self.ledger] if self.ledger is not None else [])]

    @property
    def running(self) -> tuple[int, ...]:
        """How many calls each service is at now."""
        return tuple(service.running for service in self.row)

    async def running_after(self, seconds: float) -> tuple[int, ...]:
        """The same, so many seconds from now."""
        await asyncio.sleep(seconds)
        return self.running

    def by_name(self, numbers: Sequence[int]) -> str:
        """A number for each service, in the order in which a call passes them."""
        return " → ".join(f"{one.name} {number}" for one, number in zip(self.row, numbers, strict=False))

    def forget(self) -> None:
        """Drop what was recorded, between two plays: what runs for days must not grow."""
        for service in self.services:
            service.served.clear()
            service.asked.clear()
        if self.ledger is not None:
            self.ledger.served.clear()
        if self.ledger_client is not None:
            self.ledger_client.asked.clear()
        self.journal.forget()

    async def get(
        self,
        path: str,
        *,
        at: int = 0,
        timeout_ms: int | None = None,
        leave_after: float | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        """One call through the sidecar of the service `at`; a client that leaves closes its connection. `context`: of
        another client than the usual one, where the sidecars speak TLS."""
        number = next(self._numbers)
        headers = {"x-request-id": f"demo-{number:04}", "x-user-id": f"user-{number % USERS + 1}"}
        self.given_ms = timeout_ms
        if timeout_ms is not None:
            headers["x-request-timeout-ms"] = str(timeout_ms)
        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(leave_after),
                self.session.get(self._url(at, path), headers=headers, **self._by_tls(at, context)) as answer,
            ):
                data = await answer.json(content_type=None)
                return Answer(answer.status, time.monotonic() - started, data)
        except TimeoutError:
            return Answer(0, time.monotonic() - started, {})

    def _url(self, at: int, path: str) -> str:
        scheme = "http" if self.secured is None else "https"
        return f"{scheme}://127.0.0.1:{self.sidecars[at].ports.inbound}{path}"

    def _by_tls(self, at: int, context: ssl.SSLContext | None) -> dict[str, Any]:
        if self._context is None:
            return {}
        return {"ssl": context or self._context, "server_hostname": self.sidecars[at].name}

    async def orders_asks(self, count: int, path: str = "/fast") -> list[Asked]:
        """So many calls to orders at once; how its calls to payments went."""
        before = len(self.orders.asked)
        await asyncio.gather(*(self.get(path, at=1) for _ in range(count)))
        return self.orders.asked[before:]

    async def breaker(self) -> dict[str, Any]:
        """The breaker that the story is about."""
        return await self.sidecars[1].breaker(self.session, ROUTE)

    async def change(self, after: int, to_state: str, seconds: float = 1.0) -> Change | None:
        """The first change into `to_state` since `after` of them had happened; None if there is none in time."""
        until = time.monotonic() + seconds
        while True:
            for change in self.journal.changes[after:]:
                if change.to_state == to_state and change.route == ROUTE:
                    return change
            if time.monotonic() > until:
                return None
            await asyncio.sleep(0.01)

    async def may_probe(self, seconds: float = 6.0) -> None:
        """Wait until an open breaker would let a probe through."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (await self.breaker())["next_probe_seconds"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running_stage(
    journal: Journal, *, breaker_mode: str = "enforce", otlp: str | None = None, has_tls: bool = False
) -> AsyncIterator[Stage]:
    """Start it all, and end it all whatever happens. `has_tls`: between the sidecars. Raises: DemoFailed."""
    with TemporaryDirectory(prefix="sidecar-demo-") as folder:
        services = [Service(name, journal.log) for name in NAMES]
        ledger = Ledger(journal.log) if IS_POSSIBLE else None
        secured = None
        if has_tls:
            names = [*NAMES, *([ledger.name] if ledger is not None else [])]
            secured = await asyncio.to_thread(Secured.make, Path(folder, "tls"), names)
        sidecars = _sidecars(Path(folder), services, ledger, breaker_mode, otlp, secured)
        stage = Stage(services, sidecars, journal, ledger, secured)
        followers: list[asyncio.Task[None]] = []
        try:
            for one in stage.row:
                await one.start()
            if ledger is not None:
                stage.payments.ledger = stage.ledger_client = LedgerClient(sidecars[2].ports.outbound)
            for sidecar in sidecars:
                sidecar.start()
            for sidecar in sidecars:
                await sidecar.is_ready(stage.session)
            followers += [asyncio.create_task(one.follow(stage.session, journal.change)) for one in sidecars]
            await asyncio.sleep(0.1)
            yield stage
        finally:
            await _end(stage, followers)


async def _end(stage: Stage, followers: list[asyncio.Task[None]]) -> None:
    for task in followers:
        task.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    await stage.session.close()
    await asyncio.gather(*(one.end() for one in stage.sidecars))
    if stage.ledger_client is not None:
        await stage.ledger_client.close()
    await asyncio.gather(*(one.stop() for one in stage.row))
    for service in stage.services:
        service.close()


def _sidecars(
    folder: Path,
    services: list[Service],
    ledger: Ledger | None,
    breaker_mode: str,
    otlp: str | None,
    secured: Secured | None,
) -> list[Sidecar]:
    apps = {service.name: App(service.port) for service in services}
    if ledger is not None:
        apps[ledger.name] = App(ledger.port, "http2", offset="20ms")
    ports = iter(free_ports(4 * len(apps)))
    sidecars = [
        Sidecar(name, Ports(next(ports), next(ports), next(ports), next(ports)), folder) for name in apps
    ]
    for sidecar, below in itertools.zip_longest(sidecars, sidecars[1:]):
        neighbour = ("nobody", App(sidecar.ports.inbound))
        if below is not None:
            neighbour = (below.name, App(below.ports.inbound, apps[below.name].protocol))
        tls = ("", "")
        if secured is not None:
            to_next = secured.upstream(sidecar.name, below.name) if below is not None else ""
            tls = (secured.listener(sidecar.name), to_next)
        sidecar.write(apps[sidecar.name], neighbour, breaker_mode, otlp, tls)
    for service, sidecar, following in itertools.zip_longest(
        services, sidecars[: len(services)], services[1:]
    ):
        service.proxy = f"http://127.0.0.1:{sidecar.ports.outbound}"
        service.neighbour = following.name if following is not None else None
    return sidecars
