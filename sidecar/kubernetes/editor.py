"""Edits of one object's text, with the record that undoes them.

Whatever can be is inserted, so that taking it out again leaves each byte as it was. Only where a value is an
alias, or `null` in so many words, it is replaced, and the record keeps what stood there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.kubernetes import edits
from sidecar.kubernetes.edits import Edit
from sidecar.kubernetes.positions import Alias, Entry, Mapping, Node, Sequence
from sidecar.kubernetes.settings import STATUS


class Editor:
    """Collects edits and what they mean. Paths are such as `/spec/volumes`, from the object's root."""

    def __init__(self, text: str, record: Callable[[Editor], str]) -> None:
        """`record` makes the status annotation's value, once `created` and `was` are complete."""
        self.text = text
        self.edits: list[Edit] = []
        """Those at one place stand in the order in which they are to be written."""
        self.created: list[str] = []
        """Collections that were not there."""
        self.was: dict[str, str | None] = {}
        """The text of what was replaced; None for what was not written but inherited."""
        self.dashes = 0
        """How far the dashes of a list stand in from its key, as the file does it."""
        self._record = record

    def column(self, node: Node) -> int:
        return edits.column(self.text, node.start)

    def front(self, value: Sequence, piece: str) -> None:
        """Insert into a list in flow style."""
        self.edits.append(edits.into_flow(self.text, value, piece))

    def below(self, entry: Entry, data: Any, indent: int) -> None:
        """Insert right under the line of a key."""
        at = edits.next_line(self.text, entry.key.end)
        self.edits.append(edits.lines_at(self.text, at, edits.block(data, indent, self.dashes)))

    def replace(self, value: Node, where: str, new: str) -> None:
        self.was[where] = self.text[value.start : value.end]
        self.edits.append(Edit(value.start, value.end, new))

    def merge(self, alias: Alias, where: str, more: dict[str, Any]) -> None:
        """An alias becomes a mapping that merges what it stands for."""
        pairs = ", ".join(f"{edits.flow(key)}: {edits.flow(value)}" for key, value in more.items())
        self.replace(alias, where, f"{{<<: *{alias.target.anchor}, {pairs}}}")

    def _add_all(self, parent: Mapping, new: dict[str, str]) -> None:
        if parent.is_flow or not parent.entries:
            piece = ", ".join(f"{edits.flow(key)}: {edits.flow(value)}" for key, value in new.items())
            self.edits.append(edits.into_flow(self.text, parent, piece))
            return
        for key, value in new.items():
            self.add(parent, key, value)

    def add(self, parent: Mapping, key: str, value: Any, after: Entry | None = None) -> None:
        """A new entry, behind `after` or at the end; in flow style in front."""
        if parent.is_flow or not parent.entries:
            piece = f"{edits.flow(key)}: {edits.flow(value)}"
            self.edits.append(edits.into_flow(self.text, parent, piece))
            return
        indent = self.column(parent.entries[0].key)
        # a comment that stands deeper than the next key belongs to what is above it
        end = (after or parent.entries[-1]).value.end
        at = edits.after(self.text, end, indent + 1 if after else indent)
        self.edits.append(edits.lines_at(self.text, at, edits.block({key: value}, indent, self.dashes)))

    def annotate(self, holder: Mapping, more: dict[str, str] | None = None) -> None:
        """Write the record into the metadata of `holder`, and `more` annotations before it. The last edit, since the
        record tells of the others."""
        metadata = holder.own("metadata")
        new = more or {}
        if metadata is None:
            self.created += ["/metadata", "/metadata/annotations"]
            self._above_first(holder, "metadata", {"annotations": self._recorded(new)})
        elif isinstance(metadata.value, Alias) and isinstance(metadata.value.target, Mapping):
            known = metadata.value.target.plain().get("annotations") or {}
            self.was["/metadata"] = self.text[metadata.value.start : metadata.value.end]
            self.merge(metadata.value, "/metadata", {"annotations": {**known, **self._recorded(new)}})
        elif isinstance(metadata.value, Mapping):
            self._annotate(metadata.value, new)
        else:
            self._fill(metadata, "/metadata", ["/metadata/annotations"], new, ["annotations"])

    def _recorded(self, more: dict[str, str]) -> dict[str, str]:
        return {**more, STATUS: self._record(self)}

    def _annotate(self, metadata: Mapping, more: dict[str, str]) -> None:
        entry, where = metadata.own("annotations"), "/metadata/annotations"
        if entry is None:
            inherited = metadata.plain().get("annotations") or {}
            if inherited:
                self.was[where] = None
            else:
                self.created.append(where)
            self.add(metadata, "annotations", {**inherited, **self._recorded(more)})
        elif isinstance(entry.value, Alias):
            self.was[where] = self.text[entry.value.start : entry.value.end]
            self.merge(entry.value, where, self._recorded(more))
        elif isinstance(entry.value, Mapping):
            self._add_all(entry.value, self._recorded(more))
        else:
            self._fill(entry, where, [], more, [])

    def _fill(
        self, entry: Entry, where: str, created: list[str], more: dict[str, str], keys: list[str]
    ) -> None:
        """Give an entry that holds nothing a value."""
        value = entry.value
        if value.start == value.end:
            self.created += created
            self.below(entry, _nested(keys, self._recorded(more)), self.column(entry.key) + 2)
            return
        self.was[where] = self.text[value.start : value.end]
        self.replace(value, where, edits.flow(_nested(keys, self._recorded(more))))

    def _above_first(self, parent: Mapping, key: str, value: Any) -> None:
        """A new entry above all others, where the first has a line of its own."""
        first = parent.entries[0].key
        at = edits.line_start(self.text, first.start)
        if parent.is_flow or self.text[at : first.start].strip():
            self.add(parent, key, value)
            return
        lines = edits.block({key: value}, self.column(first), self.dashes)
        self.edits.append(edits.lines_at(self.text, at, lines))


def _nested(keys: list[str], value: dict[str, str]) -> dict[str, Any]:
    data: Any = value
    for key in reversed(keys):
        data = {key: data}
    assert isinstance(data, dict)
    return data
