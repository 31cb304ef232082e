"""How a response ends is read from its head in one way or refused (RFC 9112 6.3, 9.3)."""

from __future__ import annotations

from math import inf

import pytest

from sidecar.core.plain import Field
from sidecar.http1.llhttp import MalformedHead
from sidecar.upstream.framing import MAX_KEEP_SECONDS, MAX_LENGTH, Body, Framing, read_framing


def fields(*lines: bytes) -> list[Field]:
    pairs = [line.split(b": ", 1) for line in lines]
    return [(name.lower(), b"%b: %b\r\n" % (name, value), value) for name, value in pairs]


def framing(*lines: bytes, status: int = 200, version: str = "1.1", is_head: bool = False) -> Framing:
    return read_framing(status, version, fields(*lines), is_head_request=is_head)


@pytest.mark.parametrize(
    ("lines", "body", "length", "is_keep_alive"),
    [
        ([b"Content-Length: 5"], Body.LENGTH, 5, True),
        ([b"Content-Length: 0"], Body.LENGTH, 0, True),
        ([b"Transfer-Encoding: chunked"], Body.CHUNKED, None, True),
        ([b"Transfer-Encoding: CHUNKED"], Body.CHUNKED, None, True),
        ([], Body.UNTIL_CLOSE, None, False),
        ([b"Content-Length: 5", b"Connection: close"], Body.LENGTH, 5, False),
        ([b"Content-Length: 5", b"Connection: x", b"Connection: Close"], Body.LENGTH, 5, False),
    ],
)
def test_a_response_ends_as_its_head_says(
    lines: list[bytes], body: Body, length: int | None, *, is_keep_alive: bool
) -> None:
    read = framing(*lines)
    assert (read.body, read.length, read.is_keep_alive) == (body, length, is_keep_alive)


@pytest.mark.parametrize(
    ("status", "is_head"), [(100, False), (103, False), (204, False), (304, False), (200, True), (404, True)]
)
@pytest.mark.parametrize("line", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_some_responses_have_no_body_whatever_their_head_says(
    status: int, line: bytes, *, is_head: bool
) -> None:
    read = framing(line, status=status, is_head=is_head)
    assert (read.body, read.is_keep_alive) == (Body.NONE, True)
    assert read.length == (5 if line.startswith(b"Content-Length") else None)


def test_an_answer_to_head_without_a_length_keeps_its_connection() -> None:
    assert framing(is_head=True)[:3] == (Body.NONE, None, True)


@pytest.mark.parametrize("line", [b"Content-Length: 5", b"Connection: keep-alive"])
def test_a_connection_of_http_1_0_is_not_kept(line: bytes) -> None:
    assert not framing(line, version="1.0").is_keep_alive


@pytest.mark.parametrize("length", [MAX_LENGTH, MAX_LENGTH + 1])
def test_a_length_has_a_limit(length: int) -> None:
    line = b"Content-Length: %d" % length
    if length <= MAX_LENGTH:
        assert framing(line).length == length
    else:
        with pytest.raises(MalformedHead, match="out of range"):
            framing(line)


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        ([b"Transfer-Encoding: gzip"], "1.1"),
        ([b"Transfer-Encoding: gzip, chunked"], "1.1"),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], "1.1"),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], "1.1"),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], "1.1"),
        ([b"Transfer-Encoding: chunked"], "1.0"),
        ([b"Content-Length: 5"], "2.0"),
        ([b"Content-Length: 5"], "0.9"),
    ],
)
def test_what_could_be_read_in_two_ways_is_malformed(lines: list[bytes], version: str) -> None:
    with pytest.raises(MalformedHead):
        framing(*lines, version=version)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([], inf),
        ([b"timeout=5"], 5.0),
        ([b"timeout=0"], 0.0),
        ([b"max=100, timeout=5"], 5.0),
        ([b" Timeout = 5 "], 5.0),
        ([b'timeout="5"'], 5.0),
        ([b"timeout=5", b"timeout=3"], 3.0),
        ([b"timeout=999999999999"], MAX_KEEP_SECONDS),
        ([b"timeout=-1"], inf),
        ([b"timeout=1.5"], inf),
        ([b"timeout=\xb2"], inf),
        ([b"timeout"], inf),
        ([b"xtimeout=5"], inf),
    ],
)
def test_how_long_an_upstream_keeps_its_connection_is_heeded(values: list[bytes], seconds: float) -> None:
    """RFC 2068 19.7.1.1."""
    assert framing(*(b"Keep-Alive: " + value for value in values)).keeps_seconds == seconds


def test_all_lines_of_connection_are_listed() -> None:
    assert framing(b"Connection: a, b", b"Connection: c").listed == b"a, b,c"
