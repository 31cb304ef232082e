"""A plan → edits of the text that carry it out, and the record that undoes them.

Whatever can be is inserted, so that taking it out again leaves each byte as it was. Only where a value is an
alias, or `null` in so many words, it is replaced, and the record keeps what stood there.
"""

from __future__ import annotations

from typing import Any

from sidecar.kubernetes import edits
from sidecar.kubernetes.edits import Edit
from sidecar.kubernetes.plan import Plan
from sidecar.kubernetes.positions import Alias, Entry, Mapping, Node, Scalar, Sequence, target
from sidecar.kubernetes.settings import STATUS
from sidecar.kubernetes.workloads import Workload


class Insertion:
    """The edits of one pod template. `edits` stand in the order of their depth, the deepest first."""

    def __init__(self, text: str, workload: Workload) -> None:
        self.edits: list[Edit] = []
        self._text = text
        self._template = workload.template
        self._dashes = 0
        self._created: list[str] = []
        self._was: dict[str, str | None] = {}

    def carry_out(self, plan: Plan) -> None:
        """Fill `edits`."""
        spec = self._template.own("spec")
        assert spec is not None
        assert isinstance(spec.value, Mapping)
        containers = spec.value.own("containers")
        assert containers is not None
        assert isinstance(containers.value, Sequence)
        self._dashes = self._dash_step(containers)
        self._env(containers.value, plan)
        if plan.list_name != "containers":
            self._list(spec.value, "initContainers", "/spec", [plan.container], containers)
        else:
            self._front(containers.value, containers, "/spec/containers", [plan.container])
        self._list(spec.value, "volumes", "/spec", [plan.volume], containers)
        self._status(plan, spec)

    def _dash_step(self, containers: Entry) -> int:
        if containers.value.is_flow or not isinstance(containers.value, Sequence):
            return 0
        step = edits.dash_column(self._text, containers.value) - self._column(containers.key)
        return max(0, step)

    def _column(self, node: Node) -> int:
        return edits.column(self._text, node.start)

    # -- variables of the app's containers

    def _env(self, containers: Sequence, plan: Plan) -> None:
        changed = {id(target(item)) for item in containers.items if not isinstance(item, Alias)}
        for item in containers.items:
            container = target(item)
            assert isinstance(container, Mapping)
            name = str(container.plain().get("name"))
            new = plan.env.get(name, [])
            is_inherited = container.own("env") is None and any(
                id(source) in changed for source in container.merged()
            )
            if not new or is_inherited:
                continue
            path = f"/spec/containers/{name}"
            if isinstance(item, Alias):
                self._merge(item, path, {"env": [*_listed(container.get("env")), *new]})
            else:
                self._list(container, "env", path, list(new), None)

    # -- lists of the pod spec and of containers

    def _list(self, parent: Mapping, key: str, path: str, new: list[Any], after: Entry | None) -> None:
        """Put `new` at the front of the list `key`, which is made if need be, behind `after`."""
        entry, where = parent.own(key), f"{path}/{key}"
        if entry is not None:
            self._front(entry.value, entry, where, new)
            return
        inherited = _listed(parent.get(key))
        if inherited:
            self._was[where] = None
        else:
            self._created.append(where)
        self._add(parent, key, [*new, *inherited], after)

    def _front(self, value: Node, entry: Entry, where: str, new: list[Any]) -> None:
        if isinstance(value, Sequence) and (value.is_flow or not value.items):
            piece = ", ".join(edits.flow(item) for item in new)
            self.edits.append(edits.into_flow(self._text, value, piece))
        elif isinstance(value, Sequence):
            indent = edits.dash_column(self._text, value)
            self._below(entry, edits.block(new, indent, self._dashes))
        elif isinstance(value, Scalar) and value.is_null and value.start == value.end:
            indent = self._column(entry.key) + self._dashes
            self._below(entry, edits.block(new, indent, self._dashes))
        else:
            self._replace(value, where, edits.flow([*new, *_listed(value)]))

    def _below(self, entry: Entry, lines: list[str]) -> None:
        """Insert right under the line of a key."""
        at = edits.next_line(self._text, entry.key.end)
        self.edits.append(edits.lines_at(self._text, at, lines))

    def _replace(self, value: Node, where: str, new: str) -> None:
        self._was[where] = self._text[value.start : value.end]
        self.edits.append(Edit(value.start, value.end, new))

    def _merge(self, alias: Alias, where: str, more: dict[str, Any]) -> None:
        """An alias becomes a mapping that merges what it stands for."""
        pairs = ", ".join(f"{edits.flow(key)}: {edits.flow(value)}" for key, value in more.items())
        self._replace(alias, where, f"{{<<: *{alias.target.anchor}, {pairs}}}")

    def _add(self, parent: Mapping, key: str, value: Any, after: Entry | None) -> None:
        """A new entry, behind `after` or at the end; in flow style in front."""
        if parent.is_flow or not parent.entries:
            piece = f"{edits.flow(key)}: {edits.flow(value)}"
            self.edits.append(edits.into_flow(self._text, parent, piece))
            return
        indent = self._column(parent.entries[0].key)
        # a comment that stands deeper than the next key belongs to what is above it
        end = (after or parent.entries[-1]).value.end
        at = edits.after(self._text, end, indent + 1 if after else indent)
        self.edits.append(edits.lines_at(self._text, at, edits.block({key: value}, indent, self._dashes)))

    # -- the record

    def _status(self, plan: Plan, spec: Entry) -> None:
        metadata = self._template.own("metadata")
        if metadata is None:
            self._created += ["/metadata", "/metadata/annotations"]
            self._above(spec, {"metadata": {"annotations": {STATUS: self._record(plan)}}})
            return
        if isinstance(metadata.value, Alias) and isinstance(metadata.value.target, Mapping):
            known = metadata.value.target.plain().get("annotations") or {}
            self._was["/metadata"] = self._text[metadata.value.start : metadata.value.end]
            annotations = {**known, STATUS: self._record(plan)}
            self._merge(metadata.value, "/metadata", {"annotations": annotations})
        elif isinstance(metadata.value, Mapping):
            self._annotate(metadata.value, plan)
        else:
            self._fill(metadata, "/metadata", ["/metadata/annotations"], ["annotations", STATUS], plan)

    def _annotate(self, metadata: Mapping, plan: Plan) -> None:
        entry = metadata.own("annotations")
        if entry is None:
            self._created.append("/metadata/annotations")
            inherited = metadata.plain().get("annotations") or {}
            self._add(metadata, "annotations", {**inherited, STATUS: self._record(plan)}, None)
        elif isinstance(entry.value, Alias):
            self._was["/metadata/annotations"] = self._text[entry.value.start : entry.value.end]
            self._merge(entry.value, "/metadata/annotations", {STATUS: self._record(plan)})
        elif isinstance(entry.value, Mapping):
            self._add(entry.value, STATUS, self._record(plan), None)
        else:
            self._fill(entry, "/metadata/annotations", [], [STATUS], plan)

    def _fill(self, entry: Entry, where: str, created: list[str], keys: list[str], plan: Plan) -> None:
        """Give an entry that holds nothing a value."""
        if entry.value.start == entry.value.end:
            self._created += created
            indent = self._column(entry.key) + 2
            self._below(entry, edits.block(_nested(keys, self._record(plan)), indent, self._dashes))
            return
        self._was[where] = self._text[entry.value.start : entry.value.end]
        self._replace(entry.value, where, edits.flow(_nested(keys, self._record(plan))))

    def _above(self, entry: Entry, data: dict[str, Any]) -> None:
        if self._template.is_flow:
            ((key, value),) = data.items()
            piece = f"{edits.flow(key)}: {edits.flow(value)}"
            self.edits.append(edits.into_flow(self._text, self._template, piece))
            return
        indent = self._column(self._template.entries[0].key)
        lines = edits.block(data, indent, self._dashes)
        if entry is self._template.entries[0]:
            at = edits.line_start(self._text, entry.key.start)
            if not self._text[at : entry.key.start].strip():
                self.edits.append(edits.lines_at(self._text, at, lines))
                return
        self._add(self._template, "metadata", data["metadata"], None)

    def _record(self, plan: Plan) -> str:
        return plan.status(created=self._created, was=self._was)


def _nested(keys: list[str], value: str) -> dict[str, Any]:
    data: Any = value
    for key in reversed(keys):
        data = {key: data}
    assert isinstance(data, dict)
    return data


def _listed(node: Node | None) -> list[Any]:
    value = node.plain() if node is not None else None
    return value if isinstance(value, list) else []
