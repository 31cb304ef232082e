"""Dates of header fields, against the standard library and at their edges."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http_date import http_date, seconds_of

MOMENT = 784111777.0
"""RFC 9110's own example."""


@pytest.mark.parametrize(
    "value",
    [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"],
)
def test_all_three_forms_are_read(value: bytes) -> None:
    assert seconds_of(value) == MOMENT


@given(st.integers(0, 253_402_300_799))
def test_what_is_written_is_as_the_standard_library_writes_it_and_is_read_back(second: int) -> None:
    written = http_date(second + 0.9)
    assert written == formatdate(second, usegmt=True)
    assert seconds_of(written.encode()) == second


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"120",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Foo 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun Nov    08:49:37 1994",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 19945 08:49:37 GMT",
    ],
)
def test_anything_else_is_no_date(value: bytes) -> None:
    assert seconds_of(value) is None


def test_a_leap_second_is_the_last_of_its_minute() -> None:
    assert seconds_of(b"Sat, 31 Dec 2016 23:59:60 GMT") == seconds_of(b"Sat, 31 Dec 2016 23:59:59 GMT")


@given(st.binary(max_size=64))
def test_no_bytes_raise(value: bytes) -> None:
    assert seconds_of(value) is None
