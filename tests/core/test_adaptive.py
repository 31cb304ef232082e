"""A limit that follows the time of answers: its rules one by one, and before a model of an upstream."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.adaptive import (
    BLIND_SECONDS,
    LEAST,
    LEAST_A_SECOND,
    MIN_SAMPLES,
    REMEMBERED_SECONDS,
    RISE,
    TOLERANCE,
    WINDOW_SECONDS,
    AdaptiveLimit,
    LimitChange,
    LimitReason,
)

MOST = 1024
QUICK, SLOW = 0.05, 0.2
BUCKET = 1.05
"""What a median may be off, by its buckets."""


class Driven:
    """A limit with a clock, fed whole windows."""

    def __init__(self, most: int = MOST, *, is_observing: bool = False, seed: int = 7) -> None:
        self.now = 0.0
        self.limit = AdaptiveLimit(most, random.Random(seed), self.now, is_observing=is_observing)

    def window(self, seconds: float, in_flight: int, times: int = 1) -> int:
        """So many windows in which heads took that long, and at most `in_flight` were there. Returns the limit."""
        for _ in range(times):
            for wanted in range(in_flight):
                if self.limit.refuses(wanted, self.now):
                    break
            self.now += WINDOW_SECONDS * 1.25
            for _ in range(MIN_SAMPLES):
                self.limit.record(seconds, self.now)
        return self.limit.limit

    @property
    def base(self) -> float:
        assert self.limit.base_seconds is not None
        return self.limit.base_seconds


def test_nothing_is_refused_before_anything_is_known() -> None:
    limit = Driven(10).limit
    assert [limit.refuses(in_flight, 0.0) for in_flight in range(11)] == [False] * 10 + [True]
    assert (limit.refused, limit.would_refuse) == (1, 0)


def test_the_base_falls_at_once_and_rises_by_one_percent_a_window() -> None:
    driven = Driven()
    driven.window(SLOW, 8)
    assert driven.base == pytest.approx(SLOW, rel=0.05)
    driven.window(QUICK, 8)
    base = driven.base
    assert base == pytest.approx(QUICK, rel=0.05)
    for _ in range(60):
        driven.window(SLOW, 8)
        assert base <= driven.base <= base * RISE + 1e-12
        base = driven.base
    assert base > QUICK * RISE**50, "of ten windows and more, one that was low is under a tenth"
    driven.window(SLOW, 8, times=200)
    assert driven.base == pytest.approx(SLOW, rel=0.05), "what is slower for good is taken as it is"


def test_a_base_that_more_than_a_tenth_of_ten_minutes_bears_out_does_not_rise() -> None:
    driven = Driven()
    driven.window(QUICK, 8, times=20)
    driven.window(SLOW, 8, times=100)
    assert driven.base == pytest.approx(QUICK, rel=0.05)


def test_one_slow_window_cuts_nothing_and_two_do() -> None:
    driven = Driven()
    driven.window(QUICK, 100, times=1)
    driven.window(QUICK, 8, times=9)
    assert driven.window(SLOW, 100) == MOST
    assert driven.window(QUICK, 8) == MOST
    driven.window(SLOW, 100)
    limit = driven.window(SLOW, 100)
    assert limit == pytest.approx(100 * TOLERANCE * QUICK / SLOW, abs=4), (
        "of what was in flight, not of the limit"
    )


def test_no_limit_is_under_four_nor_under_twice_what_is_usually_in_flight() -> None:
    few = Driven()
    few.window(QUICK, 1, times=10)
    assert few.window(SLOW * 10, 2, times=10) == LEAST
    many = Driven()
    many.window(QUICK, 30, times=100)
    assert many.window(SLOW * 10, 60, times=10) == 60


def test_the_limit_grows_only_while_half_of_it_is_used() -> None:
    driven = Driven()
    driven.window(QUICK, 10, times=10)
    cut = driven.window(SLOW, 100, times=2)
    before = driven.window(QUICK, 1, times=3)  # those in flight become fewer
    assert cut <= before < cut + 15
    assert driven.window(QUICK, before // 2 - 1, times=20) == before
    assert driven.window(QUICK, before // 2 + 1) > before


def test_the_limit_grows_no_further_than_max_requests() -> None:
    driven = Driven(most=20)
    driven.window(QUICK, 4, times=10)
    assert driven.window(SLOW, 20, times=2) < 20
    assert driven.window(QUICK, 20, times=30) == 20


def test_observe_counts_and_refuses_nothing() -> None:
    driven = Driven(is_observing=True)
    driven.window(QUICK, 8, times=10)
    driven.window(SLOW, 100, times=3)
    limit = driven.limit
    assert limit.limit < 40
    before = limit.would_refuse
    assert not limit.refuses(limit.limit, driven.now)
    assert (limit.refused, limit.would_refuse) == (0, before + 1)


def test_too_few_answers_judge_nothing() -> None:
    driven = Driven()
    for _ in range(MIN_SAMPLES - 1):
        driven.now += WINDOW_SECONDS
        driven.limit.record(SLOW, driven.now)
    assert driven.limit.base_seconds is None


def test_windows_are_jittered_and_no_two_processes_judge_in_step() -> None:
    def ends(seed: int) -> list[float]:
        limit, now, found = AdaptiveLimit(MOST, random.Random(seed), 0.0, is_observing=False), 0.0, []
        while len(found) < 20:
            now += 0.001
            before = limit.base_seconds
            limit.record(1.0 / (len(found) + 1), now)  # each base is lower, so that one sees it
            if limit.base_seconds != before:
                found.append(now)
        return found

    one, other = ends(1), ends(2)
    lengths = [after - before for before, after in pairwise(one)]
    assert all(0.8 <= length <= 1.202 for length in lengths)
    assert max(lengths) - min(lengths) > 0.1
    assert one != other


def test_what_is_kept_is_bounded_by_time() -> None:
    driven = Driven()
    driven.window(QUICK, 8, times=1000)
    windows = driven.limit._windows
    assert windows[0].ended >= driven.now - REMEMBERED_SECONDS
    assert len(windows) <= REMEMBERED_SECONDS / WINDOW_SECONDS


def test_another_policy_keeps_what_was_learned() -> None:
    driven = Driven(is_observing=True)
    driven.window(QUICK, 8, times=10)
    base = driven.base
    driven.limit.adopt(12, driven.now, is_observing=False)
    assert (driven.limit.limit, driven.base) == (12, base)
    assert driven.limit.refuses(12, driven.now)


def test_a_limit_that_nothing_has_cut_goes_along_with_max_requests() -> None:
    driven = Driven(100)
    driven.window(QUICK, 8, times=10)
    driven.limit.adopt(400, driven.now, is_observing=False)
    assert driven.limit.limit == 400, "who raises it in an overload need not wait for windows"
    assert driven.limit.changed == LimitChange(driven.now, 100, LimitReason.RELOAD)
    driven.window(SLOW, 200, times=2)
    cut = driven.limit.limit
    driven.limit.adopt(500, driven.now, is_observing=False)
    assert driven.limit.limit == cut < 200


def test_each_change_has_its_reason() -> None:
    driven = Driven()
    limit, seen = driven.limit, []
    assert limit.changed == LimitChange(0.0, MOST, LimitReason.START)

    def window(seconds: float, in_flight: int, times: int = 1) -> None:
        before = limit.limit
        for _ in range(times):
            driven.window(seconds, in_flight)
            if limit.limit != before:
                assert (limit.changed.at, limit.changed.before) == (driven.now, before)
                seen.append(limit.changed.reason)
            before = limit.limit

    window(QUICK, 8, times=10)
    window(SLOW, 100, times=2)
    window(QUICK, 30)
    window(QUICK, limit.limit, times=10)
    assert seen[:2] == [LimitReason.IN_LINE, LimitReason.USED]
    seen.clear()
    while limit.limit >= limit.floor + 2:  # it is cut while few are usual, who then become more
        window(SLOW, limit.limit)
    window(SLOW, limit.limit, times=60)
    assert LimitReason.USUAL in seen


def test_what_takes_a_minute_each_is_not_held_at_the_floor_for_ever() -> None:
    """Of 24 in flight too few answers come for any window to be judged again."""
    model = Model(lambda now: 200.0 if now < 20 else 10.0, constant, workers=5000)
    model.run(20.0)
    model.serve(minute)
    assert model.run(180.0).limit < 30, "it has been cut to twice what was usual"
    later = model.run(2400.0)
    assert later.limit > 300
    assert model.limit.base_seconds == pytest.approx(60.0, rel=0.1), "slower for good: it is taken as it is"


def test_where_no_answer_comes_the_limit_grows_by_steps() -> None:
    driven = Driven()
    driven.window(QUICK, 2, times=10)
    driven.window(SLOW, 20, times=2)
    limit, cut, now = driven.limit, driven.limit.limit, driven.now
    assert limit.refuses(cut, now + BLIND_SECONDS - 0.01)
    assert not limit.refuses(cut, now + BLIND_SECONDS)
    grown = limit.limit
    assert cut < grown < 2 * cut
    assert limit.refuses(grown, now + BLIND_SECONDS + WINDOW_SECONDS - 0.01), "once in the time of a window"
    assert limit.changed == LimitChange(now + BLIND_SECONDS, cut, LimitReason.BLIND)
    for wanted in range(300):
        limit.refuses(MOST, now + BLIND_SECONDS + (wanted + 1) * WINDOW_SECONDS)
    assert limit.limit == MOST


def test_one_answer_in_two_seconds_is_enough_to_go_by() -> None:
    driven = Driven()
    driven.window(QUICK, 2, times=10)
    driven.window(SLOW, 20, times=2)
    limit, cut = driven.limit, driven.limit.limit
    for _ in range(MIN_SAMPLES - 1):
        driven.now += 1.0 / LEAST_A_SECOND
        limit.record(SLOW, driven.now)
        assert limit.refuses(cut, driven.now)


@given(st.lists(st.tuples(st.floats(0.0001, 30.0), st.integers(0, 300)), max_size=40), st.integers(1, 200))
@example([(1.0, 0), (2.0, 0), (2.0, 2), (1.0, 1)], 5)
def test_whatever_comes_the_limit_stays_between_its_bounds(
    windows: list[tuple[float, int]], most: int
) -> None:
    driven = Driven(most)
    limit, base = driven.limit, float("inf")
    for seconds, in_flight in windows:
        before, at_the_beginning = limit.limit, limit._latest
        driven.window(seconds, in_flight)
        assert min(LEAST, most) <= limit.floor <= limit.limit <= most
        assert driven.base <= min(base * RISE, max(base, seconds * BUCKET)) + 1e-12
        assert driven.base <= seconds * BUCKET or driven.base >= base
        if limit.limit > max(before, limit.floor):
            assert 2 * max(at_the_beginning, limit._latest) >= before, "as much was in flight in this window"
        base = driven.base


# Before an upstream


@dataclass
class Seen:
    """Some seconds of a run."""

    good: int
    refused: int
    usual_seconds: float
    limit: int


Service = Callable[[random.Random], float]
Rate = Callable[[float], float]


class Model:
    """An upstream with some workers and a line before them, and clients that do not wait for each other."""

    def __init__(
        self, rate: Rate, service: Service, workers: int = 20, *, is_observing: bool = False
    ) -> None:
        self.limit = AdaptiveLimit(MOST, random.Random(5), 0.0, is_observing=is_observing)
        self._rate, self._service = rate, service
        self._rng = random.Random(3)
        self._free = workers
        self._line: deque[float] = deque()
        self._events: list[tuple[float, int, float | None]] = [(0.0, 0, None)]
        self._in_flight = self._number = 0

    def serve(self, service: Service) -> None:
        """From now on."""
        self._service = service

    def run(self, until: float) -> Seen:
        times: list[float] = []
        refused = 0
        while self._events[0][0] <= until:
            now, _, begun = heapq.heappop(self._events)
            if begun is not None:
                self._in_flight -= 1
                self._free += 1
                times.append(now - begun)
                self.limit.record(now - begun, now)
            else:
                self._push(now + self._rng.expovariate(self._rate(now)), None)
                if self._in_flight >= MOST or self.limit.refuses(self._in_flight, now):
                    refused += 1
                    continue
                self._in_flight += 1
                self._line.append(now)
            if self._line and self._free:
                self._free -= 1
                self._push(now + self._service(self._rng), self._line.popleft())
        return Seen(len(times), refused, median(times), self.limit.limit)

    def _push(self, at: float, begun: float | None) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, begun))


def constant(_: random.Random) -> float:
    return QUICK


def minute(rng: random.Random) -> float:
    return rng.uniform(50.0, 70.0)


def random_service(rng: random.Random) -> float:
    return rng.expovariate(1.0 / QUICK)


def mixed(rng: random.Random) -> float:
    return 0.002 if rng.random() < 0.5 else 2 * QUICK


def burst(now: float) -> float:
    """Twenty workers serve 400 a second."""
    return 600.0 if 20.0 <= now < 60.0 else 200.0


@pytest.mark.parametrize("service", [constant, random_service])
def test_in_an_overload_answers_stay_quick_and_the_upstream_busy(service: Service) -> None:
    model = Model(burst, service)
    assert model.run(20.0).refused == 0
    model.run(30.0)  # it finds its limit
    loaded = model.run(60.0)
    assert loaded.usual_seconds < 2 * QUICK
    assert loaded.good > 0.95 * 400 * 30
    assert 20 <= loaded.limit < 60
    model.run(62.0)
    after = model.run(80.0)
    assert (after.refused, after.usual_seconds < 1.2 * QUICK) == (0, True)


def test_without_a_limit_the_same_overload_makes_everybody_wait() -> None:
    """What the test above guards against; and what `observe` would have refused is told."""
    model = Model(burst, constant, is_observing=True)
    model.run(30.0)
    loaded = model.run(60.0)
    assert loaded.usual_seconds > 10 * QUICK
    assert 20 <= loaded.limit < 60
    assert model.limit.refused == 0
    assert model.limit.would_refuse > 3000


@pytest.mark.parametrize("service", [constant, random_service, mixed])
def test_a_steady_service_is_hardly_ever_refused_anything(service: Service) -> None:
    model = Model(lambda _: 200.0, service, workers=100)
    seen = model.run(300.0)
    assert seen.refused <= seen.good / 1000
    assert seen.limit >= 2 * 8, "about ten are in flight"


def test_an_overload_that_lasts_does_not_lift_the_limit_further_and_further() -> None:
    model = Model(lambda now: 200.0 if now < 20 else 600.0, constant)
    model.run(60.0)
    assert model.run(1000.0).limit < 100
