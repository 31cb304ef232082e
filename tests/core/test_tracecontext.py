"""The cases of W3C's own suite (each once, as data), and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.tracecontext import (
    DUPLICATED,
    MAX_FOREIGN_BYTES,
    RANDOM,
    SAMPLED,
    IdSource,
    TraceContext,
    format_traceparent,
    format_tracestate,
    read,
)

TRACE = b"12345678901234567890123456789012"
PARENT = b"1234567890123456"
VALID = b"00-" + TRACE + b"-" + PARENT + b"-01"
OURS = b"00f067aa0ba902b7"


def counting_ids() -> IdSource:
    """Ids that count up: ...01, ...02, handed out from the end of each batch."""
    counter = iter(range(1, 1 << 30))

    def random_bytes(size: int) -> bytes:
        return b"".join(next(counter).to_bytes(8, "big") for _ in range(size // 8))

    return IdSource(random_bytes, batch=4)


def as_tuple(context: TraceContext) -> tuple[bytes, bytes | None, int, bytes, bytes | None]:
    return context.trace_id, context.parent_id, context.flags, context.tracestate, context.own_member


def members(tracestate: bytes) -> bytes:
    """What is passed on of `tracestate` with a valid `traceparent`."""
    return read(VALID, tracestate, counting_ids()).tracestate


@pytest.mark.parametrize(
    "traceparent",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(DUPLICATED, id="duplicated"),
        pytest.param(VALID + b"," + VALID, id="duplicates joined by a hop"),
        pytest.param(VALID + b", " + VALID, id="duplicates joined with a space"),
        pytest.param(b"cc" + VALID[2:] + b"-x,cc" + VALID[2:], id="duplicates of a higher version joined"),
        pytest.param(VALID + b".", id="version 00 with a trailing dot"),
        pytest.param(VALID + b"-", id="version 00 with a trailing dash"),
        pytest.param(VALID + b"-what-the-future-will-be-like", id="version 00 with more fields"),
        pytest.param(
            b"cc" + VALID[2:] + b".what-the-future-will-be-like", id="higher version, dot after flags"
        ),
        pytest.param(b"cc" + VALID[2:-1], id="higher version, too short"),
        pytest.param(b"ff" + VALID[2:], id="version ff"),
        pytest.param(b"ff" + VALID[2:] + b"-more", id="version ff with more fields"),
        pytest.param(b".0" + VALID[2:], id="version: illegal first character"),
        pytest.param(b"0." + VALID[2:], id="version: illegal second character"),
        pytest.param(b"0A" + VALID[2:], id="version: upper case"),
        pytest.param(b"000" + VALID[2:], id="version of three digits"),
        pytest.param(b"0000" + VALID[2:], id="version of four digits"),
        pytest.param(b"0" + VALID[2:], id="version of one digit"),
        pytest.param(VALID[2:], id="no version, dash kept"),
        pytest.param(VALID[3:], id="no version"),
        pytest.param(b"00-" + b"0" * 32 + b"-" + PARENT + b"-01", id="trace id: all zero"),
        pytest.param(b"00-." + TRACE[1:] + b"-" + PARENT + b"-01", id="trace id: illegal first character"),
        pytest.param(b"00-" + TRACE[:-1] + b".-" + PARENT + b"-01", id="trace id: illegal last character"),
        pytest.param(b"00-" + TRACE[:-1] + b"A-" + PARENT + b"-01", id="trace id: upper case"),
        pytest.param(b"00-" + TRACE[:-1] + b"_-" + PARENT + b"-01", id="trace id: underscore"),
        pytest.param(b"00-" + TRACE + b"3-" + PARENT + b"-01", id="trace id: too long"),
        pytest.param(b"00-" + TRACE[:-1] + b"-" + PARENT + b"-01", id="trace id: too short"),
        pytest.param(b"00-" + TRACE + b"-" + b"0" * 16 + b"-01", id="parent id: all zero"),
        pytest.param(b"00-" + TRACE + b"-." + PARENT[1:] + b"-01", id="parent id: illegal first character"),
        pytest.param(b"00-" + TRACE + b"-" + PARENT[:-1] + b".-01", id="parent id: illegal last character"),
        pytest.param(b"00-" + TRACE + b"-" + PARENT[:-1] + b"F-01", id="parent id: upper case"),
        pytest.param(b"00-" + TRACE + b"-" + PARENT + b"7-01", id="parent id: too long"),
        pytest.param(b"00-" + TRACE + b"-" + PARENT[:-1] + b"-01", id="parent id: too short"),
        pytest.param(b"00-" + TRACE[1:] + b"-0" + PARENT + b"-01", id="a digit moved across a dash"),
        pytest.param(VALID[:-2] + b".0", id="flags: illegal first character"),
        pytest.param(VALID[:-2] + b"0.", id="flags: illegal second character"),
        pytest.param(VALID[:-2] + b"0A", id="flags: upper case"),
        pytest.param(VALID[:-2] + b"001", id="flags: too long"),
        pytest.param(VALID[:-2] + b"1", id="flags: too short"),
        pytest.param(VALID.replace(b"-", b" "), id="spaces for dashes"),
        pytest.param(VALID + b"\n", id="trailing newline"),
        pytest.param(VALID + b"\x00", id="trailing zero byte"),
        pytest.param(b"-" * 60_000, id="nothing but dashes"),
    ],
)
def test_invalid_traceparent_starts_a_trace_and_drops_tracestate(traceparent: bytes | None) -> None:
    context = read(traceparent, b"foo=1,sidecar=" + OURS, counting_ids())

    assert as_tuple(context) == (b"%032x" % ((7 << 64) + 8), None, RANDOM, b"", None)


@pytest.mark.parametrize(
    "traceparent",
    [
        pytest.param(VALID, id="plain"),
        pytest.param(b" " + VALID, id="leading space"),
        pytest.param(b"\t" + VALID, id="leading tab"),
        pytest.param(VALID + b" ", id="trailing space"),
        pytest.param(VALID + b"\t", id="trailing tab"),
        pytest.param(b"\t " + VALID + b" \t", id="both"),
        pytest.param(b"cc" + VALID[2:], id="higher version"),
        pytest.param(b" cc" + VALID[2:] + b"\t", id="higher version, padded"),
        pytest.param(b"01" + VALID[2:] + b"-", id="higher version, dash at the end"),
        pytest.param(b"fe" + VALID[2:] + b"-what-the-future-will-be-like", id="higher version, more fields"),
    ],
)
def test_valid_traceparent_is_continued_as_version_00(traceparent: bytes) -> None:
    context = read(traceparent, None, counting_ids())

    assert as_tuple(context) == (TRACE, PARENT, SAMPLED, b"", None)
    assert format_traceparent(context.trace_id, OURS, context.flags) == b"00-" + TRACE + b"-" + OURS + b"-01"


@pytest.mark.parametrize(
    ("sent", "kept"), [(b"00", 0), (b"01", 1), (b"02", 2), (b"03", 3), (b"ff", 3), (b"fc", 0)]
)
@pytest.mark.parametrize("version", [b"00", b"42"])
def test_only_sampled_and_random_flags_are_kept(version: bytes, sent: bytes, kept: int) -> None:
    context = read(version + VALID[2:-2] + sent, None, counting_ids())

    assert context.flags == kept
    assert format_traceparent(TRACE, OURS, 0xFC | kept).endswith(b"-%02x" % kept)


def test_a_new_trace_is_random_but_not_sampled() -> None:
    context = read(None, None, counting_ids())

    assert format_traceparent(context.trace_id, OURS, context.flags).endswith(b"-02")


KEY_256 = b"z" * 256
ALL_KEY_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz0123456789_-*/"
ALL_VALUE_CHARACTERS = bytes(c for c in range(0x20, 0x7F) if c not in b",=")


@pytest.mark.parametrize(
    ("tracestate", "passed_on"),
    [
        (b"foo=1", b"foo=1"),
        (b"foo=1,bar=2", b"foo=1,bar=2"),
        (b"foo=1,bar=2,rojo=1,congo=2,baz=3", b"foo=1,bar=2,rojo=1,congo=2,baz=3"),
        (b"", b""),
        (b",", b""),
        (b" \t , \t,", b""),
        (b"foo=1,", b"foo=1"),
        (b",foo=1", b"foo=1"),
        (b"foo=1 \t , \t bar=2, \t baz=3", b"foo=1,bar=2,baz=3"),
        (b"foo=1\t \t,\t \tbar=2,\t \tbaz=3", b"foo=1,bar=2,baz=3"),
        (b"\t foo=1 \t", b"foo=1"),
        (b"foo=  1", b"foo=  1"),
        (ALL_KEY_CHARACTERS + b"=" + ALL_VALUE_CHARACTERS, ALL_KEY_CHARACTERS + b"=" + ALL_VALUE_CHARACTERS),
        (ALL_KEY_CHARACTERS + b"@a-z0-9_-*/=1", ALL_KEY_CHARACTERS + b"@a-z0-9_-*/=1"),
        (b"0=1", b"0=1"),
        (b"fw529a3039@dt=1", b"fw529a3039@dt=1"),
        # Level 1 refused these; since level 2 `@` is a character like others.
        (b"foo@=1,bar=2", b"foo@=1,bar=2"),
        (b"foo@@bar=1,bar=2", b"foo@@bar=1,bar=2"),
        (b"foo@bar@baz=1,bar=2", b"foo@bar@baz=1,bar=2"),
        (b"foo=1," + b"t" * 242 + b"@v=1", b"foo=1," + b"t" * 242 + b"@v=1"),
        (b"foo=1,t@" + b"v" * 15 + b"=1", b"foo=1,t@" + b"v" * 15 + b"=1"),
        (b"foo=1," + KEY_256 + b"=1", b"foo=1," + KEY_256 + b"=1"),
        (b"foo=" + b"v" * 256, b"foo=" + b"v" * 256),
        (b"foo=1,foo=1", b"foo=1"),
        (b"foo=1,foo=2", b"foo=1"),
        (b"foo=1,bar=2,foo=3,baz=4,bar=5", b"foo=1,bar=2,baz=4"),
        (b",".join([b"foo=1"] * 32), b"foo=1"),
    ],
)
def test_valid_tracestate_is_passed_on(tracestate: bytes, passed_on: bytes) -> None:
    assert members(tracestate) == passed_on


@pytest.mark.parametrize(
    "tracestate",
    [
        b"foo =1",
        b"FOO=1",
        b"foo.bar=1",
        b"@foo=1,bar=2",
        b"_foo=1",
        b"foo",
        b"foo=",
        b"foo=,bar=3",
        b"foo= ,bar=3",
        b"=1",
        b"foo=bar=baz",
        b"foo=a\tb",
        b"foo=\x7f",
        b"foo=\xc3\xa4",
        b"foo=1;bar=2\r",
        b"foo=1," + KEY_256 + b"z=1",
        b"foo=" + b"v" * 257,
        b"," * 64,
        b"," * 60_000,
        b"a" * 60_000,
        b",".join(b"bar%02d=%d" % (n, n) for n in range(33)),
        b",".join([b"foo=1"] * 33),
    ],
)
def test_invalid_tracestate_is_dropped_alone(tracestate: bytes) -> None:
    assert as_tuple(read(VALID, tracestate, counting_ids())) == (TRACE, PARENT, SAMPLED, b"", None)


def test_own_member_is_read_and_taken_out_wherever_it_stands() -> None:
    own = b"sidecar=" + OURS
    for tracestate in (own, own + b",foo=1", b"foo=1," + own, b" " + own + b" , foo=1,"):
        context = read(VALID, tracestate, counting_ids())
        assert context.own_member == OURS
        assert context.tracestate == (b"foo=1" if b"foo" in tracestate else b"")


@pytest.mark.parametrize("first", [OURS, b"not-a-span-id"])
def test_of_several_own_members_the_first_one_counts(first: bytes) -> None:
    others = b",foo=1,sidecar=" + PARENT + b",bar=2"

    context = read(VALID, b"sidecar=" + first + others, counting_ids())

    assert (context.own_member, context.tracestate) == (OURS if first == OURS else None, b"foo=1,bar=2")


@pytest.mark.parametrize(
    "value", [b"0" * 16, OURS.upper(), OURS[:-1], OURS + b"0", b"x" * 16, OURS[:-1] + b"_", b"+" + OURS[1:]]
)
def test_malformed_own_member_is_taken_out_and_names_nothing(value: bytes) -> None:
    context = read(VALID, b"sidecar=" + value + b",foo=1", counting_ids())
    assert (context.own_member, context.tracestate) == (None, b"foo=1")

    assert read(VALID, b"sidecar=" + value, counting_ids()).own_member is None


def test_ours_goes_first_and_32_members_leave() -> None:
    incoming = b",".join(b"bar%02d=%02d" % (n, n) for n in range(1, 33))
    sent = format_tracestate(OURS, members(incoming)).split(b",")

    assert sent == [b"sidecar=" + OURS, *incoming.split(b",")[:31]]


def test_32_members_with_ours_lose_none() -> None:
    others = b",".join(b"bar%02d=%02d" % (n, n) for n in range(1, 32))

    assert members(others + b",sidecar=" + OURS) == others


def test_512_bytes_are_passed_on_whole_and_one_more_costs_the_last_member() -> None:
    filler = b",".join([b"a%d=" % n + b"v" * 96 for n in range(5)])
    exact = filler + b",last=" + b"v" * (MAX_FOREIGN_BYTES - len(filler) - 6)
    assert len(exact) == MAX_FOREIGN_BYTES

    assert members(exact) == exact
    assert members(exact + b"v") == filler


def test_long_members_go_before_short_ones() -> None:
    long_one = b"long=" + b"v" * 200
    shorts = b",".join(b"a%02d=" % n + b"v" * 30 for n in range(12))

    assert members(long_one + b"," + shorts) == shorts


def test_no_others_and_ours_alone() -> None:
    assert format_tracestate(OURS, b"") == b"sidecar=" + OURS


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.integers(0, 255))
def test_what_is_written_is_read_back(trace: int, span: int, flags: int) -> None:
    trace_id, span_id = b"%032x" % trace, b"%016x" % span

    context = read(
        format_traceparent(trace_id, span_id, flags), format_tracestate(span_id, b"a=1"), counting_ids()
    )

    assert as_tuple(context) == (trace_id, span_id, flags & 3, b"a=1", span_id)


keys = st.from_regex(rb"[a-z0-9][a-z0-9_\-*/@]{0,255}", fullmatch=True).filter(lambda key: key != b"sidecar")
values = st.from_regex(rb"[\x21-\x2b\x2d-\x3c\x3e-\x7e]{1,256}", fullmatch=True)


@given(st.lists(st.tuples(keys, values), unique_by=lambda pair: pair[0], max_size=32))
def test_valid_members_keep_their_order_and_bytes(pairs: list[tuple[bytes, bytes]]) -> None:
    sent = [key + b"=" + value for key, value in pairs]

    kept = [one for one in members(b",".join(sent)).split(b",") if one]

    remaining = iter(sent)
    assert all(one in remaining for one in kept)  # A subsequence: nothing changed, nothing moved.
    assert len(kept) <= 31
    assert len(b",".join(kept)) <= MAX_FOREIGN_BYTES
    if len(sent) <= 31 and len(b",".join(sent)) <= MAX_FOREIGN_BYTES:
        assert kept == sent


@given(st.binary(max_size=80), st.binary(max_size=600))
def test_any_bytes_give_a_context_that_can_be_sent(traceparent: bytes, tracestate: bytes) -> None:
    for first in (traceparent, VALID):
        context = read(first, tracestate, counting_ids())
        sent = format_traceparent(context.trace_id, OURS, context.flags)
        again = read(sent, format_tracestate(OURS, context.tracestate), counting_ids())
        assert as_tuple(again) == (context.trace_id, OURS, context.flags, context.tracestate, OURS)


def test_ids_are_fetched_in_batches_and_never_zero() -> None:
    fetched: list[int] = []

    def random_bytes(size: int) -> bytes:
        fetched.append(size)
        return bytes(8) + b"\xab" * (size - 8) if len(fetched) == 1 else b"\xab" * size

    ids = IdSource(random_bytes, batch=4)
    assert fetched == []
    assert [ids.trace_id() for _ in range(3)] == [b"ab" * 16] * 3
    assert fetched == [64, 64]
    assert ids.span_id() == b"ab" * 8
    assert fetched == [64, 64, 32]


def test_ids_from_the_system_differ() -> None:
    ids = IdSource()
    made = [ids.span_id() for _ in range(1000)] + [ids.trace_id() for _ in range(1000)]

    assert len(set(made)) == 2000
    assert {len(one) for one in made} == {16, 32}
