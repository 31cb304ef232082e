"""From what was seen of a route to what is to be tried: outages, replays, the choice, and what is not known. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, EjectionPolicy
from sidecar.tuning.choice import LEAST_OUTAGES, Choice, Cost, choose, is_no_worse
from sidecar.tuning.grid import Grid, Point, make_grid
from sidecar.tuning.outages import QUIET_SECONDS, Outage, find_outages
from sidecar.tuning.quantiles import Times, median, times_of
from sidecar.tuning.replay import Assume, Figures, Line, Replay
from sidecar.tuning.seen import Call, CannotTune, by_upstream

Both = tuple[Figures, Figures]
"""With all refused calls failed, and with all of them good."""


@dataclass(frozen=True, slots=True)
class Spell:
    """One outage of one upstream."""

    upstream: str
    outage: Outage
    calls: int
    failed: int
    refused: int
    """By the policy of then: nobody knows how these would have ended."""


@dataclass(slots=True)
class Tuned:
    """All that is found out."""

    route: str
    calls: int
    seconds: float
    refused: int
    times: Times
    spells: list[Spell]
    grid: Grid
    choice: Choice
    present: Both
    """The present policy in all outages, played again."""
    tried: Both | None
    """The same of the policy that is recommended, or else would be the best."""
    by_outage: list[tuple[Both, Both | None]] = field(default_factory=list)

    @property
    def changes(self) -> Mapping[str, object]:
        """The fields of the recommended policy that are new."""
        return {} if self.choice.point is None else self.grid.changes(self.choice.point)


def tune(
    route: str,
    calls: Sequence[Call],
    policy: BreakerPolicy,
    ejections: Mapping[str, EjectionPolicy],
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Tuned:
    """`calls`: as `seen.numbered` gives them. `ejections`: of upstreams, by name. `progress` hears how many of how
    many policies have been played.

    Raises:
        CannotTune: there is nothing to go by.
    """
    if not any(one.is_good for one in calls):
        raise CannotTune(
            f"no call of {route!r} that was seen has ended well: there is nothing to compare with"
        )
    lines, spells = _lines(route, calls, ejections)
    times = times_of([call.whole_seconds for line in lines for call in _calm(line)])
    slow = times.slow_call_seconds
    is_any_slow = slow is not None and any(one.whole_seconds >= slow for one in calls)
    grid = make_grid(_playable(policy), slow if is_any_slow else None)
    player = _Player(lines, spells, grid)
    points = list(grid.points()) if len(spells) >= LEAST_OUTAGES else [grid.home]
    played: dict[Point, list[Both]] = {}
    for done, point in enumerate(points):
        progress(done, len(points))
        played[point] = player.play(point)
    costs = {point: [(one.cost, other.cost) for one, other in of[:-1]] for point, of in played.items()}
    choice = _checked(choose(grid, costs), grid, player)
    shown = choice.point or choice.nearest
    present, tried = played[grid.home][:-1], None if shown is None else played[shown][:-1]
    return Tuned(
        route,
        len(calls),
        calls[-1].at - calls[0].at,
        sum(one.is_refused for one in calls),
        times,
        spells,
        grid,
        choice,
        summed(present),
        None if tried is None else summed(tried),
        [(one, None if tried is None else tried[number]) for number, one in enumerate(present)],
    )


def summed(figures: Sequence[Both]) -> Both:
    both = Figures(), Figures()
    for one in figures:
        both[0].add(one[0])
        both[1].add(one[1])
    return both


def _playable(policy: BreakerPolicy) -> BreakerPolicy:
    """The present policy as it would act; one that only measures is compared as if it acted. What the sidecar asks by
    itself was not kept: a request is the probe."""
    mode = BreakerMode.DISABLED if policy.mode is BreakerMode.DISABLED else BreakerMode.ENFORCE
    return replace(policy, mode=mode, candidate=None, half_open_check=None)


def _checked(choice: Choice, grid: Grid, player: _Player) -> Choice:
    """A recommendation must cost no more outside outages, either."""
    if choice.point is None:
        return choice
    here, there = player.calm(choice.point), player.calm(grid.home)
    if is_no_worse(here, there):
        return choice
    told = f"outside outages it would cost {max(here)} calls, and the present policy {max(there)}"
    return replace(choice, point=None, reason=told)


# What is played


def _lines(
    route: str, calls: Sequence[Call], ejections: Mapping[str, EjectionPolicy]
) -> tuple[list[Line], list[Spell]]:
    lines: list[Line] = []
    spells: list[Spell] = []
    for upstream, own in sorted(by_upstream(calls).items()):
        outages = find_outages(own)
        first = len(spells)
        places = _places(own, outages, first)
        of_outages: list[list[Call]] = [[] for _ in outages]
        for call, place in zip(own, places, strict=True):
            if place >= 0:
                of_outages[place - first].append(call)
        spells += [
            Spell(
                upstream,
                outage,
                len(of),
                sum(one.is_failure for one in of),
                sum(one.is_refused for one in of),
            )
            for outage, of in zip(outages, of_outages, strict=True)
        ]
        good = median([one.whole_seconds for one in own if one.is_good]) or 0.0
        failed = {
            first + number: median([one.whole_seconds for one in of if one.is_failure]) or good
            for number, of in enumerate(of_outages)
        }
        requests = frozenset(one.request for one in own if one.is_good)
        ejection = ejections.get(upstream, EjectionPolicy())
        lines.append(Line(route, upstream, own, places, requests, good, failed, ejection))
    return lines, spells


def _places(calls: Sequence[Call], outages: Sequence[Outage], first: int) -> list[int]:
    """Of each call the number of its outage, or -1."""
    found, number = [], 0
    for call in calls:
        while number < len(outages) and call.at >= outages[number].until:
            number += 1
        is_in = number < len(outages) and call.at >= outages[number].began
        found.append(first + number if is_in else -1)
    return found


def _calm(line: Line) -> list[Call]:
    """Good calls outside outages."""
    return [call for call, place in zip(line.calls, line.places, strict=True) if place < 0 and call.is_good]


class _Player:
    """Plays policies on all lines."""

    def __init__(self, lines: Sequence[Line], spells: Sequence[Spell], grid: Grid) -> None:
        self._lines = lines
        self._near = [_near_outages(line, spells) for line in lines]
        self._outages = len(spells)
        self._grid = grid
        self._has_refused = any(call.is_refused for line in lines for call in line.calls)

    def play(self, point: Point) -> list[Both]:
        """Its figures, by outage; the last ones are of calls that are near an outage and not in it."""
        return self._play(self._near, point)

    def calm(self, point: Point) -> Cost:
        """What it costs outside of outages, where everything is played."""
        one, other = self._play(self._lines, point)[-1]
        return one.cost, other.cost

    def _play(self, lines: Sequence[Line], point: Point) -> list[Both]:
        policy = self._grid.policy(point)
        sums = [(Figures(), Figures()) for _ in range(self._outages + 1)]
        for line in lines:
            failed = Replay(line, policy, Assume.ALL_FAILED, self._outages).run()
            good = Replay(line, policy, Assume.ALL_GOOD, self._outages).run() if self._has_refused else failed
            for both, *new in zip(sums, failed, good, strict=True):
                both[0].add(new[0])
                both[1].add(new[1])
        return sums


def _near_outages(line: Line, spells: Sequence[Spell]) -> Line:
    """A line without what is far from every outage: a breaker that is closed there stays closed."""
    begins = [one.outage.began - QUIET_SECONDS for one in spells if one.upstream == line.upstream]
    kept = []
    number = 0
    for call, place in zip(line.calls, line.places, strict=True):
        while number + 1 < len(begins) and call.at >= begins[number + 1]:
            number += 1
        is_lead = bool(begins) and begins[number] <= call.at < begins[number] + QUIET_SECONDS
        if place >= 0 or is_lead:
            kept.append((call, place))
    return replace(line, calls=[call for call, _ in kept], places=[place for _, place in kept])
