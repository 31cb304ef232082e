"""When spans leave: in full batches, and what is less than one when an interval is over, or at the end."""

from __future__ import annotations

import threading
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sidecar.telemetry.pipeline import RECORDS_PER_SLICE, SpanPipeline
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import SpanRecorder, TransitionIds, Wake
from tests.telemetry.fakes import FakeExchange, opening

SPANS_EACH = 2
BATCH = 100
NEVER = 3600.0


class Collected:
    """A sink that counts the spans of each request."""

    def __init__(self, awaited: int = 0) -> None:
        self.sizes: list[int] = []
        self.has_all = threading.Event()
        self._awaited = awaited

    def send(self, request: bytes) -> int:
        (of_resource,) = ExportTraceServiceRequest.FromString(request).resource_spans
        self.sizes.append(len(of_resource.scope_spans[0].spans))
        if sum(self.sizes) == self._awaited:
            self.has_all.set()
        return 0

    def close(self) -> None: ...


class Exported:
    """A pipeline with its recorder and its sink."""

    def __init__(self, interval_seconds: float, *, exchanges: int) -> None:
        wake = Wake()
        self.sink = Collected(exchanges * SPANS_EACH)
        self.recorder = SpanRecorder(
            capacity=10_000, wake_at=min(BATCH, RECORDS_PER_SLICE), wake=wake.raise_flag
        )
        self.pipeline = SpanPipeline(
            self.recorder,
            SpanShaper(TransitionIds(b"k" * 16)),
            self.sink,
            wake,
            resource=Resource({}),
            scope=InstrumentationScope("sidecar"),
            interval_seconds=interval_seconds,
            batch=BATCH,
        )
        for _ in range(exchanges):
            self.recorder.finished(FakeExchange())


def test_a_batch_leaves_as_soon_as_it_is_full() -> None:
    one = Exported(NEVER, exchanges=3 * RECORDS_PER_SLICE)
    one.pipeline.send_all()
    assert one.sink.sizes == [BATCH] * (3 * RECORDS_PER_SLICE * SPANS_EACH // BATCH)


def test_less_than_a_batch_waits_for_the_interval() -> None:
    one = Exported(0.05, exchanges=RECORDS_PER_SLICE // 2)
    one.pipeline.start()
    assert one.sink.has_all.wait(100.0)
    one.pipeline.stop(time.monotonic() + 100.0)
    assert sum(one.sink.sizes) == RECORDS_PER_SLICE // 2 * SPANS_EACH


def test_less_than_a_batch_leaves_at_the_end() -> None:
    one = Exported(NEVER, exchanges=RECORDS_PER_SLICE + 3)
    one.pipeline.start()
    one.pipeline.stop(time.monotonic() + 100.0)
    assert sum(one.sink.sizes) == (RECORDS_PER_SLICE + 3) * SPANS_EACH
    assert one.pipeline.failed == 0


def test_what_is_made_a_span_and_was_not_sent_is_counted_as_lost() -> None:
    one = Exported(NEVER, exchanges=3)
    one.pipeline.send_all()
    one.recorder.finished(FakeExchange())
    one.recorder.transitioned(opening())
    one.pipeline.count_left()
    assert one.sink.sizes == []
    assert one.pipeline.failed == 4 * SPANS_EACH + 1
    assert not one.recorder.exchanges
    assert not one.recorder.events
