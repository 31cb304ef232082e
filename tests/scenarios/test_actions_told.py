"""What log, spans, numbers and the admin API say of a route that answers itself."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from sidecar.core.observe import ObservedExchange
from sidecar.telemetry.span_shape import SpanShaper
from sidecar.telemetry.spans import SpanRecorder, TransitionIds
from tests.scenarios.acting import VERSIONS, acting
from tests.scenarios.operator import operator
from tests.scenarios.stage import OK, saying, scraped
from tests.support.silent import ForSpans, Silent

ROUTES = """\
- {name: away, match: {path: {prefix: /away}}, redirect: {scheme: https}}
- {name: fixed, match: {path: {prefix: /fixed}}, respond: {status: 503}}
- {name: near, match: {path: {prefix: /near}}, upstream: app, clients: {deny: [127.0.0.1]}}
- {name: app, upstream: app, rewrite: {path: /new}, cors: {allow_origins: ['*']}}
"""


class Sizes(Silent):
    """Keeps the bytes of answers."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def finished(self, exchange: ObservedExchange) -> None:
        self.told.append(exchange.response_bytes)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("target", "route", "status", "error"),
    [("/away", "away", 302, ""), ("/fixed", "fixed", 503, "503"), ("/near", "near", 403, "client_denied")],
)
async def test_there_is_one_span_and_it_is_the_servers(
    target: str, route: str, status: int, error: str, version: str
) -> None:
    recorder = SpanRecorder(capacity=1, wake_at=1, wake=lambda: None)
    async with acting(ROUTES) as to:
        to.worker.service.observe = ForSpans(recorder)
        to.worker.service.decide = lambda *_: True
        await to.ask(version, target.encode())
        shaped = SpanShaper(TransitionIds(b"k" * 16)).exchange_spans(recorder.exchanges.popleft(), 0)
        (span,) = ScopeSpans.FromString(b"".join(shaped)).spans
        told = {pair.key: pair.value for pair in span.attributes}
        assert (span.name, span.kind) == (f"GET {route}", Span.SPAN_KIND_SERVER)
        assert told["http.response.status_code"].int_value == status
        assert told["sidecar.route"].string_value == route
        assert (told["error.type"].string_value if "error.type" in told else "") == error


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("target", ["/away", "/fixed", "/near"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_log_has_the_bytes_of_what_was_answered_here(
    method: str, target: str, version: str
) -> None:
    sizes = Sizes()
    async with acting(ROUTES) as to:
        to.worker.service.observe = sizes
        answer = await to.ask(version, target.encode(), method=method.encode())
        assert sizes.told == [len(answer.body)]


async def test_the_numbers_have_the_route_and_no_upstream() -> None:
    async with acting(ROUTES) as to:
        await to.ask("1.1", b"/away")
        server = 'http_server_request_duration_seconds_count{sidecar_route="away"'
        assert scraped(to.worker, server) == 1
        assert scraped(to.worker, "http_client_request_duration_seconds_count") == 0
        assert scraped(to.worker, 'sidecar_circuit_breaker_calls_total{sidecar_route="away"') == 0


async def test_the_span_of_an_attempt_has_the_path_that_a_route_puts_in_its_place() -> None:
    recorder = SpanRecorder(capacity=1, wake_at=1, wake=lambda: None)
    async with acting(ROUTES, saying(OK)) as to:
        to.worker.service.observe = ForSpans(recorder)
        to.worker.service.decide = lambda *_: True
        for route in to.worker.assembly.routes.values():
            for destination in route.destinations:
                destination.joins_spans = False  # as with `client_spans: all`
        await to.ask("1.1", b"/x?y=1")
        shaped = SpanShaper(TransitionIds(b"k" * 16)).exchange_spans(recorder.exchanges.popleft(), 0)
        told = [
            pair.value.string_value
            for span in ScopeSpans.FromString(b"".join(shaped)).spans
            for pair in span.attributes
            if pair.key == "url.full"
        ]
        assert told == [f"http://127.0.0.1:{to.app.port}/new?y=1"]


async def test_the_admin_api_says_what_a_route_does_itself_and_that_it_has_no_breaker() -> None:
    async with acting(ROUTES) as to:
        asking = operator(to.worker)
        shown = json.loads((await asking.send("GET", "/routes")).body)["routes"]
        assert {one["name"]: one["answers"] for one in shown} == {
            "away": "redirect", "fixed": "respond", "near": None, "app": None,
        }  # fmt: skip
        refused = await asking.send("POST", "/breakers/away/open")
        assert refused.status == 404
        assert b"asks no upstream, so it has no breaker" in refused.body
