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


class Sink(Protocol):
    """Takes encoded requests to a collector."""

    def send(self, request: Any) -> bool:
        """Send one `Export…ServiceRequest`; False if it was lost. Blocks up to the exporter's timeout."""

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
    return _GrpcSink(exporter_class, export) if kind == "grpc" else _HttpSink(exporter_class, export)


class _GrpcSink:
    def __init__(self, exporter_class: Any, export: Export) -> None:
        if not (hasattr(exporter_class, "_translate_data") and hasattr(exporter_class, "_export")):
            raise _missing_hook(exporter_class)

        class Encoded(exporter_class):  # type: ignore[misc]
            def _translate_data(self, data: Any) -> Any:
                return data

            def _count_data(self, data: Any) -> int:
                return 1

        compressions = importlib.import_module("grpc").Compression
        self._exporter = Encoded(
            endpoint=export.endpoint,
            headers=export.headers,
            compression=_compression(compressions, export),
        )

    def send(self, request: Any) -> bool:
        return _succeeded(lambda: bool(self._exporter._export(request).name == "SUCCESS"))

    def close(self) -> None:
        self._exporter.shutdown()


class _HttpSink:
    def __init__(self, exporter_class: Any, export: Export) -> None:
        compressions = importlib.import_module("opentelemetry.exporter.otlp.proto.http").Compression
        self._exporter = exporter_class(
            endpoint=export.endpoint,
            headers=None if export.headers is None else dict(export.headers),
            compression=_compression(compressions, export),
        )
        client = getattr(self._exporter, "_client", None)
        if not callable(getattr(client, "export", None)):
            raise _missing_hook(exporter_class)
        self._client: Any = client

    def send(self, request: Any) -> bool:
        return _succeeded(lambda: bool(self._client.export(request.SerializeToString()).success))

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


def _missing_hook(exporter_class: Any) -> RuntimeError:
    return RuntimeError(
        f"{exporter_class.__module__}.{exporter_class.__name__} cannot take encoded requests: "
        "install the release of opentelemetry-exporter-otlp that this package names"
    )
