"""`defaults` under a route, key by key, and where each effective value came from. The one place with these
rules.

Works on nodes before they are read, so that an error in `defaults` is found at its own place, and so that
an origin is simply the node that is left. The rules: a route's own key wins; mappings are merged, lists
are not; `null` in a route takes back what `defaults` gives, and the built-in value holds; a section that
says nothing at all is as if it were not there, but `fallback:` and `candidate:` as null take the whole of
it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args

from pydantic import BaseModel

from sidecar.config.environment import has_variable
from sidecar.config.nodes import Entry, MappingNode, Node, Scalar, Sequence, is_null
from sidecar.config.policies import Policies
from sidecar.config.problems import Place
from sidecar.core.secrets import HIDDEN, may_be_secret

Path = tuple[str, ...]

_SECTIONS = frozenset(Policies.model_fields)
_ABSENT_WHEN_NULL = frozenset({("fallback",), ("circuit_breaker", "candidate")})
HEADER_MAPS = frozenset(
    {
        ("request_headers", "set"),
        ("request_headers", "add"),
        ("response_headers", "set"),
        ("response_headers", "add"),
        ("fallback", "headers"),
        ("circuit_breaker", "failure_header"),
    }
)
_FIXED_RESPONSE = frozenset({"status", "headers", "body", "body_file"})
_REPLACED_BY: Mapping[str, frozenset[str]] = {
    "upstream": _FIXED_RESPONSE,
    "body": frozenset({"body_file", "upstream"}),
    "body_file": frozenset({"body", "upstream"}),
    "status": frozenset({"upstream"}),
    "headers": frozenset({"upstream"}),
}
"""A route's key of `fallback` → those of `defaults` that it excludes."""


def with_defaults(route: MappingNode, defaults: MappingNode | None) -> MappingNode:
    """`route` with what it leaves out taken from `defaults`."""
    if defaults is None:
        return route
    entries = dict(route.entries)
    for key, entry in defaults.entries.items():
        if key in _SECTIONS:
            _lay_under(entries, key, entry, (key,))
    return MappingNode(route.source, route.line, route.column, entries)


def _lay_under(entries: dict[str, Entry], key: str, default: Entry, path: Path) -> None:
    own = entries.get(key)
    if own is None:
        entries[key] = default
    elif isinstance(own.value, MappingNode) and isinstance(default.value, MappingNode):
        entries[key] = Entry(own.key, _merged(own.value, default.value, path))
    elif is_null(own.value) and isinstance(default.value, MappingNode) and path not in _ABSENT_WHEN_NULL:
        entries[key] = default


def _merged(own: MappingNode, default: MappingNode, path: Path) -> MappingNode:
    entries = dict(own.entries)
    excluded = _excluded(own, default, path)
    spelling = {key.lower(): key for key in entries} if path in HEADER_MAPS else {}
    for key, entry in default.entries.items():
        if key not in excluded:
            _lay_under(entries, spelling.get(key.lower(), key), entry, (*path, key))
    return MappingNode(own.source, own.line, own.column, entries)


def _excluded(own: MappingNode, default: MappingNode, path: Path) -> frozenset[str]:
    """Keys of `default` that make no sense beside what the route says."""
    if path == ("fallback",):
        return frozenset().union(*(_REPLACED_BY.get(key, frozenset()) for key in own.entries))
    if path[-1] == "sliding_window":
        mine, theirs = own.get("type"), default.get("type")
        if isinstance(mine, Scalar) and (not isinstance(theirs, Scalar) or mine.value != theirs.value):
            return frozenset({"size"})
    return frozenset()


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


def _leaves(model: type[BaseModel], prefix: Path) -> list[tuple[Path, object]]:
    """Every key of `model` that holds a value, with its built-in default."""
    found: list[tuple[Path, object]] = []
    for name, field in model.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None:
            found += _leaves(inner, (*prefix, name))
        else:
            extra: Any = field.json_schema_extra or {}
            default = None if "candidate" in prefix else extra.get("default")
            found.append(((*prefix, name), default))
    return found


def _section(annotation: Any) -> type[BaseModel] | None:
    for argument in get_args(annotation) or (annotation,):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument
    return None


def _spread(effective: MappingNode, path: Path) -> list[Path]:
    """One path for each header of a map of headers, the path itself for everything else."""
    node = effective.get(*path)
    if path in HEADER_MAPS:
        return [(*path, key) for key in node.entries] if isinstance(node, MappingNode) else []
    return [path]


def _origin(written: MappingNode, effective: MappingNode, path: Path, default: object) -> Origin:
    entry = effective.entry(*path)
    if entry is None or is_null(entry.value):
        return Origin(From.BUILT_IN, None, None if default is None else _shown(default))
    source = From.ROUTE if written.get(*path) is entry.value else From.DEFAULTS
    text = _as_written(entry.value)
    if path[:-1] in HEADER_MAPS and may_be_secret(path[-1]) and not has_variable(text):
        text = HIDDEN
    return Origin(source, entry.key.place, text)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    return f"[{', '.join(map(str, default))}]" if isinstance(default, list) else str(default)


def _as_written(node: Node) -> str:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return f"[{', '.join(_as_written(item) for item in node.items)}]"
    return "{" + ", ".join(f"{key}: {_as_written(entry.value)}" for key, entry in node.entries.items()) + "}"
