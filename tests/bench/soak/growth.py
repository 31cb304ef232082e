"""From samples to what grew: a line through the second half, and the types of which there are more at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from tests.bench.soak.samples import LEVELS, Sample

KIB = 2**10
MIB = 2**20
MOST_MIB_AN_HOUR = 0.2
LEAST_GROWN_TYPE = 200
"""Objects of one type more than at half time, for it to be told."""
LEAST_GROWN_BYTES = 8192
"""The same for what an owner holds, in bytes."""
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


def grown(
    before: Mapping[str, int], after: Mapping[str, int], least: int = LEAST_GROWN_TYPE
) -> list[tuple[str, int, int]]:
    """Names with `least` more, with both counts; the greatest growth first."""
    found = [(name, before.get(name, 0), count) for name, count in after.items()]
    found = [one for one in found if one[2] - one[1] >= least]
    return sorted(found, key=lambda one: one[1] - one[2])[:TOLD]


def told(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What grew from one look to another, by name: types, owners, and caches that fill up to their limit."""
    lines = [f"{kind} {was:,} -> {now:,}" for kind, was, now in grown(before["types"], after["types"])]
    sizes = [{owner: size for owner, (size, _) in look["owners"].items()} for look in (before, after)]
    for owner, was, now in grown(*sizes, LEAST_GROWN_BYTES):
        count = after["owners"][owner][1] - before["owners"].get(owner, (0, 0))[1]
        lines.append(f"held by {owner}: {was / KIB:,.0f} -> {now / KIB:,.0f} KiB ({count:+,} objects)")
    for name, (now, limit) in sorted(after["caches"].items()):
        was = before["caches"].get(name, (0, limit))[0]
        if now > was:
            lines.append(f"{name}: {was:,} -> {now:,} entries of {limit:,}")
    return lines


def allocated(look: Mapping[str, Any]) -> str:
    """Where the memory of a look lies."""
    arenas, free, malloc, kept, resident = (
        look[name] / MIB for name in ("arenas", "free", "malloc", "kept", "resident")
    )
    return (
        f"resident {resident:.2f} MiB: Python's arenas {arenas:.2f}, of which {free:.2f} are free; "
        f"malloc has given out {malloc:.2f} and keeps {kept:.2f}"
    )


def verdict(lines: Mapping[str, Line], *, seconds: float) -> str:
    line = lines["rest MiB"]
    slope = f"{line.an_hour:+.2f} ± {2 * line.error:.2f} MiB an hour (at most ±{MOST_MIB_AN_HOUR})"
    return f"resident memory but for outcomes, second half of {seconds / 60:.0f} min: {slope}"
