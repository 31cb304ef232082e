"""Sends finished OTLP requests by the SDK's exporters, grpc or http/protobuf; each is imported when it is
used.

The exporters bring the transport: TLS, headers, compression, retries, reconnection and most of the
`OTEL_EXPORTER_OTLP_*` variables. They are handed requests that are encoded already (see `wire.py` for why), by
the two hooks that differ between them; `make_sink` fails at start, not at export, if a release lacks its
hook. They do not read what a collector answers, so that is done here: it may take a request and refuse a part of it.

gRPC costs 16 MiB of memory, which a process that does not export must not pay.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from sidecar.core.secrets import without_secrets
from sidecar.core.tracebacks import drop_tracebacks
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

    def send(self, request: bytes) -> int | None:
        """Send one encoded `Export…ServiceRequest`: how many of its items the collector refused, None if the whole
        request is lost. Blocks up to the exporter's timeout."""

    def close(self) -> None:
        """Abort a send that is under way, and free the connection."""


def make_sink(signal: str, export: Export, *, is_direct: bool = False) -> Sink:
    """Build the sink of one signal: `traces`, `metrics` or `logs`. `is_direct`: whatever proxy the environment names.

    Raises:
        RuntimeError: the installed exporter does not have the hook that is needed.
    """
    module_name, class_name = _EXPORTERS[signal]
    kind = "grpc" if export.protocol == GRPC else "http"
    module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{kind}.{module_name}")
    exporter_class = getattr(module, class_name)
    with _hidden(signal, "TIMEOUT", "COMPRESSION"):
        if kind == "grpc":
            return _GrpcSink(signal, exporter_class, export, is_direct=is_direct)
        return _HttpSink(exporter_class, export, is_direct=is_direct)


@contextlib.contextmanager
def _hidden(signal: str, *whats: str) -> Iterator[None]:
    """`settings.py` has read these variables, and the gRPC exporter reads them even if it is given their values."""
    names = [f"OTEL_EXPORTER_OTLP_{of}{what}" for of in ("", f"{signal.upper()}_") for what in whats]
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class _GrpcSink:
    def __init__(self, signal: str, exporter_class: Any, export: Export, *, is_direct: bool) -> None:
        _check_hooks(
            exporter_class, "_translate_data", "_count_data", "_export", "_initialize_channel_and_stub"
        )

        self._answer = b""
        self._error: Exception | None = None

        def answered(answer: bytes) -> None:
            self._answer = answer

        def failed(error: Exception) -> None:
            self._error = error

        class Encoded(exporter_class):  # type: ignore[misc]
            def _translate_data(self, data: Any) -> Any:
                return data

            def _count_data(self, data: Any) -> int:
                return 1

            def _initialize_channel_and_stub(self) -> None:
                self._stub = partial(_RawStub, _GRPC_METHODS[signal], answered, failed)
                super()._initialize_channel_and_stub()

        compressions = importlib.import_module("grpc").Compression
        self._exporter = Encoded(
            endpoint=export.endpoint,
            headers=None if export.headers is None else tuple((k.lower(), v) for k, v in export.headers),
            compression=_compression(compressions, export),
            timeout=export.timeout_seconds,
            channel_options=(("grpc.enable_http_proxy", 0),) if is_direct else None,
        )

    def send(self, request: bytes) -> int | None:
        is_sent = _succeeded(lambda: bool(self._exporter._export(request).name == "SUCCESS"))
        drop_tracebacks(self._error)
        self._error = None
        return refused(self._answer) if is_sent else None

    def close(self) -> None:
        self._exporter.shutdown()


class _RawStub:
    """What the exporter makes anew with each connection: a stub without serializers, so bytes pass as they are."""

    def __init__(
        self,
        method: str,
        answered: Callable[[bytes], None],
        failed: Callable[[Exception], None],
        channel: Any,
    ) -> None:
        self._call = channel.unary_unary(method)
        self._answered = answered
        self._failed = failed

    def Export(self, request: bytes, metadata: Any, timeout: float) -> None:
        try:
            self._answered(self._call(request, metadata=metadata, timeout=timeout))
        except Exception as error:  # whatever it is, the exporter may keep it
            self._failed(error)
            raise


class _HttpSink:
    def __init__(self, exporter_class: Any, export: Export, *, is_direct: bool) -> None:
        compressions = importlib.import_module("opentelemetry.exporter.otlp.proto.http").Compression
        self._exporter = exporter_class(
            endpoint=export.endpoint,
            headers=None if export.headers is None else dict(export.headers),
            compression=_compression(compressions, export),
            timeout=export.timeout_seconds,
            session=_session(is_direct=is_direct),
        )
        _check_hooks(self._exporter, "_client")
        self._client: Any = self._exporter._client
        _check_hooks(self._client, "export", "_transport", "_endpoint", "_logger")
        self._client._logger = _TriedAgain(self._client._logger)
        self._where = without_secrets(self._client._endpoint)
        self._answer: Any = None
        ask = self._client._transport.request

        def noted(*words: Any, **named: Any) -> Any:
            self._answer = ask(*words, **named)
            drop_tracebacks(self._answer.error)
            return self._answer

        self._client._transport.request = noted

    def send(self, request: bytes) -> int | None:
        is_taken = _succeeded(lambda: self._is_taken(request))
        answer, self._answer = self._answer, None  # it keeps the request
        if not is_taken:
            return None
        if answer.status_code >= 300:  # to the SDK a redirection is a success
            _log.warning("Export failed: the collector redirects, with status %d", answer.status_code)
            return None
        return refused(answer.content())

    def _is_taken(self, request: bytes) -> bool:
        came = self._client.export(request)
        if not came.success:
            why = came.error or f"{came.status_code or 'no answer in time'} {came.reason or ''}".rstrip()
            _log.error("Failed to export to %s: %s", self._where, why)
        return bool(came.success)

    def close(self) -> None:
        self._exporter.shutdown()


class _TriedAgain(logging.LoggerAdapter):  # type: ignore[type-arg]
    """What the SDK's client says between its tries. Of their end it tells neither where nor, mostly, why."""

    def error(self, *words: object, **named: Any) -> None:
        """Told by who has asked it, with both."""


def _session(*, is_direct: bool) -> Any:
    """What asks by HTTP. By itself it would prefer the authorities that `REQUESTS_CA_BUNDLE` names to the one that
    the exporter was given (`OTEL_EXPORTER_OTLP_CERTIFICATE`)."""
    import requests

    class Session(requests.Session):
        def merge_environment_settings(
            self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
        ) -> Any:
            if verify is None and self.verify is not True:
                verify = self.verify
            settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
            if is_direct:
                settings["proxies"] = {}
            return settings

    return Session()


def _compression(compressions: Any, export: Export) -> Any:
    return {"gzip": compressions.Gzip, "none": compressions.NoCompression}[export.compression]


def refused(answer: bytes) -> int:
    """How many items of a request the collector did not take, by its answer; one that cannot be read says nothing.

    `ExportTracePartialSuccess` and its likes are one on the wire.
    """
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except Exception as error:  # protobuf's implementations have no error in common
        _log.warning("The answer to an export cannot be read, is a collector there? %s", error)
        return 0
    count = max(0, int(partial.rejected_spans))
    if count or partial.error_message:
        _log.warning("The collector refused %d items: %s", count, partial.error_message)
    return count


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
