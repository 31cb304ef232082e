"""A YAML document as immutable nodes that know where they stand. Decides what a plain scalar means.

The meaning is YAML 1.2's, narrowed: `true` and `false` are the only booleans, so `on`, `yes`, `no` and
`off` are words; a number has no leading zero, underscore, base or colon, so `010`, `1_000`, `0x1F` and
`12:30` are words and a field that wants a number refuses them by name; `.nan` and `.inf` are words too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from sidecar.config.problems import Place, Problem
from sidecar.core.actions.template import MARK, as_written
from sidecar.core.dataclass import dataclass

_NODE_CHARACTERS = 250
LONG_TEXTS = f" (a text is one for each {_NODE_CHARACTERS} characters)"

ScalarValue: TypeAlias = "str | int | float | bool | None"

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_MIN_SECRET_CHARACTERS = 4
_QUOTED = re.compile(rf"'([^']{{{_MIN_SECRET_CHARACTERS},}})'")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Interpolated(str):
    """A scalar that holds a value from the environment, quoted or not (`{ }` and `[ ]` want quotes around
    `${`).

    It is text, whatever it looks like, so that a tag such as `12` stays one; a field that wants a number
    or a boolean reads it with `resolve_plain`.
    """

    __slots__ = ()


def resolve_plain(text: str) -> ScalarValue:
    """Say what an unquoted scalar means; text that is nothing else means itself."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


@dataclass(frozen=True, slots=True)
class Source:
    """One file's text, cut into lines."""

    name: str
    lines: tuple[str, ...]

    def problem(self, line: int, column: int, message: str) -> Problem:
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Problem(self.name, line, column, message, text)


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    source: Source
    line: int
    column: int

    @property
    def place(self) -> Place:
        return Place(self.source.name, self.line, self.column)

    def problem(self, message: str) -> Problem:
        return self.source.problem(self.line, self.column, message)


@dataclass(frozen=True, slots=True, eq=False)
class Scalar(_Placed):
    value: ScalarValue
    text: str
    """As written, before `${…}` was replaced (so it holds no secret)."""
    is_plain: bool = True
    is_broken: bool = False
    """A problem was reported for it already: whatever else is wrong with it is a consequence."""
    end: tuple[int, int] = (0, 0)
    """Line and column of what follows it."""

    def problem(self, message: str) -> Problem:
        """With `${NAME}` in place of what the environment gave, which may be a secret."""
        if isinstance(self.value, Interpolated):
            message = without_value(message, str(self.value), self.text)
        elif isinstance(self.value, str) and MARK in self.value:  # a variable of requests
            message = message.replace(repr(self.value)[1:-1], self.text).replace(self.value, self.text)
        return self.source.problem(self.line, self.column, message)


def without_value(message: str, value: str, instead: str) -> str:
    """Replace `value` in `message`, and each word in quotes that is a part of it. A few characters are no secret, and
    stand in a message for other reasons too. Upper and lower case are not told apart, since hosts are kept in one.
    """
    if len(value) < _MIN_SECRET_CHARACTERS:
        return message
    spelt = repr(value)[1:-1]
    for form in (spelt, value):
        message = _replaced(message, form, instead)
    parts = f"{value}\n{spelt}".lower()
    return _QUOTED.sub(lambda found: f"'{instead}'" if found[1].lower() in parts else found[0], message)


def _replaced(message: str, form: str, instead: str) -> str:
    """`form` as a part of `instead` stays: the default of a variable may be its value. An expression of a long value
    would take a thousand times as long to make as the search itself.
    """
    lowered, wanted, kept = message.lower(), form.lower(), instead.lower()
    # Some capitals have two characters in lower case.
    if len(lowered) != len(message) or len(wanted) != len(form) or len(kept) != len(instead):
        pattern = "|".join(map(re.escape, sorted((form, wanted, instead), key=len, reverse=True)))
        return re.sub(pattern, lambda _: instead, message, flags=re.IGNORECASE)
    parts: list[str] = []
    start, there = 0, lowered.find(kept)
    while (found := lowered.find(wanted, start)) >= 0:
        end = found + len(form)
        while 0 <= there <= found and (there < start or there + len(instead) < end):
            there = lowered.find(kept, there + 1)
        if 0 <= there <= found:
            found, end = there, there + len(instead)
        parts += message[start:found], instead
        start = end
    return "".join((*parts, message[start:]))


def given_by_environment(node: Node) -> frozenset[str]:
    """The texts under `node` that hold something from the environment; in lower case too, as hosts are kept."""
    if isinstance(node, Scalar):
        if not isinstance(node.value, Interpolated):
            return frozenset()
        text = str(node.value)
        return frozenset({text, text.lower(), as_written(text)})
    children = node.items if isinstance(node, Sequence) else [entry.value for entry in node.entries.values()]
    return frozenset().union(*map(given_by_environment, children))


@dataclass(frozen=True, slots=True, eq=False)
class Sequence(_Placed):
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A key with its value."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True, eq=False)
class MappingNode(_Placed):
    entries: Mapping[str, Entry]
    refused: tuple[tuple[Node, Node], ...] = ()
    """Keys with their values that were reported and do not count: given twice, or no words."""

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Every key with its value, as the file has them."""
        yield from ((entry.key, entry.value) for entry in self.entries.values())
        yield from self.refused

    def get(self, *path: str) -> Node | None:
        """The node under `path`, None where a key is missing or something on the way is no mapping."""
        entry = self.entry(*path)
        return entry.value if entry else None

    def entry(self, *path: str) -> Entry | None:
        node: Node = self
        entry = None
        for key in path:
            entry = node.entries.get(key) if isinstance(node, MappingNode) else None
            if entry is None:
                return None
            node = entry.value
        return entry


Node: TypeAlias = "Scalar | Sequence | MappingNode"


def text_weight(text: str) -> int:
    """As how many nodes a text counts that stands in many places: in each it is read, judged and told."""
    return 1 + len(text) // _NODE_CHARACTERS


def weight(node: Node) -> int:
    """The nodes in it, itself among them, aliases counted as what they stand for; keys are none."""
    if isinstance(node, Scalar):
        return text_weight(node.text)
    children = node.items if isinstance(node, Sequence) else (entry.value for entry in node.entries.values())
    return 1 + sum(map(weight, children))


def is_null(node: Node | None) -> bool:
    """True for a missing node, and for one that says `null` or nothing."""
    return node is None or (isinstance(node, Scalar) and node.value is None)


def to_data(node: Node) -> object:
    """The document as plain dicts, lists and scalars, without the places."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, MappingNode):
        return {key: to_data(entry.value) for key, entry in node.entries.items()}
    return [to_data(item) for item in node.items]


def describe(node: Node | None) -> str:
    """Name a node in a message: `the number 5`, `the text 'x'`, `a list`, `nothing`."""
    if node is None or is_null(node):
        return "nothing"
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node.value, bool):
        return f"the boolean {node.text}"
    if isinstance(node.value, str):
        return f"the text {node.text!r}"
    return f"the number {node.text}"
