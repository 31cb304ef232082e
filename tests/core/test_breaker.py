"""The breaker's rules one at a time, 1 ms either side of each boundary."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.breaker import Breaker, Override
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.history import CAUSES, HISTORY, ID_BYTES, KEPT_CAUSES
from sidecar.core.outcome import Kind, Outcome, Verdict
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, WindowPolicy, WindowType
from sidecar.core.transition import Cause, State, Transition, TransitionReason, WindowNumbers
from tests.core.breaker_calls import call, sent, settle

OK, BAD, LIMITED, IGNORED = (
    Verdict.SUCCESS,
    Verdict.FAILURE,
    Verdict.RATE_ONLY_FAILURE,
    Verdict.IGNORED,
)
COUNT_100 = WindowPolicy(WindowType.COUNT, 100)
MS = 0.001


def breaker(rng: random.Random | None = None, **settings: Any) -> Breaker:
    return Breaker("checkout", "payments", BreakerPolicy(**settings), rng or random.Random(1), 0.0)


def calls(subject: Breaker, verdicts: list[Verdict], now: float) -> list[Transition | None]:
    return [call(subject, verdict, now) for verdict in verdicts]


def tripped(now: float = 0.0, **settings: Any) -> Breaker:
    """A breaker that opened at `now`."""
    subject = breaker(**settings)
    calls(subject, [BAD] * 5, now)
    assert subject.state is State.OPEN
    return subject


def half_open(**settings: Any) -> tuple[Breaker, BreakerPermit]:
    """A breaker that opened at 0 and its first probe, which was sent at 5 s."""
    subject = tripped(**settings)
    probe = sent(subject.admit(5.0), 5.0)
    assert probe.is_probe
    return subject, probe


# CLOSED → OPEN


def test_closed_breaker_admits_with_one_answer_for_all() -> None:
    subject = breaker()
    first, second = subject.admit(0.0), subject.admit(1.0)
    assert first is second
    assert (first.is_admitted, first.is_probe, first.state, first.generation) == (
        True,
        False,
        State.CLOSED,
        0,
    )
    assert first.transition is None
    assert first.refused_by is None


def test_consecutive_failures_open_at_their_number_and_not_before() -> None:
    subject = breaker()
    assert calls(subject, [BAD] * 4, 1.0) == [None] * 4
    transition = call(subject, BAD, 1.5)
    assert transition == Transition(
        sequence=1,
        route="checkout",
        upstream="payments",
        from_state=State.CLOSED,
        to_state=State.OPEN,
        reason=TransitionReason.CONSECUTIVE_FAILURES,
        at=1.5,
        window=WindowNumbers(total=5, failed=5, slow=0, consecutive_failures=5),
        wait_seconds=5.0,
        outage=1.5,
    )


def test_success_ends_a_row_of_failures() -> None:
    subject = breaker(minimum_calls=100)
    calls(subject, [BAD] * 4 + [OK] + [BAD] * 4, 1.0)
    assert subject.state is State.CLOSED
    assert call(subject, BAD, 1.0) is not None


def test_row_of_failures_has_no_age() -> None:
    subject = breaker()
    for hour in range(5):
        call(subject, BAD, hour * 3600.0)
    assert subject.state is State.OPEN


def test_consecutive_failures_of_zero_is_off() -> None:
    subject = breaker(consecutive_failures=0, minimum_calls=1000)
    calls(subject, [BAD] * 999, 1.0)
    assert subject.state is State.CLOSED


def test_429_neither_adds_to_the_row_of_failures_nor_ends_it() -> None:
    subject = breaker(minimum_calls=100)
    calls(subject, [LIMITED] * 10 + [BAD] * 4 + [LIMITED] * 10, 1.0)
    assert subject.state is State.CLOSED
    transition = call(subject, BAD, 1.0)
    assert transition is not None
    assert transition.reason is TransitionReason.CONSECUTIVE_FAILURES
    assert transition.window == WindowNumbers(total=25, failed=25, consecutive_failures=5)


def test_429_counts_in_the_failure_rate() -> None:
    subject = breaker()
    calls(subject, [OK] * 10 + [LIMITED] * 9, 1.0)
    assert subject.state is State.CLOSED
    transition = call(subject, LIMITED, 1.0)
    assert transition is not None
    assert transition.reason is TransitionReason.FAILURE_RATE


def test_ignored_is_not_in_the_window_and_does_not_end_a_row() -> None:
    subject = breaker()
    calls(subject, [BAD] * 4 + [IGNORED] * 50, 1.0)
    assert subject.numbers(1.0).window == WindowNumbers(total=4, failed=4, consecutive_failures=4)
    assert call(subject, BAD, 1.0) is not None


@pytest.mark.parametrize(("failures", "trips"), [(9, False), (10, True)])
def test_failure_rate_opens_at_its_threshold(failures: int, trips: bool) -> None:
    subject = breaker(consecutive_failures=0)
    calls(subject, [OK] * (20 - failures) + [BAD] * failures, 1.0)
    assert (subject.state is State.OPEN) is trips


def test_rate_waits_for_minimum_calls_and_a_success_may_complete_them() -> None:
    subject = breaker(consecutive_failures=0)
    calls(subject, [BAD] * 10 + [OK] * 9, 1.0)
    assert subject.state is State.CLOSED
    transition = call(subject, OK, 1.0)
    assert transition is not None
    assert transition.reason is TransitionReason.FAILURE_RATE
    assert transition.window == WindowNumbers(total=20, failed=10)


def test_seven_of_a_hundred_reach_seven_percent() -> None:
    subject = breaker(
        consecutive_failures=0, failure_rate_threshold=0.07, window=COUNT_100, minimum_calls=100
    )
    calls(subject, [OK] * 93 + [BAD] * 7, 1.0)
    assert subject.state is State.OPEN


def test_minimum_calls_beyond_a_count_window_means_its_size() -> None:
    subject = breaker(consecutive_failures=0, window=WindowPolicy(WindowType.COUNT, 10), minimum_calls=50)
    calls(subject, [BAD] * 10, 1.0)
    assert subject.state is State.OPEN


def test_failures_that_left_the_window_do_not_count() -> None:
    subject = breaker(consecutive_failures=0)
    calls(subject, [BAD] * 19, 0.0)
    assert call(subject, BAD, 10.0) is None
    subject = breaker(consecutive_failures=0)
    calls(subject, [BAD] * 19, 0.0)
    assert call(subject, BAD, 10.0 - MS) is not None


@pytest.mark.parametrize(("seconds", "is_slow"), [(1.0 - MS, False), (1.0, True), (1.0 + MS, True)])
def test_call_is_slow_from_the_threshold_on(seconds: float, is_slow: bool) -> None:
    subject = breaker(slow_call_seconds=1.0)
    call(subject, OK, 1.0, seconds)
    assert subject.numbers(1.0).slow == is_slow
    assert subject.numbers(1.0).window.slow == is_slow


@pytest.mark.parametrize(("slow", "trips"), [(15, False), (16, True)])
def test_slow_call_rate_opens_at_its_threshold(slow: int, trips: bool) -> None:
    subject = breaker(slow_call_seconds=1.0)
    for number in range(20):
        call(subject, OK, 1.0, 2.0 if number < slow else 0.1)
    assert (subject.state is State.OPEN) is trips
    if trips:
        assert subject.history[-1].reason is TransitionReason.SLOW_CALL_RATE


# OPEN


def test_open_rejects_until_the_wait_is_over_to_the_millisecond() -> None:
    subject = tripped()
    refusal = subject.admit(5.0 - MS)
    assert not refusal.is_admitted
    assert refusal.state is State.OPEN
    assert refusal.retry_after_seconds == pytest.approx(MS)
    assert refusal.refused_by is subject.history[-1]
    probe = subject.admit(5.0)
    assert (probe.is_admitted, probe.is_probe, probe.state) == (True, True, State.HALF_OPEN)
    assert probe.transition is subject.history[-1]
    assert probe.transition.reason is TransitionReason.WAIT_ELAPSED


def test_open_does_not_become_half_open_without_a_request() -> None:
    subject = tripped()
    assert subject.tick(1000.0) is None
    assert subject.state is State.OPEN
    assert subject.numbers(1000.0).next_probe_at == 5.0


# HALF_OPEN


def test_half_open_rejects_beyond_max_calls() -> None:
    subject, first = half_open(half_open_max_calls=2)
    second, third = subject.admit(5.0), subject.admit(5.0)
    assert second.is_probe
    assert not third.is_admitted
    assert third.retry_after_seconds == 1.0
    assert third.refused_by is subject.history[0]
    settle(first, IGNORED, 0.1, 5.1)
    assert subject.admit(5.1).is_probe
    assert not subject.admit(5.1).is_admitted


def test_cancelled_probe_gives_its_permit_back() -> None:
    subject, probe = half_open()
    assert subject.numbers(5.0).probes_in_flight == 1
    assert settle(probe, IGNORED, 0.1, 5.1) is None
    assert subject.numbers(5.1).probes_in_flight == 0
    assert subject.admit(5.1).is_probe


def test_permit_given_back_twice_is_one_permit() -> None:
    subject, probe = half_open()
    settle(probe, IGNORED, 0.1, 5.1)
    second = subject.admit(5.1)
    settle(probe, IGNORED, 0.1, 5.2)
    assert second.is_probe
    assert not subject.admit(5.2).is_admitted


def test_good_probes_close_at_their_number() -> None:
    subject, probe = half_open(half_open_successes=3)
    cause = Cause(b"t", b"s", b"r", status=200)
    assert settle(probe, OK, 0.1, 5.1, cause) is None
    assert call(subject, OK, 5.2) is None
    transition = call(subject, OK, 5.3)
    assert transition is not None
    assert (transition.to_state, transition.reason) == (State.CLOSED, TransitionReason.PROBE_SUCCEEDED)
    assert transition.window == WindowNumbers(total=3)
    assert transition.causes == (replace(cause, at=5.1),)
    assert subject.numbers(5.3).window == WindowNumbers()


def test_one_failed_probe_opens_again_with_the_doubled_wait() -> None:
    subject, probe = half_open(half_open_successes=3)
    settle(probe, OK, 0.1, 5.1)
    transition = call(subject, BAD, 5.2)
    assert transition is not None
    assert transition.reason is TransitionReason.PROBE_FAILED
    assert transition.window == WindowNumbers(total=2, failed=1, consecutive_failures=1)
    assert transition.wait_seconds is not None
    assert 10.0 <= transition.wait_seconds <= 11.0


def test_waits_double_with_jitter_up_to_the_maximum() -> None:
    subject = tripped()
    waits = [5.0]
    for _ in range(8):
        now = subject.numbers(0.0).next_probe_at
        assert now is not None
        transition = call(subject, BAD, now)
        assert transition is not None
        assert transition.wait_seconds is not None
        waits.append(transition.wait_seconds)
    for wait, nominal in zip(waits, [5, 10, 20, 40, 60, 60, 60, 60, 60], strict=True):
        low, high = (54, 60) if nominal == 60 else (nominal, nominal * 1.1)
        assert low <= wait <= high
    assert len(set(waits)) == len(waits)


@pytest.mark.parametrize(("closed_for", "low", "high"), [(10.0 - MS, 20.0, 22.0), (11.0, 5.0, 5.0)])
def test_wait_begins_anew_once_it_stayed_closed_for_as_long_as_it_waited(
    closed_for: float, low: float, high: float
) -> None:
    subject, probe = half_open()
    transition = settle(probe, BAD, 0.1, 5.0)
    assert transition is not None
    assert 10.0 <= (transition.wait_seconds or 0.0) <= 11.0
    call(subject, OK, 100.0)
    assert subject.state is State.CLOSED
    calls(subject, [BAD] * 5, 100.0 + closed_for)
    wait = subject.history[-1].wait_seconds
    assert wait is not None
    assert low <= wait <= high


def test_no_verdict_within_max_wait_opens_again() -> None:
    subject, _ = half_open()
    assert subject.tick(15.0 - MS) is None
    transition = subject.tick(15.0)
    assert transition is not None
    assert transition.reason is TransitionReason.PROBE_TIMEOUT
    assert transition.wait_seconds is not None
    assert 10.0 <= transition.wait_seconds <= 11.0


def test_request_sees_the_probe_timeout_too_and_is_refused() -> None:
    subject, _ = half_open()
    refusal = subject.admit(15.0)
    assert not refusal.is_admitted
    assert refusal.transition is not None
    assert refusal.transition.reason is TransitionReason.PROBE_TIMEOUT
    assert refusal.refused_by is refusal.transition


def test_each_verdict_starts_max_wait_again() -> None:
    subject, _hung = half_open(half_open_max_calls=2, half_open_successes=5)
    call(subject, OK, 14.0)
    assert subject.tick(24.0 - MS) is None
    assert subject.tick(24.0) is not None


def test_half_open_without_a_probe_in_flight_never_times_out() -> None:
    subject, probe = half_open(half_open_successes=2)
    settle(probe, OK, 0.1, 5.1)
    assert subject.tick(10_000.0) is None
    assert call(subject, OK, 10_000.0) is not None
    assert subject.state is State.CLOSED


def test_max_wait_doubles_so_that_an_upstream_slower_than_it_can_close() -> None:
    subject = tripped(half_open_max_wait_seconds=1.0)
    now = 0.0
    for _ in range(10):
        now = subject.numbers(now).next_probe_at or now
        probe = subject.admit(now)
        for _ in range(6):
            now += 1.0
            subject.tick(now)
        settle(probe, OK, 6.0, now)
        if subject.state is State.CLOSED:
            break
    assert subject.state is State.CLOSED


def test_429_probe_gives_its_permit_back_and_decides_nothing() -> None:
    subject, probe = half_open()
    assert settle(probe, LIMITED, 0.1, 5.1) is None
    assert subject.state is State.HALF_OPEN
    assert call(subject, OK, 5.2) is not None
    assert subject.state is State.CLOSED


def test_good_but_slow_probe_keeps_it_half_open_until_so_many_are_slow_as_would_open_it() -> None:
    subject, probe = half_open(slow_call_seconds=1.0, minimum_calls=6)
    assert settle(probe, OK, 1.0, 6.0) is None
    assert [call(subject, OK, 7.0, 1.0) for _ in range(4)] == [None] * 4
    assert subject.state is State.HALF_OPEN
    transition = call(subject, OK, 8.0, 1.0)
    assert transition is not None
    assert transition.reason is TransitionReason.PROBE_FAILED
    assert transition.window == WindowNumbers(total=6, slow=6)


def test_slow_probe_among_many_good_ones_does_not_open_again() -> None:
    subject, probe = half_open(slow_call_seconds=1.0, half_open_successes=4)
    assert settle(probe, OK, 1.0, 6.0) is None
    for _ in range(3):
        assert call(subject, OK, 6.0) is None
    transition = call(subject, OK, 6.0)
    assert transition is not None
    assert transition.reason is TransitionReason.PROBE_SUCCEEDED


def test_limit_of_no_probes_still_lets_one_go() -> None:
    subject, probe = half_open(half_open_max_calls=0, half_open_successes=0)
    settle(probe, OK, 0.1, 5.1)
    assert subject.state is State.CLOSED


# Generations


@pytest.mark.parametrize("verdict", [OK, BAD, LIMITED, IGNORED])
def test_outcome_of_an_earlier_generation_changes_nothing_but_the_counters(verdict: Verdict) -> None:
    subject = breaker(half_open_max_calls=2)
    straggler = subject.admit(0.0)
    calls(subject, [BAD] * 5, 0.0)
    probe = subject.admit(5.0)
    before = subject.numbers(5.0)
    assert settle(straggler, verdict, 9.0, 5.0) is None
    after = subject.numbers(5.0)
    assert (after.state, after.generation, after.window) == (before.state, before.generation, before.window)
    assert after.probes_in_flight == 1
    assert after.in_flight == before.in_flight - 1
    assert settle(probe, OK, 0.1, 5.1) is not None


def test_straggling_probe_of_an_earlier_half_open_is_no_probe_now() -> None:
    subject, straggler = half_open()
    subject.tick(15.0)
    now = subject.numbers(15.0).next_probe_at or 0.0
    subject.admit(now)
    assert settle(straggler, OK, 0.1, now) is None
    assert subject.state is State.HALF_OPEN
    assert subject.numbers(now).probes_in_flight == 1


# Ramp


def test_ramp_admits_a_share_that_grows_from_a_tenth() -> None:
    shares = {}
    for second in (0.0, 2.5, 5.0, 7.5, 10.0 - MS):
        subject, probe = half_open(ramp_seconds=10.0, rng=random.Random(7))
        settle(probe, OK, 0.1, 6.0)
        assert subject.numbers(6.0 + second).ramp_share == pytest.approx(0.1 + 0.09 * second)
        shares[second] = sum(subject.admit(6.0 + second).is_admitted for _ in range(4000)) / 4000
    assert shares[0.0] == pytest.approx(0.1, abs=0.02)
    assert shares[2.5] == pytest.approx(0.325, abs=0.03)
    assert shares[5.0] == pytest.approx(0.55, abs=0.03)
    assert shares[7.5] == pytest.approx(0.775, abs=0.03)
    assert shares[10.0 - MS] > 0.99


def test_ramp_is_told_in_the_state_and_in_a_refusal() -> None:
    subject, probe = half_open(ramp_seconds=10.0)
    settle(probe, OK, 0.1, 6.0)
    assert subject.numbers(8.5).told == "closed, ramping 32 %"
    refusals = [one for one in (subject.admit(8.5) for _ in range(50)) if isinstance(one, BreakerRefusal)]
    assert {one.told for one in refusals} == {"closed, ramping 32 %"}
    assert subject.numbers(16.0).told == "closed"


def test_ramp_is_the_same_for_the_same_random_generator() -> None:
    def admitted(seed: int) -> list[bool]:
        subject, probe = half_open(ramp_seconds=10.0, rng=random.Random(seed))
        settle(probe, OK, 0.1, 6.0)
        return [subject.admit(6.0 + step / 10).is_admitted for step in range(100)]

    assert admitted(3) == admitted(3)
    assert admitted(3) != admitted(4)


def test_ramp_refusal_names_what_opened_the_breaker_and_its_end_brings_the_fast_answer_back() -> None:
    subject, probe = half_open(ramp_seconds=10.0)
    settle(probe, OK, 0.1, 6.0)
    refusal = subject.admit(6.0)
    assert (refusal.is_admitted, refusal.state, refusal.refused_by) == (
        False,
        State.CLOSED,
        subject.history[0],
    )
    assert subject.admit(16.0).is_admitted
    assert subject.admit(16.0) is subject.admit(16.0)


@pytest.mark.parametrize(("at", "low", "high"), [(16.0 - MS, 10.0, 11.0), (16.0, 5.0, 5.0)])
def test_trip_while_ramping_opens_with_the_doubled_wait(at: float, low: float, high: float) -> None:
    subject, probe = half_open(ramp_seconds=10.0)
    settle(probe, OK, 0.1, 6.0)
    admissions = []
    while len(admissions) < 5:
        admission = subject.admit(15.9)
        if admission.is_admitted:
            admissions.append(admission)
    for admission in admissions:
        settle(admission, BAD, 0.1, at)
    wait = subject.history[-1].wait_seconds
    assert wait is not None
    assert low <= wait <= high


# Modes


def test_metrics_only_admits_everything_and_counts_what_it_would_have_refused() -> None:
    subject = tripped(mode=BreakerMode.METRICS_ONLY)
    waved = [subject.admit(1.0) for _ in range(4)]
    assert all(a.is_admitted and a.is_waved_through and a.state is State.OPEN for a in waved)
    for admission, verdict in zip(waved, [OK, OK, BAD, IGNORED], strict=True):
        assert settle(admission, verdict, 0.1, 1.1) is None
    numbers = subject.numbers(2.0)
    assert (numbers.rejected, numbers.would_have_rejected) == (0, 4)
    assert (numbers.would_have_been_fine, numbers.failures_saved) == (2, 1)
    assert subject.admit(5.0).is_probe


def test_disabled_counts_and_does_nothing_else() -> None:
    subject = breaker(mode=BreakerMode.DISABLED)
    assert calls(subject, [BAD] * 50 + [OK, IGNORED], 1.0) == [None] * 52
    numbers = subject.numbers(1.0)
    assert numbers.state is State.DISABLED
    assert (numbers.total, numbers.successful, numbers.failed, numbers.ignored) == (52, 1, 50, 1)
    assert numbers.window == WindowNumbers()
    assert subject.history == ()


def test_forced_open_refuses_everything_for_ever() -> None:
    subject = breaker(mode=BreakerMode.FORCED_OPEN)
    refusal = subject.admit(1e6)
    assert (refusal.is_admitted, refusal.state, refusal.refused_by) == (False, State.FORCED_OPEN, None)
    assert refusal.retry_after_seconds == 5.0
    assert subject.tick(1e9) is None


# Overrides


@pytest.mark.parametrize("mode", [BreakerMode.ENFORCE, BreakerMode.METRICS_ONLY, BreakerMode.DISABLED])
def test_override_open_refuses_in_every_mode_until_its_time(mode: BreakerMode) -> None:
    subject = breaker(mode=mode)
    transition = subject.override(Override.OPEN, 10.0, 60.0)
    assert transition is not None
    assert (transition.to_state, transition.reason) == (State.FORCED_OPEN, TransitionReason.FORCED)
    refusal = subject.admit(70.0 - MS)
    assert not refusal.is_admitted
    assert refusal.retry_after_seconds == pytest.approx(MS)
    assert refusal.refused_by is transition
    admission = subject.admit(70.0)
    assert admission.is_admitted
    assert admission.transition is not None
    assert admission.transition.reason is TransitionReason.FORCED
    assert subject.admit(70.0).transition is None


def test_override_close_admits_everything_whatever_happens() -> None:
    subject = tripped()
    assert subject.override(Override.CLOSE, 1.0) is not None
    assert subject.state is State.FORCED_CLOSED
    calls(subject, [BAD] * 100, 2.0)
    assert subject.state is State.FORCED_CLOSED
    transition = subject.override(Override.AUTO, 3.0)
    assert transition is not None
    assert (transition.to_state, transition.reason) == (State.CLOSED, TransitionReason.FORCED)


def test_override_ends_at_its_time_without_any_traffic() -> None:
    subject = breaker()
    subject.override(Override.CLOSE, 10.0, 60.0)
    assert subject.admit(70.0 - MS).state is State.FORCED_CLOSED
    assert subject.tick(70.0 - MS) is None
    assert subject.tick(70.0) is not None
    assert subject.state is State.CLOSED


@pytest.mark.parametrize("mode", list(BreakerMode))
def test_override_survives_a_reload_and_ends_in_the_new_mode(mode: BreakerMode) -> None:
    subject = breaker()
    subject.override(Override.OPEN, 10.0, 60.0)
    assert subject.reconfigure(BreakerPolicy(mode=mode), 20.0) == ()
    assert subject.state is State.FORCED_OPEN
    assert subject.numbers(20.0).override_until == 70.0
    subject.tick(70.0)
    resting = {BreakerMode.DISABLED: State.DISABLED, BreakerMode.FORCED_OPEN: State.FORCED_OPEN}
    assert subject.state is resting.get(mode, State.CLOSED)
    assert not subject.numbers(70.0).is_overridden


def test_second_override_replaces_the_first_and_its_time() -> None:
    subject = breaker()
    subject.override(Override.OPEN, 10.0, 60.0)
    assert subject.override(Override.OPEN, 20.0, 100.0) is None
    assert subject.tick(119.0) is None
    assert subject.override(Override.CLOSE, 119.0) is not None
    assert subject.tick(1e9) is None
    assert subject.state is State.FORCED_CLOSED


def test_auto_without_an_override_does_nothing() -> None:
    subject = tripped()
    assert subject.override(Override.AUTO, 1.0) is None
    assert subject.state is State.OPEN


def test_override_without_time_is_refused() -> None:
    with pytest.raises(ValueError, match="give a time above zero"):
        breaker().override(Override.OPEN, 1.0, 0.0)


# Reload


def test_new_thresholds_keep_state_generation_window_and_probes() -> None:
    subject = breaker()
    calls(subject, [BAD] * 3, 1.0)
    assert subject.reconfigure(BreakerPolicy(consecutive_failures=4, ramp_seconds=9.0), 2.0) == ()
    assert subject.numbers(2.0).window == WindowNumbers(total=3, failed=3, consecutive_failures=3)
    assert call(subject, BAD, 2.0) is not None
    probe = subject.admit(7.0)
    subject.reconfigure(BreakerPolicy(half_open_max_calls=1, half_open_successes=1), 7.0)
    assert not subject.admit(7.0).is_admitted
    assert settle(probe, OK, 0.1, 7.1) is not None


def test_new_window_starts_empty_and_keeps_the_row() -> None:
    subject = breaker()
    calls(subject, [BAD] * 3, 1.0)
    subject.reconfigure(BreakerPolicy(window=COUNT_100), 2.0)
    assert subject.numbers(2.0).window == WindowNumbers(consecutive_failures=3)


def test_bad_window_in_a_reload_changes_nothing() -> None:
    subject = breaker()
    policy = subject.policy
    with pytest.raises(ValueError, match="calls"):
        subject.reconfigure(BreakerPolicy(window=WindowPolicy(WindowType.COUNT, 0)), 1.0)
    assert subject.policy is policy


@pytest.mark.parametrize(
    ("mode", "state"),
    [(BreakerMode.FORCED_OPEN, State.FORCED_OPEN), (BreakerMode.DISABLED, State.DISABLED)],
)
def test_new_mode_shows_as_a_transition_by_reload(mode: BreakerMode, state: State) -> None:
    subject = tripped()
    (there,) = subject.reconfigure(BreakerPolicy(mode=mode), 1.0)
    assert (there.from_state, there.to_state, there.reason) == (State.OPEN, state, TransitionReason.RELOAD)
    (back,) = subject.reconfigure(BreakerPolicy(), 2.0)
    assert (back.from_state, back.to_state, back.reason) == (state, State.CLOSED, TransitionReason.RELOAD)


def test_reload_between_enforce_and_metrics_only_keeps_the_state() -> None:
    subject = tripped()
    assert subject.reconfigure(BreakerPolicy(mode=BreakerMode.METRICS_ONLY), 1.0) == ()
    assert subject.admit(1.0).is_waved_through
    assert subject.reconfigure(BreakerPolicy(), 1.0) == ()
    assert not subject.admit(1.0).is_admitted


def test_changed_open_for_acts_on_a_wait_that_is_on() -> None:
    subject = tripped(open_seconds=60.0)
    subject.reconfigure(BreakerPolicy(open_seconds=2.0), 1.0)
    assert not subject.admit(2.0 - MS).is_admitted
    assert subject.admit(2.0).is_probe
    subject = tripped(open_seconds=2.0)
    subject.reconfigure(BreakerPolicy(open_seconds=60.0), 1.0)
    assert not subject.admit(60.0 - MS).is_admitted
    assert subject.admit(60.0).is_probe


def test_shorter_max_open_for_cuts_a_doubled_wait_that_is_on() -> None:
    subject, probe = half_open()
    settle(probe, BAD, 0.1, 5.0)
    subject.reconfigure(BreakerPolicy(open_seconds=5.0, max_open_seconds=6.0), 6.0)
    due = subject.numbers(6.0).next_probe_at
    assert due is not None
    assert 5.0 + 5.4 <= due <= 5.0 + 6.0


def test_reload_reports_what_was_due_before_its_own_change() -> None:
    subject, _hung = half_open()
    due, own = subject.reconfigure(BreakerPolicy(mode=BreakerMode.DISABLED), 15.0)
    assert (due.reason, own.reason) == (TransitionReason.PROBE_TIMEOUT, TransitionReason.RELOAD)
    assert (due.sequence, own.sequence) == (3, 4)


def test_longer_ramp_in_a_reload_does_not_bring_an_ended_ramp_back() -> None:
    subject, probe = half_open(ramp_seconds=10.0)
    settle(probe, OK, 0.1, 6.0)
    subject.reconfigure(replace(subject.policy, ramp_seconds=1000.0), 16.0)
    assert all(subject.admit(16.0).is_admitted for _ in range(100))


# Records


def test_transition_names_the_last_causes_that_its_trigger_counted() -> None:
    subject = breaker(minimum_calls=100)
    for number in range(10):
        call(subject, BAD, 1.0, cause=Cause(b"t", b"old", b"%d" % number))
        call(subject, OK, 1.0, cause=Cause(b"t", b"good", b""))
    now = 100.0
    for number in range(5):
        call(subject, BAD, now, cause=Cause(b"trace", b"span", b"request %d" % number))
    transition = subject.history[-1]
    assert transition.causes == tuple(
        Cause(b"trace", b"span", b"request %d" % n, "500", 500, at=now) for n in range(5)
    )


def test_causes_are_at_most_32_and_their_request_ids_bounded() -> None:
    subject = breaker(consecutive_failures=50, minimum_calls=100)
    for _ in range(50):
        call(subject, BAD, 1.0, cause=Cause(b"t", b"s", b"r" * 10_000))
    causes = subject.history[-1].causes
    assert len(causes) == CAUSES
    assert {len(cause.request_id) for cause in causes} == {ID_BYTES}


def test_history_is_gapless_and_bounded_and_sheds_old_causes() -> None:
    subject = breaker(consecutive_failures=1)
    now = 0.0
    for _ in range(150):
        now += 1000.0
        call(subject, BAD, now, cause=Cause(b"t", b"s", b"r"))
        call(subject, OK, now + 100.0, cause=Cause(b"t", b"s", b"r"))
    history = subject.history
    assert len(history) == HISTORY
    assert [t.sequence for t in history] == list(range(450 - HISTORY + 1, 451))
    by_outcome = [t for t in history if t.reason is not TransitionReason.WAIT_ELAPSED]
    assert all(t.causes for t in by_outcome)
    assert all(len(t.causes) == KEPT_CAUSES for t in by_outcome if t not in history[-CAUSES:])


def test_numbers_tell_times_counters_and_the_success_rate() -> None:
    subject = breaker()
    assert subject.numbers(0.0).success_rate is None
    admission = subject.admit(1.0)
    settle(admission, Outcome(Kind.TIMED_OUT), 0.1, 1.0)
    calls(subject, [OK] * 15 + [BAD] * 5, 2.0)
    subject.admit(3.0)
    pending = subject.admit(7.0)
    numbers = subject.numbers(7.0)
    assert (numbers.total, numbers.rejected, numbers.in_flight, numbers.timed_out) == (23, 1, 1, 1)
    assert (numbers.successful, numbers.failed, numbers.success_rate) == (15, 5, 0.75)
    assert (numbers.last_failure_at, numbers.last_transition_at, numbers.next_probe_at) == (2.0, 7.0, None)
    assert (numbers.transitions, numbers.generation) == (2, 2)
    settle(pending, OK, 0.1, 7.1)
    assert subject.numbers(7.1).in_flight == 0


def test_repr_is_the_operators_view() -> None:
    subject = breaker()
    calls(subject, [OK, BAD, BAD], 1.0)
    assert repr(subject) == (
        "<Breaker checkout/payments CLOSED enforce, 2 failed and 0 slow of 3,"
        " 2 in a row, 0 probes, generation 0>"
    )


def test_change_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(AssertionError, match="no edge from CLOSED to HALF_OPEN for wait_elapsed"):
        breaker().machine.enter(State.HALF_OPEN, TransitionReason.WAIT_ELAPSED, 1.0)


def test_changes_of_one_outage_say_when_it_began_and_how_many_were_refused() -> None:
    subject, probe = half_open()
    settle(probe, BAD, 0.1, 6.0)
    assert not subject.admit(7.0).is_admitted
    subject.override(Override.OPEN, 8.0)
    assert not subject.admit(9.0).is_admitted
    subject.override(Override.CLOSE, 10.0)
    subject.override(Override.AUTO, 11.0)
    calls(subject, [BAD] * 5, 20.0)
    assert [(one.to_state, one.outage, one.rejected) for one in subject.history] == [
        (State.OPEN, 0.0, 0),
        (State.HALF_OPEN, 0.0, 0),
        (State.OPEN, 0.0, 0),
        (State.FORCED_OPEN, 0.0, 1),
        (State.FORCED_CLOSED, 0.0, 2),
        (State.CLOSED, None, 2),
        (State.OPEN, 20.0, 2),
    ]


def test_what_an_operator_alone_has_opened_is_no_outage() -> None:
    subject = breaker()
    subject.override(Override.OPEN, 1.0)
    subject.override(Override.AUTO, 2.0)
    assert [one.outage for one in subject.history] == [None, None]
