"""What is told to whom."""

from __future__ import annotations

from enum import Enum
from typing import Final

from sidecar.core.dataclass import dataclass


class LogFormat(Enum):
    JSON = "json"
    TEXT = "text"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class AccessLog:
    format: LogFormat = LogFormat.JSON
    sample_ratio: float = 1.0
    attempts: bool = False
    """Each line tells of all its attempts."""


@dataclass(frozen=True, slots=True)
class Otlp:
    endpoint: str
    protocol: str = "grpc"
    """`grpc` or `http/protobuf`."""
    headers: tuple[tuple[str, str], ...] = ()
    compression: str | None = None


class ClientSpans(Enum):
    """Which attempts get a CLIENT span."""

    AUTO = "auto"
    """All but the first one of an inbound route without `retry` and `hedge`: the SERVER span stands for it."""
    ALL = "all"


DURATION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the semantic conventions' advice for both HTTP duration histograms."""


MOST_SERIES: Final = 20_000
"""Rows of both HTTP duration histograms; about 10 MB."""


class Propagator(Enum):
    """A way to hand a trace's context on. The words are those of `OTEL_PROPAGATORS`."""

    TRACECONTEXT = "tracecontext"
    BAGGAGE = "baggage"
    B3 = "b3"
    B3_MULTI = "b3multi"
    """Reads what `b3` reads; where none came, it writes several fields."""
    JAEGER = "jaeger"
    XRAY = "xray"
    DATADOG = "datadog"


@dataclass(frozen=True, slots=True)
class Telemetry:
    service_name: str | None = None
    otlp: Otlp | None = None
    """None = nothing is exported."""
    trace_sample_ratio: float = 0.01
    client_spans: ClientSpans = ClientSpans.AUTO
    propagators: tuple[Propagator, ...] = (Propagator.TRACECONTEXT, Propagator.BAGGAGE, Propagator.B3)
    """The first one whose context is valid is believed."""
    metrics_interval_seconds: float = 10.0
    duration_bounds: tuple[float, ...] = DURATION_BOUNDS
    """Upper bounds of the buckets of how long requests took."""
    metrics_prefix: str | None = None
    """What stands, with a dot, before names of metrics that an instrumented app uses too; None: nothing."""
    native_histograms: bool = False
    """How long requests took is counted in exponential buckets as well, which scrapers get by protobuf."""
    access_log: AccessLog = AccessLog()
    logs: bool = False
    """Events and access log also as OTLP log records."""
