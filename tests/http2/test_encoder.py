"""What our header blocks are: readable by anybody, small for what comes again, and silent about secrets."""

from __future__ import annotations

from collections.abc import Sequence

import ngh2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.head import Added
from sidecar.core.plain import Block, Field
from sidecar.http2.hpack import ALWAYS_NEVER_INDEXED, INDEXED
from sidecar.http2.hpack_decoder import HpackDecoder, make_field
from sidecar.http2.hpack_encoder import MAX_VALUE_BYTES, MAX_VALUES_OF_A_NAME, MAX_WRITTEN, HpackEncoder
from tests.http2.wire import END_HEADERS, END_STREAM, HEADERS, PREFACE, frame, setting

NONE: frozenset[bytes] = frozenset()
Pair = tuple[bytes, bytes]
ACCEPT = make_field(b"accept", b"application/json")


def encode(
    encoder: HpackEncoder, *fields: Field, pairs: tuple[Pair, ...] = (), never: frozenset[bytes] = NONE
) -> bytes:
    return encoder.encode((), fields, NONE, pairs, never)


def decode(decoder: HpackDecoder, block: bytes) -> list[Pair]:
    return [(key, value) for key, _, value in decoder.decode(block)]


def test_what_comes_again_is_one_byte() -> None:
    encoder = HpackEncoder()
    assert len(encode(encoder, ACCEPT)) > 10
    assert encode(encoder, ACCEPT) == b"\xbe"
    assert encode(encoder, pairs=((b"accept", b"application/json"),)) == b"\xbe"


def test_a_line_in_another_case_is_the_same_field() -> None:
    encoder = HpackEncoder()
    encode(encoder, ACCEPT)
    written = (b"accept", b"Accept: application/json\r\n", b"application/json")
    assert encode(encoder, written) == encode(encoder, written) == b"\xbe"


def test_an_index_moves_only_when_another_field_enters() -> None:
    encoder = HpackEncoder()
    encode(encoder, ACCEPT)
    encode(encoder, make_field(b"x-request-id", b"1"), make_field(b"etag", b"2"))
    assert encode(encoder, ACCEPT) == b"\xbe"
    encode(encoder, make_field(b"server", b"a"))
    assert encode(encoder, ACCEPT) == b"\xbf"


@pytest.mark.parametrize("name", sorted(ALWAYS_NEVER_INDEXED))
def test_secrets_are_never_indexed(name: bytes) -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    for block in (encode(encoder, make_field(name, b"secret")), encode(encoder, pairs=((name, b"secret"),))):
        assert decode(decoder, block) == [(name, b"secret")]
        assert decoder.never_indexed == {name}
    assert decoder.table_bytes == 0


def test_what_came_never_indexed_goes_on_so_though_it_is_in_the_table() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    decode(decoder, encode(encoder, ACCEPT))
    block = encode(encoder, ACCEPT, make_field(b"vary", b"a"), never=frozenset({b"accept"}))
    assert decode(decoder, block) == [(b"accept", b"application/json"), (b"vary", b"a")]
    assert decoder.never_indexed == {b"accept"}


def test_cookies_are_split() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    block = encode(encoder, make_field(b"cookie", b"a=1; b=2; c=3"))
    assert decode(decoder, block) == [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]


@pytest.mark.parametrize(
    "name", [b":path", b"x-request-id", b"authorization", b"x-api-key", b"traceparent", b"referer"]
)
def test_only_names_of_the_list_enter_the_table(name: bytes) -> None:
    assert name not in INDEXED
    encoder, decoder = HpackEncoder(), HpackDecoder()
    decode(decoder, encode(encoder, pairs=((name, b"a guess"),)))
    assert decoder.table_bytes == 0


def test_a_name_has_so_many_values_in_the_table_and_no_more() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    for number in range(MAX_VALUES_OF_A_NAME + 1):
        decode(decoder, encode(encoder, make_field(b"user-agent", b"%d" % number)))
    assert decoder.table_bytes == MAX_VALUES_OF_A_NAME * (len("user-agent") + 1 + 32)


@pytest.mark.parametrize(("size", "enters"), [(MAX_VALUE_BYTES, True), (MAX_VALUE_BYTES + 1, False)])
def test_a_long_value_stays_out_of_the_table(size: int, enters: bool) -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    decode(decoder, encode(encoder, make_field(b"accept", b"a" * size)))
    assert (decoder.table_bytes > 0) is enters


def test_nothing_is_ever_evicted() -> None:
    """The decoder's table never grows beyond its size, and the first entry is there at the end."""
    encoder, decoder = HpackEncoder(), HpackDecoder()
    decode(decoder, encode(encoder, ACCEPT))
    for name in sorted(INDEXED):
        for number in range(12):
            decode(decoder, encode(encoder, pairs=((name, b"v" * 200 + b"%d" % number),)))
    assert 4096 - 300 < decoder.table_bytes <= 4096
    block = encode(encoder, ACCEPT)
    assert len(block) == 1
    assert decode(decoder, block) == [(b"accept", b"application/json")]


@pytest.mark.parametrize(
    "name", [b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"host", b"http2-settings"]
)
def test_fields_that_http2_forbids_are_left_out(name: bytes) -> None:
    encoder = HpackEncoder()
    field = make_field(name, b"x")
    assert encode(encoder, field) == encode(encoder, pairs=((name, b"x"),)) == b""
    assert encode(encoder, field, never=frozenset({name})) == b""


def test_te_goes_only_where_it_says_trailers() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    trailers, gzip = make_field(b"te", b"trailers"), make_field(b"te", b"gzip")
    for never in (NONE, frozenset({b"te"})):
        assert decode(decoder, encode(encoder, gzip, trailers, gzip, never=never)) == [(b"te", b"trailers")]


def test_a_smaller_table_of_the_peer_is_said_first_and_kept() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    decode(decoder, encode(encoder, ACCEPT))
    encoder.set_table_bytes(100)
    block = encode(encoder, ACCEPT, make_field(b"server", b"a" * 60))
    assert block[:3] == b"\x20\x3f\x45"
    assert decode(decoder, block) == [(b"accept", b"application/json"), (b"server", b"a" * 60)]
    assert decoder.table_bytes == 32 + 6 + 16
    assert encode(encoder, ACCEPT) == b"\xbe"


def test_a_larger_table_of_the_peer_changes_nothing() -> None:
    encoder = HpackEncoder()
    encode(encoder, ACCEPT)
    encoder.set_table_bytes(65_536)
    assert encode(encoder, ACCEPT) == b"\xbe"


names = st.sampled_from(
    [b"accept", b"server", b"vary", b"x-test", b"cookie", b"set-cookie", b"via", b"te", b"etag"]
)
values = st.one_of(
    st.sampled_from([b"", b"a", b"b", b"trailers"]), st.binary(max_size=300).map(bytes.hex).map(str.encode)
)
blocks = st.lists(st.lists(st.tuples(names, values), max_size=8), max_size=12)


@given(blocks, st.sets(names), st.sampled_from([0, 60, 4096]))
def test_a_decoder_and_nghttp2_read_what_was_written(
    blocks: list[list[Pair]], never: set[bytes], size: int
) -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    encoder.set_table_bytes(size)
    server = ngh2.Connection(ngh2.Role.SERVER)
    server.initiate_connection()
    server.receive_data(PREFACE + setting())
    pseudo = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a.test"))
    for number, pairs in enumerate(blocks):
        fields = [make_field(key, value) for key, value in pairs]
        block = encoder.encode(pseudo, fields, NONE, ((b"x-end", b"1"),), frozenset(never))
        expected = [
            *pseudo,
            *(pair for pair in pairs if pair[0] != b"te" or pair[1] == b"trailers"),
            (b"x-end", b"1"),
        ]
        assert decode(decoder, block) == expected
        server.receive_data(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block))
        [told] = [event for event in server.events() if isinstance(event, ngh2.RequestReceived)]
        assert [
            (one[0], one[1]) if isinstance(one, tuple) else (one.name, one.value) for one in told.headers
        ] == expected


ADDED = Added([(b"X-Mesh", b"a"), (b"server", b"s")])
SHARED = b"via: 1.1 sidecar\r\nx-forwarded-for: 10.0.0.1\r\n"
OWN = [b"x-request-id: ", b"8f14", b"\r\nDate: now\r\nTraceparent: 00-1-2-01\r\n"]


def whole(encoder: HpackEncoder, fields: Sequence[Field], drop: frozenset[bytes] = NONE) -> bytes:
    pseudo = ((b":method", b"GET"), (b":path", b"/a"))
    return encoder.encode(pseudo, fields, drop, ((b"te", b"trailers"),), NONE, ADDED, SHARED, OWN)


def test_what_is_remembered_as_written_reads_as_what_is_not() -> None:
    """Also after another field has entered the table and moved the indexes of all others."""
    encoder, decoder = HpackEncoder(), HpackDecoder()
    fields = Block([ACCEPT, make_field(b"x-a", b"1"), make_field(b"etag", b"2")], {})
    expected = [
        (b":method", b"GET"), (b":path", b"/a"), (b"accept", b"application/json"), (b"x-a", b"1"), (b"x-mesh", b"a"),
        (b"server", b"s"), (b"via", b"1.1 sidecar"), (b"x-forwarded-for", b"10.0.0.1"), (b"x-request-id", b"8f14"),
        (b"date", b"now"), (b"traceparent", b"00-1-2-01"), (b"te", b"trailers"),
    ]  # fmt: skip
    for number in range(6):
        if number == 3:
            assert decode(decoder, encode(encoder, make_field(b"vary", b"x"))) == [(b"vary", b"x")]
        assert decode(decoder, whole(encoder, fields, frozenset({b"etag"}))) == expected
    assert (b"etag", b"2") in decode(decoder, whole(encoder, fields))


def test_so_many_blocks_and_groups_are_remembered_at_most() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    for number in range(3 * MAX_WRITTEN):
        value = b"%d" % number
        block = encoder.encode(
            (), Block([make_field(b"x-a", value)], {}), NONE, (), NONE, shared=b"x-b: %b\r\n" % value
        )
        assert decode(decoder, block) == [(b"x-a", value), (b"x-b", value)]
        assert len(encoder._blocks) <= MAX_WRITTEN
        assert len(encoder._groups) <= MAX_WRITTEN


def test_a_name_that_is_never_indexed_is_so_among_lines_too() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    block = encoder.encode((), (), NONE, (), frozenset({b"via"}), ADDED, SHARED, OWN)
    assert (b"via", b"1.1 sidecar") in decode(decoder, block)
    assert decoder.never_indexed == {b"via"}


def test_a_remembered_block_behind_a_pseudo_field_that_enters_the_table_is_written_anew() -> None:
    """Its indexes have moved, in the middle of this very head."""
    encoder, decoder = HpackEncoder(), HpackDecoder()
    fields = Block([ACCEPT, make_field(b"x-kept", b"1")], {})
    hosts = [b"a.test", b"a.test", b"a.test", b"b.test", b"a.test", b"b.test"]
    for host in hosts:
        block = encoder.encode(((b":authority", host),), fields, NONE, (), NONE)
        assert decode(decoder, block) == [(b":authority", host), ACCEPT[::2], (b"x-kept", b"1")]


def test_a_line_in_its_three_parts_is_the_same_as_in_one() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    for own in ([b"x-id: 1\r\n"], [b"x-id: ", b"12", b"\r\n"], [b"x-id: ", b"v" * 3000, b"\r\n"]):
        block = encoder.encode((), (), NONE, (), NONE, own=own)
        assert decode(decoder, block) == [tuple(b"".join(own).removesuffix(b"\r\n").split(b": "))]
