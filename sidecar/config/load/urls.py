"""Where a route may name an upstream by its URL, instead of one of `upstreams`."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.load.check import Checked
from sidecar.config.schema.routes import Route
from sidecar.config.yaml.nodes import Node


def urls_of(route: Checked[Route]) -> Iterator[tuple[str, Node]]:
    """Each URL with its place: of the route itself, of its fallback, of its mirror."""
    value = route.value
    for section, path in (
        (value, ("upstream",)),
        (value.fallback, ("fallback", "upstream")),
        (value.mirror, ("mirror", "upstream")),
    ):
        written = None if section is None else section.upstream
        node = route.node.get(*path)
        if written is not None and "://" in written and node is not None:
            yield written, node
