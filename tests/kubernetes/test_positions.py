"""Two parsers, one tree; and how often a text is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as of_hypothesis

from sidecar.kubernetes import positions
from sidecar.kubernetes.inject import inject, uninject
from sidecar.kubernetes.positions import ManifestError, Mapping, Node, Scalar, Sequence, parse
from tests.kubernetes.corpus import MANIFESTS, SETTINGS, read
from tests.kubernetes.generated import manifests
from tests.kubernetes.test_odd import INJECTED, NOT_OURS

pytestmark = pytest.mark.skipif(positions._LIBYAML is None, reason="PyYAML without libyaml")
TEXTS = [*(read(path) for path in MANIFESTS), *INJECTED.values(), *NOT_OURS.values()]
MANY = 40


def tree(node: Node | None) -> Any:
    """All that is known of a node and of those in it."""
    if node is None:
        return None
    place = (type(node), node.start, node.end, node.line, node.is_flow, node.anchor)
    if isinstance(node, Scalar):
        return place, node.value, node.is_plain, node.tag
    if isinstance(node, Mapping):
        return place, [(tree(entry.key), tree(entry.value)) for entry in node.entries]
    return place, [tree(item) for item in node.items] if isinstance(node, Sequence) else None


def trees(text: str) -> Any:
    return [tree(document.root) for document in parse(text.removeprefix("\ufeff"), "x")]


def trees_in_python(text: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "_LIBYAML", None)
        return trees(text)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_both_parsers_give_the_same_tree(text: str) -> None:
    assert trees(text) == trees_in_python(text)


@given(manifests())
@of_hypothesis(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_both_parsers_give_the_same_tree_of_any_style(text: str) -> None:
    assert trees(text) == trees_in_python(text)


@pytest.mark.parametrize("odd", ["\x85", "\u2028", "\u2029", "\ufeff"])
def test_what_libyaml_counts_differently_is_read_in_python(odd: str) -> None:
    text = f"a: 'x{odd}y'\nb: {{c: 1}}\n"
    assert trees(text) == trees_in_python(text)


@pytest.mark.parametrize("text", ["a: 1\n---\nb: [\n", "a: *none\n", "a: 1\na: 2\n", "a: \0", "a: \ud800\n"])
def test_both_parsers_refuse_with_the_same_words(text: str) -> None:
    with pytest.raises(ManifestError) as fast:
        trees(text)
    with pytest.raises(ManifestError) as slow:
        trees_in_python(text)
    assert str(fast.value) == str(slow.value)


def test_a_large_file_is_read_once_before_and_once_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """The input, and the output to see that it can be undone: no third time, and never in Python."""
    some = [read(path) for path in MANIFESTS if path.stem in ("statefulset", "cronjob")]
    text = "".join(f"---\n{one}" for one in some * MANY)
    read_texts = []
    loader = positions._LIBYAML

    def told(text: str) -> Any:
        read_texts.append(text)
        return loader(text)

    def never(text: str) -> Any:
        raise AssertionError("read in Python")

    monkeypatch.setattr(positions, "_LIBYAML", told)
    monkeypatch.setattr(positions, "events_in_python", never)
    injected = inject(text, "x", SETTINGS, rewrite_services=True).text
    assert read_texts == [text, injected]
    assert uninject(injected, "x").text == text


def left_out(whole: Node | None, closed: Node | None) -> int:
    """How many items the second tree does not look into. All else has to be the same, and in the same place."""
    assert (type(whole), whole and (whole.start, whole.end)) == (
        type(closed),
        closed and (closed.start, closed.end),
    )
    if isinstance(whole, Mapping) and isinstance(closed, Mapping):
        if len(whole.entries) > len(closed.entries):
            assert (len(closed.entries), closed.said("name")) == (1, "sidecar")
            return 1
        pairs = zip(whole.entries, closed.entries, strict=True)
        return sum(left_out(one.value, other.value) for one, other in pairs)
    if isinstance(whole, Sequence) and isinstance(closed, Sequence):
        return sum(left_out(one, other) for one, other in zip(whole.items, closed.items, strict=True))
    return 0


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_is_not_looked_into_ends_where_it_does(path: Path) -> None:
    text = inject(read(path), "x", SETTINGS).text.removeprefix("\ufeff")
    pairs = zip(parse(text, "x"), parse(text, "x", closed="sidecar"), strict=True)
    found = sum(left_out(one.root, other.root) for one, other in pairs)
    is_there = re.search(r"""[-{] *["']?name["']?: ["']?sidecar["']?[,\r\n]""", text) is not None
    assert bool(found) is (is_there and "&" not in text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a: [{name: sidecar, b: {c: [1, 2]}}]\nd: 1\n", 1),
        ("- name: sidecar\n  b:\n  - c: [1, 2]\n- name: other\n  b: 1\n", 1),
        ("- b: 1\n  name: sidecar\n", 0),
        ("a: {name: sidecar, b: 1}\n", 0),
        ("- name: sidecar\n  b: &b 1\n- c: *b\n", 0),
    ],
    ids=["flow", "block", "another key first", "no item", "an anchor"],
)
def test_only_items_of_that_name_are_not_looked_into(text: str, count: int) -> None:
    (whole,), (closed,) = parse(text, "x"), parse(text, "x", closed="sidecar")
    assert left_out(whole.root, closed.root) == count
