"""A breaker that refused connections have opened says so in every place where a person looks."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.scenarios.operator import Operator
from tests.support.ports import free_ports
from tests.support.process import sidecar
from tests.support.web_app import web_app

pytestmark = pytest.mark.process

WAIT_SECONDS = 100.0


@asynccontextmanager
async def receiver(spans: list[Any]) -> AsyncIterator[int]:
    """Takes spans as OTLP over HTTP."""

    async def take(request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await request.read())
        for resource in told.resource_spans:
            for scope in resource.scope_spans:
                spans.extend(scope.spans)
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with web_app(app) as port:
        yield port


def attributes(item: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def status(admin: int) -> tuple[int | None, str]:
    """Exit code and output of `sidecar status`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "status", "--admin", f"http://127.0.0.1:{admin}"),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_refused_connections_are_told_in_status_api_log_and_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    spans: list[Any] = []
    inbound, probes, admin, nobody = free_ports(4)
    file = tmp_path / "sidecar.yaml"
    async with receiver(spans) as collector, aiohttp.ClientSession() as session:
        file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
telemetry:
  otlp: {{endpoint: "http://127.0.0.1:{collector}", protocol: http/protobuf}}
  traces: {{sample_ratio: 0}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{nobody}"]}}}}
routes: [{{name: shop, upstream: app, circuit_breaker: {{warm_up: off, open_for: 1s}}}}]
""")

        async def ask(request_id: str) -> int:
            headers = {"x-request-id": request_id}
            async with session.get(f"http://127.0.0.1:{inbound}/", headers=headers) as answer:
                return answer.status

        async with sidecar(file, probes, tmp_path / "log", ("-m", "sidecar", "run")) as running:
            hand = Operator(admin)
            assert [await ask(f"req-{n}") for n in range(5)] == [502] * 5
            why = f"5 × connection_refused 127.0.0.1:{nobody}"
            row = (await hand.get("/breakers"))["breakers"][0]
            while not row["is_probe_due"]:
                row = (await hand.get("/breakers"))["breakers"][0]
            assert (row["told"], row["why"]) == ("open, probe due", f"open: {why}; probe due")
            code, shown = await status(admin)
            assert code == 1
            assert f"\n1 OPEN:\n  shop/app open: {why}; probe due; since 20" in shown
            assert re.search(r"^shop +app +open, probe due .* at the next request *$", shown, re.MULTILINE)

            assert await ask("req-5") == 502
            code, shown = await status(admin)
            assert f"  shop/app open: {why}; last probe: the same" in shown
            told = (await hand.get("/breakers/shop"))["breakers"][0]
            probed, _, opened = told["history"][-3:]
            assert [cause["request_id"] for cause in opened["causes"]] == [f"req-{n}" for n in range(5)]
            assert {
                (cause["error_type"], cause["status"], cause["endpoint"]) for cause in opened["causes"]
            } == {("connection_refused", None, f"127.0.0.1:{nobody}")}
            assert probed["why"] == f"probe failed: connection_refused 127.0.0.1:{nobody}"
            assert probed["causes"][-1]["request_id"] == "req-5"

            log = await running.logged("circuit_breaker.transition", times=3)
            line = next(one for one in map(json.loads, log.splitlines()) if one.get("to") == "open")
            assert line["message"] == f"shop/app: closed -> open: {why}"
            assert [cause["request_id"] for cause in line["causes"]] == [f"req-{n}" for n in range(5)]
            assert line["causes"][0]["detail"] == opened["causes"][0]["detail"]

            def told_as(name: str) -> list[Any]:
                return [span for span in spans if span.name == name]

            await until(lambda: bool(told_as("circuit_breaker.probe")))
        (first,), (probe,) = told_as("circuit_breaker.opened shop"), told_as("circuit_breaker.probe")
    assert attributes(first)["sidecar.circuit_breaker.why"] == why
    assert probe.status.message == "connection_refused"
    assert attributes(probe)["sidecar.request_id"] == "req-5"
    assert (probe.trace_id, probe.parent_span_id) == (first.trace_id, first.span_id)
    expected = {
        "error.type": "connection_refused",
        "sidecar.endpoint": f"127.0.0.1:{nobody}",
        "sidecar.detail": opened["causes"][0]["detail"],
    }
    for told_of in (first.links, first.events):
        assert [attributes(one) for one in told_of] == [
            {"sidecar.request_id": f"req-{n}", **expected} for n in range(5)
        ]
    # The requests were not sampled; of the causes these ids are all that a backend has.
    assert [link.trace_id.hex() for link in first.links] == [one["trace_id"] for one in opened["causes"]]
