"""The circuit breaker of one route and upstream, as the rest of the process knows it.

Asks the machine, and adds what an operator says, a second policy on the same attempts, and reloads. One event
loop owns a breaker, and no method suspends, so each is atomic. A change of state is returned, for the caller to
report, by whichever of `admit`, a permit's moments, `tick`, `override` or `reconfigure` made it.

An override acts in every mode, `metrics_only` too, and survives reloads.

Memory (a test holds it): 3 KiB when new, 13 KiB busy with 32 causes remembered. A full history takes about 140
KiB more in a breaker that flaps; breakers that share an `Archive` share 1,024 records and have but 8 each to
themselves."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from sidecar.core.breaker.door import Answer, Door
from sidecar.core.breaker.durations import Durations
from sidecar.core.breaker.judging import Judge
from sidecar.core.breaker.machine import Machine
from sidecar.core.breaker.numbers import BreakerNumbers, CandidateNumbers
from sidecar.core.breaker.override import resting_state
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.breaker.waits import Chance
from sidecar.core.breaker.warmup import WarmUp
from sidecar.core.breaker.window import new_window
from sidecar.core.breaker.words import why
from sidecar.core.candidate import EvenChance, candidate_policy
from sidecar.core.ejection.peers import Peers
from sidecar.core.history import Archive, History
from sidecar.core.override import Order, Override
from sidecar.core.snapshot import BreakerMode, BreakerPolicy
from sidecar.core.statechart import BY_HAND, SHUT
from sidecar.core.transition import State, Transition, TransitionReason


class Breaker:
    """One breaker; the module says what it is for, `machine.py` how it decides.

    Each permit that `admit` returned must be closed exactly once, or told that it succeeded. After a change of
    upstream, attempts in flight go on with the old breaker.
    """

    __slots__ = ("_order", "candidate", "machine", "route", "tally", "upstream")

    def __init__(
        self,
        route: str,
        upstream: str,
        policy: BreakerPolicy,
        rng: Chance,
        now: float,
        archive: Archive | None = None,
        predecessor: Breaker | None = None,
        warm: WarmUp | None = None,
        durations: Durations | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Begin in the resting state of the policy's mode. `rng`, a `random.Random`, serves jitter and ramp.

        `archive` bounds the histories of all breakers that share it; None leaves this one its 256. An override
        of the `predecessor`, whose upstream has changed, goes on here until its time: it was said of the route.
        `warm` is the upstream's, shared by all its breakers; None: it counts as warm. `durations`: the successes of
        the breaker that this one is a candidate beside. `peers`: the upstream's endpoints, told from here how
        attempts ended (but by a candidate); None: they are not told apart.

        Raises:
            ValueError: the window's size is out of bounds (`window.py`).
        """
        self.route = route
        self.upstream = upstream
        self._order: Order | None = None if predecessor is None else predecessor._order
        judge = Judge(policy, warm, durations)
        self.tally = judge.tally
        """The counters since its birth, to be read: the one view of a breaker that any thread may take."""
        state = resting_state(self._order, policy)
        self.machine = Machine(
            (route, upstream), policy, state, judge, History(archive), rng, now, peers,
            is_telling=durations is None,
        )  # fmt: skip
        self.candidate: Breaker | None = None
        """The second policy's breaker, to be looked at."""
        self._forced()
        self._adopt_candidate(policy, now)

    @property
    def state(self) -> State:
        """As of the last call; `tick` brings it up to date where only time has passed."""
        return self.machine.state

    def state_at(self, now: float) -> State:
        """As of `now`: an override whose time is over holds nobody. Reads alone, from any thread."""
        until = self.machine.forced_until
        is_over = until is not None and now >= until
        return resting_state(None, self.machine.policy) if is_over else self.machine.state

    def is_probe_due(self, now: float) -> bool:
        """Open, its wait is over, and nobody has asked since. Reads alone, from any thread."""
        return self.machine.state is State.OPEN and now >= self.machine.waits.until

    def order_at(self, now: float) -> Order | None:
        """The override that is on at `now`. Reads alone, from any thread."""
        order = self._order
        is_over = order is not None and order.until is not None and now >= order.until
        return None if is_over else order

    def why(self, now: float) -> str:
        """What opened it, and what its last probe showed, in words; empty unless it is open or half-open."""
        if self.machine.state not in SHUT:
            return ""
        return why(self.machine.history.transitions, is_probe_due=self.is_probe_due(now))

    @property
    def policy(self) -> BreakerPolicy:
        return self.machine.policy

    @property
    def generation(self) -> int:
        """The number of the present state period: how many transitions there were."""
        return self.machine.sequence

    @property
    def is_shut(self) -> bool:
        """Whether it refuses all, or all but probes."""
        state = self.machine.state
        if self.machine.policy.mode is BreakerMode.METRICS_ONLY:
            return state is State.FORCED_OPEN
        return state in SHUT or state is State.FORCED_OPEN

    @property
    def history(self) -> tuple[Transition, ...]:
        """The last transitions, oldest first: 256 at most, and 8 at least. Older ones name their last cause
        alone (`history.py`)."""
        return self.machine.history.transitions

    @property
    def durations(self) -> Durations:
        """How long the route's successes took, to be read."""
        return self.machine.judge.durations

    def lost_to_hedge(self, seconds: float) -> None:
        """An attempt was ended after so much of the upstream's time, since another one was faster. No outcome: it
        takes part in what the route's answers take, and in nothing else."""
        self.machine.judge.heard.add_at_least(seconds)

    def __repr__(self) -> str:
        machine = self.machine
        window, row = machine.evidence.window, machine.evidence.rows.longest
        return (
            f"<Breaker {self.route}/{self.upstream} {machine.state.name} {machine.policy.mode.value},"
            f" {window.failed} failed and {window.slow} slow of {window.total},"
            f" {row} in a row, {machine.probes_in_flight} probes, generation {machine.sequence}>"
        )

    # The data path.

    def admit(
        self, now: float, *, is_firm: bool = True, is_whole: bool = True, is_complete: bool = False
    ) -> Answer:
        """Decide on one attempt.

        Args:
            now: monotonic seconds.
            is_firm: its timeout could count (`outcome.could_count`). Matters in HALF_OPEN alone.
            is_whole: its request's body has come whole, or as much of it as is kept for a retry; also where it has
                `Expect: 100-continue` or is a gRPC stream. One that is not whole is no probe: a slow upload would
                keep others from asking. The refusal says so, and `admit` may be called again.
            is_complete: its client has nothing more to send: it need not wait for stalled uploads to make room.
        """
        self.tally.total += 1
        machine = self.machine
        answer: Answer | None = machine.door
        if answer is None:
            answer = machine.admit(
                self._expire(now), now, is_firm=is_firm, is_whole=is_whole, is_complete=is_complete
            )
        candidate = self.candidate
        if candidate is None or isinstance(answer, BreakerRefusal) or machine.state in BY_HAND:
            return answer
        return self._admit_beside(answer, candidate.admit(now))

    def retire(self) -> None:
        """Its route or upstream has left, and with it this. Machine and door point at each other, which only a
        collection of all would undo; who has a permit still says how it went."""
        self.machine.door = None
        if self.candidate is not None:
            self.candidate.retire()

    def withdraw(self) -> None:
        """What was refused last was a second try, which is then not made: nobody was refused for it."""
        self.tally.total -= 1
        self.tally.rejected -= 1

    def admit_check(self, now: float) -> BreakerPermit | BreakerRefusal:
        """A permit for a probe by the sidecar itself (`half_open.check`), or a refusal, counted nowhere: there
        is nothing to check now."""
        transition = self._expire(now)
        permit = self.machine.admit_check(now) if transition is None else None
        return BreakerRefusal(self.state, 0.0, transition) if permit is None else permit

    def next_check(self, now: float) -> float:
        """When `admit_check` may have a permit, if nothing else happens: to be asked again after each transition and
        each new policy. `inf`: not before one of these."""
        return self.machine.next_check(now)

    def judge_beside(self, peers: Peers) -> None:
        """The upstream's endpoints are these from now on: a reload has made a new cluster."""
        self.machine.evidence.peers = peers
        if self.candidate is not None:
            self.candidate.judge_beside(peers)

    def _admit_beside(
        self, answer: Door | BreakerPermit, other: Door | BreakerPermit | BreakerRefusal
    ) -> Door | BreakerPermit:
        """Let what is said of the attempt reach the candidate, too."""
        if isinstance(other, BreakerRefusal):
            return answer
        if isinstance(answer, Door) and isinstance(other, Door):
            if answer.twin is not other:
                self.machine.renew_door(other)
            return self.machine.door or answer
        # The door that has the candidate's old door beside it is not to be used any more.
        permit = answer.own()
        permit.twin = other.own()
        return permit

    # Time, operators and new configurations.

    @property
    def counts_after(self) -> float:
        """Seconds at the upstream from which on a timeout counts at present."""
        return self.machine.judge.counts_after()

    def tick(self, now: float) -> Transition | None:
        """See what time alone has ended: an override, or the wait for a probe. Due at `next_due`.

        An open breaker stays OPEN however long nobody asks; it takes a request or a check to make it HALF_OPEN.
        """
        if self.candidate is not None:
            self.candidate.tick(now)
        return self._expire(now)

    def next_due(self, now: float) -> float:
        """When `tick` has something to do if nothing else happens, or `inf`."""
        machine = self.machine
        due = inf if machine.forced_until is None else machine.forced_until
        if machine.state is State.HALF_OPEN and machine.probes_in_flight:
            due = min(due, now + max(0.0, machine.seconds_to_verdict(now)))
        return due if self.candidate is None else min(due, self.candidate.next_due(now))

    def _expire(self, now: float) -> Transition | None:
        until = self.machine.forced_until
        if until is None or now < until:
            return self.machine.expire(now)
        # As of its end, whenever that is noticed: until then nobody asked, and nothing was counted.
        return self._release(until)

    def override(
        self, action: Override, now: float, seconds: float | None = None, by: str = ""
    ) -> Transition | None:
        """Take the breaker out of the machine's hands, or give it back; it replaces an override that is on.

        It acts in every mode, survives `reconfigure`, and ends `seconds` from now (None: by another call
        alone). AUTO takes no `seconds`, and does nothing if there is no override. `by` is who asks, for those who
        find it later. None if the state is the one asked for.

        Raises:
            ValueError: `seconds` is zero or less.
        """
        if seconds is not None and seconds <= 0:
            raise ValueError(f"an override of {seconds} s ends before it begins: give a time above zero")
        if action is Override.AUTO:
            order = self._order
            return None if order is None else self._release(now, Order(action, order.since, None, by))
        self._order = Order(action, now, None if seconds is None else now + seconds, by)
        return self._rest(TransitionReason.FORCED, now, self._order)

    def inherit(self, predecessor: Breaker, now: float) -> Transition | None:
        """Take on what an operator has told the `predecessor` since this one was made, as at birth."""
        if predecessor._order == self._order:
            return None
        self._order = predecessor._order
        return self._rest(TransitionReason.FORCED, now, self._order)

    def _release(self, now: float, end: Order | None = None) -> Transition | None:
        """End the override: `end` says who has ended it, None that its time is over."""
        order, self._order = self._order, None
        if end is None and order is not None:
            end = replace(order, action=Override.AUTO)
        return self._rest(TransitionReason.FORCED, now, end)

    def _rest(self, reason: TransitionReason, now: float, order: Order | None = None) -> Transition | None:
        """Go where override and mode want the breaker; out of a state by hand if they want nothing."""
        self._forced()
        machine = self.machine
        wanted = resting_state(self._order, machine.policy)
        is_wanted = machine.state is wanted or (wanted is State.CLOSED and machine.state not in BY_HAND)
        return None if is_wanted else machine.enter(wanted, reason, now, order=order)

    def _forced(self) -> None:
        """Tell the machine how long an operator's word holds."""
        self.machine.forced_until = None if self._order is None else self._order.until
        self.machine.renew_door()

    def reconfigure(self, policy: BreakerPolicy, now: float) -> tuple[Transition, ...]:
        """Go on under a new policy and return the transitions on the way (what was due before, then its own).

        State, generation, counters, override and probes in flight stay, and the window if its type and size
        do; new thresholds are applied from the next outcome on. A changed `open_for` acts on the present wait at
        once. Only a new `mode` changes the state. For a new upstream, make a new breaker.

        Raises:
            ValueError: the window's size is out of bounds; nothing has changed then.
        """
        new_window(policy.window, now)  # raises before anything has changed
        due = self._expire(now)
        self.machine.adopt(policy, now)
        self._adopt_candidate(policy, now)
        moved = self._rest(TransitionReason.RELOAD, now) if self._order is None else None
        return tuple(transition for transition in (due, moved) if transition is not None)

    def _adopt_candidate(self, policy: BreakerPolicy, now: float) -> None:
        second = candidate_policy(policy)
        if second is None:
            self.candidate = None
        elif self.candidate is None:
            judge, archive = self.machine.judge, self.machine.history.archive
            self.candidate = Breaker(
                self.route,
                self.upstream,
                second,
                EvenChance(),
                now,
                archive,
                None,
                judge.warm,
                judge.durations,
                self.machine.evidence.peers,
            )
        else:
            self.candidate.reconfigure(second, now)

    # What others see.

    def numbers(self, now: float) -> BreakerNumbers:
        """Everything there is to show, as of `now`; changes no state. The loop's thread alone may ask, since it
        lets the window's old outcomes go."""
        machine, tally, order = self.machine, self.tally, self.order_at(now)
        ended = tally.successful + tally.failed + tally.ignored + tally.rejected
        until = machine.waits.until if machine.state is State.OPEN else None
        last = machine.history.last
        return BreakerNumbers(
            route=self.route,
            upstream=self.upstream,
            mode=machine.policy.mode,
            state=self.state_at(now),
            generation=machine.sequence,
            total=tally.total,
            successful=tally.successful,
            failed=tally.failed,
            ignored=tally.ignored,
            rejected=tally.rejected,
            in_flight=tally.total - ended,
            timed_out=tally.timed_out,
            slow=tally.slow,
            failed_late=tally.failed_late,
            transitions=machine.sequence,
            would_have_rejected=tally.would_have_rejected,
            would_have_been_fine=tally.would_have_been_fine,
            failures_saved=tally.failures_saved,
            window=machine.evidence.numbers(now),
            probes_in_flight=machine.probes_in_flight,
            last_failure_at=tally.last_failure_at,
            last_transition_at=None if last is None else last.at,
            next_probe_at=until,
            override_until=None if order is None else order.until,
            is_overridden=order is not None,
            order=order,
            ramp_share=machine.ramp_share(now),
            is_probe_due=self.is_probe_due(now),
            counts_timeout_after=machine.judge.counts_after(),
            candidate=None if self.candidate is None else self.candidate._as_candidate(now),
        )

    def _as_candidate(self, now: float) -> CandidateNumbers:
        tally = self.tally
        return CandidateNumbers(
            state=self.state,
            total=tally.total,
            would_have_rejected=tally.would_have_rejected,
            would_have_been_fine=tally.would_have_been_fine,
            failures_saved=tally.failures_saved,
            transitions=self.generation,
            window=self.machine.evidence.numbers(now),
        )
