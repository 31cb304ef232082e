"""Header blocks that are well coded, and that are not (RFC 7541; RFC 9113 4.3)."""

from __future__ import annotations

from tests.http2.corpus.case import BOTH, CLIENT, Case, Fails, Takes
from tests.http2.wire import COMPRESSION_ERROR, REQUEST, block, headers, integer, literal, rst, string

RAW = block(*REQUEST)
BROKEN = Fails(COMPRESSION_ERROR)
GOOD = Takes(("RequestReceived",))
STATIC = b"\x82\x86\x84\x01" + string("a.test")
"""GET / by the static table, and an authority."""


def sent(raw: bytes) -> bytes:
    return headers(1, raw)


WELL_CODED = [
    Case("6.1 indexes of the static table", sent(STATIC), GOOD),
    Case("6.1 indexes of the dynamic table", sent(STATIC + literal("x", "a", 0x40) + b"\xbe"), GOOD),
    Case("6.2.1 with indexing, an indexed name", sent(STATIC + b"\x58" + string("no-cache")), GOOD),
    Case("6.2.1 with indexing, a new name", sent(STATIC + literal("x-new", "a", 0x40)), GOOD),
    Case("6.2.2 without indexing, an indexed name", sent(STATIC + b"\x0f\x09" + string("no-cache")), GOOD),
    Case("6.2.2 without indexing, a new name", sent(STATIC + literal("x-new", "a")), GOOD),
    Case("6.2.3 never indexed, an indexed name", sent(STATIC + b"\x1f\x08" + string("secret")), GOOD),
    Case("6.2.3 never indexed, a new name", sent(STATIC + literal("x-new", "a", 0x10)), GOOD),
    Case("5.2 Huffman", sent(b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), GOOD),
    Case("6.3 a smaller table", sent(b"\x20" + STATIC), GOOD),
    Case("6.3 two changes of its size", sent(b"\x20\x3f\xe1\x1f" + STATIC), GOOD),
    Case(
        "4.4 an entry that is larger than the table", sent(b"\x20" + STATIC + literal("x", "a", 0x40)), GOOD
    ),
    Case(
        "5.1 an integer with zeros at its end", sent(STATIC + b"\x0f\x89\x80\x00" + string("no-cache")), GOOD
    ),
    Case("2.3.3 an answer by the static table", headers(1, b"\x88"), Takes(("ResponseReceived",)), CLIENT),
]

BADLY_CODED = [
    Case("2.3.3 an index that is not in a table", sent(STATIC + b"\xbe"), BROKEN),
    Case("2.3.3 a large one", sent(STATIC + b"\xff\xff\x00"), BROKEN),
    Case("2.3.3 a name's index that is not in a table", sent(STATIC + b"\x7e" + string("a")), BROKEN),
    Case("4.2 a change of the table's size at the end", sent(STATIC + b"\x20"), BROKEN),
    Case("4.2 and in the middle", sent(b"\x82\x20\x86\x84"), BROKEN),
    Case("6.3 a larger table than we allow", sent(integer(4097, 5, 0x20) + STATIC), BROKEN),
    Case("6.1 index 0", sent(b"\x80" + STATIC), BROKEN),
    Case("5.2 padding of more than 7 bits", sent(STATIC + b"\x00" + string("x") + b"\x82\x1f\xff"), BROKEN),
    Case("5.2 padding of zeros", sent(STATIC + b"\x00" + string("x") + b"\x81\x18"), BROKEN),
    Case("5.2 EOS", sent(STATIC + b"\x00" + string("x") + b"\x84\xff\xff\xff\xff"), BROKEN),
    Case(
        "5.2 EOS behind a symbol", sent(STATIC + b"\x00" + string("x") + b"\x85\x1f\xff\xff\xff\xff"), BROKEN
    ),
    Case("5.2 a name's padding of zeros", sent(STATIC + b"\x00\x81\x18" + string("x")), BROKEN),
    Case("5.1 an integer without an end", sent(STATIC + b"\x7f\xff\xff"), BROKEN),
    Case("5.1 an integer above 2^32", sent(STATIC + b"\x7f\xff\xff\xff\xff\x7f" + string("a")), BROKEN),
    Case(
        "5.1 an integer of many octets", sent(STATIC + b"\x7f" + b"\x80" * 20 + b"\x01" + string("a")), BROKEN
    ),
    Case("5.2 a string that is longer than its block", sent(STATIC + b"\x00\x01x\x05abc"), BROKEN),
    Case("5.2 a name that is longer than its block", sent(STATIC + b"\x00\x09x"), BROKEN),
    Case("6.2 a field without a value", sent(STATIC + b"\x00\x01x"), BROKEN),
    Case("6.2 a field without a name", sent(STATIC + b"\x40"), BROKEN),
    Case("4.3 of a stream that was reset", headers(1, RAW, 4) + rst(1) + headers(1, b"\xbe"), BROKEN),
    Case("4.3 of trailers", headers(1, RAW, 4) + headers(1, b"\xbe"), BROKEN),
    Case("4.3 of an answer", headers(1, b"\xbe"), BROKEN, CLIENT),
    Case("4.3 index 0", headers(1, b"\x80"), BROKEN, BOTH),
]

CASES = [*WELL_CODED, *BADLY_CODED]
