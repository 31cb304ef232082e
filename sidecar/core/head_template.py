"""What the heads of one client have in common where some of their lines differ each time.

A client that traces its calls sends the same lines with each, but for its ids and perhaps a timeout. `plain.py` reads
such a head by filling in a template. Whatever depends on the names of the fields alone is found once for a template,
and not for each head. Shared by all heads that fill it in; owner: the loop's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.core.headers import TELLS_OF_CLIENT

Field = tuple[bytes, bytes, bytes]
Gap = tuple[int, bytes, bytes, bytes]
"""Of a value that differs each time: its field's place, its key, the text of its line before it, and the text from
behind it up to the next such value, or to the head's end, that end included."""


class HeadTemplate:
    """Fields in their order, those that differ each time by their names alone. No key comes twice."""

    __slots__ = (
        "begins", "behind", "drop", "gaps", "kept", "lookup", "start", "start_bytes",
        "tells_of_client", "timeouts",
    )  # fmt: skip

    def __init__(self, fields: Sequence[Field | None], start: bytes, gaps: Sequence[Gap]) -> None:
        """`fields`: None where one differs. `start`: the head from its version up to the first value that does."""
        self.begins = tuple(fields)
        """What the fields of a head begin as."""
        self.start = start
        self.start_bytes = len(start)
        self.gaps = tuple(gaps)
        self.lookup = {field[0]: field[2] for field in fields if field is not None}
        """Values by key, empty ones of those that differ: to make room for them takes 300 instructions each."""
        for _, name, _, _ in gaps:
            self.lookup[name] = b""
        self.drop: frozenset[bytes] | None = None
        """What `kept` and `behind` were joined for."""
        self.kept = b""
        """The lines before the first one that differs and is not in `drop`, joined."""
        self.behind: tuple[tuple[int, bytes], ...] = ()
        """Which of those that differ goes on next, by its place, and the lines behind it, joined."""
        self.tells_of_client = not TELLS_OF_CLIENT.isdisjoint(self.lookup)
        self.timeouts: Any = None
        """What the deadline policy that was asked for last has to look at (`deadline.timeouts_of`); None before."""

    def __repr__(self) -> str:
        return f"<HeadTemplate {b', '.join(self.lookup).decode('latin-1')}>"

    def keep(self, drop: frozenset[bytes]) -> bytes:
        """Join the lines of those that are not in `drop`; returns the first of them, see `kept`."""
        names = {place: name for place, name, _, _ in self.gaps}
        pieces: list[tuple[int, list[bytes]]] = [(-1, [])]
        for place, field in enumerate(self.begins):
            if field is None:
                if names[place] not in drop:
                    pieces.append((place, []))
            elif field[0] not in drop:
                pieces[-1][1].append(field[1])
        (_, first), *others = pieces
        self.kept = b"".join(first)
        self.behind = tuple([(place, b"".join(lines)) for place, lines in others])
        self.drop = drop
        return self.kept
