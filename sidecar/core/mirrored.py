"""What became of a copy of a request (`mirror`): for metrics and spans."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from sidecar.core.errors import Reason
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint

MARK: Final = b"x-sidecar-mirror"
"""The field of a request that is a copy: its answer goes to nobody, and it is not copied again."""


class CopyOutcome(Enum):
    """`sidecar.mirror.outcome`."""

    ANSWERED = "answered"
    """Whatever the status."""
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SLOW = "slow"
    """Its upstream took the body more slowly than the client sent it: cut."""
    CUT = "cut"
    """The request ended before its body was whole."""
    CROWDED = "crowded"
    """Not sent: `max_in_flight`, a limit of its upstream, or an overload of the sidecar."""
    NO_MEMORY = "no_memory"
    """Not sent, or stopped: memory is short, or the process ends."""


class Mirrored(NamedTuple):
    """One copy that was sent. Times are monotonic seconds."""

    route: str
    upstream: str
    outcome: CopyOutcome
    method: bytes
    host: bytes
    target: bytes
    """As the copy's upstream was asked for it."""
    endpoint: Endpoint | None
    trace_id: bytes
    """32 hex digits, of a trace of its own."""
    span_id: bytes
    """16 hex digits: the parent id that its upstream saw."""
    of_trace_id: bytes
    """Of the request that it is a copy of, for the link."""
    of_span_id: bytes
    is_sampled: bool
    started: float
    ended: float
    status: int
    """0 where no head came."""
    reason: Reason | None
    http_version: str = "1.1"
    grpc_status: None = None
    """Not read: nobody waits for it."""
    scheme: str = "http"
    tls: TlsFacts | None = None
