"""The log lines as OTLP log records, for `telemetry.logs: true`."""

from __future__ import annotations

from binascii import unhexlify
from collections import deque
from functools import partial
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from sidecar.telemetry.export import Sink
from sidecar.telemetry.log_lines import LogLine, Record, make_line
from sidecar.telemetry.pipeline import Pipeline, pause
from sidecar.telemetry.resource import SCHEMA_URL
from sidecar.telemetry.spans import Wake

_CAPACITY = 2048
_BATCH = 512
_PER_SLICE = 16
_INTERVAL_SECONDS = 1.0


class LogPipeline(Pipeline):
    """Takes lines from the log's writer through its own bounded queue, so that a collector never stalls the
    log."""

    def __init__(self, sink: Sink, resource: bytes, scope: bytes) -> None:
        """`resource` and `scope` are encoded, see `encode_origin`."""
        super().__init__("sidecar-otlp-logs", sink, Wake(), _INTERVAL_SECONDS)
        self.dropped = 0
        self._queue: deque[tuple[Record, int]] = deque()
        self._resource = Resource.FromString(resource)
        self._scope = InstrumentationScope.FromString(scope)

    def add(self, record: Record, offset_ns: int) -> None:
        """Take a line as the log has it, see `make_line`."""
        if self._is_aborted:
            self.failed += 1
            return
        if len(self._queue) >= _CAPACITY:
            self.dropped += 1
            return
        self._queue.append((record, offset_ns))
        if len(self._queue) == _BATCH:
            self._wake.raise_flag()

    def send_all(self) -> None:
        while self._queue and not self._is_aborted:
            records: list[LogRecord] = []
            while self._queue and len(records) < _BATCH:
                records += self._shaped(partial(_records, *self._queue.popleft()), 1)
                if len(records) % _PER_SLICE == 0:
                    pause()
            self._send(self._request(records), len(records))

    def count_left(self) -> None:
        self.failed += len(self._queue)
        self._queue.clear()

    def _request(self, records: list[LogRecord]) -> bytes:
        scope = ScopeLogs(scope=self._scope, log_records=records, schema_url=SCHEMA_URL)
        logs = ResourceLogs(resource=self._resource, scope_logs=[scope])
        encoded: bytes = ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()
        return encoded


def _records(record: Record, offset_ns: int) -> list[LogRecord]:
    return [log_record(make_line(record, offset_ns))]


def log_record(line: LogLine) -> LogRecord:
    """One line; its ids become the record's own, everything else an attribute below `sidecar.log`."""
    fields = dict(line.fields)
    trace_id, span_id = fields.pop("trace_id", None), fields.pop("span_id", None)
    attributes = [
        KeyValue(key=f"sidecar.log.{key}", value=_value(value))
        for key, value in fields.items()
        if value is not None
    ]
    return LogRecord(
        time_unix_nano=line.at_ns,
        observed_time_unix_nano=line.at_ns,
        severity_number=int(line.level),  # type: ignore[arg-type]
        severity_text=line.level.name,
        body=AnyValue(string_value=line.message),
        attributes=attributes,
        trace_id=unhexlify(trace_id) if trace_id else b"",
        span_id=unhexlify(span_id) if span_id else b"",
        event_name="" if line.kind == "access" else line.kind,
    )


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, dict):
        pairs = [KeyValue(key=key, value=_value(one)) for key, one in value.items() if one is not None]
        return AnyValue(kvlist_value=KeyValueList(values=pairs))
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_value(one) for one in value]))
    return AnyValue(string_value=str(value))
