"""From the bytes of a head that is not plain to a request, or to the reason why it is none; limits to the byte."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from sidecar.core.errors import Reason
from sidecar.core.request import PLAIN, Request, Traits
from sidecar.core.snapshot import ListenerLimits
from sidecar.downstream import reader
from sidecar.http1.parse import Refused
from sidecar.http1.unfinished import UnfinishedHead
from tests.support.terms import HandTerms

LIMITS = ListenerLimits(head_bytes=400, headers=10, url_bytes=100)


def terms(is_trusted: bool = True) -> HandTerms:
    return HandTerms(LIMITS, small_head_bytes=40, is_trusted=is_trusted)


def read(*lines: bytes, first: bytes = b"POST /a HTTP/1.1", is_trusted: bool = True) -> tuple[Request, bool]:
    head = b"".join(line + b"\r\n" for line in (first, b"Host: app", *lines)) + b"\r\n"
    return reader.read_request(terms(is_trusted), head)


def refusal(*lines: bytes, first: bytes = b"POST /a HTTP/1.1") -> Reason:
    with pytest.raises(Refused) as caught:
        read(*lines, first=first)
    return caught.value.reason


@pytest.mark.parametrize(
    ("lines", "length", "traits"),
    [
        ([], 0, PLAIN),
        ([b"Content-Length: 5"], 5, PLAIN),
        ([b"Content-Length: 0005"], 5, PLAIN),
        ([b"Content-Type: application/json"], 0, PLAIN),
        ([b"Transfer-Encoding: chunked"], -1, Traits(is_chunked=True)),
        ([b"Transfer-Encoding: Chunked"], -1, Traits(is_chunked=True)),
        ([b"Content-Type: application/grpc+proto"], 0, Traits(is_grpc=True)),
        ([b"Expect: 100-continue", b"Content-Length: 5"], 5, Traits(expects_continue=True)),
        ([b"Expect: 100-continue"], 0, PLAIN),
        ([b"Upgrade: x", b"Connection: Upgrade"], 0, Traits(upgrade=b"x")),
        ([b"Upgrade: x"], 0, PLAIN),
        ([b"Upgrade: h2c", b"Connection: Upgrade"], 0, Traits()),
        ([b"Upgrade: x", b"Connection: Upgrade", b"Content-Length: 5"], 5, Traits()),
    ],
)
def test_what_a_request_is_says_its_head(lines: list[bytes], length: int, traits: Traits) -> None:
    request, _ = read(*lines)
    assert (request.length, astuple(request.traits)) == (length, astuple(traits))


def test_requests_without_anything_special_share_their_traits() -> None:
    assert read(b"Cookie: a=b")[0].traits is PLAIN


@pytest.mark.parametrize(
    ("first", "lines", "is_kept"),
    [
        (b"GET / HTTP/1.1", [], True),
        (b"GET / HTTP/1.1", [b"Connection: a, Close"], False),
        (b"GET / HTTP/1.0", [], False),
        (b"GET / HTTP/1.0", [b"Connection: keep-alive"], True),
        (b"GET / HTTP/1.7", [], True),
    ],
)
def test_whether_the_connection_goes_on(first: bytes, lines: list[bytes], *, is_kept: bool) -> None:
    assert read(*lines, first=first)[1] is is_kept


def test_a_field_that_comes_twice_is_looked_up_joined() -> None:
    request, _ = read(b"X-A: 1", b"x-a: 2")
    assert request.lookup[b"x-a"] == b"1, 2"
    assert [value for key, _, value in request.fields if key == b"x-a"] == [b"1", b"2"]


def test_who_is_not_trusted_says_nothing_for_the_mesh() -> None:
    line = b"X-Envoy-Upstream-Rq-Timeout-Ms: 5"
    assert b"x-envoy-upstream-rq-timeout-ms" in read(line)[0].lookup
    assert list(read(line, is_trusted=False)[0].lookup) == [b"host"]


@pytest.mark.parametrize(
    ("first", "lines", "reason"),
    [
        (b"CONNECT a:1 HTTP/1.1", [], Reason.METHOD_NOT_ALLOWED),
        (b"GET / HTTP/2.0", [], Reason.VERSION_NOT_SUPPORTED),
        (b"GET / HTTP/3.7", [], Reason.VERSION_NOT_SUPPORTED),
        (b"GET / HTTP/0.9", [], Reason.VERSION_NOT_SUPPORTED),
        (b"GET / HTTP/11", [], Reason.BAD_REQUEST),
        (b"GET  / HTTP/1.1", [], Reason.BAD_REQUEST),
        (b"GET / HTTP/1.1", [b"Transfer-Encoding: gzip"], Reason.NOT_IMPLEMENTED),
        (b"GET / HTTP/1.1", [b"Transfer-Encoding: gzip, chunked"], Reason.NOT_IMPLEMENTED),
        (b"GET / HTTP/1.1", [b"Transfer-Encoding: chunked, gzip"], Reason.BAD_REQUEST),
        (b"GET / HTTP/1.1", [b"Transfer-Encoding: chunked, chunked"], Reason.BAD_REQUEST),
        (b"GET / HTTP/1.1", [b"Transfer-Encoding: gzip", b"Content-Length: 1"], Reason.BAD_REQUEST),
        (b"GET / HTTP/1.0", [b"Transfer-Encoding: chunked"], Reason.BAD_REQUEST),
        (b"GET / HTTP/1.1", [b"Content-Length: 1000000000000000000"], Reason.BAD_REQUEST),
        (b"GET / HTTP/1.1", [b"Host: b"], Reason.BAD_REQUEST),
        (b"GET /#a HTTP/1.1", [], Reason.BAD_REQUEST),
        (b"GET ftp://a/ HTTP/1.1", [], Reason.BAD_REQUEST),
    ],
)
def test_why_a_head_is_no_request(first: bytes, lines: list[bytes], reason: Reason) -> None:
    assert refusal(*lines, first=first) is reason


def sized(head_bytes: int) -> bytes:
    """A field that makes the whole head so large, without its empty line."""
    before = len(b"POST /a HTTP/1.1\r\nHost: app\r\n") + len(b"X: \r\n\r\n") - 4
    return b"X: " + b"x" * (head_bytes - before)


@pytest.mark.parametrize("extra", [0, 1])
def test_each_limit_of_a_head_holds_to_the_byte(extra: int) -> None:
    """Read alike in one piece and while it is still in pieces."""
    cases = [
        (b"POST /a HTTP/1.1", [sized(LIMITS.head_bytes + extra)], Reason.HEAD_TOO_LARGE),
        (b"POST /a HTTP/1.1", [b"A: b"] * (LIMITS.headers - 1 + extra), Reason.HEAD_TOO_LARGE),
        (b"POST /%b HTTP/1.1" % (b"a" * (LIMITS.url_bytes - 1 + extra)), [], Reason.URL_TOO_LONG),
    ]
    for first, lines, reason in cases:
        if not extra:
            assert read(*lines, first=first)[0].method == b"POST"
        else:
            assert refusal(*lines, first=first) is reason


@pytest.mark.parametrize(
    ("begin", "reason"),
    [
        (b"GET / HTTP/2.0\r\n", Reason.VERSION_NOT_SUPPORTED),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 500, Reason.HEAD_TOO_LARGE),
        (b"GET /" + b"a" * 101, Reason.URL_TOO_LONG),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 11, Reason.HEAD_TOO_LARGE),
    ],
)
def test_a_head_that_breaks_a_limit_is_refused_before_its_end(begin: bytes, reason: Reason) -> None:
    unfinished = UnfinishedHead(is_request=True)
    assert unfinished.add(begin) is None
    with pytest.raises(Refused) as caught:
        reader.check_unfinished(terms(), unfinished)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10,
        b"GET /" + b"a" * 99,
        b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 370,
    ],
)
def test_a_head_within_its_limits_is_waited_for(begin: bytes) -> None:
    unfinished = UnfinishedHead(is_request=True)
    unfinished.add(begin)
    reader.check_unfinished(terms(), unfinished)
    assert unfinished.whole() == begin
