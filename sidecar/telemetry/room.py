"""The telemetry of one worker process: builds the observers and the exporting threads, starts and stops them.

`runtime/` makes one `TelemetryRoom`, gives its `observer` to the data path, and wires nothing else. What is
not configured is not imported: without an exporter no OpenTelemetry module is loaded.

Start it after a fork, never before: threads do not survive one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from sidecar.core.checked import Checked
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.installed import version
from sidecar.core.mirrored import CopyOutcome, Mirrored
from sidecar.core.numbers import Numbers
from sidecar.core.observe import Notice, Observe, ObservedExchange, nobody_asks
from sidecar.core.snapshot import Telemetry
from sidecar.core.sources import ReloadReport, Sources
from sidecar.core.transition import Transition
from sidecar.telemetry.access_log import Log
from sidecar.telemetry.identity import WORKER
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.process_log import ProcessLog, error_of, level_of, text_of
from sidecar.telemetry.proxies import proxies_here
from sidecar.telemetry.sampling import Decide, make_decide
from sidecar.telemetry.settings import Export, Settings, read_settings
from sidecar.telemetry.spans import Ending, SpanRecorder, TransitionIds, Wake
from sidecar.telemetry.temporality import Temporality

if TYPE_CHECKING:
    from sidecar.telemetry.export import Sink
    from sidecar.telemetry.otlp_logs import LogPipeline
    from sidecar.telemetry.pipeline import Pipeline

STOP_SECONDS = 2.0
"""How long the end of the process may wait for telemetry."""
_LOG_SHARE = 0.25


class Reporter:
    """Tells the numbers everything, and the others only what they want: one call for the data path."""

    __slots__ = ("_also", "_log", "_numbers", "_spans", "finished", "noticed")

    def __init__(
        self,
        numbers: Numbers,
        spans: SpanRecorder | None,
        log: Log,
        also: Callable[[Transition], None] | None = None,
    ) -> None:
        """`also` is told of transitions alone, after the others."""
        self._numbers = numbers
        self._spans = spans
        self._log = log
        self._also = also
        self.noticed: Callable[[Notice, str], None] = numbers.noticed
        self.finished: Callable[[ObservedExchange], None] = _finished(spans, log)

    def transitioned(self, transition: Transition) -> None:
        self._numbers.transitioned(transition)
        if self._spans is not None:
            self._spans.transitioned(transition)
        self._log.transitioned(transition)
        if self._also is not None:
            self._also(transition)

    def endpoint_changed(self, change: EndpointChange) -> None:
        self._log.endpoint_changed(change)

    def copy_ended(self, route_name: str, upstream: str, outcome: CopyOutcome) -> None:
        self._numbers.copy_ended(route_name, upstream, outcome)

    def mirrored(self, copy: Mirrored) -> None:
        if self._spans is not None:
            self._spans.mirrored(copy)

    def checked(self, checked: Checked) -> None:
        if self._spans is not None:
            self._spans.checked(checked)
        self._log.checked(checked)


def _finished(spans: SpanRecorder | None, log: Log) -> Callable[[ObservedExchange], None]:
    """The shortest function that tells all who want to know: a layer of calls costs 0.2 µs."""
    if spans is None:
        return log.finished if log.has_access_log else nobody_asks
    keep, has_access_log = spans.finished, log.has_access_log

    def tell_all(exchange: ObservedExchange) -> None:
        if exchange.trace.is_sampled:
            keep(exchange)
        if has_access_log:
            log.finished(exchange)

    return tell_all


class TelemetryRoom:
    """Everything that observes one process."""

    def __init__(
        self,
        file: Telemetry,
        numbers: Numbers,
        sources: Callable[[], Sources],
        *,
        environ: Mapping[str, str],
        log_fd: int,
        secret: bytes | None = None,
        instead_of: TelemetryRoom | None = None,
        on_transition: Callable[[Transition], None] | None = None,
    ) -> None:
        """Build it; nothing runs before `start`.

        `sources` is called from a thread at each collection. `secret` (see `TransitionIds`) must be the same
        in all workers of one run; None draws one for a single process. Changes of the file's `telemetry`
        section need a new room. `instead_of` is one that has ended, for which this one goes on with the same
        `numbers`: what the collector has of them is not told again. `on_transition` is told of each, on the event
        loop.

        Raises:
            RuntimeError: the installed exporters cannot be used.
        """
        self.settings: Settings = read_settings(file, environ)
        self.decide: Decide = make_decide(self.settings)
        self._log_pipeline: LogPipeline | None = None
        self._pipelines: list[tuple[str, Pipeline]] = []
        self._wake = Wake()
        self._temporality: Temporality = (
            Temporality(self.settings.temporality, time.time_ns())
            if instead_of is None
            else instead_of._temporality
        )
        self._recorder: SpanRecorder | None = None
        self._sources = sources
        self._ids = TransitionIds(secret or os.urandom(32))
        self._warnings = list(self.settings.warnings)
        self._proxies: Mapping[str, str] = {}
        self._sdk_log = _SdkLog()
        if self.settings.traces or self.settings.metrics or self.settings.logs:
            self._proxies = proxies_here(environ)
            for variable, where in self._proxies.items():
                proxy = f"{variable} names a proxy on this host ({where}), which may be this sidecar"
                self._warnings.append(f"{proxy}: exports go to the collector directly")
            with self._sdk_log.attached():  # the exporters complain of variables as they are made
                self._build_pipelines(numbers, sources, environ)
        also = self._log_pipeline.add if self._log_pipeline is not None else None
        self.log = Log(file.access_log, log_fd, also=also, worker=environ.get(WORKER, ""))
        self._process_log = ProcessLog(self.log)
        self.observer: Observe = Reporter(numbers, self._recorder, self.log, on_transition)

    def start(self) -> None:
        """Start the threads."""
        self.log.start()
        self._sdk_log.attach()
        self._sdk_log.tell(self.log)
        self._process_log.attach()
        for warning in self._warnings:
            self.log.event(Level.WARNING, "telemetry.setting", warning, {}, time.monotonic())
        for _, pipeline in self._pipelines:
            pipeline.start()

    def is_alive(self) -> bool:
        """False if one of the threads has ended by itself."""
        return self.log.is_alive() and all(pipeline.is_alive() for _, pipeline in self._pipelines)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Send and write what waits, for at most `seconds`. Blocks: call it when the loop has nothing left to
        do."""
        now = time.monotonic()
        deadline = now + seconds
        until_log = deadline - _LOG_SHARE * seconds  # an exporter that hangs must not cost the last lines too
        if self._recorder is not None:
            self._recorder.end(Ending(now, self._rejected()))
        for _, pipeline in self._pipelines:
            if pipeline is not self._log_pipeline:
                pipeline.ask_to_stop()
        if self._log_pipeline is not None:  # it gets its lines from the log's writer
            self.log.flush(now + _LOG_SHARE * seconds)
            self._log_pipeline.ask_to_stop()
        for _, pipeline in self._pipelines:
            pipeline.stop(until_log)
        self._sdk_log.detach()
        self._process_log.detach()
        self.log.stop(deadline)

    def reloaded(self, report: ReloadReport) -> None:
        """Show a reload as a span and a log line."""
        if self._recorder is not None:
            self._recorder.reloaded(report)
        self.log.reloaded(report)

    def dropped(self) -> dict[tuple[str, str], int]:
        """What was lost so far, by (signal, reason): for `Sources.dropped`."""
        counts = {
            ("access_log", "queue_full"): self.log.dropped,
            ("access_log", "write_failed"): self.log.write_failed,
        }
        if self._recorder is not None:
            counts["traces", "queue_full"] = self._recorder.dropped_spans
        if self._log_pipeline is not None:
            counts["logs", "queue_full"] = self._log_pipeline.dropped + self.log.unwritten
        for signal, pipeline in self._pipelines:
            counts[signal, "export_failed"] = pipeline.failed
            counts[signal, "refused"] = pipeline.refused
        return counts

    def _rejected(self) -> dict[tuple[str, str], int]:
        return {(one.route, one.upstream): one.rejected for one in self._sources().breakers}

    def _sink(self, signal: str, export: Export | None) -> Sink | None:
        """None where nothing is to be sent, or nothing can be: a certificate that is no file must not keep a proxy
        from its work."""
        from sidecar.telemetry.export import make_sink

        if export is None:
            return None
        try:
            return make_sink(signal, export, is_direct=bool(self._proxies))
        except (OSError, ValueError) as error:
            self._warnings.append(f"{signal} are not exported: {type(error).__name__}: {error}")
            return None

    def _build_pipelines(
        self, numbers: Numbers, sources: Callable[[], Sources], environ: Mapping[str, str]
    ) -> None:
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        from sidecar.telemetry import metrics, otlp_logs, pipeline, resource, span_shape

        settings = self.settings
        scope = InstrumentationScope("sidecar", version(), resource.SCHEMA_URL)
        who = resource.make_resource(settings.service_name, environ)
        if (sink := self._sink("traces", settings.traces)) is not None:
            self._recorder = SpanRecorder(
                capacity=settings.span_queue,
                wake_at=min(settings.span_batch, pipeline.RECORDS_PER_SLICE),
                wake=self._wake.raise_flag,
            )
            spans = pipeline.SpanPipeline(
                self._recorder,
                span_shape.SpanShaper(self._ids),
                sink,
                self._wake,
                resource=who,
                scope=scope,
                interval_seconds=settings.span_delay_seconds,
                batch=settings.span_batch,
            )
            self._pipelines.append(("traces", spans))
        if (sink := self._sink("metrics", settings.metrics)) is not None:
            builder = metrics.MetricBuilder(
                numbers, who, scope, self._temporality, is_exponential=settings.is_exponential
            )
            rows = pipeline.MetricPipeline(builder, sources, sink, settings.metrics_interval_seconds)
            self._pipelines.append(("metrics", rows))
        if (sink := self._sink("logs", settings.logs)) is not None:
            self._log_pipeline = otlp_logs.LogPipeline(sink, *pipeline.encode_origin(who, scope))
            self._pipelines.append(("logs", self._log_pipeline))


class _SdkLog(logging.Handler):
    """Brings what the SDK's exporters log (a collector that is down, for one) into the event log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._log: Log | None = None
        self._early: list[logging.LogRecord] = []
        """Of the time before there is a log."""
        self._loggers = [logging.getLogger("opentelemetry"), logging.getLogger(__package__)]

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        self.attach()
        try:
            yield
        finally:
            self.detach()

    def attach(self) -> None:
        for logger in self._loggers:
            logger.addHandler(self)
            logger.propagate = False

    def detach(self) -> None:
        for logger in self._loggers:
            logger.removeHandler(self)
            logger.propagate = not any(isinstance(handler, _SdkLog) for handler in logger.handlers)

    def tell(self, log: Log) -> None:
        """From now on to this one."""
        self._log = log
        for record in self._early:
            self.emit(record)
        self._early.clear()

    def emit(self, record: logging.LogRecord) -> None:
        if self._log is None:
            self._early.append(record)
            return
        fields, message = {"logger": record.name}, record.getMessage()
        if (error := error_of(record)) is not None:
            fields["error"] = text_of(error)
            message = f"{message}: {fields['error']}"
        self._log.event(level_of(record), "telemetry.export", message, fields, time.monotonic())
