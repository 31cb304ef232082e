"""The examples of RFC 7541, appendix C: whole connections of header blocks, and what the table holds after each."""

from __future__ import annotations

import pytest

from sidecar.http2.hpack import read_integer, write_integer
from sidecar.http2.hpack_decoder import HpackDecoder

Pairs = list[tuple[str, str]]

FIRST = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]
SECOND = [*FIRST, ("cache-control", "no-cache")]
THIRD = [
    (":method", "GET"), (":scheme", "https"), (":path", "/index.html"), (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
]  # fmt: skip
DATE = "Mon, 21 Oct 2013 20:13:21 GMT"
LOCATION = "https://www.example.com"
REDIRECT = [(":status", "302"), ("cache-control", "private"), ("date", DATE), ("location", LOCATION)]
SECOND_REDIRECT = [(":status", "307"), *REDIRECT[1:]]
FOUND = [
    (":status", "200"), ("cache-control", "private"), ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
    ("location", LOCATION),
    ("content-encoding", "gzip"), ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]  # fmt: skip

CONNECTIONS: dict[str, tuple[int, list[tuple[str, Pairs, int]]]] = {
    "C.2.1 with indexing": (4096, [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", [("custom-key", "custom-header")], 55),
    ]),
    "C.2.2 without indexing": (4096, [("040c2f73616d706c652f70617468", [(":path", "/sample/path")], 0)]),
    "C.2.3 never indexed": (4096, [("100870617373776f726406736563726574", [("password", "secret")], 0)]),
    "C.2.4 indexed": (4096, [("82", [(":method", "GET")], 0)]),
    "C.3 requests": (4096, [
        ("828684410f7777772e6578616d706c652e636f6d", FIRST, 57),
        ("828684be58086e6f2d6361636865", SECOND, 110),
        ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", THIRD, 164),
    ]),
    "C.4 requests in Huffman": (4096, [
        ("828684418cf1e3c2e5f23a6ba0ab90f4ff", FIRST, 57),
        ("828684be5886a8eb10649cbf", SECOND, 110),
        ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", THIRD, 164),
    ]),
    "C.5 answers, with a table of 256 bytes": (256, [
        ("4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e17"
         "68747470733a2f2f7777772e6578616d706c652e636f6d", REDIRECT, 222),
        ("4803333037c1c0bf", SECOND_REDIRECT, 222),
        ("88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153"
         "444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
         FOUND, 215),
    ]),
    "C.6 answers in Huffman, with a table of 256 bytes": (256, [
        ("488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9"
         "ae82ae43d3", REDIRECT, 222),
        ("4883640effc1c0bf", SECOND_REDIRECT, 222),
        ("88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b39"
         "60d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007", FOUND, 215),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONNECTIONS)
def test_a_connection_of_the_appendix_is_decoded(name: str) -> None:
    size, blocks = CONNECTIONS[name]
    decoder = HpackDecoder(size)
    for raw, fields, table_bytes in blocks:
        decoded = decoder.decode(bytes.fromhex(raw))
        assert [(key.decode(), value.decode()) for key, _, value in decoded] == fields
        assert decoder.table_bytes == table_bytes


def test_only_the_field_that_came_so_is_never_indexed() -> None:
    decoder = HpackDecoder()
    decoder.decode(bytes.fromhex("82100870617373776f726406736563726574"))
    assert decoder.never_indexed == {b"password"}
    decoder.decode(bytes.fromhex("82"))
    assert decoder.never_indexed == frozenset()


@pytest.mark.parametrize(("value", "bits", "raw"), [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a")])
def test_integers_of_c_1(value: int, bits: int, raw: str) -> None:
    assert write_integer(value, bits, 0) == bytes.fromhex(raw)


@pytest.mark.parametrize("value", [31, 32, 158, 159, 1337, 16_414, 2**31, 2**32 - 1])
def test_an_integer_is_read_as_it_was_written(value: int) -> None:
    raw = write_integer(value, 5, 0xE0)
    assert read_integer(raw + b"rest", 1, 31) == (value, len(raw))
