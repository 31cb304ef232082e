"""gRPC's status codes, and which of them speak against an upstream (SPEC-PROTOCOLS 12)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class GrpcStatus(IntEnum):
    """grpc/doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


PREFIX: Final = "grpc:"
"""Before a status's name in the configuration (`failure_on`)."""

FAILURES: Final = frozenset({
    GrpcStatus.UNAVAILABLE, GrpcStatus.UNKNOWN, GrpcStatus.INTERNAL, GrpcStatus.DATA_LOSS,
    GrpcStatus.DEADLINE_EXCEEDED,
})  # fmt: skip
"""Count unless `failure_on` names gRPC codes itself; DEADLINE_EXCEEDED as a timeout."""

SERVER_ERRORS: Final = FAILURES | {GrpcStatus.UNIMPLEMENTED}
"""The server's fault: a SERVER span that ends with one is an error (OpenTelemetry's conventions for gRPC). Of all
others the caller's."""


def is_grpc(content_type: bytes) -> bool:
    """Whether a request with this `Content-Type` is a gRPC call (PROTOCOL-HTTP2.md: `application/grpc`, `+proto` or
    the like behind it). gRPC-Web is none: its status stands in the body (PROTOCOL-WEB.md), and HTTP's is all that a
    proxy sees."""
    return content_type.startswith(_TYPE) and content_type[len(_TYPE) :][:1] in _AFTER_TYPE


_TYPE: Final = b"application/grpc"
_AFTER_TYPE: Final = (b"", b"+", b";", b" ")


def from_http(status: int) -> GrpcStatus | None:
    """What an answer without `grpc-status` comes to, by its HTTP status (grpc/doc/http-grpc-status-mapping.md, with
    4xx good but for 429, and a 200 without trailers UNKNOWN); None for one that says nothing against the upstream.

    A caller's library makes UNAVAILABLE of 429 as well: what no gRPC server has said is no quota of its own."""
    if status in (429, 502, 503, 504):
        return GrpcStatus.UNAVAILABLE
    if status >= 500 or status == 200:
        return GrpcStatus.UNKNOWN
    return None
