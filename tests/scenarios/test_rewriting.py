"""What a route changes in a request and its answer."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import SpanRecorder, TransitionIds
from tests.scenarios.stage import OK, get, saying, stage
from tests.support.silent import ForSpans


@pytest.mark.parametrize(
    ("prefix", "new", "target", "expected"),
    [
        ("/v1", "/", b"/v1/a?b", b"/a?b"),
        ("/v1", "/", b"/v1", b"/"),
        ("/v1", "/", b"/v1?b", b"/?b"),
        ("/v1", "/v2", b"/v1/a", b"/v2/a"),
        ("/v1", "/v2/", b"/v1/a", b"/v2/a"),
        ("/v1", "/v2", b"/v1", b"/v2"),
        ("/", "/api", b"/a/b", b"/api/a/b"),
        ("/v1", "/", b"/v1//a", b"//a"),
        ("/v1", "/", b"/v1/%2561", b"/%2561"),
        ("/v1", "/", b"/%761/a", b"/a"),
    ],
)
async def test_a_matched_prefix_is_replaced(prefix: str, new: str, target: bytes, expected: bytes) -> None:
    route = f"match: {{path: {{prefix: {prefix}}}}}, rewrite: {{prefix: {new}}}"
    async with stage(route=route) as to:
        response = await to.ask(get(target))
        assert (response.status, to.requests[0].target) == (200, expected)


@pytest.mark.parametrize("retry", ["", ", retry: {attempts: 2}"])
async def test_a_span_has_what_the_upstream_was_asked_for(retry: str) -> None:
    recorder = SpanRecorder(capacity=1, wake_at=1, wake=lambda: None)
    async with stage(route=f"match: {{path: {{prefix: /v1}}}}, rewrite: {{prefix: /api}}{retry}") as to:
        to.worker.service.observe = ForSpans(recorder)
        to.worker.service.decide = lambda *_: True
        await to.ask(get(b"/v1/a?b=1&sig=secret"))
        spans = SpanShaper(TransitionIds(b"k" * 16)).exchange_spans(recorder.exchanges.popleft(), 0)
        server, *clients = ScopeSpans.FromString(b"".join(spans)).spans
        told = {pair.key: pair.value.string_value for pair in server.attributes}
        assert told["url.path"] == "/v1/a"
        if retry:
            told = {pair.key: pair.value.string_value for pair in clients[0].attributes}
            assert told["url.full"] == f"http://127.0.0.1:{to.app.port}/api/a?b=1&sig=REDACTED"
        else:
            assert (told["sidecar.upstream.path"], clients) == ("/api/a", [])
            assert to.requests[0].value(b"traceparent").split(b"-")[2].decode() == server.span_id.hex()


@pytest.mark.parametrize(
    "target", [b"/v1/../a", b"/v1/%2e%2e/a", b"/v1/../v1/a", b"/v1/%2E./v1/a", b"/v1/..%2Fv1/a"]
)
async def test_nobody_climbs_out_of_the_prefix_that_a_route_puts_in_front(target: bytes) -> None:
    async with stage(route="match: {path: {prefix: /v1}}, rewrite: {prefix: /tenants/one}") as to:
        response = await to.ask(get(target))
        assert (response.status, to.requests) in ((400, []), (404, []))


async def test_the_upstream_sees_the_rewritten_host() -> None:
    async with stage(route="rewrite: {host: app.internal}") as to:
        await to.ask()
        assert to.requests[0].value(b"host") == b"app.internal"


async def test_without_a_rewrite_the_upstream_sees_the_callers_host_and_target() -> None:
    async with stage() as to:
        await to.ask(b"GET /a//b/../c HTTP/1.1\r\nHost: Shop.Example:8080\r\n\r\n")
        (seen,) = to.requests
        assert (seen.value(b"host"), seen.target) == (b"Shop.Example:8080", b"/a//b/../c")


async def test_request_fields_are_removed_set_and_added_in_that_order() -> None:
    ops = "request_headers: {remove: [x-debug, x-both], set: {x-mesh: a, x-both: new}, add: {x-hop: sidecar}}"
    async with stage(route=ops) as to:
        await to.ask(
            get(b"/", b"X-Debug: 1", b"X-Mesh: old", b"X-Mesh: older", b"X-Hop: first", b"X-Both: 1")
        )
        (seen,) = to.requests
    assert seen.values(b"x-debug") == []
    assert seen.values(b"x-mesh") == [b"a"]
    assert seen.values(b"x-hop") == [b"first", b"sidecar"]
    assert seen.values(b"x-both") == [b"new"]


async def test_response_fields_are_removed_set_and_added_in_that_order() -> None:
    ops = "response_headers: {remove: [server], set: {cache-control: no-store}, add: {x-served-by: sidecar}}"
    answer = OK.replace(b"OK\r\n", b"OK\r\nServer: x\r\nCache-Control: public\r\nX-Served-By: app\r\n")
    async with stage(saying(answer), route=ops) as to:
        response = await to.ask()
    assert response.values(b"server") == []
    assert response.values(b"cache-control") == [b"no-store"]
    assert response.values(b"x-served-by") == [b"app", b"sidecar"]
