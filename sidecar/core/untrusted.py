"""What strangers say of traces (`trust: none`): kept for those who search, believed by nobody (SPEC 5.6).

A stranger's sampled flag would fill the collector at no cost of his own, his trace id would let him into other
requests' deadlines, and the rest would stand in every log and span below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sidecar.core.headers import is_valid_request_id
from sidecar.core.propagation.chain import PropagationChain
from sidecar.core.tracecontext import parent_of

MAX_KEPT_BYTES: Final = 256
"""Of each value."""

_CONTEXT: Final = frozenset(
    {b"traceparent", b"tracestate", b"baggage", b"b3", b"x-amzn-trace-id", b"uber-trace-id"}
)
_CONTEXT_PREFIXES: Final = (b"x-b3-", b"x-datadog-", b"uberctx-")


class Untrusted(NamedTuple):
    """Empty where nothing, or nothing valid, came."""

    trace_id: bytes
    """32 hex digits."""
    span_id: bytes
    """16 hex digits."""
    tracestate: bytes
    baggage: bytes
    request_id: bytes


def what_came(lookup: Mapping[bytes, bytes], propagation: PropagationChain | None = None) -> Untrusted:
    """Read it out of a request's fields. `propagation`: the forms beside W3C's that are read."""
    trace_id, span_id = parent_of(lookup.get(b"traceparent", b""))
    if not trace_id and propagation is not None:
        trace_id, span_id, _ = propagation.stated(lookup)
    request_id = lookup.get(b"x-request-id", b"")
    return Untrusted(
        trace_id,
        span_id,
        lookup.get(b"tracestate", b"")[:MAX_KEPT_BYTES],
        lookup.get(b"baggage", b"")[:MAX_KEPT_BYTES],
        request_id if is_valid_request_id(request_id) else b"",
    )


def is_context(key: bytes) -> bool:
    """True for a field by which some propagator hands on traces or baggage, lower-case. `x-request-id` is none: this
    hop writes its own in its place."""
    return key in _CONTEXT or key.startswith(_CONTEXT_PREFIXES)
