"""Whole sums or what has come since, by the preference; whatever the collector misses, it has in the end."""

from __future__ import annotations

import os
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import DURATION_BOUNDS, Otlp, Telemetry
from sidecar.core.sources import BreakerReading, Sources
from sidecar.core.transition import State
from sidecar.telemetry.metrics import MetricBuilder
from sidecar.telemetry.pipeline import MetricPipeline
from sidecar.telemetry.room import TelemetryRoom
from sidecar.telemetry.temporality import Temporality
from tests.telemetry.fakes import FakeExchange, count_ended

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
START_NS = 1_700_000_000_000_000_000
SERVER, REJECTED = "http.server.request.duration", "sidecar.circuit_breaker.not_permitted"
CONNECTIONS, STATE = "sidecar.upstream.connections", "sidecar.circuit_breaker.state"


SPREAD = [1.5e-6 * 1.0905**step for step in range(180)]
"""Seconds, in more buckets than are kept at the finest scale."""


class Collector:
    """A sink that may be down."""

    def __init__(self) -> None:
        self.is_up = True
        self.got: dict[str, Any] = {}

    def send(self, request: bytes) -> int | None:
        if not self.is_up:
            return None
        metrics = ExportMetricsServiceRequest.FromString(request).resource_metrics[0].scope_metrics[0].metrics
        self.got = {metric.name: getattr(metric, metric.WhichOneof("data")) for metric in metrics}
        return 0

    def close(self) -> None:
        """Nothing to free."""


class Stage:
    def __init__(self, temporality: str, *, is_exponential: bool = False) -> None:
        self.numbers = Numbers(is_exponential=is_exponential)
        self.rejected = 0
        self.prefix: str | None = None
        self.collector = Collector()
        builder = MetricBuilder(
            self.numbers,
            Resource({}),
            InstrumentationScope("t"),
            Temporality(temporality, START_NS),
            is_exponential=is_exponential,
        )
        self.pipeline = MetricPipeline(builder, self._sources, self.collector, 60.0)

    def _sources(self) -> Sources:
        reading = BreakerReading("checkout", "payments", State.OPEN, rejected=self.rejected)
        return Sources(breakers=[reading], metrics_prefix=self.prefix)

    def collect(self) -> dict[str, Any]:
        self.pipeline.send_all()
        return self.collector.got


def count(metric: Any) -> int:
    return int(metric.data_points[0].count)


@pytest.mark.parametrize(
    ("preference", "of_routes", "of_breakers"),
    [
        ("cumulative", CUMULATIVE, CUMULATIVE),
        ("delta", DELTA, DELTA),
        ("lowmemory", DELTA, CUMULATIVE),
    ],
)
def test_the_preference_decides_for_counters_and_histograms(
    preference: str, of_routes: int, of_breakers: int
) -> None:
    stage = Stage(preference)
    count_ended(stage.numbers, FakeExchange())
    got = stage.collect()
    assert got[SERVER].aggregation_temporality == of_routes
    assert got[REJECTED].aggregation_temporality == of_breakers
    assert got[REJECTED].is_monotonic
    assert got[STATE].aggregation_temporality == CUMULATIVE, "a sum that falls is never a delta"
    assert not got[STATE].is_monotonic


def test_a_cumulative_sum_keeps_its_start() -> None:
    stage = Stage("cumulative")
    for calls in (1, 2, 3):
        count_ended(stage.numbers, FakeExchange())
        point = stage.collect()[SERVER].data_points[0]
        assert (point.count, point.start_time_unix_nano) == (calls, START_NS)


def test_a_delta_begins_where_the_last_one_ended() -> None:
    stage = Stage("delta")
    count_ended(stage.numbers, FakeExchange())
    stage.rejected = 5
    first = stage.collect()
    assert (count(first[SERVER]), first[REJECTED].data_points[0].as_int) == (1, 5)
    for _ in range(3):
        count_ended(stage.numbers, FakeExchange(started=100.0, ended=100.25))
    stage.rejected = 7
    second = stage.collect()
    point = second[SERVER].data_points[0]
    assert (point.count, sum(point.bucket_counts), point.sum) == (3, 3, pytest.approx(0.75))
    assert second[REJECTED].data_points[0].as_int == 2
    assert point.start_time_unix_nano == first[SERVER].data_points[0].time_unix_nano


def test_what_a_collector_missed_is_in_the_next_delta() -> None:
    stage = Stage("delta")
    count_ended(stage.numbers, FakeExchange())
    first = stage.collect()
    stage.collector.is_up = False
    count_ended(stage.numbers, FakeExchange())
    stage.collect()
    stage.collector.is_up = True
    count_ended(stage.numbers, FakeExchange())
    point = stage.collect()[SERVER].data_points[0]
    assert point.count == 2
    assert point.start_time_unix_nano == first[SERVER].data_points[0].time_unix_nano


def exponential_counts(point: Any) -> dict[int, int]:
    """By the index of OpenTelemetry: bucket `i` is over `2 ** (i / 8)`."""
    counts = enumerate(point.positive.bucket_counts, start=point.positive.offset)
    return {index: count for index, count in counts if count}


def test_exponential_histograms_stand_where_the_others_did() -> None:
    stage = Stage("cumulative", is_exponential=True)
    for seconds in (0.0, 0.25, 0.26, 0.26, 4.0, 4.1):
        count_ended(stage.numbers, FakeExchange(started=100.0, ended=100.0 + seconds))
    got = stage.collect()
    assert got[SERVER].aggregation_temporality == CUMULATIVE
    (point,) = got[SERVER].data_points
    assert (point.count, point.scale, point.zero_count, point.zero_threshold) == (6, 3, 1, 2.0**-20)
    assert exponential_counts(point) == {-17: 1, -16: 2, 15: 1, 16: 1}
    assert point.sum == pytest.approx(8.87)
    assert (point.start_time_unix_nano, len(point.negative.bucket_counts)) == (START_NS, 0)
    assert {len(one.trace_id) for one in point.exemplars} == {16}
    assert got["sidecar.deadline.budget"].data_points[0].explicit_bounds, "kept in these alone"


def test_a_row_of_zeros_alone_is_sent() -> None:
    stage = Stage("cumulative", is_exponential=True)
    count_ended(stage.numbers, FakeExchange(started=100.0, ended=100.0, attempts=()))
    (point,) = stage.collect()[SERVER].data_points
    assert (point.count, point.zero_count, exponential_counts(point)) == (1, 1, {})


def test_deltas_of_exponential_histograms_add_up_across_scales() -> None:
    """The second one has come to a coarser scale meanwhile."""
    stage = Stage("delta", is_exponential=True)
    count_ended(stage.numbers, FakeExchange(started=0.0, ended=0.25, attempts=()))
    first = stage.collect()[SERVER].data_points[0]
    stage.collector.is_up = False
    spread = [1.5e-6 * 1.0905**step for step in range(340)]
    for seconds in (0.0, *spread[:170]):
        count_ended(stage.numbers, FakeExchange(started=0.0, ended=seconds, attempts=()))
    stage.collect()
    stage.collector.is_up = True
    for seconds in spread[170:]:
        count_ended(stage.numbers, FakeExchange(started=0.0, ended=seconds, attempts=()))
    second = stage.collect()[SERVER].data_points[0]
    assert (first.count, first.scale) == (1, 3)
    assert second.scale < 3
    assert (second.count, second.zero_count) == (341, 1)
    assert sum(exponential_counts(second).values()) == 340
    assert second.start_time_unix_nano == first.time_unix_nano
    count_ended(stage.numbers, FakeExchange(started=0.0, ended=0.25, attempts=()))
    third = stage.collect()[SERVER].data_points[0]
    assert (third.count, list(exponential_counts(third).values())) == (1, [1])


def test_a_count_that_begins_anew_is_all_new() -> None:
    stage = Stage("delta")
    stage.rejected = 9
    stage.collect()
    stage.rejected = 4
    assert stage.collect()[REJECTED].data_points[0].as_int == 4


def test_a_route_that_comes_back_is_counted_from_nothing() -> None:
    stage = Stage("delta")
    count_ended(stage.numbers, FakeExchange())
    count_ended(stage.numbers, FakeExchange())
    stage.collect()
    stage.numbers.retain(set())
    stage.collect()
    count_ended(stage.numbers, FakeExchange())
    count_ended(stage.numbers, FakeExchange())
    count_ended(stage.numbers, FakeExchange())
    assert count(stage.collect()[SERVER]) == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([0.011], [0.019, 0.019]),  # the same bucket of those with given bounds
        (SPREAD, [min(bound for bound in DURATION_BOUNDS if bound >= one) for one in SPREAD] * 2),
        ([0.0, 0.0], [0.001, 0.001, 0.001]),
        ([0.012, 0.018], [0.011, 0.011, 0.0111]),
    ],
    ids=["other buckets", "a finer scale", "fewer zeros", "one bucket more and one less"],
)
def test_a_route_that_left_and_came_back_between_two_rounds_is_counted_from_nothing(
    before: list[float], after: list[float]
) -> None:
    """As by a reload and its taking back. Not by one of its buckets there are fewer than before."""
    stage = Stage("delta", is_exponential=True)
    for seconds in before:
        count_ended(stage.numbers, FakeExchange(started=0.0, ended=seconds, attempts=()))
    stage.collect()
    stage.numbers.retain(set())
    for seconds in after:
        count_ended(stage.numbers, FakeExchange(started=0.0, ended=seconds, attempts=()))
    (point,) = stage.collect()[SERVER].data_points
    assert point.count == len(after)
    assert point.zero_count + sum(exponential_counts(point).values()) == len(after)


def clocks(monkeypatch: pytest.MonkeyPatch, wall_ns: int, monotonic_ns: int) -> None:
    monkeypatch.setattr("time.time_ns", lambda: wall_ns)
    monkeypatch.setattr("time.monotonic_ns", lambda: monotonic_ns)


def test_a_cumulative_series_that_comes_back_begins_after_it_was_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage("cumulative")
    starts = []
    for round_number, is_there in enumerate((True, True, False, False, True, True), start=1):
        clocks(monkeypatch, START_NS + round_number * 10, round_number * 10)
        if is_there:
            count_ended(stage.numbers, FakeExchange())
        else:
            stage.numbers.retain(set())
        got = stage.collect()
        if is_there:
            (point,) = got[SERVER].data_points
            starts.append(
                (point.start_time_unix_nano - START_NS, point.time_unix_nano - START_NS, point.count)
            )
    assert starts == [(0, 10, 1), (0, 20, 2), (40, 50, 1), (40, 60, 2)]


def test_a_cumulative_count_that_begins_anew_says_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("cumulative")
    starts = []
    for round_number, stage.rejected in enumerate((9, 9, 4, 7), start=1):
        clocks(monkeypatch, START_NS + round_number * 10, round_number * 10)
        starts.append(stage.collect()[REJECTED].data_points[0].start_time_unix_nano - START_NS)
    assert starts == [0, 0, 20, 20]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("step_seconds", [-3600, 3600])
def test_a_wall_clock_that_is_set_makes_nothing_end_before_it_begins(
    temporality: str, step_seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic, wall, second = 0, START_NS, 1_000_000_000
    stage = Stage(temporality)
    for round_number in range(1, 6):
        monotonic += 10 * second
        wall += (10 + (step_seconds if round_number == 3 else 0)) * second
        clocks(monkeypatch, wall, monotonic)
        stage.rejected += 1
        count_ended(stage.numbers, FakeExchange())
        for metric in (got := stage.collect())[SERVER], got[REJECTED]:
            (point,) = metric.data_points
            lasted = (point.time_unix_nano - point.start_time_unix_nano) / second
            assert lasted == 10 * (round_number if temporality == "cumulative" else 1)


def test_a_wall_clock_that_runs_a_little_wrong_moves_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("cumulative")
    starts = set()
    for round_number in range(1, 6):
        clocks(monkeypatch, START_NS + round_number * 10_001_000_000, round_number * 10_000_000_000)
        stage.rejected += 1
        starts.add(stage.collect()[REJECTED].data_points[0].start_time_unix_nano)
    assert starts == {START_NS}


class Breaking(Collector):
    """The first request that tells of refused calls ends the round; from then on it adds them up."""

    def __init__(self) -> None:
        super().__init__()
        self.is_whole = True
        self.rejected = 0

    def send(self, request: bytes) -> int | None:
        told = ExportMetricsServiceRequest.FromString(request).resource_metrics[0].scope_metrics[0].metrics
        points = [point for metric in told if metric.name == REJECTED for point in metric.sum.data_points]
        if points and self.is_whole:
            self.is_whole = False
            raise RuntimeError("the round is over")
        self.rejected += sum(point.as_int for point in points)
        return 0


def test_a_prefix_changes_names_and_nothing_else() -> None:
    def data(prefix: str | None) -> dict[str, Any]:
        stage = Stage("delta")
        stage.prefix = prefix
        count_ended(stage.numbers, FakeExchange())
        stage.collect()
        count_ended(stage.numbers, FakeExchange())
        return stage.collect()

    plain, named = data(None), data("mesh")
    assert set(plain) - set(named) == {SERVER, "http.client.request.duration", "http.server.active_requests"}
    assert set(named) - set(plain) == {f"mesh.{name}" for name in set(plain) - set(named)}
    assert (count(plain[SERVER]), count(named[f"mesh.{SERVER}"])) == (1, 1)


def test_what_a_round_that_broke_off_had_offered_is_in_the_next_delta() -> None:
    breakers = [
        BreakerReading(f"route-{number}", "payments", State.OPEN, rejected=5) for number in range(800)
    ]
    collector = Breaking()
    builder = MetricBuilder(
        Numbers(), Resource({}), InstrumentationScope("t"), Temporality("delta", START_NS)
    )
    pipeline = MetricPipeline(builder, lambda: Sources(breakers=breakers), collector, 60.0)
    with pytest.raises(RuntimeError):
        pipeline.send_all()
    pipeline.send_all()
    assert collector.rejected == 5 * len(breakers)


def test_a_room_that_stands_for_one_that_ended_tells_no_delta_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    collector, numbers = Collector(), Numbers()
    monkeypatch.setattr("sidecar.telemetry.export.make_sink", lambda *_, **__: collector)
    environ = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    file = Telemetry(otlp=Otlp(endpoint="http://127.0.0.1:4317"))
    room: TelemetryRoom | None = None
    told = []
    fd = os.open(os.devnull, os.O_WRONLY)
    for calls in (2, 3):
        room = TelemetryRoom(file, numbers, Sources, environ=environ, log_fd=fd, instead_of=room)
        room.start()
        for _ in range(calls):
            count_ended(numbers, FakeExchange())
        room.stop()
        told.append(count(collector.got[SERVER]))
    os.close(fd)
    assert told == [2, 3]
