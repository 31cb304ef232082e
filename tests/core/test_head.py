"""What a hop adds to a head is the same, whether a codec writes it as lines or as pairs."""

from __future__ import annotations

import pytest

from sidecar.core.head import Added, Own, own_answer, own_pairs


@pytest.mark.parametrize(
    ("own", "pairs"),
    [
        ([], []),
        ([b"a: b\r\n"], [(b"a", b"b")]),
        ([b"X-Request-Id: ", b"7", b"\r\n"], [(b"x-request-id", b"7")]),
        ([b"a: ", b"1", b"\r\nb: 2\r\n", b"c: ", b"3", b"\r\n"], [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]),
        ([b"a: \r\n"], [(b"a", b"")]),
        ([b'Proxy-Status: sidecar; details="x: y"\r\n'], [(b"proxy-status", b'sidecar; details="x: y"')]),
        ([b"a: 1\r\na: 2\r\n"], [(b"a", b"1"), (b"a", b"2")]),
    ],
    ids=["none", "one", "pieces", "pieces across lines", "empty", "colons in a value", "twice"],
)
def test_own_pieces_become_pairs_in_order(own: Own, pairs: list[tuple[bytes, bytes]]) -> None:
    assert own_pairs(own) == pairs


def test_what_a_route_adds_is_made_once_in_both_forms() -> None:
    added = Added((name, b"1") for name in (b"Via", b"x-a"))
    assert (added.pairs, added.lines) == (((b"via", b"1"), (b"x-a", b"1")), b"Via: 1\r\nx-a: 1\r\n")


def test_an_own_answer_leaves_nothing_out_and_adds_nothing_but_its_own() -> None:
    head = own_answer(503, [b"A: b\r\n"], 5)
    assert (head.status, head.fields, head.length, head.own) == (503, [], 5, [b"A: b\r\n"])
    assert (head.drop, head.added.pairs, head.has_own_date) == (frozenset(), (), False)
