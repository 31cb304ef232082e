"""The records of a finished exchange, for its log line and for its spans: what is in them, and what is cut."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from sidecar.core.client_tls import ClientTls
from sidecar.core.endpoint_facts import NO_ENDPOINT
from sidecar.core.errors import Reason
from sidecar.core.finished import (
    MAX_DETAIL,
    MAX_NAME_BYTES,
    MAX_REQUEST_ID_BYTES,
    MAX_TARGET_BYTES,
    FinishedAttempt,
    FinishedExchange,
    Spoken,
    with_verdicts,
)
from sidecar.core.numbers import Numbers
from sidecar.core.recorded import MAX_TRACESTATE_BYTES, RecordedAttempt, RecordedExchange, recorded
from sidecar.core.snapshot import AccessLog, Endpoint
from sidecar.telemetry.access_log import Log
from sidecar.telemetry.room import Reporter
from sidecar.telemetry.spans import SpanRecorder
from tests.telemetry.fakes import FakeAttempt, FakeExchange, opening

FIRST = FakeAttempt(
    "payments", Endpoint("10.0.0.7", 1), b"1" * 16, 1.0, 2.0, 0, Reason.CONNECTION_REFUSED, sent_ms=9
)
SECOND = FakeAttempt("spare", Endpoint("10.0.0.8", 2), b"2" * 16, 2.0, 3.0, 502, None, sent_ms=None, resend=1)
EXCHANGE = FakeExchange(
    status=502,
    reason=Reason.CONNECTION_REFUSED,
    detail="nobody there",
    rewritten_target=b"/v2",
    request_bytes=7,
    refused_by=opening(1),
    tripped=opening(2),
    fallback="spare",
    attempts=(FIRST, SECOND),
)
OF_THE_LAST_ATTEMPT = {"attempt_count", "upstream", "endpoint"}


def fields_of(record: type) -> set[str]:
    """Its own, in either build: descriptors of slots, or what a compiled class has in their place."""
    return {
        name for name, value in vars(record).items() if inspect.isdatadescriptor(value) and name[:1] != "_"
    }


def named(exchange: FakeExchange) -> RecordedExchange:
    return RecordedExchange(*recorded(exchange))


@pytest.mark.parametrize(
    "field", sorted(fields_of(FinishedExchange) - OF_THE_LAST_ATTEMPT - {"spoken", "attempts"})
)
def test_a_record_for_the_log_holds_what_the_exchange_tells(field: str) -> None:
    assert getattr(FinishedExchange(EXCHANGE), field) == getattr(EXCHANGE, field)


@pytest.mark.parametrize("field", sorted({*RecordedExchange._fields} - {"spoken", "attempts"}))
def test_a_record_for_spans_holds_what_the_exchange_tells(field: str) -> None:
    assert getattr(named(EXCHANGE), field) == getattr(EXCHANGE, field)


@pytest.mark.parametrize("make", [FinishedExchange, named])
@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
@pytest.mark.parametrize("status", [None, 0, 14])
@pytest.mark.parametrize("tls", [None, ClientTls("1.3")])
def test_a_record_tells_what_was_spoken(
    make: Callable[[FakeExchange], FinishedExchange | RecordedExchange],
    version: str,
    status: int | None,
    tls: ClientTls | None,
) -> None:
    record = make(FakeExchange(http_version=version, grpc_status=status, tls=tls))
    assert record.spoken == Spoken(version, status, tls)


@pytest.mark.parametrize("attempts", [(), (FIRST,), (FIRST, SECOND)])
def test_a_record_holds_each_attempt_for_spans_and_with_its_verdict_for_the_log(
    attempts: tuple[FakeAttempt, ...],
) -> None:
    exchange = FakeExchange(attempts=attempts)
    for one, attempt in zip(with_verdicts(exchange).attempts, attempts, strict=True):
        for field in fields_of(FinishedAttempt):
            assert getattr(one, field) == getattr(attempt, field)
    for fields, attempt in zip(named(exchange).attempts, attempts, strict=True):
        for name, value in RecordedAttempt(*fields)._asdict().items():
            assert value == getattr(attempt, name)


def test_an_attempt_without_an_endpoint_is_told_too() -> None:
    class Nowhere(FakeAttempt):
        @property
        def pool(self) -> None:  # type: ignore[override]
            return None

    exchange = FakeExchange(attempts=(Nowhere(),))
    (one,) = named(exchange).attempts
    assert RecordedAttempt(*one).facts is NO_ENDPOINT
    assert with_verdicts(exchange).attempts[0].endpoint is FinishedExchange(exchange).endpoint is None


def test_a_line_is_told_of_the_last_attempt_and_how_many_there_were() -> None:
    record = FinishedExchange(EXCHANGE)
    assert (record.attempt_count, record.upstream, record.endpoint) == (2, "spare", SECOND.endpoint)
    record = FinishedExchange(FakeExchange(attempts=()))
    assert (record.attempt_count, record.upstream, record.endpoint) == (0, None, None)


def test_spans_are_kept_of_what_is_sampled_and_lines_of_all() -> None:
    spans = SpanRecorder(capacity=9, wake_at=9, wake=lambda: None)
    log = Log(AccessLog(), -1)
    report = Reporter(Numbers(), spans, log).finished

    report(EXCHANGE)
    report(FakeExchange(is_sampled=False))

    assert list(spans.exchanges) == [recorded(EXCHANGE)]
    assert [one.status for one in log._queue if isinstance(one, FinishedExchange)] == [502, 200]


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("target", MAX_TARGET_BYTES),
        ("rewritten_target", MAX_TARGET_BYTES),
        ("host", MAX_NAME_BYTES),
        ("user_agent", MAX_NAME_BYTES),
        ("request_id", MAX_REQUEST_ID_BYTES),
    ],
)
def test_what_a_client_makes_long_is_cut(field: str, limit: int) -> None:
    for length in (limit - 1, limit, limit + 1):
        exchange = FakeExchange(**{field: b"x" * length})  # type: ignore[arg-type]
        assert getattr(named(exchange), field) == b"x" * min(length, limit)
        if field != "rewritten_target":
            assert getattr(FinishedExchange(exchange), field) == b"x" * min(length, limit)


def test_a_long_detail_is_cut_and_a_long_tracestate_left_out() -> None:
    for make in (FinishedExchange, named):
        assert make(FakeExchange(detail="x" * (MAX_DETAIL + 1))).detail == "x" * MAX_DETAIL
    longest = b"a=" + b"x" * (MAX_TRACESTATE_BYTES - 2)
    assert named(FakeExchange(tracestate=longest)).tracestate == longest
    assert named(FakeExchange(tracestate=longest + b"x")).tracestate == b""
