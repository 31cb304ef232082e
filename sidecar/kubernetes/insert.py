"""A plan for a pod template → the edits of its text that carry it out."""

from __future__ import annotations

from typing import Any

from sidecar.kubernetes import edits
from sidecar.kubernetes.editor import Editor
from sidecar.kubernetes.edits import Edit
from sidecar.kubernetes.intercept import Probes
from sidecar.kubernetes.plan import CONTAINER_LISTS, Plan
from sidecar.kubernetes.positions import Alias, Entry, Mapping, Node, Scalar, Sequence, target
from sidecar.kubernetes.proxy_env import ProxyEnv


def carry_out(text: str, template: Mapping, plan: Plan) -> list[Edit]:
    """Return the edits; `template` holds its own `spec` with its own list of `containers`."""
    editor = Editor(text, lambda done: plan.status(created=done.created, was=done.was))
    spec = template.own("spec")
    assert spec is not None
    assert isinstance(spec.value, Mapping)
    containers = spec.value.own("containers")
    assert containers is not None
    assert isinstance(containers.value, Sequence)
    editor.dashes = _dash_step(editor, containers)
    pod = _Pod(editor)
    for key in CONTAINER_LISTS:  # what stands deepest comes first
        found = spec.value.own(key)
        if found is not None and isinstance(found.value, Sequence):
            pod.probes(found.value, key, plan.probes.get(key, {}))
            pod.variables(found.value, key, plan.env.get(key, {}))
    for key, items in plan.parts.items():
        pod.insert(spec.value, key, "/spec", items, containers)
    for key, items in plan.last.items():
        pod.append(spec.value, key, "/spec", items, containers)
    editor.annotate(template, plan.annotations)
    return editor.edits


def _dash_step(editor: Editor, containers: Entry) -> int:
    if containers.value.is_flow or not isinstance(containers.value, Sequence):
        return 0
    step = edits.dash_column(editor.text, containers.value) - editor.column(containers.key)
    return max(0, step)


class _Pod:
    def __init__(self, editor: Editor) -> None:
        self._editor = editor

    def probes(self, containers: Sequence, key: str, probes: Probes) -> None:
        """Those of one list of containers, in the place of their own."""
        for item in containers.items:
            container = target(item)
            if not isinstance(container, Mapping):
                continue
            own, path = probes.get(_name(item), {}), f"/spec/{key}/{_name(item)}"
            if own and isinstance(item, Alias):
                self._editor.merge(item, path, own)
                continue
            for name, probe in own.items():
                entry, where = container.own(name), f"{path}/{name}"
                if entry is not None:
                    self._editor.replace(entry.value, where, edits.flow(probe))
                else:
                    self._editor.was[where] = None
                    self._editor.add(container, name, probe)

    def append(self, parent: Mapping, key: str, path: str, new: list[Any], after: Entry) -> None:
        """Put `new` at the end of the list `key`, which is made if need be, behind `after`."""
        entry, editor = parent.own(key), self._editor
        value = None if entry is None else entry.value
        if isinstance(value, Sequence) and value.items and not value.is_flow:
            indent = edits.dash_column(editor.text, value)
            at = edits.after(editor.text, value.items[-1].end, indent + 1)
            editor.edits.append(edits.lines_at(editor.text, at, edits.block(new, indent, editor.dashes)))
        elif entry is not None and _listed(entry.value):
            editor.replace(entry.value, f"{path}/{key}", edits.flow([*_listed(entry.value), *new]))
        elif inherited := _listed(parent.get(key)):
            editor.was[f"{path}/{key}"] = None
            editor.add(parent, key, [*inherited, *new], after)
        else:
            self.insert(parent, key, path, new, after)

    def variables(self, containers: Sequence, key: str, env: dict[str, ProxyEnv]) -> None:
        """Those of one list of containers."""
        changed = {id(target(item)) for item in containers.items if not isinstance(item, Alias)}
        for item in containers.items:
            container = target(item)
            if not isinstance(container, Mapping):
                continue  # no container: what the API server will say of it is for it to say
            name = str(container.said("name"))
            found = env.get(name)
            is_inherited = container.own("env") is None and any(
                id(source) in changed for source in container.merged()
            )
            if found is None or not (found.new or found.changed) or is_inherited:
                continue
            path = f"/spec/{key}/{name}"
            if isinstance(item, Alias):
                self._editor.merge(item, path, {"env": found.applied(_listed(container.get("env")))})
            else:
                self._own_variables(container, path, found)

    def _own_variables(self, container: Mapping, path: str, found: ProxyEnv) -> None:
        entry, where = container.own("env"), f"{path}/env"
        if entry is not None and isinstance(entry.value, Sequence):
            if found.new:
                self._front(entry, where, list(found.new))
            self._change(entry.value, where, found.changed)
        elif entry is not None and isinstance(entry.value, Alias):
            self._editor.replace(entry.value, where, edits.flow(found.applied(_listed(entry.value))))
        elif entry is None and (inherited := _listed(container.get("env"))):
            self._editor.was[where] = None
            self._editor.add(container, "env", found.applied(inherited))
        else:
            self.insert(container, "env", path, list(found.new), None)

    def _change(self, variables: Sequence, where: str, changed: dict[str, str]) -> None:
        """Other values for variables that are there; of two of one name the last one counts."""
        known = {name: item for item in variables.items if (name := _name(item)) in changed}
        for name, item in known.items():
            own = item.own("value") if isinstance(item, Mapping) else None
            if own is not None and own.value.start < own.value.end:
                self._editor.replace(own.value, f"{where}/{name}/value", edits.flow(changed[name]))
            else:
                self._editor.replace(
                    item, f"{where}/{name}", edits.flow({"name": name, "value": changed[name]})
                )

    def insert(self, parent: Mapping, key: str, path: str, new: list[Any], after: Entry | None) -> None:
        """Put `new` at the front of the list `key`, which is made if need be, behind `after`."""
        entry, where = parent.own(key), f"{path}/{key}"
        if entry is not None:
            self._front(entry, where, new)
            return
        inherited = _listed(parent.get(key))
        if inherited:
            self._editor.was[where] = None
        else:
            self._editor.created.append(where)
        self._editor.add(parent, key, [*new, *inherited], after)

    def _front(self, entry: Entry, where: str, new: list[Any]) -> None:
        editor, value = self._editor, entry.value
        if isinstance(value, Sequence) and (value.is_flow or not value.items):
            editor.front(value, ", ".join(edits.flow(item) for item in new))
        elif isinstance(value, Sequence):
            editor.below(entry, new, edits.dash_column(editor.text, value))
        elif isinstance(value, Scalar) and value.is_null and value.start == value.end:
            editor.below(entry, new, editor.column(entry.key) + editor.dashes)
        else:
            editor.replace(value, where, edits.flow([*new, *_listed(value)]))


def _name(node: Node) -> str:
    found = target(node)
    return str(found.said("name")) if isinstance(found, Mapping) else ""


def _listed(node: Node | None) -> list[Any]:
    value = node.plain() if node is not None else None
    return value if isinstance(value, list) else []
