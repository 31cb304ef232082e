"""Two parsers, one tree; and how often a text is read."""

from __future__ import annotations

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


@pytest.mark.parametrize("text", ["a: 1\n---\nb: [\n", "a: *none\n", "a: 1\na: 2\n", "a: \0"])
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
    events = positions._events_of_libyaml

    def told(text: str) -> Any:
        read_texts.append(text)
        return events(text)

    def never(text: str) -> Any:
        raise AssertionError("read in Python")

    monkeypatch.setattr(positions, "_events_of_libyaml", told)
    monkeypatch.setattr(positions, "events_in_python", never)
    injected = inject(text, "x", SETTINGS, rewrite_services=True).text
    assert read_texts == [text, injected]
    assert uninject(injected, "x").text == text
