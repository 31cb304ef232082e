"""Where each effective value of a route came from: the route, `defaults`, or what is built in.

An origin is the node that `defaults.py` left in place, so nothing has to be kept while a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from sidecar.config.load.defaults import HEADER_MAPS, Path
from sidecar.config.problems import Place
from sidecar.config.schema.form import flow
from sidecar.config.schema.policies import Policies
from sidecar.config.schema.section import Section, keys_of, section_of
from sidecar.config.yaml.environment import has_variable
from sidecar.config.yaml.nodes import MappingNode, Node, Scalar, Sequence, is_null
from sidecar.core.dataclass import dataclass
from sidecar.core.secrets import HIDDEN, may_be_secret


class From(Enum):
    """Where an effective value was given."""

    ROUTE = "route"
    DEFAULTS = "defaults"
    BUILT_IN = "built in"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one effective value of a route's policies came from."""

    source: From
    place: Place | None
    """None for a built-in value."""
    text: str | None
    """The value as the file has it (`${NAME}` unreplaced, a secret hidden), or as it would be written; None for
    "unset"."""

    def __str__(self) -> str:
        return self.source.value if self.place is None else f"{self.source.value}, {self.place}"


class Origins:
    """Answers where the policies of each route came from; made at load, worked out when asked."""

    __slots__ = ("_routes",)

    def __init__(self, routes: Mapping[str, tuple[MappingNode, MappingNode]]) -> None:
        self._routes = routes
        """Route name → the route as written, and the same with the defaults under it."""

    def of(self, route: str, key: str) -> Origin:
        """The origin of one key, dotted as in `circuit_breaker.half_open.max_calls`.

        Raises:
            KeyError: no such route, or no such key.
        """
        return self.of_route(route)[key]

    def of_route(self, route: str) -> dict[str, Origin]:
        """The origin of every policy of `route` by dotted key, in the order of the reference.

        Raises:
            KeyError: no such route.
        """
        written, effective = self._routes[route]
        found: dict[str, Origin] = {}
        for path, default in _leaves(Policies, ()):
            for leaf in _spread(effective, path):
                found[".".join(leaf)] = _origin(written, effective, leaf, default)
        return found

    def place_of(self, route: str) -> Place:
        """Where `route` begins.

        Raises:
            KeyError: no such route.
        """
        return self._routes[route][0].place


def _leaves(section: type[Section], prefix: Path) -> list[tuple[Path, object]]:
    """Every key of `section` that holds a value, with its built-in default."""
    found: list[tuple[Path, object]] = []
    for name, about in keys_of(section).items():
        inner = section_of(about.annotation)
        if inner is not None:
            found += _leaves(inner, (*prefix, name))
        else:
            found.append(((*prefix, name), None if "candidate" in prefix else about.default))
    return found


def _spread(effective: MappingNode, path: Path) -> list[Path]:
    """One path for each header of a map of headers, the path itself for everything else."""
    node = effective.get(*path)
    if path in HEADER_MAPS:
        return [(*path, key) for key in node.entries] if isinstance(node, MappingNode) else []
    return [path]


def _origin(written: MappingNode, effective: MappingNode, path: Path, default: object) -> Origin:
    entry = effective.entry(*path)
    if entry is None or is_null(entry.value):
        return Origin(From.BUILT_IN, None, None if default is None else flow(default))
    source = From.ROUTE if written.get(*path) is entry.value else From.DEFAULTS
    text = _as_written(entry.value)
    if path[:-1] in HEADER_MAPS and may_be_secret(path[-1]) and not has_variable(text):
        text = HIDDEN
    return Origin(source, entry.key.place, text)


def _as_written(node: Node) -> str:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return f"[{', '.join(_as_written(item) for item in node.items)}]"
    return "{" + ", ".join(f"{key}: {_as_written(entry.value)}" for key, entry in node.entries.items()) + "}"
