"""Heads on their way to the next hop: what is in them, in no protocol's form.

A head is the fields that came, what of them to leave out, what a route adds and what this hop says itself. Nothing is
copied or written until a codec does it in its own form: HTTP/1.1 joins lines, HTTP/2 writes pairs. Heads live as long
as their message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sidecar.core.plain import Field
from sidecar.core.request import Request

Own = list[bytes]
"""Fields that this hop writes itself: pieces that make lines of the form `name: value` CRLF when they are joined,
which is what HTTP/1.1 does (0.5 µs less than a pair for each); another codec asks `own_pairs`.

Every other piece, from the first one on, is text of ours. The second, the fourth and so on is a value, or part of
one, where it stands within a line; such a piece holds no line end, and HTTP/2 looks for none (`http2/layouts.py`)."""


def own_pairs(own: Own) -> list[tuple[bytes, bytes]]:
    """The same as (key, value), for a codec that does not write lines. No value holds CR or LF."""
    lines = b"".join(own).split(b"\r\n")
    lines.pop()
    pairs = []
    for line in lines:
        name, _, value = line.partition(b": ")
        pairs.append((name.lower(), value))
    return pairs


class Added:
    """What a route adds to every head, made once."""

    __slots__ = ("lines", "pairs")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        written = tuple(pairs)
        self.pairs = tuple((name.lower(), value) for name, value in written)
        self.lines = b"".join(b"%b: %b\r\n" % pair for pair in written)
        """In HTTP/1.1's form, with names as they were written."""


NOTHING: Final = Added()
NONE_INDEXED: Final[frozenset[bytes]] = frozenset()
_NONE: Final[frozenset[bytes]] = frozenset()


class RequestHead:
    """What one attempt sends to its upstream.

    `forwarding.heads.request_head` alone makes it, and sets all of it: the call of an `__init__` takes 0.07 µs.
    """

    __slots__ = ("added", "authority", "drop", "own", "request", "target")

    request: Request
    """Its method, its fields, and what is special about it (`traits`), framing included."""
    target: bytes
    """Path and query, or `*`."""
    authority: bytes
    drop: frozenset[bytes]
    """Keys of the request's fields that do not go on."""
    added: Added
    own: Own
    """Where the first piece is whole lines, many heads of one client have it alike."""


class ResponseHead:
    """What an upstream answered, and then what its client gets.

    The upstream's connection makes it; the attempt says what to leave out and what to add (`own` and the following).
    Made by `response_head`, or like it where a call would cost too much.
    """

    __slots__ = (
        "added",
        "drop",
        "fields",
        "has_own_date",
        "length",
        "listed",
        "never_indexed",
        "own",
        "status",
    )

    status: int
    fields: Sequence[Field]
    length: int | None
    """Of the body, in bytes; None when it ends with a chunk, a frame or the connection."""
    listed: bytes
    """The value of its `Connection` field, or empty."""
    never_indexed: frozenset[bytes]
    """Keys of fields that no hop may keep in a compression table (RFC 7541 7.1.3)."""
    own: Own
    added: Added
    drop: frozenset[bytes]
    has_own_date: bool
    """The route decides about `Date`; else the first that came goes on, or the codec adds one (RFC 9110 6.6.1)."""

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} fields={len(self.fields)} length={self.length}>"


def response_head(
    status: int, fields: Sequence[Field], length: int | None, listed: bytes = b""
) -> ResponseHead:
    """The head as it came; what to leave out and to add is not said yet."""
    head = ResponseHead()
    head.status, head.fields, head.length, head.listed = status, fields, length, listed
    head.never_indexed = NONE_INDEXED
    return head


def own_answer(status: int, own: Own, length: int | None, *, has_own_date: bool = False) -> ResponseHead:
    """The head of an answer that the sidecar makes itself."""
    head = response_head(status, [], length)
    head.drop, head.added, head.own, head.has_own_date = _NONE, NOTHING, own, has_own_date
    return head
