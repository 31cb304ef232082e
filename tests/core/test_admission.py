"""The estimate of how long an attempt takes, and how much may be refused by it."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.admission import HALF_LIFE_SECONDS, MIN_SAMPLES, BudgetAdmission, Quantiles
from sidecar.core.snapshot import AdmissionPolicy, Mode

TOLERANCE = 1 / 32 + 1e-9


def filled(durations: list[float], now: float = 0.0) -> Quantiles:
    quantiles = Quantiles(0.0)
    for one in durations:
        quantiles.record(one, now)
    return quantiles


@given(st.lists(st.floats(0.0001, 1000.0), min_size=MIN_SAMPLES, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_within_a_bucket_of_the_exact_one(durations: list[float], share: float) -> None:
    found = filled(durations).quantile(share, 0.0)

    ordered = sorted(durations)
    exact = ordered[max(-int(-share * len(ordered) // 1) - 1, 0)]
    assert found == pytest.approx(exact, rel=TOLERANCE)


def test_nineteen_samples_say_nothing_and_twenty_do() -> None:
    quantiles = filled([0.1] * (MIN_SAMPLES - 1))
    assert quantiles.quantile(0.5, 0.0) is None

    quantiles.record(0.1, 0.0)
    assert quantiles.quantile(0.5, 0.0) == pytest.approx(0.1, rel=TOLERANCE)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 61e-6])
def test_the_shortest_share_one_bucket(seconds: float) -> None:
    assert filled([seconds] * 20).quantile(0.5, 0.0) == pytest.approx(2.0**-14, rel=0.04)


def test_the_longest_share_one_bucket() -> None:
    assert filled([1e9] * 20).quantile(0.5, 0.0) == pytest.approx(2.0**13, rel=0.04)


def test_old_samples_fade_at_their_half_life() -> None:
    quantiles = filled([1.0] * 40)
    just_before = HALF_LIFE_SECONDS - 0.001

    assert quantiles.quantile(0.5, just_before) is not None
    assert quantiles.quantile(0.5, HALF_LIFE_SECONDS) is not None  # 20 are left
    assert quantiles.quantile(0.5, 2 * HALF_LIFE_SECONDS) is None  # 10 are left


def test_a_change_of_speed_is_followed() -> None:
    quantiles = filled([1.0] * 1000)
    for step in range(10):
        for _ in range(100):
            quantiles.record(0.1, step * HALF_LIFE_SECONDS)

    assert quantiles.quantile(0.5, 9 * HALF_LIFE_SECONDS) == pytest.approx(0.1, rel=TOLERANCE)


def test_a_figure_is_at_most_32_records_old() -> None:
    quantiles = filled([1.0] * 20)
    assert quantiles.quantile(0.5, 0.0) == pytest.approx(1.0, rel=TOLERANCE)

    for _ in range(32):
        quantiles.record(0.1, 0.0)

    assert quantiles.quantile(0.5, 0.0) == pytest.approx(0.1, rel=TOLERANCE)


def test_a_long_silence_costs_one_pass() -> None:
    quantiles = filled([1.0] * 100)
    quantiles.record(1.0, 1e12)

    assert quantiles.quantile(0.5, 1e12) is None
    for _ in range(20):
        quantiles.record(2.0, 1e12)
    assert quantiles.quantile(0.5, 1e12) == pytest.approx(2.0, rel=TOLERANCE)


def test_memory_is_bounded() -> None:
    values = random.Random(1)
    tracemalloc.start()
    try:
        quantiles = Quantiles(0.0)
        for n in range(20_000):
            quantiles.record(values.random() ** 4 * 100, n / 100)
        own = tracemalloc.Filter(inclusive=True, filename_pattern="*/core/*")
        traces = tracemalloc.take_snapshot().filter_traces([own]).traces
        used = sum(trace.size for trace in traces)
    finally:
        tracemalloc.stop()
    assert used < 17 * 1024


def admission(**policy: object) -> BudgetAdmission:
    """One that has seen a hundred attempts of 1 s."""
    made = BudgetAdmission(AdmissionPolicy(**({"mode": Mode.ENFORCE} | policy)), 0.0)  # type: ignore[arg-type]
    for _ in range(100):
        made.record(1.0, 0.0)
    return made


@pytest.mark.parametrize("min_budget", [1.0, "p50", "p95"])
def test_a_budget_just_below_the_minimum_is_refused_and_at_it_not(min_budget: float | str) -> None:
    made = admission(min_budget=min_budget, max_reject_ratio=1.0)
    needed = made.min_budget_seconds(0.0)
    assert needed is not None

    assert made.should_refuse(needed - 0.001, 0.0)
    assert not made.should_refuse(needed, 0.0)
    assert not made.should_refuse(needed + 0.001, 0.0)
    assert (made.refused, made.would_refuse) == (1, 0)


def test_without_enough_samples_everything_is_admitted() -> None:
    made = BudgetAdmission(AdmissionPolicy(mode=Mode.ENFORCE), 0.0)

    assert not any(made.should_refuse(0.0, 0.0) for _ in range(100))
    assert (made.refused, made.would_refuse) == (0, 0)


def test_observe_counts_and_refuses_nothing() -> None:
    made = admission(mode=Mode.OBSERVE)

    assert not any(made.should_refuse(0.1, 0.0) for _ in range(50))
    assert (made.refused, made.would_refuse) == (0, 50)


def test_off_does_not_even_count() -> None:
    made = admission(mode=Mode.OFF)

    assert not made.should_refuse(0.0, 0.0)
    assert (made.refused, made.would_refuse) == (0, 0)


def test_every_fifth_is_refused_at_a_ratio_of_a_fifth() -> None:
    made = admission(max_reject_ratio=0.2)

    assert [made.should_refuse(0.1, 0.0) for _ in range(15)] == [False, False, False, False, True] * 3
    assert (made.refused, made.would_refuse) == (3, 12)


@pytest.mark.parametrize(("ratio", "refused"), [(0.0, 0), (1.0, 100)])
def test_the_ends_of_the_ratio(ratio: float, refused: int) -> None:
    made = admission(max_reject_ratio=ratio)

    assert sum(made.should_refuse(0.1, 0.0) for _ in range(100)) == refused


@given(st.lists(st.booleans(), max_size=300), st.floats(0.0, 1.0))
def test_no_stretch_refuses_more_than_the_ratio_and_ten(is_small: list[bool], ratio: float) -> None:
    made = admission(max_reject_ratio=ratio)

    refused = [made.should_refuse(0.1 if small else 9.0, 0.0) for small in is_small]

    assert not any(was and not small for was, small in zip(refused, is_small, strict=True))
    excess = worst = 0.0
    for was in refused:
        excess = max(excess, 0.0) + was - ratio
        worst = max(worst, excess)
    assert worst <= BudgetAdmission.MAX_CREDIT + 1e-6
    assert sum(refused) <= ratio * len(refused) + 1e-6


def test_a_faster_upstream_is_noticed_while_refusing() -> None:
    made = admission(max_reject_ratio=0.5)
    now = 0.0
    refused = []
    for n in range(3000):
        now = n / 10
        was = made.should_refuse(0.3, now)
        refused.append(was)
        if not was:
            made.record(0.1, now)

    assert any(refused[:20])
    assert not any(refused[-1000:])


def test_a_reload_keeps_what_was_learned() -> None:
    made = admission(min_budget=0.01)
    assert not made.should_refuse(0.1, 0.0)

    made.policy = AdmissionPolicy(mode=Mode.ENFORCE, min_budget="p50", max_reject_ratio=1.0)

    assert made.should_refuse(0.1, 0.0)
