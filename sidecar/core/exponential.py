"""Counts values in buckets whose bounds grow by a constant factor: OpenTelemetry's base-2 exponential histogram, and
Prometheus' native histogram, which are the same thing.

At scale `s` bucket `i` holds what is over `2 ** ((i - 1) / 2 ** s)` and not over `2 ** (i / 2 ** s)`: Prometheus'
index and schema (OpenTelemetry's index is one less). Two buckets of a scale are one of the scale below, so histograms
of different scales add up, and one of too many buckets goes to the scale below without asking for its values.
Pure; values are told in seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from math import inf, ldexp
from typing import Final, NamedTuple

SCALE: Final = 3
"""The finest one, and the first: bounds grow by 9 %. In a finer one fewer values share a bucket, and so the cost of
finding it."""
MAX_BUCKETS: Final = 160
"""That hold something, of one histogram; the number is that of OpenTelemetry's SDKs. There it bounds all from the
least to the greatest, and one stream of an hour would take precision from requests of a millisecond."""
ZERO_THRESHOLD: Final = 2.0**-20
"""Seconds, about a microsecond: up to here a value counts as zero. It is a bound at every scale from 0 up, so it cuts
no bucket."""
_LOWEST_POWER: Final = -20
_HIGHEST_POWER: Final = 26
"""Two years: what takes longer counts there."""
_PER_POWER: Final = 1 << SCALE
_FIRST_INDEX: Final = _LOWEST_POWER * _PER_POWER
_BOUNDS: Final = [
    ldexp(2.0 ** (index % _PER_POWER / _PER_POWER), index // _PER_POWER)
    for index in range(_FIRST_INDEX, _HIGHEST_POWER * _PER_POWER)
] + [inf]
"""Of `SCALE`, inclusive; below the first one is zero."""


class ExponentialBuckets(NamedTuple):
    """Never changed once it stands anywhere."""

    scale: int
    zeros: int
    """Values up to `ZERO_THRESHOLD`."""
    counts: Mapping[int, int]
    """Of values by bucket, in any order; none of them is 0."""

    @property
    def total(self) -> int:
        return self.zeros + sum(self.counts.values())


EMPTY: Final = ExponentialBuckets(SCALE, 0, {})


def added(before: ExponentialBuckets, values: list[float]) -> ExponentialBuckets:
    """With `values`, which are sorted; negative ones count as zero.

    Sorted ones cost two look-ups for each bucket that they fall in, where one for each value costs more unless these
    are all over the place."""
    counts: dict[int, int] = dict(before.counts)
    size = len(values)
    placed = bisect_right(values, ZERO_THRESHOLD)
    zeros = before.zeros + placed
    shift = SCALE - before.scale
    while placed < size:
        place = bisect_left(_BOUNDS, values[placed])
        upto = bisect_right(values, _BOUNDS[place], placed + 1)  # this one is within the bound
        index = -(-(_FIRST_INDEX + place) >> shift)
        counts[index] = counts.get(index, 0) + upto - placed
        placed = upto
    return _bounded(before.scale, zeros, counts)


def merged(one: ExponentialBuckets, other: ExponentialBuckets) -> ExponentialBuckets:
    """Both together, at the coarser one's scale or below."""
    scale = min(one.scale, other.scale)
    counts = dict(at_scale(one, scale).counts)
    for index, count in at_scale(other, scale).counts.items():
        counts[index] = counts.get(index, 0) + count
    return _bounded(scale, one.zeros + other.zeros, counts)


def grown(before: ExponentialBuckets, now: ExponentialBuckets) -> ExponentialBuckets | None:
    """What has come since; None if `before` cannot be an earlier state of the same histogram: a scale gets coarser
    alone, and no bucket loses anything."""
    if before.scale < now.scale or before.zeros > now.zeros:
        return None
    left = dict(now.counts)
    for index, count in at_scale(before, now.scale).counts.items():
        left[index] = left.get(index, 0) - count
    if left and min(left.values()) < 0:
        return None
    counts = {index: count for index, count in left.items() if count}
    return ExponentialBuckets(now.scale, now.zeros - before.zeros, counts)


def at_scale(buckets: ExponentialBuckets, scale: int) -> ExponentialBuckets:
    """The same values at a scale that is not finer."""
    shift = buckets.scale - scale
    if not shift:
        return buckets
    counts: dict[int, int] = {}
    for index, count in buckets.counts.items():
        coarser = -(-index >> shift)
        counts[coarser] = counts.get(coarser, 0) + count
    return ExponentialBuckets(scale, buckets.zeros, counts)


def _bounded(scale: int, zeros: int, counts: dict[int, int]) -> ExponentialBuckets:
    buckets = ExponentialBuckets(scale, zeros, counts)
    while len(buckets.counts) > MAX_BUCKETS:
        buckets = at_scale(buckets, buckets.scale - 1)
    return buckets
