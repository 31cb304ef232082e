"""One breaker that acts as one with those of other processes: the rules.

Own evidence first. The breaker's own window and row open it here, and so does what the workers of this pod have seen
together; that is the pod's own decision, and a vote. What all replicas have seen together, or a third of them, opens
those that have no evidence of their own: whose window holds `minimum_calls` below the thresholds stays closed, and
dissents. If it has had no success since the others opened, its next outcome decides: a success of the last ten
seconds says little of a sudden outage. So does the next outcome of whoever has seen failures and closes with the
others.

A half-open breaker is probed by whoever holds a permit, and the first good verdict closes all, but for the pod whose
own probe failed. A probe that failed doubles the wait of all only when one of a second replica fails too, or nobody
else wants one.

Nothing is changed from within the breaker's own calls: they leave a note here, and `tick` acts on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import Final

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.sharing import Sharing, WatchedRows
from sidecar.core.fleet.borrowing import AGAIN_SECONDS, Borrower
from sidecar.core.fleet.decided import Decided
from sidecar.core.fleet.member import FleetMember, Reach
from sidecar.core.fleet.merging import SILENT_SECONDS, Heard, Merged, Reports, merge
from sidecar.core.fleet.messages import BreakerReport, Decision, FleetItem, PermitAnswer
from sidecar.core.fleet.rows import RowsOfAll
from sidecar.core.fleet.telling import Telling, is_bad_news
from sidecar.core.fleet.verdicts import has_evidence_against, verdict
from sidecar.core.snapshot import WindowType
from sidecar.core.statechart import BY_HAND, SHUT
from sidecar.core.transition import State, Transition, TransitionReason

CONFIRM_SECONDS: Final = 1.0
"""After a failed probe: how long another replica's probe is waited for."""
HEARING_INTERVALS: Final = 2.0
"""Until a process has heard of a failure, and others of the success that it has had since."""
KEPT_SECONDS: Final = 3600.0
"""How long a store keeps what has no end of its own: an override without one, the number of the last decision."""
CALLS_SECONDS: Final = 10.0
"""In what time the calls of a window of calls are taken to have come, which nobody knows."""
LOOK_SECONDS: Final = 1.0
"""How often a dissenter looks whether its evidence is still there."""


class SharedBreaker(Sharing):
    """Owned by one `Fleet`; it alone reads `out`."""

    __slots__ = (
        "_confirm_at", "_decide_at", "_decided_at", "_failed_in", "_has_failed_here", "_has_seen",
        "_has_seen_failing", "_is_unsettled", "_look_at", "_machine", "_member", "_must_open", "_on_trial",
        "_period_at", "_retell_at", "borrower", "breaker", "key", "out", "reports", "rows", "standing", "telling",
    )  # fmt: skip

    def __init__(self, key: str, breaker: Breaker, member: FleetMember, now: float) -> None:
        self.key = key
        self.breaker = breaker
        self._machine = breaker.machine
        self._member = member
        self.standing = Decided(key)
        self.reports = Reports()
        self.borrower = Borrower(key, member.process)
        self.rows = RowsOfAll()
        self.telling = Telling(key, breaker, member)
        self.out: list[FleetItem] = []
        """To be told at once; decisions get the time that is left when they are."""
        self._has_seen = False
        """Something has happened here since the last look at what all know."""
        self._is_unsettled = False
        """It was in an operator's hands, or in the configuration's, until now."""
        self._has_failed_here = False
        """It refuses by the evidence of this process."""
        self._on_trial = False
        """It dissents by what is from before the others opened, or closed with them although it had seen failures:
        its next outcome decides."""
        self._must_open = False
        self._has_seen_failing = False
        """Failures of its own led to the present opening, or were the last that it knew when the others opened."""
        self._failed_in = -1
        """The fleet's half-open period in which a probe of this pod has failed."""
        self._confirm_at = self._decide_at = self._look_at = self._retell_at = inf
        self._decided_at = -inf
        self._period_at = now
        """When the present period of the fleet began, or this process heard of it."""
        self._machine.share(self)

    def leave(self) -> None:
        """The breaker is alone again."""
        self._machine.share(None)

    # What the breaker asks and tells.

    def permits(self, now: float) -> int | None:
        return None if self._member.reach is Reach.ALONE else self.borrower.permits(now)

    def wanted(self) -> None:
        if not self.borrower.is_wanted:
            self.borrower.is_wanted = True
            self._member.wake()

    @property
    def good_elsewhere(self) -> int:
        number = self.standing.current.number
        return sum(
            heard.report.good for heard in self.reports if (heard.report.fleet, heard.report.pod) == number
        )

    def doubles(self) -> bool:
        return not (self._machine.state is State.HALF_OPEN and self._asks_others())

    def entered(self, transition: Transition) -> None:
        is_by_peers = transition.reason is TransitionReason.PEERS
        if transition.to_state not in SHUT:
            self._on_trial = is_by_peers and self._has_seen_failing
            self._has_failed_here = self._has_seen_failing = False
            self.rows.end()
            if self._on_trial:
                self._watch()
        elif transition.to_state is State.OPEN:
            self._has_failed_here = self._has_failed_here or not is_by_peers
            if transition.window.consecutive_failures or not is_by_peers:
                self._has_seen_failing = True
        if is_by_peers:
            return
        to_state, now = transition.to_state, transition.at
        self._has_seen = True
        self.telling.be_urgent()
        self._member.wake()
        if to_state in BY_HAND or transition.from_state in BY_HAND:
            self._is_unsettled = to_state is State.CLOSED
        elif transition.from_state is State.CLOSED or not self._is_with_fleet():
            self._decide_for_pod(to_state, now)
        elif transition.from_state is State.HALF_OPEN and to_state is State.OPEN and self._asks_others():
            self._failed_in = self.standing.fleet.fleet
            self._confirm_at = now + CONFIRM_SECONDS
            self._decide_for_pod(to_state, now)
        else:
            self._decide_for_fleet(to_state, now)

    def failed(self) -> None:
        if self._machine.state is not State.CLOSED or not self._machine.evidence.is_row_wide:
            return
        self._must_open = self._on_trial
        self._has_seen = self.telling.is_dirty = True
        if self.rows.fail():
            self.telling.be_urgent()
        self._member.wake()

    def succeeded(self) -> None:
        self._on_trial = False
        if self.rows.succeed():
            self.telling.be_urgent()
            self._member.wake()

    def _is_with_fleet(self) -> bool:
        """What happens here happens for all: the pod has no other opinion."""
        pod, fleet = self.standing.pod, self.standing.fleet
        is_one = pod is None or (pod.state is fleet.state and pod.state in SHUT)
        return is_one and self._member.reach is Reach.FLEET

    def _asks_others(self) -> bool:
        """A failed probe of ours is to be confirmed by another replica's."""
        is_own = not self._machine.waits.is_borrowed
        return is_own and self._is_with_fleet() and self._member.replicas > 1

    # What others tell.

    def hear_report(self, report: BreakerReport, at: float, now: float) -> None:
        """Of another process."""
        if not self.reports.hear(report, at):
            return
        fleet = self.standing.fleet.fleet
        if report.fleet > fleet:
            self.telling.be_behind()
        elif report.fleet < fleet:
            self._plan_to_retell(now)
        if report.has_failed and report.fleet == fleet:
            self.borrower.hurry(now + self._member.delay_seconds(self.key))
        is_of_pod = report.replica == self._member.replica
        if self.rows.hear(report.row, report.pod_row if is_of_pod else None):
            self._watch()
        if is_bad_news(report):
            self.telling.be_alert(now)
            if self._decide_at == inf:
                member = self._member
                self._decide_at = now + member.interval_seconds + member.turn_seconds(self.key)

    def hear_decision(self, decision: Decision, at: float, now: float) -> list[Transition]:
        """Of another process: follow it, or dissent."""
        standing = self.standing
        if decision.pod and decision.replica != self._member.replica:
            return []
        has_own = self._has_own_opening()
        if not standing.hear(decision, at):
            self._compare(decision, now)
            return []
        self._has_changed(now)
        if decision.pod:
            return self._follow(now)
        if decision.state is State.CLOSED and has_own:
            self._decide_for_pod(self._machine.state, now)
            return []
        return self._follow_or_dissent(now)

    def _has_own_opening(self) -> bool:
        """This pod refuses by its own evidence: it opened while the fleet did not, or its own probe has failed."""
        pod, fleet = self.standing.pod, self.standing.fleet
        if pod is None or pod.state not in SHUT or self._machine.state not in SHUT:
            return False
        return fleet.state is State.CLOSED or self._member.replica in self._failed_replicas()

    def hear_answer(self, answer: PermitAnswer, now: float) -> None:
        """Of whoever lends permits."""
        self.borrower.hear(answer, now, AGAIN_SECONDS * self._member.scale)

    def _compare(self, decision: Decision, now: float) -> None:
        """Somebody tells what is known, or what is no longer true."""
        if decision.rank == self.standing.fleet.rank:
            self._retell_at = inf
        elif not decision.pod and decision.rank < self.standing.fleet.rank:
            self._plan_to_retell(now)

    def _has_changed(self, now: float) -> None:
        self._decided_at = now
        self._must_open = False
        self.telling.is_dirty = True
        if not self.standing.current.pod:
            self._period_at = now
            self._on_trial = False
            self._confirm_at = self._retell_at = self._decide_at = inf
            self.rows.end()

    def _plan_to_retell(self, now: float) -> None:
        if self.standing.fleet.fleet and self._retell_at == inf:
            self._retell_at = now + self._member.turn_seconds(self.key)
            self._member.wake()

    def joined(self, now: float) -> None:
        """The link is up: say what is known, unless somebody else says the same before."""
        self._period_at = now
        self._look_at = now + LOOK_SECONDS
        self.borrower.forget()
        self._plan_to_retell(now)
        if self.standing.pod is not None:
            self.out.append(self.standing.pod)
        self.telling.is_dirty = True

    def lost_link(self) -> None:
        """The link is down: nothing of others is of now any more."""
        self.borrower.forget()
        self.reports.clear()
        self._confirm_at = self._retell_at = self._decide_at = inf

    # Going where the decisions say.

    def _follow_or_dissent(self, now: float) -> list[Transition]:
        machine = self._machine
        if machine.state is State.CLOSED and self.standing.fleet.state in SHUT:
            is_failing = machine.evidence.rows.longest > 0
            if not is_failing and self._has_evidence_against(now):
                self._on_trial = True
                self._look_at = now + LOOK_SECONDS
                self._watch()
                self._decide_for_pod(State.CLOSED, now)
                return []
        return self._follow(now)

    def _follow(self, now: float) -> list[Transition]:
        """Be in the state that holds here, if neither an operator nor the configuration says otherwise."""
        machine, standing = self._machine, self.standing
        if machine.state in BY_HAND:
            return []
        wanted = standing.told(standing.current, now)
        moved = []
        if wanted.state in SHUT:
            left = wanted.left_seconds if wanted.state is State.OPEN else 0.0
            wait = wanted.wait_seconds or machine.policy.open_seconds
            if wanted.state is State.OPEN or machine.state is State.CLOSED:
                machine.waits.take_over(wanted.doublings, wait, left, now)
            if machine.state is State.CLOSED:
                moved.append(machine.follow(State.OPEN, wanted.replica, now))
        moved.append(machine.follow(wanted.state, wanted.replica, now))
        return [transition for transition in moved if transition is not None]

    def _watch(self) -> None:
        rows = self._machine.evidence.rows
        if isinstance(rows, WatchedRows) and self._machine.state is State.CLOSED:
            rows.watch()

    # Deciding.

    def _decide_for_pod(self, state: State, now: float) -> None:
        current = self.standing.current
        self._decide(current.fleet, current.pod + 1, state, now)

    def _decide_for_fleet(self, state: State, now: float) -> None:
        self._decide(self.standing.fleet.fleet + 1, 0, state, now)

    def _decide(self, fleet: int, pod: int, state: State, now: float, *, is_by_all: bool = False) -> None:
        """`is_by_all`: by what everybody knows. Of a large fleet those tell it at once that report on this breaker,
        and each of the others in its turn, unless it has heard it by then."""
        waits, member = self._machine.waits, self._member
        left, wait, doublings = 0.0, waits.seconds, waits.doublings
        if state is State.OPEN:
            left = max(0.0, waits.until - now)
        decision = Decision(
            self.key, fleet, pod, state, member.process, member.replica, left, wait, doublings
        )
        self.standing.hear(decision, now)
        self._has_changed(now)
        if member.reach is Reach.ALONE:
            return
        if is_by_all and not member.is_sampled(self.key):
            self._plan_to_retell(now)
        else:
            self.out.append(decision)

    def _open_all(self, now: float) -> list[Transition]:
        """The fleet's breaker opens; this one with it, if it has no evidence of its own."""
        machine = self._machine
        moved: list[Transition] = []
        is_dissenting = machine.state is State.CLOSED and (
            not machine.evidence.rows.longest and self._has_evidence_against(now)
        )
        if machine.state is State.CLOSED and not is_dissenting:
            machine.begin_wait(now, is_recovery=False)
            transition = machine.follow(State.OPEN, self._member.replica, now)
            moved += [] if transition is None else [transition]
        self._decide(self.standing.fleet.fleet + 1, 0, State.OPEN, now, is_by_all=True)
        if is_dissenting:
            moved += self._follow_or_dissent(now)
        return moved

    def _open_again(self, now: float) -> list[Transition]:
        """Probes have failed, and so the wait of all is doubled."""
        machine = self._machine
        machine.begin_wait(now, is_recovery=True)
        transition = machine.follow(State.OPEN, self._member.replica, now)
        self._decide_for_fleet(State.OPEN, now)
        return [] if transition is None else [transition]

    # What time and the others' reports bring about.

    def tick(self, now: float) -> list[Transition]:
        """Do what is due; what is to be told stands in `out`."""
        moved: list[Transition] = []
        if self._must_open:
            moved += self._open_on_trial(now)
        if self._is_unsettled:
            self._is_unsettled = False
            moved += self._follow(now)
        if self._member.reach is not Reach.ALONE:
            if self._has_seen or now >= self._decide_at:
                self._has_seen, self._decide_at = False, inf
                self.reports.forget(now - SILENT_SECONDS * self._member.scale)
                moved += self._look(now)
            if now >= self._look_at:
                moved += self._look_at_evidence(now)
            if now >= self._confirm_at:
                moved += self._stop_waiting(now)
            if now >= self._retell_at:
                self._retell_at = inf
                self.out.append(self.standing.fleet)
            self._borrow(now)
        return moved

    def _open_on_trial(self, now: float) -> list[Transition]:
        """The first outcome since the others have opened, or closed, is a failure here: that decides."""
        self._must_open = self._on_trial = False
        if self._machine.state is not State.CLOSED:
            return []
        if self.standing.fleet.state in SHUT:
            self._agree(now)
            return self._follow(now)
        return [self._machine.trip(TransitionReason.CONSECUTIVE_FAILURES, now)]

    def _look(self, now: float) -> list[Transition]:
        """See whether all together know enough."""
        machine, member = self._machine, self._member
        if machine.state in BY_HAND:
            return []
        moved: list[Transition] = []
        if machine.state is State.CLOSED:
            moved += self._look_at_pod(now)
        fleet = self.standing.fleet
        if member.reach is not Reach.FLEET:
            return moved
        if fleet.state is State.CLOSED:
            merged = merge(self._all_of_now(now), machine.policy.window, now)
            share = self._share_of_delay(now)
            if verdict(merged, machine.policy, machine.evidence.triggers, share):
                moved += self._open_all(now)
        elif fleet.state is State.HALF_OPEN and machine.state in SHUT and len(self._failed_replicas()) > 1:
            moved += self._open_again(now)
        return moved

    def _share_of_delay(self, now: float) -> float:
        """How much of what the window holds came in the time until one has heard of another's failure, and all of his
        success after it."""
        window = self._machine.policy.window
        is_of_time = window.type is WindowType.TIME
        age = min(now - self._period_at, window.size if is_of_time else CALLS_SECONDS)
        return min(1.0, HEARING_INTERVALS * self._member.interval_seconds / max(age, 1e-9))

    def _look_at_pod(self, now: float) -> list[Transition]:
        """See whether the workers of this pod together know enough."""
        machine = self._machine
        pod = [one for one in self._all_of_now(now) if one.report.replica == self._member.replica]
        if len(pod) < 2:
            return []
        merged = merge(pod, machine.policy.window, now)
        row = sum(one.report.pod_row[1] for one in pod if one.report.pod_row[0] == self.rows.pod.number)
        reason = machine.evidence.triggers.check(merged.counts, row)
        return [] if reason is None else [machine.trip(reason, now)]

    def _failed_replicas(self) -> set[str]:
        fleet = self.standing.fleet.fleet
        failed = {
            one.report.replica for one in self.reports if one.report.has_failed and one.report.fleet == fleet
        }
        return failed | {self._member.replica} if self._failed_in == fleet else failed

    def _stop_waiting(self, now: float) -> list[Transition]:
        """Our probe has failed, and nobody else's has yet."""
        fleet = self.standing.fleet
        self._confirm_at = inf
        if fleet.state is not State.HALF_OPEN or self._failed_in != fleet.fleet:
            return []
        since = now - self._machine.policy.half_open_max_wait_seconds
        if any(
            one.report.probes and one.report.fleet == fleet.fleet and one.at >= since for one in self.reports
        ):
            self._confirm_at = now + CONFIRM_SECONDS
            return []
        return self._open_again(now) if self._machine.state is State.OPEN else []

    def _look_at_evidence(self, now: float) -> list[Transition]:
        """A dissenter whose window has run empty has no evidence any more."""
        self._look_at = inf
        pod, fleet = self.standing.pod, self.standing.fleet
        if pod is None or pod.state is not State.CLOSED or fleet.state is State.CLOSED:
            return []
        if self._machine.state is not State.CLOSED or self._has_evidence_against(now):
            self._look_at = now + LOOK_SECONDS
            return []
        self._agree(now)
        return self._follow(now)

    def _agree(self, now: float) -> None:
        """The pod has no other opinion any more."""
        standing, member = self.standing, self._member
        fleet = standing.told(standing.fleet, now)
        decision = replace(
            fleet, pod=standing.current.pod + 1, decider=member.process, replica=member.replica
        )
        standing.hear(decision, now)
        self.out.append(decision)
        self.telling.is_dirty = True

    def _has_evidence_against(self, now: float) -> bool:
        machine = self._machine
        mine = [one for one in self._all_of_any(now) if one.report.replica == self._member.replica]
        merged = merge(mine, machine.policy.window, now)
        return has_evidence_against(merged, machine.policy, machine.evidence.triggers)

    def _all_of_now(self, now: float) -> Iterator[Heard]:
        """This process, and the others that are in the same period."""
        yield Heard(self._as_report(now), now)
        fleet = self.standing.fleet.fleet
        yield from (one for one in self.reports if one.report.fleet == fleet)

    def _all_of_any(self, now: float) -> Iterator[Heard]:
        yield Heard(self._as_report(now), now)
        yield from self.reports

    # What others are told.

    def merged(self, now: float) -> Merged:
        """What all of the present period have seen together."""
        return merge(self._all_of_now(now), self._machine.policy.window, now)

    @property
    def is_refusing(self) -> bool:
        """It refuses by its pod's own evidence."""
        return self._has_failed_here or self._has_own_opening()

    @property
    def is_dissenting(self) -> bool:
        """It lets calls go by its pod's own evidence, although the fleet does not."""
        pod, fleet = self.standing.pod, self.standing.fleet
        return pod is not None and pod.state is State.CLOSED and fleet.state in SHUT

    def wants_to_report(self, now: float) -> bool:
        """Whether there is anything that others do not know and should."""
        is_out = self._machine.state is State.HALF_OPEN and self._machine.probes_in_flight > 0
        is_probing = is_out or self._failed_in == self.standing.fleet.fleet
        return self.telling.wants_to_report(self.standing, self._decided_at, now, is_probing=is_probing)

    def report(self, now: float) -> BreakerReport:
        """What is to be told now."""
        self.telling.told(now)
        return self._as_report(now)

    def _as_report(self, now: float) -> BreakerReport:
        return self.telling.report(
            self.standing,
            self.rows,
            now,
            is_refusing=self._has_failed_here,
            is_dissenting=self.is_dissenting,
            has_failed=self._failed_in == self.standing.fleet.fleet,
        )

    def held_seconds(self, now: float) -> float:
        """How long a store is to keep the fleet's decision from now on; 0 or less: no longer. Its end is the same
        instant whenever one asks."""
        standing = self.standing
        if not standing.fleet.fleet:
            return 0.0
        if standing.fleet.state not in SHUT:
            return self._decided_at + KEPT_SECONDS - now
        return (
            max(standing.fleet_until, self._decided_at)
            + self._machine.policy.half_open_max_wait_seconds
            - now
        )

    def take_out(self, now: float) -> list[FleetItem]:
        """What is to be told at once, with the times of now."""
        out, self.out = self.out, []
        return [self.standing.restamped(item, now) if isinstance(item, Decision) else item for item in out]

    def due(self, now: float) -> float:
        """When `tick` has something to do, if nothing else happens."""
        if self._has_seen or self._is_unsettled or self._must_open or self.out:
            return now
        if self._member.reach is Reach.ALONE:
            return inf
        times = self._look_at, self._confirm_at, self._retell_at, self._decide_at
        return min(*times, self.borrower.due(now))

    def _borrow(self, now: float) -> None:
        machine, policy = self._machine, self._machine.policy
        is_over = machine.state is State.HALF_OPEN or (
            machine.state is State.OPEN and now >= machine.waits.until
        )
        fleet = self.standing.fleet
        has_had_its_turn = fleet.state is State.HALF_OPEN and self._failed_in == fleet.fleet
        most = max(1, policy.half_open_max_calls) if is_over and not has_had_its_turn else 0
        delay_seconds = self._member.delay_seconds(self.key)
        in_flight = machine.probes_in_flight
        item = self.borrower.tick(most, policy.half_open_max_wait_seconds, in_flight, delay_seconds, now)
        if item is not None:
            self.out.append(item)
