"""Golden values: every name, kind, attribute, status, link and event, read back from the wire format."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from sidecar.core.checked import Checked
from sidecar.core.client_tls import ClientTls
from sidecar.core.ejection.change import EjectionReason, EndpointChange, Health
from sidecar.core.errors import Reason
from sidecar.core.mirrored import CopyOutcome, Mirrored
from sidecar.core.numbers import server_error_type
from sidecar.core.override import Order, Override
from sidecar.core.recorded import recorded
from sidecar.core.retry import RetryCause
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint, GrpcMatch, Match, PathKind, PathMatch
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import Cause, State, TransitionReason
from sidecar.telemetry import span_shape, wire
from sidecar.telemetry.span_shape import MAX_PATH_CHARACTERS, SpanShaper, split_target
from sidecar.telemetry.spans import SpanRecorder, TransitionIds
from tests.telemetry.fakes import FakeAttempt, FakeExchange, transition

IDS = TransitionIds(b"k" * 16)
OFFSET_NS = 1_700_000_000_000_000_000


def recorder(capacity: int = 100) -> SpanRecorder:
    return SpanRecorder(capacity=capacity, wake_at=capacity, wake=lambda: None)


def shape(one: SpanRecorder) -> list[Span]:
    shaper = SpanShaper(IDS)
    encoded = [span for record in one.events for span in shaper.event_spans(record, OFFSET_NS)]
    for record in one.exchanges:
        encoded.extend(shaper.exchange_spans(record, OFFSET_NS))
    return list(ScopeSpans.FromString(b"".join(encoded)).spans)


def spans_of(exchange: FakeExchange) -> list[Span]:
    one = recorder()
    one.finished(exchange)
    return shape(one)


def attributes(item: Any) -> dict[str, Any]:
    found = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}
    assert len(found) == len(item.attributes), "each key appears once"
    return found


def test_a_caller_within_the_process_has_an_address_and_no_port() -> None:
    exchange = FakeExchange()
    exchange.peer = ("10.0.0.1", 0)
    told = attributes(spans_of(exchange)[0])
    assert (told["client.address"], told["network.peer.address"]) == ("10.0.0.1", "10.0.0.1")
    assert "network.peer.port" not in told


def test_server_and_client_span_of_a_plain_exchange() -> None:
    server, client = spans_of(FakeExchange())
    assert (server.name, server.kind) == ("GET checkout", Span.SPAN_KIND_SERVER)
    assert server.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert server.span_id.hex() == "00f067aa0ba902b7"
    assert server.parent_span_id.hex() == "b7ad6b7169203331"
    assert server.trace_state == "vendor=1"
    assert server.flags == 0x301
    assert server.start_time_unix_nano == OFFSET_NS + 100_000_000_000
    assert server.end_time_unix_nano - server.start_time_unix_nano == pytest.approx(22_000_000, abs=1000)
    assert not server.HasField("status")
    assert attributes(server) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/v1/orders",
        "url.query": "page=2&sig=REDACTED",
        "server.address": "payments",
        "server.port": 80,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": 40000,
        "network.protocol.version": "1.1",
        "user_agent.original": "curl/8",
        "sidecar.route": "checkout",
        "sidecar.listener": "outbound",
        "sidecar.request_id": "req-1",
        "sidecar.circuit_breaker.state": "closed",
        "sidecar.deadline.budget_ms": 2000,
        "sidecar.deadline.used_ms": 22,
        "sidecar.deadline.source": "header",
    }
    assert (client.name, client.kind) == ("GET payments", Span.SPAN_KIND_CLIENT)
    assert client.trace_id == server.trace_id
    assert client.parent_span_id == server.span_id
    assert client.span_id.hex() == "00f067aa0ba902b8"
    assert client.flags == 0x101
    assert attributes(client) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.full": "http://10.0.0.7:8080/v1/orders?page=2&sig=REDACTED",
        "server.address": "10.0.0.7",
        "server.port": 8080,
        "network.peer.address": "10.0.0.7",
        "network.peer.port": 8080,
        "network.protocol.version": "1.1",
        "sidecar.route": "checkout",
        "sidecar.upstream": "payments",
        "sidecar.deadline.sent_ms": 1990,
    }


def test_a_call_by_tls_is_told_as_one() -> None:
    facts = TlsFacts("1.3", "TLS_AES_256_GCM_SHA384", "h2", "pay.test", "spiffe://shop/ns/pay", False)
    server, client = spans_of(FakeExchange(attempts=(FakeAttempt(scheme="https", tls=facts),)))
    told = attributes(client)
    assert (told["url.scheme"], attributes(server)["url.scheme"]) == ("https", "http")
    assert told["url.full"].startswith("https://10.0.0.7:8080/v1/")
    assert {key: told[key] for key in told if key.startswith("tls.") or key.endswith("identity")} == {
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.cipher": "TLS_AES_256_GCM_SHA384",
        "tls.next_protocol": "h2",
        "sidecar.upstream.identity": "spiffe://shop/ns/pay",
    }
    _, failed = spans_of(FakeExchange(attempts=(FakeAttempt(scheme="https", status=0),)))
    assert attributes(failed)["url.scheme"] == "https"
    assert not any(key.startswith("tls.") for key in attributes(failed))


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_the_error_type_of_its_spans(reason: Reason) -> None:
    attempt = FakeAttempt(status=0, reason=reason)
    for span in spans_of(FakeExchange(status=502, reason=reason, attempts=(attempt,))):
        assert attributes(span)["error.type"] == reason.error_type


def test_without_a_bound_no_span_tells_of_a_budget() -> None:
    attempt = FakeAttempt(sent_ms=None)
    for span in spans_of(FakeExchange(budget_seconds=inf, budget_source="", attempts=(attempt,))):
        told = attributes(span)
        assert {key for key in told if key.startswith("sidecar.deadline.")} <= {"sidecar.deadline.used_ms"}


def test_resolved_endpoint_is_told_by_its_name_and_its_address() -> None:
    endpoint = Endpoint("10.0.0.7", 8080, name="payments.shop.svc")
    _, client = spans_of(FakeExchange(attempts=(FakeAttempt(endpoint=endpoint),)))
    told = attributes(client)
    assert (told["server.address"], told["server.port"]) == ("payments.shop.svc", 8080)
    assert (told["network.peer.address"], told["network.peer.port"]) == ("10.0.0.7", 8080)
    assert told["url.full"].startswith("http://payments.shop.svc:8080/v1/orders?")


def test_a_hedge_says_so_and_the_one_that_it_was_faster_than_is_no_error() -> None:
    lost = FakeAttempt(status=0)
    hedge = FakeAttempt(span_id=b"00f067aa0ba902b9", resend=1, cause=RetryCause.HEDGE)
    _, first, second = spans_of(FakeExchange(attempts=(lost, hedge)))
    assert attributes(first)["sidecar.cancellation.cause"] == "hedge"
    assert first.status.code == Status.STATUS_CODE_UNSET
    assert "sidecar.attempt.kind" not in attributes(first)
    assert attributes(second)["sidecar.attempt.kind"] == "hedge"
    assert "sidecar.cancellation.cause" not in attributes(second)
    assert "sidecar.retry.reason" not in attributes(second)


def test_a_retry_says_why_the_attempt_before_was_not_enough() -> None:
    failed = FakeAttempt(status=503)
    again = FakeAttempt(span_id=b"00f067aa0ba902b9", resend=1, cause=RetryCause.STATUS)
    _, first, second = spans_of(FakeExchange(attempts=(failed, again)))
    told = [attributes(span).get("sidecar.retry.reason") for span in (first, second)]
    assert told == [None, "status"]


def test_unsampled_exchange_leaves_nothing() -> None:
    assert spans_of(FakeExchange(is_sampled=False)) == []


def test_root_exchange_has_no_parent() -> None:
    server, _ = spans_of(FakeExchange(parent_id=None))
    assert server.parent_span_id == b""


def test_an_attempt_that_has_its_endpoint_left_out_says_so() -> None:
    why = "5 failures in a row, the last one: 500"
    reason = EjectionReason.CONSECUTIVE_FAILURES
    change = EndpointChange("payments", "10.0.0.7:8080", Health.EJECTED, reason, why, 100.02, 30.0, 1)
    _, client = spans_of(FakeExchange(attempts=[FakeAttempt(ejected=change)]))
    (event,) = client.events
    assert event.name == "endpoint.ejected"
    assert attributes(event) == {
        "sidecar.endpoint": "10.0.0.7:8080",
        "sidecar.ejection.reason": "consecutive_failures",
        "sidecar.ejection.why": why,
        "sidecar.ejection.seconds": 30,
    }


def test_second_attempt_carries_its_number() -> None:
    failed = FakeAttempt(status=0, reason=Reason.CONNECTION_REFUSED, sent_ms=None)
    _, first, second = spans_of(
        FakeExchange(attempts=(failed, FakeAttempt(span_id=b"00f067aa0ba902b9", resend=1)))
    )
    assert "http.request.resend_count" not in attributes(first)
    assert attributes(first)["error.type"] == "connection_refused"
    assert "http.response.status_code" not in attributes(first)
    assert "sidecar.deadline.sent_ms" not in attributes(first)
    assert attributes(second)["http.request.resend_count"] == 1
    assert (first.status.code, second.status.code) == (Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET)


@pytest.mark.parametrize(
    ("status", "reason", "fallback", "is_error", "error_type"),
    [
        (200, None, None, False, None),
        (404, None, None, False, None),
        (500, None, None, True, "500"),
        (404, Reason.NO_ROUTE, None, False, "no_route"),
        (503, Reason.CIRCUIT_OPEN, None, True, "circuit_open"),
        (200, Reason.CIRCUIT_OPEN, "response", False, "circuit_open"),
        (200, Reason.INCOMPLETE_RESPONSE, None, True, "connection_reset"),
        (499, Reason.CLIENT_GONE, None, False, "client_gone"),
    ],
)
def test_status_of_a_server_span(
    status: int, reason: Reason | None, fallback: str | None, is_error: bool, error_type: str | None
) -> None:
    exchange = FakeExchange(status=status, reason=reason, fallback=fallback, detail="why", attempts=())
    (server,) = spans_of(exchange)
    assert (server.status.code == Status.STATUS_CODE_ERROR) is is_error
    assert attributes(server).get("error.type") == error_type
    assert server.status.message == ("why" if is_error and reason else "")
    has_status = "http.response.status_code" in attributes(server)
    assert has_status is (reason is not Reason.CLIENT_GONE), "499 was never sent"


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (302, False), (404, True), (503, True)])
def test_status_of_a_client_span(status: int, is_error: bool) -> None:
    _, client = spans_of(FakeExchange(attempts=(FakeAttempt(status=status),)))
    assert (client.status.code == Status.STATUS_CODE_ERROR) is is_error
    assert attributes(client).get("error.type") == (str(status) if is_error else None)


@pytest.mark.parametrize(
    ("code", "reason", "is_error", "error_type"),
    [
        (0, None, False, None),
        (1, None, False, None),
        (2, None, True, "UNKNOWN"),
        (3, None, False, None),
        (4, None, True, "DEADLINE_EXCEEDED"),
        (5, None, False, None),
        (6, None, False, None),
        (7, None, False, None),
        (8, None, False, None),
        (9, None, False, None),
        (10, None, False, None),
        (11, None, False, None),
        (12, None, True, "UNIMPLEMENTED"),
        (13, None, True, "INTERNAL"),
        (14, None, True, "UNAVAILABLE"),
        (15, None, True, "DATA_LOSS"),
        (16, None, False, None),
        (14, Reason.CIRCUIT_OPEN, True, "circuit_open"),
        (4, Reason.TIMEOUT, True, "timeout"),
        (8, Reason.OVERLOADED, False, "overloaded"),
        (1, Reason.CLIENT_GONE, False, "client_gone"),
    ],
)
def test_status_of_a_server_span_of_a_grpc_call(
    code: int, reason: Reason | None, is_error: bool, error_type: str | None
) -> None:
    """OpenTelemetry's conventions for gRPC: what the caller did wrong is no error of the server."""
    (server,) = spans_of(FakeExchange(grpc_status=code, reason=reason, detail="why", attempts=()))
    assert (server.status.code == Status.STATUS_CODE_ERROR) is is_error
    told = attributes(server)
    assert told["rpc.grpc.status_code"] == code
    assert told.get("error.type") == error_type


@pytest.mark.parametrize(
    ("status", "code", "is_error", "error_type"),
    [
        (404, 14, True, "404"),
        (429, 14, True, "429"),
        (404, 5, False, None),
        (404, 0, False, None),
        (404, None, False, None),
        (503, 14, True, "503"),
        (503, 0, True, "503"),
        (500, 5, True, "500"),
    ],
)
def test_a_grpc_call_with_another_status_of_http_is_an_error_in_span_and_row_alike(
    status: int, code: int | None, is_error: bool, error_type: str | None
) -> None:
    """What stands before the server may well answer a call by HTTP alone."""
    (server,) = spans_of(FakeExchange(status=status, grpc_status=code, attempts=()))
    assert (server.status.code == Status.STATUS_CODE_ERROR) is is_error
    assert attributes(server).get("error.type") == error_type
    assert (server_error_type(status, None, code) or None) == error_type


@pytest.mark.parametrize("code", range(17))
def test_status_of_a_client_span_of_a_grpc_call(code: int) -> None:
    attempt = FakeAttempt(grpc_status=code, http_version="2")
    _, client = spans_of(FakeExchange(grpc_status=code, http_version="2", attempts=(attempt,)))
    assert (client.status.code == Status.STATUS_CODE_ERROR) is (code != 0)
    told = attributes(client)
    assert told["rpc.grpc.status_code"] == code
    assert ("error.type" in told) is (code != 0)


def test_a_grpc_call_is_told_by_service_and_method() -> None:
    call = FakeExchange(
        method=b"POST", target=b"/pkg.Payments/Charge", http_version="2", grpc_status=0,
        attempts=(FakeAttempt(grpc_status=0, http_version="1.1"),),
    )  # fmt: skip
    server, client = map(attributes, spans_of(call))
    for told in (server, client):
        assert (told["rpc.system"], told["rpc.service"], told["rpc.method"]) == (
            "grpc", "pkg.Payments", "Charge"
        )  # fmt: skip
    assert (server["network.protocol.version"], client["network.protocol.version"]) == ("2", "1.1")


def test_a_path_that_is_none_of_grpcs_is_told_as_far_as_it_goes() -> None:
    (server,) = spans_of(FakeExchange(target=b"/Charge", grpc_status=12, attempts=()))
    told = attributes(server)
    assert told["rpc.method"] == "Charge"
    assert "rpc.service" not in told


def test_an_attempt_that_failed_says_nothing_of_a_status_of_grpc() -> None:
    failed = FakeAttempt(status=0, reason=Reason.CONNECTION_REFUSED)
    server, client = spans_of(FakeExchange(grpc_status=14, reason=failed.reason, attempts=(failed,)))
    assert attributes(server)["rpc.grpc.status_code"] == 14
    told = attributes(client)
    assert "rpc.grpc.status_code" not in told
    assert (told["rpc.system"], told["error.type"]) == ("grpc", "connection_refused")


def test_what_is_known_of_a_configuration_goes_with_it() -> None:
    shaper, match = SpanShaper(IDS), Match(PathMatch(PathKind.PREFIX, "/v1"))
    before = sys.getrefcount(match)
    shaper.exchange_spans(recorded(FakeExchange(match=match)), OFFSET_NS)
    assert sys.getrefcount(match) > before, "it is remembered by its identity"
    shaper.event_spans(ReloadReport(50.0, 0.5, 4, is_success=True), OFFSET_NS)
    assert sys.getrefcount(match) == before


def test_unknown_method_is_other_and_kept_as_original() -> None:
    server, client = spans_of(FakeExchange(method=b"BREW"))
    assert (server.name, client.name) == ("HTTP checkout", "HTTP payments")
    for span in (server, client):
        assert attributes(span)["http.request.method"] == "_OTHER"
        assert attributes(span)["http.request.method_original"] == "BREW"


def test_exchange_without_a_route_is_named_by_its_method() -> None:
    (server,) = spans_of(FakeExchange(route_name=None, status=404, reason=Reason.NO_ROUTE, attempts=()))
    assert server.name == "GET"
    assert "sidecar.route" not in attributes(server)


def test_unix_endpoint_is_named_by_its_path() -> None:
    attempt = FakeAttempt(endpoint=Endpoint("", 0, "/run/app.sock"))
    _, client = spans_of(FakeExchange(attempts=(attempt,)))
    found = attributes(client)
    assert found["server.address"] == found["network.peer.address"] == "/run/app.sock"
    assert found["network.transport"] == "unix"
    assert found["url.full"].startswith("http://payments:80/v1/orders")
    assert "server.port" not in found


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a", b"/a", b""),
        (b"/a?b=1", b"/a", b"b=1"),
        (b"/?sig=x&Signature=y&a=1", b"/", b"sig=REDACTED&Signature=REDACTED&a=1"),
        (b"/?AWSAccessKeyId=x", b"/", b"AWSAccessKeyId=REDACTED"),
        (b"/?X-Goog-Signature=x&design=1", b"/", b"X-Goog-Signature=REDACTED&design=1"),
        (b"/?access_token=x&api_key=y&page=1", b"/", b"access_token=REDACTED&api_key=REDACTED&page=1"),
        (
            b"/?Password=x&client-secret=y&key=z",
            b"/",
            b"Password=REDACTED&client-secret=REDACTED&key=REDACTED",
        ),
        (b"/?tokens=3&monkey=z&author=b&sort_keys=1", b"/", b"tokens=3&monkey=z&author=b&sort_keys=1"),
        (b"http://user:secret@host:80/a?b", b"/a", b"b"),
        (b"http://host", b"/", b""),
        (b"*", b"*", b""),
    ],
)
def test_target_is_split_and_redacted(target: bytes, path: bytes, query: bytes) -> None:
    assert split_target(target) == (path, query)


def test_what_is_not_utf8_does_not_break_the_batch() -> None:
    exchange = FakeExchange(
        target=b"/\xff?\xfe", host=b"h\xff", user_agent=b"\xfd", tracestate=b"\xff", detail="ü"
    )
    server, _ = spans_of(exchange)
    assert attributes(server)["url.path"] == "/\ufffd"
    assert server.trace_state == ""


def test_long_values_are_cut_before_they_are_kept() -> None:
    one = recorder()
    one.finished(
        FakeExchange(target=b"/" + b"a" * 5000, user_agent=b"b" * 5000, tracestate=b"c=" + b"d" * 5000)
    )
    server, _ = shape(one)
    assert len(attributes(server)["url.path"]) == 1024
    assert len(attributes(server)["user_agent.original"]) == 256
    assert server.trace_state == ""


def test_transition_by_hand_says_who_made_it_and_what_is_not_known_is_left_out() -> None:
    one = recorder()
    order = Order(Override.OPEN, 100.0, 1900.0, "ada@bastion")
    by_hand = transition(1, State.CLOSED, State.FORCED_OPEN, reason=TransitionReason.FORCED, order=order)
    one.transitioned(replace(by_hand, causes=(Cause(b"1" * 32, b"2" * 16, b"req-1"),)))
    (span,) = shape(one)
    told = attributes(span)
    assert told["sidecar.circuit_breaker.why"] == "by ada@bastion for 30m"
    assert told["sidecar.circuit_breaker.override.by"] == "ada@bastion"
    assert attributes(span.links[0]) == attributes(span.events[0]) == {"sidecar.request_id": "req-1"}


def test_a_request_whose_target_could_not_be_read_has_no_path() -> None:
    (server,) = spans_of(FakeExchange(target=b"", status=400, reason=Reason.BAD_REQUEST, attempts=()))
    assert "url.path" not in attributes(server)


def check(status: int, reason: Reason | None = None, *, is_sampled: bool = True) -> Checked:
    return Checked(
        "checkout",
        "payments",
        "/healthz",
        Endpoint("10.0.0.7", 8080),
        b"a" * 32,
        b"b" * 16,
        is_sampled,
        started=100.0,
        ended=100.5,
        status=status,
        reason=reason,
        detail="",
        is_good=status == 204,
        is_news=status != 204,
    )


def test_a_copy_is_a_client_span_that_is_a_root_with_a_link_to_its_request() -> None:
    one = recorder()
    copy = Mirrored(
        "checkout",
        "shadow",
        CopyOutcome.TIMED_OUT,
        b"GET",
        b"payments:80",
        b"/v1/orders?sig=secret",
        Endpoint("10.0.0.8", 80),
        b"a" * 32,
        b"b" * 16,
        b"c" * 32,
        b"d" * 16,
        is_sampled=True,
        started=100.0,
        ended=105.0,
        status=0,
        reason=Reason.TIMEOUT,
    )
    for _ in range(600):  # so many that they could push a transition out
        one.mirrored(copy)
    assert (len(one.events), one.dropped_spans) == (512, 88)
    span = shape(one)[0]
    assert (span.name, span.kind, span.parent_span_id) == ("GET shadow", Span.SPAN_KIND_CLIENT, b"")
    assert (span.trace_id.hex(), span.span_id.hex()) == ("a" * 32, "b" * 16)
    (link,) = span.links
    assert (link.trace_id.hex(), link.span_id.hex()) == ("c" * 32, "d" * 16)
    told = attributes(span)
    assert told["sidecar.mirror.outcome"] == "timed_out"
    assert told["sidecar.upstream"] == "shadow"
    assert told["error.type"] == "timeout"
    assert told["url.full"] == "http://10.0.0.8:80/v1/orders?sig=REDACTED"


def test_a_check_of_the_sidecars_own_is_a_client_span_that_is_a_root() -> None:
    one = recorder()
    for checked in (
        check(204),
        check(500),
        check(0, Reason.CONNECTION_REFUSED),
        check(200, is_sampled=False),
    ):
        one.checked(checked)
    good, bad, refused = shape(one)
    assert (good.name, good.kind, good.parent_span_id) == ("GET payments", Span.SPAN_KIND_CLIENT, b"")
    assert (good.trace_id.hex(), good.span_id.hex()) == ("a" * 32, "b" * 16)
    assert good.end_time_unix_nano - good.start_time_unix_nano == 500_000_000
    assert attributes(good) == {
        "http.request.method": "GET",
        "http.response.status_code": 204,
        "network.peer.address": "10.0.0.7",
        "network.peer.port": 8080,
        "network.protocol.version": "1.1",
        "server.address": "10.0.0.7",
        "server.port": 8080,
        "sidecar.route": "checkout",
        "sidecar.upstream": "payments",
        "url.full": "http://10.0.0.7:8080/healthz",
        "url.scheme": "http",
        "user_agent.original": "sidecar (half_open.check)",
    }
    assert good.status.code == Status.STATUS_CODE_UNSET
    assert [attributes(span)["error.type"] for span in (bad, refused)] == ["500", "connection_refused"]
    assert {span.status.code for span in (bad, refused)} == {Status.STATUS_CODE_ERROR}


def test_reload_is_a_span_with_the_counts_of_its_diff() -> None:
    one = recorder()
    one.reloaded(
        ReloadReport(50.0, 0.5, 4, is_success=True, routes_added=1, routes_changed=2, breakers_kept=7)
    )
    one.reloaded(ReloadReport(60.0, 0.5, 4, is_success=False, problems=("a.yaml:3:1: no",)))
    good, bad = shape(one)
    assert (good.name, good.kind) == ("config.reload", Span.SPAN_KIND_INTERNAL)
    assert good.end_time_unix_nano - good.start_time_unix_nano == 500_000_000
    assert attributes(good) == {
        "sidecar.config.result": "success",
        "sidecar.config.generation": 4,
        "sidecar.config.routes.added": 1,
        "sidecar.config.routes.removed": 0,
        "sidecar.config.routes.changed": 2,
        "sidecar.config.breakers.kept": 7,
        "sidecar.config.breakers.reset": 0,
    }
    assert bad.status.code == Status.STATUS_CODE_ERROR
    assert bad.status.message == "a.yaml:3:1: no"
    assert attributes(bad)["error.type"] == "invalid_configuration"


def test_full_queue_drops_what_comes_new_and_counts_spans() -> None:
    one = recorder(capacity=2)
    for _ in range(5):
        one.finished(FakeExchange())
    assert len(one.exchanges) == 2
    assert one.dropped_spans == 3 * 2
    one.transitioned(transition(1, State.CLOSED, State.OPEN))
    assert len(one.events) == 1, "transitions have their own room"


def test_exporter_is_woken_once_for_each_full_batch() -> None:
    calls: list[int] = []
    one = SpanRecorder(capacity=100, wake_at=3, wake=lambda: calls.append(1))
    for _ in range(7):
        one.finished(FakeExchange())
    assert calls == [1]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**40, -1])
@pytest.mark.parametrize("size", [0, 1, 90, 127, 128, 300, 20000])
def test_wire_format_is_read_back(value: int, size: int) -> None:
    text = b"v" * size
    pairs = (wire.text("k", text), wire.number("n", value), wire.flag("b", value=True))
    encoded = wire.span(b"t" * 16, b"s" * 8, b"", 1, 2, (*pairs, wire.flags(is_remote=True)))
    (span,) = ScopeSpans.FromString(encoded).spans
    assert (span.start_time_unix_nano, span.end_time_unix_nano, span.flags) == (1, 2, 0x301)
    assert attributes(span) == {"k": text.decode(), "n": value, "b": True}


def test_clients_that_never_come_again_leave_little_in_the_tables() -> None:
    """Each connection is another port, and each client may name hosts and agents as it likes."""
    for table in (span_shape._PEERS, span_shape._ASKED, span_shape._USED_MS):
        table.clear()
    shaper = SpanShaper(IDS)
    for number in range(3_000):
        host, agent = b"host-%d" % number, b"agent-%d" % number
        one = FakeExchange(peer=("192.0.2.1", 1024 + number), host=host, user_agent=agent)
        shaper.exchange_spans(recorded(one), 0)
    assert 0 < len(span_shape._PEERS) <= span_shape._MAX_PEERS
    assert 0 < len(span_shape._ASKED) <= span_shape._MAX_OF_CLIENTS
    assert len(span_shape._USED_MS) == 1
    assert len(shaper._servers) == 1, "what clients say makes no entry there"


def test_http_route_is_what_the_match_asks_of_the_path() -> None:
    long = "/" + "a" * 1000
    matches: list[tuple[Match | None, str | None]] = [
        (Match(path=PathMatch(PathKind.PREFIX, "/v1")), "/v1"),
        (Match(path=PathMatch(PathKind.EXACT, long)), long[:MAX_PATH_CHARACTERS]),
        (Match(grpc=GrpcMatch("pkg.Payments", "Charge")), "/pkg.Payments/Charge"),
        (Match(), None),
        (None, None),
    ]
    for match, told in matches:
        server, client = spans_of(FakeExchange(match=match))
        assert attributes(server).get("http.route") == told
        assert "http.route" not in attributes(client)


OF_ATTEMPTS: dict[str, list[Any]] = {
    "upstream": ["payments", "spare"],
    "endpoint": [None, Endpoint("10.0.0.7", 8080), Endpoint("10.0.0.9", 81, name="app")],
    "span_id": [b"00f067aa0ba902b7", b"00f067aa0ba902b8"],
    "status": [0, 200, 503],
    "reason": [None, Reason.TIMEOUT],
    "sent_ms": [None, 0, 1990],
    "waited_seconds": [0.0, 0.25],
    "http_version": ["1.1", "2"],
    "scheme": ["http", "https"],
    "tls": [None, TlsFacts("1.3", "AES", "h2", "pay.test", "spiffe://pay", is_resumed=False)],
    "grpc_status": [None, 0, 14],
}
OF_EXCHANGES: dict[str, list[Any]] = {
    "request_id": [b"req-1", b"\xff"],
    "listener": ["inbound", "outbound"],
    "route_name": [None, "checkout"],
    "method": [b"GET", b"POST", b"BREW", b"MELT"],
    "target": [b"", b"/", b"/v1?sig=secret", b"/a;sid=9", b"http://a/b?c=d", b"/\xff"],
    "match": [None, Match(path=PathMatch(PathKind.PREFIX, "/v1"))],
    "host": [b"", b"payments:80"],
    "http_version": ["1.1", "2"],
    "peer": [None, ("10.0.0.1", 0), ("10.0.0.1", 4711)],
    "user_agent": [None, b"curl/8"],
    "parent_id": [None, b"b7ad6b7169203331"],
    "tracestate": [b"", b"vendor=1"],
    "status": [200, 404, 504],
    "reason": [None, Reason.CLIENT_GONE],
    "budget_source": ["", "header", "route"],
    "breaker_state": [None, State.CLOSED, State.OPEN],
    "fallback": [None, "spare"],
    "grpc_status": [None, 0, 14],
    "tls": [None, ClientTls("spiffe://orders", protocol="1.3"), ClientTls()],
}


def built(kind: type, values: dict[str, list[Any]], **others: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: st.sampled_from(some) for name, some in values.items()}, **others)


ATTEMPTS = built(FakeAttempt, OF_ATTEMPTS)


@settings(max_examples=20)
@given(built(FakeExchange, OF_EXCHANGES, attempts=st.lists(ATTEMPTS, min_size=1, max_size=3)))
def test_what_is_remembered_of_others_changes_no_span(exchange: FakeExchange) -> None:
    """Of such that are the same in all but one thing."""
    others = [replace(exchange, **{name: value}) for name, some in OF_EXCHANGES.items() for value in some]
    for at, attempt in enumerate(exchange.attempts):
        for name, some in OF_ATTEMPTS.items():
            for value in some:
                attempts = [*exchange.attempts]
                attempts[at] = replace(attempt, **{name: value})
                others.append(replace(exchange, attempts=attempts))
    used = SpanShaper(IDS)
    for other in [exchange, *others]:
        record = recorded(other)
        assert used.exchange_spans(record, OFFSET_NS) == SpanShaper(IDS).exchange_spans(record, OFFSET_NS)
