"""Sends finished OTLP requests by the SDK's exporters, grpc or http/protobuf; each is imported when it is
used.

The exporters bring the transport: TLS, headers, compression, timeouts, retries, reconnection and every
`OTEL_EXPORTER_OTLP_*` variable. They are handed requests that are encoded already (see `wire.py` for why), by
the two hooks that differ between them; `make_sink` fails at start, not at export, if a release lacks its
hook.

gRPC costs 16 MiB of memory, which a process that does not export must not pay.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

from sidecar.telemetry.settings import GRPC, Export

_log = logging.getLogger(__name__)

_EXPORTERS = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_GRPC_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


class Sink(Protocol):
    """Takes encoded requests to a collector."""

    def send(self, request: bytes) -> bool:
        """Send one encoded `Export…ServiceRequest`; False if it was lost. Blocks up to the exporter's timeout."""

    def close(self) -> None:
        """Abort a send that is under way, and free the connection."""


def make_sink(signal: str, export: Export) -> Sink:
    """Build the sink of one signal: `traces`, `metrics` or `logs`.

    Raises:
        RuntimeError: the installed exporter does not have the hook that is needed.
    """
    module_name, class_name = _EXPORTERS[signal]
    kind = "grpc" if export.protocol == GRPC else "http"
    module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{kind}.{module_name}")
    exporter_class = getattr(module, class_name)
    return _GrpcSink(signal, exporter_class, export) if kind == "grpc" else _HttpSink(exporter_class, export)


class _GrpcSink:
    def __init__(self, signal: str, exporter_class: Any, export: Export) -> None:
        _check_hooks(
            exporter_class, "_translate_data", "_count_data", "_export", "_initialize_channel_and_stub"
        )

        class Encoded(exporter_class):  # type: ignore[misc]
            def _translate_data(self, data: Any) -> Any:
                return data

            def _count_data(self, data: Any) -> int:
                return 1

            def _initialize_channel_and_stub(self) -> None:
                self._stub = _raw_stub(_GRPC_METHODS[signal])
                super()._initialize_channel_and_stub()

        compressions = importlib.import_module("grpc").Compression
        self._exporter = Encoded(
            endpoint=export.endpoint,
            headers=export.headers,
            compression=_compression(compressions, export),
        )

    def send(self, request: bytes) -> bool:
        return _succeeded(lambda: bool(self._exporter._export(request).name == "SUCCESS"))

    def close(self) -> None:
        self._exporter.shutdown()


def _raw_stub(method: str) -> Callable[[Any], Any]:
    """What the exporter makes anew with each connection: a stub without serializers, so bytes pass as they are."""

    class Stub:
        def __init__(self, channel: Any) -> None:
            self.Export = channel.unary_unary(method)

    return Stub


class _HttpSink:
    def __init__(self, exporter_class: Any, export: Export) -> None:
        compressions = importlib.import_module("opentelemetry.exporter.otlp.proto.http").Compression
        self._exporter = exporter_class(
            endpoint=export.endpoint,
            headers=None if export.headers is None else dict(export.headers),
            compression=_compression(compressions, export),
        )
        _check_hooks(self._exporter, "_client")
        self._client: Any = self._exporter._client
        _check_hooks(self._client, "export")

    def send(self, request: bytes) -> bool:
        return _succeeded(lambda: bool(self._client.export(request).success))

    def close(self) -> None:
        self._exporter.shutdown()


def _compression(compressions: Any, export: Export) -> Any:
    """None leaves it to the environment."""
    return {"gzip": compressions.Gzip, "none": compressions.NoCompression}.get(export.compression or "")


def _succeeded(send: Callable[[], bool]) -> bool:
    try:
        return send()
    except Exception as error:  # a transport's surprise must cost one batch, not the thread
        _log.warning("Export failed: %s: %s", type(error).__name__, error)
        return False


def _check_hooks(owner: Any, *names: str) -> None:
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        raise RuntimeError(
            f"the installed opentelemetry-exporter-otlp has no {', '.join(missing)} in {owner!r}: "
            "install the release that this package names"
        )
