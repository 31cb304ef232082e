"""What was learned from earlier heads never lets through what a first one would not: answers equal a cold reader's.

Each name is taught first, by as many different good lines as it takes for any reader to have an opinion of it; then
malformed lines of the same name come, in requests and in responses (RFC 9112 5).
"""

from __future__ import annotations

import pytest

from tests.scenarios.stage import Stage, get, post, stage
from tests.support.raw import Ambiguous, RawPeer, Script, raw_client

LESSONS = 130
"""Different lines of a name; more than any reader remembers of one."""

NAMES = (
    b"Cookie", b"Authorization", b"X-Request-Id", b"traceparent", b"X-Forwarded-For", b"If-None-Match", b"Date",
    b"X-Anything", b"x-request-timeout-ms",
)  # fmt: skip
RESPONSE_NAMES = (b"Set-Cookie", b"ETag", b"Date", b"Server", b"X-Anything", b"Cache-Control")

MALFORMED = {
    "no-colon": b"%b",
    "no-colon-and-a-space": b"%b ",
    "no-colon-and-a-tab": b"%b\t",
    "no-colon-but-a-value": b"%b a=b",
    "equals-for-colon": b"%b=a",
    "semicolon-for-colon": b"%b; a",
    "space-before-colon": b"%b : a",
    "tab-before-colon": b"%b\t: a",
    "space-inside": b"%b a: b",
    "leading-space": b" %b: a",
    "leading-tab": b"\t%b: a",
    "nul-in-name": b"%b\0: a",
    "not-ascii-in-name": b"%b\xe4: a",
    "nul-in-value": b"%b: a\0b",
    "cr-in-value": b"%b: a\rb",
    "cr-at-the-end": b"%b: a\r",
    "lf-in-value": b"%b: a\nX-B",
    "control-in-value": b"%b: a\x01b",
    "delete-in-value": b"%b: a\x7fb",
    "vertical-tab-before-value": b"%b: \x0ba",
    "form-feed-behind-value": b"%b: a\x0c",
}
"""Lines with the name put in."""
NAMELESS = {"empty-name": b": a", "empty-name-and-space": b" : a", "colon-alone": b":", "space-alone": b" "}

BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


def taught(name: bytes) -> list[bytes]:
    """Good lines of this name, all different."""
    if name == b"traceparent":
        return [b"traceparent: 00-%032x-%016x-01" % (number, number) for number in range(1, LESSONS + 1)]
    return [b"%b: %d" % (name, number + 1000) for number in range(LESSONS)]


def malformed(name: bytes) -> list[bytes]:
    return [*(form % name for form in MALFORMED.values()), *NAMELESS.values()]


# Requests


async def teach(to: Stage, name: bytes) -> None:
    """One at a time: what comes behind another request may be read by another reader."""
    async with raw_client(to.port) as client:
        for line in taught(name):
            client.received = b""
            await client.send(get(b"/", line))
            (answer,) = await client.responses([b"GET"])
            assert answer.status == 200


async def answer_to(to: Stage, data: bytes) -> int:
    """The status; 0 if the app heard of it, whatever the client was told."""
    before = to.app.received
    async with raw_client(to.port) as client:
        await client.send(data)
        (answer,) = await client.responses([b"GET"])
        if answer.status == 400:
            await client.read_to_end()
    return answer.status if to.app.received == before else 0


@pytest.mark.parametrize("name", NAMES)
async def test_bad_lines_of_a_name_that_is_well_known_are_refused(name: bytes) -> None:
    lines = malformed(name)
    async with stage() as to:
        assert [line for line in lines if await answer_to(to, get(b"/", line)) != 400] == []
        await teach(to, name)
        assert [line for line in lines if await answer_to(to, get(b"/", line)) != 400] == []
        around = [get(b"/", b"Accept: */*", line, b"Accept-Language: en") for line in lines]
        assert [data for data in around if await answer_to(to, data) != 400] == []


@pytest.mark.parametrize("name", NAMES)
async def test_one_good_line_of_anybody_teaches_nothing_wrong(name: bytes) -> None:
    """The fault as it was found: `Cookie` without a colon, after a single `Cookie: a=b`."""
    async with stage() as to:
        (first, *_) = taught(name)
        assert (await to.ask(get(b"/", first))).status == 200
        assert await answer_to(to, get(b"/", name)) == 400


@pytest.mark.parametrize("name", [name.swapcase() for name in NAMES])
async def test_so_it_is_in_another_case(name: bytes) -> None:
    async with stage() as to:
        await teach(to, name.swapcase())
        await teach(to, name)
        assert await answer_to(to, get(b"/", name)) == 400


BAD_LENGTHS = [
    b"5, 5", b"+5", b"-5", b"0x5", b"5 5", b"", b"18446744073709551621", b"5\r\nContent-Length: 6",
]  # fmt: skip


async def test_a_length_is_looked_at_each_time() -> None:
    async with stage() as to:
        for size in range(LESSONS):
            assert (await to.ask(post(bytes(size)), b"POST")).status == 200
        for value in BAD_LENGTHS:
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\nhello" % value
            assert await answer_to(to, head) == 400, value
        for form in MALFORMED.values():
            head = b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (form % b"Content-Length")
            assert await answer_to(to, head) == 400, form


BAD_HOSTS = [b"", b"a b", b"a/b", b"a,b", b"u@a", b"a:x", b"a:65536", b"[::1", b"a\\b", b"a%00b", b"h1.example "
             b"h2.example"]  # fmt: skip


async def test_a_host_is_looked_at_each_time() -> None:
    async with stage() as to:
        for number in range(LESSONS):
            data = b"GET / HTTP/1.1\r\nHost: h%d.example\r\n\r\n" % number
            assert (await to.ask(data)).status == 200
        for host in BAD_HOSTS:
            assert await answer_to(to, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host) == 400, host
        for form in MALFORMED.values():
            assert await answer_to(to, b"GET / HTTP/1.1\r\n%b\r\n\r\n" % (form % b"Host")) == 400, form
        twice = b"GET / HTTP/1.1\r\nHost: h1.example\r\nHost: h2.example\r\n\r\n"
        assert await answer_to(to, twice) == 400


async def test_what_connection_says_is_looked_at_each_time() -> None:
    """Unusual, but good: after many of them, what it names still ends at this hop."""
    async with stage() as to:
        for number in range(LESSONS):
            line = b"Connection: x-%d" % number
            assert (await to.ask(get(b"/", line, b"X-%d: secret" % number))).status == 200
        assert to.app.received.count(b"secret") == 0


# Responses


UNBROKEN = "circuit_breaker: {mode: disabled}"
PROTOCOL = b"http_protocol_error"


async def status_and_error(to: Stage) -> tuple[int, bytes]:
    """Of the next answer; what a client could not read is (0, what it got)."""
    async with raw_client(to.port) as client:
        await client.send(get())
        try:
            (answer,) = await client.responses([b"GET"])
        except Ambiguous:
            return 0, client.received
    error = (answer.value(b"proxy-status") or b"").partition(b"error=")[2].partition(b";")[0]
    return answer.status, error


def saying_lines(lines: list[bytes]) -> Script:
    """A script that answers each request with a head that has the next of `lines`."""
    left = list(lines)

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(BODY + left.pop(0) + b"\r\n\r\nok")

    return script


@pytest.mark.parametrize("name", RESPONSE_NAMES)
async def test_bad_lines_of_an_answer_are_502_whatever_was_learned(name: bytes) -> None:
    good, bad = taught(name), malformed(name)
    async with stage(saying_lines([*bad, *good, *bad]), route=UNBROKEN) as to:
        assert [line for line in bad if (await status_and_error(to)) != (502, PROTOCOL)] == []
        for _ in good:
            assert (await to.ask()).status == 200
        assert [line for line in bad if (await status_and_error(to)) != (502, PROTOCOL)] == []


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20x OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\rK", b"HTTP/1.1\t200 OK", b"http/1.1 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1 099 X",
    ],
)  # fmt: skip
async def test_a_status_line_is_no_better_for_good_ones_before_it(first: bytes) -> None:
    """Whatever a first answer with this line comes to, a later one comes to the same."""
    good = [b"HTTP/1.1 %d Phrase %d" % (200 + number % 3, number) for number in range(LESSONS)]
    left = [first, *good, first]

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(left.pop(0) + b"\r\nContent-Length: 2\r\n\r\nok")

    async with stage(script, route=UNBROKEN) as to:
        cold = await to.ask()
        for _ in good:
            assert (await to.ask()).status < 300
        warm = await to.ask()
        assert (warm.status, warm.body if warm.status < 300 else b"") == (
            cold.status,
            cold.body if cold.status < 300 else b"",
        )


@pytest.mark.parametrize("name", RESPONSE_NAMES)
async def test_what_requests_taught_answers_do_not_profit_from(name: bytes) -> None:
    async with stage(
        saying_lines([b"Server: a"] * LESSONS + [name]), route="circuit_breaker: {mode: disabled}"
    ) as to:
        await teach(to, name)
        assert await status_and_error(to) == (502, PROTOCOL)
