"""The access log and the event log: one object a line, through a bounded queue to a thread that writes.

The loop only appends a tuple. A reader that stalls blocks the writing thread; the queue then fills, further
lines are dropped and counted, and no request waits.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.core.observe import ObservedExchange
from sidecar.core.snapshot import AccessLog, LogFormat
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import State, Transition
from sidecar.telemetry.log_lines import Level, Record, as_json, as_text, make_line
from sidecar.telemetry.spans import Wake

CAPACITY = 8192
"""Lines that wait for the writer; about 2 KiB each at most."""
_BATCH = 256
_IDLE_SECONDS = 0.1
_FLUSHED = "flushed"
"""Stands in the queue for whoever waits until what is before it has been written."""
_MAX_TARGET, _MAX_HOST, _MAX_AGENT, _MAX_REQUEST_ID, _MAX_DETAIL = 1024, 256, 256, 128, 256


class Log:
    """Both logs of one process: an `Observe`, and `event` for everything else."""

    def __init__(
        self, settings: AccessLog, fd: int, *, also: Callable[[Record, int], None] | None = None
    ) -> None:
        """Write to the file descriptor `fd`; hand each record and its offset (see `make_line`) to `also` too (OTLP
        logs), from the writer's thread."""
        self.dropped = 0
        self.unwritten = 0
        """Of them, those that `also` was never given."""
        self._level = Level.INFO
        self._format = settings.format
        self.has_access_log = settings.format is not LogFormat.OFF or also is not None
        """False if no exchange needs to be shown to this observer."""
        self._bound = round(min(1.0, max(0.0, settings.sample_ratio)) * (1 << 64))
        self._queue: deque[Record] = deque()
        self._wake = Wake()
        self._in_flight = 0
        self._fd = fd
        self._also = also
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="sidecar-log", daemon=True)

    @property
    def level(self) -> Level:
        return self._level

    def set_level(self, level: Level) -> None:
        """Write only lines of at least this level from now on."""
        self._level = level

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def flush(self, deadline: float) -> None:
        """Wait until what waits now has been written, or `deadline` (monotonic seconds) has come."""
        is_done = threading.Event()
        self._queue.append((_FLUSHED, is_done))
        self._wake.raise_flag()
        is_done.wait(max(0.0, deadline - time.monotonic()))

    def stop(self, deadline: float) -> None:
        """Write what waits, until `deadline` (monotonic seconds); count the rest as dropped."""
        self._is_stopping = True
        self._wake.raise_flag()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        left = sum(record[0] != _FLUSHED for record in self._queue)
        self._queue.clear()
        self.unwritten += left
        self.dropped += left + self._in_flight

    def finished(self, exchange: ObservedExchange) -> None:
        """Keep the exchange's line. Exchanges that failed are logged whatever the sampling."""
        reason = exchange.reason
        status = exchange.status
        level = Level.WARNING if reason is not None or status >= 500 else Level.INFO
        if level < self._level:
            return
        trace_id = exchange.trace.trace_id
        if level is Level.INFO and self._bound < 1 << 64 and int(trace_id[16:], 16) >= self._bound:
            return
        attempts = exchange.attempts
        last = attempts[-1] if attempts else None
        detail, peer = exchange.detail, exchange.peer
        agent = exchange.request.lookup.get(b"user-agent")
        self._put(
            (
                "access",
                level,
                exchange.ended,
                exchange.started,
                trace_id,
                exchange.trace.span_id,
                exchange.trace.request_id[:_MAX_REQUEST_ID],
                exchange.request.listener,
                exchange.route_name,
                exchange.request.method,
                exchange.request.target[:_MAX_TARGET],
                exchange.request.host[:_MAX_HOST],
                status,
                reason,
                detail[:_MAX_DETAIL],
                peer[0] if peer is not None else None,
                agent and agent[:_MAX_AGENT],
                exchange.request_bytes,
                exchange.response_bytes,
                exchange.budget.measured_seconds,
                exchange.budget.source,
                exchange.breaker_state,
                exchange.fallback,
                len(attempts),
                last.upstream if last is not None else None,
                last.endpoint if last is not None else None,
            )
        )

    def transitioned(self, transition: Transition) -> None:
        level = Level.WARNING if transition.to_state in (State.OPEN, State.FORCED_OPEN) else Level.INFO
        if level >= self._level:
            self._put(("transition", level, transition.at, transition))

    def reloaded(self, report: ReloadReport) -> None:
        level = Level.INFO if report.is_success else Level.ERROR
        if level >= self._level:
            self._put(("reload", level, report.at, report))

    def event(self, level: Level, kind: str, message: str, fields: Mapping[str, Any], at: float) -> None:
        """Log something else. `fields` must be JSON values; `at` is monotonic seconds. Any thread may call
        this."""
        if level >= self._level:
            self._put(("event", level, at, kind, message, dict(fields)))

    def audit(self, kind: str, message: str, fields: Mapping[str, Any], at: float) -> None:
        """Log, whatever the level, that somebody has changed something."""
        self._put(("event", Level.INFO, at, kind, message, dict(fields)))

    def _put(self, record: Record) -> None:
        waiting = len(self._queue)
        if waiting >= CAPACITY:
            self.dropped += 1
            self.unwritten += 1
            return
        self._queue.append(record)
        if waiting == _BATCH:
            self._wake.raise_flag()

    def _run(self) -> None:
        while True:
            is_last = self._is_stopping
            while self._queue:
                self._write_batch()
            if is_last:
                return
            self._wake.wait(_IDLE_SECONDS)

    def _write_batch(self) -> None:
        offset = time.time_ns() - time.monotonic_ns()
        texts: list[bytes] = []
        flushed: threading.Event | None = None
        while self._queue and len(texts) < _BATCH:
            record = self._queue.popleft()
            if record[0] == _FLUSHED:
                flushed = record[1]
                break
            if self._also is not None:
                self._also(record, offset)
            if self._format is LogFormat.OFF and record[0] == "access":
                continue
            line = make_line(record, offset)
            texts.append(as_text(line) if self._format is LogFormat.TEXT else as_json(line))
        self._in_flight = len(texts)
        try:
            write_all(self._fd, b"".join(texts))
        except OSError:  # the reader is gone for good
            self.dropped += len(texts)
        self._in_flight = 0
        if flushed is not None:
            flushed.set()


def write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting as long as the reader needs, also if the descriptor is non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select((), (fd,), (), 1.0)
