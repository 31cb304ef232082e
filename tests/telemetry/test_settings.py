"""The environment wins over the file; what it says wrong is reported and ignored."""

from __future__ import annotations

import os
import random

import pytest

from sidecar.core.contract import BUILD
from sidecar.core.snapshot import Otlp, Propagator, Telemetry
from sidecar.telemetry.export import make_sink
from sidecar.telemetry.resource import SCHEMA_URL, make_resource
from sidecar.telemetry.sampling import make_decide
from sidecar.telemetry.settings import SAMPLERS, Export, read_settings

FILE = Telemetry(service_name="orders", otlp=Otlp("http://file:4317", "grpc", (("k", "v"),), "gzip"))
FILE_EXPORT = Export("grpc", "http://file:4317", (("k", "v"),), "gzip")


def test_file_alone() -> None:
    settings = read_settings(FILE, {})
    assert (settings.traces, settings.metrics, settings.logs) == (FILE_EXPORT, FILE_EXPORT, None)
    assert (settings.span_queue, settings.span_batch, settings.span_delay_seconds) == (2048, 512, 5.0)
    assert settings.metrics_interval_seconds == 10.0
    assert (settings.sampler, settings.sample_ratio) == ("parentbased_traceidratio", 0.01)
    assert settings.warnings == ()


def test_nothing_configured_exports_nothing() -> None:
    settings = read_settings(Telemetry(), {})
    assert (settings.traces, settings.metrics, settings.logs) == (None, None, None)


def test_file_endpoint_is_a_base_for_http() -> None:
    file = Telemetry(otlp=Otlp("http://file:4318/", "http/protobuf"), logs=True)
    settings = read_settings(file, {})
    assert settings.traces is not None
    assert settings.traces.endpoint == "http://file:4318/v1/traces"
    assert settings.logs is not None
    assert settings.logs.endpoint == "http://file:4318/v1/logs"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_path_of_one_signal_in_the_files_endpoint_is_told_and_left_out(protocol: str) -> None:
    file = Telemetry(otlp=Otlp("http://file:4318/v1/traces/", protocol))
    settings = read_settings(file, {})
    assert settings.traces is not None
    assert settings.metrics is not None
    is_http = protocol == "http/protobuf"
    assert settings.traces.endpoint == "http://file:4318" + ("/v1/traces" if is_http else "")
    assert settings.metrics.endpoint == "http://file:4318" + ("/v1/metrics" if is_http else "")
    assert settings.warnings == (
        "telemetry.otlp.endpoint is for all signals: using http://file:4318 without /v1/traces",
    )


def test_environment_endpoint_headers_and_compression_are_left_to_the_exporter() -> None:
    settings = read_settings(
        FILE,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=b",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        },
    )
    assert settings.traces == Export("http/protobuf", None, None, "none")


def test_variable_of_one_signal_leaves_the_others_alone() -> None:
    settings = read_settings(FILE, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://env:4317"})
    assert settings.traces == Export("grpc", None, (("k", "v"),), "gzip")
    assert settings.metrics == FILE_EXPORT


def test_endpoint_in_the_environment_is_enough() -> None:
    settings = read_settings(Telemetry(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4317"})
    assert settings.traces == settings.metrics == Export("grpc", None, None, "none")


def test_exporter_none_switches_one_signal_off() -> None:
    settings = read_settings(FILE, {"OTEL_TRACES_EXPORTER": "none"})
    assert settings.traces is None
    assert settings.metrics == FILE_EXPORT


def test_disabled_sdk_exports_nothing_and_passes_the_parents_flag_on() -> None:
    settings = read_settings(FILE, {"OTEL_SDK_DISABLED": "TRUE"})
    assert (settings.traces, settings.metrics, settings.logs) == (None, None, None)
    decide = make_decide(settings)
    assert [decide(parent, b"0" * 32) for parent in (True, False, None)] == [True, False, False]


def test_intervals_and_queues_from_the_environment() -> None:
    settings = read_settings(
        FILE,
        {
            "OTEL_METRIC_EXPORT_INTERVAL": "2500",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "64",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512",
        },
    )
    assert settings.metrics_interval_seconds == 2.5
    assert settings.span_delay_seconds == 0.1
    assert (settings.span_queue, settings.span_batch) == (64, 64), "a batch is never larger than the queue"


@pytest.mark.parametrize(
    ("value", "is_exponential"),
    [
        ("", False),
        ("explicit_bucket_histogram", False),
        ("base2_exponential_bucket_histogram", True),
        (" BASE2_exponential_bucket_histogram ", True),
        ("native", False),
    ],
)
def test_histograms_that_are_sent_are_exponential_where_the_variable_says_so(
    value: str, is_exponential: bool
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": value}
    assert read_settings(FILE, environ).is_exponential is is_exponential
    assert not read_settings(FILE, {**environ, "OTEL_METRICS_EXPORTER": "none"}).is_exponential, (
        "nothing is sent, and what nobody gets is not kept"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-5"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_METRICS_EXPORTER", "console"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "native"),
    ],
)
def test_unreadable_value_is_reported_and_ignored(name: str, value: str) -> None:
    settings = read_settings(FILE, {name: value})
    assert all(name in warning for warning in settings.warnings)
    assert settings.warnings
    plain = read_settings(FILE, {})
    assert (settings.traces, settings.metrics, settings.span_queue) == (
        plain.traces,
        plain.metrics,
        plain.span_queue,
    )


def test_a_warning_is_told_once_for_all_signals() -> None:
    assert len(read_settings(FILE, {"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}).warnings) == 1


def test_timeout_is_in_milliseconds_and_one_signal_may_have_its_own() -> None:
    environ = {"OTEL_EXPORTER_OTLP_TIMEOUT": "2500", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "100"}
    settings = read_settings(FILE, environ)
    assert settings.traces is not None
    assert settings.traces.timeout_seconds == 2.5
    assert settings.metrics is not None
    assert settings.metrics.timeout_seconds == 0.1


def test_compression_of_one_signal_wins_over_that_of_all_and_over_the_file() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "GZIP",
    }
    settings = read_settings(FILE, environ)
    assert settings.traces is not None
    assert settings.traces.compression == "none"
    assert settings.metrics is not None
    assert settings.metrics.compression == "gzip"


@pytest.mark.parametrize("what", ["ENDPOINT", "HEADERS", "PROTOCOL", "COMPRESSION", "TIMEOUT"])
def test_an_empty_variable_is_none(what: str) -> None:
    environ = {f"OTEL_EXPORTER_OTLP_{what}": "", f"OTEL_EXPORTER_OTLP_TRACES_{what}": " "}
    assert read_settings(FILE, environ) == read_settings(FILE, {})


def test_sampler_argument_out_of_range_is_reported() -> None:
    environ = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}
    settings = read_settings(FILE, environ)
    assert settings.sample_ratio == 1.0
    assert settings.warnings


@pytest.mark.parametrize("name", SAMPLERS)
def test_decisions_are_those_of_the_sdks_samplers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace.sampling import _get_from_env_or_default

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.3")
    theirs = _get_from_env_or_default()
    ours = make_decide(read_settings(FILE, os.environ))
    rng = random.Random(7)
    for _ in range(300):
        trace_id = rng.getrandbits(128)
        for parent in (None, True, False):
            context = None
            if parent is not None:
                flags = trace.TraceFlags(int(parent))
                span = trace.NonRecordingSpan(
                    trace.SpanContext(trace_id, 1, is_remote=True, trace_flags=flags)
                )
                context = trace.set_span_in_context(span)
            decision = theirs.should_sample(context, trace_id, "x").decision.is_sampled()
            assert ours(parent, b"%032x" % trace_id) is decision


@pytest.mark.parametrize(
    ("low_bits", "ratio", "is_sampled"),
    [
        (0, 0.0, False),
        (0, 1e-9, True),
        ((1 << 64) - 1, 1.0, True),
        ((1 << 63) - 1, 0.5, True),
        (1 << 63, 0.5, False),
    ],
)
@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_a_ratio_looks_at_the_lower_64_bits(
    sampler: str, low_bits: int, ratio: float, is_sampled: bool
) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": str(ratio)}
    decide = make_decide(read_settings(FILE, environ))
    for high in (b"0" * 16, b"f" * 16):
        assert decide(None, high + b"%016x" % low_bits) is is_sampled


def test_resource_takes_the_environment_over_kubernetes_over_the_file() -> None:
    environ = {"POD_NAME": "orders-1", "POD_NAMESPACE": "shop", "POD_UID": "u1", "NODE_NAME": "n1"}
    found = make_resource("orders", environ).attributes
    assert found["service.name"] == "orders"
    assert found["k8s.pod.name"] == "orders-1"
    assert found["k8s.namespace.name"] == "shop"
    assert found["k8s.pod.uid"] == "u1"
    assert found["k8s.node.name"] == "n1"
    assert found["telemetry.sdk.language"] == "python"
    assert found["sidecar.build"] == BUILD
    assert found["service.instance.id"] == make_resource("orders", environ).attributes["service.instance.id"]
    assert make_resource("orders", environ).schema_url == SCHEMA_URL
    environ["OTEL_RESOURCE_ATTRIBUTES"] = "service.name=low,k8s.pod.name=other,team=a"
    environ["OTEL_SERVICE_NAME"] = "high"
    found = make_resource("orders", environ).attributes
    assert (found["service.name"], found["k8s.pod.name"], found["team"]) == ("high", "other", "a")


def test_service_without_a_name_is_called_sidecar() -> None:
    assert make_resource(None, {}).attributes["service.name"] == "sidecar"


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_installed_exporters_have_the_hooks(
    signal: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "from=environment")
    for name in ("COMPRESSION", "TIMEOUT", f"{signal.upper()}_COMPRESSION", f"{signal.upper()}_TIMEOUT"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "none")  # the gRPC exporter would break on it
    sink = make_sink(signal, Export(protocol, "http://127.0.0.1:1", None, "gzip"))
    sink.close()


# Forms of a trace's context


def test_propagators_of_the_environment_win_over_the_files() -> None:
    file = Telemetry(propagators=(Propagator.JAEGER,))
    assert read_settings(file, {}).propagators == (Propagator.JAEGER,)
    assert read_settings(file, {"OTEL_PROPAGATORS": " "}).propagators == (Propagator.JAEGER,)
    settings = read_settings(file, {"OTEL_PROPAGATORS": "B3, tracecontext,b3,xray"})
    assert settings.propagators == (Propagator.B3, Propagator.TRACECONTEXT, Propagator.XRAY)
    assert settings.warnings == ()


def test_propagators_that_are_not_supported_are_told_at_start() -> None:
    settings = read_settings(Telemetry(), {"OTEL_PROPAGATORS": "tracecontext,ottrace,b3"})
    assert settings.propagators == (Propagator.TRACECONTEXT, Propagator.B3)
    assert settings.warnings == (
        "OTEL_PROPAGATORS names ottrace, of which nothing is read or written:"
        " known are tracecontext, baggage, b3, b3multi, jaeger, xray, datadog",
    )
    none = read_settings(Telemetry(), {"OTEL_PROPAGATORS": "none"})
    assert none.propagators == (Propagator.TRACECONTEXT,)
    assert "deadlines travel by it" in none.warnings[0]
