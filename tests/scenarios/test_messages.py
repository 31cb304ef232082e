"""Every form of a message arrives as what it was: heads, bodies, trailers, and what HTTP forbids to send on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

from sidecar.forwarding.live import PSEUDONYM
from tests.scenarios.stage import OK, get, post, saying, stage
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, raw_client, raw_upstream

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NAMES_OF_OURS = {
    b"via", b"x-request-id", b"traceparent", b"tracestate", b"x-envoy-expected-rq-timeout-ms", b"x-forwarded-for",
    b"x-forwarded-proto", b"x-forwarded-host",
}  # fmt: skip


async def test_a_request_keeps_its_method_target_fields_and_body() -> None:
    async with stage(saying(OK)) as to:
        await to.ask(post(b"hello", b"/a/%2e?b=c&d", b"X-One: 1", b"x-two:  two", b"X-One: again"), b"POST")
        (seen,) = to.requests
    assert (seen.method, seen.target, seen.body) == (b"POST", b"/a/%2e?b=c&d", b"hello")
    assert [field for field in seen.fields if field[0] not in NAMES_OF_OURS] == [
        (b"host", b"x"),
        (b"content-length", b"5"),
        (b"x-one", b"1"),
        (b"x-two", b"two"),
        (b"x-one", b"again"),
    ]
    assert {key for key, _ in seen.fields} >= NAMES_OF_OURS
    assert seen.value(b"via") == b"1.1 " + PSEUDONYM


async def test_spaces_around_a_value_are_no_part_of_it() -> None:
    async with stage(route="match: {headers: {x-tenant: gold}}") as to:
        response = await to.ask(get(b"/", b"X-Tenant: \t gold \t "))
        assert response.status == 200


async def test_a_response_keeps_its_status_fields_and_body() -> None:
    answer = (
        b"HTTP/1.1 418 Teapot\r\nX-One: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\ntea"
    )
    async with stage(saying(answer)) as to:
        response = await to.ask()
    assert (response.status, response.body) == (418, b"tea")
    assert [field for field in response.fields if field[0] not in (b"x-request-id", b"date")] == [
        (b"x-one", b"1"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"content-length", b"3"),
        (b"via", b"1.1 sidecar"),
    ]


async def test_hop_by_hop_fields_stop_here_both_ways() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Connection: x\r\nContent-Length: 2\r\n\r\nok"
    )
    async with stage(saying(answer)) as to:
        response = await to.ask(
            get(
                b"/",
                b"Connection: keep-alive, X-Mine",
                b"X-Mine: 1",
                b"Keep-Alive: x",
                b"TE: gzip",
                b"X-Kept: 1",
            )
        )
        (seen,) = to.requests
    assert {key for key, _ in response.fields} == {b"content-length", b"date", b"via", b"x-request-id"}
    assert {key for key, _ in seen.fields} - NAMES_OF_OURS == {b"host", b"x-kept"}


SENT = b"Date: Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("route", "sent", "told"),
    [
        ("", [SENT], SENT),
        ("", [SENT, b"date: x"], SENT),
        ("", [], None),
        ("response_headers: {remove: [date]}", [SENT], b""),
        ("response_headers: {set: {date: y}}", [SENT], b"date: y"),
        ("response_headers: {add: {Date: y}}", [SENT], b"date: y"),
        ("response_headers: {add: {Date: y}}", [], b"date: y"),
    ],
)
async def test_an_answer_says_when_it_was_made(route: str, sent: list[bytes], told: bytes | None) -> None:
    """RFC 9110 6.6.1; None: now. Whole, in pieces, and where the route decides."""
    head = b"".join(line + b"\r\n" for line in [b"HTTP/1.1 200 OK", *sent])
    answers = [
        head + b"Content-Length: 2\r\n\r\nok",
        head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ]
    async with stage(saying(*answers), route=route) as to:
        for _ in answers:
            values = (await to.ask()).values(b"date")
            if told is None:
                (value,) = values
                made = parsedate_to_datetime(value.decode())
                assert abs((datetime.now(UTC) - made).total_seconds()) < 60
            else:
                assert values == ([told.partition(b": ")[2]] if told else [])


async def test_an_existing_via_is_added_to() -> None:
    async with stage(saying(OK.replace(b"OK\r\n", b"OK\r\nVia: 1.0 far\r\n"))) as to:
        response = await to.ask(get(b"/", b"Via: 1.0 near"))
        (seen,) = to.requests
    assert seen.values(b"via") == [b"1.0 near", b"1.1 " + PSEUDONYM]
    assert response.values(b"via") == [b"1.0 far", b"1.1 sidecar"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_a_head_answer_has_no_body_and_its_connection_serves_the_next_request(answer: bytes) -> None:
    async with stage(saying(answer, OK)) as to:
        both = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + get(b"/next")
        head, after = await to.ask_all(both, [b"HEAD", b"GET"])
        assert (head.status, head.body) == (200, b"")
        assert (after.status, after.body) == (200, b"ok")
        assert [request.method for request in to.requests] == [b"HEAD", b"GET"]
        assert len(to.app.peers) == 1
    assert head.value(b"content-length") == (b"1000" if b"1000" in answer else None)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_body_ends_with_its_head(status: int) -> None:
    length = b"Content-Length: 77\r\n" if status == 304 else b""
    bare = b'HTTP/1.1 %d X\r\nETag: "a"\r\n%b\r\n' % (status, length)
    async with stage(saying(bare, OK)) as to:
        first, second = await to.ask_all(get() + get(b"/next"), [b"GET", b"GET"])
        assert len(to.app.peers) == 1
    assert (first.status, first.body, first.value(b"etag")) == (status, b"", b'"a"')
    assert (second.status, second.body) == (200, b"ok")


async def test_a_length_in_a_204_does_not_go_on() -> None:
    async with stage(saying(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", OK)) as to:
        first, second = await to.ask_all(get() + get(), [b"GET", b"GET"])
    assert (first.status, first.value(b"content-length"), second.body) == (204, None, b"ok")


async def test_interim_answers_are_relayed_in_order_before_the_final_one() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    async with stage(saying(b"HTTP/1.1 102 Processing\r\n\r\n" + hints + OK)) as to:
        response = await to.ask()
    assert response.interims == [(102, []), (103, [(b"link", b"</a>; rel=preload")])]
    assert (response.status, response.body) == (200, b"ok")


async def test_an_interim_answer_goes_on_before_the_final_one_is_there() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await peer.read_some()

    async with stage(script, route="timeouts: {request: 2s}") as to, raw_client(to.port) as client:
        await client.send(get())
        while b"\r\n\r\n" not in client.received:
            await client.read_some()
        assert client.received == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        await client.responses([b"GET"])
        assert b"HTTP/1.1 504 " in client.received


async def test_interim_answers_are_kept_from_http_1_0_clients() -> None:
    async with stage(saying(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)) as to:
        response = await to.ask(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
    assert (response.interims, response.status, response.body) == ([], 200, b"ok")


async def test_chunked_bodies_pass_both_ways() -> None:
    answer = CHUNKED + b"3;ext=1\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    request = (
        b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nfour\r\n1\r\n!\r\n0\r\n\r\n"
    )
    async with stage(saying(answer)) as to:
        response = await to.ask(request, b"PUT")
        (seen,) = to.requests
    assert (seen.framing, seen.body) == ("chunked", b"four!")
    assert (response.framing, response.body) == ("chunked", b"onetwo")


async def test_trailers_pass_both_ways_without_those_that_mean_something_in_a_head() -> None:
    answer = CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nTrailer: x\r\n\r\n"
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n"
        b"Trailer: X-Digest\r\n\r\n2\r\nhi\r\n0\r\nX-Digest: abc\r\nHost: evil\r\n\r\n"
    )
    async with stage(saying(answer)) as to:
        response = await to.ask(request, b"POST")
        (seen,) = to.requests
    assert (seen.trailers, seen.value(b"te"), seen.value(b"connection")) == (
        [(b"x-digest", b"abc")],
        b"trailers",
        b"TE",
    )
    assert (response.trailers, response.is_cut) == ([(b"x-sum", b"1")], False)


async def test_trailers_of_an_answer_do_not_reach_a_client_that_gets_no_chunks() -> None:
    async with stage(saying(CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")) as to:
        response = await to.ask(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
    assert (response.framing, response.body, response.trailers) == ("none", b"ok", [])


@pytest.mark.parametrize(
    ("fields", "is_kept"),
    [(b"", False), (b"Connection: keep-alive\r\n", True), (b"Connection: close\r\n", False)],
)
async def test_an_http_1_0_client_gets_what_it_asked_for(fields: bytes, is_kept: bool) -> None:
    async with stage(saying(OK)) as to, raw_client(to.port) as client:
        await client.send(b"GET / HTTP/1.0\r\nHost: x\r\n" + fields + b"\r\n")
        (response,) = await client.responses([b"GET"])
        assert (response.body, response.value(b"connection")) == (
            b"ok",
            b"keep-alive" if is_kept else b"close",
        )
        if is_kept:
            await client.send(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        await client.read_to_end()
        assert len(to.requests) == 1 + is_kept


async def test_an_http_1_0_client_without_host_is_served() -> None:
    async with raw_upstream() as app:
        routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{app.port}"]}}}}
routes: [{{name: app, upstream: app, rewrite: {{host: app.internal}}}}]
"""
        async with running(routes) as worker, raw_client(port(worker)) as client:
            await client.send(b"GET /old HTTP/1.0\r\n\r\n")
            (response,) = await client.responses([b"GET"])
        assert (response.status, response.body) == (200, b"GET /old")
        assert app.requests[0].value(b"host") == b"app.internal"
        assert app.problems == []


async def test_a_body_that_ends_with_the_connection_is_relayed_in_chunks() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with stage(script) as to, raw_client(to.port) as client:
        for number in range(2):
            await client.send(get())
            response = (await client.responses([b"GET"] * (number + 1)))[-1]
            assert (response.status, response.framing, response.body) == (200, "chunked", b"all of it")
        assert len(to.app.peers) == 2


async def test_an_upstream_that_speaks_http_1_0_is_asked_in_1_1_and_not_kept() -> None:
    async with stage(saying(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")) as to:
        answers = await to.ask_all(get() + get(), [b"GET", b"GET"])
        assert [answer.body for answer in answers] == [b"ok", b"ok"]
        assert len(to.app.peers) == 2


async def test_a_client_that_asks_for_a_close_gets_it() -> None:
    async with stage(saying(OK)) as to, raw_client(to.port) as client:
        await client.send(get(b"/", b"Connection: close"))
        await client.read_to_end()
        (response,) = await client.responses([b"GET"])
        assert (response.body, response.value(b"connection")) == (b"ok", b"close")
        assert to.requests[0].value(b"connection") is None


async def test_an_upstream_that_closes_does_not_close_the_client() -> None:
    closing = OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(closing)

    async with stage(script) as to:
        answers = await to.ask_all(get() + get(), [b"GET", b"GET"])
        assert [(answer.body, answer.value(b"connection")) for answer in answers] == [(b"ok", None)] * 2
        assert len(to.app.peers) == 2


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        (b"http://payments/a?b", b"/a?b"),
        (b"http://payments", b"/"),
        (b"HTTP://payments:80/a", b"/a"),
        (b"http://payments?q", b"/?q"),
    ],
)
async def test_absolute_form_on_the_outbound_listener_is_routed_by_its_authority(
    target: bytes, origin: bytes
) -> None:
    async with raw_upstream() as app:
        routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{app.port}"]}}}}
routes: [{{name: pay, listener: outbound, match: {{hosts: [payments]}}, upstream: app}}]
"""
        async with running(routes, HEADER) as worker, raw_client(port(worker, "outbound")) as client:
            await client.send(
                b"GET %b HTTP/1.1\r\nHost: something.else\r\nProxy-Connection: x\r\n\r\n" % target
            )
            (response,) = await client.responses([b"GET"])
        assert (response.status, response.body) == (200, b"GET " + origin)
        authority = b"payments:80" if b":80" in target else b"payments"
        assert app.requests[0].value(b"host") == authority
        assert app.problems == []


async def test_options_of_the_whole_server_keeps_its_asterisk() -> None:
    async with stage() as to:
        response = await to.ask(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"OPTIONS")
    assert response.body == b"OPTIONS *"


async def test_a_499_of_the_upstream_is_relayed_like_any_other_answer() -> None:
    odd = b"HTTP/1.1 499 Gone\r\nContent-Length: 3\r\n\r\nodd"
    async with stage(saying(odd, OK)) as to, asyncio.timeout(30):
        first, second = await to.ask_all(get() + get(), [b"GET", b"GET"])
    assert (first.status, first.body, second.status) == (499, b"odd", 200)
