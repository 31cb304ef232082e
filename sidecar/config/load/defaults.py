"""`defaults` under a route, key by key. The one place with these rules.

Works on nodes before they are read, so that an error in `defaults` is found at its own place, and so that an
origin is simply the node that is left (`origins.py`). The rules: a route's own key wins; mappings are merged,
lists are not; `null` in a route takes back what `defaults` gives, and the built-in value holds; a section that
says nothing at all is as if it were not there, but `fallback:`, `cors:`, `hedge:`, `mirror:` and `candidate:` as
null take the whole of it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sidecar.config.schema.form import FIELDS
from sidecar.config.schema.policies import Policies
from sidecar.config.schema.section import Section, keys_of, section_of
from sidecar.config.yaml.nodes import Entry, MappingNode, Scalar, is_null

Path = tuple[str, ...]

_SECTIONS = frozenset(keys_of(Policies))
_ABSENT_WHEN_NULL = frozenset(
    {("fallback",), ("cors",), ("hedge",), ("mirror",), ("circuit_breaker", "candidate")}
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

_REWRITTEN_BY = {"prefix": "path", "path": "prefix"}
"""A route's key of `rewrite` → that of `defaults` which it excludes."""


def _header_maps(section: type[Section], prefix: Path = ()) -> Iterator[Path]:
    for name, about in keys_of(section).items():
        inner = section_of(about.annotation)
        if inner is not None:
            yield from _header_maps(inner, (*prefix, name))
        elif about.form is FIELDS:
            yield (*prefix, name)


HEADER_MAPS = frozenset(_header_maps(Policies))
"""Policies that are header fields by name, which is the same whatever its case."""


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
    if path == ("rewrite",):
        return frozenset(_REWRITTEN_BY[key] for key in own.entries if key in _REWRITTEN_BY)
    if path[-1] == "sliding_window":
        mine, theirs = own.get("type"), default.get("type")
        if isinstance(mine, Scalar) and (not isinstance(theirs, Scalar) or mine.value != theirs.value):
            return frozenset({"size"})
    return frozenset()
