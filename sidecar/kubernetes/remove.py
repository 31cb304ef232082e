"""Takes an injected sidecar out of a manifest again, by its record and the names of its parts.

Works on what stands there, not on offsets: a manifest that was edited, or sorted by kubectl, after the
injection loses the sidecar too, and keeps its edits.
"""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

from sidecar.kubernetes import intercept
from sidecar.kubernetes.container import CONTAINER_NAME, VOLUME_NAMES
from sidecar.kubernetes.edits import Removals
from sidecar.kubernetes.plan import CONTAINER_LISTS
from sidecar.kubernetes.positions import Entry, Mapping, Node, Sequence, target
from sidecar.kubernetes.settings import STATUS


class BadRecord(Exception):
    """The status annotation is not what an injection writes."""

    def __init__(self, line: int) -> None:
        super().__init__(f"the annotation {STATUS} cannot be read; was it edited?")
        self.line = line


class Record:
    """What the status annotation of one object says."""

    def __init__(self, annotations: Mapping, entry: Entry) -> None:
        self.annotations, self.entry = annotations, entry
        try:
            data = json.loads(str(entry.value.plain()))
            self.created = frozenset(_texts(data.get("created", [])))
            self.was: dict[str, str | None] = dict(data.get("was", {}))
            self.env = {
                key: {name: _texts(names) for name, names in data.get(field, {}).items()}
                for key, field in (("initContainers", "initEnv"), ("containers", "env"))
            }
            self.has_interception = data.get("intercept") is True
            self.pull_secrets = frozenset(_texts(data.get("pullSecrets", [])))
            self.more_annotations = frozenset(_texts(data.get("annotations", [])))
        except (ValueError, TypeError, AttributeError) as error:
            raise BadRecord(entry.key.line) from error


def record_of(holder: Mapping) -> Record | None:
    """The record in the metadata of a pod template or a Service; None without one.

    Raises:
        BadRecord: it cannot be read.
    """
    metadata = holder.get("metadata")
    found = target(metadata) if metadata is not None else None
    annotations = found.get("annotations") if isinstance(found, Mapping) else None
    inner = target(annotations) if annotations is not None else None
    entry = inner.own(STATUS) if isinstance(inner, Mapping) else None
    if entry is None or not isinstance(inner, Mapping):
        return None
    return Record(inner, entry)


class Removal:
    """Takes apart one object whose record is known; fills `removals`."""

    def __init__(self, removals: Removals, holder: Mapping, record: Record) -> None:
        self._removals = removals
        self._holder = holder
        self._record = record

    def pod(self) -> None:
        """A pod template."""
        self.metadata()
        spec = self._holder.own("spec")
        if spec is None or not isinstance(spec.value, Mapping):
            return
        ours = {CONTAINER_NAME, intercept.NAME} if self._record.has_interception else {CONTAINER_NAME}
        for key in CONTAINER_LISTS:
            self._named(spec.value, key, "/spec", ours)
            containers = spec.value.own(key)
            if containers is not None and isinstance(containers.value, Sequence):
                for item in containers.value.items:
                    self._container(item, key)
        self._named(spec.value, "volumes", "/spec", set(VOLUME_NAMES))
        self._named(spec.value, "imagePullSecrets", "/spec", self._record.pull_secrets)

    def metadata(self) -> None:
        """The annotation, and what was made to hold it."""
        entry = self._holder.own("metadata")
        if entry is None or self._is_restored(self._holder, entry, "/metadata"):
            return
        metadata = entry.value
        if not isinstance(metadata, Mapping):
            return
        inner = metadata.own("annotations")
        if inner is None or self._is_restored(metadata, inner, "/metadata/annotations"):
            return
        annotations = self._record.annotations
        ours = [item for item in annotations.entries if item.name in self._record.more_annotations]
        ours.append(self._record.entry)
        is_alone = len(annotations.entries) == len(ours)
        if not is_alone or "/metadata/annotations" not in self._record.created:
            for item in ours:
                self._removals.entry(annotations, item)
        elif len(metadata.entries) == 1 and "/metadata" in self._record.created:
            self._removals.entry(self._holder, entry)
        else:
            self._removals.entry(metadata, inner)

    def _is_restored(self, parent: Mapping, entry: Entry, where: str) -> bool:
        """Put back what the record says stood here."""
        if where not in self._record.was:
            return False
        before = self._record.was[where]
        if before is None:
            self._removals.entry(parent, entry)
        else:
            self._removals.replace(entry.value, before)
        return True

    def _container(self, item: Node, key: str) -> None:
        found = target(item)
        if not isinstance(found, Mapping):
            return
        name = str(found.said("name"))
        path = f"/spec/{key}/{name}"
        before = self._record.was.get(path)
        if before is not None:
            self._removals.replace(item, before)
            return
        for probe in intercept.KINDS:
            own = found.own(probe)
            if own is not None:
                self._is_restored(found, own, f"{path}/{probe}")
        names = frozenset(self._record.env[key].get(name, []))
        self._named(found, "env", path, names)
        entry = found.own("env")
        if entry is not None and isinstance(entry.value, Sequence) and f"{path}/env" not in self._record.was:
            self._values(entry.value, f"{path}/env", names)

    def _values(self, variables: Sequence, where: str, ours: Set[str]) -> None:
        """Put back what variables of the app's own were."""
        for item in variables.items:
            name = _name(item)
            before = None if name in ours else self._record.was.get(f"{where}/{name}")
            if before is not None:
                self._removals.replace(item, before)
            elif isinstance(item, Mapping) and name not in ours:
                before, own = self._record.was.get(f"{where}/{name}/value"), item.own("value")
                if before is not None and own is not None:
                    self._removals.replace(own.value, before)

    def _named(self, parent: Mapping, key: str, path: str, names: Set[str]) -> None:
        """Take the items with these names out of a list, and the list where it was made for them."""
        entry, where = parent.own(key), f"{path}/{key}"
        if entry is None or self._is_restored(parent, entry, where):
            return
        items = entry.value.items if isinstance(entry.value, Sequence) else []
        ours = [item for item in items if _name(item) in names]
        if ours and len(ours) == len(items) and where in self._record.created:
            self._removals.entry(parent, entry)
        elif isinstance(entry.value, Sequence):
            for item in ours:
                self._removals.item(entry.value, item)


def _name(node: Node) -> Any:
    found = target(node)
    return found.said("name") if isinstance(found, Mapping) else None


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError
    return value
