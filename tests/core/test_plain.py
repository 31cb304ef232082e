"""A plain head must be read as llhttp reads it, or not at all: the two are held against each other here."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core import plain
from sidecar.core.plain import MAX_KNOWN, MAX_LINES_OF_A_NAME, Field, read_request, read_response

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nUser-Agent:  curl \r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nok"


VARYING = (b"Host", b"host", b"X-A", b"Cookie", b"Date", b"Set-Cookie", b"a", b"Z")
"""Names of the strategies below, to be read as those are whose lines come in too many forms to be remembered."""


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    for memory in (plain._known, plain._statuses, plain._varying, plain._lines_of):
        memory.clear()


def let_vary() -> None:
    for name in VARYING:
        for number in range(MAX_LINES_OF_A_NAME + 1):
            plain._learn(b"%b: %d" % (name, number))
    assert set(VARYING) <= set(plain._varying)


class Heard:
    """What llhttp says of one message, and whether its head was whole."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[Field] = []
        self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_whole:
            value = value.rstrip(b" \t")
            self.fields.append((name.lower(), b"%b: %b\r\n" % (name, value), value))

    def on_headers_complete(self) -> None:
        self.is_whole = True


def heard(kind: type[Any], data: bytes) -> tuple[Heard, Any]:
    hearer = Heard()
    parser = kind(hearer)
    parser.feed_data(data)
    return hearer, parser


def head_end(data: bytes) -> int:
    return data.index(b"\r\n\r\n") + 4


def lines(*choices: bytes) -> st.SearchStrategy[bytes]:
    """Field lines: usual ones, odd ones, and noise in between."""
    usual = st.sampled_from(choices)
    name = st.text("aZ09-_!~: \t", max_size=6).map(str.encode)
    value = st.binary(max_size=8)
    odd = st.builds(lambda name, value: name + b":" + value, name, value)
    return usual | odd | st.binary(max_size=10)


REQUEST_LINES = lines(
    b"Host: x", b"host:x", b"Host : x", b"Content-Length: 3", b"content-length: 03", b"Content-Length: 3, 3",
    b"Content-Length: -1", b"Content-Length:", b"Transfer-Encoding: chunked", b"Connection: keep-alive",
    b"Connection: close", b"Connection: keep-alive, x", b"Expect: 100-continue", b"Upgrade: h2c", b" folded",
    b"X-A: \x80\xff", b"X-A: a\x00b", b"X-A: a\rb", b"X-A: a\nHost: y", b"X-A:", b"Cookie: a=b",
)  # fmt: skip
FIRST_LINES = st.sampled_from([
    b"GET / HTTP/1.1", b"POST /a%20b?c#d HTTP/1.1", b"GET /\x80 HTTP/1.1", b"get / HTTP/1.1", b"GET  / HTTP/1.1",
    b"GET / HTTP/1.0", b"GET / HTTP/1.1 ", b"GET /a b HTTP/1.1", b"GET http://x/ HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"PATCH /[]|\\^`{}\"<> HTTP/1.1", b"GET /\t HTTP/1.1", b"PURGE / HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"",
])  # fmt: skip


@given(
    FIRST_LINES,
    st.lists(REQUEST_LINES, max_size=5),
    st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\n "]),
    st.booleans(),
)
@example(b"GET / HTTP/1.1", [b"Host: x", b"Content-Length: 3", b"Content-Length: 4"], b"\r\n", False)
@example(b"GET / HTTP/1.1", [b"Host: x", b"X-A: ", b"Date:  b "], b"\r\n", True)
def test_a_request_is_read_as_llhttp_reads_it_or_not_at_all(
    first: bytes, fields: list[bytes], between: bytes, is_varying: bool
) -> None:
    if is_varying and not plain._varying:
        let_vary()
    data = b"".join([first, b"\r\n", *(line + between for line in fields), b"\r\n"])
    found = read_request(data)
    if found is None:
        return
    method, target, kept, lookup, start = found
    hearer, parser = heard(httptools.HttpRequestParser, data[:start])
    assert hearer.is_whole
    assert (parser.get_method(), hearer.url, hearer.fields) == (method, target, kept)
    assert lookup == {key: value for key, _, value in kept}
    assert len(lookup) == len(kept)
    assert (parser.get_http_version(), parser.should_keep_alive(), parser.should_upgrade()) == (
        "1.1",
        True,
        False,
    )
    assert start == head_end(data)


RESPONSE_LINES = lines(
    b"Content-Length: 2", b"content-length:2", b"Content-Length: 2, 2", b"Content-Length: +2", b"Content-Length: 0x2",
    b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: keep-alive", b"Upgrade: x", b"Set-Cookie: a",
    b"Set-Cookie: b", b"X-A: \x00", b"X-A: a\x0bb", b"Date: now", b" folded", b"Trailer: x",
)  # fmt: skip
STATUS_LINES = st.sampled_from([
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 204 No", b"HTTP/1.1 304 No",
    b"HTTP/1.1 100 Go on", b"HTTP/1.1 101 Switch", b"HTTP/1.1 599 \xe4", b"HTTP/1.1 600 X", b"HTTP/1.0 200 OK",
    b"HTTP/1.1  200 OK", b"HTTP/1.1 20x OK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 2000 OK", b"http/1.1 200 OK", b"",
])  # fmt: skip


@given(STATUS_LINES, st.lists(RESPONSE_LINES, max_size=5), st.sampled_from([b"\r\n", b"\n", b"\r\n "]))
def test_a_response_is_read_as_llhttp_reads_it_or_not_at_all(
    first: bytes, fields: list[bytes], between: bytes
) -> None:
    data = b"".join([first, b"\r\n", *(line + between for line in fields), b"\r\n"])
    found = read_response(data)
    if found is None:
        return
    status, kept, length, start = found
    hearer, parser = heard(httptools.HttpResponseParser, data[:start])
    assert hearer.is_whole
    assert (parser.get_status_code(), hearer.fields) == (status, kept)
    assert [int(value) for key, _, value in kept if key == b"content-length"] == [length]
    assert parser.get_http_version() == "1.1"
    assert start == head_end(data)


@given(st.binary(max_size=60), st.integers(0, len(GET)))
def test_noise_in_a_request_is_read_as_llhttp_reads_it_or_not_at_all(noise: bytes, at: int) -> None:
    data = GET[:at] + noise + GET[at:]
    found = read_request(data)
    if found is not None:
        hearer, parser = heard(httptools.HttpRequestParser, data[: found[4]])
        assert (parser.get_method(), hearer.url, hearer.fields) == (found[0], found[1], found[2])


@pytest.mark.parametrize("cut", range(len(GET)))
def test_a_request_head_that_is_not_whole_is_not_read(cut: int) -> None:
    assert read_request(GET[:cut]) is None


@pytest.mark.parametrize("cut", range(head_end(OK)))
def test_a_response_head_that_is_not_whole_is_not_read(cut: int) -> None:
    assert read_response(OK[:cut]) is None


def test_what_is_behind_the_head_is_left_alone() -> None:
    found = read_request(GET + b"\x00rest")
    assert found is not None
    assert found[4] == len(GET)
    answer = read_response(OK)
    assert answer is not None
    assert OK[answer[3] :] == b"ok"


def test_lines_that_are_remembered_are_bounded_and_still_right() -> None:
    for number in range(3 * MAX_KNOWN):
        found = read_request(b"GET / HTTP/1.1\r\nHost: x\r\nX-N: %d\r\n\r\n" % number)
        assert found is not None
        assert found[3] == {b"host": b"x", b"x-n": b"%d" % number}
        assert len(plain._known) <= MAX_KNOWN
        answer = read_response(b"HTTP/1.1 200 %d\r\nContent-Length: %d\r\n\r\n" % (number, number))
        assert answer is not None
        assert (answer[0], answer[2]) == (200, number)
        assert len(plain._statuses) <= MAX_KNOWN


@pytest.mark.parametrize(
    "name", [b"Authorization", b"Cookie", b"Set-Cookie", b"Proxy-Authorization", b"traceparent"]
)
def test_secrets_and_ids_are_not_remembered(name: bytes) -> None:
    assert read_request(b"GET / HTTP/1.1\r\nHost: x\r\n%b: secret-4711\r\n\r\n" % name) is not None
    assert not any(b"secret-4711" in line for line in plain._known)


def test_a_name_in_too_many_forms_does_not_push_out_the_others() -> None:
    usual = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: y\r\nx-request-timeout-ms: %d\r\n\r\n"
    for number in range(3 * MAX_KNOWN):
        found = read_request(usual % number)
        assert found is not None
        assert found[3] == {b"host": b"x", b"accept": b"y", b"x-request-timeout-ms": b"%d" % number}
    assert {b"Host: x", b"Accept: y"} < set(plain._known)
    assert len(plain._known) == 2 + MAX_LINES_OF_A_NAME


def test_names_that_vary_are_bounded() -> None:
    for number in range(3 * MAX_KNOWN):
        name = "".join(
            c.upper() if number >> bit & 1 else c for bit, c in enumerate("authorization")
        ).encode()
        found = read_request(b"GET / HTTP/1.1\r\nHost: x\r\n%b: y\r\n\r\n" % name)
        assert found is not None
        assert found[2][1] == (b"authorization", name + b": y\r\n", b"y")
        assert len(plain._varying) <= MAX_KNOWN


def test_the_length_of_a_body_is_checked_each_time() -> None:
    for number in range(2 * MAX_LINES_OF_A_NAME):
        assert read_response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % number) is not None
        assert read_response(b"HTTP/1.1 200 OK\r\nContent-Length: -%d\r\n\r\n" % number) is None
        assert read_request(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x%d\r\n\r\n" % number) is None


def test_long_lines_are_not_remembered() -> None:
    assert read_request(b"GET / HTTP/1.1\r\nX-Long: %b\r\n\r\n" % (b"a" * plain.MAX_LINE_BYTES)) is not None
    assert not any(line.startswith(b"X-Long") for line in plain._known)
