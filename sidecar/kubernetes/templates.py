"""What a template has left where a value belongs: `{{ .Values.image }}`. Such a file is not what Kubernetes will get,
so nothing that is decided by its values would be right.

A text may hold braces of that kind for good reasons: a query of Prometheus, a format for a command. So they are
looked for where no program could take them: in names, images, labels, ports, and written without quotes.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.kubernetes.positions import Mapping, Node, Scalar, Sequence, target

_OPENING = "{{"
_NAMES = frozenset(
    {"name", "generateName", "namespace", "image", "kind", "apiVersion", "configMap", "secretName"}
)


def template_in(owner: Node) -> Node | None:
    """The first place of an object that is still to be rendered; None where there is none."""
    return next(_places(owner, (), set()), None)


def _places(node: Node, path: tuple[str, ...], seen: set[int]) -> Iterator[Node]:
    found = target(node)
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, Mapping):
        for entry in found.entries:
            if found.is_flow and isinstance(entry.key, Mapping):
                yield found  # `a: {{ b }}` is a mapping whose key is a mapping
            yield from _places(entry.value, (*path, entry.name or ""), seen)
    elif isinstance(found, Sequence):
        for item in found.items:
            yield from _places(item, path, seen)
    elif isinstance(found, Scalar) and _OPENING in found.value and _takes_no_braces(path):
        yield found


def _takes_no_braces(path: tuple[str, ...]) -> bool:
    if not path or "env" in path or "annotations" in path:
        return False
    return path[-1] in _NAMES or "labels" in path or "matchLabels" in path or "ports" in path
