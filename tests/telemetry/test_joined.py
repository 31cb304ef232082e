"""Who is to blame is red, what was cancelled is not; and one span stands for an exchange and its only attempt."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from sidecar.core.ejection.change import EjectionReason, EndpointChange, Health
from sidecar.core.errors import Reason
from sidecar.core.recorded import recorded
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint
from sidecar.telemetry import joined, span_shape
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import SpanRecorder, TransitionIds
from tests.telemetry.fakes import FakeAttempt, FakeExchange

SERVER_ID, OTHER_ID = b"00f067aa0ba902b7", b"00f067aa0ba902b9"
ERROR, UNSET = Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET
SHAPER = SpanShaper(TransitionIds(b"k" * 16))


def spans_of(exchange: FakeExchange) -> list[Span]:
    return list(ScopeSpans.FromString(b"".join(SHAPER.exchange_spans(recorded(exchange), 0))).spans)


def attributes(item: Any) -> dict[str, Any]:
    found = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}
    assert len(found) == len(item.attributes), "each key appears once"
    return found


def with_first(**fields: Any) -> FakeAttempt:
    return FakeAttempt(span_id=SERVER_ID, **fields)


def test_an_only_attempt_is_told_by_the_server_span() -> None:
    (server,) = spans_of(
        FakeExchange(attempts=(with_first(endpoint=Endpoint("10.0.0.9", 8081, name="app")),))
    )
    assert (server.name, server.kind) == ("GET checkout", Span.SPAN_KIND_SERVER)
    told = attributes(server)
    assert (told["server.address"], told["server.port"]) == ("app", 8081), "not the Host that was asked for"
    assert told["sidecar.upstream"] == "payments"
    assert told["sidecar.upstream.duration"] == pytest.approx(0.02)
    assert told["sidecar.deadline.sent_ms"] == 1990
    assert list(server.events) == []


def test_what_else_is_known_of_an_only_attempt_is_told_there() -> None:
    why = EjectionReason.CONSECUTIVE_FAILURES
    change = EndpointChange("payments", "10.0.0.7:8080", Health.EJECTED, why, "5 in a row", 100.02, 30.0, 1)
    tls = TlsFacts(
        "1.3", "TLS_AES_128_GCM_SHA256", "h2", "pay", "spiffe://shop/" + "a" * 400, is_resumed=False
    )
    (server,) = spans_of(FakeExchange(attempts=(with_first(ejected=change, tls=tls, sent_ms=None),)))
    assert [event.name for event in server.events] == ["endpoint.ejected"]
    assert len(attributes(server)["sidecar.upstream.identity"]) == joined.MAX_IDENTITY
    assert "sidecar.deadline.sent_ms" not in attributes(server)


@pytest.mark.parametrize(
    ("endpoint", "address"), [(None, "payments"), (Endpoint("", 0, path="/run/app.sock"), "/run/app.sock")]
)
def test_an_only_attempt_without_a_port_is_told_by_what_there_is(
    endpoint: Endpoint | None, address: str
) -> None:
    (server,) = spans_of(FakeExchange(attempts=(with_first(endpoint=endpoint),)))
    assert attributes(server)["server.address"] == address
    assert "server.port" not in attributes(server)


def test_a_later_attempt_has_a_span_and_the_first_one_is_an_event() -> None:
    first = with_first(status=0, reason=Reason.CONNECTION_REFUSED, ended=100.005)
    second = FakeAttempt(span_id=OTHER_ID, endpoint=Endpoint("10.0.0.8", 8080))
    server, client = spans_of(FakeExchange(attempts=(first, second)))
    assert (client.name, client.span_id.hex(), client.parent_span_id) == (
        "GET payments",
        OTHER_ID.decode(),
        server.span_id,
    )
    assert attributes(client)["http.request.resend_count"] == 1
    (event,) = server.events
    assert (event.name, event.time_unix_nano) == ("attempt.failed", 100_005_000_000)
    assert attributes(event) == {
        "error.type": "connection_refused",
        "server.address": "10.0.0.7",
        "server.port": 8080,
        "sidecar.upstream": "payments",
        "sidecar.upstream.duration": 0.004,
    }
    assert server.status.code == UNSET


def test_an_attempt_for_which_a_fallback_served_is_an_event() -> None:
    (server,) = spans_of(
        FakeExchange(
            reason=Reason.TIMEOUT, fallback="response", attempts=(with_first(status=500, reason=None),)
        )
    )
    (event,) = server.events
    assert attributes(event)["http.response.status_code"] == 500
    assert attributes(event)["error.type"] == "500"


def test_a_fallback_that_served_at_once_has_failed_in_nothing() -> None:
    exchange = FakeExchange(reason=Reason.CIRCUIT_OPEN, fallback="payments", attempts=(with_first(),))
    (server,) = spans_of(exchange)
    assert list(server.events) == []
    assert attributes(server)["sidecar.upstream"] == "payments"


@pytest.mark.parametrize(
    ("status", "reason", "server_status", "client_status", "cause"),
    [
        (504, Reason.TIMEOUT, ERROR, ERROR, None),
        (502, Reason.CONNECTION_RESET, ERROR, ERROR, None),
        (200, Reason.INCOMPLETE_RESPONSE, ERROR, ERROR, None),
        (499, Reason.CLIENT_GONE, UNSET, UNSET, "client"),
        (200, Reason.CLIENT_GONE, UNSET, UNSET, "client"),
        (503, Reason.CALLER_GONE, UNSET, UNSET, "caller"),
    ],
)
def test_who_is_to_blame_is_red_and_what_was_cancelled_is_not(
    status: int, reason: Reason, server_status: int, client_status: int, cause: str | None
) -> None:
    attempt = FakeAttempt(status=status if status == 200 else 0, reason=reason)
    server, client = spans_of(FakeExchange(status=status, reason=reason, attempts=(attempt,)))
    assert (server.status.code, client.status.code) == (server_status, client_status)
    assert [attributes(span)["error.type"] for span in (server, client)] == [reason.error_type] * 2
    assert [attributes(span).get("sidecar.cancellation.cause") for span in (server, client)] == [cause] * 2


def test_a_cancelled_grpc_call_is_no_error() -> None:
    (server,) = spans_of(FakeExchange(status=200, grpc_status=14, reason=Reason.CALLER_GONE, attempts=()))
    assert server.status.code == UNSET


def test_endpoints_that_never_come_again_leave_little_in_the_table() -> None:
    shaper = SpanShaper(TransitionIds(b"k" * 16))
    for number in range(span_shape._MAX_CACHED + 10):
        record = recorded(FakeExchange(attempts=(with_first(upstream=f"upstream-{number}"),)))
        shaper.exchange_spans(record, 0)
    assert len(shaper._servers) == 10


def test_what_a_full_queue_and_the_end_leave_out_is_counted_by_spans() -> None:
    later = FakeAttempt(span_id=OTHER_ID)
    exchanges = [
        FakeExchange(attempts=()),
        FakeExchange(attempts=(with_first(),)),
        FakeExchange(attempts=(later,)),
    ]
    exchanges.append(FakeExchange(attempts=(with_first(), later)))
    for exchange in exchanges:
        recorder = SpanRecorder(capacity=0, wake_at=1, wake=lambda: None)
        recorder.finished(exchange)
        assert recorder.dropped_spans == len(spans_of(exchange))


@pytest.mark.parametrize("span_id", [SERVER_ID, OTHER_ID])
def test_the_wait_for_a_connection_is_an_event_of_the_attempt(span_id: bytes) -> None:
    *_, span = spans_of(FakeExchange(attempts=(FakeAttempt(span_id=span_id, waited_seconds=0.015),)))
    (event,) = span.events
    assert (event.name, event.time_unix_nano) == ("connection.waited", 100_016_000_000)
    assert attributes(event) == {"sidecar.upstream.wait": 0.015}
