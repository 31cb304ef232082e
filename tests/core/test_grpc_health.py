"""The two messages of gRPC's health checking, against protobuf's own library."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import grpc_health
from tests.support.grpc_health import NAMES, REQUEST, RESPONSE


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


@given(st.text(max_size=300))
def test_a_question_is_what_protobuf_makes_of_it(service: str) -> None:
    service = service.encode("utf-8", "ignore").decode()
    assert grpc_health.question(service) == framed(REQUEST(service=service).SerializeToString())


@pytest.mark.parametrize("state", range(len(NAMES)))
def test_an_answer_is_what_protobuf_reads_in_it(state: int) -> None:
    assert grpc_health.answer(framed(RESPONSE(status=state).SerializeToString())) == state
    assert grpc_health.STATES[state] == NAMES[state]


def test_fields_that_are_not_known_are_passed_over() -> None:
    more = b"\x12\x03abc" + b"\x1d\x01\x02\x03\x04" + b"\x21" + bytes(8) + b"\x28\x96\x01"
    assert grpc_health.answer(framed(more + b"\x08\x01")) == 1
    assert RESPONSE.FromString(more + b"\x08\x01").status == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no message came"),
        (b"\0\0\0\0", "no message came"),
        (framed(b"\x08\x01", flag=1), "the message is compressed, which was not asked for"),
        (framed(b"\x08\x01")[:-1], "the message is cut short, or more than one came"),
        (framed(b"\x08\x01") * 2, "the message is cut short, or more than one came"),
        (framed(b"\x08"), "the message is no protobuf"),
        (framed(b"\x12\x09abc"), "the message is no protobuf"),
        (framed(b"\x0b"), "the message is no protobuf"),
        (framed(b"\x08" + b"\xff" * 11), "the message is no protobuf"),
    ],
)
def test_what_is_no_answer_is_told_as_such(body: bytes, why: str) -> None:
    with pytest.raises(grpc_health.NoHealth, match=why):
        grpc_health.answer(body)


@given(st.binary(max_size=64))
def test_whatever_comes_is_an_answer_or_none(body: bytes) -> None:
    with contextlib.suppress(grpc_health.NoHealth):
        assert grpc_health.answer(body) >= 0
