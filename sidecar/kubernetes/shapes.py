"""Parts of an object as plain data, whatever somebody wrote there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping_of(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping at `key`; an empty one for anything else."""
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def items_of(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The mappings in the list at `key`; what is no mapping is left out."""
    value = data.get(key)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def named(items: list[Mapping[str, Any]], name: str) -> bool:
    """True if one of `items` has this name."""
    return any(item.get("name") == name for item in items)
