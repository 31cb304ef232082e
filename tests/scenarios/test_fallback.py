"""What a fallback stands in for, what it must not hide, and how a client can tell that it served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.config.load import load_file
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.operator import serving
from tests.scenarios.stage import GET, OK, app_routes, get, post, saying, stage, tried_again
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, RawUpstream, Response, Script, raw_client, raw_upstream, turns

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
FIXED = "fallback: {status: 203, headers: {content-type: application/json}, body: '{\"items\": []}'}"
ITEMS = b'{"items": []}'


async def silent(peer: RawPeer) -> None:
    """Take a request and never answer; ends when the sidecar closes the connection."""
    await peer.request()
    while await peer.read_some():
        pass


async def reset(peer: RawPeer) -> None:
    """Take the request and close."""
    await peer.request()
    peer.writer.transport.abort()


async def half(peer: RawPeer) -> None:
    """A head, half a body, and the end."""
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    peer.writer.transport.abort()


async def head_then_nothing(peer: RawPeer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await silent(peer)


def assert_is_fallback(response: Response, error: bytes) -> None:
    assert (response.status, response.body) == (203, ITEMS)
    assert response.values(b"content-type") == [b"application/json"]
    status = response.value(b"proxy-status")
    assert status is not None
    assert status.startswith(b"sidecar; error=%b; details=" % error)
    assert b"fallback=response" in status
    assert response.value(b"x-request-id") is not None


# A fixed response


async def test_a_fixed_response_stands_in_for_an_open_breaker() -> None:
    async with stage(saying(FAILURE), route=FIXED) as to:
        assert [(await to.ask()).status for _ in range(5)] == [500] * 5
        response = await to.ask()
        assert_is_fallback(response, b"destination_unavailable")
        assert b"circuit_open" in (response.value(b"proxy-status") or b"")
        assert response.value(b"retry-after") is None
        assert len(to.requests) == 5


@pytest.mark.parametrize(("headers", "dates"), [("{}", 1), ("{date: x}", 1), ("{Date: x}", 1)])
async def test_a_fixed_response_has_one_date(headers: str, dates: int) -> None:
    route = f"circuit_breaker: {{mode: forced_open}}, fallback: {{status: 200, headers: {headers}, body: a}}"
    async with stage(route=route) as to:
        response = await to.ask()
    assert len(response.values(b"date")) == dates
    assert (response.values(b"date") == [b"x"]) is ("x" in headers)


@pytest.mark.parametrize("extra", ["", ", cors: {allow_origins: ['*']}"])
async def test_its_fields_may_hold_variables_of_the_request(extra: str) -> None:
    fields = '{x-id: "id=${request.id}", x-a: "${request.header.a}", x-plain: b}'
    route = f"circuit_breaker: {{mode: forced_open}}, fallback: {{headers: {fields}, body: a}}{extra}"
    async with stage(route=route) as to:
        response = await to.ask(b"GET / HTTP/1.1\r\nHost: x\r\nx-request-id: mine\r\na: \xff\r\n\r\n")
    assert (response.status, response.body) == (200, b"a")
    found = [response.values(name) for name in (b"x-id", b"x-a", b"x-plain", b"date")]
    assert found[:3] == [[b"id=mine"], [b"%FF"], [b"b"]]
    assert len(found[3]) == 1


async def test_a_fixed_response_stands_in_for_a_timeout_before_the_head() -> None:
    loop = asyncio.get_running_loop()
    async with stage(silent, route=f"timeouts: {{request: 2s}}, {FIXED}") as to:
        began = loop.time()
        assert_is_fallback(await to.ask(), b"http_response_timeout")
        assert loop.time() - began == pytest.approx(2.0, abs=0.05)


async def test_a_fixed_response_stands_in_for_a_failed_connect() -> None:
    (nobody,) = free_ports(1)
    async with running(app_routes(nobody, route=FIXED)) as worker, raw_client(port(worker)) as client:
        await client.send(GET)
        (response,) = await client.responses([b"GET"])
    assert_is_fallback(response, b"connection_refused")


async def test_a_fixed_response_stands_in_for_a_reset_before_the_head() -> None:
    async with stage(reset, route=FIXED) as to:
        assert_is_fallback(await to.ask(post(b"x"), b"POST"), b"connection_terminated")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nconte", b"http_response_incomplete"),
        (b"not HTTP at all\r\n\r\n", b"http_protocol_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", b"http_protocol_error"),
    ],
    ids=["half a head", "no HTTP", "unknown framing"],
)
async def test_a_fixed_response_stands_in_for_a_head_that_is_cut_short_or_malformed(
    answer: bytes, error: bytes
) -> None:
    async def broken(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(answer)

    async with stage(broken, route=FIXED) as to:
        assert_is_fallback(await to.ask(), error)


@pytest.mark.parametrize("fixed", ["body: '[]'", "headers: {content-type: application/json}, body: '[]'"])
async def test_a_grpc_caller_gets_a_grpc_status_instead_of_a_fixed_response_of_http(fixed: str) -> None:
    route = f"circuit_breaker: {{mode: forced_open}}, fallback: {{status: 200, {fixed}}}"
    async with stage(route=route) as to:
        response = await to.ask(post(b"", b"/a.B/C", b"Content-Type: application/grpc"), b"POST")
        assert (await to.ask()).body == b"[]"
    assert (response.status, response.body) == (200, b"")
    assert response.values(b"content-type") == [b"application/grpc"]
    assert response.values(b"grpc-status") == [b"14"]
    assert b"fallback" not in (response.value(b"proxy-status") or b"")


async def test_a_fixed_response_that_speaks_grpc_stands_in_for_a_grpc_callers_error() -> None:
    fields = "{content-type: application/grpc+proto, grpc-status: '0'}"
    route = f"circuit_breaker: {{mode: forced_open}}, fallback: {{headers: {fields}}}"
    async with stage(route=route) as to:
        response = await to.ask(post(b"", b"/a.B/C", b"Content-Type: application/grpc+proto"), b"POST")
    assert (response.status, response.body) == (200, b"")
    assert response.values(b"content-type") == [b"application/grpc+proto"]
    assert response.values(b"grpc-status") == [b"0"]
    assert b"fallback=response" in (response.value(b"proxy-status") or b"")


async def test_a_fixed_response_stands_in_where_limits_are_reached() -> None:
    limits = "limits: {max_requests: 1}"
    async with stage(silent, route=FIXED, upstream=limits) as to, raw_client(to.port) as first:
        await first.send(GET)
        await turns(20)
        assert len(to.requests) == 1
        assert_is_fallback(await to.ask(), b"connection_limit_reached")


async def test_a_response_of_the_upstream_is_never_replaced_whatever_its_status() -> None:
    async with stage(saying(FAILURE), route=FIXED) as to:
        response = await to.ask()
        assert (response.status, response.body, response.value(b"proxy-status")) == (500, b"", None)


@pytest.mark.parametrize("script", [half, head_then_nothing], ids=["cut short", "too slow"])
async def test_no_fallback_serves_once_the_head_is_out(script: Script) -> None:
    async with (
        stage(script, route=f"timeouts: {{request: 2s}}, {FIXED}") as to,
        raw_client(to.port) as client,
    ):
        await client.send(GET)
        await client.read_to_end()
        assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.received.endswith(b"half")
        assert ITEMS not in client.received


async def test_a_spent_budget_and_a_bad_request_are_not_replaced() -> None:
    async with stage(route=FIXED) as to:
        assert (await to.ask(get(b"/", b"x-request-timeout-ms: 0"))).status == 504
        assert (await to.ask(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")).status == 400


async def test_the_connection_of_a_client_goes_on_after_a_fallback() -> None:
    async with stage(saying(FAILURE), route=FIXED) as to, raw_client(to.port) as client:
        await client.send(GET * 8)
        answers = await client.responses([b"GET"] * 8)
        assert [answer.status for answer in answers] == [500] * 5 + [203] * 3


async def test_a_head_request_gets_the_fallbacks_head_alone() -> None:
    async with stage(silent, route=f"timeouts: {{request: 1s}}, {FIXED}") as to:
        response = await to.ask(GET.replace(b"GET", b"HEAD"), b"HEAD")
        assert (response.status, response.body, response.value(b"content-length")) == (203, b"", b"13")


async def test_a_body_is_read_from_its_file_when_the_configuration_is(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_bytes(ITEMS)
    (nobody,) = free_ports(1)
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        HEADER + f'upstreams: {{app: {{endpoints: ["127.0.0.1:{nobody}"]}}}}\n'
        "routes: [{name: app, upstream: app, fallback: {status: 203,"
        " headers: {content-type: application/json}, body_file: items.json}}]\n"
    )
    snapshot = load_file(str(file)).snapshot
    (tmp_path / "items.json").unlink()
    async with serving(snapshot) as worker, raw_client(port(worker)) as client:
        await client.send(GET)
        (response,) = await client.responses([b"GET"])
    assert_is_fallback(response, b"connection_refused")


# Another upstream


@dataclass
class Pair:
    """A route with an app and a spare upstream."""

    worker: Worker
    app: RawUpstream
    spare: RawUpstream

    async def ask(self, data: bytes = GET, method: bytes = b"GET") -> Response:
        async with raw_client(port(self.worker)) as client:
            await client.send(data)
            (response,) = await client.responses([method])
            return response

    def state(self, upstream: str) -> State:
        return self.worker.assembly.breakers["shop", upstream].state


@asynccontextmanager
async def pair(app_script: Script, spare_script: Script, *, route: str = "") -> AsyncIterator[Pair]:
    async with raw_upstream(app_script) as app, raw_upstream(spare_script) as spare:
        routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{app.port}"]}}, spare: {{endpoints: ["127.0.0.1:{spare.port}"]}}}}
routes: [{{name: shop, upstream: app, fallback: {{upstream: spare}}{f", {route}" if route else ""}}}]
"""
        async with running(routes) as worker:
            yield Pair(worker, app, spare)
            await assert_clean(worker)


async def test_another_upstream_serves_while_the_breaker_is_open() -> None:
    async with pair(saying(FAILURE), saying(OK)) as to:
        assert [(await to.ask()).status for _ in range(5)] == [500] * 5
        assert to.state("app") is State.OPEN
        response = await to.ask(get(b"/a?b"))
        assert (response.status, response.body) == (200, b"ok")
        told = response.value(b"proxy-status") or b""
        assert told.startswith(b"sidecar; error=destination_unavailable; details=")
        assert b"fallback=spare" in told
        assert [request.target for request in to.spare.requests] == [b"/a?b"]
        assert len(to.app.requests) == 5


@pytest.mark.parametrize(
    ("request_", "method", "is_asked"),
    [(GET, b"GET", True), (post(b"x"), b"POST", False)],
    ids=["GET", "POST"],
)
async def test_another_upstream_is_asked_after_a_malformed_answer_only_what_may_be_repeated(
    request_: bytes, method: bytes, is_asked: bool
) -> None:
    async with pair(saying(b"not HTTP at all\r\n\r\n"), saying(OK)) as to:
        response = await to.ask(request_, method)
        assert response.status == (200 if is_asked else 502)
        assert len(to.spare.requests) == is_asked


async def test_another_upstream_gets_the_rest_of_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    async with pair(silent, silent, route="timeouts: {request: 3s, attempt: 1s}") as to:
        began = loop.time()
        response = await to.ask()
        assert response.status == 504
        assert b"fallback" not in (response.value(b"proxy-status") or b"")
        assert loop.time() - began == pytest.approx(2.0, abs=0.1)  # two attempts of a second
        (asked,) = to.spare.requests
        assert int(asked.value(b"x-envoy-expected-rq-timeout-ms") or 0) <= 2000


async def test_another_upstream_answers_within_what_is_left() -> None:
    async def slow(peer: RawPeer) -> None:
        await peer.request()
        await asyncio.sleep(0.5)
        await peer.send(OK)

    async with pair(silent, slow, route="timeouts: {request: 3s, attempt: 1s}") as to:
        assert (await to.ask()).status == 200
        assert tried_again(to.worker) == {"fallback": 1}


async def test_another_upstream_has_a_breaker_of_its_own() -> None:
    async with pair(reset, saying(FAILURE)) as to:
        answers = [await to.ask() for _ in range(5)]
        assert [answer.status for answer in answers] == [500] * 5
        assert (to.state("app"), to.state("spare")) == (State.OPEN, State.OPEN)
        refused = await to.ask()
        assert refused.status == 503
        assert refused.value(b"content-type") == b"application/problem+json"
        assert len(to.spare.requests) == 5


async def test_a_success_of_the_fallback_is_no_success_of_the_upstream() -> None:
    async with pair(reset, saying(OK)) as to:
        assert {(await to.ask()).status for _ in range(6)} == {200}
        assert (to.state("app"), to.state("spare")) == (State.OPEN, State.CLOSED)
        numbers = to.worker.assembly.breakers["shop", "app"].numbers(to.worker.service.clock())
        assert (numbers.successful, numbers.failed, numbers.rejected) == (0, 5, 1)


async def test_another_upstream_gets_a_body_that_nobody_has_read() -> None:
    async with pair(saying(FAILURE), saying(OK)) as to:
        for _ in range(5):
            await to.ask()
        assert (await to.ask(post(b"whole body"), b"POST")).status == 200
        assert to.spare.requests[0].body == b"whole body"


async def test_a_body_that_went_to_the_upstream_is_not_made_up_for_the_other() -> None:
    async with pair(reset, saying(OK)) as to:
        response = await to.ask(post(b"gone"), b"POST")
        assert response.status == 502
        assert to.spare.requests == []


async def test_no_other_upstream_is_asked_once_the_head_is_out() -> None:
    async with pair(half, saying(OK)) as to, raw_client(port(to.worker)) as client:
        await client.send(GET)
        await client.read_to_end()
        assert client.received.endswith(b"half")
        assert to.spare.requests == []
