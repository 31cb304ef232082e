"""Whose memory it is: the size of every object, told of the class, module or function that holds it.

Types alone say too little: a tuple may be anybody's. What is Python's own (a tuple, a dict, a string) counts for
whoever holds it, up to the first object that has a name; what several hold, for the first that is found. Strings,
numbers and what is made of them alone, which no list of the collector has, are found through their holder.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

LEAST_BYTES: Final = 1024
"""What an owner must hold to be told of."""
_PASSED: Final = (tuple, list, dict, set, frozenset, deque, types.MethodType, types.CellType)
"""What counts for its holder."""
_MOST_PASSED: Final = 8
NOBODY: Final = "nobody"
_Cache = type(functools.lru_cache(lambda: None))


@dataclass
class Owned:
    """By the name of an owner."""

    sizes: Counter[str] = field(default_factory=Counter)
    """In bytes, without what the allocator adds to each object."""
    counts: Counter[str] = field(default_factory=Counter)
    """Objects."""

    def add(self, owner: str, one: object) -> None:
        self.sizes[owner] += sys.getsizeof(one)
        self.counts[owner] += 1

    def told(self) -> dict[str, tuple[int, int]]:
        """Bytes and objects of those that hold much."""
        return {name: (size, self.counts[name]) for name, size in self.sizes.items() if size >= LEAST_BYTES}


def owned(tracked: Iterable[Any]) -> Owned:
    """By owner, of what the collector lists (`gc.get_objects`) and of all that hangs on it."""
    found = Owned()
    holders = _holders(tracked)
    seen = set(map(id, tracked))
    for one in tracked:
        owner = _owner(one, holders.get)
        found.add(owner, one)
        for inner in _unlisted(one, seen):
            found.add(owner, inner)
    return found


def caches(tracked: Iterable[Any]) -> dict[str, tuple[int, int]]:
    """Of each `lru_cache` that has a limit: how many entries it has, and how many it may have."""
    infos = {_name(one): one.cache_info() for one in tracked if isinstance(one, _Cache)}
    return {name: (info.currsize, info.maxsize) for name, info in infos.items() if info.maxsize}


def _holders(tracked: Iterable[Any]) -> dict[int, Any]:
    """Who holds what counts for its holder, by the identity of that. The list itself and running frames hold nothing
    that is not held elsewhere."""
    found: dict[int, Any] = {}
    for one in tracked:
        if one is tracked or isinstance(one, types.FrameType):
            continue
        for inner in gc.get_referents(one):
            if type(inner) in _PASSED:
                found.setdefault(id(inner), one)
    return found


def _owner(one: Any, holder_of: Callable[[int], Any]) -> str:
    for _ in range(_MOST_PASSED):
        if type(one) not in _PASSED:
            return _name(one)
        one = holder_of(id(one))
        if one is None:
            return NOBODY
    return NOBODY


def _name(one: Any) -> str:
    if isinstance(one, types.ModuleType):
        return f"module {one.__name__}"
    if isinstance(one, _Cache):
        return f"cache of {one.__module__}.{one.__qualname__}"
    if isinstance(one, types.FunctionType | type):
        return f"{'class' if isinstance(one, type) else 'function'} {one.__module__}.{one.__qualname__}"
    return f"{type(one).__module__}.{type(one).__qualname__}"


def _unlisted(one: Any, seen: set[int]) -> Iterator[Any]:
    """What it holds, and what that holds, that is neither in the collector's list nor in `seen`, which it joins."""
    waiting = [one]
    while waiting:
        for inner in gc.get_referents(waiting.pop()):
            if id(inner) not in seen and not gc.is_tracked(inner):
                seen.add(id(inner))
                waiting.append(inner)
                yield inner
