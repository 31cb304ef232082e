"""For how long a request may take, and who says so."""

from __future__ import annotations

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot.modes import CancelWithCaller, Mode


@dataclass(frozen=True, slots=True)
class RouteTimeouts:
    """Any of them may be `math.inf`: the file says `off`, and there is no such limit."""

    request_seconds: float = 15.0
    """All attempts together."""
    attempt_seconds: float | None = None
    """One attempt; None as well as `math.inf`: it may take all that is left."""
    idle_seconds: float = 300.0
    """Without a byte in either direction, for the exchange's bodies and for tunnels."""
    head_seconds: float | None = None
    """From the sending of an attempt to the final head of its answer; None as well as `math.inf`: no such limit."""


TIMEOUT_HEADERS = (
    b"grpc-timeout",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-upstream-rq-timeout-ms",
    b"x-request-timeout-ms",
    b"l5d-timeout",
)


@dataclass(frozen=True, slots=True)
class DeadlinePolicy:
    mode: Mode = Mode.ENFORCE
    max_seconds: float | None = None
    """Cap on what a caller may ask for."""
    offset_seconds: float = 0.005
    """Taken off what a caller or a trace gave; at most a tenth of that budget."""
    headers: tuple[bytes, ...] = TIMEOUT_HEADERS
    recover_from_trace: bool = True
    cancel_with_caller: CancelWithCaller = CancelWithCaller.SAFE
    inject_baggage: bool = False


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    mode: Mode = Mode.OFF
    min_budget: float | str = "p50"
    """Seconds, or `p50`/`p95` of the route's own recent successful attempts."""
    max_reject_ratio: float = 0.2
