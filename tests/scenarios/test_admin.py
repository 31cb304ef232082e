"""The admin API: what it shows, who may change what, and that every change is known afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

import pytest

from sidecar.admin.events import CAPACITY, Events
from sidecar.config.load import load_text
from sidecar.core.transition import State, Transition, TransitionReason, WindowNumbers
from tests.scenarios.operator import Operator, operator, serving
from tests.scenarios.stage import OK, app_routes, get, saying, stage
from tests.support.proxy import HEADER, port, running
from tests.support.raw import raw_client

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
READING = (
    "/status",
    "/routes",
    "/breakers",
    "/breakers/app",
    "/upstreams",
    "/config",
    "/loglevel",
    "/metrics",
)
NOBODY = app_routes(9)


# What it shows


async def test_every_resource_answers_and_nothing_may_keep_its_answer() -> None:
    async with stage() as to:
        for path in READING:
            response = await operator(to.worker).send("GET", path)
            assert response.status == 200, path
            if path != "/metrics":
                json.loads(response.body)
                assert response.value(b"content-type") == b"application/json; charset=utf-8"
                assert response.value(b"cache-control") == b"no-store"


async def test_status_tells_how_the_process_is() -> None:
    async with stage(saying(FAILURE)) as to:
        await to.ask_all(get() * 5, [b"GET"] * 5)
        status = await operator(to.worker).get("/status")
    assert status["is_ready"] is True
    assert status["is_draining"] is False
    assert status["routes"] == 1
    assert status["breakers"] == {
        "count": 1,
        "by_state": {"closed": 0, "open": 1, "half_open": 0, "forced_open": 0, "disabled": 0},
        "open": [{"route": "app", "upstream": "app", "state": "open"}],
        "open_count": 1,
    }
    assert status["config"]["generation"] == 1
    assert "admin" in [part["name"] for part in status["parts"]]


async def test_routes_tell_their_traffic() -> None:
    async with stage(saying(OK, FAILURE)) as to:
        await to.ask_all(get() * 4, [b"GET"] * 4)
        (route,) = (await operator(to.worker).get("/routes"))["routes"]
    assert (route["name"], route["listener"], route["upstreams"]) == ("app", "inbound", {"app": 1})
    assert (route["started"], route["finished"], route["active"], route["errors"]) == (4, 4, 0, 3)
    assert (route["by_class"], route["by_error"]) == ({"2xx": 1, "5xx": 3}, {"500": 3})
    assert route["error_rate"] == 0.75
    assert 0 < route["duration_seconds"]["p50"] <= 0.005
    assert route["breakers"] == [{"upstream": "app", "state": "closed"}]


async def test_a_breaker_tells_the_counters_of_its_life() -> None:
    async with stage(saying(FAILURE)) as to:
        await to.ask_all(get() * 7, [b"GET"] * 7)
        (found,) = (await operator(to.worker).get("/breakers/app"))["breakers"]
    assert (found["state"], found["failure_count"], found["rejected"]) == ("open", 0, 2)
    assert found["next_probe_seconds"] == 5.0
    assert found["last_failure_at"] == found["last_transition_at"]
    assert found["candidate"] is None
    assert found["active"]["counters"] == {
        "total": 7, "successful": 0, "failed": 5, "ignored": 0, "rejected": 2, "in_flight": 0,
        "timed_out": 0, "slow": 0, "transitions": 1, "success_rate": 0.0,
    }  # fmt: skip
    (transition,) = found["history"]
    assert (transition["from"], transition["to"], transition["reason"]) == (
        "closed",
        "open",
        "consecutive_failures",
    )


async def test_upstreams_tell_their_endpoints_and_limits() -> None:
    async with stage() as to, raw_client(to.port) as client:
        await client.send(get())
        await client.responses([b"GET"])
        (upstream,) = (await operator(to.worker).get("/upstreams"))["upstreams"]
    address = f"127.0.0.1:{to.app.port}"
    assert upstream["endpoints"] == [{"address": address, "in_flight": 0, "connections": 1, "idle": 1}]
    assert upstream["limits"] == {"max_connections": 1024, "max_pending": 1024, "max_requests": 1024}


async def test_the_configuration_is_shown_without_its_secrets() -> None:
    secret = "request_headers: {set: {authorization: Bearer hush, x-plain: seen}}"
    async with stage(route=secret) as to:
        text = (await operator(to.worker).send("GET", "/config")).body.decode()
    config = json.loads(text)
    assert "hush" not in text
    (route,) = config["active"]["routes"]
    assert route["name"] == "app"
    assert "x-plain: seen" in route["request_headers.set"]
    assert route["circuit_breaker.consecutive_failures"] == "5"
    assert set(config["active"]) == {"process", "listeners", "upstreams", "routes"}


async def test_metrics_are_those_of_the_probe_listener() -> None:
    async with stage() as to:
        await to.ask()
        text = (await operator(to.worker).send("GET", "/metrics")).body.decode()
    assert "http_server_request_duration_seconds_count{" in text
    assert "sidecar_circuit_breaker_state{" in text


# Problems


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/breakers/ap", 404, "there is no route 'ap'; did you mean 'app'?"),
        ("GET", "/breakers/%2e%2e%2fx", 404, "there is no route '../x'"),
        ("POST", "/breakers/apx/open", 404, "there is no route 'apx'; did you mean 'app'?"),
        ("POST", "/breakers/app/shut", 404, "there is no action 'shut': there are open, close, auto"),
        ("POST", "/breakers/app/open?upstream=ap", 404, "route 'app' has no upstream 'ap'; did you mean 'app'?"),
        ("POST", "/breakers/app/open?for=5", 400, "for: a duration needs a unit: write 5s or 5ms"),
        ("POST", "/breakers/app/open?for=0s", 400,
         "for: an override of 0s ends before it begins; give a time above zero"),
        ("POST", "/breakers/app/auto?for=5m", 400, "`auto` ends an override at once: leave out `for`"),
        ("GET", "/breakers/app/open", 405, "GET is not for /breakers/app/open: GET reads, POST changes"),
        ("POST", "/status", 405, "POST is not for /status: GET reads, POST changes"),
        ("DELETE", "/breakers/app", 405, "DELETE is not for /breakers/app: GET reads, POST changes"),
        ("GET", "/nowhere", 404, "there is nothing at /nowhere"),
        ("POST", "/loglevel?level=loud", 400, "level=loud: give one of debug, info, warning, error"),
        ("POST", "/reload", 409, "there is nothing to reload"),
    ],
)  # fmt: skip
async def test_a_problem_is_a_document_that_says_what_to_do(
    method: str, path: str, status: int, detail: str
) -> None:
    async with running(NOBODY) as worker:
        response = await operator(worker).send(method, path)
        state = worker.assembly.breakers["app", "app"].state
    assert response.status == status
    assert response.value(b"content-type") == b"application/problem+json; charset=utf-8"
    document = json.loads(response.body)
    assert (document["status"], document["detail"]) == (status, detail)
    assert set(document) == {"type", "title", "status", "detail"}
    assert state is State.CLOSED


# Who may ask


@pytest.mark.parametrize(
    "line",
    [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1:1",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
async def test_a_page_of_another_origin_changes_nothing(line: str) -> None:
    async with running(NOBODY) as worker:
        response = await operator(worker).send("POST", "/breakers/app/open", line)
        assert (response.status, worker.assembly.breakers["app", "app"].state) == (403, State.CLOSED)
        assert (await operator(worker).send("GET", "/status", line)).status == 200


async def test_a_page_of_our_own_may_change_things() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        lines = (f"Origin: http://127.0.0.1:{hand.port}", "Sec-Fetch-Site: same-origin")
        assert (await hand.send("POST", "/breakers/app/open", *lines)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:15000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("dashboard.localhost", 200),
        ("127.0.0.1:8080", 200),
        ("127.9.9.9", 200),
        ("[::1]:15000", 200),
    ],
)
async def test_a_name_that_was_pointed_here_reads_nothing(host: str, status: int) -> None:
    async with running(NOBODY) as worker:
        assert (await operator(worker).send("GET", "/config", host=host)).status == status


async def test_with_a_token_file_only_who_has_the_token_may_ask(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    header = HEADER.replace(
        'admin: {address: "127.0.0.1:0"}', f'admin: {{address: "0.0.0.0:0", token_file: {token}}}'
    )
    async with running(NOBODY, header) as worker:
        hand = operator(worker)
        response = await hand.send("GET", "/status")
        assert (response.status, response.value(b"www-authenticate")) == (401, b'Bearer realm="sidecar"')
        assert (await hand.send("GET", "/status", "Authorization: Bearer firs")).status == 401
        assert (await hand.send("GET", "/status", "Authorization: Basic first")).status == 401
        assert (
            await hand.send("GET", "/status", "Authorization: Bearer first", host="any.name")
        ).status == 200
        evil = ("Authorization: Bearer first", "Origin: http://evil")
        assert (await hand.send("POST", "/drain", *evil)).status == 403
        (tmp_path / "next").write_text("second")
        (tmp_path / "next").rename(token)
        assert (await hand.send("GET", "/status", "Authorization: Bearer first")).status == 401
        assert (await hand.send("GET", "/status", "Authorization: Bearer second")).status == 200
        token.write_text("")
        assert (await hand.send("GET", "/status", "Authorization: Bearer ")).status == 503
        token.unlink()
        assert (await hand.send("GET", "/status", "Authorization: Bearer second")).status == 503


async def test_a_unix_socket_serves_any_host(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    header = HEADER.replace('admin: {address: "127.0.0.1:0"}', f"admin: {{address: 'unix:{path}'}}")
    async with running(NOBODY, header):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /status HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


# Changes


async def test_every_change_and_every_refused_one_is_in_the_log_whatever_its_level(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with serving(load_text(HEADER + NOBODY).snapshot, log) as worker:
        hand = operator(worker)
        await hand.post("/loglevel?level=error")
        assert await hand.get("/loglevel") == {
            "level": "error",
            "levels": ["debug", "info", "warning", "error"],
        }
        await hand.post("/breakers/app/open?for=5m")
        await hand.post("/breakers/nobody/open")
        await hand.post("/drain", "Origin: http://evil")
        await hand.get("/status")
    started, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert started["kind"] == "process.started"
    assert [(one["kind"], one["path"], one["status"], one["client"]) for one in lines] == [
        ("admin.change", "/loglevel", 200, "127.0.0.1"),
        ("admin.change", "/breakers/app/open", 200, "127.0.0.1"),
        ("admin.change", "/breakers/nobody/open", 404, "127.0.0.1"),
        ("admin.change", "/drain", 403, "127.0.0.1"),
    ]
    assert lines[1]["query"] == {"for": "5m"}


async def test_drain_ends_readiness_and_keeps_serving() -> None:
    async with stage() as to:
        assert await operator(to.worker).post("/drain") == {"is_draining": True}
        assert not to.worker.is_ready
        response = await to.ask()
        assert (response.status, response.value(b"connection")) == (200, b"close")
        assert (await operator(to.worker).get("/status"))["is_draining"] is True


async def test_quitquitquit_is_an_orderly_end_and_may_be_said_twice() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        for _ in range(2):
            assert await hand.post("/quitquitquit") == {"is_draining": True, "is_ending": True}
            assert hand.status == 202
        await worker.drain.wait()
        assert not worker.is_ready


# Events


async def trip(hand: Operator) -> None:
    """Two transitions."""
    await hand.post("/breakers/app/open")
    await hand.post("/breakers/app/auto")


async def test_a_listener_that_comes_back_goes_on_where_it_was() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        await trip(hand)
        async with hand.events() as events:
            before = events.last_id
            await trip(hand)
            _, third = await events.next()
            assert third["sequence"] == 3
            after_third = events.last_id
        await trip(hand)
        for last_id, expected in ((after_third, [4, 5, 6]), (before, [3, 4, 5, 6])):
            async with hand.events(last_id) as events:
                assert [(await events.next())[1]["sequence"] for _ in expected] == expected


@pytest.mark.parametrize("last_id", ["0badc0de-1", "nonsense", "-", ""])
async def test_a_listener_of_another_life_gets_what_is_there_and_is_told(last_id: str) -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        await trip(hand)
        async with hand.events(last_id) as events:
            assert await events.next() == ("lost", {})
            assert [(await events.next())[1]["sequence"] for _ in range(2)] == [1, 2]


async def test_a_listener_hears_a_heartbeat_where_nothing_happens() -> None:
    loop = asyncio.get_running_loop()
    async with running(NOBODY) as worker, operator(worker).events() as events:
        began = loop.time()
        assert await events.block() == {"": "still here"}
        assert loop.time() - began == pytest.approx(15.0, abs=0.5)


async def test_listeners_are_bounded_and_let_go_at_the_end() -> None:
    async with running(NOBODY) as worker, contextlib.AsyncExitStack() as stack:
        hand = operator(worker)
        for _ in range(32):
            await stack.enter_async_context(hand.events())
        assert (await hand.get("/status"))["events"]["readers"] == 32
        assert (await hand.send("GET", "/events")).status == 503
    assert worker.events.readers == set()


def transition(number: int) -> Transition:
    reason = TransitionReason.FORCED
    return Transition(number, "r", "u", State.CLOSED, State.OPEN, reason, float(number), WindowNumbers())


async def test_a_slow_listener_misses_the_oldest_and_is_told_how_many() -> None:
    events = Events()
    reader = events.reader(None)
    for number in range(1, CAPACITY + 101):
        events.transitioned(transition(number))
    found, lost = events.since(1)
    assert (lost, found[0].number) == (100, 101)
    assert events.since(CAPACITY + 101) == ([], 0)
    assert [one.number for one in events.since(CAPACITY + 90)[0]] == list(
        range(CAPACITY + 90, CAPACITY + 101)
    )
    assert not reader.wake.is_set()  # only those that are served are woken


# Size


async def test_a_thousand_routes_are_shown_without_holding_the_loop() -> None:
    rows = "".join(
        f"- {{name: r{n}, match: {{path: {{prefix: /r{n}}}}}, upstream: app}}\n" for n in range(1000)
    )
    async with running(f'upstreams: {{app: {{endpoints: ["127.0.0.1:9"]}}}}\nroutes:\n{rows}') as worker:
        hand = operator(worker)
        best = 1.0
        for _ in range(5):
            began = time.perf_counter()
            status = await hand.get("/status")
            best = min(best, time.perf_counter() - began)
        assert status["breakers"]["count"] == 1000
        assert best < 0.05
        assert len((await hand.get("/breakers"))["breakers"]) == 1000
        assert len((await hand.get("/routes"))["routes"]) == 1000
        assert len((await hand.get("/config"))["active"]["routes"]) == 1000
        assert port(worker)
