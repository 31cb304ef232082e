"""Telemetry as the file writes it."""

from __future__ import annotations

from sidecar.config.schema import hidden_values, values
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


class AccessLogSection(Section):
    built_in = core.AccessLog()

    format: values.LogFormatName | None = key("`json`, `text` or `off`.", fills="format")
    sample_ratio: values.Share | None = key("Share of the exchanges that get a line.", fills="sample_ratio")


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
    logs: values.Flag | None = key("Send events and the access log also as OTLP log records.", fills="logs")
