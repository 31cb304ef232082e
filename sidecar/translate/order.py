"""Where "the first rule that matches" (Istio) and "the most specific one" (the sidecar) take a request differently.

Two matches of one VirtualService are compared as far as that can be said for certain; where it cannot, they are
taken to overlap, so that too much is told rather than too little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.translate.draft import DraftRoute, Keys

Difference = tuple[str, str, str, DraftRoute | None]
"""Place, path, what differs, and the route that is left out for it."""


def differences(routes: list[DraftRoute]) -> Iterator[Difference]:
    """`routes` in the order of their source."""
    matches = [(route, match) for route in routes for match in _matches(route)]
    told: set[tuple[str, str]] = set()
    gone: set[str] = set()
    for number, (later, wanted) in enumerate(matches):
        for earlier, taken in matches[:number]:
            pair = earlier.name, later.name
            if earlier is later or pair in told or {earlier.name, later.name} & gone:
                continue
            if _rank(wanted) >= _rank(taken) or _is_disjoint(taken, wanted):
                continue
            told.add(pair)
            place, _, path = later.origin.partition(" ")
            is_dead = len(_matches(later)) == 1 and _covers(taken, wanted)
            if is_dead:
                gone.add(later.name)
                yield (
                    place,
                    path,
                    f"left out: rule {earlier.name} stands before it and takes all of its requests",
                    later,
                )
            else:
                why = f"{earlier.name} comes first in the source, but {later.name} is more specific and wins here"
                yield place, path, why, None


def _matches(route: DraftRoute) -> list[Keys]:
    found = route.keys.get("match", {})
    return found if isinstance(found, list) else [found]


def _rank(match: Keys) -> tuple[int, int, bool, bool, int, int]:
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
