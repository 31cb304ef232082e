"""The libraries that apps hand contexts on with, as a sidecar's neighbours: fields in, a context, fields out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

LIBRARIES: Mapping[str, TextMapPropagator] = {
    "b3": B3SingleFormat(),
    "b3multi": B3MultiFormat(),
    "jaeger": JaegerPropagator(),
    "xray": AwsXRayPropagator(),
}
"""By their names in `OTEL_PROPAGATORS`."""


class Place(NamedTuple):
    """One place in one trace, as a library understood it."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool


def injected(library: str, place: Place) -> dict[str, str]:
    """The fields that the library writes, in lower case."""
    flags = TraceFlags(TraceFlags.SAMPLED if place.is_sampled else TraceFlags.DEFAULT)
    known = SpanContext(int(place.trace_id, 16), int(place.span_id, 16), is_remote=False, trace_flags=flags)
    carrier: dict[str, str] = {}
    LIBRARIES[library].inject(carrier, set_span_in_context(NonRecordingSpan(known)))
    return {name.lower(): value for name, value in carrier.items()}


def extracted(library: str, fields: Mapping[str, str]) -> Place | None:
    """What the library makes of these fields; None if nothing."""
    carrier = {name.lower(): value for name, value in fields.items()}
    if "x-amzn-trace-id" in carrier:
        carrier["X-Amzn-Trace-Id"] = carrier.pop("x-amzn-trace-id")
    found = get_current_span(LIBRARIES[library].extract(carrier)).get_span_context()
    if not found.is_valid:
        return None
    return Place(b"%032x" % found.trace_id, b"%016x" % found.span_id, bool(found.trace_flags & 1))


_DATADOG = """
import json, sys
from ddtrace import config
from ddtrace.propagation.http import HTTPPropagator
from ddtrace._trace.context import Context
config._propagation_style_inject = config._propagation_style_extract = ["datadog"]
read, written = [], []
given = json.load(sys.stdin)
for fields in given["read"]:
    found = HTTPPropagator.extract(fields)
    read.append([found.trace_id, found.span_id, found.sampling_priority, dict(found._meta)])
for trace_id, span_id, priority, meta in given["write"]:
    fields = {}
    HTTPPropagator.inject(Context(trace_id, span_id, meta=dict(meta), sampling_priority=priority), fields)
    written.append(fields)
print(json.dumps({"read": read, "written": written}))
"""


def datadog(
    read: list[dict[str, str]], write: list[tuple[int, int, int, dict[str, str]]]
) -> tuple[list[tuple[int, int, int, dict[str, str]]], list[dict[str, str]]]:
    """What ddtrace reads of these fields, as (trace, span, priority, tags), and the fields that it writes of such.

    In a process of its own, since importing it changes other modules.
    """
    given = json.dumps({"read": read, "write": write})
    run = subprocess.run(
        [sys.executable, "-c", _DATADOG], input=given, capture_output=True, text=True, timeout=60, check=True
    )
    answer = json.loads(run.stdout)
    return [tuple(one) for one in answer["read"]], answer["written"]
