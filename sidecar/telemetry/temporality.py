"""Decides what a metric's points tell: the whole sum since the start (cumulative), or what has come since the last
time that the collector took them (delta). Knows nothing of OTLP's data classes.

The preference is `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`. A request that was lost moves nothing: the next
one has what it had, and counts from where it counted, so that an outage of the collector costs no count.
"""

from __future__ import annotations

from dataclasses import replace
from operator import sub

from sidecar.core.exponential import grown
from sidecar.core.families.family import Attributes, Family, HistogramRow, MetricKind, Point, Value

_Key = tuple[str, Attributes]
_DELTA = frozenset({MetricKind.COUNTER, MetricKind.HISTOGRAM})
STEP_NS = 1_000_000_000
"""From here on a wall clock was set, and does not merely run fast or slow."""


class Temporality:
    """What the collector has of each series. Owned by the exporting thread, later by the one that stands for it."""

    def __init__(self, preference: str, start_ns: int) -> None:
        """`preference` is one of `settings.TEMPORALITIES`; `start_ns`: when counting began."""
        self._preference = preference
        self._start_ns = start_ns
        self._taken: dict[_Key, tuple[Value, int]] = {}
        self._offered: dict[_Key, tuple[Value, int]] = {}
        self._seen: set[_Key] = set()
        self._counted: dict[_Key, tuple[int | float, int]] = {}
        """Of each cumulative series: how far it had come at the last round, and since when it counts."""
        self._last_round_ns: int | None = None
        self._offset_ns: int | None = None
        self._now_ns = start_ns

    def is_delta(self, family: Family) -> bool:
        """Sums that also fall are never deltas; `lowmemory` makes deltas of what is counted as it happens alone."""
        if self._preference == "cumulative" or family.kind not in _DELTA:
            return False
        return self._preference == "delta" or family.of_route is not None

    def offer(self, family: Family, point: Point, now_ns: int) -> tuple[Value, int]:
        """The value to send for a point, and since when it was counted, in nanoseconds since the epoch."""
        attributes, value = point
        if family.kind is MetricKind.GAUGE:
            return value, 0
        key = family.name, attributes
        self._seen.add(key)
        if not self.is_delta(family):
            return value, self._counted_since(key, value, is_monotonic=family.kind in _DELTA)
        self._offered[key] = value, now_ns
        before, since_ns = self._taken.get(key, (None, self._not_before()))
        return value if before is None else _growth(before, value), since_ns

    def _counted_since(self, key: _Key, value: Value, *, is_monotonic: bool) -> int:
        """A series that was not there in the last round, or that has begun anew, has counted since that round: it
        must not seem to go on where another one of its name has ended."""
        reached = sum(value.counts) if isinstance(value, HistogramRow) else value
        before, since_ns = self._counted.get(key, (None, None))
        if since_ns is None or (before is not None and reached < before and is_monotonic):
            since_ns = self._not_before()
        self._counted[key] = reached, since_ns
        return since_ns

    def _not_before(self) -> int:
        """When the last round was, or else when counting began."""
        return self._start_ns if self._last_round_ns is None else self._last_round_ns

    def taken(self) -> None:
        """What was offered has arrived."""
        self._taken.update(self._offered)
        self._offered.clear()

    def lost(self) -> None:
        """What was offered has not arrived."""
        self._offered.clear()

    def begin_round(self, now_ns: int, offset_ns: int) -> None:
        """Everything will be offered once; a round before that broke off has sent nothing more. `offset_ns` makes a
        monotonic time one since the epoch."""
        self._offered.clear()
        self._seen.clear()
        self._now_ns = now_ns
        if self._offset_ns is not None and abs(step := offset_ns - self._offset_ns) >= STEP_NS:
            self._move(step)
        self._offset_ns = offset_ns

    def _move(self, step_ns: int) -> None:
        """The wall clock was set: what has begun by the old one is told by the new one, so that nothing ends before
        it begins."""
        self._start_ns += step_ns
        if self._last_round_ns is not None:
            self._last_round_ns += step_ns
        self._counted = {key: (value, since + step_ns) for key, (value, since) in self._counted.items()}
        self._taken = {key: (value, since + step_ns) for key, (value, since) in self._taken.items()}

    def end_round(self) -> None:
        """Everything has been offered: forget the series that are gone."""
        self._last_round_ns = self._now_ns
        if len(self._taken) + len(self._counted) > len(self._seen):
            self._taken = {key: value for key, value in self._taken.items() if key in self._seen}
            self._counted = {key: value for key, value in self._counted.items() if key in self._seen}


def _growth(before: Value, value: Value) -> Value:
    """What has come since; all of it where the count has begun anew."""
    if isinstance(value, HistogramRow):
        assert isinstance(before, HistogramRow)
        counts = tuple(map(sub, value.counts, before.counts))
        if min(counts) < 0:
            return value
        exponential = value.exponential
        if exponential is not None and before.exponential is not None:
            exponential = grown(before.exponential, exponential)
            if exponential is None:
                return value
        return replace(value, counts=counts, sum=value.sum - before.sum, exponential=exponential)
    assert not isinstance(before, HistogramRow)
    return value - before if value >= before else value
