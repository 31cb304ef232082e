"""B3, in one field or in several (https://github.com/openzipkin/b3-propagation)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sidecar.core.propagation.form import CameContext, ContextForm, NextIds, came, shortest

_SINGLE: Final = b"b3"
_TRACE, _SPAN = b"x-b3-traceid", b"x-b3-spanid"
_SAMPLED, _FLAGS = b"x-b3-sampled", b"x-b3-flags"
_SEVERAL: Final = frozenset({_TRACE, _SPAN, b"x-b3-parentspanid", _SAMPLED, _FLAGS})

_IDS = re.compile(rb"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})").fullmatch
_VALUE = re.compile(
    rb"((?:[0-9a-f]{16}){1,2}-[0-9a-f]{16})(?:-(0|1|d|true|false)(?:-[0-9a-f]{16})?)?"
).fullmatch
_DECISIONS: Final = {b"0": False, b"false": False, b"1": True, b"true": True, b"d": True}
"""`d` is debug: record it at each hop. Older senders write words."""


class B3(ContextForm):
    """Both ways are read, and each that came is written; where none came, the one that was configured."""

    __slots__ = ("_is_single",)

    def __init__(self, *, is_single: bool) -> None:
        super().__init__(_SEVERAL | {_SINGLE})
        self._is_single = is_single

    def read(self, lookup: Mapping[bytes, bytes]) -> CameContext:
        single = _read_single(lookup[_SINGLE]) if _SINGLE in lookup else None
        if single is not None and single.trace_id:
            return single
        several = _read_several(lookup)
        if several.trace_id or single is None or single.is_sampled is None:
            return several
        return single

    def lines(self, lookup: Mapping[bytes, bytes], ids: NextIds) -> bytes:
        trace_id, is_debug = shortest(ids.trace_id), ids.is_sampled and _is_debug(lookup)
        has_single, has_several = _SINGLE in lookup, not _SEVERAL.isdisjoint(lookup)
        decision = b"1" if ids.is_sampled else b"0"
        lines = b""
        if has_single or (self._is_single and not has_several):
            lines = b"b3: %b-%b-%b\r\n" % (trace_id, ids.span_id, b"d" if is_debug else decision)
        if has_several or not lines:
            lines += b"x-b3-traceid: %b\r\nx-b3-spanid: %b\r\n" % (trace_id, ids.span_id)
            lines += b"x-b3-flags: 1\r\n" if is_debug else b"x-b3-sampled: %b\r\n" % decision
        return lines


def _read_single(value: bytes) -> CameContext:
    value = value.strip().lower()
    match = _VALUE(value)
    if match is None:
        return CameContext(b"", b"", _DECISIONS.get(value))
    return _with_ids(match[1], None if match[2] is None else _DECISIONS[match[2]])


def _read_several(lookup: Mapping[bytes, bytes]) -> CameContext:
    if lookup.get(_FLAGS, b"").strip() == b"1":
        decision: bool | None = True
    else:
        decision = _DECISIONS.get(lookup.get(_SAMPLED, b"").strip().lower())
    ids = lookup.get(_TRACE, b"").strip() + b"-" + lookup.get(_SPAN, b"").strip()
    return _with_ids(ids.lower(), decision)


def _with_ids(ids: bytes, decision: bool | None) -> CameContext:
    match = _IDS(ids)
    if match is None:
        return CameContext(b"", b"", decision)
    return came(match[1].rjust(32, b"0"), match[2], decision)


def _is_debug(lookup: Mapping[bytes, bytes]) -> bool:
    match = _VALUE(lookup.get(_SINGLE, b"").strip().lower())
    is_single = match is not None and match[2] == b"d"
    return is_single or lookup.get(_SINGLE) == b"d" or lookup.get(_FLAGS, b"").strip() == b"1"
