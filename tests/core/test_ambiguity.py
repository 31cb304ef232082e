"""What of a request can be read in two ways, where a route asks for it."""

from __future__ import annotations

import pytest

from sidecar.core.ambiguity import Watched

WATCHED = Watched([b"x-debug", b"x_own"], [b"beta", b"is-new", b"a.b"])


def problem(*names: bytes, connection: bytes | None = None, query: bytes = b"") -> str:
    return WATCHED.problem([(name, b"", b"") for name in names], connection, query)


@pytest.mark.parametrize(
    "names",
    [
        [b"x-debug", b"x-debug"],
        [b"x_debug"],
        [b"x-debug", b"x_debug"],
        [b"x-own"],
        [b"x_own", b"x_own"],
    ],
)
def test_a_field_in_two_forms(names: list[bytes]) -> None:
    assert "a route asks for the field" in problem(b"host", *names)


@pytest.mark.parametrize(
    "names", [[], [b"x-debug"], [b"x_own"], [b"x-debug", b"x_own"], [b"a", b"a"], [b"a_b"]]
)
def test_a_field_in_one_form_or_that_nobody_asks_for(names: list[bytes]) -> None:
    assert problem(b"host", *names) == ""


@pytest.mark.parametrize(
    ("connection", "is_problem"),
    [
        (b"x-debug", True),
        (b"keep-alive, X-Debug", True),
        (b"x_debug", True),
        (b"close", False),
        (b"x-other", False),
    ],
)
def test_a_field_that_ends_at_this_hop(connection: bytes, is_problem: bool) -> None:
    assert bool(problem(b"x-debug", connection=connection)) is is_problem


@pytest.mark.parametrize(
    "query",
    [
        b"beta=1&beta=2", b"beta=1&beta", b"beta=1&%62eta=1", b"is_new=1", b"is-new=1&is_new=1", b"is.new", b"a_b=1",
        b"beta[]=1", b"beta[0]=1", b"beta%5B%5D=1", b"beta=1;x=2", b"x=2;beta=1", b"x;beta", b"beta=+1", b"beta=1+",
        b"beta=%201", b"beta=1%09", b"+beta=1", b"beta+=1", b"%20beta=1", b"beta%00x=1", b"beta=a+b",
    ],
)  # fmt: skip
def test_a_parameter_that_can_be_read_in_two_ways(query: bytes) -> None:
    assert "a route asks for the parameter" in problem(query=query)


@pytest.mark.parametrize(
    "query",
    [
        b"", b"beta=1", b"beta", b"beta=", b"x=1&x=2", b"beta=1&x;y=+2", b"x[]=1&x[]=2", b"beta=a%2Bb", b"beta=a%20b",
        b"is-new=1&beta=1&a.b=1", b"betamax=1", b"%62eta=1", b"beta=1=2",
    ],
)  # fmt: skip
def test_a_parameter_that_is_clear_or_that_nobody_asks_for(query: bytes) -> None:
    assert problem(query=query) == ""


def test_where_nothing_is_asked_for_nothing_is_looked_at() -> None:
    nothing = Watched([], [])
    assert nothing.problem([(b"a", b"", b"")] * 2, b"a", b"b&b") == ""


def test_the_message_is_short_and_plain() -> None:
    told = WATCHED.problem([], None, b"beta[" + b"\xff" * 999)
    assert len(told) < 500
    assert told.isascii()
