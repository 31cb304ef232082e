"""`GET /outcomes/{route}`: what came of a route's requests, as `sidecar tune` reads it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from sidecar.config.load import load_text
from sidecar.core.outcomes.store import BLOCK_BYTES
from tests.scenarios.operator import operator, serving
from tests.scenarios.stage import OK, Stage, app_routes, get, hang, saying, stage
from tests.support.proxy import HEADER, port
from tests.support.raw import RawPeer, raw_client, raw_upstream

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"


async def rows_of(worker: Any, query: str = "") -> list[dict[str, Any]]:
    page = await operator(worker).get(f"/outcomes/app{query}")
    return [
        dict(zip(page["columns"], row, strict=True)) | {"name": page["names"][row[3]][1]}
        for row in page["rows"]
    ]


async def ask(to: Stage, count: int) -> list[int]:
    return [(await to.ask(get())).status for _ in range(count)]


async def test_each_attempt_and_each_refusal_is_there_in_its_order() -> None:
    async with stage(saying(OK, *[FAILURE] * 5)) as to:
        assert await ask(to, 7) == [200, *[500] * 5, 503]
        rows = await rows_of(to.worker)
        assert [(row["status"], row["verdict"], row["state"], row["reason"]) for row in rows] == [
            (200, "success", "closed", None),
            *[(500, "failure", "closed", None)] * 5,
            (0, None, "open", "circuit_open"),
        ]
        assert [row["name"] for row in rows] == [f"127.0.0.1:{to.app.port}"] * 6 + [""]
        assert all(row["head_ms"] is not None for row in rows[:6])
        assert rows[6]["head_ms"] is None
        assert rows == sorted(rows, key=lambda row: row["at"])
        status = await operator(to.worker).get("/status")
        assert status["outcomes"]["bytes"] == BLOCK_BYTES


async def test_time_is_the_upstreams_own_and_parts_head_and_whole() -> None:
    async def two_steps(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(0.25)
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await asyncio.sleep(0.5)
            await peer.send(b"k")

    async with stage(two_steps) as to:
        await ask(to, 2)
        rows = await rows_of(to.worker)
    assert [(round(row["head_ms"]), round(row["whole_ms"])) for row in rows] == [(250, 750)] * 2


async def test_retries_say_which_attempt_they_are_and_a_timeout_why_it_ended() -> None:
    retry = "timeouts: {attempt: 200ms}, retry: {attempts: 1, on: [attempt_timeout]}"
    async with stage(hang, route=retry) as to:
        assert await ask(to, 1) == [504]
        rows = await rows_of(to.worker)
    assert [(row["attempt"], row["verdict"], row["reason"], row["status"]) for row in rows] == [
        (0, "failure", "timeout", 0),
        (1, "failure", "timeout", 0),
    ]
    assert [round(row["whole_ms"]) for row in rows] == [200, 200]


async def test_a_name_without_an_address_is_the_failure_that_its_breaker_has_counted() -> None:
    routes = app_routes(80).replace("127.0.0.1", "no-such-name.invalid")
    async with (
        serving(load_text(HEADER + routes).snapshot) as worker,
        raw_client(port(worker)) as client,
    ):
        await client.send(get())
        await client.responses([b"GET"])
        (row,) = await rows_of(worker)
        (breaker,) = (await operator(worker).get("/breakers/app"))["breakers"]
    assert (row["verdict"], row["reason"], breaker["failure_count"]) == ("failure", "dns_error", 1)


async def test_a_fallback_does_not_hide_the_refusal() -> None:
    route = "circuit_breaker: {consecutive_failures: 1}, fallback: {status: 200}"
    async with stage(saying(FAILURE), route=route) as to:
        await ask(to, 3)
        rows = await rows_of(to.worker)
    assert [(row["status"], row["reason"]) for row in rows] == [(500, None), *[(0, "circuit_open")] * 2]


async def test_pages_are_bounded_and_strictly_asked_for() -> None:
    async with stage(saying(OK)) as to:
        await ask(to, 5)
        who = operator(to.worker)
        page = await who.get("/outcomes/app?limit=2")
        assert (page["first"], page["next"], page["kept"], len(page["rows"])) == (0, 2, 5, 2)
        page = await who.get("/outcomes/app?limit=4096&from=2")
        assert (page["first"], page["next"], len(page["rows"])) == (2, None, 3)
        for query in ("limit=0", "limit=4097", "limit=x", "from=-1", "form=1"):
            assert (await who.send("GET", f"/outcomes/app?{query}")).status == 400
        assert (await who.send("GET", "/outcomes/none")).status == 404


async def test_what_was_seen_outlives_a_reload_and_not_its_route(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    async with raw_upstream(saying(OK)) as app:
        file.write_text(HEADER + app_routes(app.port))
        async with serving(load_text(file.read_text()).snapshot, path=str(file)) as worker:
            async with raw_client(port(worker)) as client:
                await client.send(get())
                await client.responses([b"GET"])
                file.write_text(HEADER + app_routes(app.port, route="circuit_breaker: {open_for: 9s}"))
                await operator(worker).post("/reload")
                await client.send(get())
                await client.responses([b"GET"])
            assert len(await rows_of(worker)) == 2
            file.write_text(HEADER + app_routes(app.port).replace("name: app", "name: other"))
            await operator(worker).post("/reload")
            assert (await operator(worker).send("GET", "/outcomes/app")).status == 404
            assert worker.assembly.outcomes.used_bytes == 0


async def test_a_line_of_the_access_log_tells_of_its_attempts_where_that_is_wanted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    header = HEADER.replace('{format: "off"}', "{attempts: true}")
    async with raw_upstream(saying(OK, FAILURE)) as app:
        routes = app_routes(app.port, route="circuit_breaker: {consecutive_failures: 1}")
        async with (
            serving(load_text(header + routes).snapshot, log) as worker,
            raw_client(port(worker)) as client,
        ):
            for _ in range(3):
                await client.send(get())
                await client.responses([b"GET"])
    lines = [one for one in map(json.loads, log.read_text().splitlines()) if one["kind"] == "access"]
    tried = [one["tried"] for one in lines]
    assert [[(one["status"], one["verdict"]) for one in attempts] for attempts in tried] == [
        [(200, "success")],
        [(500, "failure")],
        [],
    ]
    assert tried[0][0]["endpoint"] == f"127.0.0.1:{app.port}"
    assert (lines[2]["reason"], lines[2]["refused_by"]) == ("circuit_open", "app")
