"""`listeners.inbound.trust: none`: callers from outside the mesh have no say in what only the mesh may say."""

import pytest

from tests.scenarios.test_forwarding import OK, ROUTES, exchange
from tests.support.proxy import HEADER, port, running
from tests.support.upstream import answering, field_of, scripted

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Envoy-Expected-Rq-Timeout-Ms: 250\r\n"
    b"x-envoy-original-path: /forged\r\nProxy-Status: forged\r\nx-other: kept\r\n\r\n"
)


@pytest.mark.parametrize(("trust", "is_believed"), [("all", True), ("none", False)])
async def test_internal_fields_of_a_request_are_believed_only_from_the_mesh(trust: str, is_believed: bool):
    heads: list[bytes] = []
    async with (
        scripted(answering(OK, heads)) as app,
        running(ROUTES.format(port=app.port), header(trust)) as worker,
    ):
        answer = await exchange(port(worker), REQUEST)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    budget = int(field_of(heads[0], b"x-envoy-expected-rq-timeout-ms") or b"0")
    assert (budget <= 250) is is_believed
    assert (field_of(heads[0], b"x-envoy-original-path") == b"/forged") is is_believed
    assert (field_of(heads[0], b"proxy-status") == b"forged") is is_believed
    assert field_of(heads[0], b"x-other") == b"kept"


@pytest.mark.parametrize(("trust", "is_believed"), [("all", True), ("none", False)])
@pytest.mark.parametrize(
    "line",
    [
        b"x-request-timeout-ms: 250",
        b"grpc-timeout: 250m",
        b"l5d-timeout: 250ms",
        b"baggage: deadline-ms=250,a=b",
    ],
    ids=lambda line: line.partition(b":")[0].decode(),
)
async def test_a_strangers_deadline_is_not_believed(line: bytes, trust: str, is_believed: bool):
    heads: list[bytes] = []
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n" % line
    async with (
        scripted(answering(OK, heads)) as app,
        running(ROUTES.format(port=app.port), header(trust)) as worker,
    ):
        await exchange(port(worker), request)
    assert (int(field_of(heads[0], b"x-envoy-expected-rq-timeout-ms") or b"0") <= 250) is is_believed
    assert (field_of(heads[0], line.partition(b":")[0]) is not None) is is_believed


@pytest.mark.parametrize(("trust", "is_believed"), [("all", True), ("none", False)])
async def test_a_strangers_trace_is_not_gone_on_with(trust: str, is_believed: bool):
    """Its sampled flag would be respected: whoever set it on every request would have every one exported."""
    heads: list[bytes] = []
    trace_id = b"4bf92f3577b34da6a3ce929d0e0e4736"
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"traceparent: 00-%b-00f067aa0ba902b7-01\r\ntracestate: other=1\r\n\r\n" % trace_id
    )
    no_samples = "telemetry: {traces: {sample_ratio: 0%}, "
    none = header(trust).replace("telemetry: {", no_samples)
    async with scripted(answering(OK, heads)) as app, running(ROUTES.format(port=app.port), none) as worker:
        await exchange(port(worker), request)
    traceparent = field_of(heads[0], b"traceparent") or b""
    assert (trace_id in traceparent) is is_believed
    assert (int(traceparent[-2:], 16) & 1 == 1) is is_believed
    assert (b"other=1" in (field_of(heads[0], b"tracestate") or b"")) is is_believed


def header(trust: str) -> str:
    """The usual one, with that listener."""
    return HEADER.replace(
        'inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:0", trust: {trust}}}'
    )
