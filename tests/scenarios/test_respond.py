"""Fixed answers of a route, and paths that are rewritten as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.load import load_file
from tests.scenarios.acting import VERSIONS, acting
from tests.scenarios.stage import OK, saying
from tests.support.raw import raw_client


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"DELETE"])
async def test_a_fixed_answer_has_status_fields_and_body(method: bytes, version: str) -> None:
    route = '- {name: gone, respond: {status: 410, headers: {content-type: text/plain}, body: "gone é"}}'
    async with acting(route) as to:
        reply = await to.ask(version, b"/a?b", method=method, body=b"abc" if method == b"POST" else b"")
        assert (reply.status, reply.fields[b"content-type"]) == (410, b"text/plain")
        assert reply.fields[b"content-length"] == b"7"
        assert reply.body == (b"" if method == b"HEAD" else "gone é".encode())
        assert reply.fields[b"proxy-status"] == b'sidecar; details="respond"'
        assert to.ended.told == [("gone", 410, "respond", 0, None)]
        assert to.requests == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("status", [200, 204, 304, 404, 503])
async def test_a_fixed_answer_may_be_empty(status: int, version: str) -> None:
    async with acting(f"- {{name: fixed, respond: {{status: {status}}}}}") as to:
        reply = await to.ask(version)
        assert (reply.status, reply.body) == (status, b"")
        assert (b"content-length" in reply.fields) is (status not in (204, 304))


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_route_does_to_answers_is_done_to_its_own(version: str) -> None:
    route = (
        "- {name: fixed, respond: {headers: {x-a: own, x-b: own, x-c: own}}, "
        "response_headers: {remove: [x-a], set: {x-b: route}, add: {x-d: '${request.method}'}}}"
    )
    async with acting(route) as to:
        fields = (await to.ask(version)).fields
        assert b"x-a" not in fields
        assert (fields[b"x-b"], fields[b"x-c"], fields[b"x-d"]) == (b"route", b"own", b"GET")


CHANGES = (
    "response_headers: {remove: [retry-after, via, x-gone], "
    "set: {x-policy: strict, content-type: text/html}, add: {x-route: '${route.name}'}}"
)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_route_does_to_answers_is_done_to_its_errors(version: str) -> None:
    async with acting(
        f"- {{name: app, upstream: app, circuit_breaker: {{mode: forced_open}}, {CHANGES}}}"
    ) as to:
        reply = await to.ask(version)
        kept = reply.fields
        assert (reply.status, kept[b"x-policy"], kept[b"x-route"]) == (503, b"strict", b"app")
        assert b"retry-after" not in kept
        assert kept[b"content-type"] == b"application/problem+json", "the body is the sidecar's own"
        assert kept[b"via"] == b"1.1 sidecar"
        assert kept[b"proxy-status"].startswith(b"sidecar; error=destination_unavailable")
        assert reply.body.startswith(b'{"type": "urn:sidecar:problem:circuit_open"')
        call = await to.ask(
            "2", b"/", (b"content-type", b"application/grpc"), (b"te", b"trailers"), method=b"POST"
        )
        assert (call.status, call.fields[b"grpc-status"], call.fields[b"x-policy"]) == (200, b"14", b"strict")
        assert call.fields[b"content-type"] == b"application/grpc"


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_route_does_to_answers_is_done_to_its_fallback(version: str) -> None:
    fallback = (
        "fallback: {status: 200, headers: {content-type: text/plain, x-gone: a, "
        "X-Policy: '${request.method}', x-own: b}, body: old}"
    )
    async with acting(
        f"- {{name: app, upstream: app, circuit_breaker: {{mode: forced_open}}, {CHANGES}, {fallback}}}"
    ) as to:
        reply = await to.ask(version)
        told = {name: reply.fields.get(name) for name in (b"x-gone", b"x-policy", b"x-own", b"x-route")}
        assert told == {b"x-gone": None, b"x-policy": b"strict", b"x-own": b"b", b"x-route": b"app"}
        assert (reply.status, reply.body, reply.fields[b"content-type"]) == (200, b"old", b"text/plain")


async def test_an_error_has_the_date_of_the_route_or_none() -> None:
    for changes, date in (("set: {date: then}", b"then"), ("remove: [date]", None)):
        route = (
            f"- {{name: app, upstream: app, clients: {{deny: [127.0.0.1]}}, response_headers: {{{changes}}}}}"
        )
        async with acting(route) as to:
            reply = await to.ask("1.1")
            assert (reply.status, reply.fields.get(b"date")) == (403, date)


async def test_a_date_that_the_route_gives_is_the_only_one() -> None:
    async with acting("- {name: fixed, respond: {headers: {date: then}}}") as to:
        assert (await to.ask("1.1")).fields[b"date"] == b"then"


async def test_the_body_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(b"<p>\xff</p>")
    file = tmp_path / "sidecar.yaml"
    file.write_text("version: 1\nroutes:\n- {name: page, respond: {body_file: page.html}}\n")
    snapshot = load_file(file).snapshot
    assert snapshot.routes[0].respond is not None
    assert snapshot.routes[0].respond.body == b"<p>\xff</p>"
    assert str(tmp_path / "page.html") in snapshot.files


async def test_connections_go_on_after_answers_of_the_routes_own() -> None:
    async with acting("- {name: fixed, respond: {body: yes!}}") as to, raw_client(to.port) as client:
        asking = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        await client.send(asking * 3)
        answers = await client.responses([b"POST"] * 3)
        assert [answer.body for answer in answers] == [b"yes!"] * 3


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("target", "asked"),
    [
        (b"/a/b", b"/whole/new"),
        (b"/a?b=1&c", b"/whole/new?b=1&c"),
        (b"/a/../b", b"/whole/new"),
        (b"/?", b"/whole/new?"),
    ],
)
async def test_a_whole_path_is_replaced_and_the_query_stays(
    target: bytes, asked: bytes, version: str
) -> None:
    async with acting("- {name: app, upstream: app, rewrite: {path: /whole/new}}", saying(OK)) as to:
        assert (await to.ask(version, target)).status == 200
        assert to.requests[0].target == asked


@pytest.mark.parametrize("rewrite", ["path: /new", "prefix: /new"])
async def test_a_target_without_a_path_is_left_alone(rewrite: str) -> None:
    route = f"- {{name: app, match: {{path: {{prefix: /}}}}, upstream: app, rewrite: {{{rewrite}}}}}"
    async with acting(route, saying(OK)) as to:
        await to.ask("1.1", b"*", method=b"OPTIONS")
        assert to.requests[0].target == b"*"


async def test_neither_breaker_nor_fallback_has_a_say_in_an_answer_of_the_routes_own() -> None:
    route = "- {name: fixed, respond: {status: 503}, fallback: {upstream: app}, circuit_breaker: {mode: forced_open}}"
    async with acting(route) as to:
        for _ in range(10):
            assert (await to.ask("1.1")).status == 503
        assert to.requests == []
        assert {breaker.tally.total for breaker in to.worker.assembly.breakers.values()} == {0}
