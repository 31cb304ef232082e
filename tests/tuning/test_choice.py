"""What is recommended holds in outages that it was not found by; all else is kept as it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.snapshot import BreakerPolicy
from sidecar.tuning.choice import Choice, Cost, choose
from sidecar.tuning.grid import Grid, Point, make_grid
from sidecar.tuning.outages import find_outages
from sidecar.tuning.quantiles import rounded_up, times_of
from sidecar.tuning.seen import CannotTune
from sidecar.tuning.tune import Tuned, tune
from tests.tuning.traffic import Fails, down, quarter, seen

GRID = make_grid(BreakerPolicy(), 0.1)
POINTS = list(GRID.points())


def chosen(costs: dict[Point, list[Cost]], default: list[Cost]) -> Choice:
    return choose(GRID, {point: costs.get(point, default) for point in POINTS})


def around(point: Point) -> list[Point]:
    return [point, *GRID.neighbours(point)]


FAR: Point = (4, 2, 1, 3)
"""Not beside the present policy."""


def test_the_present_policy_is_a_point_and_no_neighbour() -> None:
    assert GRID.policy(GRID.home) == BreakerPolicy()
    assert all(GRID.home not in GRID.neighbours(point) for point in POINTS)
    odd = make_grid(BreakerPolicy(consecutive_failures=7, open_seconds=3.0, failure_rate_threshold=0.4), None)
    assert odd.policy(odd.home) == odd.present
    assert {one["consecutive_failures"] for one in odd.axes[0]} == {0, 3, 5, 7, 10, 20}


def test_a_better_policy_among_good_ones_is_found() -> None:
    good = dict.fromkeys(around(FAR), [(10, 10)] * 3)
    assert chosen(good, [(100, 100)] * 3).point is not None


def test_luck_of_one_point_is_no_recommendation() -> None:
    lucky = {FAR: [(10, 10)] * 3} | dict.fromkeys(GRID.neighbours(FAR), [(200, 200)] * 3)
    assert chosen(lucky, [(100, 100)] * 3).point is None


def test_what_one_outage_alone_shows_is_no_recommendation() -> None:
    """Without the first outage it would not be found, or not be better."""
    one_of_three = {point: [(0, 0), (101, 101), (101, 101)] for point in around(FAR)}
    found = chosen(one_of_three, [(100, 100)] * 3)
    assert found.point is None
    assert "outage 1 of 3 left out" in found.reason


def test_both_ends_of_a_range_must_be_worth_it() -> None:
    """Better if all that was refused was good, and worse by more if it all failed."""
    torn = dict.fromkeys(around(FAR), [(300, 10)] * 3)
    assert chosen(torn, [(20, 200)] * 3).point is None


def test_a_small_gain_is_not_worth_a_change() -> None:
    hardly = dict.fromkeys(around(FAR), [(98, 98)] * 3)
    assert "less than 5%" in chosen(hardly, [(100, 100)] * 3).reason


@settings(max_examples=40)
@given(st.data())
def test_what_is_recommended_is_better_in_every_outage_left_out(data: st.DataObject) -> None:
    """Of any costs at all."""
    cost = st.tuples(st.integers(0, 9), st.integers(0, 9))
    default = data.draw(st.lists(cost, min_size=3, max_size=4))
    some = data.draw(
        st.dictionaries(
            st.sampled_from(POINTS), st.lists(cost, min_size=len(default), max_size=len(default)), max_size=30
        )
    )
    found = chosen(some, default)
    if found.point is None:
        return
    costs = {point: some.get(point, default) for point in POINTS}
    for number, point in enumerate(found.without):
        assert point is not None
        assert max(costs[point][number]) < max(costs[GRID.home][number])
    home = sum(max(one) for one in zip(*costs[GRID.home], strict=True))
    assert home > 0


HASTY = BreakerPolicy(consecutive_failures=3)


def tuned(fails: Fails, outages: int, present: BreakerPolicy, **how: object) -> Tuned:
    return tune("r", seen(fails, outages=outages, **how), present, {})  # type: ignore[arg-type]


def test_a_row_that_opens_for_chance_is_found_and_taken_off() -> None:
    """25 % of an upstream fail: to refuse the rest is worse than to bear them."""
    found = tuned(quarter, 3, HASTY, rate=12.0, ill=60.0)
    assert len(found.spells) == 3
    assert found.changes["consecutive_failures"] in (0, 10, 20)
    assert found.tried is not None
    assert found.tried[0].good_refused < found.present[0].good_refused / 4


def test_the_same_is_found_where_the_present_policy_has_refused() -> None:
    """Then figures are ranges, and the worse end of what is recommended is better than that of what there was."""
    found = tuned(quarter, 3, HASTY, rate=12.0, ill=60.0, policy=HASTY)
    assert found.refused > 0
    assert found.tried is not None
    assert found.changes
    assert max(one.cost for one in found.tried) < max(one.cost for one in found.present)


@pytest.mark.parametrize("outages", [0, 1, 2])
def test_under_three_outages_only_times_are_told(outages: int) -> None:
    found = tuned(down, outages, BreakerPolicy())
    assert len(found.spells) == outages
    assert found.changes == {}
    assert "3 are needed" in found.choice.reason
    assert found.times.slow_call_seconds == 0.1
    assert found.times.attempt_seconds == 0.1


def test_without_a_good_call_there_is_nothing_to_compare_with() -> None:
    calls = [one for one in seen(down, outages=1) if not one.is_good]
    with pytest.raises(CannotTune, match="has ended well"):
        tune("r", calls, BreakerPolicy(), {})


def test_an_upstream_that_comes_and_goes_has_one_outage() -> None:
    flaps = seen(down, outages=4, ill=8.0, well=10.0)
    assert len(find_outages(flaps)) == 1
    assert len(find_outages(seen(down, outages=4))) == 4
    assert find_outages([]) == []


def test_a_quantile_is_told_where_ten_calls_are_beyond_it() -> None:
    few, many = times_of([0.01] * 199), times_of([0.01] * 1_000 + [0.5] * 3)
    assert 0.95 not in few.quantiles
    assert few.slow_call_seconds is None
    assert sorted(many.quantiles) == [0.5, 0.95, 0.99]
    assert (many.slow_call_seconds, many.attempt_seconds, many.cut) == (0.05, 0.05, 3)
    assert [rounded_up(one) for one in (0.05, 0.051, 0.1, 1.2, 7.6, 0.0021)] == [
        0.05,
        0.075,
        0.1,
        1.5,
        10,
        0.003,
    ]


def test_a_grid_is_of_a_bounded_size() -> None:
    odd = BreakerPolicy(
        consecutive_failures=7, failure_rate_threshold=0.4, slow_call_seconds=3.3, open_seconds=4.0
    )
    grid: Grid = make_grid(odd, 0.1)
    assert len(list(grid.points())) == 6 * 4 * 4 * 5
