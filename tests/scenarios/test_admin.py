"""The admin API: what it shows, who may change what, and that every change is known afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import datetime
from unittest.mock import ANY

import pytest

from sidecar.admin import views
from sidecar.admin.recent import Recent
from sidecar.config.load import load_text
from sidecar.core.errors import Reason
from sidecar.core.numbers import Numbers, RouteNumbers, server_error_type
from sidecar.core.snapshot import Direction
from sidecar.core.transition import State
from tests.scenarios.operator import operator
from tests.scenarios.stage import OK, app_routes, get, hang, saying, stage
from tests.support.proxy import HEADER, running
from tests.support.raw import RawPeer, raw_client, turns

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
    "/openapi.json",
)
NOBODY = app_routes(9)

BAD_BY = (
    "by: say who you are in 1 to 128 printable ASCII characters without spaces, such as ada@bastion; "
    "left out, it is the address you ask from"
)


# What it shows


async def test_every_resource_answers_and_nothing_may_keep_its_answer() -> None:
    async with stage() as to:
        for path in READING:
            response = await operator(to.worker).send("GET", path)
            assert response.status == 200, path
            if path != "/metrics":
                json.loads(response.body)
                assert response.value(b"content-type") == b"application/json; charset=utf-8"
            if path not in ("/metrics", "/openapi.json"):
                assert response.value(b"cache-control") == b"no-store"
            head = await operator(to.worker).send("HEAD", path)
            assert (head.status, head.body) == (200, b"")
            assert head.value(b"content-type") == response.value(b"content-type")


async def test_status_tells_how_the_process_is() -> None:
    async with stage(saying(FAILURE)) as to:
        await to.ask_all(get() * 5, [b"GET"] * 5)
        status = await operator(to.worker).get("/status")
    since = datetime.fromisoformat(status["breakers"]["open"][0].pop("since"))
    assert abs(since.timestamp() - time.time()) < 60
    assert status["is_ready"] is True
    assert status["is_draining"] is False
    assert status["routes"] == 1
    assert status["breakers"] == {
        "count": 1,
        "by_state": {
            "closed": 0,
            "open": 1,
            "half_open": 0,
            "forced_open": 0,
            "forced_closed": 0,
            "disabled": 0,
        },
        "open": [{"route": "app", "upstream": "app", "state": "open", "told": "open", "why": ANY}],
        "open_count": 1,
        "probe_due_count": 0,
        "overridden_count": 0,
    }
    why = status["breakers"]["open"][0]["why"]
    assert re.fullmatch(r"open: 5 × 500 127\.0\.0\.1:\d+", why)
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


async def test_a_client_that_leaves_is_no_error_and_is_counted_for_itself() -> None:
    async def fail_or_hang(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None and request.target != b"/slow":
            await peer.send(FAILURE)
        await hang(peer)

    async with stage(fail_or_hang) as to:
        await to.ask_all(get() * 2, [b"GET"] * 2)
        async with raw_client(to.port) as client:
            await client.send(get(b"/slow"))
            await turns(50)
        await turns(50)
        (route,) = (await operator(to.worker).get("/routes"))["routes"]
    assert (route["finished"], route["errors"], route["gone"], route["error_rate"]) == (3, 2, 1, 2 / 3)
    assert route["by_error"] == {"500": 2, "client_gone": 1}


def test_a_call_whose_caller_left_is_no_error_either_and_one_that_the_sidecar_cut_is() -> None:
    (route,) = load_text(HEADER + NOBODY).snapshot.routes
    all_numbers = Numbers()
    numbers = RouteNumbers(all_numbers, "app", "inbound")
    for status, reason in (
        (503, Reason.CALLER_GONE),
        (200, Reason.CONNECTION_RESET),
        (408, Reason.REQUEST_TIMEOUT),
    ):
        numbers.server_row((b"GET", status, server_error_type(status, reason), None)).add([0.1])
    told = views.route(route, numbers, [], 0.0, Recent(all_numbers, lambda: 0.0), Direction.INBOUND)
    assert (told["finished"], told["errors"], told["gone"]) == (3, 2, 1)


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
    standing = {
        "state": "usable",
        "why": "",
        "failures_in_row": 0,
        "ejections": 0,
        "ejected_until": None,
        "ejected_seconds_left": None,
        "check": None,
    }
    (endpoint,) = upstream["endpoints"]
    written = {"address": address, "weight": 1, "priority": 0, "zones": []}
    assert endpoint == {**written, "in_flight": 0, "connections": 1, "idle": 1, "own_pod": False, **standing}
    assert upstream["lists"] == []
    assert upstream["limits"] == {"max_connections": 1024, "max_pending": 1024, "max_requests": 1024}


async def test_a_cursor_shows_the_routes_that_have_changed_since() -> None:
    async with stage(saying(OK, FAILURE)) as to:
        hand = operator(to.worker)
        first = await hand.get("/routes")
        assert (first["is_complete"], len(first["routes"]), len(first["duration_bounds"])) == (True, 1, 14)
        quiet = await hand.get(f"/routes?since={first['cursor']}")
        assert (quiet["is_complete"], quiet["routes"]) == (False, [])
        await to.ask_all(get() * 2, [b"GET"] * 2)
        after = await hand.get(f"/routes?since={quiet['cursor']}")
        assert [(one["name"], one["finished"], one["errors"]) for one in after["routes"]] == [("app", 2, 1)]
        assert after["at_seconds"] >= first["at_seconds"]
        # Another reader does not take away what one has not seen, and an old cursor shows more, not less.
        assert (await hand.get(f"/routes?since={after['cursor']}"))["routes"] == []
        assert len((await hand.get(f"/routes?since={first['cursor']}"))["routes"]) == 1
        await hand.post("/breakers/app/open")
        (row,) = (await hand.get(f"/routes?since={after['cursor']}"))["routes"]
        assert row["breakers"] == [{"upstream": "app", "state": "forced_open"}]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "nonsense",
        "-1",
        "0badc0de-1",
        "1",
        "LIFE-2",
        "LIFE--1",
        "LIFE-",
        "LIFE-" + "0" * 19,
        "LIFE-" + "9" * 5000,
    ],
)
async def test_a_cursor_of_another_life_or_of_the_future_shows_all_routes(cursor: str) -> None:
    async with running(NOBODY) as worker:
        life = (await operator(worker).get("/routes"))["cursor"].partition("-")[0]
        cursor = cursor.replace("LIFE", life)
        answer = await operator(worker).get(f"/routes?since={cursor}")
        assert (answer["is_complete"], [one["name"] for one in answer["routes"]]) == (True, ["app"])


async def test_readers_at_the_same_time_each_see_every_change() -> None:
    async with stage(saying(OK)) as to:
        hand = operator(to.worker)
        cursors = [(await hand.get("/routes"))["cursor"] for _ in range(3)]
        for count in (1, 2):
            await to.ask()
            answers = await asyncio.gather(
                *(operator(to.worker).get(f"/routes?since={one}") for one in cursors)
            )
            assert [[row["finished"] for row in one["routes"]] for one in answers] == [[count]] * 3
            cursors = [one["cursor"] for one in answers]


async def test_names_in_a_query_are_all_that_is_shown_and_unknown_ones_are_nothing() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        for path, key in (("/breakers", "route"), ("/upstreams", "name")):
            rows = path[1:]
            assert len((await hand.get(f"{path}?{key}=app&{key}=app&{key}=nobody"))[rows]) == 1
            assert (await hand.get(f"{path}?{key}=nobody"))[rows] == []
        assert len((await hand.get("/config?route=app"))["active"]["routes"]) == 1
        assert (await hand.get("/config?route="))["active"]["routes"] == []


async def test_routes_tell_where_their_budgets_came_from() -> None:
    async with stage(saying(OK)) as to:
        await to.ask_all(
            get() + get(b"/", b"X-Request-Timeout-Ms: 400") + get(b"/", b"Grpc-Timeout: x"), [b"GET"] * 3
        )
        (row,) = (await operator(to.worker).get("/routes"))["routes"]
    assert row["budgets"] == {
        "by_source": {
            "header": {"count": 1, "sum_seconds": 0.395},
            "route": {"count": 2, "sum_seconds": 30.0},
            "trace": {"count": 0, "sum_seconds": 0.0},
        },
        "invalid_headers": 1,
    }


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
        ("POST", "/breakers/app/shut", 404,
         "there is nothing at /breakers/app/shut; /openapi.json says what there is"),
        ("POST", "/breakers/app/open?upstream=ap", 404, "route 'app' has no upstream 'ap'; did you mean 'app'?"),
        ("POST", "/breakers/app/open?for=5", 400, "for: a duration needs a unit: write 5s or 5ms"),
        ("POST", "/breakers/app/open?for=0s", 400,
         "for: an override of 0s ends before it begins; give a time above zero"),
        ("POST", "/breakers/app/auto?for=5m", 400, "`auto` ends an override at once: leave out `for`"),
        ("GET", "/breakers/app/open", 405, "GET is not for /breakers/app/open: GET reads, POST changes"),
        ("POST", "/status", 405, "POST is not for /status: GET reads, POST changes"),
        ("DELETE", "/breakers/app", 405, "DELETE is not for /breakers/app: GET reads, POST changes"),
        ("POST", "/breakers/app/open?for=367d", 400, "for: '367d' is not a duration such as 250ms, 2s or 1m30s"),
        ("POST", "/breakers/app/open?for=999999999999h", 400,
         "for: at most a year; write `ever` for an override that lasts until `auto`"),
        ("POST", "/breakers/app/open?fro=5m", 400, "there is no query parameter 'fro' here; did you mean 'for'?"),
        ("POST", "/breakers/app/open?for=5m&for=5h", 400, "for is given more than once"),
        ("POST", "/breakers/app/auto?for=ever", 400, "`auto` ends an override at once: leave out `for`"),
        ("POST", "/breakers/app/open?for=Ever", 400, "for: 'Ever' is not a duration such as 250ms, 2s or 1m30s"),
        ("POST", "/breakers/app/open?by=", 400, BAD_BY),
        ("POST", "/breakers/app/open?by=ada%20b", 400, BAD_BY),
        ("POST", "/breakers/app/auto?by=ad%0aa", 400, BAD_BY),
        ("POST", f"/breakers/app/close?by={'a' * 129}", 400, BAD_BY),
        ("POST", "/drain?in=5m", 400, "there is no query parameter 'in' here"),
        ("POST", "/quitquitquit?now", 400, "there is no query parameter 'now' here"),
        ("GET", "/nowhere", 404, "there is nothing at /nowhere; /openapi.json says what there is"),
        ("GET", "/status/", 404, "there is nothing at /status/; /openapi.json says what there is"),
        ("GET", "//status", 404, "there is nothing at //status; /openapi.json says what there is"),
        ("GET", "/breakers/%ff%fe%zz", 404, "there is no route '%ff%fe%zz'"),
        ("GET", "/breakers/%00", 404, "there is no route '\\x00'"),
        ("GET", "/breakers/a%2fb", 404, "there is no route 'a/b'"),
        ("POST", "/breakers/%ff/open?for=%ff", 404, "there is no route '%ff'"),
        ("POST", "/breakers/app/open?for=%ff", 400, "for: '\ufffd' is not a duration such as 250ms, 2s or 1m30s"),
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
    assert (response.value(b"allow") is not None) is (status == 405)
    document = json.loads(response.body)
    assert (document["status"], document["detail"]) == (status, detail)
    assert set(document) == {"type", "title", "status", "detail"}
    assert state is State.CLOSED


# The end


async def test_drain_ends_readiness_and_keeps_serving() -> None:
    async with stage() as to:
        assert await operator(to.worker).post("/drain") == {"is_draining": True}
        assert not to.worker.datapath.is_ready
        response = await to.ask()
        assert (response.status, response.value(b"connection")) == (200, b"close")
        assert (await operator(to.worker).get("/status"))["is_draining"] is True


async def test_quitquitquit_is_an_orderly_end_and_may_be_said_twice() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        for _ in range(2):
            assert await hand.post("/quitquitquit") == {"is_draining": True, "is_ending": True}
            assert hand.status == 202
        await worker.control.drain.wait()
        assert not worker.datapath.is_ready


# Size


async def test_a_thousand_routes_are_all_shown() -> None:
    """What that costs is measured by `tests.bench.admin`."""
    rows = "".join(
        f"- {{name: r{n}, match: {{path: {{prefix: /r{n}}}}}, upstream: app}}\n" for n in range(1000)
    )
    async with running(f'upstreams: {{app: {{endpoints: ["127.0.0.1:9"]}}}}\nroutes:\n{rows}') as worker:
        hand = operator(worker)
        status = await hand.get("/status")
        assert (status["routes"], status["breakers"]["count"]) == (1000, 1000)
        assert len((await hand.get("/breakers"))["breakers"]) == 1000
        assert len((await hand.get("/routes"))["routes"]) == 1000
        assert len((await hand.get("/config"))["active"]["routes"]) == 1000
