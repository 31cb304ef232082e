"""What `sidecar check --strict` warns of beside: what does nothing in a configuration that is sound.

A route is shadowed where another one of its listener takes every request that it could have. Only what is certain is
told: the same conditions or fewer, at a place that is looked at first (see `core/routing.py`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from math import inf
from typing import Final

from sidecar.config.load.check import Checked
from sidecar.config.problems import Problem
from sidecar.config.schema.routes import Route
from sidecar.config.yaml.nodes import MappingNode, Node, Scalar, Sequence
from sidecar.core import snapshot as core
from sidecar.core.conditions import Entry, compile_entry, rank
from sidecar.core.routing import host_places, path_key
from sidecar.core.snapshot import PathKind, PathMatch

_NAMES_UPSTREAMS: Final = frozenset({"upstream", "upstreams", "weights", "failover", "mirror"})
"""Keys under which names of upstreams stand, as values, items or keys."""
_META: Final = re.compile(r"[][\\.^$*+?{}()|]")
_QUANTIFIERS: Final = "*?{"
_NEVER_SENT: Final = "warning: no request matches: {}"
_Keyed = tuple[str, bytes]


def strict_advice(
    top: MappingNode, snapshot: core.Snapshot, routes: list[Checked[Route]]
) -> Iterator[Problem]:
    """The warnings; `routes` are those of the snapshot, with their places."""
    for node in _unused_upstreams(top):
        yield node.problem("warning: no route uses this upstream")
    nodes = [route.node for route in routes]
    for entry, other in _shadowed([*enumerate(snapshot.routes)]):
        node = _match_node(nodes[entry.order], entry.match_index)
        whose = (
            "another match of the route itself"
            if other.order == entry.order
            else f"route {other.route.name!r}"
        )
        yield node.problem(f"warning: never reached: {whose} takes every request that this would match")
    for order, route in enumerate(snapshot.routes):
        for index, match in enumerate(route.matches):
            for reason in _impossible(match):
                yield _match_node(nodes[order], index).problem(_NEVER_SENT.format(reason))


def _unused_upstreams(top: MappingNode) -> Iterator[Node]:
    upstreams = top.get("upstreams")
    if not isinstance(upstreams, MappingNode):
        return
    used: set[str] = set()
    for key in ("routes", "defaults", "upstreams"):
        part = top.get(key)
        if part is not None:
            used.update(_named(part, False, set()))
    for name, entry in upstreams.entries.items():
        if name not in used:
            yield entry.key


def _named(node: Node, is_name: bool, seen: set[int]) -> Iterator[str]:
    """Every text that may be the name of an upstream. A node of an anchor is looked at once for each place."""
    mark = id(node) * 2 + is_name
    if mark in seen:
        return
    seen.add(mark)
    if isinstance(node, Scalar):
        if is_name:
            yield str(node.value)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _named(item, is_name, seen)
    else:
        for key, entry in node.entries.items():
            if is_name:
                yield key
            yield from _named(entry.value, is_name or key in _NAMES_UPSTREAMS, seen)


def _shadowed(routes: list[tuple[int, core.Route]]) -> Iterator[tuple[Entry[None], Entry[None]]]:
    """Matches that nothing is left for, with one of those that take it all."""
    entries = [
        compile_entry(None, route, order, index)
        for order, route in routes
        for index in range(len(route.matches))
    ]
    places: dict[_Keyed, list[Entry[None]]] = defaultdict(list)
    placed = [
        [((entry.route.listener, host), entry.at_port(port)) for host, port in host_places(entry.match)]
        for entry in entries
    ]
    for entry_places in placed:
        for place, entry in entry_places:
            places[place].append(entry)
    groups = {key: _Place(found) for key, found in places.items()}
    for entry, entry_places in zip(entries, placed, strict=True):
        found = [groups[place].before(one) for place, one in entry_places]
        if found and all(other is not None for other in found) and found[0] is not None:
            yield entry, found[0]


class _Place:
    """The entries under one host: those of one path together, since a thousand routes are not compared in pairs."""

    def __init__(self, entries: list[Entry[None]]) -> None:
        self._by_path: dict[tuple[PathKind | None, bytes], _Alike] = defaultdict(_Alike)
        for entry in sorted(entries, key=rank):
            self._by_path[_path(entry)].add(entry)

    def before(self, entry: Entry[None]) -> Entry[None] | None:
        """One that takes all of its requests, and is looked at first."""
        alike = self._by_path[_path(entry)]
        found = alike.first_that_takes(entry, alike.number_of(entry))
        if found is not None:
            return found
        for wider in _wider(entry.match.path_asked()):
            other = self._by_path[wider].first_that_takes(entry) if wider in self._by_path else None
            if other is not None:
                return other
        return None


class _Alike:
    """The entries of one path, in the order in which they are looked at.

    They lie by one of the conditions that each has on fields or on the query: who does not have that one as well is
    not taken by it, so that routes which differ in a field alone are not compared in pairs either.
    """

    def __init__(self) -> None:
        self._by_condition: dict[object, list[tuple[int, Entry[None]]]] = defaultdict(list)
        self._numbers: dict[int, int] = {}
        """By the entry's `id`."""

    def add(self, entry: Entry[None]) -> None:
        number = self._numbers[id(entry)] = len(self._numbers)
        self._by_condition[next(_conditions(entry), None)].append((number, entry))

    def number_of(self, entry: Entry[None]) -> int:
        return self._numbers[id(entry)]

    def first_that_takes(self, entry: Entry[None], before: float = inf) -> Entry[None] | None:
        """The first one that takes all of the entry's requests, of those with a number under `before`."""
        first = None
        for condition in (None, *_conditions(entry)):
            for number, other in self._by_condition.get(condition, ()):
                if number >= before:
                    break
                if _takes_all_of(other, entry):
                    before, first = number, other
                    break
        return first


def _conditions(entry: Entry[None]) -> Iterator[object]:
    yield from (("field", one) for one in entry.match.headers)
    yield from (("query", one) for one in entry.match.query)


def _path(entry: Entry[None]) -> tuple[PathKind | None, bytes]:
    asked = entry.match.path_asked()
    key = path_key(asked)
    return (asked.kind if asked is not None and key else None), key


def _wider(path: PathMatch | None) -> Iterator[tuple[PathKind, bytes]]:
    """Prefixes that hold for all that an expression can match: they are looked at before it."""
    if path is None or path.kind is not PathKind.REGEX:
        return
    literal = _literal(path.value).encode()
    end = literal.find(b"/", 1)
    while end > 0:
        yield PathKind.PREFIX, literal[:end]
        end = literal.find(b"/", end + 1)


def _literal(pattern: str) -> str:
    """What every text begins with that the expression matches as a whole; empty where that is not certain."""
    pattern = pattern.removeprefix("^")
    if "|" in pattern or pattern.startswith("(?"):
        return ""
    found = _META.search(pattern)
    if found is None:
        return pattern
    end = found.start()
    return pattern[: end - 1] if found[0] in _QUANTIFIERS and end else pattern[:end]


def _takes_all_of(one: Entry[None], other: Entry[None]) -> bool:
    """Whether the conditions of `one` beyond host and path hold whenever those of `other` do."""
    return (
        (one.port is None or one.port == other.port)
        and (not one.methods or (bool(other.methods) and one.methods >= other.methods))
        and set(one.match.headers) <= set(other.match.headers)
        and set(one.match.query) <= set(other.match.query)
        and (not one.is_grpc or other.is_grpc)
        and (not one.clients or (bool(other.clients) and set(one.clients) >= set(other.clients)))
    )


def _impossible(match: core.Match) -> Iterator[str]:
    lower = sorted(method for method in match.methods if method.islower())
    if lower and len(lower) == len(match.methods):
        yield f"methods are written in upper case, and {lower[0]} is another one than {lower[0].upper()}"
    if match.grpc is not None and match.methods and "POST" not in match.methods:
        yield "every gRPC call is a POST"
    if match.path is not None and match.path.kind is PathKind.REGEX:
        first = _literal(match.path.value)[:1]
        if first and first != "/":
            yield f"every path begins with a slash, and this expression with {first!r}"
    wanted = {value.name: value for value in match.headers}
    if match.grpc is not None and "content-type" in wanted and _is_no_grpc(wanted["content-type"]):
        yield "the content-type of every gRPC call begins with application/grpc"


def _is_no_grpc(value: core.ValueMatch) -> bool:
    return value.present is False or (
        value.exact is not None and not value.exact.startswith("application/grpc")
    )


def _match_node(route: MappingNode, index: int) -> Node:
    written = route.get("match")
    if isinstance(written, Sequence) and index < len(written.items):
        return written.items[index]
    return route if written is None else written
