"""gRPC's own words: what an answer of ours says to its callers, and how theirs is read.

Sources: gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md) and its status codes (grpc/doc/statuscodes.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.plain import Field

STATUS: Final = b"grpc-status"
MAX_MESSAGE_BYTES: Final = 1024
"""Of `grpc-message`, before it is encoded."""

CODES: Final = {
    Reason.DEADLINE_EXCEEDED: GrpcStatus.DEADLINE_EXCEEDED,
    Reason.TIMEOUT: GrpcStatus.DEADLINE_EXCEEDED,
    Reason.OVERLOADED: GrpcStatus.RESOURCE_EXHAUSTED,
    Reason.NO_ROUTE: GrpcStatus.UNIMPLEMENTED,
    Reason.CLOSED_ADDRESS: GrpcStatus.PERMISSION_DENIED,
    Reason.METHOD_NOT_ALLOWED: GrpcStatus.UNIMPLEMENTED,
    Reason.NOT_IMPLEMENTED: GrpcStatus.UNIMPLEMENTED,
    Reason.CALLER_GONE: GrpcStatus.CANCELLED,
    Reason.CLIENT_GONE: GrpcStatus.CANCELLED,
    Reason.PROTOCOL_ERROR: GrpcStatus.INTERNAL,
    Reason.BAD_REQUEST: GrpcStatus.INTERNAL,
    Reason.HEAD_TOO_LARGE: GrpcStatus.RESOURCE_EXHAUSTED,
    Reason.URL_TOO_LONG: GrpcStatus.INTERNAL,
    Reason.CLIENT_DENIED: GrpcStatus.PERMISSION_DENIED,
    Reason.BODY_TOO_LARGE: GrpcStatus.RESOURCE_EXHAUSTED,
    Reason.REQUEST_TIMEOUT: GrpcStatus.CANCELLED,
}
"""All other reasons are UNAVAILABLE: the call may be made again, here or elsewhere."""


def code_of(reason: Reason) -> GrpcStatus:
    """What a caller is told for `reason`."""
    return CODES.get(reason, GrpcStatus.UNAVAILABLE)


def percent_encoded(message: str) -> bytes:
    """`grpc-message`: UTF-8 with every byte but visible ASCII and space as `%XX`, and `%` too."""
    raw = message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES]
    return b"".join(_ENCODED[byte] for byte in raw)


_ENCODED: Final = [
    bytes((byte,)) if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in range(256)
]


def own_trailers(reason: Reason, detail: str, retry_after_seconds: float = 0.0) -> list[tuple[bytes, bytes]]:
    """What says to a gRPC caller how its call has ended; `grpc-retry-pushback-ms` only where a time is known."""
    pairs = [
        (STATUS, b"%d" % code_of(reason)),
        (b"grpc-message", percent_encoded(f"{reason.value}: {detail}" if detail else reason.value)),
    ]
    if retry_after_seconds > 0:
        pairs.append((b"grpc-retry-pushback-ms", b"%d" % (retry_after_seconds * 1000.0)))
    return pairs


def status_in(fields: Sequence[Field]) -> int | None:
    """What `grpc-status` says in a head or in trailers; None where it is missing, UNKNOWN where it is no code
    that there is (statuscodes.md)."""
    for key, _, value in fields:
        if key == STATUS:
            return _KNOWN.get(value, UNKNOWN)
    return None


UNKNOWN: Final = int(GrpcStatus.UNKNOWN)
_KNOWN: Final = {b"%d" % status: int(status) for status in GrpcStatus}
