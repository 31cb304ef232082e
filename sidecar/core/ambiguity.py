"""What of a request its upstream may read otherwise than we do, where a route was chosen by it (`ambiguous: refuse`).

A match asks for a field or a parameter, and servers do not agree about those: of two that are alike some take the
first, some the last, some both; many make one name of `x-debug` and `x_debug`, or of `a` and `a[]`; some part a query
at `;`. Whoever sends such a thing may have one route chosen and another thing done. A listener that strangers reach
refuses it, but only where some match of its routes asks for that very name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sidecar.core.headers import listed_in_connection
from sidecar.core.plain import Field
from sidecar.core.question import decoded

_SHOWN_BYTES: Final = 64
_AS_UNDERSCORES: Final = bytes.maketrans(b"-. ", b"___")
"""PHP makes one name of all of them, and of what is before a `[`."""


class Watched:
    """The names that the matches of one listener ask for. Immutable."""

    __slots__ = ("_fields", "_parameters", "field_names")

    def __init__(self, fields: Iterable[bytes], parameters: Iterable[bytes]) -> None:
        self.field_names: Final = frozenset(fields)
        """Lower-case."""
        self._fields: Final = _by_folded(self.field_names, folded_field)
        self._parameters: Final = _by_folded(parameters, folded_parameter)

    def __repr__(self) -> str:
        return f"<Watched {len(self._fields)} fields, {len(self._parameters)} parameters>"

    def problem(self, fields: Iterable[Field], connection: bytes | None, query: bytes) -> str:
        """What of this request can be read in two ways, for people; empty if nothing can.

        `connection`: the value of its `Connection` field.
        """
        if self._fields:
            found = self._twofold_field(fields)
            if found is None and connection is not None:
                found = self._listed_field(connection)
            if found is not None:
                return f"a route asks for the field {_shown(found)}, which comes in two forms"
        if self._parameters and query:
            found = self._twofold_parameter(query)
            if found is not None:
                return f"a route asks for the parameter {_shown(found)}, which can be read in two ways"
        return ""

    def _twofold_field(self, fields: Iterable[Field]) -> bytes | None:
        """Comes twice, or with `_` for `-` or the reverse."""
        seen = set()
        for key, _, _ in fields:
            folded = folded_field(key)
            asked = self._fields.get(folded)
            if asked is not None:
                if key not in asked or folded in seen:
                    return key
                seen.add(folded)
        return None

    def _listed_field(self, connection: bytes) -> bytes | None:
        """Ends at this hop, so the upstream does not see what its route was chosen by."""
        for name in listed_in_connection(connection):
            if folded_field(name) in self._fields:
                return name
        return None

    def _twofold_parameter(self, query: bytes) -> bytes | None:
        seen = set()
        for part in query.split(b"&"):
            is_parted = b";" in part
            for piece in part.split(b";") if is_parted else (part,):
                written, _, value = piece.partition(b"=")
                name = decoded(written)
                folded = folded_parameter(name)
                asked = self._parameters.get(folded)
                if asked is None:
                    continue
                if is_parted or name not in asked or folded in seen or _is_twofold(value):
                    return name
                seen.add(folded)
        return None


def folded_field(key: bytes) -> bytes:
    """One name for all that servers may take for the same, lower-case."""
    return key.replace(b"_", b"-") if 95 in key else key


def folded_parameter(name: bytes) -> bytes:
    """The same of an unescaped name: without white space around it, and what is behind `[` or a NUL."""
    return name.partition(b"[")[0].partition(b"\0")[0].strip().translate(_AS_UNDERSCORES)


def _is_twofold(value: bytes) -> bool:
    """`+` is a space to forms and itself to URLs; many readers drop white space around a value."""
    if 43 in value:
        return True
    plain = decoded(value)
    return plain != plain.strip()


def _by_folded(names: Iterable[bytes], fold: Callable[[bytes], bytes]) -> Mapping[bytes, frozenset[bytes]]:
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for name in names:
        found[fold(name)].add(name)
    return {folded: frozenset(asked) for folded, asked in found.items()}


def _shown(name: bytes) -> str:
    return ascii(name[:_SHOWN_BYTES].decode("ascii", "replace"))
