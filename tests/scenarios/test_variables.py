"""Header values with variables: what they say, and what nobody can make them say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidecar.core.override import Override
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import RequestReceived
from tests.scenarios.acting import VERSIONS, acting
from tests.scenarios.stage import OK, app_routes, saying
from tests.scenarios.websockets import http2_app
from tests.support.authority import Authority
from tests.support.http2_ends import Stream
from tests.support.proxy import HEADER, port, running
from tests.support.raw import raw_client
from tests.support.tls_client import tls_client

ALL = {
    "client.address": b"127.0.0.1",
    "client.identity": b"",
    "listener.name": b"inbound",
    "request.host": b"Example.test:81",
    "request.id": b"mine",
    "request.method": b"GET",
    "request.path": b"/a%20b/../c",
    "request.query": b"x=1&y",
    "request.scheme": b"http",
    "route.name": b"app",
    "trace.id": b"4bf92f3577b34da6a3ce929d0e0e4736",
    "request.header.X-Tenant": b"gold",
    "request.header.x-none": b"",
}


def both_ways(fields: str) -> str:
    """A route that sets `fields` in the request and in its answer."""
    ops = f"{{set: {{{fields}}}}}"
    return f"- {{name: app, upstream: app, request_headers: {ops}, response_headers: {ops}}}"


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_variable_stands_for_what_the_request_is(version: str) -> None:
    fields = ", ".join(f'x-v{number}: "<${{{name}}}>"' for number, name in enumerate(ALL))
    route = both_ways(fields)
    async with acting(route, saying(OK)) as to:
        pairs = (
            (b"x-request-id", b"mine"),
            (b"traceparent", TRACE),
            (b"x-tenant", b"gold"),
            (b"x-v0", b"forged"),
        )
        reply = await to.ask(version, b"/a%20b/../c?x=1&y", *pairs, host=b"Example.test:81")
        (seen,) = to.requests
        wanted = {b"x-v%d" % number: b"<%b>" % value for number, value in enumerate(ALL.values())}
        assert {key: seen.value(key) for key in wanted} == wanted
        assert {key: reply.fields[key] for key in wanted} == wanted


async def test_the_port_is_that_of_the_clients_connection() -> None:
    async with acting('- {name: app, respond: {headers: {x-port: "${client.port}"}}}') as to:
        assert 0 < int((await to.ask("1.1")).fields[b"x-port"]) < 65536


async def test_behind_trusted_hops_the_address_is_the_one_that_they_name() -> None:
    route = '- {name: app, respond: {headers: {x-a: "${client.address}"}}, clients: {forwarded_hops: 1}}'
    async with acting(route) as to:
        for came, told in ((b"9.9.9.9, ::ffff:10.0.0.1", b"10.0.0.1"), (b"a b", b"unknown")):
            assert (await to.ask("1.1", b"/", (b"X-Forwarded-For", came))).fields[b"x-a"] == told


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"a\tb", b"a%09b"),
        (b"caf\xc3\xa9", b"caf%C3%A9"),
        (b"\x80\xff", b"%80%FF"),
        (b'a, b; c="d"', b'a, b; c="d"'),
        (b"%0d%0aX-Evil: 1", b"%0d%0aX-Evil: 1"),
    ],
)
async def test_what_a_client_writes_ends_no_field(value: bytes, told: bytes, version: str) -> None:
    text = '"<${request.header.x-in}>"'
    route = both_ways(f"x-out: {text}")
    async with acting(route, saying(OK)) as to:
        reply = await to.ask(version, b"/", (b"x-in", value))
        assert to.requests[0].value(b"x-out") == reply.fields[b"x-out"] == b"<%b>" % told


async def test_one_long_value_is_cut_off() -> None:
    route = '- {name: app, respond: {headers: {x-out: "${request.header.x-in}"}}}'
    async with acting(route) as to:
        reply = await to.ask("1.1", b"/", (b"x-in", b"y" * 20_000))
        assert reply.fields[b"x-out"] == b"y" * 8192


async def test_two_dollars_are_the_text_itself() -> None:
    async with acting(
        '- {name: app, respond: {headers: {x-out: "$${client.address} ${request.method}"}}}'
    ) as to:
        assert (await to.ask("1.1")).fields[b"x-out"] == b"${client.address} GET"


@pytest.mark.parametrize("version", VERSIONS)
async def test_fields_of_one_of_several_upstreams_come_after_those_of_the_route(version: str) -> None:
    route = """\
- name: app
  weights:
    app: 0
    other:
      weight: 1
      request_headers: {set: {x-both: canary, x-own: "${request.method}"}, remove: [x-in, x-route]}
      response_headers: {add: {x-served: canary}, set: {x-answer: canary}}
  request_headers: {set: {x-both: route, x-route: route, x-kept: route}}
  response_headers: {add: {x-answer: route, x-served: route}}
"""
    async with acting(route, saying(OK)) as to:
        reply = await to.ask(version, b"/", (b"x-in", b"1"), (b"x-both", b"client"))
        (seen,) = to.requests
        names = (b"x-in", b"x-both", b"x-route", b"x-own", b"x-kept")
        assert [seen.value(name) for name in names] == [None, b"canary", None, b"GET", b"route"]
        assert (reply.fields[b"x-served"], reply.fields[b"x-answer"]) == (b"route, canary", b"canary")


async def test_an_upstream_without_changes_of_its_own_gets_those_of_the_route_alone() -> None:
    route = (
        "- {name: app, weights: {app: 1, other: {weight: 0, request_headers: {set: {x-a: other}}}}, "
        "request_headers: {set: {x-a: route}}}"
    )
    async with acting(route, saying(OK)) as to:
        await to.ask("1.1")
        assert to.requests[0].value(b"x-a") == b"route"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_share_that_is_taken_over_has_the_fields_of_who_serves(version: str) -> None:
    """The breaker of one is open: the other's fields are sent, not those of the first."""
    route = (
        "- {name: app, weights: {app: {weight: 1, request_headers: {set: {x-a: app}}}, "
        "other: {weight: 1, request_headers: {set: {x-a: other}}}}, shift_up_to: 2}"
    )
    async with acting(route, saying(OK)) as to:
        breakers = to.worker.assembly.breakers
        breakers["app", "app"].override(Override.OPEN, to.worker.service.clock())
        for _ in range(8):
            assert (await to.ask(version)).status == 200
        assert {request.value(b"x-a") for request in to.requests} == {b"other"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("host", "route"),
    [
        (b"shop.test:8080", b"at 8080"),
        (b"shop.test", b"at 80"),
        (b"shop.test:80", b"at 80"),
        (b"SHOP.test:9000", b"any"),
        (b"a.shop.test:9090", b"wild"),
        (b"a.shop.test", b"rest"),
        (b"[::1]:8080", b"v6"),
        (b"[::1]", b"rest"),
    ],
)
async def test_a_host_may_be_one_with_a_port(host: bytes, route: bytes, version: str) -> None:
    routes = """\
- {name: any, match: {hosts: [shop.test]}, respond: {body: any}}
- {name: at-8080, match: {hosts: ["shop.test:8080"]}, respond: {body: at 8080}}
- {name: at-80, match: {hosts: [shop.test], port: 80}, respond: {body: at 80}}
- {name: wild, match: {hosts: ["*.shop.test:9090", "*.other.test"]}, respond: {body: wild}}
- {name: v6, match: {hosts: ["[::1]:8080"]}, respond: {body: v6}}
- {name: rest, respond: {body: rest}}
"""
    async with acting(routes) as to:
        assert (await to.ask(version, host=host)).body == route


@pytest.mark.parametrize(
    ("value", "route"),
    [
        (b"gold-1", b"begins"),
        (b"1-gold", b"ends"),
        (b"agolda", b"rest"),
        (b"", b"rest"),
        (b"gold", b"begins"),
    ],
)
async def test_a_header_may_begin_or_end_with_a_text(value: bytes, route: bytes) -> None:
    routes = """\
- {name: begins, match: {headers: {x-plan: {prefix: gold}}}, respond: {body: begins}}
- {name: ends, match: {headers: {x-plan: {suffix: gold}}}, respond: {body: ends}}
- {name: rest, respond: {body: rest}}
"""
    async with acting(routes) as to:
        assert (await to.ask("1.1", b"/", (b"X-Plan", value))).body == route


async def test_an_upstream_that_speaks_http_2_gets_the_same() -> None:
    seen: list[RequestReceived] = []

    def answer(event: RequestReceived, stream: Stream) -> None:
        seen.append(event)
        end, http2_stream = stream._connection, stream._stream
        end.codec.send_head(
            http2_stream, 204, (), pairs=((b"access-control-allow-origin", b"*"),), is_end=True
        )
        end.flush()

    route = (
        'rewrite: {path: /new}, request_headers: {set: {x-a: "<${request.method} ${request.header.x-in}>"}}, '
        'response_headers: {set: {x-b: "${request.path}"}}, cors: {allow_origins: ["https://a.test"]}'
    )
    async with (
        http2_app(lambda: Connection(Role.SERVER), answer, lambda _: None) as number,
        running(app_routes(number, upstream="protocol: http2", route=route)) as worker,
        raw_client(port(worker)) as client,
    ):
        for count in range(1, 4):
            value = b"one\ttwo %d" % count
            await client.send(b"GET /old?q HTTP/1.1\r\nHost: a\r\nX-In: %b\r\n\r\n" % value)
            response = (await asyncio.wait_for(client.responses([b"GET"] * count), 5.0))[-1]
            assert seen[-1].path == b"/new?q"
            assert seen[-1].lookup[b"x-a"] == b"<GET one%%09two %d>" % count
            assert response.value(b"x-b") == b"/old"
            assert response.values(b"access-control-allow-origin") == []


async def test_by_tls_the_scheme_and_the_usual_port_are_those_of_https(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("a.test")
    keys = f'inbound: {{address: "127.0.0.1:0", tls: {{certificate: {pair.yaml()}}}}}'
    header = HEADER.replace('inbound: {address: "127.0.0.1:0"}', keys)
    routes = """\
- {name: at-443, match: {port: 443}, respond: {headers: {x-a: "${request.scheme} ${client.identity}"}}}
- {name: else, redirect: {path: /x}}
"""
    for host, status, field, value in (
        (b"a.test", 200, b"x-a", b"https"),
        (b"a.test:8443", 302, b"location", b"https://a.test:8443/x"),
    ):
        async with (
            acting(routes, header=header) as to,
            tls_client(to.port, authority.client(), "a.test") as client,
        ):
            answer = await client.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
            assert (answer.status, answer.value(field)) == (status, value)
