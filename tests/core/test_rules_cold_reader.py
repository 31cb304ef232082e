"""A reader that has learned reads every head as one that has learned nothing: the two are held against each other."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.core import plain
from sidecar.core.contract import IS_COMPILED

MANY = plain.MAX_LINES_OF_A_NAME + 6
NAMES = (
    b"Cookie", b"cookie", b"Date", b"ETag", b"X-A", b"Host", b"Content-Length", b"Connection", b"Expect",
    b"Set-Cookie", b"Transfer-Encoding", b"traceparent",
)  # fmt: skip


def cold() -> Any:
    """The module anew, from its source, with nothing in any of its memories, whatever they are."""
    assert plain.__file__ is not None
    spec = importlib.util.spec_from_file_location("cold_plain", Path(plain.__file__).with_name("plain.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def learner() -> Any:
    """Who is to learn. There is but one compiled module: what it has learned before stays."""
    return plain if IS_COMPILED else cold()


NAME = st.sampled_from(NAMES)
COUNT = st.sampled_from([1, MANY])
LESSONS = st.lists(st.tuples(NAME, COUNT), max_size=4)
"""Names, and how many different lines of each were seen before."""
VALUES = st.sampled_from(
    [b"", b"1", b"3", b"03", b"a=b", b" a ", b"\t", b"a:b", b": ", b"keep-alive", b"close", b"chunked"]
)
AFTER_NAME = st.sampled_from(
    [b":", b": ", b"", b" ", b" :", b"\t:", b":\t", b"=", b";", b": : ", b"::", b"\0:"]
)
NOISE = st.binary(max_size=4)
LINES = (
    st.builds(lambda *parts: b"".join(parts), NAME, AFTER_NAME, VALUES, NOISE)
    | st.builds(lambda *parts: b"".join(parts), NOISE, NAME, AFTER_NAME, VALUES)
    | st.builds(lambda name, noise: name + noise, NAME, NOISE)
    | st.binary(max_size=8)
)
HEADS = st.lists(LINES, max_size=4)


def request(lines: list[bytes]) -> bytes:
    return b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def response(lines: list[bytes], first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return first + b"\r\nContent-Length: 2\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\nok"


def learned(lessons: list[tuple[bytes, int]]) -> Any:
    """A reader that has seen these lines, in requests and in responses."""
    module = learner()
    for name, count in lessons:
        for number in range(count):
            line = name + b": %d" % number
            module.read_request(request([line]))
            module.read_response(response([line]))
    return module


@given(LESSONS, HEADS)
@example([(b"Cookie", 1)], [b"Cookie"])
@example([(b"X-A", MANY)], [b"X-A"])
@example([(b"X-A", MANY)], [b"X-A: a", b"X-A"])
@example([(b"Content-Length", MANY)], [b"Content-Length: -3"])
@example([(b"Host", 1)], [b"Host : 0"])
@settings(deadline=None)
def test_a_request_is_read_the_same_whatever_was_learned(
    lessons: list[tuple[bytes, int]], lines: list[bytes]
) -> None:
    data, reader = request(lines), learned(lessons)
    expected = cold().read_request(data)
    assert [reader.read_request(data) for _ in range(3)] == [expected] * 3


@given(LESSONS, HEADS)
@example([(b"Set-Cookie", 1)], [b"Set-Cookie"])
@example([(b"X-A", MANY)], [b"X-A"])
@example([(b"ETag", 1)], [b"ETag: a", b"ETag"])
@settings(deadline=None)
def test_a_response_is_read_the_same_whatever_was_learned(
    lessons: list[tuple[bytes, int]], lines: list[bytes]
) -> None:
    data, reader = response(lines), learned(lessons)
    expected = cold().read_response(data)
    assert [reader.read_response(data) for _ in range(3)] == [expected] * 3


STATUS_PARTS = st.sampled_from([
    b"HTTP/1.1", b"HTTP/1.0", b"http/1.1", b" ", b"  ", b"\t", b"200", b"204", b"304", b"100",
    b"99", b"2000", b"20x", b"OK", b"\0", b"\xe4", b"\r",
])  # fmt: skip


@given(st.lists(st.lists(STATUS_PARTS, max_size=5).map(b"".join), max_size=6))
@example([b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 O\0K"])
@settings(deadline=None)
def test_a_status_line_is_read_the_same_whatever_was_learned(firsts: list[bytes]) -> None:
    reader = learner()
    for first in [*firsts, *firsts]:
        data = response([], first)
        assert reader.read_response(data) == cold().read_response(data)


@given(HEADS, HEADS)
@settings(deadline=None)
def test_what_could_not_be_read_teaches_nothing(before: list[bytes], lines: list[bytes]) -> None:
    reader = learner()
    reader.read_request(request(before))
    reader.read_response(response(before))
    assert reader.read_request(request(lines)) == cold().read_request(request(lines))
    assert reader.read_response(response(lines)) == cold().read_response(response(lines))


@given(
    HEADS,
    HEADS,
    st.lists(st.sampled_from([b"traceparent: 1", b"traceparent: 1 ", b"traceparent:1"]), max_size=2),
)
@example([b"X-A: 1"], [b"X-B: 2"], [b"traceparent: 1 "])
@example([b"X-A: 1"], [b"X-A: 2"], [b"traceparent: 1"])
@example([b"X-A: 1"], [b"", b"X-B: 2"], [b"traceparent: 1"])
@example([b"traceparent: 1"], [], [b"traceparent: 1"])
@settings(deadline=None)
def test_a_head_whose_beginning_was_seen_is_read_the_same(
    before: list[bytes], behind: list[bytes], between: list[bytes]
) -> None:
    reader = learner()
    for number in range(3):
        reader.read_request(request([*before, b"traceparent: %d" % number]))
    data = request([*before, *between, *behind])
    expected = cold().read_request(data)
    assert [reader.read_request(data) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_is_no_line_however_well_it_is_known(name: bytes) -> None:
    reader = learned([(name, MANY)])
    assert reader.read_request(request([name])) is None
    assert reader.read_response(response([name])) is None
