"""The moments of one attempt, one rule of SPEC 3 at a time."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest

from sidecar.core.breaker import Breaker, Override
from sidecar.core.breaker.door import Door
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal, Turn
from sidecar.core.breaker.warmup import WarmUp
from sidecar.core.breaker.words import why
from sidecar.core.outcome import Kind, Limit, Outcome, could_count
from sidecar.core.override import Order
from sidecar.core.snapshot import BreakerPolicy, CandidatePolicy, CheckPolicy, WindowPolicy, WindowType
from sidecar.core.transition import Cause, State, Transition, TransitionReason, WindowNumbers
from tests.core.breaker_calls import sent

MS = 0.001
GOOD = Outcome(Kind.ANSWERED, 200)
BAD = Outcome(Kind.ANSWERED, 500)
RESET = Outcome(Kind.RESET)
LEFT = Outcome(Kind.LEFT)


def breaker(**settings: Any) -> Breaker:
    return Breaker("checkout", "payments", BreakerPolicy(**settings), random.Random(1), 0.0)


def start(subject: Breaker, now: float, endpoint: str = "10.0.0.7:8080", **facts: Any) -> BreakerPermit:
    """An attempt that is sent at once."""
    answer = subject.admit(now, **facts)
    assert not isinstance(answer, BreakerRefusal), subject
    permit = answer.own()
    permit.sent(endpoint, now)
    return permit


def run(
    subject: Breaker, outcome: Outcome, now: float, seconds: float = 0.01, **facts: Any
) -> Transition | None:
    """An attempt that began so many seconds ago, and ends now."""
    permit = start(subject, now - seconds, **facts)
    transition = permit.judge(outcome, now)
    permit.close(now)
    return transition


def opened(now: float = 0.0, **settings: Any) -> Breaker:
    subject = breaker(**settings)
    for _ in range(5):
        run(subject, BAD, now, 0.0)
    assert subject.state is State.OPEN
    return subject


def stream(subject: Breaker, now: float, endpoint: str = "a") -> BreakerPermit:
    """A good head, and an answer that goes on until it was judged by that."""
    permit = start(subject, now, endpoint)
    permit.head(200, now)
    assert permit.next_look == now + 1.0
    permit.look(now + 1.0)
    return permit


# When it is judged


def test_stream_is_judged_a_second_after_its_head_and_not_before() -> None:
    subject = opened()
    probe = start(subject, 5.0)
    probe.head(200, 5.2)
    assert probe.look(6.2 - MS) is None
    transition = probe.look(6.2)
    assert transition is not None
    assert transition.to_state is State.CLOSED


def test_bad_head_is_a_failure_after_a_second_too() -> None:
    subject = opened()
    probe = start(subject, 5.0)
    probe.head(503, 5.2)
    transition = probe.look(6.2)
    assert transition is not None
    assert transition.reason is TransitionReason.PROBE_FAILED


def test_good_head_ends_a_row_at_once() -> None:
    subject = breaker()
    for _ in range(4):
        run(subject, BAD, 1.0)
    start(subject, 1.0).head(200, 1.0)
    assert run(subject, BAD, 1.0) is None
    assert subject.numbers(1.0).consecutive_failures == 1


def test_good_head_that_a_door_hears_of_ends_a_row_too() -> None:
    subject = breaker()
    for _ in range(4):
        run(subject, BAD, 1.0)
    door = subject.admit(1.0)
    assert isinstance(door, Door)
    door.head(1.0)
    assert subject.numbers(1.0).consecutive_failures == 0


def test_attempt_is_one_call_in_the_window_whatever_marks_it_gets() -> None:
    subject = breaker(slow_call_seconds=1.0, consecutive_failures=0)
    permit = start(subject, 0.0)
    assert permit.next_look == 1.0
    permit.look(1.0)
    assert subject.numbers(1.0).window == WindowNumbers(total=1, slow=1)
    permit.judge(BAD, 3.0)
    permit.close(3.0)
    assert subject.numbers(3.0).window == WindowNumbers(total=1, failed=1, slow=1, consecutive_failures=1)


def test_permit_that_catches_up_knows_what_the_door_was_told() -> None:
    subject = breaker(slow_call_seconds=1.0)
    door = subject.admit(1.0)
    assert isinstance(door, Door)
    assert door.next_look(1.0) == 2.0
    permit = door.own()
    permit.catch_up("a", 1.0)
    assert permit.next_look == 2.0
    late = door.own()
    late.catch_up("a", 1.0, head_at=1.5)
    assert (late.next_look, late.head_seconds) == (2.5, 0.5)


# Late failures


def test_late_failure_turns_its_own_success_and_the_total_stays() -> None:
    subject = breaker()
    permit = stream(subject, 0.0)
    assert subject.numbers(1.0).window == WindowNumbers(total=1)
    permit.judge(RESET, 5.0)
    numbers = subject.numbers(5.0)
    assert numbers.window == WindowNumbers(total=1, failed=1, consecutive_failures=1)
    assert (numbers.successful, numbers.failed, numbers.failed_late) == (1, 0, 1)


def test_late_failure_after_its_success_has_left_the_window_changes_nothing() -> None:
    subject = breaker()
    permit = stream(subject, 0.0)
    permit.judge(RESET, 12.0)
    assert subject.numbers(12.0).window == WindowNumbers()


def test_only_an_attempt_that_ended_well_ends_the_row_of_late_failures() -> None:
    subject = breaker(minimum_calls=100)
    for number in range(4):
        broken, other = stream(subject, 0.0, "a"), stream(subject, 0.0, "b")
        broken.judge(RESET, 2.0 + number)
        assert subject.numbers(2.0).consecutive_failures == number + 1
    other.judge(GOOD, 7.0)
    assert subject.numbers(7.0).consecutive_failures == 0


def test_upstream_that_breaks_every_long_answer_opens_although_each_begins_well() -> None:
    subject = breaker(minimum_calls=100)
    for number in range(5):
        permit = stream(subject, float(number), "a")
        transition = permit.judge(RESET, number + 1.5)
    assert transition is not None
    assert transition.reason is TransitionReason.CONSECUTIVE_FAILURES


def test_answers_that_are_cut_short_soon_after_a_good_head_fill_a_row() -> None:
    subject = breaker()
    for number in range(5):
        permit = start(subject, float(number))
        permit.head(200, float(number))
        transition = permit.judge(RESET, number + 0.1)
        permit.close(number + 0.1)
    assert transition is not None
    assert transition.reason is TransitionReason.CONSECUTIVE_FAILURES


@pytest.mark.parametrize(("apart", "row"), [(0.1 - MS, 1), (0.1 + MS, 2)])
def test_resets_of_one_endpoint_within_a_tenth_of_a_second_count_once_in_a_row(
    apart: float, row: int
) -> None:
    subject = breaker()
    first, second = start(subject, 0.5), start(subject, 0.9)
    first.judge(RESET, 1.0)
    second.judge(RESET, 1.0 + apart)
    assert subject.numbers(1.2).window == WindowNumbers(total=2, failed=2, consecutive_failures=row)


def test_reset_of_a_call_that_was_sent_after_another_one_counts() -> None:
    subject = breaker()
    for number in range(5):
        run(subject, RESET, 1.0 + number * MS, MS / 2)
    assert subject.state is State.OPEN


def test_resets_of_two_endpoints_count_each() -> None:
    subject = breaker()
    run(subject, RESET, 1.0, endpoint="a")
    run(subject, RESET, 1.0, endpoint="b")
    assert subject.numbers(1.0).consecutive_failures == 2


def test_late_failure_of_the_probe_that_closed_opens_again_with_the_doubled_wait() -> None:
    subject = opened()
    probe = start(subject, 5.0)
    probe.head(200, 5.0)
    probe.look(6.0)
    assert subject.state is State.CLOSED
    transition = probe.judge(RESET, 9.0, Cause(b"t", b"s", b"r"))
    assert transition is not None
    assert transition.reason is TransitionReason.PROBE_FAILED
    assert 10.0 <= (transition.wait_seconds or 0.0) <= 11.0
    assert [cause.error_type for cause in transition.causes] == ["reset"]


def test_late_failure_of_that_probe_after_a_window_changes_nothing() -> None:
    subject = opened()
    probe = start(subject, 5.0)
    probe.head(200, 5.0)
    probe.look(6.0)
    assert probe.judge(RESET, 16.0 + MS) is None


# Slow


def test_hung_calls_open_while_they_run() -> None:
    subject = breaker(slow_call_seconds=1.0, minimum_calls=20)
    permits = [start(subject, 0.0) for _ in range(20)]
    culprits = [Cause(b"t", b"%d" % number, b"r") for number in range(20)]
    seen = [permit.look(1.0, culprit) for permit, culprit in zip(permits, culprits, strict=True)]
    assert seen[:-1] == [None] * 19
    assert seen[-1] is not None
    assert seen[-1].reason is TransitionReason.SLOW_CALL_RATE
    assert [cause.span_id for cause in seen[-1].causes] == [one.span_id for one in culprits]


def test_a_call_that_was_slow_while_it_ran_is_one_cause_and_that_of_its_end() -> None:
    subject = breaker(slow_call_seconds=1.0, minimum_calls=20, consecutive_failures=2)
    permits = [start(subject, 0.0) for _ in range(2)]
    culprits = [Cause(b"t", b"%d" % number, b"r") for number in range(2)]
    for permit, culprit in zip(permits, culprits, strict=True):
        assert permit.look(1.0, culprit) is None
    ends = [permit.judge(BAD, 3.0, one) for permit, one in zip(permits, culprits, strict=True)]
    assert ends[1] is not None
    assert [(cause.span_id, cause.error_type, cause.at) for cause in ends[1].causes] == [
        (b"0", "500", 3.0),
        (b"1", "500", 3.0),
    ]
    assert not subject.machine.history.causes(32)


@pytest.mark.parametrize("slow_seconds", [0.1, 0.3, 0.5])
def test_call_is_slow_at_the_very_moment_of_its_look(slow_seconds: float) -> None:
    """On a clock that has run for hours, a sum less one of its parts may be a little under the other."""
    subject = breaker(slow_call_seconds=slow_seconds, minimum_calls=10_000)
    for number in range(200):
        permit = start(subject, 18_135.55 + number * 0.0137)
        permit.look(permit.next_look)
        assert permit.is_slow, number


def test_call_whose_caller_leaves_after_slow_call_duration_was_slow() -> None:
    subject = breaker(slow_call_seconds=0.5)
    permit = start(subject, 0.0)
    permit.judge(LEFT, 2.5)
    numbers = subject.numbers(2.5)
    assert (numbers.slow, numbers.ignored, numbers.window) == (1, 1, WindowNumbers(total=1, slow=1))


def test_stream_with_a_quick_head_is_never_slow() -> None:
    subject = breaker(slow_call_seconds=1.0)
    permit = start(subject, 0.0)
    permit.head(200, 0.1)
    permit.look(1.1)
    permit.judge(GOOD, 30.0)
    assert subject.numbers(30.0).slow == 0


def test_clients_turn_is_not_the_upstreams_time() -> None:
    subject = breaker(slow_call_seconds=1.0)
    permit = start(subject, 0.0)
    permit.turn(Turn.CLIENT, 0.5)
    assert permit.next_look == inf
    permit.turn(Turn.UPSTREAM, 60.0)
    assert permit.next_look == 60.5
    permit.judge(GOOD, 60.4)
    assert subject.numbers(60.4).slow == 0


def test_time_in_our_own_queue_is_not_the_upstreams() -> None:
    subject = breaker(slow_call_seconds=1.0)
    permit = subject.admit(0.0)
    assert not isinstance(permit, BreakerRefusal)
    own = permit.own()
    own.sent("a", 30.0)
    own.judge(GOOD, 30.5)
    assert subject.numbers(30.5).slow == 0


# What a timeout counts


def timed_out(limit: Limit = Limit.CALLER, **facts: Any) -> Outcome:
    return Outcome(Kind.TIMED_OUT, limit=limit, **facts)


def known(subject: Breaker, seconds: float, count: int = 20) -> None:
    """So many successes that took so long, and left the window since."""
    for _ in range(count):
        door = subject.admit(0.0)
        assert isinstance(door, Door)
        door.succeed(seconds, 0.0)


@pytest.mark.parametrize(
    ("usual", "had", "counts"),
    [
        (None, 0.795, True),
        (None, 0.7, False),
        (0.1, 0.3, True),
        (0.1, 0.28, False),
        (0.001, 0.05, True),
        (0.001, 0.04, False),
        (0.45, 0.9, True),
        (0.45, 0.7, False),
    ],
)
def test_timeout_counts_by_what_the_routes_successes_take(
    usual: float | None, had: float, counts: bool
) -> None:
    subject = breaker()
    if usual is not None:
        known(subject, usual)
    run(subject, timed_out(), 100.0 + had, had)
    assert subject.numbers(100.0 + had).failed == counts


def test_timeout_by_the_routes_own_limit_counts_however_short() -> None:
    subject = breaker()
    run(subject, timed_out(Limit.ROUTE, own_seconds=0.295), 1.0, 0.3)
    run(subject, timed_out(Limit.ROUTE, own_seconds=0.295), 2.0, 0.1)
    assert subject.numbers(2.0).failed == 1


def test_strangers_timeouts_count_only_while_nobody_is_served() -> None:
    subject = breaker()
    run(subject, GOOD, 1.0)
    for _ in range(50):
        run(subject, timed_out(Limit.STRANGER), 2.0, 1.15)
    assert subject.state is State.CLOSED
    for _ in range(19):
        run(subject, timed_out(Limit.STRANGER), 20.0, 1.15)
    transition = run(subject, timed_out(Limit.STRANGER), 20.0, 1.15)
    assert transition is not None
    assert transition.reason is TransitionReason.FAILURE_RATE
    assert transition.window == WindowNumbers(silent=20)


def test_callers_who_leave_a_silent_upstream_open_it_by_the_rate_alone() -> None:
    subject = breaker(consecutive_failures=1)
    seen = [run(subject, LEFT, 10.0, 2.5) for _ in range(20)]
    assert seen[:-1] == [None] * 19
    assert seen[-1] is not None


def test_caller_who_leaves_soon_or_after_the_head_says_nothing() -> None:
    subject = breaker(minimum_calls=1)
    run(subject, LEFT, 10.0, 0.7)
    permit = start(subject, 10.0)
    permit.head(200, 10.1)
    permit.judge(Outcome(Kind.LEFT, 200, is_after_head=True), 10.9)
    permit.close(10.9)
    assert subject.numbers(11.0).window == WindowNumbers()


def test_our_own_cut_of_a_moving_stream_says_nothing_and_a_stalled_body_does() -> None:
    subject = breaker()
    run(subject, timed_out(Limit.ROUTE, status=200, is_after_head=True), 15.0, 15.0)
    assert subject.numbers(15.0).window == WindowNumbers()
    run(subject, timed_out(Limit.ROUTE, status=200, is_after_head=True, is_stalled=True), 15.0, 15.0)
    assert subject.numbers(15.0).failed == 1


@pytest.mark.parametrize(("seconds", "failed"), [(0.02, 1), (0.26, 1), (0.27, 0)])
def test_504_near_the_end_of_the_budget_is_judged_as_our_own_timeout_would_be(
    seconds: float, failed: int
) -> None:
    subject = breaker()
    run(subject, Outcome(Kind.ANSWERED, 504, 0.295), 1.0, seconds)
    assert subject.numbers(1.0).failed == failed


def test_504_that_failure_on_names_always_counts() -> None:
    subject = breaker(failure_on=frozenset({504}))
    run(subject, Outcome(Kind.ANSWERED, 504, 0.295), 1.0, 0.29)
    assert subject.numbers(1.0).failed == 1


def test_429_on_an_inbound_route_counts_nothing() -> None:
    subject = breaker(counts_rate_limited=False)
    run(subject, Outcome(Kind.ANSWERED, 429), 1.0)
    assert subject.numbers(1.0).window == WindowNumbers()


def test_what_ejection_has_judged_is_not_the_breakers() -> None:
    subject = breaker()
    run(subject, Outcome(Kind.ANSWERED, 500, is_counted=False), 1.0)
    assert subject.numbers(1.0).window == WindowNumbers()


# Probes


def test_brief_request_holds_no_permit_against_a_firm_one_and_closes_all_the_same() -> None:
    subject = opened()
    brief = start(subject, 5.0, is_firm=False)
    assert not subject.admit(5.0, is_firm=False).is_admitted
    firm = start(subject, 5.0)
    assert firm.is_probe
    assert not subject.admit(5.0).is_admitted
    transition = brief.judge(GOOD, 5.1)
    assert transition is not None
    assert transition.to_state is State.CLOSED


@pytest.mark.parametrize(
    ("seconds", "limit", "is_firm"),
    [
        (0.1, Limit.ROUTE, True),
        (0.76, Limit.CALLER, True),
        (0.75, Limit.CALLER, False),
        (10.0, Limit.STRANGER, False),
    ],
)
def test_firm_is_whose_timeout_could_count(seconds: float, limit: Limit, is_firm: bool) -> None:
    assert could_count(seconds, limit) == is_firm


def test_timeout_of_a_brief_probe_gives_the_permit_back() -> None:
    subject = opened()
    assert run(subject, timed_out(), 5.2, 0.1, is_firm=False) is None
    assert subject.state is State.HALF_OPEN
    assert subject.numbers(5.2).probes_in_flight == 0


def test_request_whose_body_is_not_whole_is_no_probe_and_counted_nowhere() -> None:
    subject = opened()
    before = subject.numbers(6.0)
    answer = subject.admit(6.0, is_whole=False)
    assert isinstance(answer, BreakerRefusal)
    assert answer.is_postponed
    assert subject.numbers(6.0) == before
    assert subject.admit(6.0, is_whole=True).is_probe


def test_request_in_pieces_is_refused_while_nothing_can_be_a_probe() -> None:
    subject = opened()
    answer = subject.admit(1.0, is_whole=False)
    assert isinstance(answer, BreakerRefusal)
    assert not answer.is_postponed
    assert answer.retry_after_seconds == 4.0


def test_permit_is_not_held_in_the_clients_turn_but_only_eight_are_out_at_once() -> None:
    subject = opened()
    for _ in range(8):
        start(subject, 5.0).turn(Turn.CLIENT, 5.0)
    assert not subject.admit(5.0).is_admitted


def test_the_probe_whose_client_has_stalled_for_longest_makes_room_for_one_more() -> None:
    subject = opened()
    probes: list[BreakerPermit] = []
    for number in range(8):
        probes.append(start(subject, 5.0))
        probes[-1].turn(Turn.CLIENT, 5.0 + number * 0.1)
    assert not subject.admit(6.0 - MS).is_admitted
    ninth = start(subject, 6.0)
    assert subject.numbers(6.0).probes_in_flight == 8
    assert not subject.admit(6.0).is_admitted  # it is the upstream's turn now
    ninth.turn(Turn.CLIENT, 6.0)
    assert not subject.admit(6.1 - MS).is_admitted
    start(subject, 6.1)
    # The verdict of one that has made room is a verdict.
    transition = probes[0].judge(GOOD, 6.2)
    assert transition is not None
    assert transition.to_state is State.CLOSED


def test_max_wait_runs_on_the_upstreams_time_alone() -> None:
    subject = opened()
    probe = start(subject, 5.0)
    probe.turn(Turn.CLIENT, 10.0)
    assert subject.tick(1000.0) is None
    probe.turn(Turn.UPSTREAM, 1000.0)
    assert subject.next_due(1000.0) == 1005.0
    assert subject.tick(1005.0 - MS) is None
    transition = subject.tick(1005.0)
    assert transition is not None
    assert transition.reason is TransitionReason.PROBE_TIMEOUT


def test_probe_without_a_head_lets_one_more_go_beside_it_five_in_all() -> None:
    subject = opened(half_open_max_wait_seconds=60.0)
    for number in range(5):
        start(subject, 5.0 + number)
        assert not subject.admit(6.0 + number - MS).is_admitted
    assert not subject.admit(20.0).is_admitted


def test_first_verdict_of_several_probes_counts() -> None:
    subject = opened()
    report = start(subject, 5.0)
    transition = run(subject, GOOD, 6.5, 0.1)
    assert transition is not None
    assert transition.to_state is State.CLOSED
    assert report.judge(GOOD, 17.0) is None


def test_4xx_closes_only_after_max_wait_of_nothing_else() -> None:
    not_found = Outcome(Kind.ANSWERED, 404)
    subject = opened()
    assert run(subject, not_found, 5.01, 0.0) is None
    hung = start(subject, 6.0)
    hung.turn(Turn.CLIENT, 6.0)
    assert run(subject, not_found, 15.5, 0.0) is None
    hung.close(15.6)
    transition = run(subject, not_found, 15.7, 0.0)
    assert transition is not None
    assert transition.to_state is State.CLOSED


def test_probe_prefers_an_endpoint_that_did_not_fail_last() -> None:
    subject = opened()
    probe = subject.admit(5.0)
    assert isinstance(probe, BreakerPermit)
    assert probe.avoid == ("10.0.0.7:8080",)


def test_closing_without_a_verdict_gives_the_probe_back_once() -> None:
    subject = opened()
    probe = start(subject, 5.0)
    probe.close(5.1)
    second = start(subject, 5.1)
    probe.close(5.2)
    assert subject.numbers(5.2).probes_in_flight == 1
    second.close(5.3)
    assert subject.numbers(5.3).ignored == 2


def test_check_of_the_sidecar_is_the_only_probe_where_it_is_configured() -> None:
    subject = opened(half_open_check=CheckPolicy("/healthz"))
    assert isinstance(subject.admit_check(5.0 - MS), BreakerRefusal)
    assert not subject.admit(6.0).is_admitted
    probe = subject.admit_check(6.0)
    assert isinstance(probe, BreakerPermit)
    assert isinstance(subject.admit_check(6.0), BreakerRefusal)
    transition = probe.judge(GOOD, 6.1)
    assert transition is not None
    assert transition.to_state is State.CLOSED


def test_what_a_check_closed_and_traffic_opened_is_next_closed_by_a_request() -> None:
    subject = opened(half_open_check=CheckPolicy("/healthz"))
    probe = subject.admit_check(5.0)
    assert isinstance(probe, BreakerPermit)
    probe.judge(GOOD, 5.1)
    for _ in range(5):
        run(subject, BAD, 6.0)
    due = subject.numbers(6.0).next_probe_at or 0.0
    assert isinstance(subject.admit_check(due), BreakerRefusal)
    assert run(subject, GOOD, due, 0.0) is not None
    assert subject.state is State.CLOSED


# Waits


def refused_below(retry_after: float) -> Outcome:
    return Outcome(Kind.REFUSED_BELOW, 503, retry_after_seconds=retry_after)


@pytest.mark.parametrize(("retry_after", "wait"), [(1.0, 1.0), (30.0, 5.0), (0.0, 5.0)])
def test_refusal_by_the_next_sidecar_opens_for_its_retry_after_and_doubles_nothing(
    retry_after: float, wait: float
) -> None:
    subject = opened()
    transition = run(subject, refused_below(retry_after), 5.0, 0.0)
    assert transition is not None
    assert transition.wait_seconds == wait
    failed = run(subject, BAD, 5.0 + wait, 0.0)
    assert failed is not None
    assert 10.0 <= (failed.wait_seconds or 0.0) <= 11.0


def test_refusal_by_the_next_sidecar_counts_nothing_while_closed() -> None:
    subject = breaker()
    for _ in range(50):
        run(subject, refused_below(1.0), 1.0)
    assert subject.state is State.CLOSED


@pytest.mark.parametrize(
    ("asked", "wait"), [({"a": 30.0}, 30.0), ({"a": 30.0, "b": 20.0}, 20.0), ({"a": 90.0}, 60.0)]
)
def test_retry_after_lengthens_a_wait(asked: dict[str, float], wait: float) -> None:
    subject = breaker(consecutive_failures=len(asked))
    for endpoint, seconds in asked.items():
        run(subject, Outcome(Kind.ANSWERED, 503, retry_after_seconds=seconds), 1.0, endpoint=endpoint)
    assert subject.history[-1].wait_seconds == pytest.approx(wait)


def test_opening_soon_after_closing_doubles_the_wait() -> None:
    subject = opened()
    run(subject, GOOD, 5.0, 0.0)
    for _ in range(5):
        run(subject, BAD, 14.9)
    assert 10.0 <= (subject.history[-1].wait_seconds or 0.0) <= 11.0


# Start, operators, words


def test_refused_connections_before_the_first_answer_open_nothing() -> None:
    warm = WarmUp(0.0)
    subject = Breaker("r", "u", BreakerPolicy(), random.Random(1), 0.0, warm=warm)
    other = Breaker("s", "u", BreakerPolicy(), random.Random(1), 0.0, warm=warm)
    refused = Outcome(Kind.CONNECT_REFUSED)
    for _ in range(50):
        run(subject, refused, 11.0)
    assert subject.numbers(11.0).window == WindowNumbers()
    run(other, GOOD, 12.0)
    for _ in range(5):
        run(subject, refused, 12.0)
    assert subject.state is State.OPEN


@pytest.mark.parametrize(("now", "failed"), [(30.0 - MS, 0), (30.0, 1)])
def test_warm_up_ends_after_its_time(now: float, failed: int) -> None:
    subject = Breaker("r", "u", BreakerPolicy(), random.Random(1), 0.0, warm=WarmUp(0.0))
    run(subject, Outcome(Kind.CONNECT_REFUSED), now, 0.0)
    assert subject.numbers(now).failed == failed


def test_connect_timeout_is_no_start() -> None:
    subject = Breaker("r", "u", BreakerPolicy(), random.Random(1), 0.0, warm=WarmUp(0.0))
    run(subject, Outcome(Kind.CONNECT_FAILED), 1.0)
    assert subject.numbers(1.0).failed == 1


def test_override_says_who_made_it_and_since_when() -> None:
    subject = breaker()
    subject.override(Override.CLOSE, 10.0, 60.0, by="ada@bastion")
    numbers = subject.numbers(20.0)
    assert numbers.state is State.FORCED_CLOSED
    assert numbers.order == Order(Override.CLOSE, 10.0, 70.0, "ada@bastion")
    assert subject.next_due(20.0) == 70.0
    assert not subject.numbers(70.0).is_overridden


def test_open_breaker_that_nobody_asks_says_that_a_probe_is_due() -> None:
    subject = opened()
    assert subject.numbers(5.0 - MS).told == "open"
    assert subject.numbers(5.0).told == "open, probe due"


def test_why_tells_what_opened_it_and_what_the_last_probe_showed() -> None:
    subject = breaker()
    refused = Outcome(Kind.CONNECT_REFUSED, error_type="connection_refused", detail="connect: refused")
    for _ in range(5):
        start(subject, 1.0).judge(refused, 1.0, Cause(b"t", b"s", b"r"))
    assert why(subject.history) == "open: 5 × connection_refused 10.0.0.7:8080"
    assert subject.history[-1].causes[0].detail == "connect: refused"
    start(subject, 6.0).judge(refused, 6.0, Cause(b"t", b"s", b"r"))
    assert why(subject.history) == "open: 5 × connection_refused 10.0.0.7:8080; last probe: the same"
    due = subject.numbers(6.0).next_probe_at or 0.0
    start(subject, due).judge(Outcome(Kind.ANSWERED, 503), due, Cause(b"t", b"s", b"r"))
    assert why(subject.history).endswith("; last probe: 503 10.0.0.7:8080")
    due = subject.numbers(due).next_probe_at or 0.0
    run(subject, GOOD, due, 0.0)
    assert why(subject.history) == ""


def test_candidate_hears_every_moment() -> None:
    subject = breaker(candidate=CandidatePolicy(slow_call_seconds=1.0, minimum_calls=1))
    permit = start(subject, 0.0)
    assert permit.next_look == 1.0
    permit.look(1.0)
    assert subject.candidate is not None
    assert subject.candidate.state is State.OPEN
    assert subject.state is State.CLOSED


def test_door_beside_a_candidate_with_slow_calls_says_when_to_look() -> None:
    subject = breaker(candidate=CandidatePolicy(slow_call_seconds=1.0))
    door = subject.admit(0.0)
    assert isinstance(door, Door)
    assert door.next_look(3.0) == 4.0


def test_count_window_keeps_the_probe_that_closed_on_trial_until_it_is_full() -> None:
    subject = breaker(window=WindowPolicy(WindowType.COUNT, 3), consecutive_failures=1)
    run(subject, BAD, 0.0, 0.0)
    probe = sent(subject.admit(5.0), 5.0)
    probe.head(200, 5.0)
    probe.look(6.0)
    for _ in range(3):
        run(subject, GOOD, 7.0)
    assert probe.judge(RESET, 8.0) is None
