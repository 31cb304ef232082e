"""YAML text → nodes with places; the only import of yaml. Refuses, at its place, what makes YAML surprising.

Works on the parser's events with a stack of its own instead of PyYAML's composer: nesting and the growth
through aliases are bounded before they cost anything, duplicate keys are seen, and no tag constructs an
object. An alias is the anchor's node itself, not a copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

import yaml

from sidecar.config.files import MAX_FILE_BYTES
from sidecar.config.problems import Problem, Report
from sidecar.config.yaml.environment import has_variable, interpolate, reads_environment
from sidecar.config.yaml.nodes import (
    LONG_TEXTS,
    Entry,
    Interpolated,
    MappingNode,
    Node,
    Scalar,
    ScalarValue,
    Sequence,
    Source,
    resolve_plain,
    text_weight,
)
from sidecar.core.dataclass import dataclass

MAX_DEPTH = 32
"""Levels of nesting; the format itself needs 8."""
MAX_ALIASED_NODES = 100_000
"""Nodes that aliases may stand for, all together: the classic nine levels of ten would be a billion."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
"""What YAML's `c-printable` leaves out. Written the other way round, `re` takes 4 ms to compile it, at each start."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Unreadable(Exception):
    """Nothing after this problem can be understood."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def parse_bytes(data: bytes, name: str, environ: Mapping[str, str], report: Report) -> MappingNode | None:
    """Read one file's content; None, with the reason reported, when there is no top-level mapping to go on
    with.
    """
    if len(data) > MAX_FILE_BYTES:
        report.add(Problem(name, 1, 1, f"the file has more than {MAX_FILE_BYTES} bytes"))
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _position(data[: error.start].decode("utf-8-sig"))
        message = f"not UTF-8: byte 0x{data[error.start]:02x}; save the file as UTF-8"
        report.add(_source(data.decode("utf-8-sig", "replace"), name).problem(line, column, message))
        return None
    return parse_text(text, name, environ, report)


def parse_text(text: str, name: str, environ: Mapping[str, str], report: Report) -> MappingNode | None:
    """As `parse_bytes`, for text that is decoded already."""
    source = _source(text, name)
    try:
        _refuse_control_characters(text, source)
        return _as_mapping(_Composer(source, environ, report).compose(text), source)
    except _Unreadable as error:
        report.add(error.problem)
    except yaml.MarkedYAMLError as error:
        report.add(_syntax_problem(error, source))
    except yaml.YAMLError as error:
        report.add(source.problem(1, 1, f"not YAML: {error}"))
    return None


def lines(data: bytes, top: MappingNode | None) -> tuple[str, ...]:
    """The file's text in the lines that problems count: those of its document, or of what is no YAML as well."""
    if top is not None:
        return top.source.lines
    return tuple(_LINE_END.split(data[:MAX_FILE_BYTES].decode("utf-8-sig", "replace")))


def _source(text: str, name: str) -> Source:
    return Source(name, tuple(_LINE_END.split(text)))


def _position(before: str) -> tuple[int, int]:
    """Line and column of the character that follows the text `before`."""
    lines = _LINE_END.split(before)
    return len(lines), len(lines[-1]) + 1


def _refuse_control_characters(text: str, source: Source) -> None:
    found = _FORBIDDEN.search(text)
    if found:
        line, column = _position(text[: found.start()])
        code = f"U+{ord(found[0]):04X}"
        message = f"the character {code} is not allowed in YAML; write it as an escape in double quotes"
        raise _Unreadable(source.problem(line, column, message))


def _syntax_problem(error: yaml.MarkedYAMLError, source: Source) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = source.problem(line, column, "")
    if problem.text[column - 1 : column] == "\t" or problem.text[: column - 1].endswith("\t"):
        message = "a tab cannot indent YAML; use spaces"
    elif problem.text[column - 2 : column] == "${":
        message = 'inside [ ] and { } a variable needs quotes: "${NAME}"'
    else:
        message = f"not YAML: {error.problem or error.context}"
        if error.context and error.problem:
            message += f" ({error.context})"
    return source.problem(line, column, message)


def _as_mapping(root: Node | None, source: Source) -> MappingNode:
    if isinstance(root, MappingNode):
        return root
    if root is None or (isinstance(root, Scalar) and root.value is None):
        raise _Unreadable(
            source.problem(1, 1, "the file is empty; the smallest one has version, upstreams and routes")
        )
    raise _Unreadable(root.problem("the top level must be a mapping such as `version: 1`"))


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been met yet."""

    event: Any
    children: list[Node] = field(default_factory=list)
    weight: int = 1
    """Nodes in it, aliases counted as what they stand for."""

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.event, yaml.MappingStartEvent)

    @property
    def expects_key(self) -> bool:
        return self.is_mapping and len(self.children) % 2 == 0


class _Places:
    """Where parts of a scalar stand, which are asked for in their own order: each line is gone over once."""

    def __init__(self, event: Any, source: Source) -> None:
        self._own = event.start_mark.line + 1, event.start_mark.column + 1
        self._lines = source.lines
        self._line, self._start = event.start_mark.line, event.start_mark.column
        self._end = min(event.end_mark.line + 1, len(source.lines))
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, written: str) -> tuple[int, int]:
        """Line and column where it stands first; the scalar's own from a part on that is spelt with escapes."""
        if written not in self._known:
            self._known[written] = self._found(written)
        return self._known[written]

    def _found(self, written: str) -> tuple[int, int]:
        while self._line < self._end:
            column = self._lines[self._line].find(written, self._start)
            if column >= 0:
                self._start = column
                return self._line + 1, column + 1
            self._line, self._start = self._line + 1, 0
        return self._own


class _Composer:
    """Turns the events of one document into nodes. Owned by one call of `parse_text`."""

    def __init__(self, source: Source, environ: Mapping[str, str], report: Report) -> None:
        self._source = source
        self._environ = environ
        self._report = report
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._aliased = 0
        self._root: Node | None = None

    def compose(self, text: str) -> Node | None:
        """The root of the document, None for an empty one. Raises: _Unreadable, with the place."""
        is_second = False
        for event in _events(text):
            if isinstance(event, yaml.ScalarEvent):
                self._add(self._scalar(event), text_weight(event.value), event.anchor)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                if is_second:
                    raise self._unreadable(event, "a second document; one file holds one configuration")
                is_second = True
        return self._root

    def _unreadable(self, event: Any, message: str) -> _Unreadable:
        mark = event.start_mark
        return _Unreadable(self._source.problem(mark.line + 1, mark.column + 1, message))

    def _start(self, event: Any) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise self._unreadable(event, f"nested deeper than {MAX_DEPTH} levels")
        self._refuse_tag(event)
        if event.anchor:
            self._anchors.pop(event.anchor, None)
        self._open.append(_Open(event))

    def _end(self) -> None:
        done = self._open.pop()
        node = self._mapping(done) if done.is_mapping else self._sequence(done)
        self._add(node, done.weight, done.event.anchor)

    def _add(self, node: Node, weight: int, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = (node, weight)
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        parent.children.append(node)
        parent.weight += weight

    def _alias(self, event: Any) -> None:
        known = self._anchors.get(event.anchor)
        if known is None:
            is_inside = any(frame.event.anchor == event.anchor for frame in self._open)
            why = "stands for something that contains it" if is_inside else "has no anchor before it"
            raise self._unreadable(event, f"the alias *{event.anchor} {why}")
        node, weight = known
        self._aliased += weight
        if self._aliased > MAX_ALIASED_NODES:
            raise self._unreadable(
                event, f"aliases stand for more than {MAX_ALIASED_NODES} nodes{LONG_TEXTS}"
            )
        self._add(node, weight, None)

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is not None:
            mark = event.start_mark
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"the tag {tag} is not supported; leave it out (quotes make a text)"
            self._report.add(self._source.problem(mark.line + 1, mark.column + 1, message))

    def _scalar(self, event: Any) -> Scalar:
        self._refuse_tag(event)
        mark = event.start_mark
        text: str = event.value
        is_plain = not event.style
        is_key = bool(self._open) and self._open[-1].expects_key
        value: ScalarValue = resolve_plain(text) if is_plain else text
        is_broken = event.tag is not None
        if not is_key and has_variable(text):
            value, is_failed = self._interpolated(event)
            is_broken = is_broken or is_failed
        if _SURROGATE.search(text):
            self._report.add(self._source.problem(mark.line + 1, mark.column + 1, "half a surrogate pair"))
            is_broken = True
        end = (event.end_mark.line + 1, event.end_mark.column + 1)
        return Scalar(self._source, mark.line + 1, mark.column + 1, value, text, is_plain, is_broken, end)

    def _interpolated(self, event: Any) -> tuple[str, bool]:
        problems: list[Problem] = []
        places = _Places(event, self._source)

        def fail(written: str, message: str) -> None:
            problems.append(self._source.problem(*places.of(written), message))

        value = interpolate(event.value, self._environ, fail)
        for problem in problems:
            self._report.add(problem)
        is_secret = reads_environment(event.value)
        return (Interpolated(value) if is_secret else value), bool(problems)

    def _sequence(self, done: _Open) -> Sequence:
        mark = done.event.start_mark
        return Sequence(self._source, mark.line + 1, mark.column + 1, tuple(done.children))

    def _mapping(self, done: _Open) -> MappingNode:
        entries: dict[str, Entry] = {}
        merged: list[Entry] = []
        refused: list[tuple[Node, Node]] = []
        children = iter(done.children)
        for key, value in zip(children, children, strict=True):
            if not isinstance(key, Scalar):
                self._report.add(key.problem("a key must be a word, not a list or a mapping"))
                refused.append((key, value))
            elif key.text == "<<" and key.is_plain:
                merged.extend(self._merged(value))
            elif key.text in entries:
                first = entries[key.text].key.place
                self._report.add(key.problem(f"duplicate key {key.text!r}: first given at {first}"))
                refused.append((key, value))
            else:
                entries[key.text] = Entry(key, value)
        for entry in merged:
            entries.setdefault(entry.key.text, entry)
        mark = done.event.start_mark
        return MappingNode(self._source, mark.line + 1, mark.column + 1, entries, tuple(refused))

    def _merged(self, value: Node) -> Iterator[Entry]:
        """The entries that `<<: value` brings; the first of several mappings wins, as YAML's merge type
        says.
        """
        for node in value.items if isinstance(value, Sequence) else (value,):
            if isinstance(node, MappingNode):
                yield from node.entries.values()
            else:
                self._report.add(node.problem("<< needs a mapping, or a list of mappings, to merge"))


def _events(text: str) -> Iterator[Any]:
    loader = _LOADER(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()
