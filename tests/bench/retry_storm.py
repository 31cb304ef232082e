"""What retries add to the load of a service that fails, behind three sidecars in a row.

    python -m tests.bench.retry_storm [--rate 100] [--seconds 10] [--without naive]

The clock is virtual (`tests/support/loop.py`), the sockets and the proxies are real, chance is seeded. All of the
service's answers are 503 for a while; each sidecar tries again what fails. Counted is what reaches the service while
it fails: in all, and in the worst second of it, beside the same without retries. `naive` is what a product does that
knows no budget and no mark: two more tries with each hop.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.support import loop as virtual
from tests.support.proxy import port, running

BEFORE = 3.0
"""Seconds until it fails."""
HOPS = 3
ANSWER_SECONDS = 0.01
OURS = "{attempts: 2, on: [5xx]}"
NAIVE = "{attempts: 2, on: [5xx], nested: true, budget: {ratio: 100%, min_per_second: 1000000}}"
CASES = {
    "no retries, no breaker": ("{attempts: 0}", "disabled"),
    "naive retries, no breaker": (NAIVE, "disabled"),
    "retries, no breaker": (OURS, "disabled"),
    "no retries": ("{attempts: 0}", "enforce"),
    "retries": (OURS, "enforce"),
}
BESIDE = {
    "naive retries, no breaker": "no retries, no breaker",
    "retries, no breaker": "no retries, no breaker",
    "retries": "no retries",
}


@dataclass
class Service:
    """Answers 200, or 503 while it is ill."""

    is_ill: bool = False
    began: float = 0.0
    """Of the trouble."""
    by_second: Counter[int] = field(default_factory=Counter)
    """Requests while it was ill."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if self.is_ill:
                    self.by_second[int(loop.time() - self.began)] += 1
                await asyncio.sleep(ANSWER_SECONDS)
                status = b"503 Service Unavailable" if self.is_ill else b"200 OK"
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@dataclass(frozen=True)
class Load:
    """What reached the service while it failed."""

    total: int
    worst_second: int


async def measure(retry: str, breaker: str, rate: float, seconds: float) -> Load:
    """One run of the trouble."""
    loop = asyncio.get_running_loop()
    service = Service()
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(service.accept, "127.0.0.1", 0)
        stack.callback(server.close)
        to = server.sockets[0].getsockname()[1]
        for _ in range(HOPS):
            routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{to}"]}}}}
routes: [{{name: app, upstream: app, retry: {retry}, circuit_breaker: {{mode: {breaker}}}}}]
"""
            to = port(await stack.enter_async_context(running(routes)))
        began = loop.time()
        service.began = began + BEFORE
        loop.call_at(began + BEFORE, setattr, service, "is_ill", True)
        await offer(to, rate, BEFORE + seconds)
        service.is_ill = False
    return Load(service.by_second.total(), max(service.by_second.values(), default=0))


async def offer(to: int, rate: float, seconds: float) -> None:
    """Requests at random instants, whatever becomes of the earlier ones."""
    loop = asyncio.get_running_loop()
    rng, began, at = random.Random(11), loop.time(), 0.0
    tasks = []
    while (at := at + rng.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, began + at - loop.time()))
        tasks.append(asyncio.create_task(ask(to)))
    await asyncio.gather(*tasks)


async def ask(to: int) -> None:
    """One request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.retry_storm", description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of trouble")
    parser.add_argument("--without", default="nothing", help="cases whose name contains this")
    options = parser.parse_args()
    virtual.PATIENCE_SECONDS = 0.0003
    head = ("case", "requests at the service", "against none", "worst second", "against none")
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
    found: dict[str, Load] = {}
    for name, (retry, breaker) in CASES.items():
        if options.without in name:
            continue
        with asyncio.Runner(loop_factory=virtual.JumpingLoop) as runner:
            load = found[name] = runner.run(measure(retry, breaker, options.rate, options.seconds))
        beside = found.get(BESIDE.get(name, ""))
        cells = [name, str(load.total), "-", str(load.worst_second), "-"]
        if beside is not None:
            cells[2] = f"{load.total / max(beside.total, 1):.2f} ×"
            cells[4] = f"{load.worst_second / max(beside.worst_second, 1):.2f} ×"
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
