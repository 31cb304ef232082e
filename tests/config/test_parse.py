"""YAML's traps: what words mean, and what is refused without cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.files import MAX_FILE_BYTES
from sidecar.config.problems import Place, Report
from sidecar.config.yaml import parse
from sidecar.config.yaml.nodes import to_data


def parsed(text: str, **environ: str) -> object:
    report = Report()
    node = parse.parse_text(text, "f", environ, report)
    assert report.sorted([]) == []
    assert node is not None
    return to_data(node)


def problems(data: bytes, **environ: str) -> list[tuple[int, int, str]]:
    report = Report()
    parse.parse_bytes(data, "f", environ, report)
    return [(p.line, p.column, p.message) for p in report.sorted([])]


OLD_WORDS = ["on", "off", "yes", "no", "y", "n", "ON", "12:30", "010", "0x1F", "0o7", "1_000", ".nan", ".inf"]


def test_only_plain_numbers_booleans_and_null_are_more_than_words() -> None:
    text = (
        f"a: [{', '.join(OLD_WORDS)}, 2024-01-01, =, 1e999]\n"
        "b: [1, -1, +2, 0, 1.5, .5, 1e3, true, False, null, ~, ]\n"
        "c: ['1', \"true\", '']\n"
        "on: off\n"
        "429: true\n"
    )
    assert parsed(text) == {
        "a": [*OLD_WORDS, "2024-01-01", "=", "1e999"],
        "b": [1, -1, 2, 0, 1.5, 0.5, 1000.0, True, False, None, None],
        "c": ["1", "true", ""],
        "on": "off",
        "429": True,
    }


def test_anchors_aliases_and_merge_keys_work() -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [{x: 9}, *a]}\ne: {'<<': 1}\n"
    assert parsed(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 9, "y": 2},
        "e": {"<<": 1},
    }


def test_nodes_know_their_places() -> None:
    node = parse.parse_text("a:\n  b: [1,\n    2]\n", "f", {}, Report())
    assert node is not None
    entry = node.entry("a", "b")
    assert entry is not None
    assert (entry.key.place, entry.value.place) == (Place("f", 2, 3), Place("f", 2, 6))


def test_variables_are_read_in_values_only() -> None:
    text = "${A}: ${A}\nb: 'x-${A}-${B:-none}'\nc: ${N}\nd: $${A}\ne: ^a$\n"
    text += "f: ${E:-7}\ng: '${E}'\nh: |\n  1 ${A}\n"
    assert parsed(text, A="v", N="12", E="") == {
        "${A}": "v",
        "b": "x-v-none",
        "c": "12",
        "d": "${A}",
        "e": "^a$",
        "f": "7",
        "g": "",
        "h": "1 v\n",
    }


@pytest.mark.parametrize(
    "value", ["{a: 1}", "[1]", "x: y\nz: 1", "*a", "&a b", "# c", "!!int 1", "'", "${A}", "a\n- b"]
)
def test_a_variable_never_becomes_structure(value: str) -> None:
    assert parsed("a: ${A}\nb: ['${A}', 1]\n", A=value) == {"a": value, "b": [value, 1]}


def test_a_bare_variable_in_a_flow_collection_gets_its_quotes_suggested() -> None:
    message = 'inside [ ] and { } a variable needs quotes: "${NAME}"'
    assert problems(b"a: [${A}]\n", A="x") == [(1, 6, message)]


def test_each_missing_variable_is_told_at_its_own_place() -> None:
    hint = "environment variable {0} is not set; set it, or write ${{{0}:-default}}"
    assert problems(b"a: 'x ${A} ${B}'\nb: |\n  line\n  ${C}\n") == [
        (1, 7, hint.format("A")),
        (1, 12, hint.format("B")),
        (4, 3, hint.format("C")),
    ]


def test_a_variable_that_is_not_utf8_is_refused() -> None:
    assert problems(b"a: ${A}\n", A="\udcff") == [(1, 4, "environment variable A is not valid UTF-8")]


def test_bytes_that_are_not_utf8_are_told_with_their_place() -> None:
    assert problems(b"version: 1\na: caf\xe9\n") == [(2, 7, "not UTF-8: byte 0xe9; save the file as UTF-8")]
    assert problems("a: 1".encode("utf-16"))[0][2].startswith("not UTF-8")


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    report = Report()
    node = parse.parse_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", "f", {}, report)
    assert node is not None
    assert to_data(node) == {"a": 1, "b": 2}


def test_a_control_character_is_told_with_its_place() -> None:
    message = "the character U+0000 is not allowed in YAML; write it as an escape in double quotes"
    assert problems(b"a: 1\nb: \x00\n") == [(2, 4, message)]


@pytest.mark.parametrize("text", ["", "\n", "# only this\n", "---\n", "~\n", "null\n"])
def test_an_empty_file_says_so(text: str) -> None:
    assert [message[:17] for _, _, message in problems(text.encode())] == ["the file is empty"]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 1_000_000,
        "a: " + "{a: " * 200_000,
        "".join(" " * n + "a:\n" for n in range(1000)),
        "- " * 100_000,
        "? " * 100_000,
        "x: &a [" + "1," * 9_000 + "]\ny: [" + "*a," * 100_000 + "]\n",
        "a: &a [x,x]\n" + "".join(f"k{n}: &a [*a,*a]\n" for n in range(100)),
    ],
    ids=["flow", "mappings", "blocks", "dashes", "keys", "wide", "laughs"],
)
def test_depth_and_growth_are_refused_at_once(text: str) -> None:
    assert (
        len(problems(text.encode())) == 1
    )  # work that grows as the aliases do would not end in the test's time


def test_a_file_beyond_the_limit_is_not_even_parsed() -> None:
    size = MAX_FILE_BYTES + 1
    assert problems(b"#" * size) == [(1, 1, f"the file has more than {MAX_FILE_BYTES} bytes")]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    report = Report()
    node = parse.parse_text(text, "f", {}, report)
    assert node is not None or report


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    report = Report()
    node = parse.parse_bytes(data, "f", {}, report)
    assert node is not None or report
