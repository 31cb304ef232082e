"""A naive bookkeeper of one breaker: it keeps a list of everything and counts anew each time.

Nothing of it is fast or shared with the breaker. Chance is the breaker's own: where it decides (jitter, ramp), the
bookkeeper checks the bounds and takes over what came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from sidecar.core.breaker.permit import BreakerPermit
from sidecar.core.breaker.window import BUCKETS
from sidecar.core.outcome import Kind, Limit, Outcome, Verdict
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, WindowType
from sidecar.core.transition import State, Transition, TransitionReason

RESTING = {BreakerMode.FORCED_OPEN: State.FORCED_OPEN, BreakerMode.DISABLED: State.DISABLED}
BY_HAND = (State.FORCED_OPEN, State.FORCED_CLOSED, State.DISABLED)
NOT_LEARNED = (Verdict.IGNORED, Verdict.SILENCE)
FAILURES = (Verdict.FAILURE, Verdict.RATE_ONLY_FAILURE)


@dataclass(eq=False)
class Call:
    """An attempt in flight."""

    permit: BreakerPermit
    generation: int
    endpoint: str
    is_probe: bool
    is_firm: bool
    is_waved: bool
    is_check: bool
    turns: list[tuple[float, bool]]
    """From when on it was the upstream's turn (True) or the client's."""
    status: int = 0
    head_at: float | None = None
    verdict: Verdict | None = None
    is_slow: bool = False
    entry: Entry | None = None
    base: float = 0.0
    """What it had had when a verdict was last heard."""
    head_seconds: float = 0.0
    has_made_room: bool = False
    """A probe whose client has stalled, and whose place another one has."""

    def seconds(self, now: float) -> float:
        total = 0.0
        ends = [at for at, _ in self.turns[1:]] + [now]
        for (at, is_upstreams), end in zip(self.turns, ends, strict=True):
            total += (end - at) * is_upstreams
        return total

    @property
    def is_upstreams_turn(self) -> bool:
        return self.turns[-1][1]


@dataclass(eq=False)
class Entry:
    """A call in the window."""

    at: float
    generation: int
    window: int
    what: str
    """`good`, `failed`, `pending` or `silent`."""
    is_slow: bool


@dataclass
class Bookkeeper:
    """What the breaker should be, from everything that was seen."""

    policy: BreakerPolicy
    now: float
    state: State = State.CLOSED
    generation: int = 0
    entries: list[Entry] = field(default_factory=list)
    window: int = 0
    """Which window this is: a reload may begin another one."""
    window_since: float = 0.0
    plain_row: int = 0
    late_row: int = 0
    resets: dict[str, float] = field(default_factory=dict)
    entered: float = 0.0
    open_until: float = 0.0
    last_wait: float = 0.0
    is_borrowed: bool = False
    floor: float = 0.0
    is_jittered: bool = False
    doublings: int = 0
    closed_at: float = -inf
    asked: list[tuple[str, float, float]] = field(default_factory=list)
    """Of each failure: endpoint, when, and until when it asked to be left alone."""
    timeouts_in_a_row: int = 0
    ramp_since: float | None = None
    good: int = 0
    slow: int = 0
    heard: float = 0.0
    is_closed_by_check: bool = False
    distrusts_checks: bool = False
    override: State | None = None
    override_until: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    """In flight."""

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    # The window and the rows.

    def bucket(self, at: float) -> int:
        return int((at - self.window_since) / (self.policy.window.size / BUCKETS))

    def in_window(self) -> list[Entry]:
        kept = [e for e in self.entries if e.window == self.window and e.generation == self.generation]
        if self.policy.window.type is WindowType.COUNT:
            return kept[-int(self.policy.window.size) :]
        return [e for e in kept if self.bucket(e.at) > self.bucket(self.now) - BUCKETS]

    def window_numbers(self) -> tuple[int, int, int, int, int]:
        kept = self.in_window()
        silent = sum(e.what == "silent" for e in kept)
        failed = sum(e.what == "failed" for e in kept)
        return len(kept) - silent, failed, sum(e.is_slow for e in kept), self.row, silent

    @property
    def row(self) -> int:
        return max(self.plain_row, self.late_row)

    def put(self, call: Call, what: str) -> None:
        """The call stands in the window so, once."""
        if call.entry is None or call.entry not in self.in_window():
            call.entry = Entry(self.now, self.generation, self.window, what, call.is_slow)
            self.entries.append(call.entry)
        call.entry.what, call.entry.is_slow = what, call.is_slow

    def is_echo(self, call: Call, outcome: Outcome) -> bool:
        if outcome.kind is not Kind.RESET:
            return False
        last = self.resets.get(call.endpoint)
        if last is not None and call.turns[0][0] < last and self.now - last <= 0.1:
            return True
        self.resets[call.endpoint] = self.now
        return False

    def trigger(self) -> TransitionReason | None:
        """Why a closed breaker should open now."""
        policy, kept = self.policy, self.in_window()
        if policy.consecutive_failures and self.row >= policy.consecutive_failures:
            return TransitionReason.CONSECUTIVE_FAILURES
        minimum = policy.minimum_calls
        if policy.window.type is WindowType.COUNT:
            minimum = min(minimum, int(policy.window.size))
        judged = [e for e in kept if e.what in ("good", "failed")]
        if not any(e.what == "good" for e in kept):
            judged += [e for e in kept if e.what == "silent"]
        failed = sum(e.what != "good" for e in judged)
        if failed and len(judged) >= minimum and failed / len(judged) >= policy.failure_rate_threshold:
            return TransitionReason.FAILURE_RATE
        total, _, slow, _, _ = self.window_numbers()
        if policy.slow_call_seconds is None or not slow or total < minimum:
            return None
        return TransitionReason.SLOW_CALL_RATE if slow / total >= policy.slow_call_rate_threshold else None

    # Verdicts.

    def judge(self, call: Call, outcome: Outcome) -> Verdict:
        needed = 0.8 if call.is_probe else self.policy.count_timeout_after_seconds or 0.0
        had = call.seconds(self.now)
        if call.is_check:
            if outcome.kind in (Kind.ABANDONED, Kind.REFUSED_BELOW):
                return Verdict.IGNORED
            return Verdict.SUCCESS if outcome.status == 200 else Verdict.FAILURE
        if outcome.kind is Kind.ANSWERED:
            by_status = {429: Verdict.RATE_ONLY_FAILURE, 500: Verdict.FAILURE}
            return by_status.get(outcome.status, Verdict.SUCCESS)
        if outcome.kind is Kind.RESET:
            return Verdict.FAILURE
        if outcome.kind is Kind.LEFT:
            return Verdict.SILENCE if had >= needed and not call.status else Verdict.IGNORED
        if outcome.kind is not Kind.TIMED_OUT:
            return Verdict.IGNORED
        if outcome.is_after_head:
            return Verdict.FAILURE if outcome.is_stalled else Verdict.IGNORED
        if outcome.limit is Limit.STRANGER:
            return Verdict.SILENCE if had >= needed else Verdict.IGNORED
        if outcome.limit is Limit.ROUTE:
            return Verdict.FAILURE if had >= min(needed, outcome.own_seconds) else Verdict.IGNORED
        return Verdict.FAILURE if had >= 0.95 * needed else Verdict.IGNORED

    # State.

    def is_ramping(self) -> bool:
        if self.state is not State.CLOSED or self.ramp_since is None:
            return False
        return self.now - self.ramp_since < self.policy.ramp_seconds

    def is_in_first_window(self) -> bool:
        window = self.policy.window
        if window.type is WindowType.TIME:
            return self.now - self.entered <= window.size
        return len(self.in_window()) - self.window_numbers()[4] < window.size

    def probes(self) -> list[Call]:
        of_now = [c for c in self.calls if c.is_probe and c.generation == self.generation]
        return [c for c in of_now if c.verdict is None and not c.has_made_room]

    def has_permit(self, is_firm: bool, yields_after: float, is_complete: bool = False) -> bool:
        at_first = max(1, self.policy.half_open_max_calls)
        limit = min(at_first + self.slow, 8 * at_first)
        alike = [c for c in self.probes() if c.is_firm == is_firm]
        held = [c for c in alike if c.is_upstreams_turn]
        quiet = [c for c in held if c.head_at is None and c.seconds(self.now) >= yields_after]
        if len(self.probes()) < limit:
            return True
        most = max(limit, min(limit + len(quiet), 5)) if is_firm else limit
        if len(alike) < 8 * at_first or len(held) >= most:
            return len(held) < most
        least = 0.0 if is_complete else 1.0
        stalled = [c for c in alike if not c.is_upstreams_turn and self.now - c.turns[-1][0] >= least]
        for call in sorted(stalled, key=lambda c: c.turns[-1][0])[:1]:
            call.has_made_room = True
        return bool(stalled)

    def patience(self) -> float:
        return float(self.policy.half_open_max_wait_seconds * 2**self.timeouts_in_a_row)

    def is_overdue(self) -> bool:
        firm = [c for c in self.probes() if c.is_firm]
        return any(c.seconds(self.now) - c.base >= self.patience() for c in firm)

    def hear(self) -> None:
        self.heard = self.now
        for call in self.probes():
            call.base = call.seconds(self.now)

    def enter(
        self, state: State, seen: Transition | None, reason: TransitionReason, at: float | None = None
    ) -> None:
        """Expect `seen` to be the transition to `state`, and follow it. `at`: None for now."""
        now = self.now if at is None else at
        assert seen is not None, f"expected {self.state.name} to {state.name} for {reason.value}"
        expected = (self.generation + 1, self.state, state, reason, now)
        assert (seen.sequence, seen.from_state, seen.to_state, seen.reason, seen.at) == expected
        w = seen.window
        assert (w.total, w.failed, w.slow, w.consecutive_failures, w.silent) == self.window_numbers()
        if state is not State.OPEN:
            assert seen.wait_seconds is None
        if state is State.CLOSED:
            self.ramp_since = None
            if self.policy.ramp_seconds and self.state not in (State.DISABLED, State.FORCED_CLOSED):
                self.ramp_since = now
            self.timeouts_in_a_row = 0
            self.asked = []
            self.closed_at = now
            if self.state in BY_HAND:
                self.doublings, self.closed_at = 0, -inf
                self.is_closed_by_check = False
        self.state = state
        self.generation += 1
        self.plain_row = self.late_row = self.good = self.slow = 0
        self.resets = {}
        self.window_since = self.entered = self.heard = now

    def open(self, seen: Transition | None, reason: TransitionReason) -> None:
        is_recovery = reason in (TransitionReason.PROBE_FAILED, TransitionReason.PROBE_TIMEOUT)
        if self.state is State.CLOSED and self.is_closed_by_check:
            self.distrusts_checks = self.is_in_first_window()
        self.check_wait(seen, is_recovery or self.is_ramping())
        self.timeouts_in_a_row += reason is TransitionReason.PROBE_TIMEOUT
        self.enter(State.OPEN, seen, reason)

    def check_wait(self, seen: Transition | None, is_recovery: bool) -> None:
        assert seen is not None, "expected to open"
        assert seen.wait_seconds is not None
        policy = self.policy
        trial = max(self.last_wait, policy.window.size if policy.window.type is WindowType.TIME else 0.0)
        self.is_jittered = is_recovery or self.now - self.closed_at < trial
        if not self.is_jittered:
            self.doublings = 0
        elif self.nominal() < policy.max_open_seconds:
            self.doublings += 1
        self.floor = self.asked_for()
        self.asked = []
        self.is_borrowed = False
        self.check_bounds(seen.wait_seconds)
        self.last_wait = seen.wait_seconds
        self.open_until = self.now + seen.wait_seconds

    def nominal(self) -> float:
        return float(min(self.policy.open_seconds * 2**self.doublings, self.policy.max_open_seconds))

    def check_bounds(self, wait: float) -> None:
        cap = self.policy.max_open_seconds
        least = max(self.nominal(), self.floor)
        if self.is_jittered:
            assert min(least, 0.9 * cap) <= wait <= min(1.1 * least, cap)
        else:
            assert wait == min(least, cap)

    def asked_for(self) -> float:
        """The smallest that the endpoints which failed lately asked for."""
        window = self.policy.window
        span = window.size if window.type is WindowType.TIME else 60.0
        recent = self.now - span
        latest: dict[str, tuple[float, float, float]] = {}
        for endpoint, at, until in self.asked:
            _, said, longest = latest.get(endpoint, (at, at, until))
            is_replaced = said < at - span or longest < until
            latest[endpoint] = (at, at, until) if is_replaced else (at, said, longest)
        wishes = [until if said >= recent else 0.0 for at, said, until in latest.values() if at >= recent]
        return max(0.0, min(wishes, default=0.0) - self.now)
