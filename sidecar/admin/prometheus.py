"""Renders the numbers for Prometheus: text format 0.0.4, or OpenMetrics 1.0 with exemplars.

Pure: numbers in, text out in pieces of about a hundred points, so that the caller (an admin handler on the
event loop) can let requests through between two of them. Names follow OpenTelemetry's rules for Prometheus:
dots become underscores, the unit and `_total` are appended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from sidecar.admin.own_series import GAUGE, INFO, Labels, own_families
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


def render_own(sources: Sources, *, openmetrics: bool) -> Iterator[str]:
    """What is about the process, to stand before all others."""
    for family in own_families(sources):
        name = family.name if openmetrics else family.sample
        kind = GAUGE if family.kind == INFO and not openmetrics else family.kind
        lines = [f"# HELP {name} {_escape_help(family.meaning)}\n# TYPE {name} {kind}\n"]
        if openmetrics and family.unit:
            lines.append(f"# UNIT {name} {family.unit}\n")
        for labels, value in family.rows:
            braces = f"{{{_labels(labels)}}}" if labels else ""
            lines.append(f"{family.sample}{braces} {value}\n")
        yield "".join(lines)


def metric_name(family: Family) -> str:
    """The family's Prometheus name, without the suffix of a single sample."""
    name = family.name.replace(".", "_")
    unit = unit_of(family)
    return f"{name}_{unit}" if unit else name


def sample_name(family: Family) -> str:
    """That of a single sample. Only OpenMetrics names a counter's family without `_total`."""
    return metric_name(family) + ("_total" if family.kind is MetricKind.COUNTER else "")


def unit_of(family: Family) -> str:
    """In Prometheus' words; empty if it has none."""
    return _UNITS.get(family.unit, "")


def _head(family: Family, *, openmetrics: bool) -> str:
    name = metric_name(family) if openmetrics else sample_name(family)
    unit = unit_of(family)
    lines = [f"# HELP {name} {_escape_help(family.description)}\n", f"# TYPE {name} {_TYPES[family.kind]}\n"]
    if openmetrics and unit:
        lines.append(f"# UNIT {name} {unit}\n")
    return "".join(lines)


def _add_point(lines: list[str], family: Family, point: Point, wall_offset: float | None) -> None:
    attributes, value = point
    labels = _labels(attributes)
    if isinstance(value, HistogramRow):
        _add_histogram(lines, metric_name(family), labels, value, wall_offset)
        return
    braces = f"{{{labels}}}" if labels else ""
    lines.append(f"{sample_name(family)}{braces} {value}\n")


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


def _labels(attributes: Attributes | Labels) -> str:
    return ",".join([f'{label_name(key)}="{_escape_label(value)}"' for key, value in attributes])


def label_name(key: str) -> str:
    """Of an attribute."""
    return key.replace(".", "_")


def label_value(value: str | int | bool) -> str:
    """Of an attribute, as it is before a format writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escape_label(value: str | int | bool) -> str:
    text = label_value(value)
    if '"' in text or "\\" in text or "\n" in text:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return text


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
