"""`sidecar check --strict`: routes that are never reached or match nothing, upstreams that nobody uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.config.load import load_text, strict
from sidecar.core import conditions

TOP = 'version: 1\nupstreams: {u: {endpoints: ["u:80"]}}\nroutes:\n'


def told(*matches: str) -> list[tuple[int, str]]:
    """The route, counted from 0, and the warning, of routes with these matches."""
    routes = "".join(f"- {{name: r{at}, upstream: u{one}}}\n" for at, one in enumerate(matches))
    found = load_text(TOP + routes, is_strict=True).warnings
    return [(one.line - 4, one.message) for one in found]


def match(text: str, more: str = "") -> str:
    return f", match: {text}{more}"


def never(by: int) -> str:
    return f"warning: never reached: route 'r{by}' takes every request that this would match"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", ""),
        (match("{hosts: [a]}"), match("{hosts: [a]}")),
        (match("{hosts: [a, b]}"), match("{hosts: [b]}")),
        (match("{path: {prefix: /}}"), ""),
        (match("{path: {prefix: /v1}}"), match("{path: {prefix: /v1/}}")),
        (match("{path: {exact: /v1}}"), match("{path: {exact: /v1}}")),
        (match("{path: {prefix: /v1}}"), match("{path: {regex: '/v1/users/[0-9]+'}}")),
        (match("{path: {regex: '/v[0-9]'}}"), match("{path: {regex: '/v[0-9]'}}")),
        (match("{methods: [GET, POST]}"), match("{methods: [POST]}")),
        (match("{headers: {a: x}}"), match("{headers: {a: x}}")),
        (
            match("{headers: {a: {regex: x+}}, query: {q: y}}"),
            match("{query: {q: y}, headers: {a: {regex: x+}}}"),
        ),
        (match("{grpc: {service: pkg.A}}"), match("{grpc: {service: pkg.A}}")),
        (match("[{hosts: [a]}, {hosts: [b]}]"), match("{hosts: [a, b]}")),
        (match("{hosts: [a:8080]}"), match("{hosts: [a], port: 8080}")),
        (match("{port: 8080}"), match("{port: 8080}")),
    ],
)
def test_a_route_behind_one_that_takes_everything_is_shadowed(first: str, second: str) -> None:
    assert told(first, second) == [(1, never(0))]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", match("{hosts: [a]}")),
        ("", match("{port: 8080}")),
        (match("{hosts: [a:8080]}"), match("{hosts: [a]}")),
        (match("{hosts: [a:8080]}"), match("{hosts: [a:9090]}")),
        (match("{port: 8080}"), match("{port: 9090}")),
        (match("{hosts: ['*.b']}"), match("{hosts: [a.b]}")),
        (match("{hosts: [a]}"), match("{hosts: [a, b]}")),
        (match("{path: {prefix: /v1}}"), match("{path: {exact: /v1}}")),
        (match("{path: {prefix: /v1}}"), match("{path: {prefix: /v1/a}}")),
        (match("{path: {prefix: /v1/a}}"), match("{path: {prefix: /v1}}")),
        (match("{path: {prefix: /v1}}"), match("{path: {regex: '/v1[0-9]/x'}}")),
        (match("{path: {prefix: /v1}}"), match("{path: {regex: '/v1/a|/v2/a'}}")),
        (match("{path: {prefix: /v1/ab}}"), match("{path: {regex: '/v1/ab?/c'}}")),
        (match("{path: {prefix: /v1}, methods: [GET]}"), match("{path: {regex: '/v1/.*'}}")),
        (match("{methods: [GET]}"), match("{methods: [GET, POST]}")),
        (match("{methods: [GET]}"), ""),
        (match("{methods: [GET, POST]}"), match("{methods: [GET], headers: {a: x}}")),
        (match("{headers: {a: x}}"), match("{headers: {a: y}}")),
        (match("{headers: {a: x}}"), match("{query: {a: x}}")),
        ("", match("{headers: {a: x}}")),
        ("", ", listener: outbound"),
        (match("{grpc: {}}"), ""),
    ],
)
def test_a_route_with_something_left_is_not(first: str, second: str) -> None:
    assert told(first, second) == []


def test_the_order_of_the_file_counts_between_equals_alone() -> None:
    assert told(match("{methods: [POST]}"), match("{methods: [GET, POST]}")) == []
    assert told(match("{hosts: [a]}"), "", match("{hosts: [a]}")) == [(2, never(0))]


def test_a_match_of_the_same_route_is_said_so() -> None:
    (found,) = told(match("[{hosts: [a]}, {hosts: [a], path: {prefix: /}}]"))
    assert found == (
        0,
        "warning: never reached: another match of the route itself takes every request that this would match",
    )


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        ("{methods: [get]}", "methods are written in upper case, and get is another one than GET"),
        ("{grpc: {service: pkg.A}, methods: [GET]}", "every gRPC call is a POST"),
        ("{path: {regex: 'v1/.*'}}", "every path begins with a slash, and this expression with 'v'"),
        (
            "{grpc: {}, headers: {content-type: application/json}}",
            "content-type of every gRPC call begins with",
        ),
    ],
)
def test_a_match_that_nothing_can_meet_is_told(one: str, reason: str) -> None:
    ((line, message),) = told(match(one))
    assert line == 0
    assert message.startswith("warning: no request matches: ")
    assert reason in message


@pytest.mark.parametrize(
    "one",
    [
        "{methods: [get, GET]}",
        "{methods: [PROPFIND]}",
        "{path: {regex: '.*/x'}}",
        "{path: {regex: '(/a|/b)'}}",
        "{grpc: {}, methods: [POST]}",
    ],
)
def test_a_match_that_something_can_meet_is_not(one: str) -> None:
    assert told(match(one)) == []


def test_an_upstream_that_nobody_names_is_told() -> None:
    upstreams = (
        "{a: {endpoints: ['a:1']}, b: {endpoints: ['b:1']}, c: {endpoints: ['c:1']}, d: {endpoints: ['d:1']}}"
    )
    routes = "[{name: r, weights: {a: 1, b: 0}, fallback: {upstream: c}}]"
    text = f"version: 1\nupstreams: {upstreams}\nroutes: {routes}\n"
    (found,) = load_text(text, is_strict=True).warnings
    assert (found.message, found.column) == (
        "warning: no route uses this upstream",
        text.splitlines()[1].index("d: ") + 1,
    )
    assert load_text(text).warnings == ()


def test_a_thousand_routes_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    takes = strict._takes_all_of

    def counted(one: conditions.Entry[None], other: conditions.Entry[None]) -> bool:
        nonlocal compared
        compared += 1
        return takes(one, other)

    monkeypatch.setattr(strict, "_takes_all_of", counted)
    count = 300
    assert told(
        *(match(f"{{path: {{prefix: /p{at}}}}}") for at in range(count)), match("{path: {prefix: /p7}}")
    ) == [(count, never(7))]
    assert compared <= count


@pytest.mark.parametrize("routes", ["routes: []\n", "routes:\n  []\n"])
def test_no_route_at_all_is_warned_of_in_any_case(routes: str) -> None:
    (found,) = load_text(f"version: 1\n{routes}").warnings
    assert "no route takes a request" in found.message


def test_strict_is_exit_1_for_a_warning_and_2_for_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, odd, bad = (tmp_path / f"{name}.yaml" for name in ("good", "odd", "bad"))
    good.write_text(f"{TOP}- {{name: a, upstream: u}}\n")
    odd.write_text(f"{TOP}- {{name: a, upstream: u}}\n- {{name: b, upstream: u}}\n")
    bad.write_text("version: 2\n")
    assert [main(["check", str(file)]) for file in (good, odd, bad)] == [0, 0, 2]
    assert "never reached" not in capsys.readouterr().err
    assert [main(["check", "--strict", str(file)]) for file in (good, odd, bad)] == [0, 1, 2]
    assert "odd.yaml:5:" in capsys.readouterr().err


def test_routes_that_differ_in_a_field_or_a_parameter_are_not_compared_in_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []
    made = strict._takes_all_of

    def counted(one: conditions.Entry[None], other: conditions.Entry[None]) -> bool:
        compared.append(1)
        return made(one, other)

    monkeypatch.setattr(strict, "_takes_all_of", counted)
    assert told(*(match(f"{{headers: {{x-tenant: t{n}}}, query: {{a: b}}}}") for n in range(300))) == []
    assert told(*(match(f"{{query: {{q: '{n}'}}}}") for n in range(300))) == []
    assert len(compared) < 1000


def test_the_one_that_is_looked_at_first_is_named() -> None:
    both = match("{headers: {a: x, b: y}, query: {q: '1'}}")
    assert told(match("{headers: {b: y}, query: {q: '1'}}"), match("{headers: {a: x}}"), both) == []
    first = match("{headers: {a: x, b: y}, query: {q: '1'}, methods: [GET]}")
    assert told(both, first, both) == [(2, never(0))]
    assert told(match("{headers: {b: y, a: x}, query: {q: '1'}}"), both) == [(1, never(0))]
