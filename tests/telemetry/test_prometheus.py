"""What Prometheus scrapes: exact text, promtool's opinion, a real scrape, and the dashboards built on the names."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import prometheus_client.openmetrics.parser
import prometheus_client.parser
import pytest
from aiohttp import web

from sidecar.admin.prometheus import (
    OPENMETRICS_CONTENT_TYPE,
    metric_name,
    render,
)
from sidecar.admin.scrape import Format, preferred
from sidecar.core.ejection.change import EjectionReason, Health
from sidecar.core.errors import Reason
from sidecar.core.families.catalogue import FAMILIES
from sidecar.core.families.family import MetricKind
from sidecar.core.health import CheckEnd, CheckState
from sidecar.core.mirrored import CopyOutcome
from sidecar.core.numbers import Numbers
from sidecar.core.observe import Notice
from sidecar.core.retry import RetryCause
from sidecar.core.sources import (
    AdaptiveNumbers,
    BreakerReading,
    FailoverReading,
    FleetNumbers,
    MemoryNumbers,
    OverloadNumbers,
    Sources,
    UpstreamNumbers,
)
from sidecar.core.tls_numbers import CertificateNumbers
from sidecar.core.transition import State, Transition, TransitionReason, WindowNumbers
from tests.support.prometheus import MONITORING, dashboard, needs_prometheus, panels, prometheus
from tests.support.web_app import web_app
from tests.telemetry.fakes import FakeAttempt, FakeExchange, count_ended

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package `prometheus`)"
)


def full(*, is_exponential: bool = False) -> tuple[Numbers, Sources]:
    """Numbers in which every metric has at least one point."""
    numbers = Numbers(is_exponential=is_exponential)
    for exchange in (
        FakeExchange(attempts=(FakeAttempt(), FakeAttempt())),
        FakeExchange(status=504, reason=Reason.TIMEOUT, started=90.0),
        FakeExchange(
            route_name='odd "name"\\',
            budget_source="trace",
            is_sampled=False,
            attempts=(FakeAttempt(), FakeAttempt(status=0, resend=1, cause=RetryCause.HEDGE)),
        ),
    ):
        count_ended(numbers, exchange)
    numbers.noticed(Notice.RETRY_BUDGET_EXHAUSTED, "checkout")
    numbers.copy_ended("checkout", "shadow", CopyOutcome.ANSWERED)
    reason = TransitionReason.FAILURE_RATE
    numbers.transitioned(
        Transition(1, "checkout", "payments", State.CLOSED, State.OPEN, reason, 1.0, WindowNumbers())
    )
    sources = Sources(
        breakers=[
            BreakerReading(
                "checkout",
                "payments",
                State.OPEN,
                successful=3,
                failed=5,
                rejected=2,
                candidate=State.CLOSED,
                would_have_rejected={("candidate", "failure"): 1},
            )
        ],
        upstreams=[
            UpstreamNumbers(
                "payments",
                active=2,
                idle=1,
                pending=0,
                in_process=1,
                server=("pay", 80),
                endpoints={Health.USABLE: 2},
                ejections={EjectionReason.FAILURE_RATE: 1},
                checked={CheckState.HEALTHY: 2},
                checks={CheckEnd.PASSED: 7},
                checks_delayed=1,
                adaptive=AdaptiveNumbers(30, 0.05, 20, 4, 0, {"in_line": 1}),
            )
        ],
        failovers=[FailoverReading("checkout", "payments", 0.56, {"dr": 3})],
        fleet=FleetNumbers(True, 3, 7, 8, {"slow": 1}, 0, {("checkout", "payments"): False}),
        memory=MemoryNumbers(4096, 65536, {"head": 1}, 2),
        callers_across={"told": 1},
        balanced={"handed_over": 5, "waited": 1},
        admission={("checkout", "spared"): 1},
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
        'sidecar_deadline_exceeded_total{sidecar_route="odd \\"name\\"\\\\",sidecar_listener="outbound",'
        'sidecar_deadline_reason="late"} 0' in lines
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
        count_ended(numbers, FakeExchange(route_name=f"route-{index}"))
    pieces = list(render(numbers, Sources(), openmetrics=False, wall_offset=0.0))
    assert max(map(len, pieces)) < len("".join(pieces)) / 20


def test_a_prefix_stands_before_the_names_that_an_app_uses_too() -> None:
    numbers, sources = full()
    named = replace(sources, metrics_prefix="mesh.proxy")
    pages = ["".join(render(numbers, one, openmetrics=True, wall_offset=0.0)) for one in (sources, named)]
    before, after = (set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)) for page in pages)
    assert before - after == {
        "http_server_request_duration_seconds",
        "http_client_request_duration_seconds",
        "http_server_active_requests",
    }
    assert after - before == {f"mesh_proxy_{name}" for name in before - after}


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
        count_ended(numbers, FakeExchange(route_name=name, attempts=attempts, started=100.0219999))
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
    yield from (expression for _, expression in panels())
    yield from (annotation["expr"] for annotation in dashboard()["annotations"]["list"])


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
    shown = dashboard()["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    assert all(panel["type"] == "row" or panel["targets"] for panel in shown)


def test_what_an_instrumented_app_may_count_by_the_same_name_is_in_no_panel() -> None:
    of_both = {expression for expression in expressions() if "http_" in expression and "rate(" in expression}
    panels_alone = of_both & {expression for _, expression in panels()}
    assert len(panels_alone) > 5
    for expression in panels_alone:
        assert expression.count("http_") == expression.count('{sidecar_listener!="",'), expression


def test_each_metric_of_hedges_copies_and_endpoints_has_a_panel() -> None:
    shown = " ".join(expression for _, expression in panels("Retries, hedges, copies, endpoints left out"))
    prefixes = (
        "sidecar.hedge.",
        "sidecar.mirror.",
        "sidecar.ejection.",
        "sidecar.failover.",
        "sidecar.retry.",
    )
    made = {metric_name(family) for family in FAMILIES if family.name.startswith(prefixes)}
    assert {name for name in made if name not in shown} == set()


@needs_prometheus
async def test_prometheus_scrapes_the_counts_that_were_sent(tmp_path: Path) -> None:
    numbers, sources = full()
    asked: list[str] = []

    async def metrics(request: web.Request) -> web.StreamResponse:
        form = preferred(request.headers.get("accept", ""), may_be_protobuf=False)
        openmetrics = form is Format.OPENMETRICS
        asked.append(form.value)
        response = web.StreamResponse(headers={"content-type": asked[-1]})
        await response.prepare(request)
        offset = time.time() - time.monotonic()
        for piece in render(numbers, sources, openmetrics=openmetrics, wall_offset=offset):
            await response.write(piece.encode())
        return response

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    async with (
        web_app(app) as target,
        prometheus(tmp_path, [target], "--enable-feature=exemplar-storage") as asking,
    ):
        for query, expected in (
            ('sum(http_server_request_duration_seconds_count{sidecar_route="checkout"})', "2"),
            ('sidecar_circuit_breaker_state{sidecar_circuit_breaker_state="open"}', "1"),
            ("sum(sidecar_telemetry_dropped_total)", "4"),
        ):
            ((_, value),) = await asking.until(query, bool)
            assert value == expected
    assert OPENMETRICS_CONTENT_TYPE in asked


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
