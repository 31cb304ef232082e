"""Whether another policy is better than the present one, and which. Pure.

A cost has two ends, by what is assumed of the calls that were refused. One policy is better than another if the worse
end of its cost is lower, and the sum of both ends, too. Of all, the one is taken that is cheapest together with its
neighbours: by itself a policy may only have had luck, such as a probe right at the end of an outage.

A recommendation must be found without each outage in turn and be better in that outage; its neighbours in the grid
must be no worse than the present policy; and outside outages it must cost no more. Otherwise it would tell of chance,
and the present policy stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.tuning.grid import Grid, Point

LEAST_OUTAGES: Final = 3
LEAST_GAIN: Final = 0.05
"""Of the present policy's cost: less is not worth a change."""

Cost = tuple[int, int]
"""With all refused calls failed, and with all of them good."""
Costs = Mapping[Point, Sequence[Cost]]
"""Of each policy, by outage."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What comes of it."""

    point: Point | None
    """The policy to try; None: keep what there is."""
    reason: str
    """Why, in a sentence."""
    nearest: Point | None = None
    """The best one by its costs, also where it is not recommended."""
    without: tuple[Point | None, ...] = ()
    """By outage: what would be chosen from the others."""


def is_better(one: Cost, other: Cost) -> bool:
    return max(one) < max(other) and sum(one) < sum(other)


def is_no_worse(one: Cost, other: Cost) -> bool:
    return max(one) <= max(other) and sum(one) <= sum(other)


def total(costs: Sequence[Cost], left_out: int | None = None) -> Cost:
    """Over all outages but that one."""
    used = [cost for number, cost in enumerate(costs) if number != left_out]
    return sum(cost[0] for cost in used), sum(cost[1] for cost in used)


def choose(grid: Grid, costs: Costs) -> Choice:
    """By outages alone; `costs` has every point of the grid."""
    outages = len(costs[grid.home])
    if outages < LEAST_OUTAGES:
        return Choice(
            None, f"{_outages(outages)} in the data: {LEAST_OUTAGES} are needed to tell chance from cause"
        )
    best = _best(grid, costs, None)
    nearest = best or min(costs, key=_ranking(grid, {point: total(of) for point, of in costs.items()}))
    if best is None:
        return Choice(None, "no policy of the grid is better whose neighbours are no worse, too", nearest)
    home, cost = total(costs[grid.home]), total(costs[best])
    if max(cost) > (1.0 - LEAST_GAIN) * max(home):
        return Choice(None, f"the best policy of the grid saves less than {LEAST_GAIN:.0%}", nearest)
    without = tuple(_best(grid, costs, number) for number in range(outages))
    for number, point in enumerate(without):
        if point is None or not is_better(costs[point][number], costs[grid.home][number]):
            what = "nothing better is found" if point is None else "what the others recommend is no better"
            return Choice(None, f"outage {number + 1} of {outages} left out, {what} in it", nearest, without)
    reason = f"better in each of {outages} outages when that one is left out, and so are its neighbours"
    return Choice(best, reason, nearest, without)


def _best(grid: Grid, costs: Costs, left_out: int | None) -> Point | None:
    """The cheapest policy that is better than the present one, and whose neighbours are no worse than that."""
    totals = {point: total(of, left_out) for point, of in costs.items()}
    home = totals[grid.home]
    for point in sorted(totals, key=_ranking(grid, totals)):
        if not is_better(totals[point], home):
            continue
        if _is_among_good(grid, totals, point):
            return _simplest(grid, totals, point)
    return None


def _is_among_good(grid: Grid, totals: Mapping[Point, Cost], point: Point) -> bool:
    """Whether its neighbours are no worse than the present policy."""
    return all(is_no_worse(totals[one], totals[grid.home]) for one in grid.neighbours(point))


def _simplest(grid: Grid, totals: Mapping[Point, Cost], point: Point) -> Point:
    """The same without the changes that save nothing: who reads it is not to look for their reason."""
    for axis, step in enumerate(grid.home):
        less = (*point[:axis], step, *point[axis + 1 :])
        if is_no_worse(totals[less], totals[point]) and _is_among_good(grid, totals, less):
            point = less
    return point


def _ranking(grid: Grid, totals: Mapping[Point, Cost]) -> Callable[[Point], tuple[float, float, int]]:
    """The one first that is cheaper together with its neighbours; of equals the one that changes less."""

    def rank(point: Point) -> tuple[float, float, int]:
        around = [totals[one] for one in (point, *grid.neighbours(point))]
        low, high = (sum(cost[end] for cost in around) / len(around) for end in (0, 1))
        steps = sum(abs(one - home) for one, home in zip(point, grid.home, strict=True))
        return max(low, high), low + high, steps

    return rank


def _outages(count: int) -> str:
    return "no outage is" if not count else f"{count} outage is" if count == 1 else f"{count} outages are"
