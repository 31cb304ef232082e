"""The breaker against a naive bookkeeper (`breaker_book.py`), over random policies, traffic, operators and reloads.

Rules are guided (an endpoint dies, the open period ends), since a random walk hardly ever gets to HALF_OPEN. That the
test can fail is tested, too: `test_breaker_planted.py` plants bugs that it must find.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sidecar.core.breaker import Breaker, Override, counting
from sidecar.core.breaker.door import Door
from sidecar.core.breaker.permit import BreakerRefusal, Turn
from sidecar.core.outcome import Kind, Limit, Outcome, Verdict
from sidecar.core.snapshot import (
    BreakerMode,
    BreakerPolicy,
    CandidatePolicy,
    CheckPolicy,
    WindowPolicy,
    WindowType,
)
from sidecar.core.statechart import EDGES
from sidecar.core.transition import State, Transition, TransitionReason
from tests.core.breaker_book import BY_HAND, FAILURES, NOT_LEARNED, RESTING, Bookkeeper, Call

MS = 1 / 1024
"""Time moves on a grid of these; a power of two, so that sums are exact and boundaries mean what they say."""


def on_grid(instant: float) -> float:
    """The first moment of the grid that is not before `instant`; one MS earlier is before it."""
    return instant if instant == math.inf else math.ceil(instant / MS) * MS


COUNTED = (
    "total",
    "successful",
    "failed",
    "failed_late",
    "ignored",
    "rejected",
    "slow",
    "would_have_rejected",
    "would_have_been_fine",
    "failures_saved",
)

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
    count_timeout_after_seconds=st.just(0.5),
    half_open_check=st.sampled_from([None, None, None, CheckPolicy("/healthz")]),
    candidate=st.sampled_from([None, CandidatePolicy(consecutive_failures=2)]),
)

GOOD = Outcome(Kind.ANSWERED, 200)
BAD = Outcome(Kind.ANSWERED, 500)
OUTCOMES = st.sampled_from(
    [
        GOOD,
        GOOD,
        BAD,
        Outcome(Kind.ANSWERED, 404),
        Outcome(Kind.ANSWERED, 429),
        Outcome(Kind.ANSWERED, 500, retry_after_seconds=7.0),
        Outcome(Kind.RESET),
        Outcome(Kind.LEFT),
        Outcome(Kind.ABANDONED),
        Outcome(Kind.TIMED_OUT, limit=Limit.CALLER),
        Outcome(Kind.TIMED_OUT, limit=Limit.STRANGER),
        Outcome(Kind.TIMED_OUT, limit=Limit.ROUTE, own_seconds=0.25),
        Outcome(Kind.REFUSED_BELOW),
        Outcome(Kind.REFUSED_BELOW, retry_after_seconds=1.0),
    ]
)
CHECKED = st.sampled_from(
    [
        GOOD,
        BAD,
        Outcome(Kind.ANSWERED, 404),
        Outcome(Kind.ANSWERED, 429),
        Outcome(Kind.RESET),
        Outcome(Kind.CONNECT_FAILED),
        Outcome(Kind.TIMED_OUT, limit=Limit.ROUTE),
        Outcome(Kind.ABANDONED),
        Outcome(Kind.REFUSED_BELOW, 503, retry_after_seconds=1.0),
    ]
)
"""What may become of a check."""
SECONDS = st.sampled_from([0.125, 0.5 - MS, 0.5, 1.0 - MS, 1.0])


class BreakerMachine(RuleBasedStateMachine):
    @initialize(policy=POLICIES, seed=st.integers(0, 99))
    def is_born(self, policy: BreakerPolicy, seed: int) -> None:
        self.seed = seed
        self.now = 1000.0
        self.breaker = Breaker("r", "u", policy, random.Random(seed), self.now)
        self.book = Bookkeeper(policy, self.now, RESTING.get(policy.mode, State.CLOSED))
        self.book.window_since = self.now
        self.transitions: list[Transition] = []

    @property
    def in_flight(self) -> list[Call]:
        return self.book.calls

    # What the bookkeeper expects of each call.

    def report(self, transition: Transition | None) -> Transition | None:
        if transition is not None:
            self.transitions.append(transition)
        return transition

    def expire(self, seen: Transition | None) -> bool:
        """Follow what time alone should have done by now; True if `seen` was that."""
        book = self.book
        if book.override_until is not None and self.now >= book.override_until:
            until = book.override_until
            book.override = book.override_until = None
            return self.settle_by_hand(RESTING.get(book.policy.mode), TransitionReason.FORCED, seen, until)
        if book.state is State.HALF_OPEN and book.is_overdue():
            book.open(seen, TransitionReason.PROBE_TIMEOUT)
            return True
        return False

    def settle_by_hand(
        self, to: State | None, reason: TransitionReason, seen: Transition | None, at: float | None = None
    ) -> bool:
        book = self.book
        if to is None:
            to = State.CLOSED if book.state in BY_HAND else book.state
        if to is book.state:
            return False
        book.enter(to, seen, reason, at)
        return True

    def is_checked(self) -> bool:
        return self.book.policy.half_open_check is not None and not self.book.distrusts_checks

    def request(
        self, *, is_firm: bool = True, is_whole: bool = True, is_complete: bool = False, endpoint: str = "a"
    ) -> Call | None:
        book = self.book
        answer = self.breaker.admit(self.now, is_firm=is_firm, is_whole=is_whole, is_complete=is_complete)
        seen = self.report(answer.transition)
        is_explained = self.expire(seen)
        is_waiting = book.state is State.OPEN and (self.now < book.open_until or is_explained)
        is_recovering = book.state in (State.OPEN, State.HALF_OPEN) and not is_waiting
        yields_after = counting.yields_after(self.breaker.durations)
        is_probe = is_recovering and not self.is_checked()
        if book.state is State.HALF_OPEN:
            is_probe = is_probe and book.has_permit(is_firm, yields_after, is_complete)
        if is_probe and not is_whole and book.policy.mode is not BreakerMode.METRICS_ONLY:
            assert isinstance(answer, BreakerRefusal)
            assert answer.is_postponed
            assert seen is None or is_explained
            return None
        book.count("total")
        if is_probe and book.state is State.OPEN:
            book.enter(State.HALF_OPEN, seen, TransitionReason.WAIT_ELAPSED)
            is_explained = True
        assert seen is None or is_explained
        assert answer.state is book.state
        assert answer.is_probe == is_probe
        is_refused = not is_probe and book.state in (State.OPEN, State.HALF_OPEN, State.FORCED_OPEN)
        if book.state is State.CLOSED and book.is_ramping():
            is_refused = not answer.is_admitted or answer.is_waved_through
        is_waved = (
            is_refused
            and book.policy.mode is BreakerMode.METRICS_ONLY
            and book.state is not State.FORCED_OPEN
        )
        assert answer.is_waved_through == is_waved
        assert answer.is_admitted == (is_waved or not is_refused)
        if isinstance(answer, BreakerRefusal):
            book.count("rejected")
            assert not answer.is_postponed
            if is_waiting:
                assert answer.retry_after_seconds == book.open_until - self.now
            return None
        if is_waved:
            book.count("would_have_rejected")
        permit = answer.own()
        if isinstance(answer, Door):
            permit.catch_up(endpoint, self.now)
        else:
            permit.sent(endpoint, self.now)
        generation = -1 if is_waved else book.generation
        turns = [(self.now, True)]
        call = Call(permit, generation, endpoint, is_probe, is_firm, is_waved, False, turns)
        book.calls.append(call)
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        if call.head_at is not None:
            is_cut = outcome.kind in (Kind.TIMED_OUT, Kind.LEFT)
            status = call.status if outcome.kind is Kind.ANSWERED or is_cut else 0
            outcome = replace(outcome, status=status, is_after_head=is_cut)
        seen = self.report(call.permit.judge(outcome, self.now))
        call.permit.close(self.now)
        call.permit.close(self.now)
        self.book.calls.remove(call)
        if call.verdict is not None:
            self.end_late(call, outcome, seen)
        else:
            self.take(call, outcome, seen, call.seconds(self.now), is_early=False)

    def take(
        self, call: Call, outcome: Outcome, seen: Transition | None, seconds: float, *, is_early: bool
    ) -> None:
        book = self.book
        verdict = book.judge(call, outcome)
        call.verdict = verdict
        slow_from = book.policy.slow_call_seconds
        is_cut = call.head_at is not None and verdict is Verdict.IGNORED
        if slow_from is not None and seconds >= slow_from and not call.is_slow and not is_cut:
            call.is_slow = True
            book.count("slow")
        if verdict in NOT_LEARNED:
            book.count("ignored")
        else:
            book.count("failed" if verdict in FAILURES else "successful")
        if call.is_waved and verdict not in NOT_LEARNED:
            book.count("failures_saved" if verdict in FAILURES else "would_have_been_fine")
        is_explained = False
        if call.generation == book.generation and book.state not in BY_HAND:
            if verdict in FAILURES:
                book.asked.append((call.endpoint, self.now, self.now + outcome.retry_after_seconds))
            if call.is_probe:
                is_explained = self.learn_from_probe(call, verdict, outcome, seen, is_early=is_early)
            else:
                is_explained = self.learn(call, verdict, outcome, seen, is_early=is_early)
        assert seen is None or is_explained

    def note(self, call: Call, verdict: Verdict, outcome: Outcome, *, is_early: bool) -> None:
        """Into window and rows."""
        book = self.book
        if verdict is Verdict.SUCCESS:
            book.put(call, "good")
            book.plain_row = 0
            book.late_row = book.late_row if is_early else 0
        elif verdict is Verdict.SILENCE:
            if not call.is_slow or call.entry is None:
                book.put(call, "pending" if call.is_slow else "silent")
        else:
            book.put(call, "failed")
            if verdict is Verdict.FAILURE and not book.is_echo(call, outcome):
                is_broken = call.head_at is not None and outcome.kind is not Kind.ANSWERED
                book.late_row += is_broken
                book.plain_row += not is_broken

    def learn(
        self, call: Call, verdict: Verdict, outcome: Outcome, seen: Transition | None, *, is_early: bool
    ) -> bool:
        book = self.book
        if verdict is not Verdict.IGNORED:
            self.note(call, verdict, outcome, is_early=is_early)
        elif call.is_slow and call.entry is None:
            book.put(call, "pending")
        else:
            return False
        return self.check(seen)

    def check(self, seen: Transition | None) -> bool:
        reason = self.book.trigger()
        if reason is None:
            return False
        self.book.open(seen, reason)
        return True

    def learn_from_probe(
        self, call: Call, verdict: Verdict, outcome: Outcome, seen: Transition | None, *, is_early: bool
    ) -> bool:
        book = self.book
        if outcome.kind is Kind.REFUSED_BELOW:
            assert seen is not None
            wait = outcome.retry_after_seconds or book.policy.open_seconds
            assert seen.wait_seconds == min(wait, book.policy.open_seconds, book.policy.max_open_seconds)
            book.last_wait, book.is_borrowed = seen.wait_seconds, True
            book.open_until = self.now + seen.wait_seconds
            book.enter(State.OPEN, seen, TransitionReason.PROBE_FAILED)
            return True
        if outcome.status in (404, 429) and verdict is not Verdict.FAILURE:
            awaited = [c for c in book.probes() if c.is_firm and c.head_at is None]
            if awaited or self.now - book.heard < book.policy.half_open_max_wait_seconds:
                return False
            return self.closes(call, seen)
        if verdict in NOT_LEARNED:
            return False
        self.note(call, verdict, outcome, is_early=is_early)
        book.hear()
        if verdict is Verdict.FAILURE:
            book.open(seen, TransitionReason.PROBE_FAILED)
            return True
        book.slow += call.is_slow
        book.good += not call.is_slow
        if book.good >= book.policy.half_open_successes:
            return self.closes(call, seen)
        heard = book.good + book.slow
        is_many = heard >= max(1, book.policy.minimum_calls)
        if book.slow and is_many and book.slow / heard >= book.policy.slow_call_rate_threshold:
            book.open(seen, TransitionReason.PROBE_FAILED)
            return True
        return False

    def closes(self, call: Call, seen: Transition | None) -> bool:
        book = self.book
        book.is_closed_by_check = call.is_check
        book.distrusts_checks = book.distrusts_checks and call.is_check
        book.enter(State.CLOSED, seen, TransitionReason.PROBE_SUCCEEDED)
        return True

    def end_late(self, call: Call, outcome: Outcome, seen: Transition | None) -> None:
        """It was judged by its head."""
        book = self.book
        if call.verdict is not Verdict.SUCCESS:
            assert seen is None
            return
        is_current = call.generation == book.generation and book.state is State.CLOSED
        is_failure = outcome.kind is Kind.RESET
        if not is_failure:
            if outcome.kind is Kind.ANSWERED and is_current:
                book.plain_row = book.late_row = 0
            assert seen is None
            return
        book.count("failed_late")
        asked = (call.endpoint, self.now, self.now)
        if call.is_probe:
            is_next = book.state is State.CLOSED and call.generation == book.generation - 1
            if is_next and book.is_in_first_window():
                book.asked.append(asked)
                book.open(seen, TransitionReason.PROBE_FAILED)
                return
            assert seen is None
            return
        if not is_current or call.entry not in book.in_window():
            assert seen is None
            return
        book.put(call, "failed")
        if not book.is_echo(call, outcome):
            book.late_row += 1
        book.asked.append(asked)
        assert self.check(seen) or seen is None

    def pass_time(self, seconds: float) -> None:
        """Time passes, and what is due on the way is looked at in its moment."""
        until = self.now + round(seconds / MS) * MS
        while True:
            due = min((on_grid(self.look_due(c)) for c in self.in_flight), default=math.inf)
            if due > until:
                break
            self.now = self.book.now = max(self.now, due)
            for call in list(self.in_flight):
                if on_grid(self.look_due(call)) <= self.now:
                    self.look(call)
        self.now = self.book.now = until

    def look_due(self, call: Call) -> float:
        """When the bookkeeper wants to look at it."""
        book = self.book
        if call.verdict is not None:
            return math.inf
        if call.head_at is not None:
            return call.head_at + book.policy.judge_after_seconds
        slow_from = book.policy.slow_call_seconds
        if slow_from is None or call.is_slow or not call.is_upstreams_turn:
            return math.inf
        return self.now + slow_from - call.seconds(self.now)

    def look(self, call: Call) -> None:
        book = self.book
        seen = self.report(call.permit.look(self.now))
        if call.head_at is not None:
            self.take(call, Outcome(Kind.ANSWERED, call.status), seen, call.head_seconds, is_early=True)
            return
        call.is_slow = True
        book.count("slow")
        is_explained = False
        if call.generation == book.generation and book.state is State.CLOSED:
            book.put(call, "pending")
            is_explained = self.check(seen)
        assert seen is None or is_explained

    # Rules.

    @rule(
        is_firm=st.booleans(),
        is_whole=st.sampled_from([True, True, True, False]),
        is_complete=st.booleans(),
        endpoint=st.sampled_from("ab"),
    )
    def request_starts(self, is_firm: bool, is_whole: bool, is_complete: bool, endpoint: str) -> None:
        is_complete = is_complete and is_whole
        self.request(is_firm=is_firm, is_whole=is_whole, is_complete=is_complete, endpoint=endpoint)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), outcome=OUTCOMES, seconds=SECONDS)
    def request_ends(self, data: st.DataObject, outcome: Outcome, seconds: float) -> None:
        call = self.in_flight[data.draw(st.integers(0, len(self.in_flight) - 1))]
        self.pass_time(seconds)
        if call in self.in_flight:
            self.end(call, outcome)

    @precondition(lambda self: any(c.head_at is None for c in self.in_flight))
    @rule(data=st.data(), status=st.sampled_from([200, 200, 404, 500]))
    def head_comes(self, data: st.DataObject, status: int) -> None:
        waiting = [c for c in self.in_flight if c.head_at is None]
        call = waiting[data.draw(st.integers(0, len(waiting) - 1))]
        call.status, call.head_at, call.head_seconds = status, self.now, call.seconds(self.now)
        call.permit.head(status, self.now)
        if status < 500 and call.generation == self.book.generation and self.book.state is State.CLOSED:
            self.book.plain_row = 0
        assert call.permit.next_look <= self.now + self.book.policy.judge_after_seconds

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def turn_changes(self, data: st.DataObject) -> None:
        call = self.in_flight[data.draw(st.integers(0, len(self.in_flight) - 1))]
        is_upstreams = not call.is_upstreams_turn
        call.permit.turn(Turn.UPSTREAM if is_upstreams else Turn.CLIENT, self.now)
        call.turns.append((self.now, is_upstreams))

    @precondition(lambda self: any(c.verdict is not None for c in self.in_flight))
    @rule(outcome=st.sampled_from([GOOD, Outcome(Kind.RESET), Outcome(Kind.RESET), Outcome(Kind.LEFT)]))
    def judged_stream_ends(self, outcome: Outcome) -> None:
        self.end(next(c for c in self.in_flight if c.verdict is not None), outcome)

    @rule(endpoint=st.sampled_from("ab"))
    def connection_is_lost(self, endpoint: str) -> None:
        for call in list(self.in_flight):
            if call.endpoint == endpoint:
                self.end(call, Outcome(Kind.RESET))

    @rule(count=st.integers(1, 6), endpoint=st.sampled_from("ab"))
    def streams_begin(self, count: int, endpoint: str) -> None:
        """Good heads, and so long that they are judged by them."""
        for _ in range(count):
            call = self.request(endpoint=endpoint)
            if call is None:
                break
            call.status, call.head_at, call.head_seconds = 200, self.now, 0.0
            call.permit.head(200, self.now)
            if call.generation == self.book.generation and self.book.state is State.CLOSED:
                self.book.plain_row = 0
        self.pass_time(1.0)

    @rule(outcomes=st.lists(OUTCOMES, min_size=1, max_size=10), seconds=SECONDS)
    def traffic_flows(self, outcomes: list[Outcome], seconds: float) -> None:
        for outcome in outcomes:
            call = self.request()
            self.pass_time(seconds if outcome.kind is not Kind.ANSWERED else 2 * MS)
            if call is not None:
                self.end(call, outcome)

    @rule(outcome=st.sampled_from([BAD, Outcome(Kind.TIMED_OUT, limit=Limit.STRANGER), Outcome(Kind.LEFT)]))
    def endpoint_dies(self, outcome: Outcome) -> None:
        for _ in range(16):
            call = self.request()
            if call is None or call.is_waved:
                break
            self.pass_time(MS if outcome is BAD else 0.5)
            self.end(call, outcome)

    @precondition(lambda self: self.book.state is State.OPEN)
    @rule(late=st.sampled_from([0, 0, 1, 1000]), is_firm=st.booleans())
    def open_period_ends(self, late: int, is_firm: bool) -> None:
        book = self.book
        due = on_grid(book.open_until)
        if self.now < due - MS:
            self.pass_time(due - MS - self.now)
            before = self.request()
            assert before is None or before.is_waved or book.state is not State.OPEN
        if book.state is State.OPEN:
            self.pass_time(max(0.0, on_grid(book.open_until) + late * MS - self.now))
            self.request(is_firm=is_firm)

    @precondition(lambda self: self.book.state is State.OPEN)
    @rule(kind=st.sampled_from(["quick", "long", "slow"]))
    def upstream_recovers(self, kind: str) -> None:
        """The wait ends and every probe is good, or begins well; with a ramp, that is where it begins."""
        self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
        for _ in range(4):
            call = self.check_starts() if self.is_checked() else self.request()
            if call is None or not call.is_probe:
                break
            if kind == "long":
                call.status, call.head_at, call.head_seconds = 200, self.now, 0.0
                call.permit.head(200, self.now)
            if kind != "quick":
                self.pass_time(1.0)
            if kind != "long":
                self.end(call, GOOD)

    @precondition(lambda self: self.book.state is State.OPEN)
    @rule()
    def probes_hang_again_and_again(self) -> None:
        for _ in range(3):
            if self.book.state is not State.OPEN:
                break
            self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
            self.request()
            self.probes_hang(False)

    @precondition(lambda self: self.book.state in (State.OPEN, State.HALF_OPEN))
    @rule()
    def nothing_but_404(self) -> None:
        """Somebody is there, and nobody says that all is well."""
        self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
        for _ in range(2):
            for probe in self.book.probes():
                self.end(probe, Outcome(Kind.ABANDONED))
            call = self.request()
            if call is None or not call.is_probe:
                break
            self.end(call, Outcome(Kind.ANSWERED, 404))
            self.pass_time(self.book.policy.half_open_max_wait_seconds)

    @precondition(lambda self: self.is_checked() and self.book.state is State.OPEN)
    @rule()
    def check_closes_what_traffic_opens(self) -> None:
        for _ in range(2):
            self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
            for _ in range(max(1, self.book.policy.half_open_successes)):
                call = self.check_starts()
                if call is not None:
                    self.end(call, GOOD)
            self.endpoint_dies(BAD)

    def check_starts(self) -> Call | None:
        """The sidecar itself probes, if the breaker lets it: then it has said that it is worth asking."""
        book = self.book
        is_due = self.breaker.next_check(self.now) <= self.now
        permit = self.breaker.admit_check(self.now)
        assert is_due or isinstance(permit, BreakerRefusal)
        if isinstance(permit, BreakerRefusal):
            seen = self.report(permit.transition)
            is_explained = self.expire(seen)
            assert seen is None or is_explained
            is_due = book.state is State.OPEN and self.now >= book.open_until and not is_explained
            is_free = book.state is State.HALF_OPEN and not book.probes()
            assert not self.is_checked() or not (is_due or is_free)
            self.next_check_is_as_the_book_has_it()
            return None
        seen = self.report(permit.transition)
        assert self.is_checked()
        book.count("total")
        if book.state is State.OPEN:
            book.enter(State.HALF_OPEN, seen, TransitionReason.WAIT_ELAPSED)
        else:
            assert seen is None
            assert not book.probes()
        permit.sent("a", self.now)
        call = Call(permit, book.generation, "a", True, True, False, True, [(self.now, True)])
        book.calls.append(call)
        return call

    def next_check_is_as_the_book_has_it(self) -> None:
        book = self.book
        expected = math.inf
        if self.is_checked() and book.state is State.OPEN:
            expected = book.open_until
        elif self.is_checked() and book.state is State.HALF_OPEN:
            expected = self.now + 1.0 if book.probes() else self.now
        assert self.breaker.next_check(self.now) == expected

    @precondition(lambda self: self.is_checked() and self.book.state in (State.OPEN, State.HALF_OPEN))
    @rule(outcome=CHECKED, is_waited_for=st.sampled_from([True, True, False]))
    def check_is_made(self, outcome: Outcome, is_waited_for: bool) -> None:
        if is_waited_for:
            self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
        call = self.check_starts()
        if call is not None:
            self.end(call, outcome)

    @precondition(lambda self: self.is_checked())
    @rule()
    def check_begins(self) -> None:
        """It ends as any other call may."""
        self.check_starts()

    @precondition(lambda self: self.book.state is State.OPEN)
    @rule()
    def upload_is_first_to_ask(self) -> None:
        self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
        self.request(is_whole=False)

    @precondition(lambda self: self.book.state is State.OPEN and not self.is_checked())
    @rule(seconds=st.sampled_from([0.5, 0.625, 0.75, 0.875]))
    def probe_is_cut_by_its_caller(self, seconds: float) -> None:
        """After more than `count_timeout_after`, and less or more than a probe must have had."""
        self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
        call = self.request()
        if call is not None and call.is_probe:
            self.pass_time(seconds)
            self.end(call, Outcome(Kind.TIMED_OUT, limit=Limit.CALLER))

    @precondition(lambda self: self.book.state is State.OPEN and not self.is_checked())
    @rule(is_at_once=st.booleans())
    def closing_probe_breaks_late(self, is_at_once: bool) -> None:
        """The head of a probe closes it, and the answer then breaks, within the window or after it."""
        self.pass_time(max(0.0, on_grid(self.book.open_until) - self.now))
        call = self.request()
        if call is None or not call.is_probe:
            return
        call.status, call.head_at, call.head_seconds = 200, self.now, 0.0
        call.permit.head(200, self.now)
        self.pass_time(self.book.policy.judge_after_seconds)
        if call in self.book.calls:
            self.pass_time(0.0 if is_at_once else 20.0)
            self.end(call, Outcome(Kind.RESET))

    @precondition(lambda self: self.book.is_ramping())
    @rule(share=st.sampled_from([0.5, 0.9]))
    def endpoint_dies_while_ramping(self, share: float) -> None:
        book = self.book
        ends = (book.ramp_since or 0.0) + book.policy.ramp_seconds
        self.pass_time((ends - self.now) * share)
        for _ in range(30):
            call = self.request()
            if call is not None:
                self.end(call, BAD)

    @precondition(lambda self: self.book.state is State.HALF_OPEN and self.book.probes())
    @rule(outcome=OUTCOMES, seconds=SECONDS)
    def oldest_probe_ends(self, outcome: Outcome, seconds: float) -> None:
        self.pass_time(seconds)
        probes = self.book.probes()
        if probes:
            self.end(probes[0], outcome)

    @precondition(lambda self: self.book.state is State.HALF_OPEN)
    @rule(is_firm=st.booleans(), count=st.integers(1, 12), is_held=st.booleans())
    def many_want_to_probe(self, is_firm: bool, count: int, is_held: bool) -> None:
        for _ in range(count):
            call = self.request(is_firm=is_firm)
            if call is not None and call.is_probe and not is_held:
                call.permit.turn(Turn.CLIENT, self.now)
                call.turns.append((self.now, False))

    @precondition(lambda self: self.book.state is State.HALF_OPEN)
    @rule(is_firm=st.booleans(), is_complete=st.booleans())
    def all_uploads_stall(self, is_firm: bool, is_complete: bool) -> None:
        self.many_want_to_probe(is_firm, 8 * max(1, self.book.policy.half_open_max_calls), is_held=False)
        if not is_complete:
            self.pass_time(1.0 + MS)
        self.request(is_firm=is_firm, is_complete=is_complete)

    @precondition(lambda self: self.book.state is State.HALF_OPEN)
    @rule(is_asked=st.booleans())
    def probes_hang(self, is_asked: bool) -> None:
        book = self.book
        hung = [c for c in book.probes() if c.is_firm and c.is_upstreams_turn]
        if not hung:
            return
        left = min(book.patience() - (c.seconds(self.now) - c.base) for c in hung)
        if left > MS:
            self.pass_time(left - MS)
            self.time_is_told()
        if book.state is State.HALF_OPEN:
            self.pass_time(MS)
            if is_asked:
                self.request()
            else:
                self.time_is_told()

    @rule(seconds=st.sampled_from([MS, 0.1, 1.0, 7.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule()
    def time_is_told(self) -> None:
        due = self.breaker.next_due(self.now)
        seen = self.report(self.breaker.tick(self.now))
        assert seen is None or due <= self.now
        assert self.expire(seen) or seen is None

    @rule(action=st.sampled_from(list(Override)), seconds=st.sampled_from([None, 0.5, 10.0]))
    def operator_overrides(self, action: Override, seconds: float | None) -> None:
        book = self.book
        seen = self.report(self.breaker.override(action, self.now, seconds, by="me@here"))
        if action is Override.AUTO:
            if book.override is None:
                assert seen is None
                return
            to = RESTING.get(book.policy.mode)
            book.override = book.override_until = None
        else:
            to = book.override = State.FORCED_OPEN if action is Override.OPEN else State.FORCED_CLOSED
            book.override_until = None if seconds is None else self.now + seconds
        assert self.settle_by_hand(to, TransitionReason.FORCED, seen) or seen is None

    @precondition(lambda self: self.book.override_until is not None)
    @rule()
    def override_ends(self) -> None:
        until = self.book.override_until or 0.0
        self.pass_time(max(0.0, until - MS - self.now))
        self.time_is_told()
        self.pass_time(MS)
        self.time_is_told()

    @rule(policy=POLICIES, is_same_window=st.booleans())
    def configuration_is_reloaded(self, policy: BreakerPolicy, is_same_window: bool) -> None:
        book = self.book
        if is_same_window:
            policy = replace(policy, window=book.policy.window)
        # What runs keeps what it was sent under; new ones are looked at by the new `slow_call_duration`.
        policy = replace(policy, slow_call_seconds=book.policy.slow_call_seconds)
        seen = [self.report(t) for t in self.breaker.reconfigure(policy, self.now)]
        if self.expire(seen[0] if seen else None):
            seen.pop(0)
        if not book.is_ramping():
            book.ramp_since = None
        if policy.window != book.policy.window:
            book.window_since = self.now
            book.window += 1
        book.policy = policy
        if book.state is State.OPEN:
            self.wait_changes()
        if book.override is None and self.settle_by_hand(
            RESTING.get(policy.mode), TransitionReason.RELOAD, seen[0] if seen else None
        ):
            seen.pop(0)
        assert not seen

    def wait_changes(self) -> None:
        """A changed `open_for` acts at once."""
        book = self.book
        history = self.breaker.history
        moved_on = history[-1].to_state in BY_HAND
        if moved_on:
            return  # the state is left at once; how long the wait would have been shows nowhere
        until = self.breaker.numbers(self.now).next_probe_at
        assert until is not None
        if book.is_borrowed:
            wait = min(book.last_wait, book.policy.open_seconds, book.policy.max_open_seconds)
            assert until == pytest.approx(book.entered + wait)
        else:
            book.check_bounds(until - book.entered)
        book.last_wait = until - book.entered
        book.open_until = until

    @rule()
    def upstream_is_replaced(self) -> None:
        """A restart that keeps what an operator said, and nothing else."""
        book = self.book
        self.breaker = Breaker(
            "r", "u", book.policy, random.Random(self.seed), self.now, predecessor=self.breaker
        )
        state = book.override or RESTING.get(book.policy.mode, State.CLOSED)
        fresh = Bookkeeper(book.policy, self.now, state)
        fresh.window_since = fresh.entered = fresh.heard = self.now
        fresh.override, fresh.override_until = book.override, book.override_until
        self.book, self.transitions = fresh, []

    # What must hold whenever anybody looks.

    @invariant()
    def numbers_are_the_bookkeepers(self) -> None:
        if not hasattr(self, "breaker"):
            return
        book, numbers = self.book, self.breaker.numbers(self.now)
        is_over = book.override_until is not None and self.now >= book.override_until
        state = RESTING.get(book.policy.mode, State.CLOSED) if is_over else book.state
        assert (numbers.state, numbers.generation) == (state, book.generation)
        assert {name: getattr(numbers, name) for name in COUNTED} == {
            n: book.counts.get(n, 0) for n in COUNTED
        }
        w = numbers.window
        seen = (w.total, w.failed, w.slow, w.consecutive_failures, w.silent)
        assert seen == book.window_numbers()
        assert numbers.in_flight == sum(c.verdict is None for c in self.in_flight)
        assert numbers.probes_in_flight == (len(book.probes()) if book.state is State.HALF_OPEN else 0)
        is_open = book.state is State.OPEN
        assert numbers.next_probe_at == (book.open_until if is_open else None)
        assert numbers.is_probe_due == (is_open and self.now >= book.open_until)
        assert numbers.override_until == (None if is_over else book.override_until)
        is_on = book.override is not None and not is_over
        assert (numbers.order is not None and numbers.order.by == "me@here") == is_on
        assert (numbers.ramp_share is not None) == book.is_ramping()

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
                self.end(call, Outcome(Kind.ABANDONED))
            self.numbers_are_the_bookkeepers()

    def healthy_upstream_closes_it(self) -> None:
        """Without any help from calls that hang: those in flight stay so."""
        self.operator_overrides(Override.AUTO, None)
        plain = replace(self.book.policy, mode=BreakerMode.ENFORCE, half_open_check=None)
        self.configuration_is_reloaded(plain, True)
        for _ in range(40):
            if self.book.state is State.CLOSED and not self.book.is_ramping():
                break
            book = self.book
            waits = {
                State.OPEN: book.open_until - self.now,
                State.HALF_OPEN: book.patience(),
                State.CLOSED: book.policy.ramp_seconds,
            }
            self.pass_time(max(waits.get(book.state, 0.0), 0.0) + 1.0)
            call = self.request()
            if call is not None:
                self.end(call, GOOD)
        assert self.book.state is State.CLOSED
        call = self.request()
        assert call is not None
        assert not call.is_waved


BUDGET = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
BreakerMachine.TestCase.settings = BUDGET
TestBreakerAgainstItsBookkeeper = BreakerMachine.TestCase
