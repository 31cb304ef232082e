"""How many hops further OPTIONS and TRACE go (RFC 9110 7.6.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.max_forwards import ENDS_HERE, MAX_FORWARDS, after_hop, echo


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"0", ENDS_HERE), (b"00", ENDS_HERE), (b"1", 0), (b"2", 1), (b"0010", 9), (b"1000000", 999_999),
        (b"1000001", MAX_FORWARDS), (b"9999999", MAX_FORWARDS), (b"1" * 5000, MAX_FORWARDS), (b"0" * 5000 + b"2", 1),
        (b"3, 2", 1), (b"2,3", 1), (b"5 ,\t0", ENDS_HERE),
    ],
)  # fmt: skip
def test_one_hop_less_is_left(method: bytes, value: bytes, left: int) -> None:
    assert after_hop(method, value) == left


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"-1",
        b"+1",
        b"1.0",
        b"0x1",
        b"1_0",
        b"one",
        b"1,",
        b",",
        b"1,x",
        b"1 2",
        "\u0661".encode(),
        b"\xb2",
    ],
)
def test_what_is_no_number_means_nothing(value: bytes) -> None:
    assert after_hop(b"OPTIONS", value) is None


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"options", b"TRACER"])
def test_other_methods_go_on_as_they_are(method: bytes) -> None:
    assert after_hop(method, b"0") is None


@given(st.lists(st.integers(0, 10**30), min_size=1, max_size=3))
def test_a_request_goes_at_most_as_far_as_its_smallest_number(numbers: list[int]) -> None:
    left = after_hop(b"TRACE", b", ".join(b"%d" % number for number in numbers))
    assert left == min(min(numbers) - 1, MAX_FORWARDS)


def test_trace_gets_its_own_head() -> None:
    fields = [
        (b"host", b"Host: a\r\n", b"a"),
        (b"via", b"Via: 1.1 b\r\n", b"1.1 b"),
        (b"max-forwards", b"Max-Forwards: 0\r\n", b"0"),
    ]
    assert (
        echo(b"TRACE", b"/x?y", fields)
        == b"TRACE /x?y HTTP/1.1\r\nHost: a\r\nVia: 1.1 b\r\nMax-Forwards: 0\r\n\r\n"
    )
    assert echo(b"TRACE", b"*", []) == b"TRACE * HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("name", [b"Authorization", b"Proxy-Authorization", b"Cookie", b"X-Api-Key"])
def test_trace_tells_no_secret(name: bytes) -> None:
    fields = [(b"host", b"Host: a\r\n", b"a"), (name.lower(), name + b": secret-4711\r\n", b"secret-4711")]
    assert echo(b"TRACE", b"/", fields) == b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"
