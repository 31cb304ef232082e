"""What is exported, where to and how often: the file's `telemetry` section and the `OTEL_*` variables,
merged.

The variables win, as the OpenTelemetry specification says. Endpoint, headers and certificates that stand in the
environment are left for the SDK's exporters to read; here is only decided whether the file's value is needed
instead. Compression and timeout are read here: the SDK's exporter for gRPC breaks on an empty value and on the
specification's own `none`, and both take the timeout for seconds, where the specification has milliseconds. A
value that cannot be read is ignored with a warning, and an empty one is none.
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Otlp, Propagator, Telemetry

GRPC, HTTP = "grpc", "http/protobuf"
SIGNALS = ("traces", "metrics", "logs")
COMPRESSIONS = ("none", "gzip")
DEFAULT_TIMEOUT_SECONDS = 10.0
TEMPORALITIES = ("cumulative", "delta", "lowmemory")
EXPLICIT, EXPONENTIAL = "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
AGGREGATIONS = (EXPLICIT, EXPONENTIAL)

SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)


@dataclass(frozen=True, slots=True)
class Export:
    """Where one signal goes. None means: as the environment or the SDK's default says."""

    protocol: str
    endpoint: str | None
    """For http/protobuf with the signal's path."""
    headers: tuple[tuple[str, str], ...] | None
    compression: str
    """One of `COMPRESSIONS`."""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    """Of one request, with all that the exporter tries again."""


@dataclass(frozen=True, slots=True)
class Settings:
    traces: Export | None
    """None = this signal is not exported; the same for the other two."""
    metrics: Export | None
    logs: Export | None
    is_disabled: bool
    """`OTEL_SDK_DISABLED`."""
    sampler: str
    sample_ratio: float
    span_queue: int
    """Exchanges that wait for export; about 3 KiB each at most."""
    span_batch: int
    span_delay_seconds: float
    metrics_interval_seconds: float
    propagators: tuple[Propagator, ...]
    temporality: str
    """One of `TEMPORALITIES`: whether a metric's points tell the whole sum, or what has come since the last time."""
    is_exponential: bool
    """Histograms are sent in exponential buckets where these are kept."""
    service_name: str | None
    warnings: tuple[str, ...]


def read_settings(file: Telemetry, environ: Mapping[str, str]) -> Settings:
    """Merge the file's values with the environment."""
    warnings: list[str] = []
    number = _Numbers(environ, warnings)
    is_disabled = _is_disabled(environ, warnings)
    exports = {signal: _export(signal, file, environ, number, warnings) for signal in SIGNALS}
    if is_disabled:
        exports = dict.fromkeys(SIGNALS)
    sampler, ratio = _sampler(file, environ, number, warnings)
    queue = int(number.read("OTEL_BSP_MAX_QUEUE_SIZE", 2048, least=1))
    return Settings(
        traces=exports["traces"],
        metrics=exports["metrics"],
        logs=exports["logs"],
        is_disabled=is_disabled,
        sampler=sampler,
        sample_ratio=ratio,
        span_queue=queue,
        span_batch=min(queue, int(number.read("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, least=1))),
        span_delay_seconds=number.read("OTEL_BSP_SCHEDULE_DELAY", 5000, least=1) / 1000,
        metrics_interval_seconds=number.read(
            "OTEL_METRIC_EXPORT_INTERVAL", file.metrics_interval_seconds * 1000, least=1
        )
        / 1000,
        propagators=_propagators(file, environ, warnings),
        temporality=_one_of(
            TEMPORALITIES,
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "cumulative",
            environ,
            warnings,
        ),
        is_exponential=exports["metrics"] is not None
        and _one_of(
            AGGREGATIONS,
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            EXPLICIT,
            environ,
            warnings,
        )
        == EXPONENTIAL,
        service_name=file.service_name,
        warnings=tuple(dict.fromkeys(warnings)),
    )


class _Numbers:
    """Reads numbers from the environment; a bad one is reported and replaced by the default."""

    def __init__(self, environ: Mapping[str, str], warnings: list[str]) -> None:
        self._environ = environ
        self._warnings = warnings

    def read(self, name: str, default: float, *, least: float = 0.0, most: float = 1e12) -> float:
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if least <= value <= most:
            return value
        bounds = f"of at least {least:g}" if most >= 1e12 else f"from {least:g} to {most:g}"
        self._warnings.append(f"{name}={text!r} is not a number {bounds}: using {default:g}")
        return default


def _is_disabled(environ: Mapping[str, str], warnings: list[str]) -> bool:
    text = environ.get("OTEL_SDK_DISABLED", "").strip().lower()
    if text not in ("", "true", "false"):
        warnings.append(f"OTEL_SDK_DISABLED={text!r} is neither true nor false: using false")
    return text == "true"


def _one_of(
    known: tuple[str, ...], name: str, default: str, environ: Mapping[str, str], warnings: list[str]
) -> str:
    value = environ.get(name, "").strip().lower()
    if value in known:
        return value
    if value:
        warnings.append(f"{name}={value!r} is none of {', '.join(known)}: using {default}")
    return default


def _sampler(
    file: Telemetry, environ: Mapping[str, str], number: _Numbers, warnings: list[str]
) -> tuple[str, float]:
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if name and name not in SAMPLERS:
        warnings.append(f"OTEL_TRACES_SAMPLER={name!r} is none of {', '.join(SAMPLERS)}: using the file's")
        name = ""
    if not name:
        return "parentbased_traceidratio", file.trace_sample_ratio
    return name, number.read("OTEL_TRACES_SAMPLER_ARG", 1.0, most=1.0)


def _propagators(file: Telemetry, environ: Mapping[str, str], warnings: list[str]) -> tuple[Propagator, ...]:
    """`none` has no effect on `traceparent`, by which deadlines travel."""
    names = [name.strip().lower() for name in environ.get("OTEL_PROPAGATORS", "").split(",")]
    names = [name for name in dict.fromkeys(names) if name]
    if not names:
        return file.propagators
    known = {one.value: one for one in Propagator}
    unknown = [name for name in names if name not in known and name != "none"]
    if unknown:
        warnings.append(
            f"OTEL_PROPAGATORS names {', '.join(unknown)}, of which nothing is read or written:"
            f" known are {', '.join(known)}"
        )
    if "none" in names:
        warnings.append(
            "OTEL_PROPAGATORS=none: traceparent is still read and written, because deadlines travel by it"
        )
        return (Propagator.TRACECONTEXT,)
    return tuple(known[name] for name in names if name in known)


def _export(
    signal: str, file: Telemetry, environ: Mapping[str, str], number: _Numbers, warnings: list[str]
) -> Export | None:
    otlp = file.otlp
    has_endpoint = _has(environ, signal, "ENDPOINT")
    chosen = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower()
    if chosen not in ("", "otlp", "none"):
        warnings.append(f"OTEL_{signal.upper()}_EXPORTER={chosen!r} is neither otlp nor none: using otlp")
    if signal == "logs" and not (file.logs or chosen == "otlp"):
        return None
    if chosen == "none" or not (otlp or has_endpoint or chosen):
        return None
    protocol = _protocol(signal, otlp, environ, warnings)
    endpoint = None if has_endpoint or otlp is None else _endpoint(otlp.endpoint, signal, protocol, warnings)
    return Export(
        protocol=protocol,
        endpoint=endpoint,
        headers=None if otlp is None or _has(environ, signal, "HEADERS") else otlp.headers or None,
        compression=_compression(signal, otlp, environ, warnings),
        timeout_seconds=_timeout_seconds(signal, number),
    )


def _compression(signal: str, otlp: Otlp | None, environ: Mapping[str, str], warnings: list[str]) -> str:
    value = (otlp.compression if otlp is not None else None) or "none"
    for name in reversed(_names(signal, "COMPRESSION")):
        value = _one_of(COMPRESSIONS, name, value, environ, warnings)
    return value


def _timeout_seconds(signal: str, number: _Numbers) -> float:
    milliseconds = DEFAULT_TIMEOUT_SECONDS * 1000
    for name in reversed(_names(signal, "TIMEOUT")):
        milliseconds = number.read(name, milliseconds, least=1)
    return milliseconds / 1000


def _protocol(signal: str, otlp: Otlp | None, environ: Mapping[str, str], warnings: list[str]) -> str:
    for name in _names(signal, "PROTOCOL"):
        value = environ.get(name, "").strip().lower()
        if value in (GRPC, HTTP):
            return value
        if value:
            warnings.append(f"{name}={value!r} is neither {GRPC} nor {HTTP}: ignored")
    return otlp.protocol if otlp is not None else GRPC


def _endpoint(endpoint: str, signal: str, protocol: str, warnings: list[str]) -> str:
    """The file's endpoint is a base, as `OTEL_EXPORTER_OTLP_ENDPOINT` is. One signal's path at its end is told and
    left out."""
    base = endpoint.rstrip("/")
    for path in (f"/v1/{one}" for one in SIGNALS):
        if base.endswith(path):
            base = endpoint = base.removesuffix(path)
            warnings.append(f"telemetry.otlp.endpoint is for all signals: using {base} without {path}")
    return endpoint if protocol == GRPC else f"{base}/v1/{signal}"


def _has(environ: Mapping[str, str], signal: str, what: str) -> bool:
    return any(environ.get(name, "").strip() for name in _names(signal, what))


def _names(signal: str, what: str) -> tuple[str, str]:
    """The variable for one signal, which wins, and the one for all."""
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}"
