"""Redirects, after the cases of Gateway API's conformance suite: what a client is told, and that nobody else is."""

from __future__ import annotations

import pytest

from tests.scenarios.acting import VERSIONS, acting
from tests.support.raw import raw_client

CASES: list[tuple[str, str, bytes, bytes, bytes]] = [
    # redirect, match, host, target, location
    ("host: example.org", "", b"a.test", b"/x", b"http://example.org/x"),
    ("host: example.org", "", b"a.test:8080", b"/x", b"http://example.org:8080/x"),
    ("host: example.org, port: 80", "", b"a.test:8080", b"/x", b"http://example.org/x"),
    ("scheme: https", "", b"a.test", b"/x?y=1", b"https://a.test/x?y=1"),
    ("scheme: https", "", b"a.test:8080", b"/x", b"https://a.test/x"),
    ("scheme: https, port: 443", "", b"a.test", b"/", b"https://a.test/"),
    ("scheme: https, port: 8443", "", b"a.test", b"/", b"https://a.test:8443/"),
    ("scheme: http", "", b"a.test:81", b"/", b"http://a.test/"),
    ("scheme: http, port: 8080", "", b"a.test", b"/", b"http://a.test:8080/"),
    ("port: 8083", "", b"a.test", b"/", b"http://a.test:8083/"),
    ("port: 443", "", b"a.test", b"/", b"http://a.test:443/"),
    ("scheme: https, host: example.org, port: 9443", "", b"a", b"/p", b"https://example.org:9443/p"),
    ("path: /full", "", b"a.test", b"/old/b?c=1", b"http://a.test/full?c=1"),
    ("path: /full, host: example.org", "", b"a.test", b"/old", b"http://example.org/full"),
    ("prefix: /new", "/old", b"a.test", b"/old/b", b"http://a.test/new/b"),
    ("prefix: /new/", "/old", b"a.test", b"/old/b", b"http://a.test/new/b"),
    ("prefix: /new", "/old/", b"a.test", b"/old/b", b"http://a.test/new/b"),
    ("prefix: /new", "/old", b"a.test", b"/old", b"http://a.test/new"),
    ("prefix: /new", "/old", b"a.test", b"/old/", b"http://a.test/new/"),
    ("prefix: /", "/old", b"a.test", b"/old/b", b"http://a.test/b"),
    ("prefix: /", "/old", b"a.test", b"/old/", b"http://a.test/"),
    ("prefix: /", "/old", b"a.test", b"/old?x", b"http://a.test/?x"),
    ("prefix: /new", "/", b"a.test", b"/b", b"http://a.test/new/b"),
    ("host: example.org, prefix: /new", "/old", b"a.test", b"/old/b", b"http://example.org/new/b"),
    ("host: '[::1]', port: 81", "", b"a.test", b"/", b"http://[::1]:81/"),
    ("port: 81", "", b"[2001:db8::1]:80", b"/", b"http://[2001:db8::1]:81/"),
    ("path: /x", "", b"[2001:db8::1]", b"/", b"http://[2001:db8::1]/x"),
    ("scheme: https", "", b"a.test", b"//evil.test/x", b"https://a.test//evil.test/x"),
    ("prefix: /", "/old", b"a.test", b"/old//evil.test", b"http://a.test//evil.test"),
    ("scheme: https", "", b"a.test", b'/a"<b>\\c', b"https://a.test/a%22%3Cb%3E%5Cc"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("redirect", "prefix", "host", "target", "location"), CASES)
async def test_a_client_is_sent_where_the_route_says(
    redirect: str, prefix: str, host: bytes, target: bytes, location: bytes, version: str
) -> None:
    match = f"match: {{path: {{prefix: {prefix}}}}}, " if prefix else ""
    async with acting(f"- {{name: away, {match}redirect: {{{redirect}}}}}") as to:
        reply = await to.ask(version, target, host=host)
        assert (reply.status, reply.fields.get(b"location"), reply.body) == (302, location, b"")
        assert to.requests == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
async def test_it_has_the_status_of_the_route_whatever_is_asked(
    status: int, method: bytes, version: str
) -> None:
    async with acting(f"- {{name: away, redirect: {{scheme: https, status: {status}}}}}") as to:
        body = b"12345" if method == b"POST" else b""
        reply = await to.ask(version, b"/x", method=method, body=body)
        assert (reply.status, reply.fields[b"location"]) == (status, b"https://example.test/x")
        assert reply.fields[b"content-length"] == b"0"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("target", [b"/old/../x", b"/old/%2e%2e/x", b"/old/..%2Fx", b"/old/..\\x"])
async def test_nobody_climbs_out_of_the_prefix_of_a_redirect(target: bytes, version: str) -> None:
    async with acting("- {name: away, match: {path: {prefix: /old}}, redirect: {prefix: /tenant}}") as to:
        reply = await to.ask(version, target)
        assert reply.status in (400, 404)
        assert b"location" not in reply.fields


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_redirect_is_told_with_its_route_and_without_an_upstream(version: str) -> None:
    async with acting("- {name: away, redirect: {scheme: https}}") as to:
        reply = await to.ask(version, b"/x", (b"x-request-id", b"mine"))
        assert reply.fields[b"proxy-status"] == b'sidecar; details="redirect"'
        assert reply.fields[b"x-request-id"] == b"mine"
        assert reply.fields[b"via"] == b"1.1 sidecar"
        assert b"date" in reply.fields
        assert to.ended.told == [("away", 302, "redirect", 0, None)]
        assert to.worker.assembly.breakers == {}


async def test_an_http_1_0_client_without_a_host_stays_where_it_is() -> None:
    async with acting("- {name: away, redirect: {port: 81}}") as to:
        for target, location in ((b"/x", b"/x"), (b"//evil.test/x", b"/evil.test/x")):
            async with raw_client(to.port) as client:
                await client.send(b"GET %b HTTP/1.0\r\n\r\n" % target)
                (response,) = await client.responses([b"GET"])
                assert response.value(b"location") == location


async def test_a_redirect_of_one_match_leaves_the_others_alone() -> None:
    routes = (
        "- {name: away, match: {path: {exact: /old}}, redirect: {path: /new}}\n- {name: app, upstream: app}"
    )
    async with acting(routes) as to:
        assert (await to.ask("1.1", b"/old")).status == 302
        assert (await to.ask("1.1", b"/older")).body == b"GET /older"
