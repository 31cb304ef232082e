"""What telemetry costs: nanoseconds on the loop for each exchange, and milliseconds and stalls for a collection.

    python -m tests.bench.telemetry_cost

CPU time of this process, the best of several rounds, the cost of the empty loop taken off. Exchanges are slotted
objects with one attempt, as the data path's are.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sidecar.admin.prometheus import render
from sidecar.core.numbers import FOLD_AT, Histogram, Numbers
from sidecar.core.snapshot import DURATION_BOUNDS, AccessLog, Telemetry
from sidecar.core.sources import BreakerReading, Sources
from sidecar.core.transition import State
from sidecar.forwarding import counting
from sidecar.telemetry import access_log, wire
from sidecar.telemetry.access_log import Log
from sidecar.telemetry.metrics import MetricBuilder
from sidecar.telemetry.pipeline import pause
from sidecar.telemetry.resource import make_resource
from sidecar.telemetry.room import Reporter
from sidecar.telemetry.sampling import make_decide
from sidecar.telemetry.settings import read_settings
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import SpanRecorder, TransitionIds
from sidecar.telemetry.temporality import Temporality
from tests.telemetry.fakes import FakeExchange, count_ended

ROUNDS, CALLS, ROUTES = 15, 20_000, 1000


def nanoseconds(call: Callable[[], object], after: Callable[[], object] = lambda: None) -> float:
    """The cost of `call`, without the loop around it; `after` cleans up outside the measurement."""
    best = empty = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time_ns()
        for _ in range(CALLS):
            pass
        empty = min(empty, time.process_time_ns() - before)
        before = time.process_time_ns()
        for _ in range(CALLS):
            call()
        best = min(best, time.process_time_ns() - before)
        after()
    return (best - empty) / CALLS


class Shown:
    """A fake exchange as the data path's are: what it is asked for is there, and is not made for each question."""

    __slots__ = (
        "attempts", "body", "breaker_state", "budget", "detail", "ended", "fallback", "matched", "reason",
        "refused_by", "request", "response_bytes", "rewritten_target", "route", "route_name", "started", "status",
        "stream", "trace", "tripped",
    )  # fmt: skip

    def __init__(self, exchange: FakeExchange) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(exchange, name))


def measure_histograms() -> None:
    """Of a row, for each value: 128 at a time, as exchanges are counted; by how much they vary."""
    for spread in (0.02, 0.3, 0.7, 1.5, 2.5):
        draw = random.Random(1)
        batches = [[draw.lognormvariate(-5.0, spread) for _ in range(FOLD_AT)] for _ in range(300)]
        best = {
            kind: min(_filled(batches, is_exponential=kind) for _ in range(ROUNDS)) for kind in (False, True)
        }
        name = f"a row's value, sigma of its logarithm {spread}"
        print(
            f"{name:<45}{best[False]:8.0f} ns, and {best[True] - best[False]:.0f} ns for exponential buckets"
        )


def _filled(batches: list[list[float]], *, is_exponential: bool) -> float:
    row = Histogram(DURATION_BOUNDS, is_exponential=is_exponential)
    for batch in batches:
        row.add(batch[:])
    copies = [batch[:] for batch in batches]
    before = time.process_time_ns()
    for batch in copies:
        row.add(batch)
    return (time.process_time_ns() - before) / len(batches) / FOLD_AT


def measure_the_loop() -> None:
    numbers = Numbers()
    unsampled: Any = Shown(FakeExchange(is_sampled=False))
    sampled: Any = Shown(FakeExchange())

    def both(exchange: Any) -> Callable[[], None]:
        def call() -> None:
            counting.count(numbers, exchange)

        return call

    recorder = SpanRecorder(capacity=1 << 30, wake_at=1 << 30, wake=lambda: None)
    access_log.CAPACITY = 1 << 30  # nothing is written, and nothing is to be dropped
    log = Log(AccessLog(), os.open(os.devnull, os.O_WRONLY))
    tell = Reporter(Numbers(), recorder, log).finished

    def told(exchange: Any) -> None:
        counting.count(numbers, exchange)
        tell(exchange)

    decide = make_decide(read_settings(Telemetry(), {}))

    def clear() -> None:
        log._queue.clear()
        recorder.exchanges.clear()

    rows = {
        "numbers: finished": nanoseconds(both(unsampled)),
        "numbers: the same, sampled (exemplars)": nanoseconds(both(sampled)),
        "spans: finished, sampled": nanoseconds(lambda: recorder.finished(sampled), recorder.exchanges.clear),
        "spans: finished, not sampled": nanoseconds(lambda: recorder.finished(unsampled)),
        "access log: finished": nanoseconds(lambda: log.finished(unsampled), log._queue.clear),
        "all three, sampled": nanoseconds(lambda: told(sampled), clear),
        "sampler: own root, 1 %": nanoseconds(lambda: decide(None, sampled.trace.trace_id)),
    }
    for name, value in rows.items():
        print(f"{name:<45}{value:8.0f} ns")


def measure_the_thread() -> None:
    shaper = SpanShaper(TransitionIds(b"k" * 16))
    for name, target in (("", b"/v1/orders/42"), (", secret in the query", b"/v1/orders?page=2&sig=secret")):
        recorder = SpanRecorder(capacity=1 << 30, wake_at=1 << 30, wake=lambda: None)
        recorder.finished(FakeExchange(target=target))
        (record,) = recorder.exchanges
        value = nanoseconds(lambda record=record: list(shaper.exchange_spans(record, 0)))
        print(f"{'two spans encoded' + name:<45}{value:8.0f} ns")
        encoded = b"".join(list(shaper.exchange_spans(record, 0)) * 256)
        before = time.process_time_ns()
        for _ in range(20):
            wire.request(b"", b"", (encoded,))
        print(f"{'  their place in a request':<45}{(time.process_time_ns() - before) / 20 / 256:8.0f} ns")


def thousand_routes() -> tuple[Numbers, Sources]:
    numbers = Numbers()
    for index in range(ROUTES):
        exchange = FakeExchange(route_name=f"route-{index}")
        count_ended(numbers, exchange)
    breakers = [BreakerReading(f"route-{index}", "payments", State.CLOSED) for index in range(ROUTES)]
    return numbers, Sources(breakers=breakers)


async def measure_collections() -> None:
    numbers, sources = thousand_routes()
    builder = MetricBuilder(
        numbers, make_resource("bench", {}), InstrumentationScope("sidecar"), Temporality("cumulative", 0)
    )

    def collect(wait: Callable[[], None]) -> int:
        return sum(points for _, points in builder.requests(sources, 1, 0, wait))

    before = time.process_time()
    points = collect(lambda: None)
    cost = (time.process_time() - before) * 1000
    print(f"{f'OTLP collection, {ROUTES} routes, {points} points':<45}{cost:8.0f} ms CPU")
    pieces = []
    before = time.process_time()
    for _ in render(numbers, sources, openmetrics=True, wall_offset=0.0):
        pieces.append(time.process_time() - before)
        before = time.process_time()
    print(f"{f'/metrics, {ROUTES} routes, {len(pieces)} pieces':<45}{sum(pieces) * 1000:8.0f} ms CPU")
    print(f"{'  its longest piece':<45}{max(pieces) * 1000:8.2f} ms")
    await report_stalls("loop's delay without a collection", None)
    await report_stalls("  during one in a thread, in slices", lambda: collect(pause))
    await report_stalls("  during one in a thread, in one piece", lambda: collect(lambda: None))


async def report_stalls(name: str, work: Callable[[], Any] | None) -> None:
    """Wake up each half millisecond for a second while `work` goes on, and see how late that was."""
    stop = threading.Event()

    def repeat() -> None:
        while work is not None and not stop.is_set():
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    late = []
    end = time.perf_counter() + 2.0
    while (before := time.perf_counter()) < end:
        await asyncio.sleep(0.0005)
        late.append((time.perf_counter() - before - 0.0005) * 1000)
    stop.set()
    thread.join()
    p99 = statistics.quantiles(late, n=100)[98]
    print(f"{name:<45}{statistics.median(late):8.2f} ms p50 {p99:6.2f} ms p99 {max(late):6.2f} ms most")


if __name__ == "__main__":
    measure_histograms()
    measure_the_loop()
    measure_the_thread()
    asyncio.run(measure_collections())
