"""Finds the pod templates of a document: by kind where it is known, else by shape (Rollouts and the like)."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes.positions import Alias, Mapping, Node, Scalar, Sequence, target

_PATHS: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
    "AdvancedCronJob": ("spec", "template", "jobTemplate", "spec", "template"),
}
_USUAL = ("spec", "template")
_NEVER = frozenset({"ConfigMap", "Secret", "CustomResourceDefinition", "Service"})
"""Of the core kinds; what they hold that looks like a pod is somebody's data."""


class SharedPart(Exception):
    """A part that would have to be changed is an alias: the change would be seen where its anchor is."""

    def __init__(self, node: Alias, what: str) -> None:
        name = f"the alias *{node.target.anchor}" if node.target.anchor else "merged in by <<"
        super().__init__(f"`{what}` is {name}, so a change would be seen elsewhere too; write it out here")
        self.node = node


@dataclass(frozen=True, slots=True)
class Workload:
    """A mapping with `spec.containers`, and the object that it belongs to."""

    kind: str
    name: str
    owner: Mapping
    template: Mapping
    shared: SharedPart | None
    """Set where the template or its spec is an alias, so that it cannot be changed."""

    @property
    def is_job(self) -> bool:
        return self.kind in ("Job", "CronJob")


def objects(root: Node | None) -> Iterator[tuple[str, Mapping]]:
    """Every Kubernetes object of a document with its kind; the items of lists are objects too."""
    if not isinstance(root, Mapping):
        return
    kind = text_of(root.get("kind"))
    if kind is None or root.get("apiVersion") is None:
        return
    items = root.get("items")
    if kind.endswith("List") and isinstance(items, Sequence):
        for item in items.items:
            yield from objects(item)
        return
    yield kind, root


def workloads(root: Node | None) -> Iterator[Workload]:
    """Every pod template of a document."""
    for kind, owner in objects(root):
        is_other = _is_data(kind, owner) or manages_its_pods(owner)
        found = None if is_other else _walk(owner, _PATHS.get(kind, _USUAL))
        if found is not None:
            yield Workload(kind, name_of(owner), owner, *found)


def manages_its_pods(owner: Mapping) -> bool:
    """A Knative Service or the like: its template is no pod's, though it looks like one."""
    return (text_of(owner.get("apiVersion")) or "").startswith("serving.knative.dev/")


def name_of(owner: Mapping) -> str:
    metadata = owner.get("metadata")
    found = target(metadata) if metadata is not None else None
    name = text_of(found.get("name") or found.get("generateName")) if isinstance(found, Mapping) else None
    return name or "(no name)"


def text_of(node: Node | None) -> str | None:
    found = target(node) if node is not None else None
    return found.value if isinstance(found, Scalar) and not found.is_null else None


def _is_data(kind: str, owner: Mapping) -> bool:
    version = text_of(owner.get("apiVersion")) or ""
    return kind in _NEVER and ("/" not in version or version.startswith("apiextensions.k8s.io/"))


def _walk(owner: Mapping, path: tuple[str, ...]) -> tuple[Mapping, SharedPart | None] | None:
    """The template at `path`, if it holds a pod spec."""
    node: Node | None = owner
    shared: SharedPart | None = None
    for key in (*path, "spec", "containers"):
        if not isinstance(node, Mapping):
            return None
        template = node if key == "spec" else None
        is_own = node.own(key) is not None
        node = node.get(key)
        if isinstance(node, Alias) or (node is not None and not is_own):
            shared = shared or SharedPart(_as_alias(node), key)
            node = target(node)
        if key == "spec" and template is not None:
            found = template
    if not isinstance(node, Sequence) or not any(_is_container(item) for item in node.items):
        return None
    return found, shared


def _as_alias(node: Node) -> Alias:
    if isinstance(node, Alias):
        return node
    return Alias(node.start, node.end, node.line, False, None, node)


def _is_container(node: Node) -> bool:
    found = target(node)
    return isinstance(found, Mapping) and found.get("name") is not None
