"""`ambiguous: refuse`: no route is chosen by what its upstream may read otherwise."""

from __future__ import annotations

import pytest

from sidecar.forwarding.live import PSEUDONYM
from tests.scenarios.stage import HEADER, OK, get, inbound, saying, stage
from tests.support.ports import free_ports
from tests.support.proxy import port, running
from tests.support.raw import raw_client, raw_upstream

MATCH = "match: [{headers: {x-debug: '1'}, query: {beta: '1'}}, {path: {prefix: /}}]"
REFUSED = [
    get(b"/", b"x-debug: 1", b"x-debug: 2"),
    get(b"/", b"X_Debug: 1"),
    get(b"/", b"x-debug: 1", b"x_debug: 2"),
    get(b"/", b"x-debug: 1", b"Connection: x-debug"),
    get(b"/?beta=1&beta=2"),
    get(b"/?beta[]=1"),
    get(b"/?a=2;beta=1"),
    get(b"/?beta=+1"),
]
TAKEN = [
    get(b"/", b"x-debug: 1"),
    get(b"/", b"x-other: 1", b"x-other: 2"),
    get(b"/", b"x-debug: 1", b"Connection: x-other"),
    get(b"/?beta=1"),
    get(b"/?other[]=1&other[]=2&a=1;b=+1"),
]


@pytest.mark.parametrize(
    ("options", "refuses"),
    [
        ("trust: none", True),
        ("ambiguous: refuse", True),
        ("trust: none, ambiguous: first", False),
        ("trust: all", False),
    ],
)
async def test_a_listener_refuses_where_it_should(options: str, refuses: bool) -> None:
    async with stage(saying(OK), route=MATCH, header=inbound(options)) as to:
        assert [(await to.ask(one)).status for one in REFUSED] == [400 if refuses else 200] * len(REFUSED)
        assert [(await to.ask(one)).status for one in TAKEN] == [200] * len(TAKEN)


async def test_a_refusal_is_told_in_words_and_the_connection_goes_on() -> None:
    async with stage(saying(OK), route=MATCH, header=inbound("ambiguous: refuse")) as to:
        first, second = await to.ask_all(REFUSED[1] + TAKEN[0], [b"GET", b"GET"])
    assert (first.status, second.status) == (400, 200)
    detail = b"a route asks for the field 'x_debug', which comes in two forms"
    assert (
        first.value(b"proxy-status")
        == b'sidecar; error=http_request_error; details="bad_request: %b"' % detail
    )


@pytest.mark.parametrize(("options", "is_kept"), [("trust: none", False), ("trust: all", True)])
async def test_other_fields_with_underscores_are_dropped(options: str, is_kept: bool) -> None:
    async with stage(saying(OK), route=MATCH, header=inbound(options)) as to:
        await to.ask(get(b"/", b"x_other: 1", b"x-kept: 2"))
        (seen,) = to.requests
        assert (seen.value(b"x_other") is not None, seen.value(b"x-kept")) == (is_kept, b"2")


async def test_a_field_with_an_underscore_that_a_route_asks_for_goes_on() -> None:
    match = "match: [{headers: {x_own: '1'}}]"
    async with stage(saying(OK), route=match, header=inbound("trust: none")) as to:
        assert (await to.ask(get(b"/", b"x_own: 1"))).status == 200
        assert to.requests[0].value(b"x_own") == b"1"
        assert (await to.ask(get(b"/", b"x-own: 1"))).status == 400


# Header operations


@pytest.mark.parametrize("name", [b"x-debug", b"x_debug", b"X_Debug", b"x-own-id", b"x_own_id", b"X-Own_Id"])
async def test_set_and_remove_act_on_spellings_with_underscores(name: bytes) -> None:
    route = "request_headers: {remove: [x-debug], set: {x-own-id: ours}}"
    async with stage(saying(OK), route=route) as to:
        assert (await to.ask(get(b"/", name + b": theirs", b"x_other: 1"))).status == 200
        (seen,) = to.requests
        values = [value for key, value in seen.fields if key.replace(b"_", b"-") in (b"x-debug", b"x-own-id")]
        assert values == [b"ours"]
        assert seen.value(b"x_other") == b"1"


@pytest.mark.parametrize("name", [b"x_request_id", b"X_Request-Id", b"proxy_authorization"])
async def test_what_this_hop_writes_itself_comes_in_no_other_spelling(name: bytes) -> None:
    async with stage(saying(OK)) as to:
        await to.ask(get(b"/", name + b": forged"))
        assert b"forged" not in b"".join(value for _, value in to.requests[0].fields)


# Hosts


@pytest.mark.parametrize("host", [b"010.0.0.1", b"127.1", b"0x7f.1", b"[:::1]", b"2130706433"])
async def test_a_host_that_is_read_in_several_ways_is_400(host: bytes) -> None:
    async with stage(saying(OK)) as to:
        for request in (
            b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host,
            b"GET http://%b/ HTTP/1.1\r\nHost: x\r\n\r\n" % host,
        ):
            assert (await to.ask(request)).status == 400
        assert to.requests == []


# Loops


async def test_a_request_that_comes_back_for_ever_is_508() -> None:
    (own,) = free_ports(1)
    routes = f"""\
upstreams: {{self: {{endpoints: ["127.0.0.1:{own}"]}}}}
routes: [{{name: r, upstream: self, circuit_breaker: {{mode: disabled}}}}]
"""
    header = HEADER.replace('inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:{own}"}}')
    async with running(routes, header) as worker, raw_client(own) as client:
        await client.send(get())
        (response,) = await client.responses([b"GET"])
        assert response.status == 508
        assert b"error=proxy_loop_detected" in (response.value(b"proxy-status") or b"")
        assert response.values(b"via") == [b"1.1 sidecar"] * 10, "nine turns, and who answers"
        assert not worker.service.exchanges


@pytest.mark.parametrize(("turns", "status"), [(8, 200), (9, 508)])
async def test_eight_turns_are_none_too_many(turns: int, status: int) -> None:
    async with stage(saying(OK)) as to:
        own = b", ".join([b"1.1 " + PSEUDONYM] * turns)
        assert (await to.ask(get(b"/", b"Via: " + own))).status == status


async def test_other_sidecars_make_no_loop() -> None:
    async with raw_upstream(saying(OK)) as app:
        routes = f"upstreams: {{app: {{endpoints: ['127.0.0.1:{app.port}']}}}}\n"
        routes += "routes: [{name: r, upstream: app}]\n"
        async with running(routes) as worker, raw_client(port(worker)) as client:
            await client.send(get(b"/", b"Via: " + b", ".join([b"1.1 sidecar-00000000"] * 99)))
            (response,) = await client.responses([b"GET"])
            assert response.status == 200
