"""Datadog's fields (https://docs.datadoghq.com/tracing/trace_collection/trace_context_propagation/).

Ids are 64 bits in decimal; a trace id's high half stands among the tags. `x-datadog-origin` is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sidecar.core.propagation.form import MAX_PARTS, ZERO_HALF, CameContext, ContextForm, NextIds, came

_TRACE, _PARENT = b"x-datadog-trace-id", b"x-datadog-parent-id"
_PRIORITY, _TAGS = b"x-datadog-sampling-priority", b"x-datadog-tags"
_HIGH_HALF: Final = b"_dd.p.tid="
_ID = re.compile(rb"[0-9]{1,20}").fullmatch
_WHOLE = re.compile(rb"-?[0-9]{1,3}").fullmatch
_HALF = re.compile(rb"[0-9a-f]{16}").fullmatch
_END_OF_IDS: Final = 1 << 64
MAX_TAGS_BYTES: Final = 512
"""As many as the vendor's own libraries take; further tags are left out."""


class Datadog(ContextForm):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(frozenset({_TRACE, _PARENT, _PRIORITY, _TAGS}))

    def read(self, lookup: Mapping[bytes, bytes]) -> CameContext:
        priority = _priority(lookup)
        low = _hex(lookup.get(_TRACE, b""))
        if low == ZERO_HALF:
            return CameContext(b"", b"", None if priority is None else priority > 0)
        high = next((tag[len(_HIGH_HALF) :] for tag in _tags(lookup) if tag.startswith(_HIGH_HALF)), b"")
        parent = _hex(lookup.get(_PARENT, b""))
        trace_id = (high if _HALF(high) else ZERO_HALF) + low
        return came(trace_id, parent, None if priority is None else priority > 0)

    def lines(self, lookup: Mapping[bytes, bytes], ids: NextIds) -> bytes:
        """A priority that agrees with our decision is kept: 2 and -1 are a person's own."""
        priority = _priority(lookup)
        if priority is None or (priority > 0) is not ids.is_sampled:
            priority = int(ids.is_sampled)
        high, low = ids.trace_id[:16], ids.trace_id[16:]
        tags = [] if high == ZERO_HALF else [_HIGH_HALF + high]
        left = MAX_TAGS_BYTES - sum(map(len, tags))
        for tag in _tags(lookup):
            left -= len(tag) + 1
            if left >= 0 and not tag.startswith(_HIGH_HALF):
                tags.append(tag)
        known = int(low, 16), int(ids.span_id, 16), priority
        lines = (
            b"x-datadog-trace-id: %d\r\nx-datadog-parent-id: %d\r\nx-datadog-sampling-priority: %d\r\n"
            % known
        )
        return lines + b"x-datadog-tags: %b\r\n" % b",".join(tags) if tags else lines


def _priority(lookup: Mapping[bytes, bytes]) -> int | None:
    value = lookup.get(_PRIORITY, b"").strip()
    return int(value) if _WHOLE(value) else None


def _hex(value: bytes) -> bytes:
    """A decimal id in 16 hex digits; that of zero if it is none."""
    value = value.strip()
    number = int(value) if _ID(value) else 0
    return b"%016x" % number if number < _END_OF_IDS else ZERO_HALF


def _tags(lookup: Mapping[bytes, bytes]) -> list[bytes]:
    parts = lookup.get(_TAGS, b"").split(b",", MAX_PARTS)[:MAX_PARTS]
    return [tag for part in parts if (tag := part.strip())]
