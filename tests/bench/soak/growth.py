"""From samples to what grew: a line through the second half, and the types of which there are more at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from tests.bench.soak.samples import LEVELS, Sample

MIB = 2**20
MOST_MIB_AN_HOUR = 0.2
LEAST_GROWN_TYPE = 200
"""Objects of one type more than at half time, for it to be told."""
TOLD = 12


@dataclass(frozen=True)
class Line:
    """The least squares' line through points, and how sure it is."""

    an_hour: float
    error: float
    """Of the slope: its standard error, an hour."""


def fitted(points: Sequence[tuple[float, float]]) -> Line:
    """A line through (seconds, value). Raises: ValueError, if there are fewer than three points."""
    count = len(points)
    if count < 3:
        raise ValueError(f"{count} samples are too few for a slope: let it run longer")
    mean_at = sum(at for at, _ in points) / count
    mean = sum(value for _, value in points) / count
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    slope = sum((at - mean_at) * (value - mean) for at, value in points) / spread
    rest = sum((value - mean - slope * (at - mean_at)) ** 2 for at, value in points)
    return Line(slope * 3600, sqrt(rest / (count - 2) / spread) * 3600)


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    half = samples[-1].at / 2
    return [sample for sample in samples if sample.at >= half]


def slopes(samples: Sequence[Sample]) -> dict[str, Line]:
    """Of everything that must not grow, over the second half."""
    later = second_half(samples)
    return {name: fitted([(sample.at, sample.values[name]) for sample in later]) for name in LEVELS}


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Types of which there are many more, with both counts; the greatest growth first."""
    found = [(name, before.get(name, 0), count) for name, count in after.items()]
    found = [one for one in found if one[2] - one[1] >= LEAST_GROWN_TYPE]
    return sorted(found, key=lambda one: one[1] - one[2])[:TOLD]


def verdict(lines: Mapping[str, Line], *, seconds: float) -> str:
    line = lines["rest MiB"]
    slope = f"{line.an_hour:+.2f} ± {2 * line.error:.2f} MiB an hour (at most ±{MOST_MIB_AN_HOUR})"
    return f"resident memory but for outcomes, second half of {seconds / 60:.0f} min: {slope}"
