"""Two requests in one write are answered as two requests in two writes, whatever the second one is.

What stands behind a request must never reach back to it: an answer that is due is sent before the connection ends.
"""

from __future__ import annotations

import pytest

from tests.scenarios.stage import get, stage
from tests.support.raw import Response, raw_client, turns

UPGRADING = b"Connection: Upgrade\r\nUpgrade: echo\r\n"


def request(method: bytes, *lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = b"%b /app/first HTTP/%b\r\nHost: x\r\n" % (method, version)
    return (
        head + b"".join(line if line.endswith(b"\n") else line + b"\r\n" for line in lines) + b"\r\n" + body
    )


CHUNKED = b"Transfer-Encoding: chunked"
FIRST = {
    "get": get(b"/app/first"),
    "post": request(b"POST", b"Content-Length: 4", body=b"body"),
    "post chunked": request(b"POST", CHUNKED, body=b"4\r\nbody\r\n0\r\n\r\n"),
    "post with trailers": request(b"POST", CHUNKED, body=b"4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "upgrade": request(b"GET", UPGRADING),
    "upgrade with a body": request(b"POST", UPGRADING, b"Content-Length: 4", body=b"body"),
    "upgrade with an empty body": request(b"POST", UPGRADING, b"Content-Length: 0"),
    "upgrade with chunks": request(b"PUT", UPGRADING, CHUNKED, body=b"4\r\nbody\r\n0\r\n\r\n"),
    "upgrade with no chunks": request(b"POST", UPGRADING, CHUNKED, body=b"0\r\n\r\n"),
    "upgrade to h2c": request(
        b"POST", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk",
        b"Content-Length: 4", body=b"body",
    ),
    "expect": request(b"PUT", b"Content-Length: 4", b"Expect: 100-continue", body=b"body"),
    "upgrade that expects": request(
        b"POST", UPGRADING, b"Content-Length: 4", b"Expect: 100-continue", body=b"body"
    ),
    "head": request(b"HEAD"),
    "HTTP/1.0 kept": request(b"GET", b"Connection: keep-alive", version=b"1.0"),
    "no route": get(b"/no-route"),
    "no route with a body": request(b"POST", b"Content-Length: 4", body=b"body").replace(b"/app/first", b"/no-route"),
    "no route with an upgrade and a body": request(
        b"POST", UPGRADING, b"Content-Length: 4", body=b"body"
    ).replace(b"/app/first", b"/no-route"),
}  # fmt: skip

SECOND = {
    "bad host": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "bad host and a body": b"POST / HTTP/1.1\r\nHost: a b\r\nContent-Length: 4\r\n\r\nbody",
    "bad field": b"GET / HTTP/1.1\r\nHost: x\r\nbad field: 1\r\n\r\n",
    "bad line": b"nonsense\r\n\r\n",
    "two framings": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    "long target": b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 20_000),
    "large head": b"GET / HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * 70_000),
    "many fields": b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % (b"X: 1\r\n" * 300),
    "get": get(b"/app/second"),
    "upgrade with a body": b"POST /app/second HTTP/1.1\r\nHost: x\r\n%bContent-Length: 1\r\n\r\nb"
    % UPGRADING,
}


async def answers(*writes: bytes, target: str) -> tuple[list[tuple[int, bytes]], list[bytes]]:
    """What a client is answered that sends these, each when the one before is answered; and what the app saw."""
    route = "match: {path: {prefix: /app}}"
    methods = [b"HEAD" if target == "head" else b"GET", b"GET"]
    async with stage(route=route) as to, raw_client(to.port) as client:
        responses: list[Response] = []
        for number, data in enumerate(writes):
            await client.send(data)
            wanted = len(methods) if number == len(writes) - 1 else number + 1
            responses = await client.responses(methods[:wanted])
            await turns(5)
        seen = [seen.method + b" " + seen.target + b" " + seen.body for seen in to.requests]
    return [(one.status, one.value(b"connection") or b"") for one in responses], seen


async def test_the_answer_of_a_post_that_asks_for_an_upgrade_outlives_a_bad_request_behind_it() -> None:
    """110 bytes: the answer of the first was lost, and the connection closed without a byte."""
    first = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\nContent-Length: 1\r\n\r\nb"
    data = first + b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"
    assert len(data) == 110
    async with stage() as to:
        (answer, refusal) = await to.ask_all(data, [b"POST", b"GET"])
        assert (answer.status, answer.body, refusal.status) == (200, b"POST /", 400)
        assert refusal.value(b"connection") == b"close"
        assert [seen.body for seen in to.requests] == [b"b"]


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
async def test_a_pair_in_one_write_is_answered_as_in_two(first: str, second: str) -> None:
    expected = await answers(FIRST[first], SECOND[second], target=first)
    assert len(expected[0]) == 2
    assert await answers(FIRST[first] + SECOND[second], target=first) == expected


@pytest.mark.parametrize("behind", [1, 4, 9, 20])
@pytest.mark.parametrize("first", FIRST)
async def test_a_pair_that_is_cut_anywhere_in_the_second_is_answered_as_in_two(
    first: str, behind: int
) -> None:
    """The first read ends a few bytes into the request that cannot be read."""
    second = SECOND["bad host"]
    expected = await answers(FIRST[first], second, target=first)
    pieces = FIRST[first] + second[:behind], second[behind:]
    assert await answers(*pieces, target=first) == expected


@pytest.mark.parametrize(
    "body", [b"x\r\n", b"4\r\nbody+", b"0\r\nbad trailer\r\n\r\n", b"ffffffffffffffffff\r\n"]
)
@pytest.mark.parametrize("target", [b"/no-route", b"/app?spent"])
async def test_a_body_that_cannot_be_read_in_the_same_write_is_what_is_answered(
    body: bytes, target: bytes
) -> None:
    """Nothing was sent for the head yet, so the client hears of what is wrong; the app hears of neither."""
    lines = b"Transfer-Encoding: chunked\r\n" + (
        b"x-request-timeout-ms: 0\r\n" if b"spent" in target else b""
    )
    data = b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n%b" % (target, lines, body)
    async with stage(route="match: {path: {prefix: /app}}") as to, raw_client(to.port) as client:
        await client.send(data)
        await client.read_to_end()
        (response,) = await client.responses([b"POST"])
        assert response.status == 400
        assert response.value(b"connection") == b"close"
        assert to.requests == []


THOUSAND = {
    "gets": get(b"/no-route"),
    "upgrades": request(b"GET", UPGRADING).replace(b"/app/first", b"/no-route"),
    "upgrades with a body": FIRST["no route with an upgrade and a body"],
    "posts": FIRST["no route with a body"],
    "upgrades for the app": request(b"GET", UPGRADING),
    "upgrades with a body for the app": FIRST["upgrade with a body"],
    "spent upgrades": request(b"GET", UPGRADING, b"x-request-timeout-ms: 0"),
}


@pytest.mark.parametrize("name", THOUSAND)
async def test_a_thousand_in_one_write_are_each_answered(name: str) -> None:
    """What waits is begun from a loop: as many answers at once would be as many calls deep."""
    count = 1000
    async with stage(route="match: {path: {prefix: /app}}") as to, raw_client(to.port) as client:
        await client.send(THOUSAND[name] * count)
        status = b"HTTP/1.1 "
        while client.received.count(status) < count:
            assert not client.is_ended, client.received.count(status)
            await client.read_some()
        wanted = b"200" if "for the app" in name else b"504" if "spent" in name else b"404"
        assert client.received.count(status + wanted) == count
        assert len(to.requests) == (count if wanted == b"200" else 0)
