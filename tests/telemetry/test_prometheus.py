"""What Prometheus scrapes: exact text, promtool's opinion, a real scrape, and the dashboards built on the names."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import prometheus_client.openmetrics.parser
import prometheus_client.parser
import pytest
from aiohttp import web

from sidecar.admin.prometheus import (
    OPENMETRICS_CONTENT_TYPE,
    TEXT_CONTENT_TYPE,
    metric_name,
    render,
)
from sidecar.admin.scrape import wants_openmetrics
from sidecar.core.ejection.change import EjectionReason, Health
from sidecar.core.errors import Reason
from sidecar.core.families import FAMILIES, MetricKind
from sidecar.core.health import CheckEnd, CheckState
from sidecar.core.mirrored import CopyOutcome
from sidecar.core.numbers import Numbers
from sidecar.core.observe import Notice
from sidecar.core.sources import (
    BreakerReading,
    FailoverReading,
    MemoryNumbers,
    OverloadNumbers,
    Sources,
    UpstreamNumbers,
)
from sidecar.core.tls_numbers import CertificateNumbers
from sidecar.core.transition import State, Transition, TransitionReason, WindowNumbers
from tests.telemetry.conftest import free_port
from tests.telemetry.fakes import FakeAttempt, FakeExchange

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package `prometheus`)"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian's package `prometheus`)"
)


def full() -> tuple[Numbers, Sources]:
    """Numbers in which every metric has at least one point."""
    numbers = Numbers()
    for exchange in (
        FakeExchange(attempts=(FakeAttempt(), FakeAttempt())),
        FakeExchange(status=504, reason=Reason.TIMEOUT, started=90.0),
        FakeExchange(
            route_name='odd "name"\\',
            budget_source="trace",
            is_sampled=False,
            attempts=(FakeAttempt(), FakeAttempt(status=0, resend=1, is_hedge=True)),
        ),
    ):
        numbers.finished(exchange)
    numbers.noticed(Notice.RETRY_BUDGET_EXHAUSTED, "checkout")
    numbers.copy_ended("checkout", "shadow", CopyOutcome.ANSWERED)
    reason = TransitionReason.FAILURE_RATE
    numbers.transitioned(
        Transition(1, "checkout", "payments", State.CLOSED, State.OPEN, reason, 1.0, WindowNumbers())
    )
    sources = Sources(
        breakers=[BreakerReading("checkout", "payments", State.OPEN, successful=3, failed=5, rejected=2)],
        upstreams=[
            UpstreamNumbers(
                "payments",
                active=2,
                idle=1,
                pending=0,
                server=("pay", 80),
                endpoints={Health.USABLE: 2},
                ejections={EjectionReason.FAILURE_RATE: 1},
                checked={CheckState.HEALTHY: 2},
                checks={CheckEnd.PASSED: 7},
                checks_delayed=1,
            )
        ],
        failovers=[FailoverReading("checkout", "payments", 0.56, {"dr": 3})],
        memory=MemoryNumbers(4096, 65536, {"head": 1}, 2),
        copies={"checkout": 1},
        connections_refused={"inbound": 0},
        overloads=[OverloadNumbers("inbound", is_on=True, refused=3, left=2)],
        certificates=[CertificateNumbers("listener/inbound", "/tls/tls.crt", 86_400.5)],
        certificate_changes={("listener/inbound", "failure"): 1},
        handshakes={("inbound", "done"): 7},
        dropped={("traces", "queue_full"): 4},
    )
    return numbers, sources


def text(*, openmetrics: bool = False) -> str:
    return "".join(render(*full(), openmetrics=openmetrics, wall_offset=1_700_000_000.0))


def test_histogram_lines_are_cumulative() -> None:
    labels = (
        'sidecar_route="checkout",sidecar_listener="outbound",http_request_method="GET",url_scheme="http"'
    )
    labels += ',http_response_status_code="200"'
    lines = [line for line in text().splitlines() if labels in line and line.startswith("http_server")]
    name = "http_server_request_duration_seconds"
    assert lines[1] == f'{name}_bucket{{{labels},le="0.01"}} 0'
    assert lines[2] == f'{name}_bucket{{{labels},le="0.025"}} 1'
    assert lines[14] == f'{name}_bucket{{{labels},le="+Inf"}} 1'
    assert lines[15].startswith(f"{name}_sum{{{labels}}} 0.022")
    assert lines[16] == f"{name}_count{{{labels}}} 1"


def test_heads_and_escaping() -> None:
    lines = text().splitlines()
    assert "# TYPE http_server_request_duration_seconds histogram" in lines
    assert "# HELP http_server_request_duration_seconds Duration of HTTP server requests." in lines
    assert "# TYPE sidecar_deadline_exceeded_total counter" in lines
    assert "# TYPE http_server_active_requests gauge" in lines
    assert (
        'sidecar_deadline_exceeded_total{sidecar_route="odd \\"name\\"\\\\",sidecar_listener="outbound"} 0'
        in lines
    )
    state = 'sidecar_circuit_breaker_state{sidecar_route="checkout",sidecar_upstream="payments",'
    assert state + 'sidecar_circuit_breaker_state="open"} 1' in lines
    assert "#" not in {line[-1] for line in lines}
    assert not any("trace_id" in line for line in lines), "0.0.4 has no exemplars"


def test_openmetrics_has_exemplars_units_and_an_end() -> None:
    lines = text(openmetrics=True).splitlines()
    assert lines[-1] == "# EOF"
    assert "# TYPE sidecar_deadline_exceeded counter" in lines
    assert "# UNIT http_server_request_duration_seconds seconds" in lines
    found = [line for line in lines if "# {" in line and line.startswith("http_server")]
    ids = '# {trace_id="4bf92f3577b34da6a3ce929d0e0e4736",span_id="00f067aa0ba902b7"}'
    assert any(re.search(re.escape(ids) + r" 0\.022\d* 1700000100\.022$", line) for line in found)
    client = [line for line in lines if "# {" in line and line.startswith("http_client")]
    assert 'span_id="00f067aa0ba902b8"' in client[0]


def test_thousand_routes_are_rendered_in_pieces() -> None:
    numbers = Numbers()
    for index in range(1000):
        numbers.finished(FakeExchange(route_name=f"route-{index}"))
    pieces = list(render(numbers, Sources(), openmetrics=False, wall_offset=0.0))
    assert max(map(len, pieces)) < len("".join(pieces)) / 20


def sample_names() -> set[str]:
    return {
        re.split(r"[ {]", line, maxsplit=1)[0] for line in text().splitlines() if not line.startswith("#")
    }


def label_names() -> set[str]:
    return set(re.findall(r'[{,]([a-z_]+)="', text()))


def test_every_family_is_rendered() -> None:
    names = sample_names()
    for family in FAMILIES:
        suffix = {MetricKind.COUNTER: "_total", MetricKind.HISTOGRAM: "_bucket"}.get(family.kind, "")
        assert metric_name(family) + suffix in names


@needs_promtool
def test_promtool_finds_nothing_to_say() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text(), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


ODD_NAMES = (
    'a"b',
    "a\\",
    "\\n",
    "two\nlines",
    '{x="y"}',
    "a,b=c",
    " # EOF",
    "ünïcödé ☃",
    "\u2028",
    "tab\t",
    '"',
)


@pytest.mark.parametrize(
    ("parse", "openmetrics"),
    [
        (prometheus_client.parser.text_string_to_metric_families, False),
        (prometheus_client.openmetrics.parser.text_string_to_metric_families, True),
    ],
)
def test_a_strict_parser_reads_whatever_name_a_route_has(parse: Any, *, openmetrics: bool) -> None:
    numbers, sources = full()
    for name in ODD_NAMES:
        attempts = (FakeAttempt(upstream=name),)
        numbers.finished(FakeExchange(route_name=name, attempts=attempts, started=100.0219999))
    page = "".join(render(numbers, sources, openmetrics=openmetrics, wall_offset=1_700_000_000.0))
    families = {family.name: family for family in parse(page)}
    assert len(families) == len(FAMILIES)
    served = families["http_server_request_duration_seconds"]
    counts = {s.labels["sidecar_route"]: s.value for s in served.samples if s.name.endswith("_count")}
    assert {name: counts[name] for name in ODD_NAMES} == dict.fromkeys(ODD_NAMES, 1)
    if openmetrics:
        assert served.unit == "seconds"
        exemplars = [sample.exemplar for sample in served.samples if sample.exemplar]
        assert {exemplar.labels["trace_id"] for exemplar in exemplars} == {FakeExchange().trace_id.decode()}


@needs_promtool
def test_alert_rules_are_valid_and_fire(tmp_path: Path) -> None:
    rules = MONITORING / "alerts.yaml"
    check = subprocess.run(
        ["promtool", "check", "rules", str(rules)], text=True, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
    cases = Path(__file__).with_name("alerts_cases.yaml").read_text().replace("RULES", str(rules))
    (tmp_path / "cases.yaml").write_text(cases)
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "cases.yaml")],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> Iterator[str]:
    yield from (MONITORING / "alerts.yaml").read_text().splitlines()
    dashboard: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["expr"]


def test_dashboard_and_alerts_use_only_names_that_are_rendered() -> None:
    used = {
        name
        for expression in expressions()
        for name in re.findall(r"\b(?:http_(?:server|client)|sidecar)_[a-z_]+\b", expression)
    }
    assert len(used) > 25
    families = {metric_name(family) for family in FAMILIES}
    assert used - sample_names() - label_names() - families == set()


def test_dashboard_is_whole() -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["type"] == "row" or panel["targets"] for panel in panels)


@needs_prometheus
async def test_prometheus_scrapes_the_counts_that_were_sent(tmp_path: Path) -> None:
    numbers, sources = full()
    asked: list[str] = []

    async def metrics(request: web.Request) -> web.StreamResponse:
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        asked.append(OPENMETRICS_CONTENT_TYPE if openmetrics else TEXT_CONTENT_TYPE)
        response = web.StreamResponse(headers={"content-type": asked[-1]})
        await response.prepare(request)
        offset = time.time() - time.monotonic()
        for piece in render(numbers, sources, openmetrics=openmetrics, wall_offset=offset):
            await response.write(piece.encode())
        return response

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    target, port = free_port(), free_port()
    await web.TCPSite(runner, "127.0.0.1", target).start()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: sidecar, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    process = await asyncio.to_thread(
        subprocess.Popen,
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        query = 'sum(http_server_request_duration_seconds_count{sidecar_route="checkout"})'
        assert await ask(port, query) == 2.0
        query = 'sidecar_circuit_breaker_state{sidecar_circuit_breaker_state="open"}'
        assert await ask(port, query) == 1.0
        assert await ask(port, "sum(sidecar_telemetry_dropped_total)") == 4.0
        assert OPENMETRICS_CONTENT_TYPE in asked
        for expression in panels():
            await assert_valid(port, expression)
    finally:
        process.kill()
        process.wait()
        await runner.cleanup()


def panels() -> Iterator[str]:
    dashboard: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$route", ".*").replace("$__rate_interval", "1m")


async def assert_valid(port: int, query: str) -> None:
    url = f"http://127.0.0.1:{port}/api/v1/query"
    async with aiohttp.ClientSession() as session, session.get(url, params={"query": query}) as answer:
        assert (await answer.json())["status"] == "success", query


async def ask(port: int, query: str) -> float:
    """The value of an instant query, once there is one."""
    async with aiohttp.ClientSession() as session:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                async with session.get(
                    f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}
                ) as answer:
                    result = (await answer.json())["data"]["result"]
                    if result:
                        return float(result[0]["value"][1])
            except (aiohttp.ClientError, KeyError):
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(f"no value for {query}")


def test_scheme_of_requests_is_that_of_their_listener() -> None:
    numbers, sources = full()
    secured = replace(sources, secured_listeners=frozenset({"outbound"}))
    for found, scheme in ((sources, "http"), (secured, "https")):
        shown = "".join(render(numbers, found, openmetrics=False, wall_offset=0.0))
        lines = [
            line
            for line in shown.splitlines()
            if line.startswith("http_server_") and 'sidecar_listener="outbound"' in line
        ]
        assert lines
        assert all(f'url_scheme="{scheme}"' in line for line in lines)
