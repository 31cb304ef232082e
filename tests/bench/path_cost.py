"""What one exchange costs in Python: the data path driven by hand, without sockets and without a loop's turns.

    python -m tests.bench.path_cost [--profile]

Microseconds of this process's CPU time for each exchange, the best of several rounds. Bytes go in where uvloop would
bring them and stop where it would take them, so what `compare` shows beyond this is the kernel's and uvloop's.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import itertools
import os
import pstats
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import uvloop

from sidecar.config.load import load_text
from sidecar.downstream.http1 import ClientConnection
from sidecar.runtime.worker import Worker
from sidecar.upstream.http1 import UpstreamConnection
from sidecar.upstream.lease import Fate
from tests.bench.upstream import LARGE, SMALL
from tests.support.proxy import HEADER

ROUNDS, EXCHANGES = 30, 3000
CONFIG = """\
upstreams: {app: {endpoints: ["127.0.0.1:9"]}}
routes:
- name: bench
  match: {hosts: [orders.test], path: {prefix: /api}}
  upstream: app
  request_headers: {set: {x-mesh: a, x-tenant: gold}}
  timeouts: {request: 15s}
"""
RETRY = "  retry: {attempts: 2, on: [gateway_error]}\n"
BESIDE = {
    "GET, two endpoints": "",
    "GET, two endpoints, retry": RETRY,
    "GET, two endpoints, hedge": "  hedge: {after: 50ms}\n",
    "GET, two endpoints, retry, hedge": RETRY + "  hedge: {after: 50ms}\n",
    "GET, two endpoints, mirror of none": "  mirror: {upstream: app, share: 0%}\n",
}
"""Keys of the route: nothing of them happens, so this is what it costs to be ready for it."""
SAMPLED = {
    "GET 256 B, sampled": "",
    "GET 256 B, sampled, CLIENT span": ", client_spans: all",
}
"""Beside `sample_ratio` for the traces: all are recorded, and become OTLP requests that nobody is sent."""
GET = b"GET /api/small HTTP/1.1\r\nHost: orders.test\r\n\r\n"
BROWSER = (
    b"GET /api/small?page=3 HTTP/1.1\r\nHost: orders.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
    b"traceparent: 00-%b-%b-01\r\nx-request-timeout-ms: %d\r\n\r\n"
)
TRACED_FIRST = (
    b"GET /api/small HTTP/1.1\r\ntraceparent: 00-%b-%b-01\r\nHost: orders.test\r\n"
    b"x-envoy-upstream-rq-timeout-ms: %d\r\nAccept: application/json\r\nUser-Agent: bench/1\r\n\r\n"
)
"""In the order that a client may well choose, if it is none that puts a context behind what is the same each time."""
POST = b"POST /api/post HTTP/1.1\r\nHost: orders.test\r\nContent-Length: 16384\r\n\r\n" + b"p" * 16384


class Sink:
    """A transport that takes everything and says nothing."""

    def __init__(self) -> None:
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1

    def writelines(self, data: list[bytes]) -> None:
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 4711) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


def connected(pool: Any) -> UpstreamConnection:
    """An idle connection with an upstream, the only one of its pool."""
    for idle in list(pool.idle):
        idle.abort()
    upstream = UpstreamConnection(pool)
    upstream.connection_made(Sink())  # type: ignore[arg-type]
    pool.add(upstream)
    upstream.release(Fate.REUSABLE, time.monotonic())
    return upstream


def exchanges(worker: Worker, requests: Callable[[], bytes], pieces: list[bytes]) -> Callable[[], None]:
    """A call that sends one request through and its answer back, on connections that are there."""
    client, answers = ClientConnection(worker.listeners["inbound"]), Sink()
    client.connection_made(answers)  # type: ignore[arg-type]
    pools = worker.assembly.clusters["app"].pools
    upstream, *others = [connected(pool) for pool in pools]
    idle = pools[0].idle

    def call() -> None:
        client.data_received(requests())
        for piece in pieces:
            upstream.data_received(piece)

    def call_either() -> None:
        client.data_received(requests())
        asked = others[0] if idle else upstream
        for piece in pieces:
            asked.data_received(piece)

    if others:
        call = call_either

    call()
    assert answers.writes, "the exchange did not end"
    return call


def microseconds(call: Callable[[], None]) -> float:
    """CPU time of one call."""
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time_ns()
        for _ in range(EXCHANGES):
            call()
        best = min(best, time.process_time_ns() - before)
    return best / EXCHANGES / 1000


def traced(head: bytes = BROWSER) -> Callable[[], bytes]:
    """Requests with a trace context and a timeout each, made beforehand."""
    ready = [head % (b"%032x" % number, b"%016x" % number, 1000 + number % 8000) for number in range(1, 4097)]
    return itertools.cycle(ready).__next__


Said: TypeAlias = tuple[Callable[[], Callable[[], bytes]], list[bytes]]
PLAIN: Said = (lambda: lambda: GET, [SMALL])
REQUESTS: dict[str, Said] = {
    "GET 256 B": PLAIN,
    "GET 256 B, traced, with a timeout": (traced, [SMALL]),
    "GET 256 B, traced first": (lambda: traced(TRACED_FIRST), [SMALL]),
    "GET 64 KiB": (lambda: lambda: GET, [LARGE[:65536], LARGE[65536:]]),
    "POST 16 KiB": (lambda: lambda: POST, [SMALL]),
}
"""What makes the requests of a case, and the answer in its pieces."""


async def measure(is_profile: bool, log: int) -> None:
    worker = await started(CONFIG, log)
    if is_profile:
        profile(exchanges(worker, lambda: GET, [SMALL]))
    else:
        for name, (requests, answer) in REQUESTS.items():
            print(f"{name:<36}{microseconds(exchanges(worker, requests(), answer)):8.2f} µs")
    await stopped(worker)
    for name in () if is_profile else BESIDE:
        worker = await started(beside(name), log)
        requests, answer = PLAIN
        print(f"{name:<36}{microseconds(exchanges(worker, requests(), answer)):8.2f} µs")
        await stopped(worker)


def beside(case: str) -> str:
    """The configuration of one of `BESIDE`."""
    return CONFIG.replace('"127.0.0.1:9"', '"127.0.0.1:9", "127.0.0.1:19"') + BESIDE[case]


def recorded(case: str) -> str:
    """The beginning of a configuration for one of `SAMPLED`."""
    return HEADER.replace(
        "telemetry: {",
        f'telemetry: {{otlp: {{endpoint: "http://127.0.0.1:9"}}, traces: {{sample_ratio: 1{SAMPLED[case]}}}, ',
    )


class Nowhere:
    """Takes the requests of exporters, and sends them to nobody."""

    def send(self, request: bytes) -> int:
        return 0

    def close(self) -> None: ...


async def started(config: str, log: int) -> Worker:
    worker = Worker(load_text(HEADER + config).snapshot, {}, log_fd=log, clock=time.monotonic)
    await worker.start()
    return worker


async def stopped(worker: Worker) -> None:
    worker.service.exchanges.clear()
    await worker.stop()


def profile(call: Callable[[], None]) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(20_000):
        call()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.path_cost")
    parser.add_argument("--profile", action="store_true", help="where the time of a plain GET goes")
    options = parser.parse_args()
    gc.disable()
    log = os.open(os.devnull, os.O_WRONLY)
    try:
        uvloop.run(measure(options.profile, log))
    finally:
        os.close(log)


if __name__ == "__main__":
    main()
