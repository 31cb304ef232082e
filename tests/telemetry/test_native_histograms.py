"""A scrape by protobuf, as protobuf's own library reads it: the same as the text, and native histograms beside it."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from math import inf
from typing import Any

import prometheus_client.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin import prometheus, prometheus_protobuf
from sidecar.admin.scrape import metrics_response
from sidecar.core.exponential import MAX_BUCKETS, SCALE, ZERO_THRESHOLD
from sidecar.core.numbers import Numbers
from sidecar.core.sources import ProcessNumbers, Sources, WorkerNumbers
from sidecar.serving.message import Response
from tests.support.asked import asked
from tests.support.prometheus_messages import COUNTER, GAUGE, HISTOGRAM, families, labels, native_counts
from tests.telemetry.fakes import FakeAttempt, FakeExchange, count_ended
from tests.telemetry.test_prometheus import ODD_NAMES, full
from tests.telemetry.test_scrape import NATIVE, PROMETHEUS, SOURCES

SERVER, CLIENT = "http_server_request_duration_seconds", "http_client_request_duration_seconds"
KINDS = {"counter": COUNTER, "gauge": GAUGE, "histogram": HISTOGRAM}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def everything(*, is_exponential: bool = True) -> tuple[Numbers, Sources]:
    """Numbers in which every metric has a point, and names that must be written with care."""
    numbers, sources = full(is_exponential=is_exponential)
    for name in ODD_NAMES:
        count_ended(numbers, FakeExchange(route_name=name, attempts=(FakeAttempt(upstream=name),)))
    for seconds in (0.0, 0.0005, 0.012, 0.013, 0.7, 80.0):
        count_ended(numbers, FakeExchange(started=100.0, ended=100.0 + seconds))
    process = ProcessNumbers(1.5, 2, 3, 4, 5, 6.25)
    workers = [WorkerNumbers(0, True, 2, 7, process), WorkerNumbers(1, False, 2, 7)]
    return numbers, replace(
        sources, build=SOURCES.build, resource=SOURCES.resource, process=process, workers=workers
    )


def written(numbers: Numbers, sources: Sources) -> dict[str, Any]:
    pieces = [*prometheus_protobuf.render_own(sources)]
    pieces += prometheus_protobuf.render(numbers, sources, wall_offset=1_700_000_000.0)
    return families(b"".join(pieces))


def samples(found: dict[str, Any]) -> Samples:
    """As a text would have them."""
    told: Samples = {}
    for name, family in found.items():
        for metric in family.metric:
            own = labels(metric)
            key = frozenset(own.items())
            if family.type == HISTOGRAM:
                row = metric.histogram
                told[f"{name}_count", key] = row.sample_count
                told[f"{name}_sum", key] = row.sample_sum
                for bucket in row.bucket:
                    le = "+Inf" if bucket.upper_bound == inf else repr(bucket.upper_bound)
                    told[f"{name}_bucket", frozenset({**own, "le": le}.items())] = bucket.cumulative_count
            else:
                kind = "counter" if family.type == COUNTER else "gauge"
                assert metric.HasField(kind)
                told[name, key] = getattr(metric, kind).value
    return told


def test_it_says_what_the_text_says() -> None:
    numbers, sources = everything()
    text = "".join(prometheus.render_own(sources, openmetrics=False))
    text += "".join(prometheus.render(numbers, sources, openmetrics=False, wall_offset=0.0))
    parsed = list(prometheus_client.parser.text_string_to_metric_families(text))
    found = written(numbers, sources)
    expected = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parsed
        for sample in family.samples
    }
    assert len(expected) > 300
    assert samples(found) == expected
    totals = {family.name + ("_total" if family.type == "counter" else ""): family for family in parsed}
    assert {name: (one.type, one.help) for name, one in found.items()} == {
        name: (KINDS[family.type], family.documentation) for name, family in totals.items()
    }
    assert {found[name].unit for name in (SERVER, "process_cpu_seconds_total")} == {"seconds"}


def test_both_durations_have_native_buckets_whose_counts_are_those_of_the_others() -> None:
    numbers, sources = everything()
    found = written(numbers, sources)
    checked = 0
    for name in (SERVER, CLIENT):
        for metric in found[name].metric:
            row = metric.histogram
            assert (row.schema, row.zero_threshold) == (SCALE, ZERO_THRESHOLD)
            counts = native_counts(row)
            assert sum(counts.values()) + row.zero_count == row.sample_count
            assert all(counts.values())
            checked += 1
    assert checked > 2 * len(ODD_NAMES)
    one = next(m for m in found[SERVER].metric if labels(m)["sidecar_route"] == "checkout")
    assert one.histogram.zero_count == 1
    assert set(native_counts(one.histogram)) == {-87, -51, -50, -44, -4, 51}
    others = {name for name, family in found.items() if family.type == HISTOGRAM} - {SERVER, CLIENT}
    assert others
    for name in others:
        for metric in found[name].metric:
            assert not metric.histogram.HasField("schema")
            assert not metric.histogram.HasField("zero_threshold"), "one of these makes it native"


@given(
    st.lists(st.one_of(st.floats(0.0, 1e5), st.floats(0.001, 0.1)), min_size=1, max_size=200),
    st.booleans(),
)
def test_runs_and_differences_give_the_buckets_back(values: list[float], is_spread: bool) -> None:
    numbers = Numbers(is_exponential=True)
    if is_spread:
        values = values + [1.5e-6 * 1.0905**step for step in range(300)]
    for value in values:
        count_ended(numbers, FakeExchange(started=0.0, ended=value, attempts=()))
    (metric,) = written(numbers, Sources())[SERVER].metric
    ((row,),) = [list(route.server.values()) for route in numbers.routes()]
    buckets = row.state[2]
    assert buckets is not None
    assert native_counts(metric.histogram) == dict(sorted(buckets.counts.items()))
    assert metric.histogram.schema == buckets.scale
    assert metric.histogram.zero_count == buckets.zeros
    assert len(metric.histogram.positive_delta) <= MAX_BUCKETS


def test_a_row_of_nothing_but_zeros_is_native_too() -> None:
    numbers = Numbers(is_exponential=True)
    count_ended(numbers, FakeExchange(started=1.0, ended=1.0, attempts=()))
    (metric,) = written(numbers, Sources())[SERVER].metric
    assert (metric.histogram.zero_count, native_counts(metric.histogram)) == (1, {})
    assert metric.histogram.zero_threshold > 0.0


def test_exemplars_stand_in_the_buckets_of_the_other_kind() -> None:
    numbers, sources = everything()
    found = written(numbers, sources)
    one = next(m for m in found[SERVER].metric if labels(m)["sidecar_route"] == "checkout")
    (last,) = [b.exemplar for b in one.histogram.bucket if b.upper_bound == inf]
    assert labels(last) == {
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
    }
    assert last.value == 80.0
    assert (last.timestamp.seconds, last.timestamp.nanos) == (1_700_000_180, 0)


def test_thousand_routes_are_made_in_pieces() -> None:
    numbers = Numbers(is_exponential=True)
    for index in range(1000):
        count_ended(numbers, FakeExchange(route_name=f"route-{index}"))
    pieces = list(prometheus_protobuf.render(numbers, Sources(), wall_offset=0.0))
    assert pieces.count(b"") >= 2 * 1000 / 50
    assert len(families(b"".join(pieces))[SERVER].metric) == 1000


class Process:
    def __init__(self, *, native_histograms: bool) -> None:
        self._numbers, sources = everything(is_exponential=native_histograms)
        self._sources = replace(sources, native_histograms=native_histograms)

    async def scraped(self) -> tuple[Numbers, Sources]:
        return self._numbers, self._sources

    async def scrape(self, accept: str, coding: str = "identity") -> Response:
        return await metrics_response(
            asked("/metrics", **{"accept": accept, "accept-encoding": coding}), self
        )


async def test_who_asks_for_protobuf_gets_it_and_everybody_else_the_text() -> None:
    process = Process(native_histograms=True)
    answer = await process.scrape(NATIVE)
    assert answer.fields["Content-Type"] == prometheus_protobuf.CONTENT_TYPE
    assert answer.fields["Vary"] == "Accept, Accept-Encoding"
    assert isinstance(answer.body, bytes)
    assert families(answer.body)[SERVER].metric
    packed = await process.scrape(NATIVE, "gzip")
    assert packed.fields["Content-Encoding"] == "gzip"
    assert isinstance(packed.body, bytes)
    assert samples(families(gzip.decompress(packed.body))) == samples(families(answer.body))
    for accept, kind in (
        (PROMETHEUS, prometheus.OPENMETRICS_CONTENT_TYPE),
        ("*/*", prometheus.TEXT_CONTENT_TYPE),
    ):
        assert (await process.scrape(accept)).fields["Content-Type"] == kind


def without_times(answer: Response) -> bytes:
    """Those of exemplars are told by a clock that is read for each scrape."""
    assert isinstance(answer.body, bytes)
    return re.sub(rb"(# \{.*\} \S+) \S+", rb"\1", answer.body)


@pytest.mark.parametrize("accept", [PROMETHEUS, "text/plain", "*/*"])
async def test_texts_are_the_same_with_the_option_as_without(accept: str) -> None:
    answers = [await Process(native_histograms=one).scrape(accept) for one in (False, True)]
    assert len({without_times(one) for one in answers}) == 1


async def test_without_the_option_who_asks_for_protobuf_gets_the_next_best() -> None:
    answer = await Process(native_histograms=False).scrape(NATIVE)
    assert answer.fields["Content-Type"] == prometheus.OPENMETRICS_CONTENT_TYPE
