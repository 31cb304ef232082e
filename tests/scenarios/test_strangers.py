"""`trust: none` (SPEC 5.6): what a stranger says of traces, time and itself concerns nobody but its own request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sidecar.config.load import load_text
from sidecar.core.recorded import RecordedExchange, recorded
from sidecar.core.untrusted import MAX_KEPT_BYTES, Untrusted, what_came
from sidecar.forwarding.exchange import Exchange
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import TransitionIds
from tests.scenarios.operator import serving
from tests.scenarios.pod import OK as APP_OK
from tests.scenarios.pod import Pod, answering_after, instrumented, instrumented_without_tracestate, pod
from tests.scenarios.stage import OK, Stage, get, inbound, saying, stage
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import Request, raw_client, raw_upstream
from tests.telemetry.fakes import FakeExchange

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
TRACEPARENT = b"traceparent: 00-%b-%b-01" % (TRACE, SPAN)
CONTEXT = (
    TRACEPARENT,
    b"tracestate: a=1",
    b"baggage: user=1,deadline-ms=5",
    b"x-request-id: theirs",
    b"b3: %b-%b-1" % (TRACE, SPAN),
    b"X-B3-TraceId: " + TRACE,
    b"uber-trace-id: 1:2:3:1",
    b"x-datadog-sampling-priority: 2",
    b"x-amzn-trace-id: Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1",
)
STRANGE = inbound("trust: none")


async def finished(to: Stage, *lines: bytes) -> tuple[RecordedExchange, Request]:
    """One request's record, and what the app saw."""
    records = []
    observe = to.worker.service.observe
    usual = observe.finished

    def keep(exchange: Exchange) -> None:
        records.append(RecordedExchange(*recorded(exchange)))
        usual(exchange)

    observe.finished = keep  # type: ignore[assignment, method-assign]
    assert (await to.ask(get(b"/", *lines))).status == 200
    return records[0], to.requests[-1]


async def test_a_strangers_trace_starts_anew_with_a_link_to_theirs() -> None:
    async with stage(saying(OK), header=STRANGE) as to:
        # By default one of a hundred is sampled, whatever its caller says.
        to.worker.service.decide = lambda parent, _trace_id: bool(parent)
        record, seen = await finished(to, *CONTEXT)
    version, trace_id, parent, flags = (seen.value(b"traceparent") or b"").split(b"-")
    assert trace_id == record.trace_id == record.request_id != TRACE
    assert record.parent_id is None
    assert (version, flags) == (b"00", b"02"), "their sampled flag is not obeyed"
    assert seen.value(b"tracestate") == b"sidecar=" + parent
    assert seen.value(b"x-request-id") == trace_id
    for name in (b"baggage", b"b3", b"x-b3-traceid", b"uber-trace-id", b"x-datadog-sampling-priority"):
        assert seen.value(name) is None, name
    assert record.untrusted == Untrusted(TRACE, SPAN, b"a=1", b"user=1,deadline-ms=5", b"theirs")


async def test_a_trusted_callers_trace_goes_on_beside_it() -> None:
    async with stage(saying(OK)) as to:
        record, seen = await finished(to, *CONTEXT)
    assert (record.trace_id, record.parent_id, record.request_id) == (TRACE, SPAN, b"theirs")
    assert record.tracestate == b"a=1"
    assert (seen.value(b"b3") or b"").startswith(TRACE)
    assert (seen.value(b"baggage") or b"").startswith(b"user=1,deadline-ms=")


async def test_their_sampled_flag_makes_no_span() -> None:
    """At a ratio of 0, three thousand of them made 9.5 MB."""
    header = STRANGE.replace("telemetry: {", "telemetry: {traces: {sample_ratio: 0}, ")
    async with stage(saying(OK), header=header) as to:
        record, _ = await finished(to, TRACEPARENT)
        assert isinstance(record.untrusted, Untrusted)
        await to.ask(get(b"/", TRACEPARENT))
        assert not any(one.trace.is_sampled for one in to.worker.service.exchanges)
    async with stage(saying(OK), header=header.replace("trust: none", "trust: all")) as to:
        _, seen = await finished(to, TRACEPARENT)
        assert (seen.value(b"traceparent") or b"").endswith(b"-01"), "of the mesh it is always respected"


def test_a_span_tells_what_a_stranger_brought_and_links_to_it() -> None:
    came = what_came({b"traceparent": TRACEPARENT[13:], b"x-request-id": b"theirs", b"baggage": b"b" * 999})
    record = recorded(FakeExchange(untrusted=came, parent_id=None))
    server, client = SpanShaper(TransitionIds(b"k" * 16)).exchange_spans(record, 0)
    assert bytes.fromhex(TRACE.decode()) + b"\x12\x08" + bytes.fromhex(SPAN.decode()) in server
    for part in (b"sidecar.untrusted.request_id", b"theirs", b"sidecar.untrusted.baggage"):
        assert part in server
        assert part not in client
    assert b"b" * MAX_KEPT_BYTES in server
    assert b"b" * (MAX_KEPT_BYTES + 1) not in server


@pytest.mark.parametrize("value", [b"", b"00-0-0-01", b"00-" + b"0" * 32 + b"-" + SPAN + b"-01", b"x" * 9999])
def test_what_is_no_trace_context_is_linked_to_nothing(value: bytes) -> None:
    assert what_came({b"traceparent": value, b"x-request-id": b"a b"}) == Untrusted(b"", b"", b"", b"", b"")


async def test_the_log_tells_their_request_id_beside_ours(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with raw_upstream(saying(OK)) as app:
        text = STRANGE.replace('format: "off"', "format: json")
        snapshot = load_text(
            f"{text}upstreams: {{app: {{endpoints: ['127.0.0.1:{app.port}']}}}}\n"
            "routes: [{name: app, upstream: app}]\n"
        ).snapshot
        async with serving(snapshot, log) as worker, raw_client(port(worker)) as client:
            await client.send(get(b"/", b"x-request-id: theirs"))
            (response,) = await client.responses([b"GET"])
    (line,) = [line for line in map(json.loads, log.read_text().splitlines()) if line["kind"] == "access"]
    assert line["untrusted_request_id"] == "theirs"
    assert line["request_id"].encode() == line["trace_id"].encode() == response.value(b"x-request-id")


# Other requests


@pytest.mark.parametrize(("trust", "status"), [("none", 200), ("all", 504)])
async def test_a_stranger_with_the_apps_trace_id_bounds_none_of_its_calls(trust: str, status: int) -> None:
    """A background POST was cut after 60 ms."""

    async def app(_at: Pod, _request: Request) -> bytes:
        await asyncio.sleep(0.05)
        return APP_OK

    async with pod(app, answering_after(0.2), trust=trust) as at:
        async with at.asking(TRACEPARENT, b"x-request-timeout-ms: 60"):
            await at.until(lambda: bool(at.served))
            await at.call(at.served[0], method=b"POST", forward=lambda _: [TRACEPARENT])
        assert at.answers[0].status == status


@pytest.mark.parametrize(
    ("forward", "budgets"), [(instrumented, [990]), (instrumented_without_tracestate, [15_000])]
)
async def test_no_entry_is_made_for_a_strangers_trace_id(forward: object, budgets: list[int]) -> None:
    """An app's call is found by the span id that we sent, never by a trace id alone."""

    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request, forward=forward)  # type: ignore[arg-type]
        return APP_OK

    async with pod(app, saying(OK), trust="none") as at:
        await at.ask(b"x-request-timeout-ms: 1000")
        assert at.budgets == pytest.approx(budgets, abs=1)


# Answers of our own

ROUTES = """\
upstreams: {inner-secret: {endpoints: ["127.0.0.1:PORT"]}}
routes:
- name: hidden-route
  match: {hosts: [x]}
  upstream: inner-secret
  circuit_breaker: {consecutive_failures: 1, warm_up: 0s}
"""
INSIDE = (b"127.0.0.1", b"inner-secret", b"hidden-route", b"breaker of")


@pytest.mark.parametrize("is_stranger", [True, False])
async def test_answers_of_our_own_tell_a_stranger_the_reason_alone(is_stranger: bool) -> None:
    header = STRANGE if is_stranger else HEADER
    (closed,) = free_ports(1)
    async with running(ROUTES.replace("PORT", str(closed)), header) as worker:
        for reason, host in (("connection_refused", b"x"), ("circuit_open", b"x"), ("no_route", b"y")):
            async with raw_client(port(worker)) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
                (response,) = await client.responses([b"GET"])
            told = response.value(b"proxy-status") or b""
            problem = json.loads(response.body)
            if is_stranger:
                assert told.endswith(b'; details="%b"' % reason.encode())
                assert (problem["detail"], problem["route"]) == (reason, None)
                assert not [word for word in INSIDE if word in told + response.body]
            elif reason != "no_route":
                assert problem["route"] == "hidden-route"
                assert [word for word in INSIDE if word in told]


async def test_a_fallbacks_upstream_is_not_named_to_a_stranger() -> None:
    (closed,) = free_ports(1)
    async with raw_upstream(saying(OK)) as app:
        routes = (
            f"upstreams: {{one: {{endpoints: ['127.0.0.1:{closed}']}},\n"
            f" two: {{endpoints: ['127.0.0.1:{app.port}']}}}}\n"
            "routes: [{name: r, upstream: one, fallback: {upstream: two}}]\n"
        )
        for header, detail in (
            (STRANGE, b'"connection_refused"'),
            (HEADER, b'"fallback=two; connection_refused: '),
        ):
            async with running(routes, header) as worker, raw_client(port(worker)) as client:
                await client.send(get())
                (response,) = await client.responses([b"GET"])
                assert response.status == 200
                assert b"details=" + detail in (response.value(b"proxy-status") or b"")


async def test_what_the_next_sidecar_says_of_its_inside_stays_inside() -> None:
    told = (
        b'sidecar; error=destination_unavailable; details="circuit_open: the circuit breaker of pay to bank"'
    )
    answer = b"HTTP/1.1 503 Service Unavailable\r\nProxy-Status: %b\r\nContent-Length: 0\r\n\r\n" % told
    for header, seen in ((STRANGE, None), (HEADER, told)):
        async with stage(saying(answer), header=header) as to:
            assert (await to.ask()).value(b"proxy-status") == seen


# Their own request


@pytest.mark.parametrize(
    ("line", "budget"),
    [
        (b"x-request-timeout-ms: 400", 395),
        (b"x-request-timeout-ms: 99999", 15_000),
        (b"grpc-timeout: 1S", 990),
        (b"baggage: deadline-ms=5", 15_000),
        (b"x-envoy-expected-rq-timeout-ms: 5", 15_000),
        (b"x_envoy_expected_rq_timeout_ms: 5", 15_000),
    ],
)
async def test_their_timeouts_only_shorten_their_own_request(line: bytes, budget: int) -> None:
    async with stage(saying(OK), header=STRANGE) as to:
        assert (await to.ask(get(b"/", line))).status == 200
        told = int(to.requests[0].value(b"x-envoy-expected-rq-timeout-ms") or b"0")
        assert told == pytest.approx(budget, abs=5)
        assert to.requests[0].value(b"x_envoy_expected_rq_timeout_ms") is None
