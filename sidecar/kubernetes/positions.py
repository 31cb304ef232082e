"""YAML text → a tree that knows where each piece stands, to the character. Writes nothing.

The round-trip dumper of ruamel.yaml keeps comments but not every byte (indents, line ends, quotes of keys,
folded lines), so here only parsers are used: edits are made in the text itself, at the places this tree gives,
and what is not edited cannot change.

Two parsers give the same events. libyaml, which is what kubectl's own parser was made after, needs 0.2 s for 1.9 MB;
ruamel.yaml, in Python alone, 5 s. The second one reads what the first one refuses or may count differently, and words
the errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import field
from enum import Enum, auto
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml import events as ruamel
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sidecar.config.yaml.nodes import resolve_plain
from sidecar.core.dataclass import dataclass

MAX_DEPTH = 100
"""Levels of nesting; an OpenAPI schema in a CustomResourceDefinition has about 40."""


class _Kind(Enum):
    DOCUMENT = auto()
    ALIAS = auto()
    SCALAR = auto()
    SEQUENCE = auto()
    MAPPING = auto()
    END = auto()


_SCALAR, _END = _Kind.SCALAR, _Kind.END  # looked up a million times

_COLON = re.compile(r"(?:\s|#[^\n]*)*+:")
"""Between a key and its value; not there in `{a, b: c}` and behind `? a`."""
_KINDS: dict[type, _Kind] = {
    event: kind
    for events in (yaml.events, ruamel)
    for event, kind in (
        (events.DocumentStartEvent, _Kind.DOCUMENT),
        (events.AliasEvent, _Kind.ALIAS),
        (events.ScalarEvent, _Kind.SCALAR),
        (events.SequenceStartEvent, _Kind.SEQUENCE),
        (events.MappingStartEvent, _Kind.MAPPING),
        (events.SequenceEndEvent, _Kind.END),
        (events.MappingEndEvent, _Kind.END),
    )
}
"""Of the events that a tree is made of."""
_SCALARS = frozenset(event for event, kind in _KINDS.items() if kind is _SCALAR)
_ENDS = frozenset(event for event, kind in _KINDS.items() if kind is _END)
_STARTS = frozenset(event for event, kind in _KINDS.items() if kind in (_Kind.SEQUENCE, _Kind.MAPPING))
_LIBYAML: Any = getattr(yaml, "CSafeLoader", None)
"""None where PyYAML was built without libyaml."""
_COUNTED_DIFFERENTLY = re.compile("[\x85\u2028\u2029\ufeff]")
"""Line ends of YAML 1.1 alone, and the mark that libyaml leaves out of its count."""
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*")


class ManifestError(Exception):
    """A manifest that cannot be read or changed, with its place. `str()` is what a user is shown."""

    def __init__(self, file: str, document: int, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: document {document}: {message}")
        self.document, self.line, self.message = document, line, message


@dataclass(slots=True, eq=False)
class Node:
    """A value: `text[start:end]`, without trailing blanks and comments. `line` counts from 1."""

    start: int
    end: int
    line: int
    is_flow: bool
    anchor: str | None

    def plain(self) -> Any:
        """Return what it means, with aliases and merge keys resolved."""
        raise AssertionError("unreachable: every subclass says how")


@dataclass(slots=True, eq=False)
class Scalar(Node):
    value: str
    is_plain: bool
    tag: str | None = None

    def plain(self) -> Any:
        if self.is_plain and self.tag is None:
            return resolve_plain(self.value)
        return self.value

    @property
    def is_null(self) -> bool:
        return self.plain() is None


@dataclass(slots=True, eq=False)
class Entry:
    key: Node
    value: Node
    name: str | None
    """None where the key is no scalar."""


@dataclass(slots=True, eq=False)
class Mapping(Node):
    entries: list[Entry] = field(default_factory=list)

    def own(self, name: str) -> Entry | None:
        """The entry that is written here, not what a merge key brings."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        return None

    def merged(self) -> Iterator[Mapping]:
        """The mappings that `<<` brings in, the first wins."""
        entry = self.own("<<")
        if entry is None:
            return
        value = target(entry.value)
        for item in value.items if isinstance(value, Sequence) else [value]:
            source = target(item)
            if isinstance(source, Mapping):
                yield source

    def get(self, name: str) -> Node | None:
        """The value of `name`, as written (an alias is not followed), own before merged."""
        entry = self.own(name)
        if entry is not None:
            return entry.value
        return next((found for source in self.merged() if (found := source.get(name)) is not None), None)

    def said(self, name: str) -> Any:
        """What `plain` says of `name` alone; None where it says nothing."""
        node = self.get(name)
        return None if node is None else node.plain()

    def plain(self) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for source in reversed(list(self.merged())):
            found.update(source.plain())
        for entry in self.entries:
            if entry.name != "<<":
                found[entry.name] = entry.value.plain()
        return found


@dataclass(slots=True, eq=False)
class Sequence(Node):
    items: list[Node] = field(default_factory=list)

    def plain(self) -> list[Any]:
        return [item.plain() for item in self.items]


@dataclass(slots=True, eq=False)
class Alias(Node):
    target: Node

    def plain(self) -> Any:
        return self.target.plain()


@dataclass(frozen=True, slots=True)
class Document:
    number: int
    """From 1, as a reader counts the documents of the file."""
    root: Node | None


def target(node: Node) -> Node:
    """The node itself, or what an alias stands for."""
    return node.target if isinstance(node, Alias) else node


def parse(text: str, file: str, *, closed: str | None = None) -> list[Document]:
    """Read every document of `text`.

    Args:
        closed: items of lists that begin with this `name` have no other entry in the tree: whoever takes them out
            whole needs none. Where an anchor may stand in them, they have.

    Raises:
        ManifestError: it is not YAML, or nested too deeply.
    """
    return _Builder(text, file, None if "&" in text else closed).documents()


def events_in_python(text: str) -> Iterable[Any]:
    """Those of ruamel.yaml: thirty times as slow as libyaml's."""
    return YAML(typ="safe", pure=True).parse(text)  # type: ignore[no-any-return]


class _Builder:
    def __init__(self, text: str, file: str, closed: str | None = None) -> None:
        self._text, self._file, self._closed = text, file, closed
        self._number = 0
        self._anchors: dict[str, Node] = {}
        self._events: Iterator[Any] = iter(())

    def documents(self) -> list[Document]:
        """All of the text. Raises: ManifestError, where it is not YAML."""
        if _LIBYAML is not None and not _COUNTED_DIFFERENTLY.search(self._text):
            try:
                loader = _LIBYAML(self._text)
                try:
                    return self._built(iter(loader.get_event, None))
                finally:
                    loader.dispose()
            except (yaml.YAMLError, UnicodeEncodeError):  # of half a surrogate pair as soon as it is given
                self._number = 0
        try:
            return self._built(events_in_python(self._text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = error.problem or error.context or "not YAML"
            raise self._not_yaml((mark.line if mark else 0) + 1, message) from error
        except YAMLError as error:
            raise self._not_yaml(1, str(error).partition("\n")[0]) from error

    def _built(self, events: Iterable[Any]) -> list[Document]:
        found: list[Document] = []
        self._events = iter(events)
        for event in self._events:
            if _KINDS.get(type(event)) is _Kind.DOCUMENT:
                self._number, self._anchors = self._number + 1, {}
                found.append(Document(self._number, self._node(next(self._events), 0)))
        return found

    def _not_yaml(self, line: int, message: str) -> ManifestError:
        found = self._text.splitlines()[line - 1 : line]
        hint = (
            "; a Helm chart is rendered first, by `helm template`" if any("{{" in it for it in found) else ""
        )
        return self._error(line, f"not YAML: {message}{hint}")

    def _error(self, line: int, message: str) -> ManifestError:
        return ManifestError(self._file, max(self._number, 1), line, message)

    def _node(self, event: Any, depth: int) -> Node:
        mark = event.start_mark
        start, line = mark.index, mark.line + 1
        if depth > MAX_DEPTH:
            raise self._error(line, f"nested more than {MAX_DEPTH} levels deep")
        kind = _KINDS.get(type(event))
        if kind is _SCALAR:
            return self._scalar(event)
        if kind is _Kind.MAPPING:
            return self._mapping(event, start, line, depth)
        if kind is _Kind.SEQUENCE:
            return self._sequence(event, start, line, depth)
        if kind is _Kind.ALIAS:
            known = self._anchors.get(event.anchor)
            if known is None:
                raise self._error(line, f"the alias *{event.anchor} has no anchor before it")
            return Alias(start, event.end_mark.index, line, False, None, known)
        raise self._error(line, "not YAML: a value is missing")

    def _kept(self, node: Node) -> Node:
        if node.anchor is not None:
            self._anchors[node.anchor] = node
        return node

    def _scalar(self, event: Any) -> Scalar:
        mark, style, tag = event.start_mark, event.style, event.tag
        start, end, anchor = mark.index, event.end_mark.index, event.anchor
        if style in ("|", ">"):
            end = self._block_scalar_end(start, end)
        is_plain = not style and event.implicit[0]
        tag = None if tag is None else str(tag)
        node = Scalar(start, end, mark.line + 1, False, anchor, event.value, is_plain, tag)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _block_scalar_end(self, start: int, end: int) -> int:
        """With `+` the blank lines at its end belong to the value, else they do not."""
        header = _BLOCK_HEADER.search(self._text, start)
        if header is not None and "+" in header[0]:
            return end
        return start + len(self._text[start:end].rstrip())

    def _sequence(self, event: Any, start: int, line: int, depth: int) -> Sequence:
        node = Sequence(start, start, line, bool(event.flow_style), event.anchor)
        self._kept(node)
        scalars = _SCALARS if depth < MAX_DEPTH else ()
        for inner in self._events:
            if type(inner) in _ENDS:
                break
            node.items.append(self._scalar(inner) if type(inner) in scalars else self._item(inner, depth + 1))
        node.end = self._collection_end(node, inner, node.items)
        return node

    def _item(self, event: Any, depth: int) -> Node:
        if self._closed is None or _KINDS.get(type(event)) is not _Kind.MAPPING or depth > MAX_DEPTH:
            return self._node(event, depth)
        mark = event.start_mark
        return self._mapping(event, mark.index, mark.line + 1, depth, may_be_closed=True)

    def _mapping(
        self, event: Any, start: int, line: int, depth: int, *, may_be_closed: bool = False
    ) -> Mapping:
        node = Mapping(start, start, line, bool(event.flow_style), event.anchor)
        self._kept(node)
        names: set[str | None] = set()
        events, scalars = self._events, _SCALARS if depth < MAX_DEPTH else ()
        for inner in events:
            if type(inner) in _ENDS:
                break
            key = self._scalar(inner) if type(inner) in scalars else self._node(inner, depth + 1)
            inner = next(events)
            value = self._scalar(inner) if type(inner) in scalars else self._node(inner, depth + 1)
            if isinstance(value, Scalar) and not value.value and value.is_plain and value.start == value.end:
                colon = _COLON.match(self._text, key.end)
                value.start = value.end = key.end if colon is None else colon.end()
                value.line = key.line
            name = key.value if isinstance(key, Scalar) else None
            if name is not None and name in names:
                raise self._error(key.line, f"the key {name!r} is given twice")
            names.add(name)
            node.entries.append(Entry(key, value, name))
            if may_be_closed:
                may_be_closed = False
                if name == "name" and isinstance(value, Scalar) and value.value == self._closed:
                    node.end = self._skipped(node, value.end)
                    return node
        node.end = self._collection_end(node, inner, [entry.value for entry in node.entries])
        return node

    def _skipped(self, node: Node, end: int) -> int:
        """Read past the rest of a collection, and return where it ends; `end`: where its last value does so far."""
        depth, last = 1, None
        for event in self._events:
            if type(event) not in _ENDS:
                depth += type(event) in _STARTS
                last = event
                continue
            depth -= 1
            if not depth:
                break
            if event.end_mark.index > event.start_mark.index:  # that of a block has no text of its own
                last = event
        if node.is_flow:
            return int(event.end_mark.index)
        return end if last is None else int(last.end_mark.index)

    def _collection_end(self, node: Node, event: Any, children: list[Node]) -> int:
        if node.is_flow:
            return int(event.end_mark.index)
        return children[-1].end if children else node.end
