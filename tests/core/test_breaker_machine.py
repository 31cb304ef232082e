"""The breaker against a naive bookkeeper, over random policies, traffic, operators and reloads.

The bookkeeper keeps a list of everything and counts anew each time; nothing of it is fast or shared with the
breaker. Chance is the breaker's own: where it decides (jitter, ramp), the bookkeeper checks the bounds and
takes over what came. Rules are guided (an endpoint dies, the open period ends), since a random walk hardly
ever gets to HALF_OPEN. That the test can fail is tested, too: each planted bug must be found.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sidecar.core import breaker as breaker_module
from sidecar.core.breaker import Breaker, Override
from sidecar.core.breaker_admission import Admission
from sidecar.core.outcome import Verdict
from sidecar.core.recovery import Probes
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, CandidatePolicy, WindowPolicy, WindowType
from sidecar.core.statechart import EDGES
from sidecar.core.transition import State, Transition, TransitionReason
from sidecar.core.window import BUCKETS

MS = 1 / 1024
"""Time moves on a grid of these; a power of two, so that sums are exact and boundaries mean what they say."""


def on_grid(instant: float) -> float:
    """The first moment of the grid that is not before `instant`; one MS earlier is before it."""
    return math.ceil(instant / MS) * MS


RESTING = {BreakerMode.FORCED_OPEN: State.FORCED_OPEN, BreakerMode.DISABLED: State.DISABLED}
COUNTED = (
    "total",
    "successful",
    "failed",
    "ignored",
    "rejected",
    "slow",
    "would_have_rejected",
    "would_have_been_fine",
    "failures_saved",
)
BY_HAND = (State.FORCED_OPEN, State.DISABLED)

WINDOWS = st.builds(WindowPolicy, st.just(WindowType.COUNT), st.integers(1, 12)) | st.builds(
    WindowPolicy, st.just(WindowType.TIME), st.sampled_from([1.0, 8.0])
)
POLICIES = st.builds(
    BreakerPolicy,
    mode=st.sampled_from([BreakerMode.ENFORCE] * 6 + [BreakerMode.METRICS_ONLY] * 2 + list(BreakerMode)),
    window=WINDOWS,
    minimum_calls=st.integers(0, 15),
    failure_rate_threshold=st.sampled_from([0.1, 0.5, 1.0]),
    consecutive_failures=st.sampled_from([0, 1, 2, 3, 5]),
    slow_call_seconds=st.sampled_from([None, 1.0]),
    slow_call_rate_threshold=st.sampled_from([0.5, 0.8, 1.0]),
    open_seconds=st.sampled_from([0.5, 2.0, 5.0]),
    max_open_seconds=st.sampled_from([5.0, 60.0]),
    half_open_max_calls=st.integers(0, 3),
    half_open_successes=st.integers(0, 3),
    half_open_max_wait_seconds=st.sampled_from([0.25, 4.0]),
    ramp_seconds=st.sampled_from([0.0, 0.0, 6.0]),
    candidate=st.sampled_from([None, CandidatePolicy(consecutive_failures=2)]),
)
VERDICTS = st.sampled_from(list(Verdict))
SECONDS = st.sampled_from([0.125, 1.0 - MS, 1.0])


@dataclass
class Call:
    """A request in flight."""

    admission: Admission
    generation: int
    is_probe: bool
    is_waved: bool
    at: float


@dataclass
class Outcome:
    """Whatever was learned in the present generation."""

    at: float
    verdict: Verdict
    is_slow: bool


@dataclass
class Bookkeeper:
    """What the breaker should be, from everything that was seen."""

    policy: BreakerPolicy
    now: float
    state: State = State.CLOSED
    generation: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    row: int = 0
    window_since: float = 0.0
    window_from: int = 0
    entered: float = 0.0
    open_until: float = 0.0
    nominal: float = 0.0
    timeouts_in_a_row: int = 0
    ramp_since: float | None = None
    good: int = 0
    slow: int = 0
    heard: float = 0.0
    override: State | None = None
    override_until: float | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def in_window(self) -> list[Outcome]:
        kept = self.outcomes[self.window_from :]
        if self.policy.window.type is WindowType.COUNT:
            return kept[-int(self.policy.window.size) :]
        width = self.policy.window.size / BUCKETS

        def bucket(at: float) -> int:
            return int((at - self.window_since) / width)

        return [o for o in kept if bucket(o.at) > bucket(self.now) - BUCKETS]

    def window_numbers(self) -> tuple[int, int, int, int]:
        kept = self.in_window()
        failed = sum(o.verdict is not Verdict.SUCCESS for o in kept)
        return len(kept), failed, sum(o.is_slow for o in kept), self.row

    def is_ramping(self) -> bool:
        if self.state is not State.CLOSED or self.ramp_since is None:
            return False
        return self.now - self.ramp_since < self.policy.ramp_seconds

    def trigger(self) -> TransitionReason | None:
        """Why a closed breaker should open now."""
        policy = self.policy
        total, failed, slow, row = self.window_numbers()
        if policy.consecutive_failures and row >= policy.consecutive_failures:
            return TransitionReason.CONSECUTIVE_FAILURES
        minimum = policy.minimum_calls
        if policy.window.type is WindowType.COUNT:
            minimum = min(minimum, int(policy.window.size))
        if total < minimum:
            return None
        if failed and failed / total >= policy.failure_rate_threshold:
            return TransitionReason.FAILURE_RATE
        if policy.slow_call_seconds is not None and slow and slow / total >= policy.slow_call_rate_threshold:
            return TransitionReason.SLOW_CALL_RATE
        return None

    def enter(self, state: State, seen: Transition | None, reason: TransitionReason) -> None:
        """Expect `seen` to be the transition to `state`, and follow it."""
        assert seen is not None, f"expected {self.state.name} to {state.name} for {reason.value}"
        expected = (self.generation + 1, self.state, state, reason, self.now)
        assert (seen.sequence, seen.from_state, seen.to_state, seen.reason, seen.at) == expected
        window = seen.window
        numbers = (window.total, window.failed, window.slow, window.consecutive_failures)
        assert numbers == self.window_numbers()
        if state is State.OPEN:
            self.check_wait(seen.wait_seconds)
            self.timeouts_in_a_row += reason is TransitionReason.PROBE_TIMEOUT
        else:
            assert seen.wait_seconds is None
        if state is State.CLOSED:
            self.ramp_since = (
                self.now if self.policy.ramp_seconds and self.state is not State.DISABLED else None
            )
            self.timeouts_in_a_row = 0
            if self.state in BY_HAND:
                self.nominal = min(self.policy.open_seconds, self.policy.max_open_seconds)
        self.state = state
        self.generation += 1
        self.outcomes = []
        self.row = self.window_from = self.good = self.slow = 0
        self.window_since = self.entered = self.heard = self.now

    def check_wait(self, wait: float | None) -> None:
        assert wait is not None
        policy = self.policy
        if self.state is State.HALF_OPEN or self.is_ramping():
            self.nominal = min(2 * self.nominal, policy.max_open_seconds)
            low = min(self.nominal, 0.9 * policy.max_open_seconds)
            assert low <= wait <= min(1.1 * self.nominal, policy.max_open_seconds)
        else:
            self.nominal = min(policy.open_seconds, policy.max_open_seconds)
            assert wait == self.nominal
        self.open_until = self.now + wait


class BreakerMachine(RuleBasedStateMachine):
    breaker_class: ClassVar[type[Breaker]] = Breaker

    @initialize(policy=POLICIES, seed=st.integers(0, 99))
    def is_born(self, policy: BreakerPolicy, seed: int) -> None:
        self.now = 1000.0
        self.breaker = self.breaker_class("r", "u", policy, random.Random(seed), self.now)
        self.book = Bookkeeper(policy, self.now, RESTING.get(policy.mode, State.CLOSED))
        self.book.nominal = min(policy.open_seconds, policy.max_open_seconds)
        self.book.window_since = self.now
        self.in_flight: list[Call] = []
        self.transitions: list[Transition] = []

    # What the bookkeeper expects of each call.

    def probes(self) -> list[Call]:
        return [c for c in self.in_flight if c.is_probe and c.generation == self.book.generation]

    def report(self, transition: Transition | None) -> Transition | None:
        if transition is not None:
            self.transitions.append(transition)
        return transition

    def expire(self, seen: Transition | None) -> bool:
        """Follow what time alone should have done by now; True if `seen` was that."""
        book = self.book
        if book.override_until is not None and self.now >= book.override_until:
            book.override = book.override_until = None
            return self.settle_by_hand(RESTING.get(book.policy.mode), TransitionReason.FORCED, seen)
        probes = self.probes()
        if book.state is State.HALF_OPEN and probes:
            since = max(book.heard, min(call.at for call in probes))
            patience = book.policy.half_open_max_wait_seconds * 2**book.timeouts_in_a_row
            if self.now - since >= patience:
                book.enter(State.OPEN, seen, TransitionReason.PROBE_TIMEOUT)
                return True
        return False

    def settle_by_hand(self, to: State | None, reason: TransitionReason, seen: Transition | None) -> bool:
        book = self.book
        if to is None:
            to = State.CLOSED if book.state in BY_HAND else book.state
        if to is book.state:
            return False
        book.enter(to, seen, reason)
        return True

    def request(self) -> Call | None:
        book = self.book
        admission = self.breaker.admit(self.now)
        seen = self.report(admission.transition)
        book.count("total")
        is_explained = self.expire(seen)
        is_probe = False
        if book.state is State.OPEN and self.now >= book.open_until and not is_explained:
            book.enter(State.HALF_OPEN, seen, TransitionReason.WAIT_ELAPSED)
            is_explained = is_probe = True
        elif book.state is State.HALF_OPEN:
            is_probe = len(self.probes()) < max(1, book.policy.half_open_max_calls)
        assert seen is None or is_explained
        assert admission.state is book.state
        assert admission.is_probe == is_probe
        is_refused = not is_probe and book.state in (State.OPEN, State.HALF_OPEN, State.FORCED_OPEN)
        if book.state is State.CLOSED and book.is_ramping():
            is_refused = not admission.is_admitted or admission.is_waved_through
            assert is_refused or self.now > (book.ramp_since or 0.0)
        is_waved = (
            is_refused
            and book.policy.mode is BreakerMode.METRICS_ONLY
            and book.state is not State.FORCED_OPEN
        )
        assert admission.is_waved_through == is_waved
        assert admission.is_admitted == (is_waved or not is_refused)
        if not admission.is_admitted:
            book.count("rejected")
            assert admission.retry_after_seconds >= 0
            if book.state is State.OPEN:
                assert admission.retry_after_seconds == book.open_until - self.now
            return None
        if is_waved:
            book.count("would_have_rejected")
        call = Call(admission, -1 if is_waved else book.generation, is_probe, is_waved, self.now)
        self.in_flight.append(call)
        return call

    def end(self, call: Call, verdict: Verdict, seconds: float = 0.125) -> None:
        book = self.book
        seen = self.report(self.breaker.settle(call.admission, verdict, seconds, self.now))
        self.in_flight.remove(call)
        is_explained = False
        if verdict is Verdict.IGNORED:
            book.count("ignored")
        else:
            slow_from = book.policy.slow_call_seconds
            is_slow = slow_from is not None and seconds >= slow_from
            if is_slow:
                book.count("slow")
            book.count("successful" if verdict is Verdict.SUCCESS else "failed")
            if call.is_waved:
                book.count("would_have_been_fine" if verdict is Verdict.SUCCESS else "failures_saved")
            if call.generation == book.generation and book.state is not State.DISABLED:
                is_explained = self.learn(Outcome(self.now, verdict, is_slow), seen)
        assert seen is None or is_explained

    def learn(self, outcome: Outcome, seen: Transition | None) -> bool:
        book = self.book
        book.outcomes.append(outcome)
        if outcome.verdict is Verdict.FAILURE:
            book.row += 1
        elif outcome.verdict is Verdict.SUCCESS:
            book.row = 0
        if book.state is State.CLOSED:
            reason = book.trigger()
            if reason is None:
                return False
            book.enter(State.OPEN, seen, reason)
            return True
        assert book.state is State.HALF_OPEN
        book.heard = self.now
        if outcome.verdict is Verdict.RATE_ONLY_FAILURE:
            return False
        book.slow += outcome.is_slow
        book.good += outcome.verdict is Verdict.SUCCESS and not outcome.is_slow
        heard, needed = book.good + book.slow, book.policy.half_open_successes
        if outcome.verdict is Verdict.FAILURE:
            book.enter(State.OPEN, seen, TransitionReason.PROBE_FAILED)
        elif book.good >= needed:
            book.enter(State.CLOSED, seen, TransitionReason.PROBE_SUCCEEDED)
        elif book.slow and heard >= needed and book.slow / heard >= book.policy.slow_call_rate_threshold:
            book.enter(State.OPEN, seen, TransitionReason.PROBE_FAILED)
        else:
            return False
        return True

    def pass_time(self, seconds: float) -> None:
        self.now += round(seconds / MS) * MS
        self.book.now = self.now

    # Rules.

    @rule()
    def request_starts(self) -> None:
        self.request()

    @rule(data=st.data(), verdict=VERDICTS, seconds=SECONDS)
    def request_ends(self, data: st.DataObject, verdict: Verdict, seconds: float) -> None:
        if self.in_flight:
            self.end(self.in_flight[data.draw(st.integers(0, len(self.in_flight) - 1))], verdict, seconds)

    @rule(data=st.data())
    def caller_goes_away(self, data: st.DataObject) -> None:
        if self.in_flight:
            call = self.in_flight[data.draw(st.integers(0, len(self.in_flight) - 1))]
            self.end(call, Verdict.IGNORED)

    @rule(verdicts=st.lists(VERDICTS, min_size=1, max_size=10), seconds=SECONDS)
    def traffic_flows(self, verdicts: list[Verdict], seconds: float) -> None:
        for verdict in verdicts:
            call = self.request()
            self.pass_time(MS)
            if call is not None:
                self.end(call, verdict, seconds)

    @rule(is_timely=st.booleans())
    def endpoint_dies(self, is_timely: bool) -> None:
        for _ in range(16):
            call = self.request()
            if call is None or call.is_waved:
                break
            if not is_timely:
                self.pass_time(MS)
            self.end(call, Verdict.FAILURE)

    @precondition(lambda self: self.book.state is State.OPEN)
    @rule(late=st.sampled_from([0, 0, 1, 1000]))
    def open_period_ends(self, late: int) -> None:
        book = self.book
        due = on_grid(book.open_until)
        if self.now < due - MS:
            self.now = book.now = due - MS
            before = self.request()
            assert before is None or before.is_waved or book.state is not State.OPEN
        if book.state is State.OPEN:
            self.now = book.now = max(self.now, on_grid(book.open_until) + late * MS)
            self.request()

    @precondition(lambda self: self.book.state is State.OPEN)
    @rule()
    def upstream_recovers(self) -> None:
        """The wait ends and every probe is good; with a ramp, that is where it begins."""
        self.now = self.book.now = max(self.now, on_grid(self.book.open_until))
        for _ in range(4):
            call = self.request()
            if call is None or not call.is_probe:
                break
            self.end(call, Verdict.SUCCESS)

    @precondition(lambda self: self.book.is_ramping())
    @rule(share=st.sampled_from([0.5, 0.9]))
    def endpoint_dies_while_ramping(self, share: float) -> None:
        book = self.book
        ends = (book.ramp_since or 0.0) + book.policy.ramp_seconds
        self.pass_time((ends - self.now) * share)
        for _ in range(30):
            call = self.request()
            if call is not None:
                self.end(call, Verdict.FAILURE)

    @precondition(lambda self: self.book.state is State.HALF_OPEN)
    @rule(verdict=VERDICTS, seconds=SECONDS)
    def oldest_probe_ends(self, verdict: Verdict, seconds: float) -> None:
        probes = self.probes()
        if probes:
            self.end(probes[0], verdict, seconds)

    @precondition(lambda self: self.book.state is State.HALF_OPEN)
    @rule(is_asked=st.booleans())
    def probes_hang(self, is_asked: bool) -> None:
        book, probes = self.book, self.probes()
        if not probes:
            return
        patience = book.policy.half_open_max_wait_seconds * 2**book.timeouts_in_a_row
        due = max(book.heard, min(call.at for call in probes)) + patience
        if self.now < due - MS:
            self.now = book.now = due - MS
            self.time_is_told()
        if book.state is State.HALF_OPEN:
            self.now = book.now = max(self.now, due)
            if is_asked:
                self.request()
            else:
                self.time_is_told()

    @rule(seconds=st.sampled_from([MS, 0.1, 1.0, 7.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule()
    def time_is_told(self) -> None:
        seen = self.report(self.breaker.tick(self.now))
        assert self.expire(seen) or seen is None

    @rule(action=st.sampled_from(list(Override)), seconds=st.sampled_from([None, 0.5, 10.0]))
    def operator_overrides(self, action: Override, seconds: float | None) -> None:
        book = self.book
        seen = self.report(self.breaker.override(action, self.now, seconds))
        if action is Override.AUTO:
            if book.override is None:
                assert seen is None
                return
            to = RESTING.get(book.policy.mode)
            book.override = book.override_until = None
        else:
            to = book.override = State.FORCED_OPEN if action is Override.OPEN else State.DISABLED
            book.override_until = None if seconds is None else self.now + seconds
        assert self.settle_by_hand(to, TransitionReason.FORCED, seen) or seen is None

    @precondition(lambda self: self.book.override_until is not None)
    @rule()
    def override_ends(self) -> None:
        until = self.book.override_until or 0.0
        self.now = self.book.now = max(self.now, until - MS)
        self.time_is_told()
        self.pass_time(MS)
        self.time_is_told()

    @rule(policy=POLICIES, is_same_window=st.booleans())
    def configuration_is_reloaded(self, policy: BreakerPolicy, is_same_window: bool) -> None:
        book = self.book
        if is_same_window:
            policy = replace(policy, window=book.policy.window)
        seen = [self.report(t) for t in self.breaker.reconfigure(policy, self.now)]
        if self.expire(seen[0] if seen else None):
            seen.pop(0)
        if not book.is_ramping():
            book.ramp_since = None
        if policy.window != book.policy.window:
            book.window_since = self.now
            book.window_from = len(book.outcomes)
        book.policy = policy
        if book.state is State.OPEN:
            book.open_until = min(book.open_until, book.entered + policy.max_open_seconds)
        if book.override is None and self.settle_by_hand(
            RESTING.get(policy.mode), TransitionReason.RELOAD, seen[0] if seen else None
        ):
            seen.pop(0)
        assert not seen

    # What must hold whenever anybody looks.

    @invariant()
    def numbers_are_the_bookkeepers(self) -> None:
        if not hasattr(self, "breaker"):
            return
        book, numbers = self.book, self.breaker.numbers(self.now)
        assert (numbers.state, numbers.generation) == (book.state, book.generation)
        assert {name: getattr(numbers, name) for name in COUNTED} == {
            n: book.counts.get(n, 0) for n in COUNTED
        }
        window = numbers.window
        assert (
            window.total,
            window.failed,
            window.slow,
            window.consecutive_failures,
        ) == book.window_numbers()
        assert numbers.in_flight == len(self.in_flight)
        ended = numbers.successful + numbers.failed + numbers.ignored + numbers.rejected
        assert numbers.total == ended + numbers.in_flight
        assert numbers.probes_in_flight == len(self.probes())
        assert numbers.next_probe_at == (book.open_until if book.state is State.OPEN else None)
        assert numbers.override_until == book.override_until

    @invariant()
    def every_transition_was_returned_and_is_in_the_table(self) -> None:
        if not hasattr(self, "breaker"):
            return
        assert tuple(self.transitions[-256:]) == self.breaker.history
        assert [t.sequence for t in self.transitions] == list(range(1, len(self.transitions) + 1))
        assert all((t.from_state, t.to_state, t.reason) in EDGES for t in self.transitions)
        for before, after in zip(self.transitions, self.transitions[1:], strict=False):
            assert before.to_state is after.from_state
            assert before.at <= after.at

    def teardown(self) -> None:
        if hasattr(self, "breaker"):
            self.healthy_upstream_closes_it()
            for call in list(self.in_flight):
                self.end(call, Verdict.IGNORED)
            self.numbers_are_the_bookkeepers()

    def healthy_upstream_closes_it(self) -> None:
        """Without any help from calls that hang: those in flight stay so."""
        self.operator_overrides(Override.AUTO, None)
        if self.book.policy.mode in RESTING:
            self.configuration_is_reloaded(replace(self.book.policy, mode=BreakerMode.ENFORCE), True)
        for _ in range(20):
            if self.book.state is State.CLOSED and not self.book.is_ramping():
                break
            policy = self.book.policy
            waits = {
                State.OPEN: self.book.open_until - self.now,
                State.HALF_OPEN: policy.half_open_max_wait_seconds * 2**self.book.timeouts_in_a_row,
                State.CLOSED: policy.ramp_seconds,
            }
            self.pass_time(max(waits.get(self.book.state, 0.0), 0.0) + 1.0)
            call = self.request()
            if call is not None:
                self.end(call, Verdict.SUCCESS)
        assert self.book.state is State.CLOSED
        self.pass_time(10.0)
        call = self.request()
        assert call is not None
        assert not call.is_waved


def machine_of(breaker_class: type[Breaker]) -> type[BreakerMachine]:
    return type("PlantedMachine", (BreakerMachine,), {"breaker_class": breaker_class})


BUDGET = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
BreakerMachine.TestCase.settings = BUDGET
TestBreakerAgainstItsBookkeeper = BreakerMachine.TestCase


# Planted bugs: the machine above must find each of them.


class NoGenerationCheck(Breaker):
    __slots__ = ()

    def settle(self, admission: Admission, *rest: Any) -> Transition | None:
        aged = admission.generation
        if not admission.is_waved_through:
            admission.generation = self._sequence
        try:
            return super().settle(admission, *rest)
        finally:
            admission.generation = aged


class UnboundedProbes(Breaker):
    __slots__ = ()

    def admit(self, now: float) -> Admission:
        policy = self._policy
        self._policy = replace(policy, half_open_max_calls=10**6)
        try:
            return super().admit(now)
        finally:
            self._policy = policy


class OneProbeTooMany(Breaker):
    __slots__ = ()

    def admit(self, now: float) -> Admission:
        policy = self._policy
        self._policy = replace(policy, half_open_max_calls=max(1, policy.half_open_max_calls) + 1)
        try:
            return super().admit(now)
        finally:
            self._policy = policy


class IgnoredKeepsItsPermit(Breaker):
    __slots__ = ()

    def settle(self, admission: Admission, verdict: Verdict, *rest: Any) -> Transition | None:
        if verdict is not Verdict.IGNORED:
            return super().settle(admission, verdict, *rest)
        probes = self._probes
        self._probes = Probes(0.0)
        try:
            return super().settle(admission, verdict, *rest)
        finally:
            self._probes = probes


class IgnoredCountsAsFailure(Breaker):
    __slots__ = ()

    def settle(self, admission: Admission, verdict: Verdict, *rest: Any) -> Transition | None:
        is_probe = admission.is_probe and verdict is Verdict.IGNORED
        return super().settle(admission, Verdict.FAILURE if is_probe else verdict, *rest)


class WaitIsNotDoubled(Breaker):
    __slots__ = ()

    def _trip(self, reason: TransitionReason, now: float) -> Transition:
        self._nominal_wait = breaker_module.recovery.first_wait(self._policy) / 2
        return super()._trip(reason, now)


class TripWhileRampingDoesNotDouble(Breaker):
    __slots__ = ()

    def _trip(self, reason: TransitionReason, now: float) -> Transition:
        self._ramp_started = None
        return super()._trip(reason, now)


class ClosingKeepsTheWait(Breaker):
    __slots__ = ()

    def _trip(self, reason: TransitionReason, now: float) -> Transition:
        if self._state is State.CLOSED and self._sequence and self._policy.ramp_seconds:
            self._ramp_started = now
        return super()._trip(reason, now)


class OneFailureTooMany(Breaker):
    __slots__ = ()

    def _adopt(self, policy: BreakerPolicy, now: float) -> None:
        super()._adopt(policy, now)
        if policy.consecutive_failures:
            self._triggers._row += 1


class RateOnlyCountsInTheRow(Breaker):
    __slots__ = ()

    def _learn(self, verdict: Verdict, mark: int, now: float) -> None:
        super()._learn(verdict, mark, now)
        self._consecutive += verdict is Verdict.RATE_ONLY_FAILURE


class OpensAMillisecondEarly(Breaker):
    __slots__ = ()

    def admit(self, now: float) -> Admission:
        return super().admit(now + MS if self._state is State.OPEN else now)


class MinimumCallsIsExclusive(Breaker):
    __slots__ = ()

    def _adopt(self, policy: BreakerPolicy, now: float) -> None:
        super()._adopt(policy, now)
        self._triggers._minimum_calls += 1


class WindowOutlivesItsGeneration(Breaker):
    __slots__ = ()

    def _enter(self, state: State, *rest: Any) -> Transition:
        window, total = self._window, self._window.total
        transition = super()._enter(state, *rest)
        window.total = total
        return transition


class ProbesNeverTimeOut(Breaker):
    __slots__ = ()

    def _expire(self, now: float) -> Transition | None:
        return None if self._state is State.HALF_OPEN else super()._expire(now)


class ImpatientForEver(Breaker):
    """Without the doubling of `max_wait`."""

    __slots__ = ()

    def _trip(self, reason: TransitionReason, now: float) -> Transition:
        transition = super()._trip(reason, now)
        self._patience = 1.0
        return transition


class ReloadForgetsTheOverride(Breaker):
    __slots__ = ()

    def reconfigure(self, policy: BreakerPolicy, now: float) -> tuple[Transition, ...]:
        self._override, self._override_until = Override.AUTO, None
        return super().reconfigure(policy, now)


class OverrideNeverEnds(Breaker):
    __slots__ = ()

    def override(self, action: Override, now: float, seconds: float | None = None) -> Transition | None:
        return super().override(action, now, None)


class ReloadDropsTheWindow(Breaker):
    __slots__ = ()

    def _adopt(self, policy: BreakerPolicy, now: float) -> None:
        super()._adopt(policy, now)
        self._window.clear(now)


class MetricsOnlyRefuses(Breaker):
    __slots__ = ()

    def _refuse(self, retry_after: float, transition: Transition | None, now: float) -> Admission:
        admission = super()._refuse(retry_after, transition, now)
        admission.is_admitted = False
        return admission


class WavedThroughTeaches(Breaker):
    """What `enforce` would never have seen moves the machine."""

    __slots__ = ()

    def _refuse(self, retry_after: float, transition: Transition | None, now: float) -> Admission:
        admission = super()._refuse(retry_after, transition, now)
        admission.generation = self._sequence
        return admission


class LosesARejection(Breaker):
    __slots__ = ()

    def _refuse(self, retry_after: float, transition: Transition | None, now: float) -> Admission:
        admission = super()._refuse(retry_after, transition, now)
        self._tally.rejected -= not admission.is_admitted and self._state is State.HALF_OPEN
        return admission


PLANTED = [
    NoGenerationCheck,
    UnboundedProbes,
    OneProbeTooMany,
    IgnoredKeepsItsPermit,
    IgnoredCountsAsFailure,
    WaitIsNotDoubled,
    TripWhileRampingDoesNotDouble,
    ClosingKeepsTheWait,
    OneFailureTooMany,
    RateOnlyCountsInTheRow,
    OpensAMillisecondEarly,
    MinimumCallsIsExclusive,
    WindowOutlivesItsGeneration,
    ProbesNeverTimeOut,
    ImpatientForEver,
    ReloadForgetsTheOverride,
    OverrideNeverEnds,
    ReloadDropsTheWindow,
    MetricsOnlyRefuses,
    WavedThroughTeaches,
    LosesARejection,
]


@pytest.mark.parametrize("breaker_class", PLANTED)
def test_planted_bug_is_found(breaker_class: type[Breaker]) -> None:
    search = settings(BUDGET, max_examples=600, derandomize=True, database=None, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine_of(breaker_class), settings=search)  # type: ignore[no-untyped-call]
