"""`half_open.check`: the sidecar itself probes an upstream whose breaker has waited."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sidecar.config.load import load_text
from sidecar.core.transition import State, TransitionReason
from tests.scenarios.checked import CheckedApp, is_check
from tests.scenarios.operator import operator, serving
from tests.scenarios.stage import OK, Stage, app_routes, get, stage
from tests.support.clean import assert_clean
from tests.support.proxy import HEADER, port
from tests.support.raw import RawPeer, Request, raw_client, raw_upstream

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
CHECK = "half_open: {check: {path: /healthz}}"
POLICY = f"circuit_breaker: {{{CHECK}}}"


def sick() -> CheckedApp:
    return CheckedApp(traffic=FAILURE, health=FAILURE)


async def fail(to: Stage, count: int = 5) -> None:
    """Let traffic open the breaker."""
    answers = await to.ask_all(get() * count, [b"GET"] * count)
    assert {answer.status for answer in answers} == {500}
    assert to.breaker.state is State.OPEN


def checks(requests: list[Request]) -> list[Request]:
    return [request for request in requests if is_check(request)]


async def test_a_check_closes_the_breaker_without_any_traffic() -> None:
    app = sick()
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        app.get_well()
        await asyncio.sleep(4.99)
        assert to.breaker.state is State.OPEN
        await asyncio.sleep(0.02)
        assert to.breaker.state is State.CLOSED
        assert [one.reason for one in to.breaker.history] == [
            TransitionReason.CONSECUTIVE_FAILURES, TransitionReason.WAIT_ELAPSED, TransitionReason.PROBE_SUCCEEDED,
        ]  # fmt: skip
        assert len(checks(to.requests)) == 1
        assert (await to.ask()).status == 200


async def test_a_check_is_a_request_of_its_own_with_a_trace_of_its_own() -> None:
    app = sick()
    async with stage(app.serve, route=POLICY + ", match: {hosts: [x, shop]}") as to:
        await fail(to)
        app.get_well()
        await asyncio.sleep(5.01)
        (check,) = checks(to.requests)
        assert (check.method, check.value(b"host"), check.body) == (b"GET", b"x", b"")
        assert check.value(b"user-agent") == b"sidecar (half_open.check)"
        version, trace_id, span_id, flags = (check.value(b"traceparent") or b"").split(b"-")
        assert (version, len(trace_id), len(span_id), len(flags)) == (b"00", 32, 16, 2)
        assert check.value(b"x-request-id") == trace_id
        closed = to.breaker.history[-1]
        assert [(cause.trace_id, cause.span_id, cause.error_type) for cause in closed.causes] == [
            (trace_id, span_id, "")
        ]


async def test_no_request_is_a_probe_while_checks_are_made() -> None:
    """OPTIONS does not close what is broken for everybody else, and no user waits for a probe that fails."""
    app = sick()
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        app.traffic = OK
        before = len(to.requests) - len(checks(to.requests))
        for _ in range(60):
            options = b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n"
            assert (await to.ask(options, b"OPTIONS")).status == 503
            await asyncio.sleep(0.5)
        assert len(to.requests) - len(checks(to.requests)) == before
        assert to.breaker.state is State.OPEN
        app.health = OK
        await asyncio.sleep(60)
        assert to.breaker.state is State.CLOSED


async def test_checks_come_at_the_waits_of_the_breaker_and_at_no_other_time() -> None:
    app = sick()
    async with stage(app.serve, route=f"circuit_breaker: {{{CHECK}, max_open_for: 20s}}") as to:
        await fail(to)
        await asyncio.sleep(300)
        # 5, 10 and then 20 s, each with up to 10 % more or less.
        assert 15 <= len(checks(to.requests)) <= 18
        waits = [one.wait_seconds for one in to.breaker.history if one.to_state is State.OPEN]
        assert [round(wait or 0.0) for wait in waits[:2]] in ([5, 10], [5, 11])
        assert all(18.0 <= (wait or 0.0) <= 20.0 for wait in waits[2:])


@pytest.mark.parametrize(
    ("health", "error_type"),
    [
        (FAILURE, "500"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", "404"),
        (b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n", "429"),
        (None, "timeout"),
        (b"nonsense\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "timeout"),
    ],
)
async def test_what_is_no_good_answer_in_good_time_opens_it_again(
    health: bytes | None, error_type: str
) -> None:
    app = sick()
    app.health = health
    async with raw_upstream(app.serve) as upstream:
        routes = app_routes(upstream.port, route=POLICY)
        async with serving(load_text(HEADER + routes).snapshot) as worker:
            to = Stage(worker, upstream, port(worker))
            await fail(to)
            await asyncio.sleep(6.5)
            reopened = to.breaker.history[-1]
            assert (reopened.to_state, reopened.reason) == (State.OPEN, TransitionReason.PROBE_FAILED)
            (cause,) = reopened.causes
            assert cause.error_type == error_type
            assert (reopened.wait_seconds or 0.0) >= 10.0
            await assert_clean(worker)


@pytest.mark.parametrize(
    "health",
    [
        b"HTTP/1.1 204 X\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000,
    ],
    ids=["204", "302", "chunked", "interim", "long"],
)
async def test_every_good_status_closes_it(health: bytes) -> None:
    app = sick()
    app.health = health
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        await asyncio.sleep(5.5)
        assert to.breaker.state is State.CLOSED


async def test_nobody_listens_and_then_somebody_does() -> None:
    app = sick()
    async with raw_upstream(app.serve) as upstream:
        gone = upstream.port
    routes = app_routes(gone, route=f"circuit_breaker: {{{CHECK}, warm_up: off, max_open_for: 5s}}")
    async with serving(load_text(HEADER + routes).snapshot) as worker:
        breaker = worker.assembly.breakers["app", "app"]
        async with raw_client(port(worker)) as client:
            await client.send(get() * 5)
            assert [answer.status for answer in await client.responses([b"GET"] * 5)] == [502] * 5
        await asyncio.sleep(12)
        assert breaker.state is State.OPEN
        assert breaker.history[-1].causes[0].error_type == "connection_refused"
        app.get_well()
        server = await asyncio.start_server(lambda reader, writer: _answer(writer), "127.0.0.1", gone)
        await asyncio.sleep(6)
        assert breaker.state is State.CLOSED
        server.close()
        await server.wait_closed()
        await assert_clean(worker)


async def _answer(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    writer.close()


async def test_what_a_check_closed_and_traffic_opened_again_is_next_closed_by_a_request_alone() -> None:
    app = sick()
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        app.health = OK
        await asyncio.sleep(5.01)
        assert to.breaker.state is State.CLOSED
        await fail(to)
        seen = len(checks(to.requests))
        await asyncio.sleep(60)
        assert to.breaker.state is State.OPEN
        assert len(checks(to.requests)) == seen
        app.traffic = OK
        assert (await to.ask()).status == 200
        assert to.breaker.state is State.CLOSED
        # From now on checks are believed again.
        app.traffic = FAILURE
        await asyncio.sleep(60)
        await fail(to)
        await asyncio.sleep(30)
        assert to.breaker.state is State.CLOSED
        assert len(checks(to.requests)) == seen + 1


async def test_several_successes_are_as_many_checks_at_once_one_after_another() -> None:
    app = sick()
    policy = "circuit_breaker: {half_open: {successes: 3, check: {path: /healthz}}}"
    async with stage(app.serve, route=policy) as to:
        await fail(to)
        app.get_well()
        await asyncio.sleep(5.1)
        assert to.breaker.state is State.CLOSED
        assert len(checks(to.requests)) == 3


async def test_an_override_calls_the_check_off_and_its_end_begins_nothing() -> None:
    app = sick()
    app.health = None
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        await asyncio.sleep(5.5)
        assert to.breaker.numbers(to.worker.service.clock()).probes_in_flight == 1
        await operator(to.worker).post("/breakers/app/open?for=10s")
        assert to.cluster.in_flight == 0
        await asyncio.sleep(60)
        assert to.breaker.state is State.CLOSED
        assert len(checks(to.requests)) == 1


async def test_a_reload_brings_a_check_takes_it_away_and_moves_it() -> None:
    app = sick()
    async with stage(app.serve, route="circuit_breaker: {max_open_for: 5s}") as to:
        install = to.worker.control.active.install

        async def reload(breaker: str) -> None:
            text = HEADER + app_routes(to.app.port, route=f"circuit_breaker: {{max_open_for: 5s, {breaker}}}")
            await install(load_text(text).snapshot)

        await fail(to)
        await asyncio.sleep(20)
        assert checks(to.requests) == []
        await reload(CHECK)
        await asyncio.sleep(1)
        assert len(checks(to.requests)) == 1
        await reload("half_open: {max_calls: 1}")
        await asyncio.sleep(20)
        assert len(checks(to.requests)) == 1
        app.get_well()
        await reload("half_open: {check: {path: /other}}")
        await asyncio.sleep(1)
        assert to.breaker.state is State.CLOSED
        assert [request.target for request in to.requests[-1:]] == [b"/other"]


async def test_a_changed_wait_moves_the_check() -> None:
    app = sick()
    async with stage(app.serve, route=f"circuit_breaker: {{{CHECK}, open_for: 60s}}") as to:
        await fail(to)
        app.get_well()
        await asyncio.sleep(2)
        text = HEADER + app_routes(to.app.port, route=f"circuit_breaker: {{{CHECK}, open_for: 3s}}")
        await to.worker.control.active.install(load_text(text).snapshot)
        assert to.breaker.state is State.OPEN
        await asyncio.sleep(1.1)
        assert to.breaker.state is State.CLOSED


async def test_a_route_that_leaves_takes_its_check_along() -> None:
    app = sick()
    app.health = None
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        await asyncio.sleep(5.5)
        assert to.cluster.in_flight == 1
        before = to.cluster
        text = HEADER + app_routes(to.app.port).replace("name: app,", "name: other,")
        await to.worker.control.active.install(load_text(text).snapshot)
        assert before.in_flight == 0
        assert len(to.worker.assembly.checks) == 0
        await asyncio.sleep(60)
        assert len(checks(to.requests)) == 1


async def test_the_end_of_the_process_waits_for_no_check() -> None:
    app = sick()
    app.health = None
    async with raw_upstream(app.serve) as upstream:
        routes = app_routes(upstream.port, route=POLICY)
        async with serving(load_text(HEADER + routes).snapshot) as worker:
            await fail(Stage(worker, upstream, port(worker)))
            await asyncio.sleep(5.5)
            assert worker.assembly.clusters["app"].in_flight == 1
        assert worker.assembly.clusters["app"].in_flight == 0


async def test_limits_hold_for_checks_too_and_our_own_lack_is_no_failure() -> None:
    app = sick()
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        app.get_well()
        limit = to.cluster.policy.limits.max_requests
        to.cluster.in_flight += limit
        await asyncio.sleep(8)
        # It is asked for again each second, and learns nothing.
        assert to.breaker.state is State.HALF_OPEN
        assert [one.to_state for one in to.breaker.history] == [State.OPEN, State.HALF_OPEN]
        assert checks(to.requests) == []
        to.cluster.in_flight -= limit
        await asyncio.sleep(1.1)
        assert to.breaker.state is State.CLOSED


async def test_a_pooled_connection_that_has_ended_says_nothing() -> None:
    """The upstream ends the first connection that a check goes to, without a byte."""
    app = sick()

    async def once(peer: RawPeer) -> None:
        asked = 0
        while (request := await peer.request()) is not None:
            asked += 1
            if request.target == b"/healthz" and asked > 1:
                return
            await peer.send(app.health or b"" if request.target == b"/healthz" else app.traffic)

    async with stage(once, route=POLICY) as to:
        await fail(to)
        app.get_well()
        await asyncio.sleep(5.1)
        assert to.breaker.state is State.CLOSED
        assert len(checks(to.requests)) == 2


async def test_a_check_goes_to_an_endpoint_that_did_not_fail_last() -> None:
    first, well = sick(), sick()
    well.get_well()
    async with raw_upstream(first.serve) as one, raw_upstream(well.serve) as two:
        routes = app_routes(
            one.port, route=f"circuit_breaker: {{{CHECK}, warm_up: off, failure_rate_threshold: 10%}}"
        ).replace(
            "]}",
            f', "127.0.0.1:{two.port}"], ejection: {{mode: off}}, load_balancing: {{policy: round_robin}}}}',
        )
        async with serving(load_text(HEADER + routes).snapshot) as worker:
            breaker = worker.assembly.breakers["app", "app"]
            for _ in range(60):  # every other call fails, which opens it at the 20th
                if breaker.state is State.OPEN:
                    break
                async with raw_client(port(worker)) as client:
                    await client.send(get())
                    await client.responses([b"GET"])
            await asyncio.sleep(5.1)
            assert breaker.state is State.CLOSED
            assert (len(checks(one.requests)), len(checks(two.requests))) == (0, 1)
            await assert_clean(worker)


async def test_its_failure_is_told_once_in_an_outage_and_its_transitions_each_time(tmp_path: Path) -> None:
    app, log = sick(), tmp_path / "log"
    async with raw_upstream(app.serve) as upstream:
        routes = app_routes(upstream.port, route=f"circuit_breaker: {{{CHECK}, max_open_for: 5s}}")
        async with serving(load_text(HEADER + routes).snapshot, log) as worker:
            to = Stage(worker, upstream, port(worker))
            await fail(to)
            await asyncio.sleep(30)
            app.get_well()
            await asyncio.sleep(6)
            assert to.breaker.state is State.CLOSED
            app.traffic = app.health = FAILURE
            await asyncio.sleep(60)
            await fail(to)
            await asyncio.sleep(30)
            numbers = to.breaker.numbers(worker.service.clock())
            assert numbers.total == numbers.failed + numbers.successful + numbers.in_flight
            assert numbers.total == len(upstream.requests)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line for line in lines if line["kind"] == "circuit_breaker.check_failed"]
    assert len(told) == 2
    assert told[0]["message"] == "app/app: the check of /healthz fails: 500"
    assert (told[0]["status"], told[0]["error_type"], told[0]["level"]) == (500, "500", "warning")
    assert told[0]["endpoint"] == f"127.0.0.1:{upstream.port}"
    reopened = [
        line
        for line in lines
        if line["kind"] == "circuit_breaker.transition" and line["reason"] == "probe_failed"
    ]
    assert len(reopened) > 8
    assert reopened[0]["trace_id"] == told[0]["trace_id"]


async def test_what_a_check_takes_is_none_of_the_routes_own_times() -> None:
    app = sick()
    async with stage(app.serve, route=POLICY) as to:
        await fail(to)
        app.get_well()
        await asyncio.sleep(5.1)
        assert to.breaker.state is State.CLOSED
        assert len(to.breaker.durations) == 0
        await to.ask()
        assert len(to.breaker.durations) == 1
