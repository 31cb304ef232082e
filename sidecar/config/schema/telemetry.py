"""Telemetry as the file writes it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from sidecar.config.schema import hidden_values, units, values
from sidecar.config.schema.form import Form, Hidden, flow
from sidecar.config.schema.section import Section, key, required
from sidecar.core import snapshot as core


def _tell_headers(headers: tuple[tuple[str, str], ...], _: Hidden) -> str | None:
    """Never a value: every vendor has a name of its own for the key that stands there."""
    return flow({name: hidden_values.mark(text) for name, text in headers}) if headers else None


_OTLP_HEADERS = Form(
    lambda headers: tuple((name, value) for name, value in headers.items() if value is not None),
    dict,
    _tell_headers,
)


_PROPAGATORS = Form(
    tuple,
    lambda names: [name.value for name in names],
    lambda names, _: flow([name.value for name in names]),
)


MAX_BUCKETS = 32
"""Of one histogram. Each is a series of Prometheus, for each route, method and status."""

_BUCKETS = Form(
    tuple,
    lambda bounds: [units.format_duration(seconds) for seconds in bounds],
    lambda bounds, _: flow([units.format_duration(seconds) for seconds in bounds]),
)


def _ascending(bounds: list[float]) -> list[float]:
    """Raises: ValueError."""
    if not 1 <= len(bounds) <= MAX_BUCKETS:
        raise ValueError(f"takes 1 to {MAX_BUCKETS} bounds, and has {len(bounds)}")
    for before, bound in pairwise(bounds):
        if bound <= before:
            shown = units.format_duration(bound), units.format_duration(before)
            raise ValueError("bounds ascend, and {} stands behind {}: sort them".format(*shown))
    return bounds


class OtlpSection(Section):
    built_in = core.Otlp("")

    endpoint: values.Url = required(
        "The collector: port 4317 for grpc, 4318 for http/protobuf.",
        examples=["http://otel-collector:4317"],
        fills="endpoint",
    )
    protocol: values.Protocol | None = key("`grpc` or `http/protobuf`.", fills="protocol")
    headers: dict[values.HeaderName, values.HeaderValue | None] | None = key(
        "Sent with each export, for a collector that wants a key.",
        examples=[{"api-key": "${OTLP_KEY}"}],
        fills="headers",
        form=_OTLP_HEADERS,
    )
    compression: values.Compression | None = key("`gzip` or `none`.", fills="compression", default="none")


class TracesSection(Section):
    built_in = core.Telemetry()

    sample_ratio: values.Ratio | None = key(
        "Share of the traces that start here which are exported; a caller's sampled flag is always "
        "respected.",
        fills="trace_sample_ratio",
    )
    client_spans: values.ClientSpansName | None = key(
        "`auto`: on inbound routes without `retry` and `hedge` the SERVER span stands for the first attempt as well. "
        "`all`: each attempt has a CLIENT span of its own.",
        fills="client_spans",
    )


class MetricsSection(Section):
    built_in = core.Telemetry()

    interval: values.Duration | None = key("Between two exports.", fills="metrics_interval_seconds")
    buckets: Annotated[list[values.Duration], values.Rule(_ascending)] | None = key(
        "Upper bounds of the buckets of `http.server.request.duration` and `http.client.request.duration`, "
        f"ascending, up to {MAX_BUCKETS}. Another bucket takes what is longer.",
        fills="duration_bounds",
        form=_BUCKETS,
    )
    prefix: values.MetricsPrefix | None = key(
        "Stands before `http.server.request.duration`, `http.client.request.duration` and "
        "`http.server.active_requests`, which an instrumented app reports too, by OTLP and at /metrics. The "
        "dashboards and alerts of `deploy/monitoring` know these without one. Unset: nothing does.",
        examples=["mesh"],
        fills="metrics_prefix",
    )
    native_histograms: values.Flag | None = key(
        "Count `http.server.request.duration` and `http.client.request.duration` in buckets of 9 % as well, and send "
        "these at /metrics as native histograms to a Prometheus that asks for protobuf (its feature "
        "`native-histograms`, or `scrape_native_histograms`).",
        fills="native_histograms",
    )


class AccessLogSection(Section):
    built_in = core.AccessLog()

    format: values.LogFormatName | None = key("`json`, `text` or `off`.", fills="format")
    sample_ratio: values.Share | None = key("Share of the exchanges that get a line.", fills="sample_ratio")
    attempts: values.Flag | None = key(
        "Each line has `tried`, a list of what each attempt came to, which `sidecar tune` reads.",
        fills="attempts",
    )


class TelemetrySection(Section):
    """OTEL_* environment variables win over these."""

    built_in = core.Telemetry()

    service_name: values.NonEmptyText | None = key(
        "`service.name` of all that is exported. Unset: OTEL_SERVICE_NAME, else a generic one.",
        examples=["orders"],
        fills="service_name",
    )
    otlp: OtlpSection | None = key("Where to export to. Unset: nothing is exported.", fills="otlp")
    traces: TracesSection | None = key("Spans.")
    metrics: MetricsSection | None = key("Metrics by OTLP; /metrics is served in any case.")
    access_log: AccessLogSection | None = key("One line for each exchange.", fills="access_log")
    propagators: list[values.PropagatorName] | None = key(
        "Which forms of a trace's context are read, the most believed first. Each form that came with a request is "
        "written anew; `traceparent` always is. OTEL_PROPAGATORS wins.",
        fills="propagators",
        form=_PROPAGATORS,
    )
    logs: values.Flag | None = key("Send events and the access log also as OTLP log records.", fills="logs")
