"""A real Prometheus beside a sidecar that has not had a request yet: what the dashboard and the alerts show of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.ports import free_ports
from tests.support.process import http_get, sidecar
from tests.support.prometheus import (
    MONITORING,
    WAIT_SECONDS,
    Prometheus,
    asked,
    dashboard,
    needs_prometheus,
    panels,
    prometheus,
)
from tests.support.web_app import web_app

pytestmark = [pytest.mark.process, needs_prometheus]


@asynccontextmanager
async def fresh(folder: Path) -> AsyncIterator[tuple[int, int]]:
    """A sidecar before a service that always fails: the ports of its listener and of its probes."""

    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=503)

    app = web.Application()
    app.router.add_get("/{path:.*}", fail)
    inbound, probes, admin = free_ports(3)
    file = folder / "sidecar.yaml"
    async with web_app(app) as service:
        file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{service}"]}}}}
routes: [{{name: shop, upstream: app}}]
""")
        async with sidecar(file, probes, folder / "log"):
            yield inbound, probes


async def test_a_fresh_sidecar_leaves_no_panel_empty_and_shows_its_first_opening(tmp_path: Path) -> None:
    rules = MONITORING / "alerts.yaml"
    async with fresh(tmp_path) as (inbound, probes), prometheus(tmp_path, [probes], rules=rules) as asking:
        await asking.until("count_over_time(up[1m])", lambda rows: bool(rows) and float(rows[0][1]) >= 4)
        await until_none(asking, set(panels()))
        (annotation,) = dashboard()["annotations"]["list"]
        expression = asked(annotation["expr"])
        assert await asking.rows(expression) == []
        (route,) = (one for one in dashboard()["templating"]["list"] if one["name"] == "route")
        metric = route["definition"].removeprefix("label_values(").partition(",")[0]
        assert {labels["sidecar_route"] for labels, _ in await asking.rows(metric)} == {"shop"}
        for rule in await alerts(asking):
            assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
            assert not rule.get("alerts"), rule

        for _ in range(5):
            assert (await http_get(inbound, "/"))[0] == 503
        ((labels, value),) = await asking.until(expression, bool)
        assert (labels["sidecar_route"], labels["sidecar_circuit_breaker_state_to"]) == ("shop", "open")
        assert float(value) > 0.5
        deadline = time.monotonic() + WAIT_SECONDS
        while not {"SidecarCircuitBreakerOpen"} <= {
            rule["name"] for rule in await alerts(asking) if rule.get("alerts")
        }:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await until_none(asking, set(panels()))


async def until_none(asking: Prometheus, waiting: set[tuple[str, str]]) -> None:
    """Ask all of these until each has given a number."""
    deadline = time.monotonic() + WAIT_SECONDS
    while waiting:
        for title, expression in sorted(waiting):
            rows = await asking.rows(expression)
            if rows and all(math.isfinite(float(value)) for _, value in rows):
                waiting.discard((title, expression))
        assert time.monotonic() < deadline, "\n".join(map(str, waiting))
        await asyncio.sleep(0.1 if waiting else 0.0)


async def alerts(asking: Prometheus) -> list[dict[str, object]]:
    """Every rule, and what it says now."""
    return [rule for group in (await asking.get("rules"))["groups"] for rule in group["rules"]]
