"""What an upstream is told of the client, for each mode and for odd clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import forwarded
from sidecar.core.forwarded import forwarded_lines, lines_without
from sidecar.core.headers import FORWARDED
from sidecar.core.snapshot import Forwarded

PEER = ("192.0.2.7", 40_000)
OURS = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test\r\n"
CAME = {
    b"x-forwarded-for": b"198.51.100.1",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-host": b"shop.test",
    b"forwarded": b"for=198.51.100.1;proto=https",
    b"accept": b"*/*",
}


def told(
    mode: Forwarded,
    lookup: dict[bytes, bytes],
    peer: tuple[str, int] | None = PEER,
    host: bytes = b"a.test",
    *,
    is_tls: bool = False,
) -> tuple[bool, bytes]:
    """Whether what came is left out, and the lines."""
    drop, lines = forwarded_lines(mode, lookup, peer, is_tls, host)
    assert drop in (frozenset(), FORWARDED)
    return bool(drop), lines


@pytest.mark.parametrize("mode", [Forwarded.SET, Forwarded.APPEND])
def test_a_request_without_these_fields_gets_ours(mode: Forwarded) -> None:
    assert told(mode, {b"accept": b"*/*"}) == (False, OURS)
    assert told(mode, {}, is_tls=True) == (False, OURS.replace(b"http\r\n", b"https\r\n"))


def test_set_replaces_what_came() -> None:
    assert told(Forwarded.SET, CAME) == (True, OURS)


def test_append_goes_on_with_what_came() -> None:
    assert told(Forwarded.APPEND, CAME) == (
        True,
        b"X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n"
        b"Forwarded: for=198.51.100.1;proto=https, for=192.0.2.7;proto=http;host=a.test\r\n",
    )


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (b"x-forwarded-for", b"X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n"),
        (b"x-forwarded-proto", b"X-Forwarded-Proto: https\r\n"),
        (b"x-forwarded-host", b"X-Forwarded-Host: shop.test\r\n"),
    ],
)
def test_append_sets_the_others_where_one_came(name: bytes, line: bytes) -> None:
    expected = [line if ours.lower().startswith(name) else ours for ours in OURS.splitlines(keepends=True)]
    assert told(Forwarded.APPEND, {name: CAME[name]}) == (True, b"".join(expected))


def test_append_writes_forwarded_only_where_it_came() -> None:
    assert (
        b"\r\nForwarded: for=x, for=192.0.2.7;proto=https;host=a.test\r\n"
        in (told(Forwarded.APPEND, {b"forwarded": b"for=x"}, is_tls=True)[1])
    )


def test_keep_changes_nothing() -> None:
    assert told(Forwarded.KEEP, CAME) == (False, b"")
    assert told(Forwarded.KEEP, {}) == (False, b"")


def test_off_leaves_all_out() -> None:
    assert told(Forwarded.OFF, CAME) == (True, b"")
    assert told(Forwarded.OFF, {}) == (False, b"")


@pytest.mark.parametrize("mode", [Forwarded.SET, Forwarded.APPEND, Forwarded.OFF])
@pytest.mark.parametrize("name", sorted(FORWARDED))
def test_no_spelling_of_a_field_passes_beside_ours(name: bytes, mode: Forwarded) -> None:
    """A server that hands fields on as variables takes `X_Forwarded_For` for `X-Forwarded-For`."""
    drop, _ = forwarded_lines(mode, {name: b"evil"}, PEER, False, b"a.test")
    assert name in drop


def test_a_spelling_with_underscores_is_not_believed() -> None:
    assert told(Forwarded.APPEND, {b"x_forwarded_for": b"evil", b"x-forwarded_proto": b"https"}) == (
        True,
        OURS,
    )


@pytest.mark.parametrize(
    ("address", "plain", "node"),
    [
        ("192.0.2.7", b"192.0.2.7", b"192.0.2.7"),
        ("2001:db8::1", b"2001:db8::1", b'"[2001:db8::1]"'),
        ("::1", b"::1", b'"[::1]"'),
        ("fe80::1%eth0", b"fe80::1", b'"[fe80::1]"'),
        ("::ffff:192.0.2.7", b"192.0.2.7", b"192.0.2.7"),
        ("::ffff:7", b"::ffff:7", b'"[::ffff:7]"'),
        (None, b"unknown", b"unknown"),
    ],
)
def test_addresses_are_written_as_each_field_wants(address: str | None, plain: bytes, node: bytes) -> None:
    peer = None if address is None else (address, 1)
    assert told(Forwarded.SET, {}, peer)[1].startswith(b"X-Forwarded-For: %b\r\n" % plain)
    lines = told(Forwarded.APPEND, {b"x-forwarded-for": b"x", b"forwarded": b"for=x"}, peer)[1]
    assert lines.startswith(b"X-Forwarded-For: x, %b\r\n" % plain)
    assert b"\r\nForwarded: for=x, for=%b;proto=http;" % node in lines


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (b"a.test", b"a.test"),
        (b"a.test:8080", b'"a.test:8080"'),
        (b"[::1]:80", b'"[::1]:80"'),
        (b'a"b\\', b'"a\\"b\\\\"'),
    ],
)
def test_a_host_is_quoted_where_it_is_no_token(host: bytes, text: bytes) -> None:
    lines = told(Forwarded.APPEND, {b"forwarded": b"for=x"}, host=host)[1]
    assert lines.endswith(
        b"X-Forwarded-Host: %b\r\nForwarded: for=x, for=192.0.2.7;proto=http;host=%b\r\n" % (host, text)
    )


def test_without_a_host_nothing_is_said_of_it() -> None:
    lines = told(Forwarded.APPEND, {b"forwarded": b"for=x"}, host=b"")[1]
    assert lines == (
        b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nForwarded: for=x, for=192.0.2.7;proto=http\r\n"
    )


@pytest.mark.parametrize("empty", [b"", b" ", b",", b" , ,"])
def test_what_came_empty_is_as_if_it_had_not_come(empty: bytes) -> None:
    assert told(Forwarded.APPEND, {b"x-forwarded-for": empty, b"x-forwarded-host": b""}) == (True, OURS)
    assert told(Forwarded.APPEND, {b"forwarded": empty})[1].endswith(
        b"Forwarded: for=192.0.2.7;proto=http;host=a.test\r\n"
    )


@pytest.mark.parametrize(
    "came",
    [
        b"for=a", b"FOR=a;By=b", b'for="[2001:db8::1]:80"', b"for=192.0.2.1:80", b"for=_x, for=_y;proto=http",
        b'for="a;b,c"', b'for="a\\"b"', b"for=a ; by=b", b"for=a,,by=b;", b"host=a:80", b'secret="\xff"',
    ],
)  # fmt: skip
def test_a_forwarded_that_is_right_is_kept(came: bytes) -> None:
    lines = told(Forwarded.APPEND, {b"forwarded": came})[1]
    assert lines.endswith(b"Forwarded: %b, for=192.0.2.7;proto=http;host=a.test\r\n" % came)


@pytest.mark.parametrize(
    "came",
    [
        b'for="a',
        b'for=a"',
        b"for",
        b"=a",
        b"for=",
        b'for="a"b',
        b'for="a\\"',
        b"a b",
        b"for=a by=b",
        b"\xff=a",
    ],
)
def test_a_forwarded_that_is_malformed_is_dropped(came: bytes) -> None:
    """Behind an open quote our element would be a part of what the client wrote."""
    lines = told(Forwarded.APPEND, {b"forwarded": came})[1]
    assert lines.endswith(b"\r\nForwarded: for=192.0.2.7;proto=http;host=a.test\r\n")


@pytest.mark.parametrize("piece", [b" ", b",", b";", b"a", b'"', b"a=b;", b'a="b",', b'="', b" ,"])
def test_a_long_forwarded_is_read_in_linear_time(piece: bytes) -> None:
    """With a pattern that tries twice at each place this would not end within the test's time limit."""
    came = piece * (1_000_000 // len(piece))
    assert told(Forwarded.APPEND, {b"forwarded": came + b'"'})[1].endswith(
        b"\r\nForwarded: for=192.0.2.7;proto=http;host=a.test\r\n"
    )


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ({b"accept"}, OURS),
        ({b"x-forwarded-proto"}, b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: a.test\r\n"),
        ({b"x-forwarded-for", b"x-forwarded-host"}, b"X-Forwarded-Proto: http\r\n"),
        (FORWARDED, b""),
    ],
)
def test_what_a_route_sets_or_removes_is_not_told(names: frozenset[bytes], left: bytes) -> None:
    assert lines_without(OURS, frozenset(names)) == left
    assert lines_without(b"", frozenset(names)) == b""


VALUES = st.binary(max_size=12).map(lambda value: value.translate(None, b"\r\n\x00").strip(b" \t"))


@given(
    st.sampled_from(Forwarded),
    st.dictionaries(st.sampled_from([*sorted(FORWARDED), b"accept"]), VALUES),
    st.sampled_from([None, PEER, ("::1", 1)]),
    st.booleans(),
    VALUES,
)
def test_whatever_comes_whole_lines_go_on(
    mode: Forwarded, lookup: dict[bytes, bytes], peer: tuple[str, int] | None, is_tls: bool, host: bytes
) -> None:
    drop, lines = forwarded_lines(mode, lookup, peer, is_tls, host)
    keys = [line.partition(b": ")[0].lower() for line in lines.split(b"\r\n")]
    assert keys.pop() == b""
    assert len(set(keys)) == len(keys)
    assert set(keys) <= FORWARDED
    assert drop >= (FORWARDED & set(lookup) if mode is not Forwarded.KEEP else frozenset())
    if mode in (Forwarded.SET, Forwarded.APPEND):
        assert {b"x-forwarded-for", b"x-forwarded-proto"} <= set(keys)
    if mode is Forwarded.SET:
        assert forwarded_lines(mode, {}, peer, is_tls, host)[1] == lines
    if FORWARDED.isdisjoint(lookup):
        assert (drop, lines) == forwarded_lines(mode, {}, peer, is_tls, host)


def test_addresses_that_are_remembered_are_bounded() -> None:
    for number in range(3000):
        assert (
            b": 10.0.%d.%d\r\n" % divmod(number, 256)
            in told(Forwarded.SET, {}, (f"10.0.{number // 256}.{number % 256}", 1))[1]
        )
    assert forwarded._rendered.cache_info().currsize <= 1024
