"""Renders the numbers for Prometheus in protobuf: messages `MetricFamily`, each behind its length (`metrics.proto` of
prometheus/client_model). It is the one format that has native histograms.

Pure, like `prometheus`, whose names it uses. A histogram that is kept in exponential buckets has these, and the
others beside them, which a Prometheus keeps that is told to (`always_scrape_classic_histograms`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final

from sidecar.admin import prometheus
from sidecar.admin.own_series import COUNTER, own_families
from sidecar.core.exponential import ZERO_THRESHOLD, ExponentialBuckets
from sidecar.core.families.catalogue import named
from sidecar.core.families.family import Family, HistogramRow, MetricKind, Point
from sidecar.core.numbers import Exemplar, Numbers
from sidecar.core.protobuf import field, varint
from sidecar.core.sources import Sources

CONTENT_TYPE: Final = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)

_POINTS_PER_PIECE: Final = 50
_COUNTER, _GAUGE, _HISTOGRAM = 0, 1, 4
"""`MetricType`."""
_TYPES: Final = {
    MetricKind.COUNTER: _COUNTER,
    MetricKind.UP_DOWN: _GAUGE,
    MetricKind.GAUGE: _GAUGE,
    MetricKind.HISTOGRAM: _HISTOGRAM,
}
_DOUBLE: Final = struct.Struct("<d").pack
_INFINITY: Final = float("inf")

# Tags: the number of a field, and the wire type.
_FAMILY_NAME, _FAMILY_HELP, _FAMILY_TYPE, _FAMILY_METRIC, _FAMILY_UNIT = (
    b"\x0a",
    b"\x12",
    b"\x18",
    b"\x22",
    b"\x2a",
)
_METRIC_LABEL, _METRIC_GAUGE, _METRIC_COUNTER, _METRIC_HISTOGRAM = b"\x0a", b"\x12", b"\x1a", b"\x3a"
_LABEL_NAME, _LABEL_VALUE = b"\x0a", b"\x12"
_VALUE: Final = b"\x09"
_SAMPLE_COUNT, _SAMPLE_SUM, _BUCKET, _SCHEMA, _ZERO_THRESHOLD, _ZERO_COUNT, _SPAN, _DELTAS = (
    b"\x08", b"\x11", b"\x1a", b"\x28", b"\x31", b"\x38", b"\x62", b"\x6a",
)  # fmt: skip
_CUMULATIVE_COUNT, _UPPER_BOUND, _BUCKET_EXEMPLAR = b"\x08", b"\x11", b"\x1a"
_SPAN_OFFSET, _SPAN_LENGTH = b"\x08", b"\x10"
_EXEMPLAR_LABEL, _EXEMPLAR_VALUE, _EXEMPLAR_TIME = b"\x0a", b"\x11", b"\x1a"
_TIME_SECONDS, _TIME_NANOS = b"\x08", b"\x10"


def render_own(sources: Sources) -> Iterator[bytes]:
    """What is about the process, to stand before all others."""
    for family in own_families(sources):
        kind = _COUNTER if family.kind == COUNTER else _GAUGE
        head = _head(family.sample, family.meaning, kind)
        rows = [_metric(_labels(labels), _number(kind, value)) for labels, value in family.rows]
        yield _delimited([head, *rows, _tail(family.unit)])


def render(numbers: Numbers, sources: Sources, *, wall_offset: float) -> Iterator[bytes]:
    """Yield the exposition in pieces, each below a millisecond of work. A family's length stands before it, so
    pieces are empty while it is made.

    `wall_offset` (seconds) turns a monotonic time into a wall time.
    """
    routes = numbers.routes()
    for family in named(sources.metrics_prefix):
        parts: list[bytes] = []
        for count, point in enumerate(family.points(routes, sources), start=1):
            parts.append(_point(family, point, wall_offset))
            if count % _POINTS_PER_PIECE == 0:
                yield b""
        if parts:
            name = prometheus.sample_name(family)
            head = _head(name, family.description, _TYPES[family.kind])
            yield _delimited([head, *parts, _tail(prometheus.unit_of(family))])


def _delimited(parts: list[bytes]) -> bytes:
    return b"".join((varint(sum(map(len, parts))), *parts))


def _head(name: str, meaning: str, kind: int) -> bytes:
    return (
        field(_FAMILY_NAME, name.encode())
        + field(_FAMILY_HELP, meaning.encode())
        + _FAMILY_TYPE
        + varint(kind)
    )


def _tail(unit: str) -> bytes:
    return field(_FAMILY_UNIT, unit.encode()) if unit else b""


def _metric(labels: bytes, value: bytes) -> bytes:
    return field(_FAMILY_METRIC, labels + value)


def _point(family: Family, point: Point, wall_offset: float) -> bytes:
    attributes, value = point
    if isinstance(value, HistogramRow):
        return _metric(_labels(attributes), field(_METRIC_HISTOGRAM, _histogram(value, wall_offset)))
    return _metric(_labels(attributes), _number(_TYPES[family.kind], value))


def _number(kind: int, value: float) -> bytes:
    return field(_METRIC_COUNTER if kind == _COUNTER else _METRIC_GAUGE, _VALUE + _DOUBLE(value))


def _labels(attributes: Sequence[tuple[str, str | int | bool]]) -> bytes:
    return b"".join([_label(_METRIC_LABEL, key, value) for key, value in attributes])


def _label(tag: bytes, key: str, value: str | int | bool) -> bytes:
    text = prometheus.label_value(value).encode("utf-8", "replace")
    return field(tag, _key(key) + field(_LABEL_VALUE, text))


@lru_cache(maxsize=256)
def _key(key: str) -> bytes:
    return field(_LABEL_NAME, prometheus.label_name(key).encode())


def _histogram(row: HistogramRow, wall_offset: float) -> bytes:
    """Without a schema and a zero threshold it is one of the old kind alone."""
    parts = [_SAMPLE_COUNT, varint(sum(row.counts)), _SAMPLE_SUM, _DOUBLE(row.sum)]
    exemplars = row.exemplars
    for index, total in enumerate(accumulate(row.counts)):
        bound = row.bounds[index] if index < len(row.bounds) else _INFINITY
        bucket = b"".join((_CUMULATIVE_COUNT, varint(total), _UPPER_BOUND, _DOUBLE(bound)))
        exemplar = exemplars[index] if index < len(exemplars) else None
        if exemplar is not None:
            bucket += field(_BUCKET_EXEMPLAR, _exemplar(exemplar, wall_offset))
        parts.append(field(_BUCKET, bucket))
    if row.exponential is not None:
        parts.append(_native(row.exponential))
    return b"".join(parts)


def _native(buckets: ExponentialBuckets) -> bytes:
    """All of a histogram that is native alone. What is not positive is in the zero bucket."""
    rows = sorted(buckets.counts.items())
    differences = [after - before for (_, before), (_, after) in pairwise([(0, 0), *rows])]
    return b"".join(
        (
            _SCHEMA,
            _zigzag(buckets.scale),
            _ZERO_THRESHOLD,
            _DOUBLE(ZERO_THRESHOLD),
            _ZERO_COUNT,
            varint(buckets.zeros),
            *(
                field(_SPAN, b"".join((_SPAN_OFFSET, _zigzag(offset), _SPAN_LENGTH, varint(length))))
                for offset, length in _spans([index for index, _ in rows])
            ),
            field(_DELTAS, b"".join(map(_zigzag, differences))),
        )
    )


def _spans(indices: list[int]) -> list[list[int]]:
    """Runs of neighbours: how many buckets lie between each and the one before (the first one: its index), and how
    many it has."""
    spans: list[list[int]] = []
    following = 0
    for index in indices:
        if spans and index == following:
            spans[-1][1] += 1
        else:
            spans.append([index - following, 1])
        following = index + 1
    return spans


def _exemplar(exemplar: Exemplar, wall_offset: float) -> bytes:
    trace_id, span_id, value, at = exemplar
    seconds, nanos = divmod(int((at + wall_offset) * 1e9), 1_000_000_000)
    when = b"".join((_TIME_SECONDS, varint(seconds), _TIME_NANOS, varint(nanos)))
    return b"".join(
        (
            _label(_EXEMPLAR_LABEL, "trace_id", trace_id.decode()),
            _label(_EXEMPLAR_LABEL, "span_id", span_id.decode()),
            _EXEMPLAR_VALUE,
            _DOUBLE(value),
            field(_EXEMPLAR_TIME, when),
        )
    )


def _zigzag(number: int) -> bytes:
    """A `sint32` or `sint64`."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)
