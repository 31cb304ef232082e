"""What a breaker buys: an upstream of which 60 % fail for a while, behind the real proxy, with breaker and without.

Run: python -m tests.bench.outage

The clock is virtual (`tests/support/loop.py`), the sockets and the proxy are real, chance is seeded: the same table
each time, but for the last digits. The upstream has WORKERS and one queue. Well, a request takes it 20 ms; in the
outage 60 % end in 500, at once (20 ms) in the one case, and after 400 ms (a dependency that times out) in the other,
which is more than it can carry. What its clients have given up it still works off, as servers do that nobody tells;
so a queue outlives the outage.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.support import loop as virtual
from tests.support.proxy import port, running

RATE = 100.0
"""Requests a second, at random instants."""
BEFORE, OUTAGE, AFTER = 5.0, 30.0, 40.0
"""Seconds."""
WORKERS = 8
FAILING = 0.6
GOOD_SECONDS = 0.02
CASES = {"fails at once": 0.02, "fails after 400 ms": 0.4}
"""How the upstream fails, with the seconds that a failure takes."""
TIMEOUT = "1s"
RECOVERED = 0.99
"""Of the requests of one second, answered well: the upstream is back."""

POLICIES = {
    "disabled": "{mode: disabled}",
    "enforce (the defaults)": "{mode: enforce}",
    "enforce, open_for 1s, max_open_for 2s": "{mode: enforce, open_for: 1s, max_open_for: 2s}",
}


@dataclass
class Upstream:
    """Workers, their queue, and what they had to do."""

    rng: random.Random
    bad_seconds: float
    is_ill: bool = False
    taken: int = 0
    """Requests during the outage."""
    longest: int = 0
    """Of the queue."""
    jobs: asyncio.Queue[asyncio.StreamWriter] = field(default_factory=asyncio.Queue)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Queue each request of a connection."""
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.taken += self.is_ill
                self.jobs.put_nowait(writer)
                self.longest = max(self.longest, self.jobs.qsize())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def work(self) -> None:
        """One worker."""
        while True:
            writer = await self.jobs.get()
            is_bad = self.is_ill and self.rng.random() < FAILING
            await asyncio.sleep(self.bad_seconds if is_bad else GOOD_SECONDS)
            if not writer.is_closing():
                status = b"500 Internal Server Error" if is_bad else b"200 OK"
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)


@dataclass
class Call:
    """One request of a client."""

    at: float
    status: int
    seconds: float


@dataclass
class Result:
    """What one policy came to."""

    calls: list[Call]
    taken: int
    longest: int
    recovery_seconds: float

    @property
    def during(self) -> list[Call]:
        return [call for call in self.calls if BEFORE <= call.at < BEFORE + OUTAGE]

    def row(self) -> list[str]:
        """The figures, as the table shows them."""
        failed = [call for call in self.during if call.status != 200]
        refused = [call for call in failed if call.status == 503]
        waits = sorted(call.seconds for call in failed)
        after = [call for call in self.calls if call.at >= BEFORE + OUTAGE and call.status != 200]
        return [
            str(len(self.during)),
            str(len(self.during) - len(failed)),
            f"{len(failed)} ({len(refused)})",
            f"{sum(waits) / len(waits) * 1000:.0f} ms" if waits else "-",
            f"{self.taken / OUTAGE:.1f}/s",
            str(self.longest),
            f"{self.recovery_seconds:.0f} s",
            str(len(after)),
        ]


async def measure(policy: str, bad_seconds: float) -> Result:
    """One run of the outage."""
    loop = asyncio.get_running_loop()
    upstream = Upstream(random.Random(7), bad_seconds)
    server = await asyncio.start_server(upstream.accept, "127.0.0.1", 0)
    workers = [asyncio.create_task(upstream.work()) for _ in range(WORKERS)]
    to = server.sockets[0].getsockname()[1]
    routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{to}"]}}}}
routes: [{{name: app, upstream: app, timeouts: {{request: {TIMEOUT}}}, circuit_breaker: {policy}}}]
"""
    async with running(routes) as worker:
        began = loop.time()
        loop.call_at(began + BEFORE, setattr, upstream, "is_ill", True)
        loop.call_at(began + BEFORE + OUTAGE, setattr, upstream, "is_ill", False)
        calls = await offer(lambda: ask(port(worker)), began)
    for task in workers:
        task.cancel()
    server.close()
    return Result(calls, upstream.taken, upstream.longest, recovery(calls))


async def offer(ask_once: Callable[[], Awaitable[int]], began: float) -> list[Call]:
    """Requests at random instants, whatever becomes of the earlier ones."""
    loop = asyncio.get_running_loop()
    rng = random.Random(11)
    calls: list[Call] = []

    async def one(at: float) -> None:
        status = await ask_once()
        calls.append(Call(at, status, loop.time() - began - at))

    tasks = []
    at = 0.0
    while (at := at + rng.expovariate(RATE)) < BEFORE + OUTAGE + AFTER:
        await asyncio.sleep(max(0.0, began + at - loop.time()))
        tasks.append(asyncio.create_task(one(loop.time() - began)))
    await asyncio.gather(*tasks)
    return sorted(calls, key=lambda call: call.at)


async def ask(to: int) -> int:
    """One request; its status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


def recovery(calls: list[Call]) -> float:
    """Seconds from the end of the outage to the first after which every second was well."""
    ended = BEFORE + OUTAGE
    for second in reversed(range(int(AFTER))):
        within = [call for call in calls if second <= call.at - ended < second + 1]
        if within and sum(call.status == 200 for call in within) < RECOVERED * len(within):
            return second + 1.0
    return 0.0


def main() -> None:
    virtual.PATIENCE_SECONDS = 0.0003
    head = ("upstream", "breaker", "requests", "answered well", "failed (at once)", "mean wait of a failure",
            "load on the upstream", "longest queue", "time to recover", "failed after it")  # fmt: skip
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
    for case, bad_seconds in CASES.items():
        for name, policy in POLICIES.items():
            with asyncio.Runner(loop_factory=virtual.JumpingLoop) as runner:
                figures = runner.run(measure(policy, bad_seconds)).row()
            print("| " + " | ".join((case, name, *figures)) + " |", flush=True)


if __name__ == "__main__":
    main()
