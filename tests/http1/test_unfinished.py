"""A head in pieces is whole at the same byte wherever it was cut, and refused as soon as it cannot become one."""

from __future__ import annotations

import pytest

from sidecar.core.plain import Field
from sidecar.http1 import llhttp
from sidecar.http1.llhttp import MalformedHead
from sidecar.http1.unfinished import MAX_METHOD_BYTES, UnfinishedHead

REQUEST = b"LIST /v1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
KINDS = pytest.mark.parametrize(("head", "is_request"), [(REQUEST, True), (RESPONSE, False)])


@KINDS
def test_a_head_ends_at_its_last_byte_wherever_it_is_cut(head: bytes, *, is_request: bool) -> None:
    behind = b"GET / HTT"
    for cut in range(1, len(head)):
        unfinished = UnfinishedHead(is_request=is_request)
        assert unfinished.add(head[:cut]) is None
        assert unfinished.whole() == head[:cut]
        assert unfinished.add(head[cut:] + behind) == len(head) - cut
        assert unfinished.whole() == head


@KINDS
def test_a_head_byte_by_byte_is_whole_with_its_last_byte(head: bytes, *, is_request: bool) -> None:
    unfinished = UnfinishedHead(is_request=is_request)
    used = [unfinished.add(head[at : at + 1]) for at in range(len(head))]
    assert used == [None] * (len(head) - 1) + [1]
    assert (unfinished.whole(), len(unfinished)) == (head, len(head))


@KINDS
def test_the_first_line_is_known_as_soon_as_it_is_whole(head: bytes, *, is_request: bool) -> None:
    end = head.index(b"\r\n") + 2
    unfinished = UnfinishedHead(is_request=is_request)
    unfinished.add(head[: end - 1])
    assert unfinished.first_line is None
    unfinished.add(head[end - 1 : end])
    assert unfinished.first_line == head[: end - 2]


def byte_by_byte(begin: bytes) -> None:
    unfinished = UnfinishedHead(is_request=True)
    for at in range(len(begin)):
        unfinished.add(begin[at : at + 1])


@pytest.mark.parametrize(
    "begin",
    [
        b"\x16\x03\x01",
        b"GE\x00",
        b"G\nET",
        b"GET / HTTP/1.1\nHost: a",
        b"GET / HTTP/1.1\rX",
        b" GET /",
        b"G" * (MAX_METHOD_BYTES + 1),
        b"GET / HTTP/1.1\r\nHost : a\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n",
    ],
)
def test_what_cannot_become_a_request_is_refused_before_its_end(begin: bytes) -> None:
    """In one piece, and byte by byte."""
    with pytest.raises(MalformedHead):
        UnfinishedHead(is_request=True).add(begin)
    with pytest.raises(MalformedHead):
        byte_by_byte(begin)


@pytest.mark.parametrize(
    "begin", [b"SSH-2.0", b"HTTQ", b"220 mail", b"HTTP/1.1 200 OK\nA", b"HTTP/1.1 2x0 OK\r\n"]
)
def test_what_cannot_become_a_response_is_refused_before_its_end(begin: bytes) -> None:
    with pytest.raises(MalformedHead):
        UnfinishedHead(is_request=False).add(begin)


@pytest.mark.parametrize("method", [b"M" * MAX_METHOD_BYTES, b"VERSION-CONTROL", b"get", b"!#$%&'*+-.^_`|~"])
def test_every_token_may_begin_a_request(method: bytes) -> None:
    unfinished = UnfinishedHead(is_request=True)
    assert unfinished.add(method) is None
    assert unfinished.add(b" / HTTP/1.1\r\nHost: a\r\n\r\n") == 24


# Whole heads


def field(name: bytes, value: bytes) -> Field:
    return name.lower(), b"%b: %b\r\n" % (name, value), value


def test_the_fields_of_a_request_are_read_in_order_without_the_space_around_their_values() -> None:
    head = b"GET / HTTP/1.1\r\nHost:a\r\nX-Two:  b \t\r\nX-Two: c\r\nEmpty:\r\n\r\n"
    assert llhttp.read_request_fields(head) == [
        field(b"Host", b"a"),
        field(b"X-Two", b"b"),
        field(b"X-Two", b"c"),
        field(b"Empty", b""),
    ]


@pytest.mark.parametrize(("version", "status"), [("1.1", 200), ("1.0", 404), ("1.1", 103)])
def test_a_response_has_its_status_and_its_version(version: str, status: int) -> None:
    head = b"HTTP/%b %d X\r\nA: b\r\n\r\n" % (version.encode(), status)
    assert llhttp.read_response(head) == (status, version, [field(b"A", b"b")])


def test_a_switch_says_to_what() -> None:
    """RFC 9110 15.2.2."""
    upgrade = b"Upgrade: x\r\nConnection: Upgrade\r\n\r\n"
    fields = [field(b"Upgrade", b"x"), field(b"Connection", b"Upgrade")]
    assert llhttp.read_response(b"HTTP/1.1 101 X\r\n" + upgrade) == (101, "1.1", fields)
    with pytest.raises(MalformedHead):
        llhttp.read_response(b"HTTP/1.1 101 X\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n",
    ],
    ids=["cut", "two lengths", "length and coding", "folded", "bare LF"],
)
def test_a_head_that_could_be_read_in_two_ways_is_malformed(head: bytes) -> None:
    with pytest.raises(MalformedHead):
        llhttp.read_request_fields(head)


def in_steps(data: bytes, step: int) -> None:
    unfinished = UnfinishedHead(is_request=False)
    for at in range(0, len(data), step):
        unfinished.add(data[at : at + step])


@pytest.mark.parametrize("front", [b"\r", b"\n", b"\r\r", b"\r\r\n", b"\r\n\n", b"\r\n\r", b"\r\n "])
@pytest.mark.parametrize("step", [1, 100])
def test_a_response_has_an_empty_line_in_front_or_nothing(front: bytes, step: int) -> None:
    """Refused at once, not at the head's end; llhttp would read past any number of CR and LF."""
    begin = front + RESPONSE[:-2]
    with pytest.raises(MalformedHead):
        in_steps(begin, step)
    with pytest.raises(MalformedHead):
        llhttp.read_response(front + RESPONSE)


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_one_empty_line_in_front_of_a_response_is_read_past(step: int) -> None:
    """RFC 9112 2.2."""
    data = b"\r\n" + RESPONSE
    unfinished = UnfinishedHead(is_request=False)
    for at in range(0, len(data), step):
        used = unfinished.add(data[at : at + step])
    assert used is not None
    assert llhttp.read_response(unfinished.whole())[0] == 200
