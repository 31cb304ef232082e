"""Endpoints that a file lists, as a user and an operator see them."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sidecar.runtime import endpoint_files
from tests.scenarios.operator import operator
from tests.scenarios.stage import get
from tests.support.clean import assert_clean
from tests.support.proxy import port, running
from tests.support.raw import raw_client, raw_upstream


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_files, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(endpoint_files, "SETTLE_SECONDS", 0.02)


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


async def ask(to: int) -> int:
    async with raw_client(to) as client:
        await client.send(get())
        (response,) = await client.responses([b"GET"])
        return response.status


async def test_a_changed_file_moves_the_traffic_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(raw_upstream()) for _ in range(2)]
        file.write_text(f'endpoints: ["127.0.0.1:{one.port}"]\n')
        routes = f"""\
upstreams: {{app: {{endpoints: ["file://{file}"]}}}}
routes: [{{name: app, upstream: app}}]
"""
        worker = await stack.enter_async_context(running(routes))
        hand = operator(worker)
        assert await ask(port(worker)) == 200
        async with hand.events() as events:
            replace(file, f'endpoints: [{{address: "127.0.0.1:{other.port}", weight: 3}}]\n')
            kind, told = await events.next()
        assert (kind, told) == (
            "endpoints",
            {
                "entry": f"file://{file}",
                "upstreams": ["app"],
                "added": [f"127.0.0.1:{other.port}"],
                "added_count": 1,
                "removed": [f"127.0.0.1:{one.port}"],
                "removed_count": 1,
                "count": 1,
            },
        )
        assert await ask(port(worker)) == 200
        assert (len(one.requests), len(other.requests)) == (1, 1)
        replace(file, "endpoints: nonsense\n")
        lists = []
        while not lists or lists[0]["error"] is None:
            (upstream,) = (await hand.get("/upstreams"))["upstreams"]
            lists = upstream["lists"]
            await asyncio.sleep(0.01)
        assert lists[0]["error"] == f"{file}:1:12: `endpoints` must be a list of addresses"
        assert (lists[0]["by"], lists[0]["count"], lists[0]["failures"]) == ("file", 1, 1)
        assert [(one["address"], one["weight"]) for one in upstream["endpoints"]] == [
            (f"127.0.0.1:{other.port}", 3)
        ]
        assert await ask(port(worker)) == 200
        await assert_clean(worker)


async def test_a_file_that_is_not_there_yet_answers_that_no_address_is_known(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    routes = f"""\
upstreams: {{app: {{endpoints: ["file://{file}"]}}}}
routes: [{{name: app, upstream: app}}]
"""
    async with raw_upstream() as app, running(routes) as worker:
        assert await ask(port(worker)) == 502
        replace(file, f'endpoints: ["127.0.0.1:{app.port}"]\n')
        (cluster,) = worker.assembly.clusters.values()
        while not cluster.pools:
            await asyncio.to_thread(time.sleep, 0.005)  # real time for the thread that looks,
            await asyncio.sleep(0.02)  # and virtual time for what it finds to settle
        assert await ask(port(worker)) == 200
        assert len(app.requests) == 1
