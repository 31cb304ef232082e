"""What a metric is: name, unit, meaning and attributes, and how it is read from the numbers.

Points are made lazily, so that a reader of 1,000 routes can pause between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum

from sidecar.core.dataclass import dataclass
from sidecar.core.exponential import ExponentialBuckets
from sidecar.core.numbers import Exemplar, Histogram, RouteNumbers
from sidecar.core.sources import Sources


class MetricKind(Enum):
    COUNTER = "counter"
    UP_DOWN = "up_down"
    """A sum that also falls: adding it up over processes means something."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Attributes = tuple[tuple[str, str | int | bool], ...]


@dataclass(frozen=True, slots=True)
class HistogramRow:
    """A histogram at one moment."""

    counts: Sequence[int]
    sum: float
    exemplars: Sequence[Exemplar | None]
    bounds: tuple[float, ...]
    """Upper ones, inclusive, of all buckets but the last."""
    exponential: ExponentialBuckets | None = None
    """The same values in these, where they are kept."""

    @classmethod
    def of(cls, histogram: Histogram) -> HistogramRow:
        counts, total, exponential = histogram.state
        return cls(counts, total, tuple(histogram.exemplars or ()), histogram.bounds, exponential)


Value = int | float | HistogramRow
Point = tuple[Attributes, Value]


@dataclass(frozen=True, slots=True)
class Places:
    """What the numbers of a route do not know of the two ends."""

    servers: Mapping[str, tuple[str, int | None, str]]
    """By upstream: address, port and scheme."""
    secured: frozenset[str]
    """Listeners that accept TLS."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    name: str
    unit: str
    """UCUM; an annotation in braces counts things."""
    description: str
    kind: MetricKind
    of_route: Callable[[RouteNumbers, Places], Iterator[Point]] | None = None
    of_sources: Callable[[Sources], Iterator[Point]] | None = None

    def points(self, routes: Sequence[RouteNumbers], sources: Sources) -> Iterator[Point]:
        """Read this metric now. Lazy: each point is as old as the moment it is taken."""
        if self.of_route is not None:
            servers = {upstream.name: (*upstream.server, upstream.scheme) for upstream in sources.upstreams}
            places = Places(servers, sources.secured_listeners)
            for route in routes:
                route.fold()
                yield from self.of_route(route, places)
        if self.of_sources is not None:
            yield from self.of_sources(sources)


def route_attributes(route: RouteNumbers) -> Attributes:
    if route.name is None:
        return ()
    name = ("sidecar.route", route.name)
    return (name, ("sidecar.listener", route.listener)) if route.listener else (name,)


def breaker_attributes(route: str, upstream: str) -> Attributes:
    return ("sidecar.route", route), ("sidecar.upstream", upstream)
