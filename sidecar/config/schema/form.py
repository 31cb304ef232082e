"""How a value stands in the snapshot, and how a file would write it: the two directions of one key.

`schema/section.py` goes through the keys; here is what is special about the value of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from sidecar.config.schema import hidden_values
from sidecar.core.actions.template import Value, value_of
from sidecar.core.dataclass import dataclass
from sidecar.core.grpc_status import PREFIX, GrpcStatus

Hidden = frozenset[str]
"""Texts that the environment gave and that are told to nobody."""


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """Of the values of one key."""

    store: Callable[[Any], Any] = _same
    """What was read → what the snapshot holds."""
    write: Callable[[Any], Any] = _same
    """What the snapshot holds → what the file would say, as YAML data."""
    tell: Callable[[Any, Hidden], str | None] | None = None
    """What the snapshot holds → its text for people, None for unset; where `write` would tell too much."""

    unset: str | None = None
    """What people are told where the snapshot holds None; None: nothing."""

    def text(self, value: Any, hidden: Hidden) -> str | None:
        """What people are told of a value of the snapshot; None for unset."""
        return self.tell(value, hidden) if self.tell is not None else flow(self.write(value))


def flow(data: Any) -> str:
    """YAML data on one line, without quotes."""
    if isinstance(data, str):
        return data
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, Mapping):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return f"[{', '.join(map(flow, data))}]"
    return str(data)


def word(value: Any) -> Any:
    """The word that stands for a member of an enum; any other value itself."""
    if isinstance(value, GrpcStatus):
        return PREFIX + value.name
    return value.value if isinstance(value, Enum) else value


def _as_fields(headers: Mapping[str, str | None]) -> tuple[tuple[bytes, Value], ...]:
    return tuple((name.encode(), value_of(value)) for name, value in headers.items() if value is not None)


def _from_fields(fields: Iterable[tuple[bytes, Value]]) -> dict[str, str]:
    return {
        name.decode(): value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for name, value in fields
    }


def _tell_fields(fields: Iterable[tuple[bytes, Value]], hidden: Hidden) -> str | None:
    found = _from_fields(fields)
    return (
        flow({name: hidden_values.content(name, text, hidden) for name, text in found.items()})
        if found
        else None
    )


def _from_names(names: Iterable[bytes]) -> list[str]:
    return sorted(name.decode() for name in names)


PLAIN = Form()
"""Stands alike on both sides."""
WORD = Form(write=word)
WORDS = Form(store=frozenset, write=lambda items: sorted(map(word, items), key=str))
"""A set of words and numbers, in any order."""
FIELDS = Form(_as_fields, _from_fields, _tell_fields)
"""Header fields by name, of which some values may be secrets."""
NAME_SET = Form(
    lambda names: frozenset(name.encode() for name in names),
    _from_names,
    lambda names, _: flow(_from_names(names)) if names else None,
)
"""Names of header fields, in any order."""
NAME_LIST = Form(
    lambda names: tuple(name.encode() for name in names), lambda names: [name.decode() for name in names]
)
"""Names of header fields, whose order the user chose."""
METHODS = Form(frozenset, sorted, lambda methods, _: flow(sorted(methods)) if methods else None)
"""Of requests, in any order."""
TEXT_LIST = Form(tuple, lambda items: [str(item) for item in items])
HIDEABLE = Form(tell=hidden_values.text)
"""A text that may hold what the environment gave."""
URL = Form(tell=lambda url, _: hidden_values.url(url))
"""Told without user, password and query."""
