"""Huffman's code: each symbol against what nghttp2 writes, and what must not end a string."""

from __future__ import annotations

import ngh2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http2 import huffman
from sidecar.http2.huffman import MalformedHuffman
from sidecar.http2.huffman_table import EOS, LENGTHS, codes
from tests.http2.huffman_code import huffman as write
from tests.http2.wire import HEADERS, frames_of

FILL = b"a" * 60
"""So that even the longest code makes a string shorter than the plain one, and nghttp2 takes the code."""


def written_by_nghttp2(value: bytes) -> bytes:
    """The value of the last field in a request's header block."""
    client = ngh2.Connection(ngh2.Role.CLIENT)
    client.initiate_connection()
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"a"),
        (b"cookie", value),
    ]
    client.send_request(fields, end_stream=True)
    [head] = [one for one in frames_of(client.data_to_send()) if one.kind == HEADERS]
    return head.payload[-(len(write(value))) :]


@pytest.mark.parametrize("symbol", range(256))
def test_each_symbol_is_as_nghttp2_writes_it(symbol: int) -> None:
    value = FILL + bytes([symbol])
    try:
        coded = written_by_nghttp2(value)
    except ngh2.NGH2Error:  # nghttp2 does not send control characters; the code of these is as in the table
        coded = write(value)
        assert symbol < 0x20 or symbol == 0x7F
    assert coded == write(value)
    assert huffman.decode(coded) == value


def test_the_code_is_complete() -> None:
    assert len(LENGTHS) == EOS + 1
    assert sum(2.0**-length for length in LENGTHS) == 1.0
    assert codes()[EOS] == (2**30 - 1, 30)


@given(st.binary(max_size=200))
def test_what_is_written_is_read(data: bytes) -> None:
    assert huffman.decode(write(data)) == data


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        text = huffman.decode(data)
    except MalformedHuffman:
        return
    assert write(text) == data


@pytest.mark.parametrize("text", [b"&", b"B", b" ", b"0", b"0B", b"0 ", b"00", b"00000"])
def test_up_to_seven_bits_of_padding_are_taken(text: bytes) -> None:
    assert huffman.decode(write(text)) == text


def test_those_texts_need_each_length_of_padding() -> None:
    texts = [b"&", b"B", b" ", b"0", b"0B", b"0 ", b"00", b"00000"]
    assert [-sum(LENGTHS[byte] for byte in text) % 8 for text in texts] == list(range(8))


@pytest.mark.parametrize(
    "raw",
    [b"\xff", b"\x07\xff", b"\x00", b"\x06", b"\xff\xff\xff\xff", b"\x1f\xff\xff\xff\xfc"],
    ids=["padding alone", "eleven bits", "zeros", "a bit of zero", "EOS", "EOS behind a symbol"],
)
def test_a_malformed_end_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedHuffman):
        huffman.decode(raw)
