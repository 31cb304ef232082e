"""Decides what a metric's points tell: the whole sum since the start (cumulative), or what has come since the last
time that the collector took them (delta). Knows nothing of OTLP's data classes.

The preference is `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`. A request that was lost moves nothing: the next
one has what it had, and counts from where it counted, so that an outage of the collector costs no count.
"""

from __future__ import annotations

from operator import sub

from sidecar.core.families import Attributes, Family, HistogramRow, MetricKind, Point, Value

_Key = tuple[str, Attributes]
_DELTA = frozenset({MetricKind.COUNTER, MetricKind.HISTOGRAM})


class Temporality:
    """What the collector has of each series. Owned by the exporting thread, later by the one that stands for it."""

    def __init__(self, preference: str, start_ns: int) -> None:
        """`preference` is one of `settings.TEMPORALITIES`; `start_ns`: when counting began."""
        self._preference = preference
        self._start_ns = start_ns
        self._taken: dict[_Key, tuple[Value, int]] = {}
        self._offered: dict[_Key, tuple[Value, int]] = {}
        self._seen: set[_Key] = set()

    def is_delta(self, family: Family) -> bool:
        """Sums that also fall are never deltas; `lowmemory` makes deltas of what is counted as it happens alone."""
        if self._preference == "cumulative" or family.kind not in _DELTA:
            return False
        return self._preference == "delta" or family.of_route is not None

    def offer(self, family: Family, point: Point, now_ns: int) -> tuple[Value, int]:
        """The value to send for a point, and since when it was counted, in nanoseconds since the epoch."""
        attributes, value = point
        if not self.is_delta(family):
            return value, self._start_ns
        key = family.name, attributes
        self._seen.add(key)
        self._offered[key] = value, now_ns
        before, since_ns = self._taken.get(key, (None, self._start_ns))
        return value if before is None else _growth(before, value), since_ns

    def taken(self) -> None:
        """What was offered has arrived."""
        self._taken.update(self._offered)
        self._offered.clear()

    def lost(self) -> None:
        """What was offered has not arrived."""
        self._offered.clear()

    def begin_round(self) -> None:
        """Everything will be offered once; a round before that broke off has sent nothing more."""
        self._offered.clear()
        self._seen.clear()

    def end_round(self) -> None:
        """Everything has been offered: forget the series that are gone."""
        if len(self._taken) > len(self._seen):
            self._taken = {key: value for key, value in self._taken.items() if key in self._seen}


def _growth(before: Value, value: Value) -> Value:
    """What has come since; all of it where the count has begun anew."""
    if isinstance(value, HistogramRow):
        assert isinstance(before, HistogramRow)
        counts = tuple(map(sub, value.counts, before.counts))
        return value if min(counts) < 0 else HistogramRow(counts, value.sum - before.sum, value.exemplars)
    assert not isinstance(before, HistogramRow)
    return value - before if value >= before else value
