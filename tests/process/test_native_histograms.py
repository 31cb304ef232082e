"""Real Prometheis beside a real sidecar, one that takes native histograms and one that does not know of them; and a
collector that gets exponential ones."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.support.ports import free_ports
from tests.support.process import sidecar
from tests.support.prometheus import MONITORING, WAIT_SECONDS, Prometheus, needs_prometheus, prometheus
from tests.support.web_app import web_app
from tests.telemetry.test_scrape import PROTOBUF

pytestmark = pytest.mark.process

NAME = "http_server_request_duration_seconds"
BOUNDS_MS = sorted({round(4 * 1.25**step) for step in range(32)})
"""Close, so that both kinds must say nearly the same."""
FACTOR = 2 ** (1 / 8)
REQUESTS = 200
TAKES_NATIVE = "--enable-feature=native-histograms"


@asynccontextmanager
async def serving(
    folder: Path, metrics: str, workers: int = 1, otlp: str = "null"
) -> AsyncIterator[tuple[int, int]]:
    """A sidecar before a service that takes as long as it is told to: the ports of its listener and of its probes."""

    async def take(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query["seconds"]))
        return web.Response(status=int(request.query["status"]))

    app = web.Application()
    app.router.add_get("/", take)
    inbound, probes, admin = free_ports(3)
    file = folder / "sidecar.yaml"
    async with web_app(app) as service:
        file.write_text(f"""\
version: 1
workers: {workers}
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
telemetry: {{metrics: {metrics}, otlp: {otlp}}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{service}"]}}}}
routes: [{{name: shop, upstream: app}}]
""")
        async with sidecar(file, probes, folder / "log"):
            yield inbound, probes


def folder_of(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


async def ask(inbound: int, delays: list[float], status: int = 200) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:

        async def one(seconds: float) -> None:
            url = f"http://127.0.0.1:{inbound}/?seconds={seconds}&status={status}"
            async with session.get(url) as answer:
                assert answer.status == status

        await asyncio.gather(*map(one, delays))


async def value(asking: Prometheus, query: str) -> float:
    ((_, found),) = await asking.rows(query)
    return float(found)


def is_count(number: int) -> Any:
    return lambda rows: bool(rows) and float(rows[0][1]) == number


@needs_prometheus
@pytest.mark.parametrize("workers", [1, 2])
async def test_native_and_other_buckets_tell_the_same_story(tmp_path: Path, workers: int) -> None:
    buckets = ", ".join(f"{bound}ms" for bound in BOUNDS_MS)
    options = f"{{native_histograms: true, buckets: [{buckets}]}}"
    draw = random.Random(5)
    native_count, classic_count = f"histogram_count(sum({NAME}))", f"sum({NAME}_count)"
    async with (
        serving(tmp_path, options, workers) as (inbound, probes),
        prometheus(folder_of(tmp_path, "native"), [probes], TAKES_NATIVE) as native,
        prometheus(folder_of(tmp_path, "classic"), [probes]) as classic,
    ):
        for delays in ([0.001], [draw.uniform(0.005, 0.1) for _ in range(REQUESTS - 1)]):
            await ask(inbound, delays)
            sent = 1 if len(delays) == 1 else REQUESTS
            await native.until(native_count, is_count(sent))
            await classic.until(classic_count, is_count(sent))

        for form in ("{}", "rate({}[10m])"):  # all of them, and all but the first
            for share in (0.5, 0.9, 0.99):
                own, other = form.format(NAME), form.format(f"{NAME}_bucket")
                told = await value(native, f"histogram_quantile({share}, sum({own}))")
                close = await value(classic, f"histogram_quantile({share}, sum by (le) ({other}))")
                place = bisect_left(BOUNDS_MS, close * 1000 * (1 - 1e-9))
                lower, upper = BOUNDS_MS[place - 1] / 1000, BOUNDS_MS[place] / 1000
                assert lower / FACTOR <= told <= upper * FACTOR, (form, share, told, close)
        told_sum = await value(native, f"histogram_sum(sum({NAME}))")
        assert told_sum == pytest.approx(await value(classic, f"sum({NAME}_sum)"))

        assert await native.rows(f"{NAME}_bucket") == [], (
            "this one keeps native ones alone unless it is told to"
        )
        assert await classic.rows(NAME) == []
        for asking in (native, classic):
            assert await value(asking, "up") == 1
            for name in (
                "target_info",
                "sidecar_build_info",
                "process_cpu_seconds_total",
                "sidecar_loop_lag_seconds_count",
            ):
                assert await asking.rows(name), name
            transitions = await asking.rows('sidecar_circuit_breaker_transitions_total{sidecar_route="shop"}')
            assert {found for _, found in transitions} == {"0"}


@needs_prometheus
async def test_alerts_see_requests_where_native_ones_are_all_that_is_kept(tmp_path: Path) -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    alerts = {one.get("alert"): one for group in rules["groups"] for one in group["rules"]}
    async with (
        serving(tmp_path, "{native_histograms: true}") as (inbound, probes),
        prometheus(tmp_path, [probes], TAKES_NATIVE) as native,
    ):
        for delays in ([0.001], [0.001] * 100):
            await ask(inbound, delays, status=503)
            await native.until(f'histogram_count(sum({NAME}{{error_type!=""}}))', bool)
        ((labels, ratio),) = await native.until(alerts["SidecarErrorRatioHigh"]["expr"], bool)
        assert labels == {"sidecar_route": "shop"}
        assert float(ratio) == pytest.approx(1.0)
        share = alerts["SidecarDeadlineRejections"]["expr"].replace("> 0.01", "== 0")
        assert [labels for labels, _ in await native.rows(share)] == [{"sidecar_route": "shop"}]


@needs_prometheus
async def test_without_the_option_who_takes_native_ones_gets_the_others(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, "{}") as (inbound, probes),
        prometheus(tmp_path, [probes], TAKES_NATIVE) as native,
    ):
        await ask(inbound, [0.001, 0.002])
        await native.until(f"sum({NAME}_count)", is_count(2))
        assert await native.rows(NAME) == []
        assert await native.rows(f'{NAME}_bucket{{le="+Inf"}}')


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_collector_gets_exponential_ones_where_the_variable_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"
    )
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    counts: dict[str, int] = {}
    """By the process that sent it."""
    enough = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        told = ExportMetricsServiceRequest.FromString(await request.read())
        for of_resource in told.resource_metrics:
            who = next(one for one in of_resource.resource.attributes if one.key == "service.instance.id")
            for metric in of_resource.scope_metrics[0].metrics:
                if metric.name == "http.server.request.duration":
                    assert metric.WhichOneof("data") == "exponential_histogram"
                    (point,) = metric.exponential_histogram.data_points
                    assert sum(point.positive.bucket_counts) + point.zero_count == point.count
                    counts[who.value.string_value] = point.count
        if sum(counts.values()) == 20:
            enough.set()
        return web.Response(content_type="application/x-protobuf")

    collector = web.Application()
    collector.router.add_post("/v1/metrics", take)
    async with web_app(collector) as port:
        otlp = f'{{endpoint: "http://127.0.0.1:{port}", protocol: http/protobuf}}'
        async with serving(tmp_path, "{interval: 100ms}", workers, otlp) as (inbound, probes):
            await ask(inbound, [0.001] * 20)
            await asyncio.wait_for(enough.wait(), WAIT_SECONDS)
            accept = f"{PROTOBUF}, text/plain;q=0.5"
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{probes}/metrics", headers={"Accept": accept}) as answer,
            ):
                assert answer.content_type == "text/plain", "the variable is about OTLP alone"
                assert f"{NAME}_bucket" in await answer.text()
