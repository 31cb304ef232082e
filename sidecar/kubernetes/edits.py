"""Pure text: what is put in or taken out of a manifest, and where. Knows nothing of Kubernetes.

Putting in and taking out are exact inverses: a piece is whole lines in block style, or one entry with its
comma in flow style (where it is written as JSON, so that JSON stays JSON).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from math import inf
from typing import Any

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes.positions import Entry, Mapping, Node, Sequence

_PLAIN = re.compile(r"[A-Za-z/$][-A-Za-z0-9_./$(){}]*(?::[0-9][-0-9A-Za-z.]*)?")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `text[start:end]` by `new`."""

    start: int
    end: int
    new: str


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Make all edits; insertions at one place stand in the order given, and before a replacement there."""
    pieces, at = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        pieces += [text[at : edit.start], edit.new]
        at = max(at, edit.end)
    return "".join([*pieces, text[at:]])


def line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def next_line(text: str, at: int) -> int:
    """Where the line after the one that holds `at` begins, or the end of the text."""
    if at > 0 and text[at - 1] == "\n":
        return at
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def column(text: str, at: int) -> int:
    return at - line_start(text, at)


def after(text: str, end: int, min_column: int) -> int:
    """The line start after content that ends at `end`, and after the comments below that belong to it."""
    best = probe = next_line(text, end)
    while probe < len(text):
        following = text.find("\n", probe) + 1 or len(text)
        line = text[probe:following]
        stripped = line.lstrip(" ")
        if stripped.startswith("#") and len(line) - len(stripped) >= min_column:
            best = following
        elif stripped.strip():
            break
        probe = following
    return best


def lines_at(text: str, at: int, lines: list[str]) -> Edit:
    """Insert whole lines at the line start `at`, in the line ends that the text uses there."""
    before = text.rfind("\n", 0, at)
    end = before if before >= 0 else text.find("\n")
    newline = "\r\n" if text[max(end - 1, 0) : max(end, 0)] == "\r" else "\n"
    if at == len(text) and not text.endswith("\n"):
        return Edit(at, at, "".join(newline + line for line in lines))
    return Edit(at, at, "".join(line + newline for line in lines))


def dash_column(text: str, sequence: Sequence) -> int:
    """The column of the dashes of a block sequence that has items."""
    first = sequence.items[0]
    dash = text.rfind("-", 0, first.start)
    return column(text, dash)


def block(data: Any, indent: int, dashes: int = 0) -> list[str]:
    """Plain data as lines in block style; `dashes` is how far a list's dashes stand in from its key."""
    lines: list[str] = []
    _write(lines, data, indent, dashes)
    return lines


def _write(lines: list[str], data: Any, indent: int, dashes: int) -> None:
    pad = " " * indent
    if isinstance(data, dict):
        for key, value in data.items():
            head = f"{pad}{scalar(key)}:"
            if isinstance(value, str):
                lines.append(f"{head} {_text(value)}")
            elif isinstance(value, dict) and value:
                lines.append(head)
                _write(lines, value, indent + 2, dashes)
            elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
                lines.append(head)
                _write(lines, value, indent + dashes, dashes)
            else:
                lines.append(f"{head} {flow(value)}")
        return
    for item in data:
        first = len(lines)
        if isinstance(item, dict):
            _write(lines, item, indent + 2, dashes)
        else:
            lines.append(scalar(item))
        lines[first] = f"{pad}- {lines[first].lstrip()}"


_WRITE = json.JSONEncoder(ensure_ascii=False).encode


def flow(data: Any) -> str:
    return _WRITE(data)


def scalar(value: Any) -> str:
    """A scalar in block style: plain where that is safe, else in quotes."""
    return _text(value) if isinstance(value, str) else json.dumps(value)


@lru_cache(4096)
def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if "'" in value or not value.isprintable():
        return json.dumps(value, ensure_ascii=False)
    return f'"{value}"' if '"' not in value and "\\" not in value else f"'{value}'"


def into_flow(text: str, node: Mapping | Sequence, piece: str) -> Edit:
    """Insert `piece` as the first entry of a flow collection."""
    first = _first(node)
    if first is None:
        opening = text.index("{" if isinstance(node, Mapping) else "[", node.start)
        return Edit(opening + 1, opening + 1, piece)
    before = text[: first.start]
    blanks = before[len(before.rstrip()) :]
    is_opened = before.rstrip().endswith(("{", "["))
    separator = "," + (blanks if is_opened and "\n" in blanks else " ")
    return Edit(first.start, first.start, piece + separator)


def _first(node: Mapping | Sequence) -> Node | None:
    if isinstance(node, Mapping):
        return node.entries[0].key if node.entries else None
    return node.items[0] if node.items else None


@dataclass(slots=True)
class Removals:
    """Pieces to take out of one text; joined first, since two may stand beside each other."""

    text: str
    spans: list[tuple[int, int]]
    replaced: list[Edit]

    def entry(self, parent: Mapping, entry: Entry) -> None:
        pieces = [(item.key.start, item.value.end) for item in parent.entries]
        self._piece(parent, pieces, parent.entries.index(entry), "{}")

    def item(self, parent: Sequence, node: Node) -> None:
        self._piece(parent, [(item.start, item.end) for item in parent.items], parent.items.index(node), "[]")

    def replace(self, node: Node, new: str) -> None:
        self.replaced.append(Edit(node.start, node.end, new))

    def _piece(self, parent: Node, pieces: list[tuple[int, int]], index: int, nothing: str) -> None:
        start, end = pieces[index]
        if parent.is_flow:
            if index + 1 < len(pieces):
                end = pieces[index + 1][0]
            elif index > 0:
                start = pieces[index - 1][1]
            self.spans.append((start, end))
            return
        lead = self.text[line_start(self.text, start) : start]
        is_own_line = not lead.strip() or (isinstance(parent, Sequence) and lead.strip() == "-")
        if is_own_line:
            self.spans.append((line_start(self.text, start), next_line(self.text, end)))
        elif index + 1 < len(pieces):
            self.spans.append((start, pieces[index + 1][0]))
        else:
            self.replaced.append(Edit(start, end, nothing))

    def apply(self) -> str:
        spans = _joined(self.spans)
        edits = [edit for edit in self.replaced if not _is_inside(edit, spans)]
        for start, end in spans:
            at = start
            if end == len(self.text) and not self.text.endswith("\n"):
                at = len(self.text[:start].removesuffix("\n").removesuffix("\r"))
            edits.append(Edit(at, end, ""))
        return apply(self.text, edits)


def _is_inside(edit: Edit, spans: list[tuple[int, int]]) -> bool:
    """True for a replacement within something that is taken out whole; `spans` are joined and in order."""
    at = bisect_right(spans, (edit.start, inf)) - 1
    return at >= 0 and bool(edit.new) and edit.end <= spans[at][1]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
