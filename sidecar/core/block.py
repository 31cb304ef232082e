"""A header block that heads share, and the fields of a head that shares most of them.

A module of its own because a class that extends a builtin one can't be compiled by mypyc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.core.head_template import HeadTemplate


class Block(list[tuple[bytes, bytes, bytes]]):
    """The fields of a block of lines that is remembered whole: shared by all heads that have it, and never changed.

    A list, so that whoever loops over fields need not know it; who joins their lines asks for `kept`.
    """

    __slots__ = ("budget", "drop", "kept", "lookup")

    def __init__(self, fields: Iterable[tuple[bytes, bytes, bytes]], lookup: dict[bytes, bytes]) -> None:
        super().__init__(fields)
        self.lookup = lookup
        """Values by key; never changed either."""
        self.drop: frozenset[bytes] | None = None
        """What `kept` was joined for."""
        self.kept = b""
        """The lines but for those of the keys in `drop`, joined."""
        self.budget: Any = None
        """The deadline policy and the route's seconds that its timeouts were last held against, and what came of it
        (`deadline.budget_of`); None before."""

    def keep(self, drop: frozenset[bytes]) -> bytes:
        """The lines but for those of the keys in `drop`, joined, and from now on at hand."""
        self.kept = b"".join([line for key, line, _ in self if key not in drop])
        self.drop = drop
        return self.kept


class AnswerBlock(Block):
    """Those of a plain response of HTTP/1.1: its request was no HEAD, its status allows a body, whose length one of
    its lines says, and it has no `Date`, which would differ each time. Its `lookup` is empty."""

    __slots__ = ()


class Filled(list[tuple[bytes, bytes, bytes]]):
    """The fields of one head that fill in a template, so that who joins their lines need not join those of it."""

    __slots__ = ("lookup", "template")

    template: HeadTemplate
    """Set by whoever makes it, as the next one."""
    lookup: dict[bytes, bytes]
    """Values by key."""
