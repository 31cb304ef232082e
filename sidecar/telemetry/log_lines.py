"""One line of the logs: what waits in a queue for it, what is in it, and how it is written. Pure.

The data path leaves a record (`access_log.py`); everything that takes time is done here, in the writer's thread.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from sidecar.core.breaker.words import because
from sidecar.core.checked import Checked
from sidecar.core.ejection.change import EndpointChange, Health
from sidecar.core.finished import FinishedExchange
from sidecar.core.grpc_status import SERVER_ERRORS, GrpcStatus
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import Cause, State, Transition
from sidecar.telemetry.span_shape import split_target

Fields = dict[str, Any]

_DELETE = 0x7F
"""As a number: to look for bytes in bytes takes 0.2 µs more."""
_BARE = re.compile(r'[^ "=]+')
"""A value that nobody takes for more than one, or for another field."""
_DECEPTIVE = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""What a client can write and a reader cannot see: C1 controls, which move the cursor of a terminal; line ends of
Unicode; marks that turn or hide the text behind them (U+202E makes `gpj.exe` of `exe.jpg`). JSON allows all of them.
"""


def escaped(text: str) -> str:
    """With `\\uXXXX`, as JSON has it, for each deceptive character."""
    return _DECEPTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Level(IntEnum):
    """Ordered; the values are OpenTelemetry's severity numbers."""

    DEBUG = 5
    INFO = 9
    WARNING = 13
    ERROR = 17


class Event(NamedTuple):
    """Something else that is told, by the name of its kind."""

    level: Level
    at: float
    """Monotonic seconds."""
    kind: str
    message: str
    fields: Fields


ENDPOINT_KINDS = {
    Health.EJECTED: "endpoint.ejected",
    Health.SPARED: "endpoint.spared",
    Health.UNHEALTHY: "endpoint.unhealthy",
    Health.USABLE: "endpoint.usable",
}
"""Of the lines that tell what became of an endpoint."""

Record = FinishedExchange | Transition | EndpointChange | Checked | ReloadReport | Event
"""What waits in a queue, and what `make_line` makes a line of: it takes less memory than the line."""


class LogLine:
    """One line, ready to be written. Built in the writer's thread."""

    __slots__ = ("_message", "at_ns", "fields", "kind", "level")

    def __init__(self, at_ns: int, level: Level, kind: str, fields: Fields, message: str = "") -> None:
        """`message` may be left out of a line of kind `access`."""
        self.at_ns = at_ns
        self.level = level
        self.kind = kind
        """`access`, or the name of an event such as `circuit_breaker.transition`."""
        self.fields = fields
        self._message = message

    @property
    def message(self) -> str:
        """For people. That of an exchange is only made when somebody asks: a line of JSON has none."""
        if self.kind != "access":
            return self._message
        return f"{self.fields['method']} {self.fields['path']} {self.fields['status']}"


def level_of(record: Record) -> Level:
    """How grave it is. What went wrong with an exchange is a warning, a configuration that is refused an error."""
    if isinstance(record, FinishedExchange):
        is_wrong = (
            record.reason is not None or record.status >= 500 or record.spoken.grpc_status in SERVER_ERRORS
        )
        return Level.WARNING if is_wrong else Level.INFO
    if isinstance(record, Transition):
        return Level.WARNING if record.to_state in (State.OPEN, State.FORCED_OPEN) else Level.INFO
    if isinstance(record, EndpointChange):
        return Level.INFO if record.health is Health.USABLE else Level.WARNING
    if isinstance(record, Checked):
        return Level.INFO if record.is_good else Level.WARNING
    if isinstance(record, ReloadReport):
        return Level.INFO if record.is_success else Level.ERROR
    return record.level


def make_line(record: Record, offset_ns: int) -> LogLine:
    """Build the line of a record; `offset_ns` turns monotonic into epoch nanoseconds."""
    level = level_of(record)
    if isinstance(record, FinishedExchange):
        return LogLine(int(record.ended * 1e9) + offset_ns, level, "access", access_fields(record))
    if isinstance(record, Checked):
        message = f"{record.route}/{record.upstream}: the check of {record.path} fails: {record.error_type}"
        at_ns = int(record.ended * 1e9) + offset_ns
        return LogLine(at_ns, level, "circuit_breaker.check_failed", _check_fields(record), message)
    at_ns = int(record.at * 1e9) + offset_ns
    if isinstance(record, Transition):
        message = f"{record.breaker}: {record.from_state.value} -> {record.to_state.value}"
        if words := because(record):
            message += f": {words}"
        return LogLine(
            at_ns, level, "circuit_breaker.transition", _transition_fields(record, offset_ns), message
        )
    if isinstance(record, EndpointChange):
        fields = _endpoint_fields(record)
        return LogLine(at_ns, level, ENDPOINT_KINDS[record.health], fields, record.told)
    if isinstance(record, ReloadReport):
        message = "configuration reloaded" if record.is_success else "configuration rejected"
        return LogLine(at_ns, level, "config.reload", _reload_fields(record), message)
    return LogLine(at_ns, level, record.kind, record.fields, record.message)


def _endpoint_fields(change: EndpointChange) -> Fields:
    fields: Fields = {"upstream": change.upstream, "endpoint": change.endpoint, "why": change.why}
    if change.reason is not None:
        fields["reason"] = change.reason.value
    if change.health is Health.EJECTED:
        fields |= {"seconds": round(change.seconds, 3), "ejections": change.times}
    return fields


def as_json(line: LogLine, worker: str = "") -> bytes:
    """`worker`: which process of several it is of; empty: there is one."""
    head = {"time": iso(line.at_ns), "level": line.level.name.lower(), "kind": line.kind}
    if worker:
        head["worker"] = worker
    if line.kind != "access":
        head["message"] = line.message
    whole = head | line.fields
    try:
        data = orjson.dumps(whole, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # a number of over 64 bits, or half of a surrogate pair in a text
        data = f"{_dumps(whole)}\n".encode("utf-8", "replace")
    return visible(data)


def visible(data: bytes) -> bytes:
    """As `escaped`, of text in UTF-8."""
    return data if data.isascii() and _DELETE not in data else escaped(data.decode()).encode()


def as_text(line: LogLine, worker: str = "") -> bytes:
    """The same for people: time, level, message, then key=value."""
    own = f"worker={worker} " if worker else ""
    pairs = " ".join(f"{key}={_plain(value)}" for key, value in line.fields.items() if value is not None)
    text = f"{iso(line.at_ns)} {line.level.name:<7} {line.kind} {_escape(line.message)} {own}{pairs}"
    return f"{escaped(text)}\n".encode("utf-8", "replace")


_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode


def access_fields(record: FinishedExchange) -> Fields:
    """What the access log says of it; None for what it has not."""
    path, query = split_target(record.target)
    endpoint, reason, peer = record.endpoint, record.reason, record.peer
    agent, budget = record.user_agent, record.budget
    fields: Fields = {
        "trace_id": record.trace_id.decode(),
        "span_id": record.span_id.decode(),
        "request_id": record.request_id.decode("utf-8", "replace"),
        "listener": record.listener,
        "route": record.route_name,
        "upstream": record.upstream,
        "endpoint": None if endpoint is None else str(endpoint),
        "method": record.method.decode("utf-8", "replace"),
        "host": record.host.decode("utf-8", "replace"),
        "path": path.decode("utf-8", "replace"),
        "status": record.status,
        "reason": None if reason is None else reason.value,
        "duration_ms": round((record.ended - record.started) * 1000, 3),
        "attempts": record.attempt_count,
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "client": None if peer is None else peer[0],
        "user_agent": None if agent is None else agent.decode("utf-8", "replace"),
    }
    if record.untrusted is not None and record.untrusted.request_id:
        fields["untrusted_request_id"] = record.untrusted.request_id.decode("ascii")
    tls = record.spoken.tls
    if tls is not None:
        fields["tls"] = tls.protocol
        if tls.identity:
            fields["client_identity"] = tls.identity
        if tls.server_name:
            fields["server_name"] = tls.server_name
    if record.spoken.grpc_status is not None:
        fields["grpc_status"] = GrpcStatus(record.spoken.grpc_status).name
    if query:
        fields["query"] = query.decode("utf-8", "replace")
    if record.detail:
        fields["detail"] = record.detail
    if budget.source:
        fields["budget_ms"] = round(budget.measured_seconds * 1000)
        fields["budget_source"] = budget.source
    if record.breaker_state is not None:
        fields["breaker"] = record.breaker_state.value
    if record.fallback is not None:
        fields["fallback"] = record.fallback
    return fields


def _transition_fields(transition: Transition, offset_ns: int) -> Fields:
    window = transition.window
    last = transition.causes[-1] if transition.causes else None
    return {
        "trace_id": None if last is None else last.trace_id.decode(),
        "span_id": None if last is None else last.span_id.decode(),
        "request_id": None if last is None else last.request_id.decode("utf-8", "replace"),
        "route": transition.route,
        "upstream": transition.upstream,
        "from": transition.from_state.value,
        "to": transition.to_state.value,
        "reason": transition.reason.value,
        "sequence": transition.sequence,
        "wait_seconds": transition.wait_seconds,
        "why": because(transition),
        "window": {
            "total": window.total,
            "failed": window.failed,
            "slow": window.slow,
            "consecutive_failures": window.consecutive_failures,
        },
        "override": _order_fields(transition, offset_ns),
        "causes": [_cause_fields(cause) for cause in transition.causes],
    }


def _order_fields(transition: Transition, offset_ns: int) -> Fields | None:
    order = transition.order
    if order is None:
        return None
    return {
        "action": order.action.value,
        "by": order.by,
        "since": iso(int(order.since * 1e9) + offset_ns),
        "until": None if order.until is None else iso(int(order.until * 1e9) + offset_ns),
    }


def _cause_fields(cause: Cause) -> Fields:
    """What is known of it: a cause without a status or a detail has no such field."""
    fields = {
        "request_id": cause.request_id.decode("utf-8", "replace"),
        "trace_id": cause.trace_id.decode("ascii", "replace"),
        "error_type": cause.error_type,
        "status": cause.status,
        "endpoint": cause.endpoint,
        "detail": cause.detail,
    }
    return {key: value for key, value in fields.items() if value}


def _check_fields(checked: Checked) -> Fields:
    return {
        "trace_id": checked.trace_id.decode(),
        "span_id": checked.span_id.decode(),
        "route": checked.route,
        "upstream": checked.upstream,
        "path": checked.path,
        "endpoint": None if checked.endpoint is None else str(checked.endpoint),
        "status": checked.status or None,
        "error_type": checked.error_type,
        "detail": checked.detail,
    }


def _reload_fields(report: ReloadReport) -> Fields:
    return {
        "result": "success" if report.is_success else "failure",
        "generation": report.generation,
        "duration_ms": round(report.seconds * 1000, 3),
        **report.effect(),
    }


def iso(at_ns: int) -> str:
    """Epoch nanoseconds as a date and a time, to the millisecond."""
    second, rest = divmod(at_ns, 1_000_000_000)
    return f"{_iso_second(second)}.{rest // 1_000_000:03d}Z"


@lru_cache(maxsize=16)  # lines come in order: 1.2 µs less for all but the first of a second
def _iso_second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else _dumps(value)
    return text if _BARE.fullmatch(text) and text.isprintable() else _dumps(text)


def _escape(text: str) -> str:
    return text if text.isprintable() else _dumps(text)
