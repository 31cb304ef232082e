"""The record of a finished exchange: what is in it, what is cut, and what is left out."""

from __future__ import annotations

import inspect

import pytest

from sidecar.core.errors import Reason
from sidecar.core.finished import (
    MAX_DETAIL,
    MAX_NAME_BYTES,
    MAX_REQUEST_ID_BYTES,
    MAX_TARGET_BYTES,
    MAX_TRACESTATE_BYTES,
    FinishedAttempt,
    FinishedExchange,
    Spoken,
    with_spans,
    with_verdicts,
)
from sidecar.core.numbers import Numbers
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
OF_SPANS_ALONE = {
    "attempts": (),
    "parent_id": None,
    "tracestate": b"",
    "rewritten_target": None,
    "refused_by": None,
    "tripped": None,
}
OF_THE_LAST_ATTEMPT = {"attempt_count", "upstream", "endpoint"}


def fields_of(record: type) -> set[str]:
    """Its own, in either build: descriptors of slots, or what a compiled class has in their place."""
    return {
        name for name, value in vars(record).items() if inspect.isdatadescriptor(value) and name[:1] != "_"
    }


SHARED = fields_of(FinishedExchange) - OF_SPANS_ALONE.keys() - OF_THE_LAST_ATTEMPT - {"spoken", "routed"}
"""`spoken` and `routed` have each two of them in one field."""


@pytest.mark.parametrize("field", sorted(SHARED | OF_SPANS_ALONE.keys() - {"attempts"}))
def test_a_record_holds_what_the_exchange_tells(field: str) -> None:
    assert getattr(with_spans(EXCHANGE), field) == getattr(EXCHANGE, field)


@pytest.mark.parametrize("make", [FinishedExchange, with_spans])
@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
@pytest.mark.parametrize("status", [None, 0, 14])
def test_a_record_tells_what_was_spoken(
    make: type[FinishedExchange], version: str, status: int | None
) -> None:
    record = make(FakeExchange(http_version=version, grpc_status=status))
    assert record.spoken == Spoken(version, status)


def test_a_record_with_spans_tells_the_match_and_what_was_asked_of_the_upstream() -> None:
    whole, bare = with_spans(EXCHANGE), FinishedExchange(EXCHANGE)
    assert (whole.match, whole.rewritten_target) == (EXCHANGE.match, b"/v2")
    assert (bare.match, bare.rewritten_target) == (None, None)


@pytest.mark.parametrize("attempts", [(), (FIRST,), (FIRST, SECOND)])
def test_a_record_with_spans_holds_each_attempt(attempts: tuple[FakeAttempt, ...]) -> None:
    exchange = FakeExchange(attempts=attempts)
    for make in (with_spans, with_verdicts):
        for one, attempt in zip(make(exchange).attempts, attempts, strict=True):
            for field in fields_of(FinishedAttempt) - {"judged"}:
                assert getattr(one, field) == getattr(attempt, field)
            assert one.judged == (attempt.judged if make is with_verdicts else None)


def test_a_record_without_spans_leaves_out_what_they_alone_tell() -> None:
    record = FinishedExchange(EXCHANGE)
    for field in SHARED:
        assert getattr(record, field) == getattr(EXCHANGE, field)
    assert {field: getattr(record, field) for field in OF_SPANS_ALONE} == OF_SPANS_ALONE


@pytest.mark.parametrize("make", [FinishedExchange, with_spans])
def test_a_line_is_told_of_the_last_attempt_and_how_many_there_were(make: type[FinishedExchange]) -> None:
    record = make(EXCHANGE)
    assert (record.attempt_count, record.upstream, record.endpoint) == (2, "spare", SECOND.endpoint)
    record = make(FakeExchange(attempts=()))
    assert (record.attempt_count, record.upstream, record.endpoint) == (0, None, None)


def test_log_and_spans_keep_the_same_record() -> None:
    spans = SpanRecorder(capacity=9, wake_at=9, wake=lambda: None)
    log = Log(AccessLog(), -1)
    report = Reporter(Numbers(), spans, log).finished

    report(EXCHANGE)
    report(FakeExchange(is_sampled=False))

    (kept,), (first, second) = spans.exchanges, log._queue
    assert first is kept
    assert isinstance(second, FinishedExchange)
    assert second.parent_id is None


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
        record = with_spans(FakeExchange(**{field: b"x" * length}))  # type: ignore[arg-type]
        assert getattr(record, field) == b"x" * min(length, limit)


def test_a_long_detail_is_cut_and_a_long_tracestate_left_out() -> None:
    assert with_spans(FakeExchange(detail="x" * (MAX_DETAIL + 1))).detail == "x" * MAX_DETAIL
    longest = b"a=" + b"x" * (MAX_TRACESTATE_BYTES - 2)
    assert with_spans(FakeExchange(tracestate=longest)).tracestate == longest
    assert with_spans(FakeExchange(tracestate=longest + b"x")).tracestate == b""
