"""The threads that carry telemetry out: one for spans, one for metrics; each may block, neither is waited
for.

A collector that is down, slow or refusing blocks only its own thread. What then cannot be kept is dropped by
the recorder's bounded queue, or lost with a failed request; both are counted, and the next round tries again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from sidecar.core.sources import Sources
from sidecar.telemetry import wire
from sidecar.telemetry.export import Sink
from sidecar.telemetry.metrics import MetricBuilder
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import SpanRecorder, Wake, spans_in

T = TypeVar("T")

_log = logging.getLogger(__name__)

_STEADY_NS = 100_000
"""Reading two clocks one after the other is off by microseconds, which would push a span out of its parent: the
offset moves only when the clocks have drifted apart by more than that."""

RECORDS_PER_SLICE = 64
"""So many are made spans at a time: about a quarter of a millisecond of work between two pauses. Their records are in
the processor's caches still, and what these took of memory is soon used again."""


def pause() -> None:
    """Give the interpreter's lock back and stay away for a moment.

    A thread that only computes gives it up every 5 ms at best, which the event loop would feel as latency.
    """
    time.sleep(0.0005)


def offset_ns() -> int:
    """What to add to a monotonic time, in nanoseconds, to get the time since the epoch."""
    return time.time_ns() - time.monotonic_ns()


class Pipeline(ABC):
    """A thread that wakes up every `interval_seconds`, or when told, and sends what there is."""

    def __init__(self, name: str, sink: Sink, wake: Wake, interval_seconds: float) -> None:
        self.failed = 0
        """Items lost because their request was."""
        self.refused = 0
        """Items of requests that arrived which the collector did not take."""
        self._sink = sink
        self._wake = wake
        self._interval_seconds = interval_seconds
        self._is_stopping = False
        self._is_aborted = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wait_seconds(self) -> float:
        """Until it is time to look again, if nobody wakes it."""
        return self._interval_seconds

    def ask_to_stop(self) -> None:
        """Let the thread send what is left, and end."""
        self._is_stopping = True
        self._wake.raise_flag()

    def stop(self, deadline: float) -> None:
        """Wait until it ended or `deadline` (monotonic seconds) has come, then abort what is under way."""
        self.ask_to_stop()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._is_aborted = True
        self._sink.close()
        with contextlib.suppress(IndexError):  # the thread may still take one more batch
            self.count_left()

    @abstractmethod
    def count_left(self) -> None:
        """Count as lost what the end of the process leaves unsent."""

    @abstractmethod
    def send_all(self) -> None:
        """Send everything that waits now."""

    def _send(self, request: bytes, items: int) -> bool:
        """Send a request of so many items; what is lost of it is counted. False if that is all."""
        refused = self._sink.send(request)
        if refused is None:
            self.failed += items
            return False
        self.refused += min(refused, items)
        return True

    def _shaped(self, shape: Callable[[], list[T]], items: int) -> list[T]:
        """What becomes of one record; one that cannot be shaped is counted, and takes no other with it."""
        try:
            return shape()
        except Exception:  # a record is whatever the world made it
            self._left_out(items)
            return []

    def _left_out(self, items: int) -> None:
        """An exception is being handled, of which this comes."""
        _log.exception("%s left something out", self._thread.name)
        self.failed += items

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wake.wait(self.wait_seconds())
            is_last = self._is_stopping
            try:
                self.send_all()
            except Exception:  # whatever it was, the next round may do better
                _log.exception("%s failed", self._thread.name)


class SpanPipeline(Pipeline):
    """Takes records from the recorder, shapes them and sends them in batches."""

    def __init__(
        self,
        recorder: SpanRecorder,
        shaper: SpanShaper,
        sink: Sink,
        wake: Wake,
        *,
        resource: Resource,
        scope: InstrumentationScope,
        interval_seconds: float,
        batch: int,
    ) -> None:
        super().__init__("sidecar-spans", sink, wake, interval_seconds)
        self._recorder = recorder
        self._shaper = shaper
        self._batch = batch
        self._resource, self._scope = encode_origin(resource, scope)
        self._schema_url = (scope.schema_url or "").encode()
        self._offset_ns = offset_ns()
        self._spans: list[bytes] = []
        """Encoded, and less than a batch."""
        self._due = time.monotonic() + interval_seconds

    def wait_seconds(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def send_all(self) -> None:
        """Shape what waits. What is less than a batch is sent when an interval is over, or at the end."""
        recorder = self._recorder
        while (recorder.events or recorder.exchanges) and not self._is_aborted:
            self._shape_slice()
            if len(self._spans) >= self._batch:
                self._send_spans()
            elif recorder.exchanges:
                pause()
        if (self._is_stopping or time.monotonic() >= self._due) and not self._is_aborted:
            self._send_spans()

    def count_left(self) -> None:
        recorder = self._recorder
        while recorder.exchanges:
            record = recorder.exchanges.popleft()
            self.failed += spans_in(record)
        self.failed += len(recorder.events) + len(self._spans)
        recorder.events.clear()
        self._spans = []

    def _send_spans(self) -> None:
        spans, self._spans = self._spans, []
        if spans:
            self._send(wire.request(self._resource, self._scope, spans, self._schema_url), len(spans))
        self._due = time.monotonic() + self._interval_seconds

    def _shape_slice(self) -> None:
        """Up to a slice of records become encoded spans, transitions first; no more than fill a batch."""
        recorder, shaper, spans = self._recorder, self._shaper, self._spans
        offset = offset_ns()
        if abs(offset - self._offset_ns) < _STEADY_NS:
            offset = self._offset_ns
        self._offset_ns = offset
        while recorder.events and len(spans) < self._batch:
            event = recorder.events.popleft()
            spans += self._shaped(partial(shaper.event_spans, event, offset), 1)
        for _ in range(RECORDS_PER_SLICE):
            if not recorder.exchanges or len(spans) >= self._batch:
                break
            record = recorder.exchanges.popleft()
            try:  # as `_shaped`, without two calls for each
                spans += shaper.exchange_spans(record, offset)
            except Exception:
                self._left_out(spans_in(record))


class MetricPipeline(Pipeline):
    """Collects all metrics at each interval and sends them."""

    def __init__(
        self, builder: MetricBuilder, sources: Callable[[], Sources], sink: Sink, interval_seconds: float
    ) -> None:
        super().__init__("sidecar-metrics", sink, Wake(), interval_seconds)
        self._builder = builder
        self._sources = sources

    def send_all(self) -> None:
        is_lost = False
        requests = self._builder.requests(self._sources(), time.time_ns(), offset_ns(), pause)
        for request, points in requests:
            if is_lost:  # after one failure the rest of this collection would only wait for the same timeout
                self.failed += points
            else:
                is_lost = not self._send(request.SerializeToString(), points)
            if is_lost:
                self._builder.lost()
            else:
                self._builder.sent()

    def count_left(self) -> None:
        """Nothing waits: a collection is built when it is sent."""


def encode_origin(resource: Resource, scope: InstrumentationScope) -> tuple[bytes, bytes]:
    """Resource and scope, as the SDK encodes them for any signal."""
    context = SpanContext(1, 1, is_remote=False)
    request = encode_spans(
        [ReadableSpan("", context=context, resource=resource, instrumentation_scope=scope)]
    )
    of_resource = request.resource_spans[0]
    return of_resource.resource.SerializeToString(), of_resource.scope_spans[0].scope.SerializeToString()
