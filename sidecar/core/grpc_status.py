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


def from_http(status: int) -> GrpcStatus | None:
    """What an answer without `grpc-status` comes to, by its HTTP status (grpc/doc/http-grpc-status-mapping.md, with
    4xx good but for 429, and a 200 without trailers UNKNOWN); None for one that says nothing against the upstream."""
    if status == 429:
        return GrpcStatus.RESOURCE_EXHAUSTED
    if status in (502, 503, 504):
        return GrpcStatus.UNAVAILABLE
    if status >= 500 or status == 200:
        return GrpcStatus.UNKNOWN
    return None
