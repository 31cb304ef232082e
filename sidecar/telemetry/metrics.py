"""Builds the SDK's metric data from the numbers, in slices, and joins them to OTLP requests.

Runs in the exporting thread. A collection of 1,000 routes is a quarter of a second of Python in all; done in
one piece it would hold the interpreter's lock against the event loop for 5 ms at a time, so it is cut into
slices of half a millisecond, and `pause` is called between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sidecar.core.exponential import ZERO_THRESHOLD, ExponentialBuckets
from sidecar.core.families.catalogue import named
from sidecar.core.families.family import Attributes, Family, HistogramRow, MetricKind, Point
from sidecar.core.numbers import Numbers
from sidecar.core.sources import Sources
from sidecar.telemetry.temporality import Temporality

_POINTS_PER_SLICE = 16
_POINTS_PER_REQUEST = 512
"""About 300 KiB, far below gRPC's limit of 4 MiB."""

_UNKNOWN: Any = None
"""Least and greatest value: not kept, and cumulative ones would say nothing."""


class MetricBuilder:
    """Turns the numbers into requests; holds what is the same in all of them."""

    def __init__(
        self,
        numbers: Numbers,
        resource: Resource,
        scope: InstrumentationScope,
        temporality: Temporality,
        *,
        is_exponential: bool = False,
    ) -> None:
        """`is_exponential`: histograms that are kept in exponential buckets are sent in these, and in no others."""
        self._numbers = numbers
        self._resource = resource
        self._scope = scope
        self._temporality = temporality
        self._is_exponential = is_exponential

    def requests(
        self, sources: Sources, now_ns: int, offset_ns: int, pause: Callable[[], None]
    ) -> Iterator[tuple[Any, int]]:
        """Yield `ExportMetricsServiceRequest`s, each with the number of its points; `sent` or `lost` follows each."""
        request: Any = None
        points = 0
        self._temporality.begin_round(now_ns, offset_ns)
        for family, part in self._slices(sources):
            encoded = encode_metrics(self.data(family, part, now_ns, offset_ns))
            _tell_zero_threshold(encoded)
            if request is None:
                request = encoded
            else:
                metrics = request.resource_metrics[0].scope_metrics[0].metrics
                metrics.extend(encoded.resource_metrics[0].scope_metrics[0].metrics)
            points += len(part)
            if points >= _POINTS_PER_REQUEST:
                yield request, points
                request, points = None, 0
            pause()
        if request is not None:
            yield request, points
        self._temporality.end_round()

    def sent(self) -> None:
        """The last request has arrived."""
        self._temporality.taken()

    def lost(self) -> None:
        """The last request has not arrived: deltas of the next collection hold its counts too."""
        self._temporality.lost()

    def data(self, family: Family, points: Sequence[Point], now_ns: int, offset_ns: int) -> MetricsData:
        """Some points of one metric as the SDK's data classes."""
        metric = Metric(
            family.name, family.description, family.unit, self._data(family, points, now_ns, offset_ns)
        )
        url = self._scope.schema_url or ""
        scope = ScopeMetrics(scope=self._scope, metrics=[metric], schema_url=url)
        of_resource = ResourceMetrics(resource=self._resource, scope_metrics=[scope], schema_url=url)
        return MetricsData([of_resource])

    def _slices(self, sources: Sources) -> Iterator[tuple[Family, list[Point]]]:
        routes = self._numbers.routes()
        for family in named(sources.metrics_prefix):
            part: list[Point] = []
            for point in family.points(routes, sources):
                part.append(point)
                if len(part) == _POINTS_PER_SLICE:
                    yield family, part
                    part = []
            if part:
                yield family, part

    def _data(self, family: Family, points: Sequence[Point], now_ns: int, offset_ns: int) -> Any:
        is_delta = self._temporality.is_delta(family)
        temporality = AggregationTemporality.DELTA if is_delta else AggregationTemporality.CUMULATIVE
        if family.kind is MetricKind.HISTOGRAM:
            return self._histograms(family, points, now_ns, offset_ns, temporality)
        numbers = []
        for point in points:
            value, since_ns = self._temporality.offer(family, point, now_ns)
            assert not isinstance(value, HistogramRow)
            start_ns = 0 if family.kind is MetricKind.GAUGE else since_ns
            numbers.append(NumberDataPoint(dict(point[0]), start_ns, now_ns, value))
        if family.kind is MetricKind.GAUGE:
            return Gauge(data_points=numbers)
        return Sum(
            numbers, aggregation_temporality=temporality, is_monotonic=family.kind is MetricKind.COUNTER
        )

    def _histograms(
        self,
        family: Family,
        points: Sequence[Point],
        now_ns: int,
        offset_ns: int,
        temporality: AggregationTemporality,
    ) -> Any:
        explicit: list[HistogramDataPoint] = []
        exponential: list[ExponentialHistogramDataPoint] = []
        for point in points:
            row, since_ns = self._temporality.offer(family, point, now_ns)
            assert isinstance(row, HistogramRow)
            exemplars = _exemplars(row, since_ns, offset_ns)
            if self._is_exponential and row.exponential is not None:
                of_buckets = _exponential_point(row, row.exponential, point[0], since_ns, now_ns, exemplars)
                exponential.append(of_buckets)
            else:
                explicit.append(_explicit_point(row, point[0], since_ns, now_ns, exemplars))
        if exponential:  # all of a family are kept in the same buckets
            return ExponentialHistogram(data_points=exponential, aggregation_temporality=temporality)
        return HistogramData(data_points=explicit, aggregation_temporality=temporality)


def _exemplars(row: HistogramRow, since_ns: int, offset_ns: int) -> list[Exemplar]:
    return [
        Exemplar({}, value, at_ns, int(span_id, 16), int(trace_id, 16))
        for trace_id, span_id, value, at in filter(None, row.exemplars)
        if (at_ns := int(at * 1e9) + offset_ns) >= since_ns
    ]


def _explicit_point(
    row: HistogramRow, attributes: Attributes, since_ns: int, now_ns: int, exemplars: list[Exemplar]
) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=dict(attributes),
        start_time_unix_nano=since_ns,
        time_unix_nano=now_ns,
        count=sum(row.counts),
        sum=row.sum,
        bucket_counts=row.counts,
        explicit_bounds=row.bounds,
        min=_UNKNOWN,
        max=_UNKNOWN,
        exemplars=exemplars,
    )


def _exponential_point(
    row: HistogramRow,
    buckets: ExponentialBuckets,
    attributes: Attributes,
    since_ns: int,
    now_ns: int,
    exemplars: list[Exemplar],
) -> ExponentialHistogramDataPoint:
    """With each bucket from the first to the last: OTLP has no gaps, and an index that is one less than ours."""
    counts = buckets.counts
    first, last = (min(counts), max(counts)) if counts else (0, -1)
    return ExponentialHistogramDataPoint(
        attributes=dict(attributes),
        start_time_unix_nano=since_ns,
        time_unix_nano=now_ns,
        count=sum(row.counts),
        sum=row.sum,
        scale=buckets.scale,
        zero_count=buckets.zeros,
        positive=Buckets(first - 1, [counts.get(index, 0) for index in range(first, last + 1)]),
        negative=Buckets(0, []),
        flags=0,
        min=_UNKNOWN,
        max=_UNKNOWN,
        exemplars=exemplars,
    )


def _tell_zero_threshold(encoded: Any) -> None:
    """The SDK's data classes have no field for it."""
    for metric in encoded.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.exponential_histogram.data_points:
            point.zero_threshold = ZERO_THRESHOLD
