"""What protobuf's own library reads in a scrape: `metrics.proto` of prometheus/client_model, written down here again
from that page, so that a wrong number in the sidecar's writer is not wrong here as well."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.decoder import _DecodeVarint32

_FIELDS = {
    "LabelPair": "string name=1; string value=2",
    "Gauge": "double value=1",
    "Counter": "double value=1",
    "Exemplar": "repeated LabelPair label=1; double value=2; Timestamp timestamp=3",
    "Timestamp": "int64 seconds=1; int32 nanos=2",
    "Bucket": "uint64 cumulative_count=1; double upper_bound=2; Exemplar exemplar=3",
    "BucketSpan": "sint32 offset=1; uint32 length=2",
    "Histogram": "uint64 sample_count=1; double sample_sum=2; repeated Bucket bucket=3; sint32 schema=5;"
    " double zero_threshold=6; uint64 zero_count=7; repeated BucketSpan positive_span=12;"
    " repeated sint64 positive_delta=13",
    "Metric": "repeated LabelPair label=1; Gauge gauge=2; Counter counter=3; Histogram histogram=7",
    "MetricFamily": "string name=1; string help=2; int32 type=3; repeated Metric metric=4; string unit=5",
}
COUNTER, GAUGE, HISTOGRAM = 0, 1, 4
"""`MetricType`, here as its number."""


def _factory() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="io.prometheus.client")
    for message, fields in _FIELDS.items():
        told = file.message_type.add(name=message)
        for one in fields.split(";"):
            is_repeated = one.split()[0] == "repeated"
            kind, name = one.split("=")[0].split()[-2:]
            added = told.field.add(
                name=name,
                number=int(one.split("=")[1]),
                label=field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL,
            )
            if kind in _FIELDS:
                added.type, added.type_name = field.TYPE_MESSAGE, f".io.prometheus.client.{kind}"
            else:
                added.type = field.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("io.prometheus.client.MetricFamily"))


_MetricFamily = _factory()


def families(body: bytes) -> dict[str, Any]:
    """The messages of a scrape, by name; each name stands once, and nothing is unknown.

    Raises:
        AssertionError: they do not.
    """
    found: dict[str, Any] = {}
    at = 0
    while at < len(body):
        size, at = _DecodeVarint32(body, at)
        family = _MetricFamily.FromString(body[at : at + size])
        at += size
        assert family.name not in found
        kept = _MetricFamily.FromString(family.SerializeToString())
        kept.DiscardUnknownFields()
        assert kept == family
        assert kept.ByteSize() == family.ByteSize(), "a field that nobody knows"
        found[family.name] = family
    assert at == len(body)
    return found


def labels(metric: Any) -> dict[str, str]:
    return {one.name: one.value for one in metric.label}


def native_counts(histogram: Any) -> dict[int, int]:
    """By bucket, as Prometheus works them out of runs and differences."""
    counts: dict[int, int] = {}
    index = count = 0
    deltas = iter(histogram.positive_delta)
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            counts[index] = count
            index += 1
    assert list(deltas) == []
    return counts
