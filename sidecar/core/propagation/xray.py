"""AWS X-Ray's field (https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html, "Tracing header")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from sidecar.core.propagation.form import MAX_PARTS, CameContext, ContextForm, NextIds, came

_FIELD: Final = b"x-amzn-trace-id"
_ROOT = re.compile(rb"1-([0-9a-f]{8})-([0-9a-f]{24})").fullmatch
_PARENT = re.compile(rb"[0-9a-f]{16}").fullmatch
_OURS: Final = (b"root", b"parent", b"sampled")
_DECISIONS: Final = {b"0": False, b"1": True}
"""`?` asks whoever comes next to decide."""
MAX_KEPT_BYTES: Final = 256
"""Of further parts, such as a load balancer's `Self` or Lambda's `Lineage`."""


class XRay(ContextForm):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(frozenset({_FIELD}))

    def read(self, lookup: Mapping[bytes, bytes]) -> CameContext:
        parts = {key: part.partition(b"=")[2].strip().lower() for key, part in _parts(lookup)}
        decision = _DECISIONS.get(parts.get(b"sampled", b""))
        root = _ROOT(parts.get(b"root", b""))
        if root is None:
            return CameContext(b"", b"", decision)
        parent = parts.get(b"parent", b"")  # A load balancer begins a trace without a span of its own.
        return came(root[1] + root[2], parent if _PARENT(parent) else b"", decision)

    def lines(self, lookup: Mapping[bytes, bytes], ids: NextIds) -> bytes:
        kept, left = b"", MAX_KEPT_BYTES
        for key, part in _parts(lookup):
            left -= 0 if key in _OURS else len(part) + 1
            if key not in _OURS and left >= 0:
                kept += b";" + part
        known = ids.trace_id[:8], ids.trace_id[8:], ids.span_id, ids.is_sampled, kept
        return b"x-amzn-trace-id: Root=1-%b-%b;Parent=%b;Sampled=%d%b\r\n" % known


def _parts(lookup: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Each part, with its name in lower case."""
    for part in lookup.get(_FIELD, b"").split(b";", MAX_PARTS)[:MAX_PARTS]:
        name, equals, _ = part.partition(b"=")
        if equals:
            yield name.strip().lower(), part.strip()
