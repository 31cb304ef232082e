"""A header block of very many fields, which cost their sender a byte each, takes the loop no time."""

from __future__ import annotations

import pytest

from sidecar.http2.hpack import MalformedBlock
from sidecar.http2.hpack_decoder import MAX_FIELDS, HpackDecoder

INDEXED = b"\x90"
LITERAL = b"\x00\x01a\x01b"
LONG = b"\x00\x01a\x7f\x81\x07" + b"v" * 1024


@pytest.mark.parametrize("field", [INDEXED, LITERAL], ids=["indexed", "literal"])
def test_a_block_has_so_many_fields_at_most(field: bytes) -> None:
    assert len(HpackDecoder().decode(field * MAX_FIELDS)) == MAX_FIELDS
    with pytest.raises(MalformedBlock, match="more than 4096 fields"):
        HpackDecoder().decode(field * (MAX_FIELDS + 1))


def test_long_fields_are_read_to_the_end_of_their_block() -> None:
    assert len(HpackDecoder().decode(LONG * 140)) == 140


def test_what_is_behind_the_last_allowed_field_is_not_looked_at() -> None:
    with pytest.raises(MalformedBlock, match="more than 4096 fields"):
        HpackDecoder().decode(LONG + INDEXED * MAX_FIELDS + b"\xff\xff\xff\xff\xff\xff")
