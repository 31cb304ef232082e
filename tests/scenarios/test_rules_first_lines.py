"""What a request's first lines ask of a proxy: its version, its host, and how far it may go (RFC 9110, RFC 9112)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.scenarios.stage import GET, OK, app_routes, get, post, saying, stage
from tests.support.proxy import port, running
from tests.support.raw import Response, Script, raw_client, raw_upstream, read_request

WAYS = pytest.mark.parametrize("is_bytewise", [False, True], ids=["whole", "bytewise"])
ERROR = b"sidecar; error=http_request_error; details="


async def answers_to(to: int, data: bytes, *methods: bytes, is_bytewise: bool = False) -> list[Response]:
    """The answers on a connection of its own, which stays open."""
    async with raw_client(to) as client:
        await client.send(data, is_bytewise=is_bytewise)
        return await client.responses(list(methods))


async def refusal(to: int, data: bytes, *, is_bytewise: bool) -> Response:
    """The one answer on a connection that ends with it."""
    async with raw_client(to) as client:
        await client.send(data, is_bytewise=is_bytewise)
        await client.read_to_end()
        assert not client.is_reset
        (answer,) = await client.responses([b"GET"])
        assert answer.value(b"connection") == b"close"
        assert (answer.value(b"proxy-status") or b"").startswith(ERROR)
        return answer


# HTTP/1.0 without Host


@WAYS
@pytest.mark.parametrize("field", [b"", b"Connection: keep-alive\r\n"], ids=["closes", "stays"])
async def test_a_request_without_host_goes_on_with_that_of_its_endpoint(
    field: bytes, is_bytewise: bool
) -> None:
    async with stage() as to:
        data = b"GET /old HTTP/1.0\r\n" + field + b"\r\n"
        (answer,) = await answers_to(to.port, data, b"GET", is_bytewise=is_bytewise)
        assert (answer.status, answer.body) == (200, b"GET /old")
        assert to.requests[0].value(b"host") == b"127.0.0.1:%d" % to.app.port


async def test_a_request_without_host_goes_on_with_that_of_its_rewrite() -> None:
    async with stage(route="rewrite: {host: payments.internal}") as to:
        assert (await to.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200
        assert to.requests[0].value(b"host") == b"payments.internal"


async def test_a_body_without_host_goes_on_as_well() -> None:
    async with stage() as to:
        data = b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"
        assert (await to.ask(data, b"POST")).status == 200
        request = to.requests[0]
        assert (request.value(b"host"), request.body) == (b"127.0.0.1:%d" % to.app.port, b"hello")


async def test_the_upstream_of_a_fallback_is_told_its_own_host() -> None:
    failing: Script = saying(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    async with raw_upstream(failing) as app, raw_upstream() as spare:
        routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{app.port}"]}}, spare: {{endpoints: ["127.0.0.1:{spare.port}"]}}}}
routes:
- {{name: app, upstream: app, circuit_breaker: {{consecutive_failures: 1}}, fallback: {{upstream: spare}}}}
"""
        async with running(routes) as worker:
            await answers_to(port(worker), GET, b"GET")  # opens the breaker
            (answer,) = await answers_to(port(worker), b"GET /old HTTP/1.0\r\n\r\n", b"GET")
        assert (answer.status, answer.body) == (200, b"GET /old")
        assert spare.requests[-1].value(b"host") == b"127.0.0.1:%d" % spare.port


async def test_an_endpoint_that_is_a_unix_socket_is_told_localhost(tmp_path: Path) -> None:
    """A path is no authority (RFC 9110 7.2), and an empty Host is refused by most servers."""
    received = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        with contextlib.suppress(asyncio.IncompleteReadError):
            received = await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
        writer.close()

    path = tmp_path / "app.sock"
    routes = app_routes(1).replace("127.0.0.1:1", f"unix:{path}")
    async with await asyncio.start_unix_server(serve, path), running(routes) as worker:
        (answer,) = await answers_to(port(worker), b"GET / HTTP/1.0\r\n\r\n", b"GET")
    assert answer.status == 200
    found = read_request(received)
    assert found is not None
    assert found[0].value(b"host") == b"localhost"


# Max-Forwards (RFC 9110 7.6.2)


@WAYS
@pytest.mark.parametrize("target", [b"/far", b"*", b"http://x/far"])
@pytest.mark.parametrize("zero", [b"0", b"00"])
async def test_options_that_may_go_no_further_is_answered_here(
    zero: bytes, target: bytes, is_bytewise: bool
) -> None:
    async with stage() as to:
        data = b"OPTIONS %b HTTP/1.1\r\nHost: x\r\nMax-Forwards: %b\r\n\r\n" % (target, zero)
        answer, after = await answers_to(to.port, data + GET, b"OPTIONS", b"GET", is_bytewise=is_bytewise)
        assert (answer.status, answer.body, answer.framing) == (200, b"", "length")
        assert answer.value(b"proxy-status") == b'sidecar; details="max_forwards"'
        assert (after.status, after.body) == (200, b"GET /")
        assert [request.method for request in to.requests] == [b"GET"]


SECRETS = (
    b"Authorization: Bearer s3cret", b"Proxy-Authorization: Basic s3cret", b"Cookie: a=s3cret", b"X-Api-Key: s3cret",
)  # fmt: skip


@WAYS
async def test_trace_that_may_go_no_further_gets_back_what_it_sent_without_secrets(is_bytewise: bool) -> None:
    fields = b"".join(line + b"\r\n" for line in (b"Host: x", b"Max-Forwards: 0", *SECRETS, b"X-A: kept"))
    async with stage() as to:
        data = b"TRACE /far?q HTTP/1.1\r\n" + fields + b"\r\n"
        answer, after = await answers_to(to.port, data + GET, b"TRACE", b"GET", is_bytewise=is_bytewise)
        assert (answer.status, answer.value(b"content-type")) == (200, b"message/http")
        assert answer.value(b"proxy-status") == b'sidecar; details="max_forwards"'
        first, *lines = answer.body.split(b"\r\n")
        assert first == b"TRACE /far?q HTTP/1.1"
        assert {b"X-A: kept", b"Max-Forwards: 0", b"Host: x"} <= set(lines)
        assert b"s3cret" not in answer.body
        assert (after.status, after.body) == (200, b"GET /")
        assert [request.method for request in to.requests] == [b"GET"]


@WAYS
@pytest.mark.parametrize("method", [b"TRACE", b"OPTIONS"])
@pytest.mark.parametrize(("given", "sent"), [(b"1", b"0"), (b"5", b"4"), (b"10", b"9"), (b"007", b"6")])
async def test_what_may_go_further_is_counted_down(
    given: bytes, sent: bytes, method: bytes, is_bytewise: bool
) -> None:
    async with stage() as to:
        data = b"%b /far HTTP/1.1\r\nHost: x\r\nMax-Forwards: %b\r\n\r\n" % (method, given)
        (answer,) = await answers_to(to.port, data, method, is_bytewise=is_bytewise)
        assert (answer.status, answer.body) == (200, method + b" /far")
        assert to.requests[0].value(b"max-forwards") == sent


@pytest.mark.parametrize("given", [b"9223372036854775808", b"1" + b"0" * 40])
async def test_a_number_beyond_every_integer_is_still_counted_down(given: bytes) -> None:
    """Or written as the greatest that is supported: less than it was in any case (RFC 9110 7.6.2)."""
    async with stage() as to:
        data = b"OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: %b\r\n\r\n" % given
        assert (await to.ask(data, b"OPTIONS")).status == 200
        assert 0 < int(to.requests[0].value(b"max-forwards") or b"0") < int(given)


@WAYS
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"PROPFIND"])
@pytest.mark.parametrize("value", [b"0", b"5"])
async def test_it_means_nothing_in_any_other_method(value: bytes, method: bytes, is_bytewise: bool) -> None:
    async with stage() as to:
        data = b"%b /far HTTP/1.1\r\nHost: x\r\nMax-Forwards: %b\r\n\r\n" % (method, value)
        (answer,) = await answers_to(to.port, data, method, is_bytewise=is_bytewise)
        assert answer.status == 200
        assert to.requests[0].value(b"max-forwards") == value


@pytest.mark.parametrize("value", [b"-1", b"1.5", b"0x0", b"many", b""])
async def test_what_is_no_number_is_not_taken_for_zero(value: bytes) -> None:
    async with stage() as to:
        answer = await to.ask(
            b"OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: %b\r\n\r\n" % value, b"OPTIONS"
        )
        assert (answer.status, answer.body) == (200, b"OPTIONS /")
        assert to.requests[0].value(b"max-forwards") == value


# 426 (RFC 9110 15.5.22): its Upgrade says to what, and is all its use


def options_of(answer: Response) -> set[bytes]:
    return {part.strip().lower() for part in b",".join(answer.values(b"connection")).split(b",")} - {b""}


@pytest.mark.parametrize("protocols", [b"TLS/1.2", b"HTTP/3.0, websocket", b"h2c"])
@pytest.mark.parametrize("listed", [b"Connection: Upgrade\r\n", b""], ids=["listed", "unlisted"])
@pytest.mark.parametrize(
    "framed",
    [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
async def test_426_says_to_the_client_what_to_upgrade_to(
    framed: bytes, listed: bytes, protocols: bytes
) -> None:
    said = b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: %b\r\n%b%b" % (protocols, listed, framed)
    async with stage(saying(said, OK)) as to:
        answer, after = await to.ask_all(GET + GET, [b"GET", b"GET"])
        assert (answer.status, answer.body, after.status) == (426, b"hello", 200)
        assert answer.value(b"upgrade") == protocols
        assert options_of(answer) == {b"upgrade"}


async def test_426_that_ends_the_connection_says_both() -> None:
    said = b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nConnection: X-A, Upgrade\r\nX-A: 1\r\n"
    async with stage(saying(said + b"Content-Length: 0\r\n\r\n")) as to:
        answer = await to.ask(get(b"/", b"Connection: close"))
        assert (answer.status, answer.value(b"upgrade")) == (426, b"TLS/1.2")
        assert options_of(answer) == {b"upgrade", b"close"}
        assert answer.values(b"x-a") == []


async def test_426_to_an_upgrade_that_was_asked_for_says_so_too() -> None:
    said = b"HTTP/1.1 426 X\r\nUpgrade: websocket/2\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
    async with stage(saying(said)) as to:
        answer = await to.ask(get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"))
        assert (answer.status, answer.value(b"upgrade")) == (426, b"websocket/2")


@pytest.mark.parametrize("status", [200, 400, 501])
async def test_any_other_answer_keeps_its_upgrade_on_its_own_hop(status: int) -> None:
    said = b"HTTP/1.1 %d X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n" % status
    async with stage(saying(said)) as to:
        answer = await to.ask()
        assert (answer.status, answer.values(b"upgrade"), options_of(answer)) == (status, [], set())


# Transfer codings that are not known here (RFC 9112 6.1)


@WAYS
@pytest.mark.parametrize(
    "coding", [b"gzip", b"cow", b"xchunked", b"gzip, chunked", b"cow, chunked", b"compress, gzip, chunked"]
)
async def test_a_transfer_coding_that_is_not_known_is_501(coding: bytes, is_bytewise: bool) -> None:
    data = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %b\r\n\r\n0\r\n\r\n" % coding
    async with stage() as to:
        assert (await refusal(to.port, data, is_bytewise=is_bytewise)).status == 501
        assert to.app.received == b""


@pytest.mark.parametrize("fields", [b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"])
async def test_so_it_is_over_two_lines(fields: bytes) -> None:
    data = b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n0\r\n\r\n"
    async with stage() as to:
        assert (await refusal(to.port, data, is_bytewise=False)).status == 501
        assert to.app.received == b""


@WAYS
@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: ",
    ],
)
async def test_framing_that_is_ambiguous_stays_400(fields: bytes, is_bytewise: bool) -> None:
    data = b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n0\r\n\r\n"
    async with stage() as to:
        assert (await refusal(to.port, data, is_bytewise=is_bytewise)).status == 400
        assert to.app.received == b""


# Versions (RFC 9110 2.5, RFC 9112 2.3)


@WAYS
@pytest.mark.parametrize("version", [b"3.7", b"2.0", b"2.1", b"9.9", b"0.9", b"0.0"])
async def test_a_major_version_other_than_1_is_505(version: bytes, is_bytewise: bool) -> None:
    data = b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version
    async with stage() as to:
        assert (await refusal(to.port, data, is_bytewise=is_bytewise)).status == 505
        assert to.app.received == b""


@WAYS
@pytest.mark.parametrize("version", [b"1.2", b"1.7", b"1.9"])
@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
async def test_a_higher_minor_version_is_served_as_1_1(
    body: bytes, version: bytes, is_bytewise: bool
) -> None:
    async with stage() as to:
        data = b"POST /new HTTP/%b\r\nHost: x\r\n%b" % (version, body)
        answers = await answers_to(to.port, data + GET, b"POST", b"GET", is_bytewise=is_bytewise)
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"POST /new"), (200, b"GET /")]
        assert answers[0].value(b"connection") is None
        assert to.requests[0].body == b"hello"


async def test_a_higher_minor_version_gets_an_answer_without_a_length_in_chunks() -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    async with stage(saying(said)) as to:
        answer = await to.ask(b"GET / HTTP/1.2\r\nHost: x\r\n\r\n")
        assert (answer.status, answer.is_chunked, answer.body) == (200, True, b"hello")


@WAYS
@pytest.mark.parametrize("version", [b"1.1", b"1.2"])
async def test_a_version_from_1_1_on_needs_a_host(version: bytes, is_bytewise: bool) -> None:
    async with stage() as to:
        data = b"GET / HTTP/%b\r\n\r\n" % version
        assert (await refusal(to.port, data, is_bytewise=is_bytewise)).status == 400


@WAYS
@pytest.mark.parametrize(
    "version", [b"HTTP/1.10", b"HTTP/1", b"HTTP/01.1", b"HTTP/1.x", b"http/1.1", b"HTTP/-1.1"]
)
async def test_what_is_no_version_stays_400(version: bytes, is_bytewise: bool) -> None:
    async with stage() as to:
        data = b"GET / %b\r\nHost: x\r\n\r\n" % version
        assert (await refusal(to.port, data, is_bytewise=is_bytewise)).status == 400
        assert to.app.received == b""


# CONNECT, which no route takes


@WAYS
@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01\x00\x05hello", GET], ids=["alone", "tls", "request"])
async def test_connect_that_no_route_takes_is_405_in_words(behind: bytes, is_bytewise: bool) -> None:
    async with stage() as to:
        data = b"CONNECT db:443 HTTP/1.1\r\nHost: db:443\r\n\r\n" + behind
        answer = await refusal(to.port, data, is_bytewise=is_bytewise)
        assert answer.status == 405
        assert b"CONNECT" in (answer.value(b"proxy-status") or b"")
        assert b"CONNECT" in answer.body
        assert to.app.received == b""


async def test_connect_behind_another_request_is_405_and_the_first_is_served() -> None:
    async with stage() as to:
        data = post(b"hello") + b"CONNECT db:443 HTTP/1.1\r\nHost: db:443\r\n\r\n"
        answers = await to.ask_all(data, [b"POST", b"CONNECT"])
        assert [answer.status for answer in answers] == [200, 405]
        assert [request.method for request in to.requests] == [b"POST"]
