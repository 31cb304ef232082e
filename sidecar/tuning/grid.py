"""The policies that are tried: a grid of thresholds and waits in which the present policy is one point. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import BreakerPolicy

Point = tuple[int, ...]
"""A step of each axis."""
Fields = Mapping[str, Any]
"""Of `BreakerPolicy`."""

ROWS: Final = (3, 5, 10, 20, 0)
"""`consecutive_failures`; 0, which is off, is the most patient one."""
RATES: Final = (0.3, 0.5, 0.7)
WAITS: Final = ((1.0, 5.0), (2.0, 15.0), (5.0, 30.0), (5.0, 60.0))
"""`open_for` with `max_open_for`."""
SLOW_RATE: Final = 0.8
_PATIENCE: Final = 3.0
"""A second, more patient `slow_call_duration`, in terms of the first."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Each axis goes from the quickest to open, or to try again, to the most patient."""

    present: BreakerPolicy
    axes: tuple[tuple[Fields, ...], ...]
    home: Point
    """Where the present policy is."""

    def policy(self, point: Point) -> BreakerPolicy:
        fields: dict[str, Any] = {}
        for axis, step in zip(self.axes, point, strict=True):
            fields |= axis[step]
        return replace(self.present, **fields)

    def changes(self, point: Point) -> dict[str, Any]:
        """The fields in which a policy is another one than the present."""
        policy = self.policy(point)
        names = [name for axis in self.axes for name in axis[0]]
        return {
            name: getattr(policy, name)
            for name in names
            if getattr(policy, name) != getattr(self.present, name)
        }

    def points(self) -> Iterator[Point]:
        """All, the present one among them."""
        return product(*(range(len(axis)) for axis in self.axes))

    def neighbours(self, point: Point) -> Iterator[Point]:
        """One step away on one axis; the present policy is none, since it is what all are compared with."""
        for number, axis in enumerate(self.axes):
            for step in (point[number] - 1, point[number] + 1):
                one = (*point[:number], step, *point[number + 1 :])
                if 0 <= step < len(axis) and one != self.home:
                    yield one


def make_grid(present: BreakerPolicy, slow_seconds: float | None) -> Grid:
    """`slow_seconds`: what is a slow call, by the times of good ones; None: too little is known, or none was slow."""
    slow: list[dict[str, Any]] = [
        {"slow_call_seconds": one, "slow_call_rate_threshold": SLOW_RATE}
        for one in ([] if slow_seconds is None else [slow_seconds, _PATIENCE * slow_seconds])
    ]
    slow.append({"slow_call_seconds": None, "slow_call_rate_threshold": present.slow_call_rate_threshold})
    axes: list[list[dict[str, Any]]] = [
        [{"consecutive_failures": one} for one in ROWS],
        [{"failure_rate_threshold": one} for one in RATES],
        slow,
        [{"open_seconds": first, "max_open_seconds": last} for first, last in WAITS],
    ]
    placed = [_with_present(axis, present) for axis in axes]
    return Grid(present, tuple(tuple(axis) for axis, _ in placed), tuple(home for _, home in placed))


def _with_present(axis: list[dict[str, Any]], present: BreakerPolicy) -> tuple[list[dict[str, Any]], int]:
    """The axis with the present policy's own step in its place, and where that is."""
    own = {name: getattr(present, name) for name in axis[0]}
    if own not in axis:
        axis = sorted([*axis, own], key=_patience)
    return axis, axis.index(own)


def _patience(step: Mapping[str, Any]) -> tuple[float, ...]:
    """Off comes last."""
    return tuple(float("inf") if value is None else value or float("inf") for value in step.values())
