"""Where "the first rule that matches" (Istio) and "the most specific one" (the sidecar) take a request differently.

Two matches of one VirtualService are compared as far as that can be said for certain; where it cannot, they are
taken to overlap, so that too much is told rather than too little.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from sidecar.translate.draft import DraftRoute, Keys

Difference = tuple[str, str, str, DraftRoute | None]
"""Place, path, what differs, and the route that is left out for it."""
Rank = tuple[int, int, bool, bool, int, int]
Placed = tuple[int, DraftRoute, Keys]
"""A match with its number in the source."""

MOST_COMPARED: Final = 64
"""Rules before one match that are looked at one by one. Thousands may overlap with it, and each with each other."""
MOST_SEGMENTS: Final = 64
"""Of a path, by which others are found above it."""
_ANYWHERE: Final = ""
"""The key of matches without a path, or with one that takes every path."""
_REGEX: Final = None
"""That of those with a regular expression."""


class _Earlier:
    """The matches so far, by path and by rank: a later one shares requests only with those on the way to its own
    path, or with those whose paths are not told apart."""

    def __init__(self) -> None:
        self._by_path: dict[str | None, dict[Rank, list[Placed]]] = {}

    def add(self, placed: Placed, rank: Rank) -> None:
        path = _literal(placed[2])
        key = _ANYWHERE if path is not None and path.count("/") > MOST_SEGMENTS else path
        self._by_path.setdefault(key, {}).setdefault(rank, []).append(placed)

    def less_specific(self, match: Keys, rank: Rank) -> Iterator[Placed]:
        """In the order of the source, those that may take requests of `match`."""
        groups = [self._by_path.get(key, {}) for key in _on_the_way(match)]
        return merge(
            *(found for group in groups for other, found in group.items() if other > rank), key=itemgetter(0)
        )


def differences(routes: list[DraftRoute]) -> Iterator[Difference]:
    """`routes` in the order of their source."""
    earlier = _Earlier()
    matches = ((route, match) for route in routes for match in _matches(route))
    told: set[tuple[str, str]] = set()
    for number, (route, match) in enumerate(matches):
        rank = _rank(match)
        is_dead = False
        for difference in _of_one(route, match, earlier.less_specific(match, rank), told):
            is_dead = difference[3] is not None
            yield difference
        if not is_dead:
            earlier.add((number, route, match), rank)


def _of_one(
    route: DraftRoute, match: Keys, earlier: Iterator[Placed], told: set[tuple[str, str]]
) -> Iterator[Difference]:
    """What is to be said of one match, and nothing behind the word that its route is left out."""
    place, _, path = route.origin.partition(" ")
    for _, before, taken in islice(earlier, MOST_COMPARED):
        pair = before.name, route.name
        if before is route or pair in told or _is_disjoint(taken, match):
            continue
        told.add(pair)
        if len(_matches(route)) == 1 and _covers(taken, match):
            why = f"left out: rule {before.name} stands before it and takes all of its requests"
            yield place, path, why, route
            return
        yield (
            place,
            path,
            f"{before.name} comes first in the source, but {route.name} is more specific and wins here",
            None,
        )
    if next(earlier, None) is not None:
        why = (
            f"more than {MOST_COMPARED} rules before it are less specific: the rest was not compared with it"
        )
        yield place, path, why, None


def _literal(match: Keys) -> str | None:
    """What all paths begin with that it takes, or the one that it takes; `_REGEX` where nobody can say."""
    path = match.get("path", {})
    if "regex" in path:
        return _REGEX
    return str(path["exact"]) if "exact" in path else str(path.get("prefix", "")).rstrip("/")


def _on_the_way(match: Keys) -> Iterator[str | None]:
    """The keys of all that may take a path of `match` and are no more specific than it."""
    yield _ANYWHERE
    yield _REGEX
    path = _literal(match)
    if not path:
        return
    yield path
    end = path.find("/", 1)
    for _ in range(MOST_SEGMENTS):
        if end < 0:
            return
        if end < len(path):
            yield path[:end]
        end = path.find("/", end + 1)


def _matches(route: DraftRoute) -> list[Keys]:
    found = route.keys.get("match", {})
    return found if isinstance(found, list) else [found]


def _rank(match: Keys) -> Rank:
    """As `core/routing.py` has it: the less, the more specific."""
    kind, value = next(iter(match.get("path", {"prefix": "/"}).items()))
    place = 3 if value.rstrip("/") == "" and kind == "prefix" else ("exact", "prefix", "regex").index(kind)
    length = -len(value.rstrip("/")) if kind == "prefix" else 0
    headers, query = len(match.get("headers", {})), len(match.get("query", {}))
    return place, length, "port" not in match, "methods" not in match, -headers, -query


def _is_disjoint(one: Keys, two: Keys) -> bool:
    """Certainly no request fulfils both."""
    if set(one.get("hosts", ["*"])).isdisjoint(two.get("hosts", ["*"])) and "hosts" in one and "hosts" in two:
        return True
    if "port" in one and "port" in two and one["port"] != two["port"]:
        return True
    if "methods" in one and "methods" in two and set(one["methods"]).isdisjoint(two["methods"]):
        return True
    for key in ("headers", "query"):
        mine, theirs = one.get(key, {}), two.get(key, {})
        if any(_differ(mine[name], theirs[name]) for name in mine.keys() & theirs.keys()):
            return True
    return _paths_part(one.get("path", {}), two.get("path", {}))


def _differ(one: Any, two: Any) -> bool:
    absent = {"present": False}
    if absent in (one, two):
        return bool(one != two)
    return isinstance(one, str) and isinstance(two, str) and one != two


def _paths_part(one: Keys, two: Keys) -> bool:
    if "regex" in one or "regex" in two or not one or not two:
        return False
    if "exact" in one and "exact" in two:
        return str(one["exact"]) != str(two["exact"])
    if "exact" in one:
        return not _is_below(one["exact"], two["prefix"])
    if "exact" in two:
        return not _is_below(two["exact"], one["prefix"])
    return not (_is_below(one["prefix"], two["prefix"]) or _is_below(two["prefix"], one["prefix"]))


def _is_below(path: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return path == prefix or path.startswith(f"{prefix}/")


def _covers(wide: Keys, narrow: Keys) -> bool:
    """Certainly every request of `narrow` fulfils `wide`."""
    for key in ("hosts", "methods"):
        if key in wide and not (key in narrow and set(narrow[key]) <= set(wide[key])):
            return False
    if "port" in wide and wide["port"] != narrow.get("port"):
        return False
    for key in ("headers", "query"):
        mine, theirs = wide.get(key, {}), narrow.get(key, {})
        if any(name not in theirs or theirs[name] != condition for name, condition in mine.items()):
            return False
    path, other = wide.get("path", {}), narrow.get("path", {})
    if not path or path == other:
        return True
    value = other.get("exact", other.get("prefix"))
    return "prefix" in path and value is not None and _is_below(value, path["prefix"])
