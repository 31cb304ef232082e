"""One run: the real proxy on a virtual clock, callers at random instants, an upstream that is ill now and then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sidecar.runtime.worker import Worker
from sidecar.tuning.pages import read_pages
from sidecar.tuning.seen import Call
from tests.bench.tune.upstreams import TIMEOUT_SECONDS, Upstream
from tests.scenarios.operator import operator
from tests.support import loop as virtual
from tests.support.proxy import port, running

RATE = 40.0
"""Requests a second."""
OUTAGES = 3
GAP_SECONDS = (70.0, 100.0)
OUTAGE_SECONDS = (15.0, 45.0)


@dataclass
class Ran:
    """What came of it."""

    calls: list[Call]
    requests: int = 0
    """In outages and the minute after each."""
    good_refused: float = 0.0
    failed: int = 0
    """Requests that reached the upstream, and failed."""
    taken: int = 0
    """Requests at the upstream in outages."""
    ill_seconds: float = 0.0

    def __add__(self, other: Ran) -> Ran:
        return Ran(
            joined(self.calls, other.calls),
            self.requests + other.requests,
            self.good_refused + other.good_refused,
            self.failed + other.failed,
            self.taken + other.taken,
            self.ill_seconds + other.ill_seconds,
        )


def joined(first: list[Call], second: list[Call]) -> list[Call]:
    """One after the other, ten minutes apart."""
    if not first or not second:
        return first or second
    shift = first[-1].at + 600.0 - second[0].at
    requests = first[-1].request + len(first)
    return first + [replace(one, at=one.at + shift, request=one.request + requests) for one in second]


def schedule(seed: int) -> list[tuple[float, float]]:
    """Begin and end of each outage."""
    rng, at, found = random.Random(seed), 20.0, []
    for _ in range(OUTAGES):
        seconds = rng.uniform(*OUTAGE_SECONDS)
        found.append((at, at + seconds))
        at += seconds + rng.uniform(*GAP_SECONDS)
    return found


def run(kind: type[Upstream], seed: int, breaker: str) -> Ran:
    """`breaker`: the policy, in flow style."""
    virtual.PATIENCE_SECONDS = 0.0003
    with asyncio.Runner(loop_factory=virtual.JumpingLoop) as runner:
        return runner.run(_run(kind, seed, breaker))


async def _run(kind: type[Upstream], seed: int, breaker: str) -> Ran:
    loop = asyncio.get_running_loop()
    outages = schedule(seed)
    began = loop.time()
    upstream = kind(random.Random(seed), loop.time, [(began + start, began + end) for start, end in outages])
    server = await asyncio.start_server(upstream.accept, "127.0.0.1", 0)
    to = server.sockets[0].getsockname()[1]
    routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{to}"]}}}}
routes: [{{name: app, upstream: app, timeouts: {{request: {TIMEOUT_SECONDS:g}s}}, circuit_breaker: {breaker}}}]
"""
    ran = Ran([], ill_seconds=sum(end - start for start, end in outages))
    async with running(routes) as worker:
        worker.service.rng.seed(seed)
        await _offer(worker, upstream, random.Random(seed + 1000), began, outages, ran)
        ran.calls = await _kept(worker)
    server.close()
    ran.taken = upstream.taken
    return ran


async def _offer(
    worker: Worker,
    upstream: Upstream,
    rng: random.Random,
    began: float,
    outages: list[tuple[float, float]],
    ran: Ran,
) -> None:
    loop = asyncio.get_running_loop()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    tasks = []
    at, end = 0.0, outages[-1][1] + 60.0

    async def ask() -> None:
        is_near = any(start <= at < stop + 60.0 for start, stop in outages)
        good = upstream.would_be_good()
        while idle and idle[-1][0].at_eof():  # it was idle for long
            idle.pop()[1].close()
        link = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port(worker))
        link[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await link[0].readuntil(b"\r\n\r\n")
        body = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        text = await link[0].readexactly(body)
        idle.append(link)
        if is_near:
            ran.requests += 1
            is_refused = b"circuit breaker" in text
            ran.good_refused += good if is_refused else 0.0
            ran.failed += not is_refused and not head.startswith(b"HTTP/1.1 200")

    while (at := at + rng.expovariate(RATE)) < end:
        await asyncio.sleep(max(0.0, began + at - loop.time()))
        tasks.append(asyncio.create_task(ask()))
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()


async def _kept(worker: Worker) -> list[Call]:
    """As `sidecar tune` reads it."""
    pages: list[Any] = []
    begin: int | None = 0
    while begin is not None:
        pages.append(await operator(worker).get(f"/outcomes/app?from={begin}"))
        begin = pages[-1]["next"]
    ask: Callable[[str], Any] = lambda _: pages.pop(0)  # noqa: E731
    return read_pages(ask, "app")[0]
