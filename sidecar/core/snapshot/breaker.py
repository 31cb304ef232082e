"""How a circuit breaker judges."""

from __future__ import annotations

from enum import Enum
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.snapshot.upstream import CheckPolicy

MAX_COUNT_SIZE: Final = 10_000
"""Calls that a count window may hold; a byte each, so 1,000 breakers of that size take 10 MB."""


class BreakerMode(Enum):
    ENFORCE = "enforce"
    METRICS_ONLY = "metrics_only"
    DISABLED = "disabled"
    FORCED_OPEN = "forced_open"


class Scope(Enum):
    """Who acts as one breaker."""

    PROCESS = "process"
    FLEET = "fleet"
    """All replicas that `share` brings together."""


class WindowType(Enum):
    TIME = "time"
    COUNT = "count"


class Failure(Enum):
    """A class of outcomes that `failure_on` may name, besides single statuses of HTTP or gRPC."""

    STATUS_5XX = "5xx"
    CONNECT = "connect_failure"
    RESET = "reset"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    type: WindowType = WindowType.TIME
    size: float = 10.0
    """Seconds for `time`, calls for `count`."""


@dataclass(frozen=True, slots=True)
class CandidatePolicy:
    """The thresholds of a second policy that sees the same traffic and never acts (each one unset = as active)."""

    window: WindowPolicy | None = None
    minimum_calls: int | None = None
    failure_rate_threshold: float | None = None
    consecutive_failures: int | None = None
    slow_call_seconds: float | None = None
    slow_call_rate_threshold: float | None = None
    open_seconds: float | None = None
    max_open_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    mode: BreakerMode = BreakerMode.ENFORCE
    window: WindowPolicy = WindowPolicy()
    minimum_calls: int = 20
    failure_rate_threshold: float = 0.5
    consecutive_failures: int = 5
    """0 = this trigger is off."""
    slow_call_seconds: float | None = None
    slow_call_rate_threshold: float = 0.8
    open_seconds: float = 5.0
    max_open_seconds: float = 60.0
    half_open_max_calls: int = 1
    half_open_successes: int = 1
    half_open_max_wait_seconds: float = 10.0
    ramp_seconds: float = 0.0
    failure_on: frozenset[Failure | GrpcStatus | int] = frozenset(
        {Failure.STATUS_5XX, Failure.CONNECT, Failure.RESET, Failure.TIMEOUT}
    )
    """Classes and single statuses (ints)."""
    failure_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Response header fields (lower-case name, exact value) that mark a failure."""
    count_timeout_after_seconds: float | None = None
    """A timed-out attempt that had less than this at the upstream says nothing; None: `auto`, by the route's own
    successes (`core/breaker/counting.py`)."""
    counts_rate_limited: bool = True
    """Whether 429 counts in the failure rate; not on inbound routes, where it is some caller's own quota."""
    judge_after_seconds: float = 1.0
    """After a good final head, an attempt that still runs is judged by it."""
    warm_up_seconds: float = 30.0
    """Connections refused before the first answer of an upstream open nothing, for at most this long; 0 = off."""
    half_open_check: CheckPolicy | None = None
    """How the sidecar itself probes an upstream whose breaker has waited; None: a request is the probe."""
    scope: Scope = Scope.PROCESS
    candidate: CandidatePolicy | None = None
