"""A chunked body must be read as llhttp reads it, or be refused: the two are held against each other here."""

from __future__ import annotations

import itertools
from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core import chunked
from sidecar.core.chunked import (
    FREE_FRAMING_BYTES,
    MAX_SIZE_LINE_BYTES,
    MAX_TRAILER_BYTES,
    MAX_TRAILERS,
    ChunkedBody,
    MalformedChunk,
    TooLarge,
)
from sidecar.core.plain import Field

NO_LIMIT = 1 << 30
PARSERS = [
    (httptools.HttpRequestParser, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (httptools.HttpResponseParser, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
]


class Heard:
    """What llhttp says of a message whose body is chunked."""

    def __init__(self) -> None:
        self.body = b""
        self.trailers: list[Field] = []
        self.is_behind_head = self.is_whole = False

    def on_headers_complete(self) -> None:
        self.is_behind_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_behind_head:
            value = value.rstrip(b" \t")
            self.trailers.append((name.lower(), b"%b: %b\r\n" % (name, value), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True


def heard(kind: type[Any], head: bytes, data: bytes) -> Heard:
    hearer = Heard()
    kind(hearer).feed_data(head + data)
    return hearer


def read(pieces: list[bytes], most_chunks: int = NO_LIMIT) -> tuple[ChunkedBody, bytes, int]:
    """Feed the pieces one by one; return the reader, the whole body, and how many bytes it took."""
    reader = ChunkedBody()
    body, taken = b"", 0
    for piece in pieces:
        at = 0
        while at < len(piece) and not reader.is_done:
            before, at = at, reader.feed(piece, at, most_chunks)
            assert at > before
            body += reader.take()
        taken += at
    return reader, body, taken


def outcome(pieces: list[bytes], most_chunks: int = NO_LIMIT) -> tuple[object, ...]:
    try:
        reader, body, taken = read(pieces, most_chunks)
    except MalformedChunk:
        return ("malformed",)
    assert reader.body_bytes == len(body)
    assert reader.framing_bytes == taken - len(body)
    return body, reader.trailers, reader.is_done, taken


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[low:high] for low, high in itertools.pairwise(places)]


SIZE_LINES = [
    b"03", b"00000000000000000003", b"000", b"", b"+1", b"-1", b"0x1", b"1_0", b" 1", b"1 ", b"1\t", b"g", b"1h",
    b"fffffffffffffff", b"1000000000000000", b"10000000000000001", b"1\r", b"\n1", b"3\x00", b"3;", b"3;;a", b"3;=",
    b"3;a=", b"3; a", b"3 ;a", b"3;a =b", b"3;a= b", b'3;a="', b'3;a="b"c', b'3;a="b";', b"3;a=\xff", b"3;\x00",
    b"3;a\x00", b"3;a\rb", b"3;a\nb", b'3;a="\n"', b'3;a="\r"', b'3;a="\x7f"', b"3;a,b", b'3;a="\\\x7f"',
    b'3;a="\\\xff"', b'3;a="\xff"', b"3;" + b"a" * 5000,
]  # fmt: skip
EXTENSIONS = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b"', b';a="b\\"c"', b";a;b=c", b';a="\\\t\\ "'])
RIGHT_TRAILERS = st.sampled_from([b"X-Sum: 1", b"x-sum:1", b"X: \t a b \t", b"X:", b"X: \xff", b"X: a:b"])
ODD_TRAILERS = [
    b"X : a", b" X: a", b"\tX: a", b": a", b"X", b"X y", b"X\x00: a", b"X: \x00", b"X: \x7f", b"X: a\rb", b"X: \x0b",
    b"X: a\nY: b", b"X: a\r\n b", b"Content-Length: 3", b"content-length:3", b"Transfer-Encoding: chunked", b"X Y: a",
    b"Connection: close", b"Connection: upgrade", b"Upgrade: x", b"\xc3: a", b'X"Y: a', b"X(: a",
    b"Expect: 100-continue",
]  # fmt: skip
ODD_ENDS = [b"\n", b"\r", b"\r\r\n", b"", b"\r\n ", b"x\r\n", b"\r\n\r\n"]
CRLF = b"\r\n"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A chunked body that is right but for one thing at most, with a few bytes of the next message behind it.

    One thing: were there several, the first that is refused would hide all others.
    """
    parts = []
    for piece in draw(st.lists(st.binary(min_size=1, max_size=12) | st.just(b"abc"), max_size=3)):
        parts += [b"%x%b" % (len(piece), draw(EXTENSIONS)), CRLF, piece, CRLF]
    parts += [b"3", CRLF, b"abc", CRLF, b"0" + draw(EXTENSIONS), CRLF]
    lines = list(range(0, len(parts), 4))
    for trailer in draw(st.lists(RIGHT_TRAILERS, max_size=2)):
        parts += [trailer, CRLF]
    parts.append(CRLF)
    match draw(st.sampled_from(["none", "size", "end", "trailer", "noise"])):
        case "size":
            parts[draw(st.sampled_from(lines))] = draw(st.sampled_from(SIZE_LINES))
        case "end":
            ends = [place for place, part in enumerate(parts) if part == CRLF]
            parts[draw(st.sampled_from(ends))] = draw(st.sampled_from(ODD_ENDS))
        case "trailer":
            parts[-1:] = [draw(st.sampled_from(ODD_TRAILERS)), CRLF, CRLF]
        case "noise":
            parts.insert(draw(st.integers(0, len(parts))), draw(st.binary(min_size=1, max_size=3)))
    return b"".join(parts) + draw(st.sampled_from([b"", b"GET", CRLF, b"0\r\n\r\n"]))


CUTS = st.lists(st.integers(0, 1 << 16), max_size=6)


@given(bodies() | st.binary(max_size=20), CUTS, st.integers(1, 3))
@example(b"1\r\nx\r\n0\r\n\r\n", [], 1)
@example(b"0\r\nX: a\r\n\r\n", [7, 8], 1)
@example(b"0;a=\r\n\r\n", [], 1)
def test_a_body_is_read_as_llhttp_reads_it_or_refused(data: bytes, cuts: list[int], most_chunks: int) -> None:
    compare(data, cuts, most_chunks)


def compare(data: bytes, cuts: list[int], most_chunks: int) -> None:
    whole = outcome([data])
    assert outcome([data[at : at + 1] for at in range(len(data))]) == whole
    assert outcome(split(data, cuts), most_chunks) == whole
    if whole == ("malformed",):
        return
    body, trailers, is_done, taken = whole
    assert taken == len(data) or is_done
    for kind, head in PARSERS:
        try:
            hearer = heard(kind, head, data[:taken])
        except (
            httptools.HttpParserError
        ):  # what llhttp refuses is refused above, but for a line of which we await the end
            assert not is_done
            assert not data[:taken].endswith(b"\n")
            continue
        assert (hearer.body, hearer.is_whole) == (body, is_done)
        if is_done:
            assert hearer.trailers == trailers


@pytest.mark.parametrize(
    "data",
    [
        *(line + b"\r\nabc\r\n0\r\n\r\n" for line in SIZE_LINES),
        *(b"0%b\r\n\r\n" % line[1:] for line in SIZE_LINES if line[:1] == b"3"),
        *(b"0\r\nA: a\r\n%b\r\nB: b\r\n\r\n" % line for line in ODD_TRAILERS),
        *(b"3%babc\r\n0\r\nX: a\r\n\r\n" % end for end in ODD_ENDS),
        *(b"3\r\nabc%b0\r\nX: a\r\n\r\n" % end for end in ODD_ENDS),
        *(b"3\r\nabc\r\n0\r\nX: a%b\r\n" % end for end in ODD_ENDS),
    ],
)
def test_odd_lines_are_read_as_llhttp_reads_them_or_refused(data: bytes) -> None:
    compare(data, [len(data) // 2], 1)


@given(bodies(), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=3))
def test_bytes_that_are_replaced_are_read_as_llhttp_reads_them_or_refused(
    data: bytes, at: int, noise: bytes
) -> None:
    at %= len(data)
    compare(data[:at] + noise + data[at + len(noise) :], [at], 2)


@pytest.mark.parametrize(
    "data",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b'5;a="b;c"\r\nhello\r\n000\r\n\r\n',
        b"00000000000000000005\r\nhello\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n",
        b"1\r\n\r\r\n1\r\n\n\r\n1\r\nh\r\n2\r\nel\r\n0;z\r\nX: a\r\n\r\n",
    ],
)
def test_bodies_that_are_right_are_read(data: bytes) -> None:
    """Without this, a reader that refuses everything would pass the comparison."""
    expected = heard(*PARSERS[0], data)
    assert expected.is_whole
    assert outcome([data]) == (expected.body, expected.trailers, True, len(data))


@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\x00"])
def test_it_ends_at_the_last_byte_of_the_message(behind: bytes) -> None:
    data = b"5\r\nhello\r\n0\r\nX: a\r\n\r\n"
    for size in range(1, len(data) + 1):
        stream = data + behind
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert outcome(pieces) == (b"hello", [(b"x", b"X: a\r\n", b"a")], True, len(data))


def test_one_call_reads_so_many_chunks_and_the_next_goes_on() -> None:
    reader = ChunkedBody()
    data = b"1\r\na\r\n" * 10 + b"0\r\n\r\n"
    at = 0
    for number in range(1, 4):
        at = reader.feed(data, at, 3)
        assert (at, reader.take()) == (number * 3 * 6, b"aaa")
    assert (reader.feed(data, at, 3), reader.take(), reader.is_done) == (len(data), b"a", True)


def test_what_one_read_brings_is_joined() -> None:
    reader = ChunkedBody()
    reader.feed(b"1\r\na\r\n2\r\nbc\r\n4\r\nde", 0, NO_LIMIT)
    assert reader.take() == b"abcde"
    assert reader.take() == b""


def test_a_piece_that_is_within_one_chunk_is_not_copied() -> None:
    reader = ChunkedBody()
    reader.feed(b"ffff\r\n", 0, NO_LIMIT)
    piece = b"x" * 1000
    reader.feed(piece, 0, NO_LIMIT)
    assert reader.take() is piece


@pytest.mark.parametrize(
    "begun", [b"g", b"\r", b"5 ", b"5\n", b"5;a\n", b"5;a\x00", b"5\rx", b"5\r\nhellox", b"5\r\nhello\n"]
)
def test_what_cannot_become_right_is_refused_before_its_line_ends(begun: bytes) -> None:
    assert outcome([begun]) == ("malformed",)
    assert outcome([begun[at : at + 1] for at in range(len(begun))]) == ("malformed",)


@pytest.mark.parametrize("begun", [b" ", b"\t", b":", b"X: \n", b"X: \r\r", b"X: a\x00"])
def test_a_trailer_that_cannot_become_right_is_refused_before_its_line_ends(begun: bytes) -> None:
    data = b"0\r\n" + begun
    assert outcome([data]) == ("malformed",)
    assert outcome([data[at : at + 1] for at in range(len(data))]) == ("malformed",)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"g\r\n", "malformed chunk size"),
        (b"1 ;a\r\n", "malformed chunk size"),
        (b"1; a\r\n", "malformed chunk extension"),
        (b"1\r\nxy\r\n", "no CRLF behind a chunk"),
        (b"0\r\nX y\r\n", "malformed trailer field"),
        (b"0\r\nContent-Length: 1\r\n", "content-length among the trailers"),
    ],
)
def test_the_error_says_what_is_wrong(data: bytes, detail: str) -> None:
    with pytest.raises(MalformedChunk) as raised:
        ChunkedBody().feed(data, 0, NO_LIMIT)
    assert str(raised.value) == detail
    assert not isinstance(raised.value, TooLarge)


def limits_hold(right: bytes, wrong: bytes, detail: str) -> None:
    for size in (NO_LIMIT, 1000):
        assert outcome([right[at : at + size] for at in range(0, len(right), size)])[2:] == (True, len(right))
        with pytest.raises(TooLarge, match=detail):
            read([wrong[at : at + size] for at in range(0, len(wrong), size)])


def test_chunk_extensions_have_a_limit() -> None:
    longest = b"0;" + b"a" * (MAX_SIZE_LINE_BYTES - 2)
    limits_hold(longest + b"\r\n\r\n", longest + b"a\r\n\r\n", "chunk extensions beyond 4096 bytes")


def test_trailers_have_a_limit_of_bytes() -> None:
    longest = b"0\r\nX: " + b"a" * (MAX_TRAILER_BYTES - 7)
    limits_hold(longest + b"\r\n\r\n", longest + b"a\r\n\r\n", "trailers beyond 65536 bytes")


def test_trailers_have_a_limit_of_number() -> None:
    most = b"0\r\n" + b"X: a\r\n" * MAX_TRAILERS
    limits_hold(most + b"\r\n", most + b"X: a\r\n\r\n", "more than 256 trailer fields")


def test_limits_of_trailers_are_those_that_were_given() -> None:
    assert outcome([b"0\r\nX: a\r\n\r\n"])[2] is True
    for reader in (ChunkedBody(max_trailers=0), ChunkedBody(max_trailer_bytes=7)):
        with pytest.raises(TooLarge):
            reader.feed(b"0\r\nX: a\r\n\r\n", 0, NO_LIMIT)


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"1;%b\r\nx\r\n" % (b"a" * 4000)])
def test_a_body_that_is_mostly_framing_is_refused(chunk: bytes) -> None:
    reader = ChunkedBody()
    data = chunk * 100
    framing = len(data) - 100
    for _ in range(FREE_FRAMING_BYTES // framing):
        reader.feed(data, 0, NO_LIMIT)
        reader.take()
    with pytest.raises(MalformedChunk, match="more framing than body"):
        reader.feed(data, 0, NO_LIMIT)
    assert FREE_FRAMING_BYTES < reader.framing_bytes <= FREE_FRAMING_BYTES + len(data)


@pytest.mark.parametrize("size", [2, 100])
def test_a_body_of_small_chunks_that_is_not_mostly_framing_is_read_on(size: int) -> None:
    reader = ChunkedBody()
    data = (b"%x\r\n%b\r\n" % (size, b"x" * size)) * 1000
    while reader.framing_bytes < 2 * FREE_FRAMING_BYTES:
        reader.feed(data, 0, NO_LIMIT)
        reader.take()
    assert not reader.is_done


def test_sizes_that_are_remembered_are_bounded_and_right() -> None:
    for size in range(1, 2000):
        for line in {b"%x" % size, b"%X" % size, b"%05x" % size}:
            assert outcome([b"%b\r\n%b\r\n0\r\n\r\n" % (line, b"x" * size)])[0] == b"x" * size
    assert len(chunked._known_sizes) <= 506
    assert all(size == int(line, 16) for line, size in chunked._known_sizes.items())
