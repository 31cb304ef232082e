"""The files of others, read so that nothing in them is lost without a word.

Each key is taken with `get`, and what nobody took is found again (`unread`) with its line. So a translation need not
list what it does not know: that is told by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import yaml

MAX_BYTES = 8 * 1024 * 1024
"""Of one file."""
MAX_DEPTH = 60
_NULL = "tag:yaml.org,2002:null"
_TEXT = "tag:yaml.org,2002:str"
_MAPPING = "tag:yaml.org,2002:map"
_BOOLEANS = {"true": True, "false": False}


class SourceError(Exception):
    """A file that cannot be read. `str()` begins with its place."""


class Item:
    """A value of the file, with its place."""

    __slots__ = ("_children", "_is_done", "_node", "file", "is_taken", "path")

    def __init__(self, node: Any, file: str, path: str = "") -> None:
        self._node = node
        self.file = file
        self.path = path
        """Dotted, from the document's top."""
        self.is_taken = False
        """Somebody has read it, or has told why not."""
        self._is_done = False
        self._children: list[tuple[str, Item]] | None = None

    def __repr__(self) -> str:
        return f"<Item {self.place} {self.path}>"

    @property
    def line(self) -> int:
        return int(self._node.start_mark.line) + 1

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def is_mapping(self) -> bool:
        return isinstance(self._node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self._node, yaml.SequenceNode)

    @property
    def is_null(self) -> bool:
        return bool(self._node.tag == _NULL)

    def get(self, *keys: str) -> Item | None:
        """The value under the first of `keys` that is there and says something; it counts as read."""
        found = None
        for key, child in self._pairs():
            if key in keys:
                child.is_taken = True
                if found is None and not child.is_null:
                    found = child
        return found

    def at(self, *path: str) -> Item | None:
        """The value at `path`, one key below the other."""
        item: Item | None = self
        for key in path:
            item = None if item is None else item.get(key)
        return item

    def keys(self) -> list[str]:
        """Those of a mapping; nothing counts as read."""
        return [key for key, _ in self._pairs()] if self.is_mapping else []

    def pairs(self) -> list[tuple[str, Item]]:
        """All keys with their values, which count as read."""
        for _, child in self._pairs():
            child.is_taken = True
        return list(self._pairs()) if self.is_mapping else []

    def nested(self, root: str) -> Item:
        """The same, with each key `root.a.b` of it read as Spring does: `b` below `a` below `root`.

        One with brackets, or with more parts than a file may have levels, stays as it is.
        """
        if not self.is_mapping:
            return self
        tree = _Tree(self._node)
        for key, node in self._node.value:
            name = str(key.value)
            is_path = name.startswith(f"{root}.") and "[" not in name and name.count(".") < MAX_DEPTH
            tree.put(name.split(".") if is_path else [name], key, node)
        return Item(tree.node, self.file, self.path)

    def items(self) -> list[Item]:
        """The members of a list, which count as read; none of anything else."""
        if not self.is_list:
            return []
        for _, child in self._pairs():
            child.is_taken = True
        return [child for _, child in self._pairs()]

    def text(self) -> str:
        """Raises: SourceError, for a list or a mapping."""
        if not isinstance(self._node, yaml.ScalarNode):
            raise SourceError(f"{self.place}: {self.path}: expected text")
        self.is_taken = True
        return str(self._node.value)

    def number(self) -> float:
        """Raises: SourceError, for what is none, or is not finite."""
        return self._number("a number")

    def whole(self) -> int:
        """Raises: SourceError, for what is no whole number."""
        value = self._number("a whole number")
        if not value.is_integer():
            raise self._not("a whole number")
        return int(value)

    def _number(self, what: str) -> float:
        try:
            value = float(self.text().replace("_", ""))
        except ValueError:
            raise self._not(what) from None
        if not math.isfinite(value):
            raise self._not(what)
        return value

    def _not(self, what: str) -> SourceError:
        return SourceError(f"{self.place}: {self.path}: expected {what}, got {self.text()!r}")

    def flag(self) -> bool:
        """Raises: SourceError, for what is neither true nor false."""
        text = self.text().lower()
        if text not in _BOOLEANS:
            raise SourceError(f"{self.place}: {self.path}: expected true or false, got {text!r}")
        return _BOOLEANS[text]

    def take(self) -> None:
        """All of it has been read, or it has been told why not."""
        self.is_taken = self._is_done = True

    def unread(self) -> Iterator[Item]:
        """What nobody took, the uppermost of each branch."""
        for _, child in () if self._is_done else self._pairs():
            if child.is_taken:
                yield from child.unread()
            elif not child.is_null:
                yield child

    def _pairs(self) -> list[tuple[str, Item]]:
        if self._children is None:
            self._children = list(self._made())
        return self._children

    def _made(self) -> Iterator[tuple[str, Item]]:
        if self.is_list:
            for number, node in enumerate(self._node.value):
                yield str(number), Item(node, self.file, f"{self.path}[{number}]")
        elif self.is_mapping:
            for key, node in self._node.value:
                name = str(key.value)
                yield name, Item(node, self.file, f"{self.path}.{name}" if self.path else name)


class _Tree:
    """A mapping that is put together from keys with dots."""

    __slots__ = ("_below", "node")

    def __init__(self, like: Any) -> None:
        """Empty, and at the place of `like`."""
        self.node = yaml.MappingNode(_MAPPING, [], like.start_mark, like.end_mark)
        self._below: dict[str, _Tree] = {}

    def put(self, path: list[str], key: Any, node: Any) -> None:
        """What is a mapping goes in with what has the same path; all else is there as often as it comes."""
        name, rest = path[0], path[1:]
        if not rest and not isinstance(node, yaml.MappingNode):
            self._add(name, key, node)
            return
        tree = self._below.get(name)
        if tree is None:
            tree = self._below[name] = _Tree(node)
            self._add(name, key, tree.node)
        if rest:
            tree.put(rest, key, node)
            return
        for inner, value in node.value:
            tree.put([str(inner.value)], inner, value)

    def _add(self, name: str, key: Any, node: Any) -> None:
        self.node.value.append((yaml.ScalarNode(_TEXT, name, key.start_mark, key.end_mark), node))


def documents(text: str, file: str) -> list[Item]:
    """Each document of the file that is not empty.

    Raises:
        SourceError: it is no YAML, is too long or too deep, or has anchors, by which a short file may be a long one.
    """
    if len(text) > MAX_BYTES:
        raise SourceError(f"{file}: longer than {MAX_BYTES} bytes")
    try:
        _check(text, file)
        nodes = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        raise SourceError(f"{file}: no YAML: {error}") from None
    found = [Item(node, file) for node in nodes if node is not None]
    return [item for document in found for item in _listed(document) if not item.is_null]


def _check(text: str, file: str) -> None:
    """Raises: SourceError, before anything is built that could be too large or too deep."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        place = f"{file}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.AliasEvent):
            raise SourceError(f"{place}: anchors and aliases are not read: write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SourceError(f"{place}: nested too deeply")


def _listed(document: Item) -> list[Item]:
    """The members of a Kubernetes `List`, which `kubectl get -o yaml` prints; else the document itself."""
    kind = next((child for key, child in document._pairs() if key == "kind"), None)
    items = next((child for key, child in document._pairs() if key == "items"), None)
    if kind is None or items is None or not items.is_list or not kind.text().endswith("List"):
        return [document]
    return [Item(child._node, child.file) for child in items.items()]
