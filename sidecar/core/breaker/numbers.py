"""A breaker at one moment, as plain immutable numbers for whoever shows them."""

from __future__ import annotations

from sidecar.core.breaker.words import told
from sidecar.core.contract import SLOTTED
from sidecar.core.override import Order
from sidecar.core.path_dataclass import dataclass
from sidecar.core.snapshot import BreakerMode
from sidecar.core.transition import State, WindowNumbers


class Tally:
    """The counters of one breaker since its birth; `BreakerNumbers` says what each of them means."""

    __slots__ = (
        "failed",
        "failed_late",
        "failures_saved",
        "ignored",
        "last_failure_at",
        "rejected",
        "slow",
        "successful",
        "timed_out",
        "total",
        "would_have_been_fine",
        "would_have_rejected",
    )

    def __init__(self) -> None:
        self.total = self.successful = self.failed = self.ignored = self.rejected = 0
        self.timed_out = self.slow = self.failed_late = 0
        self.would_have_rejected = self.would_have_been_fine = self.failures_saved = 0
        self.last_failure_at: float | None = None


@dataclass(frozen=True, **SLOTTED)
class CandidateNumbers:
    """What a second policy would have done with the requests that the active one admitted."""

    state: State
    total: int
    """Requests it saw."""
    would_have_rejected: int
    would_have_been_fine: int
    """Of those rejected: succeeded in fact, so the candidate would have been wrong."""
    failures_saved: int
    """Of those rejected: failed in fact. The rest were ignored or are still in flight."""
    transitions: int
    window: WindowNumbers


@dataclass(frozen=True, **SLOTTED)
class BreakerNumbers:
    """Counters since the breaker's birth, its state and its window. Times are monotonic seconds.

    At every moment `total == successful + failed + ignored + rejected + in_flight`.
    """

    route: str
    upstream: str
    mode: BreakerMode
    state: State
    """As of now: an override whose time is over holds nobody, also where it has not been told yet."""
    generation: int
    """State periods before this one; equal to `transitions`."""
    total: int
    """Requests that asked, rejected ones included."""
    successful: int
    failed: int
    """Verdicts FAILURE and RATE_ONLY_FAILURE, also those of an earlier generation."""
    ignored: int
    """Ended without saying anything about the upstream."""
    rejected: int
    in_flight: int
    """Admitted and not judged yet."""
    timed_out: int
    """Of those failed or ignored: ended by a timeout."""
    slow: int
    """Took `slow_call_duration` or longer until their head, also if they run still or their callers left."""
    failed_late: int
    """Of those successful: broke after their answer had begun well."""
    transitions: int
    would_have_rejected: int
    """In `metrics_only`: what `enforce` would have refused."""
    would_have_been_fine: int
    failures_saved: int
    window: WindowNumbers
    """Of the current generation, with the consecutive failures."""
    probes_in_flight: int
    last_failure_at: float | None
    last_transition_at: float | None
    next_probe_at: float | None
    """When an open breaker lets a probe go; None in the other states."""
    override_until: float | None
    """When the operator's override that is on ends; None without one, or without an end."""
    is_overridden: bool
    order: Order | None
    """The override that is on, with who made it and since when."""
    ramp_share: float | None
    """What share a ramp admits at present; None: there is no ramp."""
    is_probe_due: bool
    """Open, its wait is over, and nobody has asked since: the next request is a probe."""
    counts_timeout_after: float
    """Seconds at the upstream from which on a timeout counts at present."""
    candidate: CandidateNumbers | None

    @property
    def told(self) -> str:
        """The state in words: `closed, ramping 35 %`, `open, probe due`, `forced_open by hand`."""
        is_by_hand = self.is_overridden
        return told(self.state, self.ramp_share, is_probe_due=self.is_probe_due, is_by_hand=is_by_hand)

    @property
    def consecutive_failures(self) -> int:
        return self.window.consecutive_failures

    @property
    def success_rate(self) -> float | None:
        """Share of successes among all verdicts so far, 0..1; None before the first."""
        verdicts = self.successful + self.failed
        return self.successful / verdicts if verdicts else None
