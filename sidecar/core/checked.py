"""What became of a request by which the sidecar itself asked an upstream whose breaker had waited."""

from __future__ import annotations

from typing import Final, NamedTuple

from sidecar.core.errors import Reason
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint

USER_AGENT: Final = "sidecar (half_open.check)"
"""What a check calls itself (RFC 9110 10.1.5)."""


class Checked(NamedTuple):
    """One check (`half_open.check`), for log and spans. Times are monotonic seconds."""

    route: str
    upstream: str
    path: str
    endpoint: Endpoint | None
    """None when no address is known."""
    trace_id: bytes
    """32 hex digits, of a trace of its own."""
    span_id: bytes
    """16 hex digits: the parent id that the upstream saw."""
    is_sampled: bool
    started: float
    ended: float
    status: int
    """0 where no head came."""
    reason: Reason | None
    """Why there was no whole answer."""
    detail: str
    is_good: bool
    is_news: bool
    """The first one that failed since its breaker was last closed."""
    http_version: str = "1.1"
    ejected: None = None
    """Nobody's request has brought it about."""
    grpc_status: None = None
    """It is never a gRPC call."""
    scheme: str = "http"
    tls: TlsFacts | None = None

    @property
    def error_type(self) -> str:
        """The token of SPEC 4, or the status; empty for a good one."""
        if self.is_good:
            return ""
        return str(self.status) if self.reason is None else self.reason.error_type
