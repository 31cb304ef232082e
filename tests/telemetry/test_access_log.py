"""One object a line, levels at run time, and a reader that stalls costs lines, never requests."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sidecar.core.errors import Reason
from sidecar.core.finished import FinishedExchange
from sidecar.core.override import Order, Override
from sidecar.core.snapshot import AccessLog, LogFormat
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import Cause, State, Transition, TransitionReason, WindowNumbers
from sidecar.telemetry import access_log
from sidecar.telemetry.access_log import Log
from sidecar.telemetry.log_lines import Level, LogLine, as_json, as_text, make_line
from sidecar.telemetry.otlp_logs import log_record
from sidecar.telemetry.spans import Wake
from tests.telemetry.fakes import FakeExchange

OPENED = Transition(
    sequence=1,
    route="checkout",
    upstream="payments",
    from_state=State.CLOSED,
    to_state=State.OPEN,
    reason=TransitionReason.FAILURE_RATE,
    at=1.0,
    window=WindowNumbers(total=20, failed=10),
    wait_seconds=5.0,
    causes=(
        Cause(b"c" * 32, b"d" * 16, b"req-8", "connection_refused", 0, "10.0.0.7:8080", "nobody listens"),
        Cause(b"a" * 32, b"b" * 16, b"req-9", "503", 503, "10.0.0.7:8080"),
    ),
)


class Written:
    """A log into a pipe; `stop` gives the lines."""

    def __init__(self, settings: AccessLog | None = None) -> None:
        self._reader, self._writer = os.pipe()
        self.log = Log(settings or AccessLog(), self._writer)
        self.log.start()

    def text(self) -> str:
        self.log.stop(time.monotonic() + 100)
        os.close(self._writer)
        with os.fdopen(self._reader) as lines:
            return lines.read()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


def test_access_line_has_everything_an_operator_looks_for() -> None:
    written = Written()
    now = time.monotonic()
    written.log.finished(FakeExchange(started=now - 0.022, ended=now))
    (line,) = written.lines()
    assert line.pop("time").endswith("Z")
    assert line.pop("duration_ms") == pytest.approx(22, abs=0.01)
    assert line == {
        "level": "info",
        "kind": "access",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
        "request_id": "req-1",
        "listener": "outbound",
        "route": "checkout",
        "upstream": "payments",
        "endpoint": "10.0.0.7:8080",
        "method": "GET",
        "host": "payments:80",
        "path": "/v1/orders",
        "query": "page=2&sig=REDACTED",
        "status": 200,
        "reason": None,
        "attempts": 1,
        "request_bytes": 0,
        "response_bytes": 256,
        "client": "127.0.0.1",
        "user_agent": "curl/8",
        "budget_ms": 2000,
        "budget_source": "header",
        "breaker": "closed",
    }


def test_a_line_without_a_bound_tells_of_no_budget() -> None:
    written = Written()
    written.log.finished(FakeExchange(budget_seconds=inf, budget_source=""))
    (line,) = written.lines()
    assert not {"budget_ms", "budget_source"} & line.keys()


def test_an_empty_user_agent_is_an_empty_text() -> None:
    assert make_line(FinishedExchange(FakeExchange(user_agent=b"")), 0).fields["user_agent"] == ""


def test_refused_exchange_is_a_warning_with_its_reason() -> None:
    written = Written()
    written.log.finished(
        FakeExchange(status=503, reason=Reason.CIRCUIT_OPEN, detail="open for 4 s", attempts=(), peer=None)
    )
    (line,) = written.lines()
    assert (line["level"], line["reason"], line["detail"]) == ("warning", "circuit_open", "open for 4 s")
    assert (line["upstream"], line["client"], line["attempts"]) == (None, None, 0)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_told_by_its_own_token(reason: Reason) -> None:
    written = Written()
    written.log.finished(FakeExchange(status=502, reason=reason, attempts=()))
    (line,) = written.lines()
    assert (line["level"], line["reason"]) == ("warning", reason.value)


@pytest.mark.parametrize(
    ("code", "name", "level"),
    [(0, "OK", Level.INFO), (5, "NOT_FOUND", Level.INFO), (14, "UNAVAILABLE", Level.WARNING)],
)
def test_a_line_tells_how_a_grpc_call_ended(code: int, name: str, level: Level) -> None:
    line = make_line(FinishedExchange(FakeExchange(grpc_status=code)), 0)
    assert (line.fields["grpc_status"], line.level) == (name, level)
    assert "grpc_status" not in make_line(FinishedExchange(FakeExchange()), 0).fields


def test_what_a_client_sends_cannot_break_a_line() -> None:
    written = Written()
    evil = FakeExchange(target=b'/"\\\n\r\xff', host=b"a\nb", user_agent=b'"}\x00', request_id=b"\n{}")
    written.log.finished(evil)
    (line,) = written.lines()
    assert line["path"] == '/"\\\n\r\ufffd'
    written = Written(AccessLog(LogFormat.TEXT))
    written.log.finished(evil)
    assert written.text().count("\n") == 1


SIGNS = ["\x7f", "\x85", "\x9b", "\u202e", "\u2028", "\u2029", "\u2066", "\u200b", "\ufeff"]


@pytest.mark.parametrize("kind", [as_json, as_text])
@pytest.mark.parametrize("sign", SIGNS)
def test_what_a_reader_cannot_see_is_escaped(sign: str, kind: Callable[[LogLine], bytes]) -> None:
    """C1 controls move a terminal's cursor, U+202E turns a text round, U+2028 ends a line."""
    raw = f"/a{sign}b".encode()
    line = kind(
        make_line(FinishedExchange(FakeExchange(target=raw, user_agent=b"x" + raw, host=b"h" + raw)), 0)
    )
    assert sign not in line.decode()
    assert line.count(f"\\u{ord(sign):04x}".encode()) >= 3
    if kind is as_json:
        assert json.loads(line)["path"] == raw.decode()


@pytest.mark.parametrize("text", ["/ä/日本", "/👍", "/a b"])
def test_what_a_reader_can_see_stays(text: str) -> None:
    assert text.encode() in as_json(make_line(FinishedExchange(FakeExchange(target=text.encode())), 0))


def test_what_no_json_has_does_not_lose_the_line() -> None:
    written = Written()
    values = {"path": "a\udc80b", "count": 1 << 70, "ratio": float("nan"), "of": State.OPEN, "kind": "kept"}
    for name, value in values.items():
        written.log.event(Level.INFO, "odd", "message", {"name": name, "value": value}, time.monotonic())
    told = {line["name"]: line["value"] for line in written.lines()}
    assert told == {"path": "a?b", "count": 1 << 70, "ratio": None, "of": "open", "kind": "kept"}


def test_events_carry_the_ids_of_their_last_cause() -> None:
    written = Written()
    written.log.transitioned(OPENED)
    written.log.reloaded(ReloadReport(2.0, 0.1, 3, is_success=False, problems=("f.yaml:1:1: bad",)))
    transition, reload = written.lines()
    assert transition["kind"] == "circuit_breaker.transition"
    why = "10 of 20 failed (1 × connection_refused 10.0.0.7:8080, 1 × 503 10.0.0.7:8080)"
    assert transition["message"] == f"checkout/payments: closed -> open: {why}"
    assert transition["why"] == why
    assert transition["causes"] == [
        {
            "request_id": "req-8", "trace_id": "c" * 32, "error_type": "connection_refused",
            "endpoint": "10.0.0.7:8080", "detail": "nobody listens",
        },
        {
            "request_id": "req-9", "trace_id": "a" * 32, "error_type": "503", "status": 503,
            "endpoint": "10.0.0.7:8080",
        },
    ]  # fmt: skip
    assert transition["override"] is None
    assert (transition["trace_id"], transition["span_id"]) == ("a" * 32, "b" * 16)
    assert (transition["request_id"], transition["reason"]) == ("req-9", "failure_rate")
    assert (reload["level"], reload["problems"]) == ("error", ["f.yaml:1:1: bad"])


def test_an_override_and_its_end_are_told_with_who_made_it() -> None:
    written = Written()
    begun = Order(Override.OPEN, 1.0, 61.0, "ada@bastion")
    by_hand = replace(
        OPENED, to_state=State.FORCED_OPEN, reason=TransitionReason.FORCED, causes=(), order=begun
    )
    ended = replace(
        by_hand,
        from_state=State.FORCED_OPEN,
        to_state=State.CLOSED,
        order=replace(begun, action=Override.AUTO),
    )
    for one in (by_hand, ended):
        written.log.transitioned(one)
    first, last = written.lines()
    assert first["message"] == "checkout/payments: closed -> forced_open: by ada@bastion for 1m"
    assert last["message"].endswith("forced_open -> closed: the time of the override by ada@bastion is over")
    assert (first["override"]["action"], first["override"]["by"]) == ("open", "ada@bastion")
    assert (last["override"]["action"], last["override"]["until"]) == ("auto", first["override"]["until"])
    since, until = (datetime.fromisoformat(first["override"][key]) for key in ("since", "until"))
    assert (until - since).total_seconds() == 60.0


def test_nested_fields_stay_what_they_are_in_a_record_of_the_collector() -> None:
    record = log_record(make_line(OPENED, 0))
    (causes,) = [pair.value for pair in record.attributes if pair.key == "sidecar.log.causes"]
    first = {pair.key: pair.value.string_value for pair in causes.array_value.values[0].kvlist_value.values}
    assert first["error_type"] == "connection_refused"


def test_text_format_is_one_readable_line() -> None:
    written = Written(AccessLog(LogFormat.TEXT))
    written.log.finished(FakeExchange())
    text = written.text()
    assert " INFO    access GET /v1/orders 200 trace_id=4bf92f" in text
    assert "route=checkout" in text


def test_text_that_could_be_taken_for_another_field_is_quoted() -> None:
    odd = {"a": 'x"y', "b": "x=1", "c": "plain", "d": "x y", "e": ""}
    line = LogLine(0, Level.INFO, "kind", odd, "message")
    assert as_text(line).endswith(b' a="x\\"y" b="x=1" c=plain d="x y" e=""\n')


def test_level_is_changed_at_run_time() -> None:
    written = Written()
    written.log.set_level(Level.WARNING)
    written.log.finished(FakeExchange())
    written.log.finished(FakeExchange(status=500))
    written.log.set_level(Level.INFO)
    written.log.finished(FakeExchange(status=201))
    assert [line["status"] for line in written.lines()] == [500, 201]


def test_access_log_off_still_writes_events() -> None:
    written = Written(AccessLog(LogFormat.OFF))
    assert not written.log.has_access_log
    written.log.transitioned(OPENED)
    assert [line["kind"] for line in written.lines()] == ["circuit_breaker.transition"]


def test_sampling_keeps_a_share_of_traces_and_every_failure() -> None:
    written = Written(AccessLog(sample_ratio=0.5))
    for high in (b"0", b"f"):
        trace_id = b"0" * 16 + high * 16
        written.log.finished(FakeExchange(trace_id=trace_id))
        written.log.finished(FakeExchange(trace_id=trace_id, status=502))
    assert [line["status"] for line in written.lines()] == [200, 502, 502]


def test_sampling_keeps_every_grpc_call_that_failed_by_its_servers_fault() -> None:
    written = Written(AccessLog(sample_ratio=0.5))
    for code in (0, 5, 14):
        written.log.finished(FakeExchange(trace_id=b"f" * 32, grpc_status=code))
    assert [line["grpc_status"] for line in written.lines()] == ["UNAVAILABLE"]


@pytest.mark.parametrize("pause", [0.0, 1e-4, 2e-3])
def test_a_writer_that_rests_is_woken_by_every_line_that_comes(
    pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_IDLE_SECONDS", 1e-4)  # it goes to rest again and again
    reader, writer = os.pipe()
    log = Log(AccessLog(), writer)
    log.start()
    with os.fdopen(reader, "rb") as lines:
        for number in range(200):
            time.sleep(pause * (number % 3))
            if number % 2:
                log.finished(FakeExchange())
            else:
                log.transitioned(OPENED)
            assert lines.readline()  # would wait for ever
        log.stop(time.monotonic() + 100)
        os.close(writer)
        assert lines.read() == b""
    assert (log.dropped, log.is_alive()) == (0, False)


def test_a_writer_with_nothing_to_do_looks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = list[float | None]()
    wait = access_log.Wake.wait

    def noted(self: access_log.Wake, seconds: float | None) -> None:
        waits.append(seconds)
        wait(self, seconds)

    monkeypatch.setattr(access_log.Wake, "wait", noted)
    reader, writer = os.pipe()
    log = Log(AccessLog(), writer)
    log.start()
    while None not in waits:
        time.sleep(0.01)
    log.finished(FakeExchange())
    with os.fdopen(reader, "rb") as lines:
        assert lines.readline()
        log.stop(time.monotonic() + 100)
        os.close(writer)
    assert not log.is_alive()
    assert waits.index(None) == 1


def test_a_line_that_comes_from_within_the_waking_of_the_writer_blocks_nobody() -> None:
    """The collector of garbage may tell of a task's error at any moment, also there."""
    wake = Wake()

    def interrupt(_frame: FrameType, _event: str, _argument: object) -> Any:
        wake.raise_flag()
        return interrupt

    def raise_it() -> None:
        sys.settrace(interrupt)
        wake.raise_flag()
        sys.settrace(None)

    thread = threading.Thread(target=raise_it, daemon=True)
    thread.start()
    thread.join(20.0)
    assert not thread.is_alive()
    wake.wait(None)  # it is raised


def test_a_flag_is_lowered_by_who_waits_for_it_and_raising_it_twice_is_once() -> None:
    wake = Wake()
    wake.raise_flag()
    wake.raise_flag()
    wake.wait(None)
    before = time.monotonic()
    wake.wait(0.02)
    assert time.monotonic() - before >= 0.02
    wake.wait(-1.0)


def test_stalled_reader_drops_lines_and_counts_each_of_them() -> None:
    reader, writer = os.pipe()
    log = Log(AccessLog(), writer)
    log.start()
    total = access_log.CAPACITY + 4000
    for _ in range(total):  # would hang here for ever: nobody reads the pipe
        log.finished(FakeExchange())
    assert log.dropped >= 3000
    before = time.monotonic()
    log.stop(time.monotonic() + 0.2)
    assert time.monotonic() - before < 30.0
    dropped = log.dropped
    os.set_blocking(reader, False)
    received = b""
    deadline = time.monotonic() + 100
    while log.is_alive() and time.monotonic() < deadline:
        try:
            received += os.read(reader, 1 << 20)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(writer)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as rest:
        received += rest.read()
    in_the_pipe_when_given_up = received.count(b"\n") + dropped - total
    assert 0 <= in_the_pipe_when_given_up <= 256, (
        "at most the batch that was being written is counted as lost"
    )


def test_reader_that_went_away_costs_lines_only() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(AccessLog(), writer)
    log.start()
    log.finished(FakeExchange())
    deadline = time.monotonic() + 100
    while not log.write_failed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (log.write_failed, log.dropped) == (1, 0)
    assert log.is_alive()
    log.stop(time.monotonic() + 1)
    os.close(writer)


def test_non_blocking_descriptor_is_waited_for() -> None:
    written = Written()
    os.set_blocking(written._writer, False)
    for _ in range(500):
        written.log.finished(FakeExchange())
    time.sleep(0.3)
    os.set_blocking(written._reader, False)
    received = b""
    deadline = time.monotonic() + 100
    while received.count(b"\n") < 500 and time.monotonic() < deadline:
        try:
            received += os.read(written._reader, 1 << 16)
        except BlockingIOError:
            time.sleep(0.01)
    assert received.count(b"\n") == 500
    written.text()


def test_a_full_disk_is_told_with_its_reason_once_there_is_room(tmp_path: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    log = Log(AccessLog(), fd)
    log.start()
    for number in range(1, 3):
        log.finished(FakeExchange())
        deadline = time.monotonic() + 100
        while log.write_failed < number and time.monotonic() < deadline:
            time.sleep(0.01)
    room = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(room, fd)
    log.finished(FakeExchange())
    log.flush(time.monotonic() + 100)
    log.stop(time.monotonic() + 100)
    for one in (fd, room):
        os.close(one)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["access", "telemetry.unwritten"]
    assert lines[1]["message"] == "2 lines could not be written: No space left on device"
    assert (lines[1]["count"], lines[1]["error"]) == (2, "No space left on device")
    assert (log.write_failed, log.dropped) == (2, 0)
