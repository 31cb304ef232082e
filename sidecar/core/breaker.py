"""The circuit breaker of one route and upstream: decides who may go, learns from how it ended (SPEC 3).

One event loop owns a breaker, and no method suspends, so each is atomic. It reads no clock and calls nobody:
every method takes `now` (monotonic seconds), and a change of state is *returned*, for the caller to report,
by whichever of `admit`, `settle`, `tick`, `override` or `reconfigure` made it. The state has one writer,
`_enter`, which accepts the edges of `statechart.py` and no others.

Where the contract is silent:

* A generation is a state period. Window, remembered causes and probes belong to it and end with it.
* RATE_ONLY_FAILURE (429) counts in the failure rate and touches nothing else: it neither adds to the
  consecutive failures nor ends their row. As a probe it gives its permit back and proves neither recovery
  (the upstream sheds load) nor outage (it lives), so the breaker stays HALF_OPEN and goes on letting
  `max_calls` at a time through.
* A slow success is no good probe. Slow probes open the breaker again as soon as at least `successes` probes
  were answered and their slow share reaches `slow_call_rate_threshold`; before that they count as nothing.
* Outcomes in HALF_OPEN show in the window numbers of its end, and the CLOSED period after it starts empty.
* `max_wait` runs from the later of the oldest probe in flight and the last verdict, so a quiet HALF_OPEN
  never times out. It doubles at each probe timeout in a row: an upstream whose good answers take longer than
  `max_wait` would otherwise never get a verdict in, and its breaker would be shut for ever.
* An operator's override acts in every mode; `mode: metrics_only` waives only what the machine itself refuses.
* FORCED_OPEN and DISABLED end in CLOSED, with a ramp after FORCED_OPEN, since nothing is known by then.

The class is one piece, if a long one: whoever wants to know how the state can change reads one file and one
writer. What needs no state is next door: `window`, `triggers`, `recovery`, `history`, `candidate`.

Memory (a test holds it): 2 KiB when new, 6 KiB with 32 causes remembered, 9 KiB with a candidate besides. A
full history takes about 110 KiB more in a breaker that flaps; breakers that share an `Archive` share 1,024 records
and have but 8 each to themselves, so that a thousand of them that flap together take 10 MiB at most.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Final

from sidecar.core import recovery
from sidecar.core.breaker_admission import NO_GENERATION, Admission
from sidecar.core.breaker_numbers import BreakerNumbers, CandidateNumbers, Tally
from sidecar.core.candidate import EvenChance, candidate_policy
from sidecar.core.history import CAUSES, Archive, Culprit, History
from sidecar.core.outcome import Verdict
from sidecar.core.recovery import Chance, Probes
from sidecar.core.snapshot import BreakerMode, BreakerPolicy
from sidecar.core.statechart import EDGES
from sidecar.core.transition import Cause, State, Transition, TransitionReason, WindowNumbers
from sidecar.core.triggers import Triggers
from sidecar.core.window import FAILED, SLOW, new_window

BUSY_RETRY_SECONDS: Final = 1.0
"""`Retry-After` where a verdict or a larger share of the ramp is expected at any moment."""

# Members are read from module globals in the hot path: the enum's own lookup costs 50 ns each time.
_SUCCESS: Final = Verdict.SUCCESS
_IGNORED: Final = Verdict.IGNORED
_CLOSED: Final = State.CLOSED


class Override(Enum):
    """What an operator may ask for."""

    OPEN = "open"
    """FORCED_OPEN: refuse everything."""
    CLOSE = "close"
    """DISABLED: admit everything."""
    AUTO = "auto"
    """Back to what the policy's mode says."""


_BY_HAND: Final = {Override.OPEN: State.FORCED_OPEN, Override.CLOSE: State.DISABLED}


class Breaker:
    """One breaker; the module says how it decides.

    Each `admit` that admitted must be followed by exactly one `settle`, on the same breaker: after a change
    of upstream, exchanges in flight settle on the old one.
    """

    __slots__ = (
        "_candidate",
        "_closed_generation",
        "_consecutive",
        "_door",
        "_history",
        "_nominal_wait",
        "_open_until",
        "_opened_by",
        "_override",
        "_override_until",
        "_patience",
        "_policy",
        "_probes",
        "_ramp_started",
        "_rng",
        "_sequence",
        "_slow_seconds",
        "_state",
        "_tally",
        "_triggers",
        "_watching",
        "_window",
        "route",
        "upstream",
    )

    def __init__(
        self,
        route: str,
        upstream: str,
        policy: BreakerPolicy,
        rng: Chance,
        now: float,
        archive: Archive | None = None,
        predecessor: Breaker | None = None,
    ) -> None:
        """Begin in the resting state of the policy's mode. `rng`, a `random.Random`, serves jitter and ramp.

        `archive` bounds the histories of all breakers that share it; None leaves this one its 256. An override
        of the `predecessor`, whose upstream has changed, goes on here until its time: it was said of the route.

        Raises:
            ValueError: the window's size is out of bounds (`window.py`).
        """
        self.route = route
        self.upstream = upstream
        self._rng = rng
        self._tally = Tally()
        self._history = History(archive)
        self._override: Override = Override.AUTO if predecessor is None else predecessor._override
        self._override_until: float | None = None if predecessor is None else predecessor._override_until
        self._state = _BY_HAND.get(self._override) or _resting_state(policy.mode) or _CLOSED
        self._sequence = 0
        self._consecutive = 0
        self._open_until = now
        self._opened_by = 0
        self._nominal_wait = recovery.first_wait(policy)
        self._patience = 1.0
        self._ramp_started: float | None = None
        self._probes = Probes(now)
        self._window = new_window(policy.window, now)
        self._door: Admission | None = None
        self._candidate: Breaker | None = None
        self._adopt(policy, now)

    @property
    def state(self) -> State:
        """As of the last call; `tick` brings it up to date where only time has passed."""
        return self._state

    @property
    def policy(self) -> BreakerPolicy:
        return self._policy

    @property
    def generation(self) -> int:
        """The number of the present state period: how many transitions there were."""
        return self._sequence

    @property
    def history(self) -> tuple[Transition, ...]:
        """The last transitions, oldest first: 256 at most, and 8 at least. Older ones name their last cause
        alone (`history.py`)."""
        return self._history.transitions

    @property
    def tally(self) -> Tally:
        """The counters since its birth, to be read: the one view of a breaker that any thread may take."""
        return self._tally

    @property
    def candidate(self) -> Breaker | None:
        """The second policy's breaker, to be looked at."""
        return self._candidate

    def __repr__(self) -> str:
        window = self._window
        return (
            f"<Breaker {self.route}/{self.upstream} {self._state.name} {self._policy.mode.value},"
            f" {window.failed} failed and {window.slow} slow of {window.total},"
            f" {self._consecutive} in a row, {len(self._probes)} probes, generation {self._sequence}>"
        )

    # The data path: admit and settle.

    def admit(self, now: float) -> Admission:
        """Decide on one request. If the answer says `is_admitted`, it must be settled exactly once."""
        self._tally.total += 1
        door = self._door
        if door is None:
            return self._admit_by_state(now)
        candidate = self._watching
        if candidate is None:
            return door
        answer = candidate.admit(now)
        return door if answer is door.candidate_admission else self._renewed_door(door, candidate, answer)

    def settle(
        self,
        admission: Admission,
        verdict: Verdict,
        seconds: float,
        now: float,
        cause: Culprit | None = None,
        is_timeout: bool = False,
    ) -> Transition | None:
        """Take in how an admitted request ended, and return the transition that this caused, if any.

        Args:
            admission: what `admit` returned. One of an earlier generation changes nothing but the counters.
            verdict: of `core/outcome.judge`, under this breaker's policy.
            seconds: the attempt took; compared with `slow_call_duration` and not kept.
            now: monotonic seconds.
            cause: whose outcome it is. Its three ids are copied only if the outcome may matter later.
            is_timeout: it ended by a timeout, whatever the verdict; only counted.
        """
        candidate = admission.candidate
        if candidate is not None and admission.candidate_admission is not None:
            candidate.settle(admission.candidate_admission, verdict, seconds, now, None, is_timeout)
        if (
            verdict is not _SUCCESS
            or admission.generation != self._closed_generation
            or seconds >= self._slow_seconds
        ):
            return self._settle_by_state(admission, verdict, seconds, now, cause, is_timeout)
        self._tally.successful += 1
        self._consecutive = 0
        window = self._window
        window.add(now, 0)
        if window.failed or window.slow:
            reason = self._triggers.check_rates(window)
            if reason is not None:
                return self._trip(reason, now)
        return None

    def _admit_by_state(self, now: float) -> Admission:
        transition = self._expire(now)
        state = self._state
        if state is _CLOSED:
            started = self._ramp_started
            if started is None or not recovery.is_ramping(started, self._policy, now):
                self._ramp_started = None
                self._hang_door()
            elif not recovery.is_let_in(started, self._policy, now, self._rng):
                return self._refuse(BUSY_RETRY_SECONDS, transition, now)
            return self._admit(transition, now)
        if state is State.DISABLED:
            return self._admit(transition, now)
        if state is State.OPEN:
            if now < self._open_until or transition is not None:
                return self._refuse(self._open_until - now, transition, now)
            transition = self._enter(State.HALF_OPEN, TransitionReason.WAIT_ELAPSED, now)
            return self._admit_probe(transition, now)
        if state is State.HALF_OPEN:
            if self._probes.has_permit(self._policy):
                return self._admit_probe(transition, now)
            return self._refuse(BUSY_RETRY_SECONDS, transition, now)
        until = self._override_until
        # Nobody knows when an operator or a reload will end it; `open_for` is when it may be worth a look.
        return self._refuse(self._policy.open_seconds if until is None else until - now, transition, now)

    def _admit(self, transition: Transition | None, now: float) -> Admission:
        return self._watched(Admission(True, self._sequence, False, self._state, 0.0, transition), now)

    def _admit_probe(self, transition: Transition | None, now: float) -> Admission:
        probe = Admission(True, self._sequence, True, self._state, 0.0, transition)
        self._probes.take(probe, now)
        return self._watched(probe, now)

    def _refuse(self, retry_after_seconds: float, transition: Transition | None, now: float) -> Admission:
        state = self._state
        opened_by = self._history.find(self._opened_by)
        if self._policy.mode is BreakerMode.METRICS_ONLY and state is not State.FORCED_OPEN:
            self._tally.would_have_rejected += 1
            waved = Admission(True, NO_GENERATION, False, state, 0.0, transition, opened_by, True)
            return self._watched(waved, now)
        self._tally.rejected += 1
        return Admission(False, NO_GENERATION, False, state, retry_after_seconds, transition, opened_by)

    def _watched(self, admission: Admission, now: float) -> Admission:
        candidate = self._watching
        if candidate is not None:
            admission.candidate = candidate
            admission.candidate_admission = candidate.admit(now)
        return admission

    def _renewed_door(self, door: Admission, candidate: Breaker, answer: Admission) -> Admission:
        renewed = Admission(True, door.generation, False, door.state)
        renewed.candidate = candidate
        renewed.candidate_admission = answer
        if answer is candidate._door:
            self._door = renewed
        return renewed

    def _settle_by_state(
        self,
        admission: Admission,
        verdict: Verdict,
        seconds: float,
        now: float,
        cause: Culprit | None,
        is_timeout: bool,
    ) -> Transition | None:
        if not admission.is_admitted:
            return None
        if is_timeout:
            self._tally.timed_out += 1
        is_current = admission.generation == self._sequence
        if is_current and admission.is_probe:
            self._probes.give_back(admission)
        if verdict is _IGNORED:
            self._tally.ignored += 1
            return None
        mark = self._count(verdict, seconds, now)
        if admission.is_waved_through:
            if mark & FAILED:
                self._tally.failures_saved += 1
            else:
                self._tally.would_have_been_fine += 1
        if not is_current or self._state is State.DISABLED:
            return None
        self._learn(verdict, mark, now)
        is_probe = admission.is_probe
        if cause is not None and (mark or is_probe):
            self._history.suspect(cause)
        if is_probe:
            return self._judge_probe(verdict, mark, now)
        reason = self._triggers.check(self._window, self._consecutive)
        return None if reason is None else self._trip(reason, now)

    def _count(self, verdict: Verdict, seconds: float, now: float) -> int:
        mark = SLOW if seconds >= self._slow_seconds else 0
        if mark:
            self._tally.slow += 1
        if verdict is _SUCCESS:
            self._tally.successful += 1
            return mark
        self._tally.failed += 1
        self._tally.last_failure_at = now
        return mark | FAILED

    # What was learned, and what follows from it.

    def _learn(self, verdict: Verdict, mark: int, now: float) -> None:
        self._window.add(now, mark)
        if verdict is _SUCCESS:
            self._consecutive = 0
        elif verdict is Verdict.FAILURE:
            self._consecutive += 1

    def _judge_probe(self, verdict: Verdict, mark: int, now: float) -> Transition | None:
        probes = self._probes
        probes.hear(now)
        if verdict is Verdict.FAILURE:
            return self._trip(TransitionReason.PROBE_FAILED, now)
        if verdict is not _SUCCESS:
            return None
        if not mark:
            probes.good += 1
        else:
            probes.slow += 1
        if probes.has_recovered(self._policy):
            return self._enter(_CLOSED, TransitionReason.PROBE_SUCCEEDED, now)
        return self._trip(TransitionReason.PROBE_FAILED, now) if probes.is_too_slow(self._policy) else None

    def _trip(self, reason: TransitionReason, now: float) -> Transition:
        policy = self._policy
        if self._state is State.HALF_OPEN or recovery.is_ramping(self._ramp_started, policy, now):
            self._nominal_wait = recovery.doubled_wait(self._nominal_wait, policy)
            wait = recovery.jittered(self._nominal_wait, policy, self._rng)
        else:
            self._nominal_wait = wait = recovery.first_wait(policy)
        if reason is TransitionReason.PROBE_TIMEOUT:
            self._patience *= 2.0
        return self._enter(State.OPEN, reason, now, wait)

    def _enter(
        self, state: State, reason: TransitionReason, now: float, wait: float | None = None
    ) -> Transition:
        """The one writer of the state: records the change and starts a new generation."""
        if (self._state, state, reason) not in EDGES:
            raise AssertionError(f"no edge from {self._state.name} to {state.name} for {reason.value}")
        transition = Transition(
            sequence=self._sequence + 1,
            route=self.route,
            upstream=self.upstream,
            from_state=self._state,
            to_state=state,
            reason=reason,
            at=now,
            window=self._window_numbers(now),
            wait_seconds=wait,
            causes=self._causes(reason),
        )
        if state is _CLOSED:
            is_cold = self._state is not State.DISABLED and self._policy.ramp_seconds > 0
            self._ramp_started = now if is_cold else None
            self._patience = 1.0
            if reason is not TransitionReason.PROBE_SUCCEEDED:
                self._nominal_wait = recovery.first_wait(self._policy)
        elif state is State.OPEN or state is State.FORCED_OPEN:
            self._open_until = now + (wait or 0.0)
            self._opened_by = transition.sequence
        self._state = state
        self._sequence += 1
        self._consecutive = 0
        self._window.clear(now)
        self._probes = Probes(now)
        self._history.add(transition)
        self._hang_door()
        return transition

    def _causes(self, reason: TransitionReason) -> tuple[Cause, ...]:
        # As many as the trigger counted: a failure long out of the window is no cause.
        window = self._window
        if self._state is not _CLOSED:
            return self._history.causes(CAUSES)
        is_row = reason is TransitionReason.CONSECUTIVE_FAILURES
        return self._history.causes(self._consecutive if is_row else window.failed + window.slow)

    def _hang_door(self) -> None:
        """Keep one answer for all requests as long as nothing but a transition can change it."""
        state = self._state
        is_closed = state is _CLOSED
        self._closed_generation = self._sequence if is_closed else NO_GENERATION - 1
        is_open_to_all = (
            self._ramp_started is None
            if is_closed
            else state is State.DISABLED and self._override_until is None
        )
        self._door = Admission(True, self._sequence, False, state) if is_open_to_all else None
        is_by_hand = state is State.DISABLED or state is State.FORCED_OPEN
        self._watching = None if is_by_hand else self._candidate

    # Time, operators and new configurations.

    def tick(self, now: float) -> Transition | None:
        """See what time alone has ended: an override, or the wait for a probe. Due about each second.

        An open breaker stays OPEN however long nobody asks; it takes a request to make it HALF_OPEN.
        """
        if self._candidate is not None:
            self._candidate.tick(now)
        return self._expire(now)

    def _expire(self, now: float) -> Transition | None:
        if self._override_until is not None and now >= self._override_until:
            return self._release(now)
        if self._state is State.HALF_OPEN and self._probes.is_overdue(self._policy, self._patience, now):
            return self._trip(TransitionReason.PROBE_TIMEOUT, now)
        return None

    def override(self, action: Override, now: float, seconds: float | None = None) -> Transition | None:
        """Take the breaker out of the machine's hands, or give it back; it replaces an override that is on.

        It acts in every mode, survives `reconfigure`, and ends `seconds` from now (None: by another call
        alone). AUTO takes no `seconds`, and does nothing if there is no override. None if the state is the
        one asked for.

        Raises:
            ValueError: `seconds` is zero or less.
        """
        if seconds is not None and seconds <= 0:
            raise ValueError(f"an override of {seconds} s ends before it begins: give a time above zero")
        if action is Override.AUTO:
            return self._release(now) if self._override is not Override.AUTO else None
        self._override = action
        self._override_until = None if seconds is None else now + seconds
        return self._move(_BY_HAND[action], TransitionReason.FORCED, now)

    def inherit(self, predecessor: Breaker, now: float) -> Transition | None:
        """Take on what an operator has told the `predecessor` since this one was made, as at birth."""
        told = predecessor._override, predecessor._override_until
        if told == (self._override, self._override_until):
            return None
        self._override, self._override_until = told
        state = _BY_HAND.get(self._override) or _resting_state(self._policy.mode)
        return self._move(state, TransitionReason.FORCED, now)

    def _release(self, now: float) -> Transition | None:
        self._override = Override.AUTO
        self._override_until = None
        return self._move(_resting_state(self._policy.mode), TransitionReason.FORCED, now)

    def _move(self, state: State | None, reason: TransitionReason, now: float) -> Transition | None:
        """Go to a state set by hand, or (None) out of one; nothing happens if it is there already."""
        if state is None:
            state = _CLOSED if self._state in (State.FORCED_OPEN, State.DISABLED) else self._state
        if state is self._state:
            self._hang_door()
            return None
        return self._enter(state, reason, now)

    def reconfigure(self, policy: BreakerPolicy, now: float) -> tuple[Transition, ...]:
        """Go on under a new policy and return the transitions on the way (what was due before, then its own).

        State, generation, counters, override and probes in flight stay, and the window if its type and size
        do; new thresholds are applied from the next outcome on. A wait that is on is cut to the new
        `max_open_for`, never made longer. Only a new `mode` changes the state. For a new upstream, make a new
        breaker.

        Raises:
            ValueError: the window's size is out of bounds; nothing has changed then.
        """
        window = self._window if policy.window == self._policy.window else new_window(policy.window, now)
        due = self._expire(now)
        if not recovery.is_ramping(self._ramp_started, self._policy, now):
            self._ramp_started = None  # or a longer ramp would bring an ended one back
        self._window = window
        self._adopt(policy, now)
        moved = None
        if self._override is Override.AUTO:
            moved = self._move(_resting_state(policy.mode), TransitionReason.RELOAD, now)
        return tuple(transition for transition in (due, moved) if transition is not None)

    def _adopt(self, policy: BreakerPolicy, now: float) -> None:
        self._policy = policy
        self._triggers = Triggers(policy)
        self._slow_seconds = inf if policy.slow_call_seconds is None else policy.slow_call_seconds
        opened_by = self._history.find(self._opened_by)
        if self._state is State.OPEN and opened_by is not None:
            self._open_until = min(self._open_until, opened_by.at + policy.max_open_seconds)
        self._adopt_candidate(candidate_policy(policy), now)
        self._hang_door()

    def _adopt_candidate(self, policy: BreakerPolicy | None, now: float) -> None:
        if policy is None:
            self._candidate = None
        elif self._candidate is None:
            self._candidate = Breaker(
                self.route, self.upstream, policy, EvenChance(), now, self._history.archive
            )
        else:
            self._candidate.reconfigure(policy, now)

    # What others see.

    def numbers(self, now: float) -> BreakerNumbers:
        """Everything there is to show, as of `now`; changes no state. The loop's thread alone may ask, since
        it lets the window's old outcomes go."""
        tally = self._tally
        ended = tally.successful + tally.failed + tally.ignored + tally.rejected
        return BreakerNumbers(
            route=self.route,
            upstream=self.upstream,
            mode=self._policy.mode,
            state=self._state,
            generation=self._sequence,
            total=tally.total,
            successful=tally.successful,
            failed=tally.failed,
            ignored=tally.ignored,
            rejected=tally.rejected,
            in_flight=tally.total - ended,
            timed_out=tally.timed_out,
            slow=tally.slow,
            transitions=self._sequence,
            would_have_rejected=tally.would_have_rejected,
            would_have_been_fine=tally.would_have_been_fine,
            failures_saved=tally.failures_saved,
            window=self._window_numbers(now),
            probes_in_flight=len(self._probes),
            last_failure_at=tally.last_failure_at,
            last_transition_at=None if self._history.last is None else self._history.last.at,
            next_probe_at=self._open_until if self._state is State.OPEN else None,
            override_until=self._override_until,
            is_overridden=self._override is not Override.AUTO,
            candidate=self._candidate_numbers(now),
        )

    def _candidate_numbers(self, now: float) -> CandidateNumbers | None:
        candidate = self._candidate
        if candidate is None:
            return None
        return CandidateNumbers(
            state=candidate._state,
            total=candidate._tally.total,
            would_have_rejected=candidate._tally.would_have_rejected,
            would_have_been_fine=candidate._tally.would_have_been_fine,
            failures_saved=candidate._tally.failures_saved,
            transitions=candidate._sequence,
            window=candidate._window_numbers(now),
        )

    def _window_numbers(self, now: float) -> WindowNumbers:
        window = self._window
        window.expire(now)
        return WindowNumbers(window.total, window.failed, window.slow, self._consecutive)


def _resting_state(mode: BreakerMode) -> State | None:
    """The state that a mode fixes, or None for those that run the machine."""
    if mode is BreakerMode.FORCED_OPEN:
        return State.FORCED_OPEN
    return State.DISABLED if mode is BreakerMode.DISABLED else None
