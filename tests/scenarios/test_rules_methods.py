"""Every token is a method (RFC 9110 9.1): relayed as it is written, with any body, in whatever pieces it comes."""

from __future__ import annotations

from enum import Enum

import pytest

from tests.scenarios.stage import GET, app_routes, saying, stage
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, Request, Response, Script, echo_of, raw_client, raw_upstream

METHODS = [
    b"LIST", b"BAN", b"VERSION-CONTROL", b"get", b"PROPFIND", b"M-SEARCH", b"QUERY", b"Get", b"head", b"connect",
    b"GETX", b"XGET", b"x", b"!#$%&'*+-.^_`|~09azAZ", b"L" * 32,
    # Methods of protocols whose heads look like those of HTTP: RTSP (RFC 2326) and Icecast.
    b"DESCRIBE", b"TEARDOWN", b"SOURCE",
]  # fmt: skip
COUNT_OF_OTHERS = (
    'http_server_request_duration_seconds_count{sidecar_route="app",sidecar_listener="inbound",'
    'http_request_method="_OTHER"'
)
BODY = b"0123456789abcdef"
FRAMED = {
    "none": b"\r\n",
    "length": b"Content-Length: 16\r\n\r\n" + BODY,
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\nb\r\n56789abcdef\r\n0\r\n\r\n",
}
NOT_TOKENS = [
    b"", b"L@ST", b"LI(ST", b"LI/ST", b"LI:ST", b'"LIST"', b"LI,ST", b"LI;ST", b"LI=ST", b"{LIST}", b"LI\x7fST",
    b"LI\x00ST", b"LI\x0bST", b"LI\rST", b"L\xcfST", b"LI\tST",
]  # fmt: skip


class Way(Enum):
    WHOLE = "whole"
    BYTEWISE = "bytewise"
    PIPELINED = "pipelined"
    """Between two requests with a usual method, in one write."""


def asking(method: bytes, framing: str = "none", target: bytes = b"/v1/secret") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: x\r\n%b" % (method, target, FRAMED[framing])


async def conversed(to: int, method: bytes, framing: str, way: Way) -> list[Response]:
    """The answers to a request with `method` and to a GET behind it on the same connection."""
    data, methods = asking(method, framing), [method, b"GET"]
    async with raw_client(to) as client:
        if way is Way.PIPELINED:
            await client.send(GET + data + GET)
            return (await client.responses([b"GET", *methods]))[1:]
        await client.send(data, is_bytewise=way is Way.BYTEWISE)
        await client.responses(methods[:1])
        await client.send(GET)
        return await client.responses(methods)


@pytest.mark.parametrize("way", Way, ids=lambda way: way.value)
@pytest.mark.parametrize("framing", FRAMED)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.decode())
async def test_any_token_is_a_method_and_goes_on_as_it_is_written(
    method: bytes, framing: str, way: Way
) -> None:
    async with stage() as to:
        answers = await conversed(to.port, method, framing, way)
        assert [(answer.status, answer.body) for answer in answers] == [
            (200, method + b" /v1/secret"),
            (200, b"GET /"),
        ]
        request: Request = to.requests[-2]
        assert (request.method, request.target) == (method, b"/v1/secret")
        assert (request.framing, request.body) == (framing, b"" if framing == "none" else BODY)


@pytest.mark.parametrize("method", [b"LIST", b"get"], ids=lambda method: method.decode())
@pytest.mark.parametrize("tail", [b" http://x/v1/secret HTTP/1.1", b" /v1/secret HTTP/1.0"])
async def test_so_it_is_in_absolute_form_and_in_http_1_0(method: bytes, tail: bytes) -> None:
    async with stage() as to:
        answer = await to.ask(method + tail + b"\r\nHost: x\r\n\r\n", method)
        assert (answer.status, answer.body) == (200, method + b" /v1/secret")


@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("size", [1000, 5000])
async def test_a_method_without_a_sane_end_is_refused(size: int, is_bytewise: bool) -> None:
    async with stage() as to, raw_client(to.port) as client:
        await client.send(asking(b"L" * size), is_bytewise=is_bytewise)
        await client.read_to_end()
        (answer,) = await client.responses([b"GET"])
        assert (answer.status, answer.value(b"connection")) == (400, b"close")
        assert (answer.value(b"proxy-status") or b"").startswith(b"sidecar; error=http_request_error; ")
        assert to.app.received == b""


@pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "behind-a-good-one"])
@pytest.mark.parametrize("method", NOT_TOKENS, ids=repr)
async def test_what_is_no_token_is_refused(method: bytes, is_first: bool, is_bytewise: bool) -> None:
    async with stage() as to, raw_client(to.port) as client:
        methods = [b"GET"]
        if not is_first:
            await client.send(asking(b"LIST"))
            await client.responses([b"LIST"])
            methods.insert(0, b"LIST")
        await client.send(asking(method), is_bytewise=is_bytewise)
        await client.read_to_end()
        *before, answer = await client.responses(methods)
        assert [one.status for one in before] == [200] * (len(methods) - 1)
        assert (answer.status, answer.value(b"connection")) == (400, b"close")
        assert [request.method for request in to.requests] == methods[:-1]
        assert all(peer.rest == b"" for peer in to.app.peers)


async def sent_to(methods: str, method: bytes) -> bytes:
    """Which upstream answers `method`: that of the route with `methods`, or that of the route for all others."""
    routes = """\
upstreams: {{chosen: {{endpoints: ["127.0.0.1:{chosen}"]}}, others: {{endpoints: ["127.0.0.1:{others}"]}}}}
routes:
- {{name: chosen, match: {{methods: {methods}}}, upstream: chosen}}
- {{name: others, upstream: others}}
"""
    async with raw_upstream(named(b"chosen")) as chosen, raw_upstream(named(b"others")) as others:
        text = routes.format(chosen=chosen.port, others=others.port, methods=methods)
        async with running(text) as worker, raw_client(port(worker)) as client:
            await client.send(asking(method))
            (answer,) = await client.responses([method])
            assert answer.status == 200
            return answer.body


def named(name: bytes) -> Script:
    return saying(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + name)


@pytest.mark.parametrize(
    ("methods", "method", "upstream"),
    [
        ("[LIST]", b"LIST", b"chosen"),
        ("[LIST]", b"GET", b"others"),
        ("[LIST]", b"list", b"others"),
        ("[LIST]", b"LISTS", b"others"),
        ("[GET]", b"get", b"others"),
        ("[get]", b"get", b"chosen"),
        ("[get]", b"GET", b"others"),
        ("[BAN, VERSION-CONTROL]", b"VERSION-CONTROL", b"chosen"),
        ("[HEAD]", b"head", b"others"),
    ],
)
async def test_a_route_for_a_method_takes_that_one_and_no_other(
    methods: str, method: bytes, upstream: bytes
) -> None:
    assert await sent_to(methods, method) == upstream


async def test_head_in_lower_case_is_another_method_whose_answer_has_a_body() -> None:
    """Taken for HEAD, its answer's body would be read as the next answer (RFC 9110 9.1: case counts)."""
    async with stage(saying(echo_of(b"POST", b"/1"), echo_of(b"POST", b"/2"))) as to:
        answers = await to.ask_all(asking(b"head") + GET, [b"head", b"GET"])
        assert [answer.body for answer in answers] == [b"POST /1", b"POST /2"]


async def test_what_a_client_calls_its_method_never_becomes_a_label() -> None:
    async with stage() as to:
        for number in range(40):
            assert (await to.ask(asking(b"M%d" % number), b"GET")).status == 200
        assert to.metric("http_server_request_duration_seconds_count{") == 40
        assert to.metric(COUNT_OF_OTHERS) == 40


async def test_a_request_of_an_unknown_method_is_not_sent_twice() -> None:
    """Whether it may be repeated is known of registered methods alone (RFC 9110 9.2.2)."""
    requests = 0

    async def leaving(peer: RawPeer) -> None:
        nonlocal requests
        if await peer.request() is None:
            return
        requests += 1
        if peer.number == 0:
            await peer.send(echo_of(b"GET", b"/"))
            await peer.request()
            requests += 1

    async with raw_upstream(leaving) as app, running(app_routes(app.port)) as worker:
        async with raw_client(port(worker)) as client:
            await client.send(GET)
            await client.responses([b"GET"])
            await client.send(asking(b"LIST"))
            answers = await client.responses([b"GET", b"LIST"])
        assert [answer.status for answer in answers] == [200, 502]
        assert requests == 2
