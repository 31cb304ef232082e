"""The words of a breaker's life: its states, why they change, and the immutable record of each change.

Records cross threads (telemetry, admin), so nothing here can change after birth. `sequence` counts the
transitions of one breaker from 1 without gaps: a reader that sees n and n+2 knows that it missed one.
"""

from __future__ import annotations

from enum import Enum

from sidecar.core.dataclass import dataclass
from sidecar.core.override import Order


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    """An operator lets everything through."""
    DISABLED = "disabled"
    """The configuration lets everything through."""


class TransitionReason(Enum):
    """`sidecar.circuit_breaker.reason`."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    FAILURE_RATE = "failure_rate"
    SLOW_CALL_RATE = "slow_call_rate"
    PROBE_FAILED = "probe_failed"
    PROBE_TIMEOUT = "probe_timeout"
    PROBE_SUCCEEDED = "probe_succeeded"
    WAIT_ELAPSED = "wait_elapsed"
    FORCED = "forced"
    RELOAD = "reload"
    PEERS = "peers"
    """Other processes have decided so (`core/fleet`)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An exchange that contributed to a transition; ids are lower-case hex, as on the wire."""

    trace_id: bytes
    span_id: bytes
    request_id: bytes
    error_type: str = ""
    """The token of what went wrong, or the status as text; empty for a success."""
    status: int = 0
    """0 where no final head came."""
    endpoint: str = ""
    detail: str = ""
    """In words, at most 128 characters."""
    at: float = 0.0
    """When its end was heard of, in seconds on the monotonic clock; 0 where nobody said."""
    is_sampled: bool = False
    """Its spans are recorded, so that a link leads somewhere."""


@dataclass(frozen=True, slots=True)
class WindowNumbers:
    """The sliding window at one moment. Rates are 0..1, and 0 for an empty window."""

    total: int = 0
    failed: int = 0
    slow: int = 0
    consecutive_failures: int = 0
    silent: int = 0
    """Ended without an answer, to callers who may be to blame; not in `total`."""

    @property
    def failure_rate(self) -> float:
        return self.failed / self.total if self.total else 0.0

    @property
    def slow_rate(self) -> float:
        return self.slow / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of one breaker's state."""

    sequence: int
    route: str
    upstream: str
    from_state: State
    to_state: State
    reason: TransitionReason
    at: float
    """Seconds on the process's monotonic clock."""
    window: WindowNumbers
    wait_seconds: float | None = None
    """After a trip: how long the breaker stays open; None for the other states."""
    causes: tuple[Cause, ...] = ()
    """At most the last 32."""
    order: Order | None = None
    """The override that has begun, or (with AUTO) the one that has ended; None for every other reason."""
    outage: float | None = None
    """`at` of the opening by traffic that began the outage which this change begins, belongs to or ends. None outside
    one: an operator or a configuration alone has opened it, or closed it, or neither."""
    rejected: int = 0
    """Requests that the breaker has refused since its birth."""
    is_longest_wait: bool = False
    """The wait is as long as `max_open_for` lets it be, but for chance."""
    decider: str = ""
    """For `PEERS`: the replica that has decided it."""

    @property
    def breaker(self) -> str:
        """The breaker's name: route and upstream."""
        return f"{self.route}/{self.upstream}"
