"""Renders the numbers for Prometheus: text format 0.0.4, or OpenMetrics 1.0 with exemplars.

Pure: numbers in, text out in pieces of about a hundred points, so that the caller (an admin handler on the
event loop) can let requests through between two of them. Names follow OpenTelemetry's rules for Prometheus:
dots become underscores, the unit and `_total` are appended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from sidecar.core.families.catalogue import named
from sidecar.core.families.family import Attributes, Family, HistogramRow, MetricKind, Point
from sidecar.core.numbers import Exemplar, Numbers
from sidecar.core.sources import Sources

TEXT_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_POINTS_PER_PIECE = 50
_UNITS = {"s": "seconds", "By": "bytes"}
_TYPES = {
    MetricKind.COUNTER: "counter",
    MetricKind.UP_DOWN: "gauge",
    MetricKind.GAUGE: "gauge",
    MetricKind.HISTOGRAM: "histogram",
}


def render(numbers: Numbers, sources: Sources, *, openmetrics: bool, wall_offset: float) -> Iterator[str]:
    """Yield the exposition in pieces, each below a millisecond of work.

    `wall_offset` (seconds) turns a monotonic time into a wall time: `time.time() - time.monotonic()`.
    """
    routes = numbers.routes()
    for family in named(sources.metrics_prefix):
        head = _head(family, openmetrics=openmetrics)
        lines: list[str] = []
        for count, point in enumerate(family.points(routes, sources), start=1):
            _add_point(lines, family, point, wall_offset if openmetrics else None)
            if count % _POINTS_PER_PIECE == 0:
                yield head + "".join(lines)
                head = ""
                lines.clear()
        if lines:
            yield head + "".join(lines)
    if openmetrics:
        yield "# EOF\n"


def metric_name(family: Family) -> str:
    """The family's Prometheus name, without the suffix of a single sample."""
    name = family.name.replace(".", "_")
    unit = _UNITS.get(family.unit)
    return f"{name}_{unit}" if unit else name


def _head(family: Family, *, openmetrics: bool) -> str:
    name = metric_name(family)
    if family.kind is MetricKind.COUNTER and not openmetrics:
        name += "_total"  # only OpenMetrics names a counter's family without it
    unit = _UNITS.get(family.unit)
    lines = [f"# HELP {name} {_escape_help(family.description)}\n", f"# TYPE {name} {_TYPES[family.kind]}\n"]
    if openmetrics and unit:
        lines.append(f"# UNIT {name} {unit}\n")
    return "".join(lines)


def _add_point(lines: list[str], family: Family, point: Point, wall_offset: float | None) -> None:
    attributes, value = point
    name = metric_name(family)
    labels = _labels(attributes)
    if isinstance(value, HistogramRow):
        _add_histogram(lines, name, labels, value, wall_offset)
        return
    suffix = "_total" if family.kind is MetricKind.COUNTER else ""
    lines.append(f"{name}{suffix}{{{labels}}} {value}\n" if labels else f"{name}{suffix} {value}\n")


def _add_histogram(
    lines: list[str], name: str, labels: str, row: HistogramRow, wall_offset: float | None
) -> None:
    comma = "," if labels else ""
    edges = [*map(repr, row.bounds), "+Inf"]
    exemplars: Sequence[Exemplar | None] = row.exemplars if wall_offset is not None else ()
    total = 0
    for index, total in enumerate(accumulate(row.counts)):
        lines.append(f'{name}_bucket{{{labels}{comma}le="{edges[index]}"}} {total}')
        exemplar = exemplars[index] if index < len(exemplars) else None
        lines.append(_exemplar(exemplar, wall_offset or 0.0) if exemplar else "\n")
    braces = f"{{{labels}}}" if labels else ""
    lines.append(f"{name}_sum{braces} {row.sum!r}\n{name}_count{braces} {total}\n")


def _exemplar(exemplar: Exemplar, wall_offset: float) -> str:
    trace_id, span_id, value, at = exemplar
    ids = f'trace_id="{trace_id.decode()}",span_id="{span_id.decode()}"'
    return f" # {{{ids}}} {value!r} {at + wall_offset:.3f}\n"


def _labels(attributes: Attributes) -> str:
    return ",".join([f'{key.replace(".", "_")}="{_escape_label(value)}"' for key, value in attributes])


def _escape_label(value: str | int | bool) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if '"' in text or "\\" in text or "\n" in text:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return text


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
