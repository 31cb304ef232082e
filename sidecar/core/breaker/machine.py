"""The state of one breaker, and what changes it: who may go, and what follows from how it ended (SPEC 3).

It reads no clock and calls nobody: every method takes `now` (monotonic seconds), and a change of state is *returned*,
for the caller to report. The state has one writer, `enter`, which accepts the edges of `statechart.py` and no others.
Operators, a second policy and reloads are `front.py`'s.

Where the contract is silent:

* A generation is a state period. Window, rows, remembered causes and probes belong to it and end with it.
* A 429 neither adds to the consecutive failures nor ends their row.
* Outcomes in HALF_OPEN show in the window numbers of its end, and the CLOSED period after it starts empty.
* `max_wait` doubles at each probe timeout in a row: an upstream whose good answers take longer than `max_wait` would
  otherwise never get a verdict in, and its breaker would be shut for ever.
* `mode: metrics_only` waives what the machine itself refuses, and no operator's word.
* FORCED_OPEN, FORCED_CLOSED and DISABLED end in CLOSED, with a ramp after FORCED_OPEN, since nothing is known
by then."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Final

from sidecar.core.breaker import counting, waits
from sidecar.core.breaker.door import Door
from sidecar.core.breaker.evidence import Evidence
from sidecar.core.breaker.judging import Judge
from sidecar.core.breaker.permit import NO_GENERATION, BreakerPermit, BreakerRefusal, Keeper
from sidecar.core.breaker.probes import Probes
from sidecar.core.breaker.sharing import Sharing
from sidecar.core.breaker.waits import Chance, Waits
from sidecar.core.deadline import CLOCK_NOISE_SECONDS
from sidecar.core.ejection.peers import Peers
from sidecar.core.history import CAUSES, Culprit, History
from sidecar.core.outcome import Kind, Outcome, Verdict
from sidecar.core.override import Order
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, WindowType
from sidecar.core.statechart import BY_HAND, EDGES
from sidecar.core.transition import Cause, State, Transition, TransitionReason

BUSY_RETRY_SECONDS: Final = 1.0
"""`Retry-After` where a verdict or a larger share of the ramp is expected at any moment."""
PERMIT_LOOK_SECONDS: Final = 0.25
"""How often a check that waits for a permit of all looks whether it is there."""

# Members are read from module globals in the hot path: the enum's own lookup costs 50 ns each time.
_SUCCESS: Final = Verdict.SUCCESS
_FAILURE: Final = Verdict.FAILURE
_CLOSED: Final = State.CLOSED
_OPEN: Final = State.OPEN
_HALF_OPEN: Final = State.HALF_OPEN
_REFUSING: Final = (State.OPEN, State.HALF_OPEN, State.FORCED_OPEN)
"""An outage that traffic has begun goes on in these."""
_ADMITTING: Final = (State.FORCED_CLOSED, State.DISABLED)
"""States by hand that let everything through."""


class Machine(Keeper):
    """Owned by one `Breaker`."""

    __slots__ = (
        "_checks_distrusted", "_closed_by_check", "_is_telling", "_names", "_opened_by", "_outage", "_patience",
        "_policy", "_probes", "_ramp_started", "_rng", "door", "evidence", "forced_until", "history", "judge",
        "opened_at", "sequence", "sharing", "state", "waits",
    )  # fmt: skip

    def __init__(
        self,
        names: tuple[str, str],
        policy: BreakerPolicy,
        state: State,
        judge: Judge,
        history: History,
        rng: Chance,
        now: float,
        peers: Peers | None = None,
        *,
        is_telling: bool = True,
    ) -> None:
        """`peers`: the upstream's endpoints, None: nobody tells them apart. `is_telling`: they hear from here how
        attempts ended; a candidate only reads what they know.

        Raises:
            ValueError: the window's size is out of bounds (`window.py`).
        """
        self._names = names
        self.state = state
        """Written by `enter` alone."""
        self.sequence = 0
        """The number of the present state period: how many transitions there were."""
        self.judge = judge
        self.history = history
        self.evidence = Evidence(policy, now, peers)
        self._is_telling = is_telling
        self.waits = Waits(now)
        self.forced_until: float | None = None
        """When an operator's word ends."""
        self.door: Door | None = None
        """The answer to all attempts, if there is one."""
        self._policy = policy
        self._rng = rng
        self._opened_by = 0
        self.opened_at: float | None = None
        """When it was last opened, by whatever; None: never. To be read by any thread."""
        self._outage: float | None = None
        """When the present outage began: traffic has opened the breaker, and nothing has closed it yet."""
        self._patience = 1.0
        self._ramp_started: float | None = None
        self._probes = Probes(now)
        self._closed_by_check = self._checks_distrusted = False
        self.sharing: Sharing | None = None
        """Those that it acts as one with; None: it is alone."""

    @property
    def policy(self) -> BreakerPolicy:
        return self._policy

    @property
    def slow_seconds(self) -> float:
        return self.judge.slow_seconds

    @property
    def avoid(self) -> tuple[Hashable, ...]:
        return self.judge.avoid

    @property
    def probes_in_flight(self) -> int:
        return len(self._probes)

    def ramp_share(self, now: float) -> float | None:
        """What share a ramp admits, None if there is no ramp."""
        return waits.ramp_share(self._ramp_started, self._policy, now)

    # Who may go.

    def admit(
        self, transition: Transition | None, now: float, *, is_firm: bool, is_whole: bool, is_complete: bool
    ) -> BreakerPermit | BreakerRefusal:
        """Answer one attempt for which there is no door. `transition`: what has just happened by time alone."""
        state = self.state
        if state is _CLOSED:
            return self._admit_closed(transition, now)
        if state in _ADMITTING:
            return self._permit(transition)
        if state is State.FORCED_OPEN:
            # Nobody knows when an operator or a reload will end it; `open_for` is when it may be worth a look.
            until = self.forced_until
            return self._refuse(self._policy.open_seconds if until is None else until - now, transition)
        left = self.waits.until - now
        if state is _OPEN and (left > 0.0 or transition is not None):
            return self._refuse(left, transition)
        return self._admit_probe(transition, now, is_firm=is_firm, is_whole=is_whole, is_complete=is_complete)

    def admit_check(self, now: float) -> BreakerPermit | None:
        """A permit for a probe by the sidecar itself; None: there is nothing to check now."""
        is_due = self.state is _OPEN and now >= self.waits.until
        if not self._is_checked() or not (is_due or (self.state is _HALF_OPEN and not len(self._probes))):
            return None
        if not self._most_probes(now):
            return None
        self.judge.tally.total += 1
        return self._new_probe(None, now, is_check=True)

    def next_check(self, now: float) -> float:
        """When it is worth asking `admit_check`, if nothing else happens; `inf`: not before a change of state."""
        if not self._is_checked():
            return inf
        if self.state is not _OPEN and self.state is not _HALF_OPEN:
            return inf
        if self.sharing is not None and self.sharing.permits(now) == 0:
            return max(self.waits.until, now + PERMIT_LOOK_SECONDS)
        if self.state is _OPEN:
            return self.waits.until
        # A request that is a probe still, from before there was a check: its end need not change the state.
        return now + BUSY_RETRY_SECONDS if len(self._probes) else now

    def _admit_closed(self, transition: Transition | None, now: float) -> BreakerPermit | BreakerRefusal:
        share = self.ramp_share(now)
        if share is None:
            self._ramp_started = None
            self.renew_door()
        elif self._rng.random() >= share:
            return self._refuse(BUSY_RETRY_SECONDS, transition, share)
        return self._permit(transition)

    def _admit_probe(
        self, transition: Transition | None, now: float, *, is_firm: bool, is_whole: bool, is_complete: bool
    ) -> BreakerPermit | BreakerRefusal:
        """The wait is over, or a probe is out."""
        most = 0 if self._is_checked() else self._most_probes(now)
        if not most or not (
            self.state is _OPEN or self._has_room(most, now, is_firm=is_firm, is_complete=is_complete)
        ):
            return self._refuse(BUSY_RETRY_SECONDS, transition)
        if not is_whole and self._policy.mode is not BreakerMode.METRICS_ONLY:
            self.judge.tally.total -= 1
            return BreakerRefusal(self.state, 0.0, transition, is_postponed=True)
        return self._new_probe(transition, now, is_firm=is_firm)

    def _most_probes(self, now: float) -> int:
        """How many probes there may be at once: at least one, or a limit of zero would keep the breaker open. Of a
        breaker that acts as one with others as many as were lent to it, perhaps none yet."""
        sharing = self.sharing
        lent = None if sharing is None else sharing.permits(now)
        if lent is None:
            return max(1, self._policy.half_open_max_calls)
        if sharing is not None and lent <= len(self._probes):
            sharing.wanted()
        return lent

    def _has_room(self, most: int, now: float, *, is_firm: bool, is_complete: bool) -> bool:
        yields_after = counting.yields_after(self.judge.durations)
        return self._probes.has_permit(most, now, yields_after, is_firm=is_firm, is_complete=is_complete)

    def _new_probe(
        self, transition: Transition | None, now: float, *, is_firm: bool = True, is_check: bool = False
    ) -> BreakerPermit:
        if self.state is _OPEN:
            transition = self.enter(_HALF_OPEN, TransitionReason.WAIT_ELAPSED, now)
        probe = BreakerPermit(self, self.sequence, _HALF_OPEN, transition=transition)
        probe.is_probe, probe.is_firm, probe.is_check = True, is_firm, is_check
        self._probes.take(probe)
        return probe

    def _permit(self, transition: Transition | None) -> BreakerPermit:
        return BreakerPermit(self, self.sequence, self.state, transition=transition)

    def _refuse(
        self, retry_after_seconds: float, transition: Transition | None, share: float | None = None
    ) -> BreakerPermit | BreakerRefusal:
        state, tally = self.state, self.judge.tally
        opened_by = self.history.find(self._opened_by)
        if self._policy.mode is BreakerMode.METRICS_ONLY and state is not State.FORCED_OPEN:
            tally.would_have_rejected += 1
            waved = BreakerPermit(self, NO_GENERATION, state, transition=transition)
            waved.refused_by = opened_by
            return waved
        tally.rejected += 1
        return BreakerRefusal(state, retry_after_seconds, transition, opened_by, share)

    def _is_checked(self) -> bool:
        """Whether the sidecar itself probes."""
        return self._policy.half_open_check is not None and not self._checks_distrusted

    def renew_door(self, twin: Door | None = None) -> None:
        """Keep one answer for all attempts as long as nothing but a transition or a new policy can change it."""
        if self.door is not None:
            self.door.is_current = False
        if self.state is _CLOSED:
            is_open_to_all = self._ramp_started is None and self.judge.warm is None
        else:
            is_open_to_all = self.state in _ADMITTING and self.forced_until is None
        judge, evidence = self.judge, self.evidence
        self.door = None
        if is_open_to_all:
            parts = judge.tally, judge.heard, evidence.rows, evidence.window, evidence.triggers
            self.door = Door(self, self.sequence, self.state, *parts, twin)

    # What is learned from one attempt.

    def succeed_apart(self, generation: int, seconds: float, now: float) -> Transition | None:
        """A success that was said to a door, and is slow, or of another state period, or moves nothing."""
        if generation == self.sequence and self.state is _CLOSED:
            return BreakerPermit(self, generation, _CLOSED).succeed(seconds, now)
        self.judge.count_apart(seconds)
        return None

    def heard_head(self, permit: BreakerPermit, verdict: Verdict) -> None:
        """A final head has come, of whatever verdict: a good one ends a row of failures."""
        self.end_warm_up()
        if verdict is _SUCCESS and self._is_of_now(permit) and self.evidence.counts(permit.endpoint):
            self.evidence.rows.head()

    def is_running_slow(
        self, permit: BreakerPermit, now: float, culprit: Culprit | None
    ) -> Transition | None:
        """An attempt has lasted `slow_call_duration` without a head, and goes on."""
        if permit.is_slow or permit.seconds(now) < self.slow_seconds - CLOCK_NOISE_SECONDS:
            return None
        self.judge.count_slow(permit)
        self.evidence.settle(now)
        if not self._is_of_now(permit) or not self.evidence.counts(permit.endpoint):
            return None
        self.evidence.mark_running(permit, now)
        if culprit is not None:  # its end may come after what it brings about
            self.history.suspect(culprit, endpoint=permit.endpoint, at=now)
        return self._check(now)

    def take(
        self, permit: BreakerPermit, outcome: Outcome, now: float, culprit: Culprit | None, *, is_early: bool
    ) -> Transition | None:
        """The verdict on one attempt: at its end, or (`is_early`) by its head."""
        verdict = self.judge.judge(permit, outcome, now)
        if outcome.kind is Kind.ANSWERED or outcome.kind is Kind.RESET:
            self.end_warm_up()
        if self.evidence.peers is not None:
            self._tell_peers(permit, verdict, outcome, now, is_early=is_early)
            self.evidence.settle(now)
            if not self.evidence.counts(permit.endpoint):
                self._pass_over(permit, outcome, now, is_early=is_early)
                return None
        return self.take_judged(permit, verdict, outcome, now, culprit, is_early=is_early)

    def _tell_peers(
        self,
        permit: BreakerPermit,
        verdict: Verdict,
        outcome: Outcome,
        now: float,
        *,
        is_early: bool = False,
        is_late: bool = False,
    ) -> None:
        """Ejection judges first. A refusal by the breaker of the next sidecar, an answer that stood still for
        `timeouts.idle`, and a try that lost to its hedge count for it alone."""
        peers, endpoint = self.evidence.peers, permit.endpoint
        if peers is None or not self._is_telling:
            return
        if verdict is _SUCCESS:
            seconds = permit.head_seconds if permit.has_head else permit.seconds(now)
            peers.succeeded(endpoint, seconds, now, is_early=is_early)
        elif verdict is _FAILURE or outcome.kind is Kind.REFUSED_BELOW or outcome.is_idle or outcome.has_lost:
            p95 = (self.judge.durations.p95() or 0.0) if peers.is_timing else 0.0
            peers.failed(endpoint, outcome.told, now, max(permit.seconds(now), p95), is_late=is_late)
        elif verdict is Verdict.RATE_ONLY_FAILURE:
            peers.failed(endpoint, outcome.told, now, is_in_row=False)

    def _pass_over(self, permit: BreakerPermit, outcome: Outcome, now: float, *, is_early: bool) -> None:
        """What an unusable endpoint did, while another is usable: it is counted nowhere, and is no probe's
        verdict."""
        permit.verdict = Verdict.IGNORED
        self.judge.count(permit, Verdict.IGNORED, outcome, now, is_early=is_early)
        if permit.is_probe and permit.generation == self.sequence and self.state not in BY_HAND:
            self._probes.give_back(permit)

    def take_judged(
        self,
        permit: BreakerPermit,
        verdict: Verdict,
        outcome: Outcome,
        now: float,
        culprit: Culprit | None,
        *,
        is_early: bool = False,
    ) -> Transition | None:
        """The same, where the verdict is known."""
        permit.verdict = verdict
        self.judge.count(permit, verdict, outcome, now, is_early=is_early)
        if permit.generation != self.sequence or self.state in BY_HAND:
            return None
        self._remember(permit, verdict, outcome, now, culprit)
        if permit.is_probe:
            self._probes.give_back(permit)
            return self._take_probe(permit, verdict, outcome, now, is_early=is_early)
        if verdict is not Verdict.IGNORED:
            self.evidence.take(permit, verdict, outcome.kind, now, is_early=is_early)
        elif permit.is_slow and not permit.mark:
            self.evidence.mark_running(permit, now)
        else:
            return None
        return self._check(now)

    def take_late(
        self, permit: BreakerPermit, outcome: Outcome, now: float, culprit: Culprit | None
    ) -> Transition | None:
        """An attempt that was judged by its head has ended."""
        if permit.verdict is not _SUCCESS:
            return None
        if not self.judge.is_late_failure(permit, outcome, now):
            if outcome.is_idle:
                self._tell_peers(permit, Verdict.IGNORED, outcome, now, is_late=True)
            elif outcome.kind is Kind.ANSWERED and self.evidence.peers is not None and self._is_telling:
                self.evidence.peers.ended_well(permit.endpoint)
            if outcome.kind is Kind.ANSWERED and self._is_of_now(permit):
                self.evidence.rows.end()
            return None
        self._tell_peers(permit, _FAILURE, outcome, now, is_late=True)
        self.evidence.settle(now)
        if not self.evidence.counts(permit.endpoint):
            return None
        if permit.is_probe:
            if not self._has_closed_lately(permit, now):
                return None
            self._remember(permit, _FAILURE, outcome, now, culprit)
            return self.trip(TransitionReason.PROBE_FAILED, now)
        if not self._is_of_now(permit) or not self.evidence.take_late(permit, outcome.kind, now):
            return None
        self._remember(permit, _FAILURE, outcome, now, culprit)
        return self._check(now)

    def _remember(
        self, permit: BreakerPermit, verdict: Verdict, outcome: Outcome, now: float, culprit: Culprit | None
    ) -> None:
        """What may explain the next opening, or lengthen it."""
        if verdict is _FAILURE or verdict is Verdict.RATE_ONLY_FAILURE:
            self.waits.failed(self._policy, permit.endpoint, outcome.retry_after_seconds, now)
        is_of_note = verdict is not _SUCCESS and verdict is not Verdict.IGNORED
        if culprit is None or not (is_of_note or permit.is_slow or permit.is_probe):
            return
        error_type = outcome.error_type
        if not error_type and verdict is not _SUCCESS:
            error_type = str(outcome.status) if outcome.kind is Kind.ANSWERED else outcome.kind.value
        is_failure = verdict is _FAILURE
        if permit.is_slow:
            self.history.withdraw(culprit)
        self.history.suspect(
            culprit, error_type, outcome.status, permit.endpoint, outcome.detail, at=now, is_in_row=is_failure
        )

    def _check(self, now: float) -> Transition | None:
        reason = self._reason(now)
        return None if reason is None else self.trip(reason, now)

    def check_rates(self, now: float) -> Transition | None:
        """A success that was said to a door may have completed `minimum_calls`."""
        self.evidence.settle(now)
        reason = self.evidence.triggers.check_rates(self.evidence.window)
        return None if reason is None or self._is_too_early(reason, now) else self.trip(reason, now)

    def _reason(self, now: float) -> TransitionReason | None:
        """Why to open now."""
        reason = self.evidence.check()
        return None if reason is None or self._is_too_early(reason, now) else reason

    def _is_too_early(self, reason: TransitionReason, now: float) -> bool:
        """Whether it is the doing of a few endpoints, or one that has not failed may answer at any moment."""
        return self.evidence.says_too_little(reason, now, counting.young_seconds(self.judge.durations))

    def _take_probe(
        self, permit: BreakerPermit, verdict: Verdict, outcome: Outcome, now: float, *, is_early: bool
    ) -> Transition | None:
        probes, policy = self._probes, self._policy
        if outcome.kind is Kind.REFUSED_BELOW:
            self.waits.open_after_refusal(policy, now, outcome.retry_after_seconds)
            return self.enter(_OPEN, TransitionReason.PROBE_FAILED, now, self.waits.seconds)
        if verdict is not _FAILURE and 400 <= outcome.status < 500 and outcome.kind is Kind.ANSWERED:
            return self._close(permit, now) if probes.shows_life_alone(policy, now) else None
        if verdict is not _SUCCESS and verdict is not _FAILURE:
            return None
        self.evidence.take(permit, verdict, outcome.kind, now, is_early=is_early)
        probes.hear(now)
        if verdict is _SUCCESS:
            probes.answered(is_slow=permit.is_slow)
            elsewhere = 0 if self.sharing is None else self.sharing.good_elsewhere
            if probes.has_recovered(policy, elsewhere):
                return self._close(permit, now)
            if not probes.is_too_slow(policy):
                return None
        return self.trip(TransitionReason.PROBE_FAILED, now)

    def _is_of_now(self, permit: BreakerPermit) -> bool:
        """Whether the present CLOSED period has admitted it."""
        return permit.generation == self.sequence and self.state is _CLOSED

    def _has_closed_lately(self, probe: BreakerPermit, now: float) -> bool:
        """Whether the breaker is closed since this probe's period, and not longer than for one window."""
        return (
            self.state is _CLOSED and probe.generation == self.sequence - 1 and self._is_in_first_window(now)
        )

    def _is_in_first_window(self, now: float) -> bool:
        window, last = self._policy.window, self.history.last
        if window.type is WindowType.TIME:
            return last is not None and now - last.at <= window.size
        return self.evidence.window.total < window.size

    # Changes of state.

    def end_warm_up(self) -> None:
        """Somebody has answered: from now on a refused connection is a failure."""
        warm = self.judge.warm
        if warm is not None:
            warm.end()
            self.judge.warm = None
            self.renew_door()

    def expire(self, now: float) -> Transition | None:
        """See what time alone has ended."""
        if self.state is _HALF_OPEN and self._probes.is_overdue(self._policy, self._patience, now):
            return self.trip(TransitionReason.PROBE_TIMEOUT, now)
        if self.judge.warm is not None and not self.judge.is_warming_up(now):
            self.judge.warm = None
            self.renew_door()
        return None

    def seconds_to_verdict(self, now: float) -> float:
        """In HALF_OPEN: until `expire` opens the breaker, if no verdict comes."""
        return self._probes.seconds_left(self._policy, self._patience, now)

    def adopt(self, policy: BreakerPolicy, now: float) -> None:
        """Go on under a new policy. Raises ValueError for a window out of bounds; nothing has changed then."""
        self.evidence.adopt(policy, self._policy, now)
        if self.ramp_share(now) is None:
            self._ramp_started = None  # or a longer ramp would bring an ended one back
        self._policy = policy
        self.judge.adopt(policy)
        if self.state is _OPEN:
            self.waits.adopt(policy)
        self.renew_door()

    def _close(self, probe: BreakerPermit, now: float) -> Transition:
        self._closed_by_check = probe.is_check
        if not probe.is_check:
            self._checks_distrusted = False
        return self.enter(_CLOSED, TransitionReason.PROBE_SUCCEEDED, now)

    def trip(self, reason: TransitionReason, now: float) -> Transition:
        """Open, for that reason."""
        is_recovery = (
            reason is TransitionReason.PROBE_FAILED
            or reason is TransitionReason.PROBE_TIMEOUT
            or self.ramp_share(now) is not None
        )
        if self.state is _CLOSED and self._closed_by_check:
            self._checks_distrusted = self._is_in_first_window(now)
        if is_recovery and self.sharing is not None and not self.sharing.doubles():
            self.waits.again(self._policy, now)
        else:
            self.waits.open(self._policy, now, self._rng, is_recovery=is_recovery)
        if reason is TransitionReason.PROBE_TIMEOUT:
            self._patience *= 2.0
        return self.enter(_OPEN, reason, now, self.waits.seconds)

    def enter(
        self,
        state: State,
        reason: TransitionReason,
        now: float,
        wait: float | None = None,
        order: Order | None = None,
        decider: str = "",
    ) -> Transition:
        """The one writer of the state: records the change and starts a new generation."""
        before = self.state
        if (before, state, reason) not in EDGES:
            raise AssertionError(f"no edge from {before.name} to {state.name} for {reason.value}")
        route, upstream = self._names
        numbers, causes = self.evidence.numbers(now), self._causes(reason)
        self.sequence += 1
        if before is _CLOSED and state is _OPEN:
            self._outage = now
        is_longest = wait is not None and self.waits.is_longest(self._policy)
        transition = Transition(
            self.sequence, route, upstream, before, state, reason, now, numbers, wait, causes, order,
            self._outage, self.judge.tally.rejected, is_longest, decider,
        )  # fmt: skip
        if state not in _REFUSING:
            self._outage = None
        self._ramp_started = None
        if state is _CLOSED:
            self._has_closed(reason, now)
        elif state is _OPEN or state is State.FORCED_OPEN:
            self._opened_by, self.opened_at = self.sequence, now
        self.state = state
        self.evidence.clear(now)
        self._probes = Probes(now)
        self.history.add(transition)
        self.renew_door()
        if self.sharing is not None:
            self.sharing.entered(transition)
        return transition

    # As one with other processes.

    def share(self, sharing: Sharing | None) -> None:
        """Act as one with others from now on; None: alone again. The state stays; the window too."""
        self.sharing = sharing
        self.evidence.watch(sharing)
        self.renew_door()

    def follow(self, state: State, decider: str, now: float) -> Transition | None:
        """Take over a state that others have decided; of an OPEN one the wait is given to `waits` beforehand. None:
        it is in that state, or an operator or the configuration holds it."""
        if self.state is state or self.state in BY_HAND:
            return None
        wait = self.waits.seconds if state is _OPEN else None
        return self.enter(state, TransitionReason.PEERS, now, wait, decider=decider)

    def begin_wait(self, now: float, *, is_recovery: bool) -> None:
        """Begin a wait that is to be told to others; `is_recovery`: it is doubled."""
        self.waits.open(self._policy, now, self._rng, is_recovery=is_recovery)

    @property
    def good_probes(self) -> int:
        """Of this half-open period."""
        return self._probes.good

    def _has_closed(self, reason: TransitionReason, now: float) -> None:
        if self.state not in _ADMITTING and self._policy.ramp_seconds > 0:
            self._ramp_started = now
        self._patience = 1.0
        if reason is TransitionReason.PROBE_SUCCEEDED or reason is TransitionReason.PEERS:
            self.waits.close(now)
        else:
            self._closed_by_check = False
            self.waits.forget()

    def _causes(self, reason: TransitionReason) -> tuple[Cause, ...]:
        # As many as the trigger counted: a failure long out of the window is no cause.
        if self.state is not _CLOSED:
            return self.history.causes(CAUSES)
        if reason is TransitionReason.PROBE_FAILED:
            return self.history.causes(1)
        if reason is TransitionReason.CONSECUTIVE_FAILURES:
            return self.history.causes(self.evidence.rows.longest, in_row=True)
        window = self.evidence.window
        return self.history.causes(window.failed + window.slow + window.silent)
