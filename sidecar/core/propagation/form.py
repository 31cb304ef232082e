"""What one way to hand on a trace's context, beside W3C's, has to do: read it, and write it anew.

A form keeps nothing between requests. NextIds are lower-case hex in bytes, as in `tracecontext`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, NamedTuple

ZERO_HALF: Final = b"0" * 16
"""Of a trace id, or a whole span id."""
_ZERO_TRACE: Final = ZERO_HALF * 2
MAX_PARTS: Final = 128
"""Of a field that is a list; what comes after them is not looked at. 60 KB of separators took 10 ms of the loop."""


class CameContext(NamedTuple):
    """What a request's fields of one form say."""

    trace_id: bytes
    """32 hex digits; empty: none came, or none that is valid."""
    span_id: bytes
    """16 hex digits; empty: none came. Never without a trace id."""
    is_sampled: bool | None
    """The caller's decision, which may come without ids; None: it leaves it to others."""


class NextIds(NamedTuple):
    """What the next hop is to be told."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool


class ContextForm(ABC):
    """One way to hand a context on, by fields of its own."""

    __slots__ = ("fields",)

    def __init__(self, fields: frozenset[bytes]) -> None:
        """`fields`: lower-case; all of them are left out where the form is written anew."""
        self.fields: Final = fields

    @abstractmethod
    def read(self, lookup: Mapping[bytes, bytes]) -> CameContext:
        """What the fields of a request say, whatever is wrong with them."""

    @abstractmethod
    def lines(self, lookup: Mapping[bytes, bytes], ids: NextIds) -> bytes:
        """The fields' lines that say `ids`; `lookup` has the request's own, whose further parts are kept."""


def came(trace_id: bytes, span_id: bytes, is_sampled: bool | None) -> CameContext:
    """The same without ids that are zero, which is none."""
    if trace_id == _ZERO_TRACE or not trace_id:
        return CameContext(b"", b"", is_sampled)
    return CameContext(trace_id, b"" if span_id == ZERO_HALF else span_id, is_sampled)


def shortest(trace_id: bytes) -> bytes:
    """In 64 bits where the high half is zero: so it came from somebody who knows no longer ones."""
    return trace_id[16:] if trace_id.startswith(ZERO_HALF) else trace_id
