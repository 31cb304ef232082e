"""What an attempt came to, as the breaker sees it, and whether that counts (SPEC 3).

Pure: called once for each attempt, knows no HTTP beyond a status number, and keeps nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from sidecar.core.contract import SLOTTED
from sidecar.core.deadline import CLOCK_NOISE_SECONDS
from sidecar.core.grpc_status import FAILURES, GrpcStatus
from sidecar.core.path_dataclass import dataclass
from sidecar.core.snapshot import BreakerPolicy, Failure
from sidecar.core.transition import State

PROBE_SECONDS: Final = 0.8
"""What a probe must have had for its timeout to count, and any attempt while too few successes are known."""
ROUND_NUMBER_SHARE: Final = 0.95
"""A caller's budget is compared with this much of what it should have: each sidecar on the way takes its offset off,
so callers who say 800 ms bring 795, and 790 behind the next one."""
NEAR_THE_END: Final = 0.9
"""A 504 after this share of the budget that was sent is the next hop's timeout, a moment before our own."""
NEAR_THE_END_GRPC: Final = 0.85
"""The same for DEADLINE_EXCEEDED. A gRPC server is told of `offset` less than we wait, a tenth at most; the rest is
for a server whose timer is a little early."""


class Kind(Enum):
    """How an attempt ended, before any policy looks at it."""

    ANSWERED = "answered"
    """A whole response arrived; its status decides."""
    CONNECT_REFUSED = "connect_refused"
    """Nobody listens. Excused while an upstream warms up."""
    CONNECT_FAILED = "connect_failed"
    """Name not found, TLS, or the connect timeout."""
    RESET = "reset"
    """Connection lost, body cut short, or a malformed response."""
    TIMED_OUT = "timed_out"
    """The deadline or the attempt's timeout passed while it was the upstream's turn."""
    LEFT = "left"
    """The caller went away."""
    REFUSED_BELOW = "refused_below"
    """The breaker of the next sidecar was open."""
    ABANDONED = "abandoned"
    """The sidecar gave up for a reason of its own (its queue, its resources), or in the client's turn."""


class Limit(Enum):
    """Who set the limit that an attempt's time ended by."""

    ROUTE = "route"
    """The route's own timeouts."""
    CALLER = "caller"
    STRANGER = "stranger"
    """A caller whom the listener does not trust (`trust: none`)."""


class Verdict(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    RATE_ONLY_FAILURE = "rate_only_failure"
    """Counts in the failure rate, not among consecutive failures (429)."""
    SILENCE = "silence"
    """No answer in a time in which one should have come, to a caller who may be to blame. Counts in the failure rate
    while the window holds no success."""
    IGNORED = "ignored"
    """Says nothing about the upstream; a probe gets its permit back."""


class Judged(NamedTuple):
    """What a breaker has said of one attempt, for those who look at it afterwards."""

    verdict: Verdict
    state: State
    """Of the breaker, when it was asked."""
    sent_at: float | None
    """When the upstream's time began, on the loop's clock; None: never."""
    head_seconds: float | None
    """Of the upstream's own time until the final head; None: there was none."""
    whole_seconds: float
    """Of the upstream's own time in all."""


@dataclass(frozen=True, **SLOTTED)
class Outcome:
    """One attempt's end, with what the judge needs to know."""

    kind: Kind
    status: int = 0
    """0 unless there was a final head."""
    allowed_seconds: float = 0.0
    """What the attempt was allowed to take at the upstream when it was sent; 0 if nobody knows."""
    has_failure_header: bool = False
    limit: Limit = Limit.CALLER
    """Who set `allowed_seconds`."""
    own_seconds: float = 0.0
    """The route's own timeout by which `allowed_seconds` ended, less the deadline's `offset`; 0 with another
    limit."""
    is_after_head: bool = False
    """The end came after a good final head, and we made it."""
    is_stalled: bool = False
    """With `is_after_head`: the answer has a `Content-Length`, it was the upstream's turn, and for 1 s no byte
    came."""
    retry_after_seconds: float = 0.0
    """Of the answer; 0 if it had none."""
    error_type: str = ""
    """For people: the token of SPEC 4, or the status."""
    detail: str = ""
    grpc_status: int | None = None
    """Of a gRPC call: what its `grpc-status` says, or its HTTP status where that is missing; None for another call,
    and where nothing speaks against the upstream."""
    is_counted: bool = True
    """False: ejection has judged it, and the breaker is not to (SPEC-UPSTREAM)."""
    is_idle: bool = False
    """The answer had begun, and no byte of it came for the route's `timeouts.idle`, in the upstream's turn: that
    counts for ejection alone."""

    has_lost: bool = False
    """An attempt that began later had its head first (a hedge): that counts for ejection alone."""

    @property
    def told(self) -> str:
        """For people: what it was."""
        return self.error_type or (str(self.status) if self.status else self.kind.value)


def judge(
    outcome: Outcome,
    policy: BreakerPolicy,
    seconds: float | None = None,
    counts_after: float | None = None,
    unless_answers_by: float = 0.0,
) -> Verdict:
    """Say whether `outcome` counts for or against the upstream under `policy`.

    Args: outcome: how it ended. policy: of the breaker. seconds: of the upstream's own time that the attempt
        had; None: all that it was allowed. counts_after: how long a timeout must have lasted to count; None:
        `PROBE_SECONDS`. unless_answers_by: a caller's shorter timeout is silence: half of the good answers take
        this long, or half of it."""
    if not outcome.is_counted:
        return Verdict.IGNORED
    kind = outcome.kind
    had = outcome.allowed_seconds if seconds is None else seconds
    if kind is Kind.ANSWERED:
        if outcome.grpc_status is not None:
            return _judge_grpc(outcome, policy, had, counts_after, unless_answers_by)
        is_timeout_below = outcome.status == 504 and 504 not in policy.failure_on
        if is_timeout_below and _is_near_the_end(outcome, had, NEAR_THE_END):
            # A hop below keeps the same short deadline, and says so a little earlier.
            return _judge_timeout(outcome, policy, outcome.allowed_seconds, counts_after, unless_answers_by)
        return judge_status(outcome.status, outcome.has_failure_header, policy)
    if kind is Kind.TIMED_OUT:
        if outcome.is_after_head:
            is_failure = outcome.is_stalled and Failure.TIMEOUT in policy.failure_on
            return Verdict.FAILURE if is_failure else Verdict.IGNORED
        return _judge_timeout(outcome, policy, had, counts_after, unless_answers_by)
    if kind is Kind.LEFT:
        is_silence = not outcome.status and had >= _needed(policy, counts_after) - CLOCK_NOISE_SECONDS
        return Verdict.SILENCE if is_silence else Verdict.IGNORED
    if kind is Kind.ABANDONED or kind is Kind.REFUSED_BELOW:
        return Verdict.IGNORED
    failure = Failure.RESET if kind is Kind.RESET else Failure.CONNECT
    return Verdict.FAILURE if failure in policy.failure_on else Verdict.IGNORED


def judge_status(status: int, has_failure_header: bool, policy: BreakerPolicy) -> Verdict:
    """Judge a final head. 429 counts in the rate only, and on inbound routes not at all, unless `failure_on` names
    it."""
    if has_failure_header or status in policy.failure_on:
        return Verdict.FAILURE
    if status >= 500:
        return Verdict.FAILURE if Failure.STATUS_5XX in policy.failure_on else Verdict.SUCCESS
    if status == 429:
        return Verdict.RATE_ONLY_FAILURE if policy.counts_rate_limited else Verdict.IGNORED
    return Verdict.SUCCESS


def _judge_grpc(
    outcome: Outcome, policy: BreakerPolicy, had: float, counts_after: float | None, unless_answers_by: float
) -> Verdict:
    """SPEC-PROTOCOLS 12: what the server says of its own call."""
    status = outcome.grpc_status
    named = [one for one in policy.failure_on if isinstance(one, GrpcStatus)]
    if named:
        return Verdict.FAILURE if status in named else Verdict.SUCCESS
    if status == GrpcStatus.RESOURCE_EXHAUSTED:
        return Verdict.RATE_ONLY_FAILURE if policy.counts_rate_limited else Verdict.IGNORED
    if status == GrpcStatus.DEADLINE_EXCEEDED:
        if _is_near_the_end(outcome, had, NEAR_THE_END_GRPC):
            had = max(had, outcome.allowed_seconds)  # as our own timeout, which it comes before
        return _judge_timeout(outcome, policy, had, counts_after, unless_answers_by)
    is_failure = status in FAILURES and Failure.STATUS_5XX in policy.failure_on
    return Verdict.FAILURE if is_failure else Verdict.SUCCESS


def is_good_check(outcome: Outcome) -> bool:
    """Whether a check by the sidecar itself shows that the upstream is well: it expects a status below 400, and of a
    gRPC server that it is serving."""
    return outcome.kind is Kind.ANSWERED and 200 <= outcome.status < 400 and not outcome.grpc_status


def judge_check(outcome: Outcome) -> Verdict:
    """The same as a verdict. `failure_on` says what counts of the traffic; a check that is not good is a failure,
    unless it could not be sent by our own lack of a place, or the next sidecar's breaker refused it."""
    if outcome.kind is Kind.ABANDONED or outcome.kind is Kind.REFUSED_BELOW:
        return Verdict.IGNORED
    return Verdict.SUCCESS if is_good_check(outcome) else Verdict.FAILURE


def could_count(allowed_seconds: float, limit: Limit) -> bool:
    """Whether the timeout of a probe with this much time could count: it has 0.8 s, or the route's own timeout."""
    if limit is Limit.ROUTE:
        return True
    return limit is Limit.CALLER and allowed_seconds >= PROBE_SECONDS * ROUND_NUMBER_SHARE


def _is_near_the_end(outcome: Outcome, had: float, share: float) -> bool:
    allowed = outcome.allowed_seconds
    return allowed > 0.0 and had >= share * allowed


def _judge_timeout(
    outcome: Outcome, policy: BreakerPolicy, had: float, counts_after: float | None, unless_answers_by: float
) -> Verdict:
    if Failure.TIMEOUT not in policy.failure_on:
        return Verdict.IGNORED
    needed = _needed(policy, counts_after)
    limit = outcome.limit
    if limit is Limit.ROUTE:
        if outcome.own_seconds > 0.0:
            needed = min(needed, outcome.own_seconds)
        return Verdict.FAILURE if had >= needed - CLOCK_NOISE_SECONDS else Verdict.IGNORED
    if limit is Limit.STRANGER:
        return Verdict.SILENCE if had >= needed - CLOCK_NOISE_SECONDS else Verdict.IGNORED
    if had < needed * ROUND_NUMBER_SHARE - CLOCK_NOISE_SECONDS:
        return Verdict.IGNORED
    return Verdict.FAILURE if had >= unless_answers_by else Verdict.SILENCE


def _needed(policy: BreakerPolicy, counts_after: float | None) -> float:
    if counts_after is not None:
        return counts_after
    explicit = policy.count_timeout_after_seconds
    return PROBE_SECONDS if explicit is None else explicit
