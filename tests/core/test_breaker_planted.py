"""Bugs planted into the breaker: the machine of `test_breaker_machine.py` must find each of them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from sidecar.core.breaker import Breaker, Override
from sidecar.core.breaker.evidence import Evidence
from sidecar.core.breaker.judging import Judge
from sidecar.core.breaker.machine import Machine
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.breaker.probes import Probes
from sidecar.core.breaker.rows import Rows
from sidecar.core.breaker.triggers import Triggers
from sidecar.core.breaker.waits import Waits
from sidecar.core.breaker.window import PENDING
from sidecar.core.outcome import Outcome, Verdict
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import State, TransitionReason
from tests.core import test_breaker_machine
from tests.core.test_breaker_machine import MS

pytestmark = pytest.mark.timeout(600)
"""A search may take 10 s of a processor, and the suite runs on machines that have much else to do."""

Plant = Callable[[pytest.MonkeyPatch], None]


def around(owner: type, name: str, change: Callable[..., Any]) -> Plant:
    """Put `change(original, self, *args, **named)` in the place of a method."""
    original = getattr(owner, name)

    def planted(self: Any, *args: Any, **named: Any) -> Any:
        return change(original, self, *args, **named)

    return lambda patch: patch.setattr(owner, name, planted)


def instead(owner: type, name: str, answer: Any) -> Plant:
    return lambda patch: patch.setattr(owner, name, lambda *args, **named: answer)


def no_generation_check(
    original: Any, machine: Machine, permit: BreakerPermit, *args: Any, **named: Any
) -> Any:
    if permit.generation >= 0:
        permit.generation = machine.sequence
    return original(machine, permit, *args, **named)


def ignored_keeps_its_permit(
    original: Any, machine: Machine, permit: BreakerPermit, *args: Any, **named: Any
) -> Any:
    is_kept = permit.is_probe and args[0] is Verdict.IGNORED
    probes = machine._probes
    if is_kept:
        machine._probes = Probes(0.0)
    try:
        return original(machine, permit, *args, **named)
    finally:
        if is_kept:
            machine._probes = probes


def ignored_probe_fails(
    original: Any, machine: Machine, permit: BreakerPermit, verdict: Verdict, *args: Any, **named: Any
) -> Any:
    is_wrong = permit.is_probe and verdict is Verdict.IGNORED
    return original(machine, permit, Verdict.FAILURE if is_wrong else verdict, *args, **named)


def forgets_doublings(original: Any, waits: Waits, *args: Any, **named: Any) -> Any:
    waits._doublings = 0
    return original(waits, *args, **named)


def ramp_is_no_recovery(original: Any, machine: Machine, reason: TransitionReason, now: float) -> Any:
    machine._ramp_started = None
    return original(machine, reason, now)


def one_off(owner: type, field: str) -> Plant:
    """A threshold of the triggers that is one too high."""

    def change(original: Any, triggers: Triggers, policy: BreakerPolicy) -> None:
        original(triggers, policy)
        value = getattr(triggers, field)
        setattr(triggers, field, value + 1 if value else 0)

    return around(owner, "__init__", change)


def minimum_is_exclusive(original: Any, triggers: Triggers, policy: BreakerPolicy) -> None:
    original(triggers, policy)
    triggers._minimum_calls += 1


def rate_only_is_in_the_row(
    original: Any, evidence: Evidence, permit: BreakerPermit, verdict: Verdict, *args: Any, **named: Any
) -> None:
    original(evidence, permit, verdict, *args, **named)
    if verdict is Verdict.RATE_ONLY_FAILURE:
        evidence.rows.fail()


def opens_early(original: Any, breaker: Breaker, now: float, **named: Any) -> Any:
    return original(breaker, now + MS if breaker.state is State.OPEN else now, **named)


def window_outlives(original: Any, evidence: Evidence, now: float) -> None:
    total = evidence.window.total
    original(evidence, now)
    evidence.window.total = total


def impatient(original: Any, machine: Machine, *args: Any) -> Any:
    transition = original(machine, *args)
    machine._patience = 1.0
    return transition


def reload_forgets_the_override(original: Any, breaker: Breaker, *args: Any) -> Any:
    breaker._order = None
    return original(breaker, *args)


def override_never_ends(
    original: Any, breaker: Breaker, action: Override, now: float, *_: Any, **named: Any
) -> Any:
    return original(breaker, action, now, None, **named)


def shows_an_override_beyond_its_time(_original: Any, breaker: Breaker, _now: float) -> State:
    return breaker.machine.state


def reload_drops_the_window(original: Any, machine: Machine, policy: BreakerPolicy, now: float) -> None:
    original(machine, policy, now)
    machine.evidence.window.clear(now)


def waved_through_teaches(original: Any, machine: Machine, *args: Any) -> Any:
    answer = original(machine, *args)
    if isinstance(answer, BreakerPermit):
        answer.generation = machine.sequence
    return answer


def loses_a_rejection(original: Any, machine: Machine, *args: Any) -> Any:
    answer = original(machine, *args)
    machine.judge.tally.rejected -= isinstance(answer, BreakerRefusal) and machine.state is State.HALF_OPEN
    return answer


def early_verdict_ends_the_late_row(original: Any, evidence: Evidence, *args: Any, **named: Any) -> None:
    original(evidence, *args, is_early=False)


def late_failure_counts_twice(original: Any, evidence: Evidence, permit: BreakerPermit, *args: Any) -> bool:
    is_counted: bool = original(evidence, permit, *args)
    evidence.window.total += is_counted
    return is_counted


def late_failure_of_an_older_period_counts(original: Any, machine: Machine, permit: BreakerPermit) -> bool:
    return permit.generation >= 0 and machine.state is State.CLOSED


def slow_call_counts_again(
    original: Any, evidence: Evidence, permit: BreakerPermit, mark: int, now: float
) -> None:
    if permit.mark & PENDING:
        permit.window = None
    original(evidence, permit, mark, now)


def silence_is_a_failure(
    original: Any, evidence: Evidence, permit: BreakerPermit, verdict: Verdict, *args: Any, **named: Any
) -> None:
    wrong = Verdict.RATE_ONLY_FAILURE if verdict is Verdict.SILENCE else verdict
    original(evidence, permit, wrong, *args, **named)


def silence_outweighs_successes(original: Any, triggers: Triggers, window: Any) -> Any:
    failed, total = window.failed, window.total
    window.failed, window.total = failed + window.silent, total + window.silent
    try:
        return original(triggers, window)
    finally:
        window.failed, window.total = failed, total


def refusal_below_doubles(
    original: Any, waits: Waits, policy: BreakerPolicy, now: float, retry_after: float
) -> None:
    waits._doublings += 1
    original(waits, policy, now, retry_after)


def clients_time_counts(original: Any, permit: BreakerPermit, now: float) -> float:
    return now - permit._since + permit._had


def body_in_pieces_may_probe(
    original: Any,
    breaker: Breaker,
    now: float,
    *,
    is_firm: bool = True,
    is_whole: bool = True,
    **others: bool,
) -> Any:
    return original(breaker, now, is_firm=is_firm, is_whole=True, **others)


def slow_probe_closes(original: Any, probes: Probes, *, is_slow: bool) -> None:
    original(probes, is_slow=False)


def check_closes_again(original: Any, machine: Machine, *args: Any) -> Any:
    transition = original(machine, *args)
    machine._checks_distrusted = False
    return transition


def changed_wait_acts_next_time(original: Any, waits: Waits, policy: BreakerPolicy) -> None:
    """As if a new `open_for` were for the next opening."""


def check_is_judged_as_traffic(original: Any, judge: Judge, permit: BreakerPermit, *args: Any) -> Verdict:
    was, permit.is_check = permit.is_check, False
    try:
        verdict: Verdict = original(judge, permit, *args)
        return verdict
    finally:
        permit.is_check = was


def request_probes_beside_checks(original: Any, machine: Machine, *args: Any, **named: Any) -> Any:
    was, machine._checks_distrusted = machine._checks_distrusted, True
    try:
        return original(machine, *args, **named)
    finally:
        machine._checks_distrusted = was


def check_waits_for_a_request(original: Any, machine: Machine, now: float) -> float:
    """As if nobody needed to be told of a breaker that is half-open, with no probe out."""
    due: float = original(machine, now)
    return inf if machine.state is State.HALF_OPEN else due


PLANTED: dict[str, Plant] = {
    "no generation check": around(Machine, "take_judged", no_generation_check),
    "unbounded probes": instead(Probes, "has_permit", True),
    "one probe too many": around(
        Probes,
        "has_permit",
        lambda original, probes, limit, *args, **named: original(probes, limit + 1, *args, **named),
    ),
    "an ignored probe keeps its permit": around(Machine, "take_judged", ignored_keeps_its_permit),
    "an ignored probe counts as failure": around(Machine, "take_judged", ignored_probe_fails),
    "the wait is not doubled": around(Waits, "open", forgets_doublings),
    "an opening in the ramp does not double": around(Machine, "trip", ramp_is_no_recovery),
    "one failure too many": one_off(Triggers, "_row"),
    "429 counts in the row": around(Evidence, "take", rate_only_is_in_the_row),
    "opens a millisecond early": around(Breaker, "admit", opens_early),
    "minimum_calls is exclusive": around(Triggers, "__init__", minimum_is_exclusive),
    "the window outlives its generation": around(Evidence, "clear", window_outlives),
    "probes never time out": instead(Probes, "is_overdue", False),
    "max_wait does not double": around(Machine, "trip", impatient),
    "a reload forgets the override": around(Breaker, "reconfigure", reload_forgets_the_override),
    "an override never ends": around(Breaker, "override", override_never_ends),
    "an override is shown beyond its time": around(Breaker, "state_at", shows_an_override_beyond_its_time),
    "a reload drops the window": around(Machine, "adopt", reload_drops_the_window),
    "what is waved through teaches": around(Machine, "_refuse", waved_through_teaches),
    "a rejection is lost": around(Machine, "_refuse", loses_a_rejection),
    # Of the moments of an attempt:
    "a good head ends no row": instead(Rows, "head", None),
    "an early verdict ends the row of late failures": around(
        Evidence, "take", early_verdict_ends_the_late_row
    ),
    "a late failure is a second call": around(Evidence, "take_late", late_failure_counts_twice),
    "a late failure of an older period counts": around(
        Machine, "_is_of_now", late_failure_of_an_older_period_counts
    ),
    "a late failure of the probe that closed is forgotten": instead(Machine, "_has_closed_lately", False),
    "each lost call of a connection counts in the row": instead(Rows, "is_echo", False),
    "a slow call is counted again at its end": around(Evidence, "_put", slow_call_counts_again),
    "silence counts beside successes": around(Evidence, "take", silence_is_a_failure),
    "silence outweighs successes": around(Triggers, "check_rates", silence_outweighs_successes),
    "a refusal by the next sidecar doubles the wait": around(
        Waits, "open_after_refusal", refusal_below_doubles
    ),
    "a client's time is the upstream's": around(BreakerPermit, "seconds", clients_time_counts),
    "a body in pieces may be a probe": around(Breaker, "admit", body_in_pieces_may_probe),
    "a slow probe closes": around(Probes, "answered", slow_probe_closes),
    "a 404 closes at once": instead(Probes, "shows_life_alone", True),
    "a 404 never closes": instead(Probes, "shows_life_alone", False),
    "a check closes what traffic has opened again": around(Machine, "trip", check_closes_again),
    "stalled clients keep the others out": instead(Probes, "_makes_room", False),
    "a check is judged as traffic": around(Judge, "judge", check_is_judged_as_traffic),
    "a request probes beside checks": around(Machine, "_admit_probe", request_probes_beside_checks),
    "a half-open breaker is never checked again": around(Machine, "next_check", check_waits_for_a_request),
    "a check comes before its wait is over": around(
        Machine, "next_check", lambda original, machine, now: original(machine, now) - MS
    ),
    "a changed open_for acts at the next opening": around(Waits, "adopt", changed_wait_acts_next_time),
    "Retry-After is not heeded": instead(Waits, "failed", None),
    "a probe's timeout counts as any": around(
        Judge,
        "judge",
        lambda original, judge, permit, outcome, now: _as_any(original, judge, permit, outcome, now),
    ),
}


def _as_any(original: Any, judge: Judge, permit: BreakerPermit, outcome: Outcome, now: float) -> Verdict:
    was, permit.is_probe = permit.is_probe, False
    try:
        verdict: Verdict = original(judge, permit, outcome, now)
        return verdict
    finally:
        permit.is_probe = was


QUICK = (31, 1, 10, 3)
"""Which find nearly all that is planted, with the version of Hypothesis that they were tried with."""
SEEDS = (*QUICK, *(number for number in range(1, 36) if number not in QUICK))
"""Each for a short search: a long one begins with 50 examples that are small, and then varies those it had, so what
the first ones do not come near to, it finds late."""
SEARCH = settings(
    test_breaker_machine.BUDGET,
    max_examples=12,
    database=None,
    phases=[Phase.generate],
)


def search() -> None:
    """The same one each time.

    Raises:
        AssertionError: the breaker and its bookkeeper disagree.
    """
    for number in SEEDS:
        machine = seed(number)(type("BreakerMachine", (test_breaker_machine.BreakerMachine,), {}))
        run_state_machine_as_test(machine, settings=SEARCH)  # type: ignore[no-untyped-call]


def test_without_a_bug_the_same_search_finds_nothing() -> None:
    """Else each of the following would pass, whatever was planted."""
    search()


@pytest.mark.plain
@pytest.mark.parametrize("name", PLANTED)
def test_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    with pytest.raises((AssertionError, OverflowError)):  # a count below zero fits no window
        search()
