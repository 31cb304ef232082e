"""Calls of an app that leave through other workers than its requests came by: are they bounded, and do they end?

    python -m tests.bench.crossing [--workers 4] [--calls 1000]

Each of so many requests makes the app call a service that never answers, over a connection of its own, so that the
kernel deals both out to any of the workers. First all clients leave, a few at a time, and told is how long after a
client's end the service saw the end of the call below. Then the requests bring 4 to 7 s, and told is how much of that
the calls were given, and how long after it they ended; what has no time left before it reaches the service is told
apart. Exit code 1 where a call was not bounded, or was there 100 ms too long.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.core.tracecontext import IdSource
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.upstream import Peer, field_of, scripted

BUDGET_SECONDS, SPREAD_SECONDS = 4.0, 3.0
"""What the requests of the second round bring: the first has the least, the last that much more."""
MOST_LATE_SECONDS = 0.1
CLOSES_A_STEP = 4
STEP_SECONDS = 0.004
PATIENCE_SECONDS = 60.0
_IDS = IdSource()

CONFIG = """\
version: 1
workers: {workers}
listeners:
  inbound: {{address: "127.0.0.1:{inbound}"}}
  outbound: {{address: "127.0.0.1:{outbound}"}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
limits: {{max_requests: 16384}}
defaults: {{circuit_breaker: {{mode: disabled}}, timeouts: {{request: 60s}}}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"], limits: {{max_connections: 8192, max_requests: 8192}}}}
  service: {{endpoints: ["127.0.0.1:{service}"], limits: {{max_connections: 8192, max_requests: 8192}}}}
routes:
- {{name: in, upstream: app}}
- {{name: out, listener: outbound, upstream: service}}
"""


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Call:
    """One request with the call below it. Times are seconds on the monotonic clock."""

    left: float = 0.0
    """When the client left, or the call's time was up."""
    given_ms: int = 0
    """What the service was told to have."""
    ended: float = 0.0
    """When the service saw the call's end."""


@dataclass
class Round:
    """All calls of one round, by number."""

    calls: dict[int, Call] = field(default_factory=dict)
    arrived: int = 0
    ended: int = 0
    answered: int = 0
    answers: Counter[bytes] = field(default_factory=Counter)
    """What the app's calls were answered, by status."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, what: str, count: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while getattr(self, what) < count:
                    self.moved.clear()
                    await self.moved.wait()
        except TimeoutError:
            found = getattr(self, what)
            raise AssertionError(f"{found} of {count} have {what}; answered: {dict(self.answers)}") from None

    def late_seconds(self) -> list[float]:
        """Of each call: from its request's end to its own."""
        return sorted(call.ended - call.left for call in self.calls.values() if call.ended)


@dataclass
class Stage:
    """A sidecar with several workers between clients, an app and a service."""

    running: Running
    inbound: int
    rounds: list[Round]

    async def hanging(self, count: int) -> tuple[Round, list[Client]]:
        """`count` requests whose calls have reached the service, and their clients."""
        this = self._next()
        clients = await asyncio.gather(*(self._ask(number, "") for number in range(count)))
        await this.until("arrived", count)
        return this, clients

    async def cancelled(self, count: int) -> Round:
        """`count` requests whose clients leave once all calls hang."""
        this, clients = await self.hanging(count)
        for number, (_, writer) in enumerate(clients):
            this.calls[number].left = time.monotonic()
            writer.close()
            if number % CLOSES_A_STEP == CLOSES_A_STEP - 1:
                await asyncio.sleep(STEP_SECONDS)
        await this.until("ended", count)
        return this

    async def expired(self, budgets: Sequence[float]) -> Round:
        """A request for each budget, in seconds; the clients stay until all calls have ended."""
        this = self._next()
        clients = await asyncio.gather(
            *(
                self._ask(number, f"x-request-timeout-ms: {seconds * 1000:.0f}\r\n")
                for number, seconds in enumerate(budgets)
            )
        )
        await this.until("answered", len(budgets))
        await this.until("ended", this.arrived)
        for _, writer in clients:
            writer.close()
        return this

    def _next(self) -> Round:
        self.rounds.append(Round())
        return self.rounds[-1]

    async def _ask(self, number: int, lines: str) -> Client:
        this = self.rounds[-1]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.inbound)
        this.calls[number] = Call()
        writer.write(f"GET /{number} HTTP/1.1\r\nHost: app\r\n{lines}\r\n".encode())
        return reader, writer

    async def told(self) -> float:
        """Requests cut short that workers told each other of."""
        _, text = await self.running.get("/metrics")
        start = 'sidecar_callers_across_total{sidecar_callers_event="told"'
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))


@asynccontextmanager
async def stage(folder: Path, workers: int) -> AsyncIterator[Stage]:
    """Run it."""
    inbound, outbound, probes, admin = free_ports(4)
    rounds: list[Round] = []

    async def app(peer: Peer) -> None:
        head = await peer.head()
        _, trace_id, _, flags = (field_of(head, b"traceparent") or b"").split(b"-")
        target = head.split(b" ", 2)[1]
        this = rounds[-1]
        reader, writer = await asyncio.open_connection("127.0.0.1", outbound)
        with contextlib.closing(writer):
            lines = (
                b"GET %b HTTP/1.1" % target,
                b"Host: service",
                b"traceparent: 00-%b-%b-%b" % (trace_id, _IDS.span_id(), flags),
                b"tracestate: %b" % (field_of(head, b"tracestate") or b""),
            )
            writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
            this.answers[(await reader.readline())[9:12]] += 1
            this.answered += 1
            this.moved.set()
        await peer.closed()

    async def service(peer: Peer) -> None:
        this = rounds[-1]
        head = await peer.head()
        call = this.calls[int(head.split(b" ", 2)[1][1:])]
        call.given_ms = int(field_of(head, b"x-envoy-expected-rq-timeout-ms") or 0)
        call.left = time.monotonic() + call.given_ms / 1000
        this.arrived += 1
        this.moved.set()
        await peer.closed()
        call.ended = time.monotonic()
        this.ended += 1
        this.moved.set()

    async with scripted(app) as app_server, scripted(service) as service_server:
        file = folder / "sidecar.yaml"
        file.write_text(
            CONFIG.format(
                workers=workers, inbound=inbound, outbound=outbound, probes=probes, admin=admin,
                app=app_server.port, service=service_server.port,
            )
        )  # fmt: skip
        async with sidecar(file, probes, folder / "log") as running:
            yield Stage(running, inbound, rounds)


def told_of(what: str, late: list[float]) -> str:
    p99 = late[int(len(late) * 0.99)]
    return (
        f"{what}: {len(late)} calls, ended after {statistics.median(late) * 1000:.1f} ms (median), "
        f"{p99 * 1000:.1f} (p99), {late[-1] * 1000:.1f} (the last)"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        async with stage(Path(name), options.workers) as on:
            cancelled = (await on.cancelled(options.calls)).late_seconds()
            print(told_of("cancelled", cancelled))
            step = SPREAD_SECONDS / options.calls
            budgets = [BUDGET_SECONDS + step * number for number in range(options.calls)]
            expired = await on.expired(budgets)
            spent = [
                budgets[number] * 1000 - call.given_ms for number, call in expired.calls.items() if call.ended
            ]
            print(told_of("out of time", expired.late_seconds()))
            print(f"given: {min(spent):.0f} to {max(spent):.0f} ms less than their requests had")
            print(f"without any time left before they were sent: {options.calls - expired.arrived}")
            print(f"told between workers: {await on.told():.0f}")
    if min(spent) <= 0 or max(*cancelled, *expired.late_seconds()) > MOST_LATE_SECONDS:
        sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
