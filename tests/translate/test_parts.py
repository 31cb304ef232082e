"""The parts of `sidecar import`: what is written, what is compared, and what a user of the command is told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.config.problems import Report
from sidecar.config.yaml.nodes import to_data
from sidecar.config.yaml.parse import parse_text
from sidecar.core.routing import RoutingTable
from sidecar.translate.draft import full_name, service_hosts
from sidecar.translate.render import flow
from sidecar.translate.source import SourceError, documents
from sidecar.translate.translate import translate

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
trees = st.recursive(
    texts | st.booleans() | st.integers(-1000, 1000),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc:-$ ", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(trees)
@example("on")
@example("${A} $${B}")
@example("1.5")
@example("*")
@example("é\x85\u2028")
@example("10m")
@example("\u202egpj\U000e0001")
def test_what_is_written_is_read_as_what_was_meant(value: object) -> None:
    report = Report()
    node = parse_text(f"key: {flow(value)}\n", "f", {}, report)
    assert not report
    assert node is not None
    assert to_data(node) == {"key": value}


@pytest.mark.parametrize(
    ("host", "namespace", "hosts"),
    [
        ("reviews", "books", ["reviews", "reviews.books", "reviews.books.svc", "reviews.books.svc.cluster.local"]),
        ("reviews.books.svc.cluster.local", "other",
         ["reviews", "reviews.books", "reviews.books.svc", "reviews.books.svc.cluster.local"]),
        ("reviews", "", ["reviews"]),
        ("www.example.com", "books", ["www.example.com"]),
        ("*.example.com", "books", ["*.example.com"]),
        ("*", "books", ["*"]),
    ],
)  # fmt: skip
def test_a_service_has_the_names_that_callers_write(host: str, namespace: str, hosts: list[str]) -> None:
    assert service_hosts(host, namespace) == hosts


def test_a_service_is_one_however_it_is_written() -> None:
    assert {
        full_name(host, "books")
        for host in ("reviews", "reviews.books", "reviews.books.svc", "Reviews.books.svc.cluster.local")
    } == {"reviews.books"}


def virtual_service(*rules: str) -> str:
    top = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n"
    head = f"{top}spec:\n  hosts: [a.example]\n  http:\n"
    return head + "".join(f"  - {rule}\n" for rule in rules)


TO = "route: [{destination: {host: b.example, port: {number: 80}}}]"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("", "{exact: /a}", "left out"),
        ("uri: {prefix: /}", "{exact: /a}", "left out"),
        ("headers: {x: {exact: a}}", "{exact: /a}", "more specific"),
        ("uri: {regex: /a.*}", "{exact: /ab}", "more specific"),
        ("uri: {exact: /b}", "{exact: /a}", None),
        ("uri: {exact: /a}", "{regex: /.*}", None),
        ("method: {exact: GET}, uri: {exact: /a}", "{exact: /a}", None),
    ],
)
def test_where_the_first_rule_and_the_most_specific_one_differ_is_told(
    first: str, second: str, told: str | None
) -> None:
    one = f"{{match: [{{{first}}}], {TO}}}" if first else f"{{{TO}}}"
    text, losses = translate(
        [("f", virtual_service(one, f"{{match: [{{uri: {second}}}], {TO}}}"))], "outbound"
    )
    of_order = [loss for loss in losses if "stands before" in loss.why or "more specific" in loss.why]
    assert [told in loss.why for loss in of_order if told] == ([] if told is None else [True])
    assert len(of_order) == int(told is not None)
    assert text.count("- name:") == (1 if told == "left out" else 2)


@pytest.mark.parametrize(
    ("host", "path", "method", "fields", "query", "route"),
    [
        (
            b"shop.example.com",
            b"/api/x",
            b"GET",
            {b"x-tenant": b"gold", b"x-build": b"v1"},
            b"beta=1",
            "shop-0",
        ),
        (
            b"shop.example.com",
            b"/api/x",
            b"POST",
            {b"x-tenant": b"gold", b"x-build": b"v1"},
            b"beta=1",
            "shop-4",
        ),
        (b"a.shop.example.com", b"/status", b"GET", {}, b"", "shop-0"),
        (b"shop.example.com", b"/status/x", b"GET", {}, b"", "shop-4"),
        (b"shop.example.com", b"/old/x", b"GET", {}, b"", "shop-1"),
        (b"shop.example.com", b"/older", b"GET", {}, b"", "shop-4"),
        (b"shop.example.com", b"/static", b"GET", {}, b"", "shop-2"),
        (b"shop.example.com", b"/nothing/x", b"GET", {}, b"", "shop-empty"),
        (b"example.com", b"/", b"GET", {}, b"", None),
    ],
)
def test_requests_go_where_the_source_sends_them(
    host: bytes, path: bytes, method: bytes, fields: dict[bytes, bytes], query: bytes, route: str | None
) -> None:
    source = Path(__file__).parent / "cases" / "gateway-shop.yaml"
    text, _ = translate([(source.name, source.read_text())], "outbound")
    routes = load_text(text).snapshot.routes
    table = RoutingTable([(one, one.name) for one in routes])
    assert table.find(host, path, method, fields, query) == route


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "f: no YAML"),
        ("a: &a 1\nb: *a\n", "f:2: anchors and aliases are not read"),
        ("[" * 100 + "]" * 100, "f:1: nested too deeply"),
        ("kind: Service\n", "f: nothing to import: known are HTTPRoute"),
        ("", "f: nothing to import"),
        (
            virtual_service("{timeout: soon, " + TO + "}"),
            "f:7: spec.http[0].timeout: 'soon' is not a duration",
        ),
        (virtual_service("{timeout: [], " + TO + "}"), "f:7: spec.http[0].timeout: expected text"),
        (
            virtual_service("{retries: {attempts: inf}, " + TO + "}"),
            "f:7: spec.http[0].retries.attempts: expected a whole number, got 'inf'",
        ),
        (
            virtual_service("{route: [{destination: {host: b}, weight: 0.5}]}"),
            "f:7: spec.http[0].route[0].weight: expected a whole number, got '0.5'",
        ),
        (
            "resilience4j: {retry: {instances: {a: {maxAttempts: nan}}}}",
            "f:1: resilience4j.retry.instances.a.maxAttempts: expected a whole number, got 'nan'",
        ),
        (
            "resilience4j: {circuitbreaker: {instances: {a: {failureRateThreshold: nan}}}}",
            "f:1: resilience4j.circuitbreaker.instances.a.failureRateThreshold: expected a number, got 'nan'",
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, why: str) -> None:
    with pytest.raises(SourceError) as caught:
        translate([("f", text)], "outbound")
    assert str(caught.value).startswith(why)


def test_a_file_may_be_too_long() -> None:
    with pytest.raises(SourceError, match="longer than"):
        documents("#" * (8 * 1024 * 1024 + 1), "f")


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("{retries: {attempts: 2, retryOn: '5xx,²'}, " + TO + "}", "on: ['5xx']"),
        ("{redirect: {authority: 'b.example:²'}}", None),
        ("{redirect: {authority: 'b.example:8443'}}", "port: 8443"),
    ],
)
def test_digits_of_other_scripts_are_no_numbers(rule: str, kept: str | None) -> None:
    text, losses = translate([("f", virtual_service(rule))], "outbound")
    load_text(text)
    assert (kept or "routes: []").replace("'", '"') in text
    assert [loss.line for loss in losses if "²" in loss.why] == ([7] if "²" in rule else [])


def test_a_duration_of_any_length_is_read_or_left_out_with_the_reason() -> None:
    wait = f"resilience4j: {{retry: {{instances: {{a: {{waitDuration: {'9' * 5000}}}}}}}}}"
    text, losses = translate([("f", wait)], "outbound")
    load_text(text)
    assert "routes: []" in text
    assert [loss.line for loss in losses if "would be refused" in loss.why] == [1]


def test_a_mirror_of_no_parts_is_told() -> None:
    route = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  rules:\n"
        "  - backendRefs: [{name: b, port: 80}]\n"
        "    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 80}, "
        "fraction: {numerator: 1, denominator: 0}}}]\n"
    )
    text, losses = translate([("f", route)], "outbound")
    load_text(text)
    assert "mirror:" not in text
    assert [loss.line for loss in losses if "denominator" in loss.why] == [7]


def test_what_would_be_refused_is_left_out_with_the_reason() -> None:
    rules = "{match: [{uri: {regex: '(?=a)'}}], " + TO + "}", "{" + TO + "}"
    text, losses = translate([("f", virtual_service(*rules))], "outbound")
    load_text(text)
    (loss,) = [one for one in losses if "would be refused" in one.why]
    assert loss.changes_reach
    assert loss.place == "f:7"
    assert text.count("- name:") == 1


def test_the_command_reads_stdin_and_names_the_listener(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(virtual_service("{" + TO + "}")))
    assert main(["import", "--listener", "inbound", "-"]) == 0
    shown = capsys.readouterr()
    assert "  listener: inbound\n" in shown.out
    assert shown.err == ""


def test_another_listener_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["import", "--listener", "edge", "f.yaml"])
    assert caught.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_a_file_that_is_not_there_or_no_text_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = tmp_path / "f.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert main(["import", str(tmp_path / "none.yaml")]) == 2
    assert main(["import", str(binary)]) == 2
    assert capsys.readouterr().err.count("cannot read") == 2


def test_several_files_are_one_result() -> None:
    here = Path(__file__).parent / "cases"
    files = [(path.name, path.read_text()) for path in sorted(here.iterdir())]
    text, _ = translate(files, "outbound")
    single = sum(translate([file], "outbound")[0].count("- name:") for file in files)
    assert text.count("- name:") == single
    load_text(text)


def test_what_a_file_says_moves_no_cursor_and_begins_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest may be a stranger's: what is quoted of it stands in one line, and nothing of it is hidden."""
    file = tmp_path / "routes.yaml"
    name = r"x\n\u001b[2J\u202eend"
    file.write_text(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  rules:\n"
        f'  - {{matches: [{{path: {{value: "/{name[-9:]}"}}}}], filters: [{{type: "{name}"}}]}}\n'
    )
    assert main(["import", str(file)]) == 1
    out, err = capsys.readouterr()
    assert 'path: {prefix: "/\\u202eend"}' in out
    assert err == (
        f"{file}:6: spec.rules[0].filters[0]: filter x  [2J end is not known here: the rule answers 500"
        " (other requests are served than before)\n"
    )
    file.write_text(f'"{name}": [')
    assert main(["import", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
