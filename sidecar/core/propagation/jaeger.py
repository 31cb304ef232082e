"""Jaeger's own field (https://www.jaegertracing.io/docs/1.76/client-libraries/, "Propagation Format").

Its baggage (`uberctx-…`) is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sidecar.core.propagation.form import CameContext, ContextForm, NextIds, came, shortest

_FIELD: Final = b"uber-trace-id"
_VALUE = re.compile(rb"([0-9a-f]{1,32}):([0-9a-f]{1,16}):[0-9a-f]{0,16}:([0-9a-f]{1,2})").fullmatch
"""Trace, span, parent (deprecated), flags. Leading zeros may be left out."""
_SAMPLED: Final = 1
_DEBUG: Final = 2


class Jaeger(ContextForm):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(frozenset({_FIELD}))

    def read(self, lookup: Mapping[bytes, bytes]) -> CameContext:
        match = _match(lookup)
        if match is None:
            return CameContext(b"", b"", None)
        is_sampled = bool(int(match[3], 16) & (_SAMPLED | _DEBUG))
        return came(match[1].rjust(32, b"0"), match[2].rjust(16, b"0"), is_sampled)

    def lines(self, lookup: Mapping[bytes, bytes], ids: NextIds) -> bytes:
        match = _match(lookup)
        flags = 0
        if ids.is_sampled:
            flags = _SAMPLED | (int(match[3], 16) & _DEBUG if match is not None else 0)
        return b"uber-trace-id: %b:%b:0:%x\r\n" % (shortest(ids.trace_id), ids.span_id, flags)


def _match(lookup: Mapping[bytes, bytes]) -> re.Match[bytes] | None:
    """Some libraries write the value as in a URL."""
    return _VALUE(lookup.get(_FIELD, b"").strip().lower().replace(b"%3a", b":"))
