"""Lines of our own: written by a layout or line by line, they say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.head import own_pairs
from sidecar.http2.hpack_decoder import HpackDecoder
from sidecar.http2.hpack_encoder import HpackEncoder
from sidecar.http2.layouts import MAX_LAYOUTS, key_of, make_layout

NONE: frozenset[bytes] = frozenset()
ID, TRACE, SPAN = b"r" * 36, b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
IDS = [
    b"x-request-id: ", ID, b"\r\ntraceparent: 00-", TRACE, b"-", SPAN, b"-01\r\ntracestate: sidecar=", SPAN,
]  # fmt: skip


class Pair:
    """An encoder, and the decoder of its peer."""

    def __init__(self) -> None:
        self._encoder, self._decoder = HpackEncoder(), HpackDecoder()

    def passes(self, own: list[bytes]) -> list[tuple[bytes, bytes]]:
        before = own.copy()
        block = self._encoder.encode((), (), NONE, (), NONE, own=own)
        assert own == before, "they are their head's"
        return [(key, value) for key, _, value in self._decoder.decode(block)]


@pytest.mark.parametrize(
    "own",
    [
        pytest.param([b"x-request-id: ", ID, b"\r\n"], id="answer"),
        pytest.param([b"x-request-id: ", b"", b"\r\n"], id="empty value"),
        pytest.param([*IDS, b"\r\n"], id="ids"),
        pytest.param([*IDS, b"\r\nx-expected-ms: 14\r\n"], id="last line in one piece"),
        pytest.param([*IDS, b"\r\nx-expected-ms: ", b"14", b"\r\n"], id="last line in three"),
        pytest.param([*IDS, b"\r\n", b"x-one: a\r\nX-Two: b\r\n"], id="lines behind"),
        pytest.param([*IDS, b"\r\n", b"x-one: a\r\n", b"x-two: b\r\n"], id="odd lines behind"),
        pytest.param([*IDS, b",more\r\n"], id="last piece goes on with a value"),
        pytest.param([b"", b"x-one: a\r\n", b"x-two: b\r\n"], id="nothing in front"),
        pytest.param([b"via: 1.1 ", b"sidecar", b"\r\n"], id="of the table"),
        pytest.param([b"X-Request-Id: ", b"a: b", b"\r\nx-other: c: ", b"d", b"\r\n"], id="colons in values"),
        pytest.param([b"x-long: ", b"v" * 2047, b"\r\n"], id="longest of the usual"),
        pytest.param([b"x-long: ", b"v" * 2048, b"\r\n"], id="longer"),
        pytest.param([b"Host: ", b"a", b"\r\nx-one: ", b"b", b"\r\n"], id="left out"),
    ],
)
def test_same_lines_are_said_each_time(own: list[bytes]) -> None:
    pair = Pair()
    expected = [field for field in own_pairs(own) if field[0] != b"host"]
    for _ in range(4):
        assert pair.passes(own) == expected


def test_a_layout_says_what_stands_around_the_values() -> None:
    begins = {b"x-request-id": b"<id>", b"traceparent": b"<parent>", b"tracestate": b"<state>"}
    expected = (b"<id>\x24", b"<parent>\x3700-", b"-", b"-01<state>\x18sidecar=")
    assert make_layout([*IDS, b"\r\n"], begins) == expected


@pytest.mark.parametrize("count", [1, 3, 5, 11, 13, 15])
def test_a_key_tells_each_text_and_each_length_but_no_value(count: int) -> None:
    own = [b"%d" % number * 4 for number in range(count)]
    for at in range(count - 1):
        other, longer = own.copy(), own.copy()
        other[at] = other[at][::-1].replace(other[at][:1], b"x")
        longer[at] += b"x"
        is_value = at % 2 == 1
        assert (key_of(other) == key_of(own)) is is_value
        assert key_of(longer) != key_of(own)


def test_no_more_layouts_than_the_bound_are_remembered() -> None:
    pair = Pair()
    for length in range(3 * MAX_LAYOUTS):
        own = [b"x-request-id: ", b"r" * length, b"\r\n"]
        assert pair.passes(own) == [(b"x-request-id", b"r" * length)]
        assert len(pair._encoder._layouts) <= MAX_LAYOUTS


NAMES = st.sampled_from([b"x-request-id", b"X-One", b"via", b"traceparent", b"host", b"te"])
TEXTS = st.sampled_from([b"", b"a", b"bc", b"trailers", b": ", b"00-"])
LINES = st.tuples(NAMES, TEXTS, st.lists(st.tuples(TEXTS, TEXTS), max_size=2), TEXTS)
HEADS = st.tuples(
    st.lists(LINES, max_size=3), st.sampled_from([[], [b"x-more: 1\r\n"], [b"", b"x-more: 1\r\n"]])
)


@given(st.lists(HEADS, max_size=12))
def test_any_pieces_say_their_lines(heads: list[tuple[list[Any], list[bytes]]]) -> None:
    """A text of ours and part of a value in turns, wherever a line ends, and lines behind."""
    pair = Pair()
    for lines, behind in heads:
        own, end = [], b""
        for name, begin, more, value in lines:
            own.append(end + name + b": " + begin)
            for part, text in more:
                own += [part, text]
            own.append(value)
            end = b"\r\n"
        own += [end, *behind]
        expected = [
            (key, value)
            for key, value in own_pairs(own)
            if key != b"host" and (key != b"te" or value == b"trailers")
        ]
        assert pair.passes(own) == expected
