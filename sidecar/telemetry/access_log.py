"""The access log and the event log: one object a line, through a bounded queue to a thread that writes.

The loop only appends a record. A reader that stalls blocks the writing thread; the queue then fills, further
lines are dropped and counted, and no request waits.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sidecar.core.checked import Checked
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.finished import FinishedExchange, with_verdicts
from sidecar.core.grpc_status import SERVER_ERRORS
from sidecar.core.observe import ObservedExchange
from sidecar.core.snapshot import AccessLog, LogFormat
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import Transition
from sidecar.telemetry.access_line import usual_line
from sidecar.telemetry.log_lines import Event, Level, Record, as_json, as_text, level_of, make_line
from sidecar.telemetry.log_tried import tried_fields
from sidecar.telemetry.spans import Wake

CAPACITY = 8192
"""Lines that wait for the writer; about 2 KiB each at most."""
_BATCH = 256
_IDLE_SECONDS = 0.1
_ALL = 1 << 64
"""Trace ids below this are logged: all of them."""
# A member of an Enum costs 50 ns to look up, a global 5.
_INFO, _WARNING = Level.INFO, Level.WARNING


class Log:
    """Both logs of one process: an `Observe`, and `event` for everything else."""

    def __init__(
        self,
        settings: AccessLog,
        fd: int,
        *,
        also: Callable[[Record, int], None] | None = None,
        worker: str = "",
    ) -> None:
        """Write to the file descriptor `fd`; hand each record and its offset (see `make_line`) to `also` too (OTLP
        logs), from the writer's thread. `worker`: which of several processes that write there this is, for each
        line; empty: it is the only one."""
        self._worker = worker
        self.dropped = 0
        self.unwritten = 0
        """Of them, those that `also` was never given."""
        self._level = Level.INFO
        self._format = settings.format
        self.has_access_log = settings.format is not LogFormat.OFF or also is not None
        """False if no exchange needs to be shown to this observer."""
        self._attempts = settings.attempts
        self._sample_ratio = settings.sample_ratio
        self._bound = round(min(1.0, max(0.0, settings.sample_ratio)) * _ALL)
        self._queue: deque[Record | threading.Event] = deque()
        """An event stands for whoever waits until what is before it has been written."""
        self._wake = Wake()
        self._is_resting = False
        """The thread waits until somebody wakes it; else it looks by itself."""
        self._in_flight = 0
        self._fd = fd
        self._also = also
        self.write_failed = 0
        """Lines that the descriptor did not take."""
        self._trouble = ""
        """Why, as long as that goes on."""
        self._told_of = 0
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
        self._queue.append(is_done)
        self._wake.raise_flag()
        is_done.wait(max(0.0, deadline - time.monotonic()))

    def stop(self, deadline: float) -> None:
        """Write what waits, until `deadline` (monotonic seconds); count the rest as dropped."""
        self._is_stopping = True
        self._wake.raise_flag()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        left = sum(not isinstance(waiting, threading.Event) for waiting in self._queue)
        self._queue.clear()
        self.unwritten += left
        self.dropped += left + self._in_flight

    def finished(self, exchange: ObservedExchange) -> None:
        """Keep the exchange's line. Exchanges that failed are logged whatever the sampling."""
        if exchange.reason is not None or exchange.status >= 500 or is_grpc_error(exchange):
            if self._level > _WARNING:
                return
        elif self._level > _INFO or (
            self._bound < _ALL and int(exchange.trace.trace_id[16:], 16) >= self._bound
        ):
            return
        queue = self._queue  # as `_put` does, without its call, and without a record that would be dropped
        waiting = len(queue)
        if waiting >= CAPACITY:
            self._drop()
            return
        queue.append(with_verdicts(exchange) if self._attempts else FinishedExchange(exchange))
        if waiting == _BATCH or self._is_resting:
            self._wake.raise_flag()

    def transitioned(self, transition: Transition) -> None:
        if level_of(transition) >= self._level:
            self._put(transition)

    def checked(self, checked: Checked) -> None:
        """Tell that a check has failed; of those that follow until its breaker is closed, nothing."""
        if checked.is_news and level_of(checked) >= self._level:
            self._put(checked)

    def endpoint_changed(self, change: EndpointChange) -> None:
        """Tell that an endpoint is left out, or used again, and why."""
        if level_of(change) >= self._level:
            self._put(change)

    def reloaded(self, report: ReloadReport) -> None:
        if level_of(report) >= self._level:
            self._put(report)

    def event(self, level: Level, kind: str, message: str, fields: Mapping[str, Any], at: float) -> None:
        """Log something else. `fields` must be JSON values; `at` is monotonic seconds. Any thread may call
        this."""
        if level >= self._level:
            self._put(Event(level, at, kind, message, dict(fields)))

    def audit(self, kind: str, message: str, fields: Mapping[str, Any], at: float) -> None:
        """Log, whatever the level, that somebody has changed something."""
        self._put(Event(Level.INFO, at, kind, message, dict(fields)))

    def _put(self, record: Record) -> None:
        waiting = len(self._queue)
        if waiting >= CAPACITY:
            self._drop()
            return
        self._queue.append(record)
        if waiting == _BATCH or self._is_resting:
            self._wake.raise_flag()

    def _drop(self) -> None:
        self.dropped += 1
        self.unwritten += 1

    def _run(self) -> None:
        while True:
            is_last = self._is_stopping
            while self._queue:
                self._write_batch()
            if is_last:
                return
            self._wake.wait(_IDLE_SECONDS)
            if not self._queue:
                self._rest()

    def _rest(self) -> None:
        """Nothing was to be written for a while: wait until something is, instead of looking ten times a second."""
        self._is_resting = True
        if not self._queue and not self._is_stopping:  # what came before the flag was seen has woken nobody
            self._wake.wait(None)
        self._is_resting = False

    def _text(self, record: Record, offset_ns: int) -> bytes:
        is_json = self._format is not LogFormat.TEXT
        if is_json and isinstance(record, FinishedExchange) and not self._attempts:
            text = usual_line(record, offset_ns, self._worker)
            if text is not None:
                return text
        line = make_line(record, offset_ns)
        if isinstance(record, FinishedExchange) and self._attempts:
            line.fields |= tried_fields(record, offset_ns, self._sample_ratio)
        return (as_json if is_json else as_text)(line, self._worker)

    def _tell_of_trouble(self, is_written: bool) -> None:
        """Lines can be written again: say how many could not be, and why."""
        if is_written and self._trouble:
            count, why = self.write_failed - self._told_of, self._trouble
            self._trouble, self._told_of = "", self.write_failed
            fields = {"count": count, "error": why}
            self.event(Level.WARNING, "telemetry.unwritten", _lost(count, why), fields, time.monotonic())

    def _write_batch(self) -> None:
        offset = time.time_ns() - time.monotonic_ns()
        texts: list[bytes] = []
        flushed: threading.Event | None = None
        while self._queue and len(texts) < _BATCH:
            record = self._queue.popleft()
            if isinstance(record, threading.Event):
                flushed = record
                break
            if self._also is not None:
                self._also(record, offset)
            if self._format is LogFormat.OFF and isinstance(record, FinishedExchange):
                continue
            texts.append(self._text(record, offset))
        self._in_flight = len(texts)
        try:
            for piece in _pieces(texts) if self._worker else (b"".join(texts),):
                write_all(self._fd, piece)
        except OSError as error:  # a full disk, or a reader that is gone for good
            self.write_failed += len(texts)
            self._trouble = os.strerror(error.errno) if error.errno else str(error)
        else:
            self._tell_of_trouble(bool(texts))
        self._in_flight = 0
        if flushed is not None:
            flushed.set()


def _pieces(texts: list[bytes]) -> Iterator[bytes]:
    """Whole lines, as many at a time as a pipe takes in one go: those of other processes never come between
    (PIPE_BUF, pipe(7)). A longer line goes alone."""
    piece = b""
    for text in texts:
        if piece and len(piece) + len(text) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += text
    if piece:
        yield piece


def _lost(count: int, why: str) -> str:
    return f"{count} lines could not be written: {why}"


def is_grpc_error(exchange: ObservedExchange) -> bool:
    """Whether a gRPC call has ended by its server's fault, which no HTTP status tells."""
    return exchange.request.traits.is_grpc and exchange.grpc_status in SERVER_ERRORS


def write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting as long as the reader needs, also if the descriptor is non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select((), (fd,), (), 1.0)
