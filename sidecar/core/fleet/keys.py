"""What two processes call the same breaker: only then do they speak of it.

A breaker's key has a digest of all that decides what it sees and does. While a rolling deploy changes one of these,
old and new are two fleets, that do not hear each other; so is a staging system on the same store."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Final

DIGEST_CHARACTERS: Final = 16
MAX_PLAIN: Final = 150
"""Characters of route and upstream that stand in a key; longer ones are shortened, and told apart by the digest."""


def fleet_prefix(prefix: str, namespace: str, fleet: str) -> str:
    """What all keys of a fleet in a store begin with. No part can be taken for another: each `:` in it is doubled."""
    return ":".join(part.replace(":", "::") for part in (prefix, namespace, fleet))


def breaker_key(route: str, upstream: str, *decisive: object) -> str:
    """The key of a breaker: `route/upstream@digest`.

    Args:
        decisive: the route's match, the upstream's endpoints as written, the policy of the breaker: values, nested
            dataclasses, mappings, sequences and sets of them. Equal ones give equal digests in every process.
    """
    text = "\n".join(map(_plain, (route, upstream, *decisive)))
    digest = hashlib.blake2b(text.encode(), digest_size=DIGEST_CHARACTERS // 2).hexdigest()
    name = "".join(one if one.isprintable() else "?" for one in f"{route}/{upstream}")
    return f"{name if len(name) <= MAX_PLAIN else name[:MAX_PLAIN]}@{digest}"


def name_of(key: str) -> str:
    """Route and upstream of a key, without the digest: two keys of one name are two versions."""
    return key.rpartition("@")[0]


def _plain(value: object) -> str:
    """The same text for equal values in every process: neither addresses nor the order of a set or mapping."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if is_dataclass(value):
        inner = ",".join(
            f"{one.name}={_plain(getattr(value, one.name))}" for one in fields(value) if one.compare
        )
        return f"{type(value).__name__}({inner})"
    if isinstance(value, Mapping):
        return _joined("{", sorted(f"{_plain(key)}:{_plain(one)}" for key, one in value.items()))
    if isinstance(value, frozenset | set):
        return _joined("<", sorted(map(_plain, value)))
    if isinstance(value, list | tuple):
        return _joined("[", map(_plain, value))
    if not isinstance(value, Hashable) or type(value).__repr__ is object.__repr__:
        raise TypeError(f"a {type(value).__name__} has no text that is the same in every process")
    return repr(value)


def _joined(bracket: str, parts: Iterable[str]) -> str:
    return bracket + ",".join(parts) + bracket
