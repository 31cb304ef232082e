"""Tuning a breaker on live traffic: the candidate, the ramp, what counts as a failure, and an operator's hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from sidecar.config.load import load_text
from sidecar.core.transition import State, TransitionReason
from tests.scenarios.operator import operator, serving
from tests.scenarios.stage import OK, Stage, app_routes, get, saying, stage
from tests.support.proxy import HEADER, port
from tests.support.raw import RawPeer, raw_client, raw_upstream

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"


async def by_target(peer: RawPeer) -> None:
    """Answer with the status that the path names: `/500`; `/mark` is a success with a header of its own."""
    while (request := await peer.request()) is not None:
        word = request.target.strip(b"/")
        status = word if word.isdigit() else b"200"
        extra = b"x-fail: 1\r\n" if word == b"mark" else b""
        await peer.send(b"HTTP/1.1 %b X\r\n%bContent-Length: 0\r\n\r\n" % (status, extra))


OF_APP = 'sidecar_route="app",sidecar_upstream="app"'
STATE = "sidecar_circuit_breaker_state"


def would_have_rejected(to: Stage, policy: str) -> tuple[float, float]:
    """Requests in the metrics that a policy would have refused: those that were fine, and those that failed."""
    start = f'sidecar_circuit_breaker_would_have_rejected_total{{{OF_APP},sidecar_circuit_breaker_policy="{policy}",'
    fine, failed = (
        to.metric(f'{start}sidecar_circuit_breaker_outcome="{outcome}"') for outcome in ("success", "failure")
    )
    return fine, failed


async def statuses(to: Stage, *paths: bytes) -> list[int]:
    answers = await to.ask_all(b"".join(get(path) for path in paths), [b"GET"] * len(paths))
    return [answer.status for answer in answers]


# What counts as a failure


@pytest.mark.parametrize(
    ("policy", "path", "is_failure"),
    [
        ("failure_on: [502]", b"/502", True),
        ("failure_on: [502]", b"/500", False),
        ("failure_on: [5xx]", b"/599", True),
        ("failure_on: [404]", b"/404", True),
        ("failure_on: [429]", b"/429", True),
        ("failure_on: [302]", b"/302", True),
        ('failure_header: {x-fail: "1"}', b"/mark", True),
        ('failure_header: {x-fail: "2"}', b"/mark", False),
        ("failure_on: [connect_failure]", b"/500", False),
    ],
)
async def test_the_policy_says_what_a_failure_is(policy: str, path: bytes, is_failure: bool) -> None:
    async with stage(by_target, route=f"circuit_breaker: {{{policy}}}") as to:
        await statuses(to, *[path] * 5)
        assert to.breaker.state is (State.OPEN if is_failure else State.CLOSED)
        assert to.breaker.numbers(to.worker.service.clock()).failed == (5 if is_failure else 0)


async def test_an_empty_count_window_forgets_the_calls_before_it() -> None:
    policy = (
        "circuit_breaker: {consecutive_failures: 0, minimum_calls: 4, failure_rate_threshold: 75%,"
        " sliding_window: {type: count, size: 4}}"
    )
    async with stage(by_target, route=policy) as to:
        await statuses(to, *[b"/500", b"/500", b"/200", b"/200"] * 3)
        assert to.breaker.state is State.CLOSED
        await statuses(to, b"/500", b"/500", b"/500")
        assert to.breaker.state is State.OPEN


# The candidate


async def test_a_candidate_tells_what_it_would_have_done_to_the_days_traffic() -> None:
    policy = """circuit_breaker: {consecutive_failures: 0, minimum_calls: 10, failure_rate_threshold: 90%,
      candidate: {failure_rate_threshold: 30%, open_for: 5s}}"""
    async with stage(by_target, route=policy) as to:
        # 3 of 10 fail: the candidate opens at the tenth call, the active one stays closed.
        assert await statuses(to, *[b"/200"] * 7, *[b"/500"] * 3) == [200] * 7 + [500] * 3
        assert await statuses(to, b"/200", b"/200", b"/500", b"/200") == [200, 200, 500, 200]
        found = (await operator(to.worker).get("/breakers/app"))["breakers"][0]
        assert would_have_rejected(to, "candidate") == (3, 1)
        assert would_have_rejected(to, "active") == (0, 0), "it acts"
        assert to.metric(f'sidecar_circuit_breaker_candidate_state{{{OF_APP},{STATE}="open"}}') == 1
        assert to.metric(f'sidecar_circuit_breaker_candidate_state{{{OF_APP},{STATE}="closed"}}') == 0
    active, candidate = found["active"], found["candidate"]
    assert (active["state"], candidate["state"]) == ("closed", "open")
    assert (active["policy"]["failure_rate_threshold"], candidate["policy"]["failure_rate_threshold"]) == (
        0.9,
        0.3,
    )
    assert active["policy"]["minimum_calls"] == candidate["policy"]["minimum_calls"] == 10
    assert candidate["would_have_rejected"] == 4
    assert candidate["would_have_been_fine"] == 3
    assert candidate["failures_saved"] == 1
    assert [one["reason"] for one in candidate["history"]] == ["failure_rate"]
    assert active["counters"] | {"success_rate": 0.0} == {
        "total": 14, "successful": 10, "failed": 4, "ignored": 0, "rejected": 0, "in_flight": 0,
        "timed_out": 0, "slow": 0, "transitions": 0, "success_rate": 0.0,
    }  # fmt: skip
    assert active["counters"]["success_rate"] == pytest.approx(10 / 14)


async def test_metrics_only_tells_what_it_would_have_refused() -> None:
    async with stage(by_target, route="circuit_breaker: {mode: metrics_only}") as to:
        await statuses(to, *[b"/500"] * 5, b"/200", b"/500", b"/500")
        (found,) = (await operator(to.worker).get("/breakers/app"))["breakers"]
        assert would_have_rejected(to, "active") == (1, 2)
        assert to.metric("sidecar_circuit_breaker_candidate_state{") == 0
    assert (found["state"], found["mode"]) == ("open", "metrics_only")
    active = found["active"]
    assert (active["would_have_rejected"], active["would_have_been_fine"], active["failures_saved"]) == (
        3,
        1,
        2,
    )
    assert active["counters"]["rejected"] == 0


async def test_slow_and_timed_out_attempts_are_counted() -> None:
    async def late(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await asyncio.sleep(2.0 if request.target == b"/late" else 0.5)
            await peer.send(OK)

    route = "circuit_breaker: {slow_call_duration: 200ms}, timeouts: {request: 1s}"
    async with stage(late, route=route) as to:
        assert await statuses(to, b"/", b"/late") == [200, 504]
        assert to.metric("sidecar_circuit_breaker_slow_total{") == 2
        assert to.metric("sidecar_circuit_breaker_timed_out_total{") == 1


# The ramp


async def test_after_closing_a_growing_share_is_let_in() -> None:
    answers = saying(*[FAILURE] * 5, OK)
    async with stage(answers, route="circuit_breaker: {ramp: 10s}") as to, raw_client(to.port) as client:

        async def ask(count: int) -> Counter[int]:
            await client.send(get() * count)
            answers = await client.responses([b"GET"] * count)
            client.received = b""
            return Counter(answer.status for answer in answers)

        assert await ask(5) == {500: 5}
        await asyncio.sleep(5.01)
        assert await ask(1) == {200: 1}  # the probe
        shares = []
        for _ in range(4):
            await asyncio.sleep(2.4)
            shares.append((await ask(400))[200] / 400)
        assert shares == sorted(shares)
        # From 10 % on. Each is let in by chance: five times the standard deviation of the share of 400.
        assert shares == pytest.approx([0.316, 0.532, 0.748, 0.964], abs=0.125)
        await asyncio.sleep(0.5)
        assert await ask(40) == {200: 40}


async def test_a_ramp_is_told_in_answers_and_to_operators() -> None:
    answers = saying(*[FAILURE] * 5, OK)
    async with stage(answers, route="circuit_breaker: {ramp: 10s}") as to:
        await to.ask_all(get() * 5, [b"GET"] * 5)
        await asyncio.sleep(5.01)
        assert (await to.ask()).status == 200
        await asyncio.sleep(2.5)
        (row,) = (await operator(to.worker).get("/breakers"))["breakers"]
        assert (row["state"], row["why"]) == ("closed", "")
        share = row["ramp_share"]
        assert share == pytest.approx(0.325, abs=0.01)
        assert row["told"] == f"closed, ramping {round(share * 100)} %"
        refusal = await to.ask()
        while refusal.status == 200:
            refusal = await to.ask()
        detail = json.loads(refusal.body)["detail"]
        assert re.fullmatch(r"the circuit breaker of app to app is closed, ramping 3[234] %", detail)
        assert detail.encode() in (refusal.value(b"proxy-status") or b"")
        await asyncio.sleep(7.5)
        (row,) = (await operator(to.worker).get("/breakers"))["breakers"]
        assert (row["told"], row["ramp_share"]) == ("closed", None)


async def test_a_trip_while_ramping_opens_for_twice_as_long() -> None:
    answers = saying(*[FAILURE] * 5, OK, FAILURE)
    async with stage(answers, route="circuit_breaker: {ramp: 10s}") as to:
        await to.ask_all(get() * 5, [b"GET"] * 5)
        await asyncio.sleep(5.01)
        assert (await to.ask()).status == 200
        await asyncio.sleep(8.0)
        while to.breaker.state is State.CLOSED:
            await to.ask()
        first, *_, last = [one for one in to.breaker.history if one.to_state is State.OPEN]
        assert first.wait_seconds == 5.0
        assert last.wait_seconds is not None
        assert last.wait_seconds == pytest.approx(10.0, rel=0.25)  # doubled, with jitter
        assert last.reason is TransitionReason.CONSECUTIVE_FAILURES


# The operator


async def test_an_override_refuses_everything_and_ends_at_its_time() -> None:
    async with stage(by_target) as to:
        hand = operator(to.worker)
        told = await hand.post("/breakers/app/open?for=5m")
        (one,) = told["breakers"]
        assert (one["state"], one["is_overridden"], one["override_seconds_left"]) == (
            "forced_open",
            True,
            300.0,
        )
        refusal = await to.ask()
        assert (refusal.status, refusal.value(b"retry-after")) == (503, b"300")
        await asyncio.sleep(299)
        assert (await to.ask()).status == 503
        await asyncio.sleep(2)
        assert to.breaker.state is State.CLOSED  # by the housekeeper, without a request
        assert (await to.ask()).status == 200
        assert [one.reason for one in to.breaker.history] == [TransitionReason.FORCED] * 2


async def test_an_override_is_shown_over_at_its_end_and_not_when_the_housekeeper_comes() -> None:
    async with stage(by_target) as to:
        hand = operator(to.worker)
        async with hand.events() as events:
            await asyncio.sleep(0.3)  # between two rounds of the housekeeper
            (begun,) = (await hand.post("/breakers/app/open?for=1s"))["breakers"]
            kind, told = await events.next()
            assert told["to"] == "forced_open"
            left = begun["override_seconds_left"]
            await asyncio.sleep(left - 0.001)
            (one,) = (await hand.get("/breakers"))["breakers"]
            assert one["told"] == "forced_open by hand"
            await asyncio.sleep(0.001)
            (one,) = (await hand.get("/breakers"))["breakers"]
            status = (await hand.get("/status"))["breakers"]
            (route,) = (await hand.get("/routes"))["routes"]
            assert to.breaker.state is State.FORCED_OPEN  # nobody has come yet
            overrides = [one[f"override_{key}"] for key in ("by", "since", "until", "seconds_left")]
            assert (one["state"], one["told"], one["why"], one["is_overridden"], overrides) == (
                "closed", "closed", "", False, [None] * 4,
            )  # fmt: skip
            assert (status["open_count"], status["overridden_count"], status["by_state"]["closed"]) == (
                0,
                0,
                1,
            )
            assert route["breakers"] == [{"upstream": "app", "state": "closed"}]
            kind, told = await events.next()
    assert (kind, told["to"], told["at"]) == ("transition", "closed", begun["override_until"])
    assert told["why"] == "the time of the override by 127.0.0.1 is over"
    assert told["override"] == {
        "action": "auto", "by": "127.0.0.1",
        "since": begun["override_since"], "until": begun["override_until"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "by", "left"),
    [
        ("", "127.0.0.1", 1800.0),
        ("?for=90s&by=ada@bastion", "ada@bastion", 90.0),
        ("?for=ever", "127.0.0.1", None),
        ("?for=8784h", "127.0.0.1", 366 * 86400.0),
    ],
)
@pytest.mark.parametrize("action", ["open", "close"])
async def test_an_override_says_who_made_it_and_ends_after_half_an_hour_by_default(
    action: str, query: str, by: str, left: float | None
) -> None:
    async with stage(by_target) as to:
        hand = operator(to.worker)
        async with hand.events() as events:
            await hand.post(f"/breakers/app/{action}{query}")
            (one,) = (await hand.get("/breakers"))["breakers"]
            assert (one["override_by"], one["override_seconds_left"]) == (by, left)
            assert f": by {by} since " in one["why"]
            await hand.post("/breakers/app/auto?by=bob@desk")
            heard = [await events.next() for _ in range(2)]
    assert [told["override"]["by"] for _, told in heard] == [by, "bob@desk"]
    assert heard[0][1]["override"]["since"] == one["override_since"]
    assert heard[1][1]["why"] == "override ended by bob@desk"
    assert heard[1][1]["override"]["until"] is None


async def test_what_opened_a_breaker_stands_wherever_a_person_looks(tmp_path: Path) -> None:
    log = tmp_path / "log"
    routes = app_routes(9, route="circuit_breaker: {warm_up: off}")
    async with serving(load_text(HEADER + routes).snapshot, log) as worker:
        hand = operator(worker)
        async with hand.events() as events, raw_client(port(worker)) as client:
            await client.send(get() * 5)
            await client.responses([b"GET"] * 5)
            why = "open: 5 × connection_refused 127.0.0.1:9"
            _, opened = await events.next()
            assert (opened["why"], len(opened["causes"])) == (why.removeprefix("open: "), 5)
            cause = opened["causes"][0]
            assert (cause["error_type"], cause["status"], cause["endpoint"]) == (
                "connection_refused", None, "127.0.0.1:9",
            )  # fmt: skip
            assert cause["detail"]
            assert cause["request_id"]
            await asyncio.sleep(5.01)
            (row,) = (await hand.get("/breakers"))["breakers"]
            assert (row["told"], row["why"], row["is_probe_due"]) == (
                "open, probe due", f"{why}; probe due", True,
            )  # fmt: skip
            due = 'sidecar_circuit_breaker_probe_due{sidecar_route="app",sidecar_upstream="app"} '
            assert f"{due}1\n" in (await hand.send("GET", "/metrics")).body.decode()
            await client.send(get())
            await client.responses([b"GET"] * 6)
            (shut,) = (await hand.get("/status"))["breakers"]["open"]
            assert shut["why"] == f"{why}; last probe: the same"
            (whole,) = (await hand.get("/breakers/app"))["breakers"]
            assert whole["why"] == f"{why}; last probe: the same"
            assert [one["why"] for one in whole["history"]] == [
                "probe failed: connection_refused 127.0.0.1:9", "", "5 × connection_refused 127.0.0.1:9",
            ]  # fmt: skip
            assert f"{due}0\n" in (await hand.send("GET", "/metrics")).body.decode()
            await hand.post("/breakers/app/close")
            held = 'sidecar_circuit_breaker_overridden{sidecar_route="app",sidecar_upstream="app"} 1\n'
            assert held in (await hand.send("GET", "/metrics")).body.decode()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    first = next(line for line in lines if line["kind"] == "circuit_breaker.transition")
    assert first["message"] == "app/app: closed -> open: 5 × connection_refused 127.0.0.1:9"
    assert first["causes"][0] == {
        "request_id": cause["request_id"], "trace_id": cause["trace_id"],
        "error_type": "connection_refused", "endpoint": "127.0.0.1:9", "detail": cause["detail"],
    }  # fmt: skip


async def test_an_override_closes_a_breaker_whatever_the_upstream_does() -> None:
    async with stage(by_target) as to:
        await statuses(to, *[b"/500"] * 5)
        hand = operator(to.worker)
        assert (await hand.post("/breakers/app/close"))["breakers"][0]["state"] == "forced_closed"
        assert await statuses(to, *[b"/500"] * 20) == [500] * 20
        assert (await hand.post("/breakers/app/auto"))["breakers"][0]["state"] == "closed"
        assert await statuses(to, *[b"/500"] * 6) == [500] * 5 + [503]


async def test_an_override_survives_a_reload_of_thresholds() -> None:
    async with stage(by_target) as to:
        hand = operator(to.worker)
        await hand.post("/breakers/app/open?for=5m")
        changed = app_routes(to.app.port, route="circuit_breaker: {consecutive_failures: 1}")
        await to.worker.control.active.install(load_text(HEADER + changed).snapshot)
        (one,) = (await hand.get("/breakers/app"))["breakers"]
        assert (one["state"], one["is_overridden"]) == ("forced_open", True)
        assert one["active"]["policy"]["consecutive_failures"] == 1
        assert (await to.ask()).status == 503


async def test_an_override_survives_a_reload_that_changes_the_upstream() -> None:
    async with stage(by_target) as to:
        hand = operator(to.worker)
        (begun,) = (await hand.post("/breakers/app/open?for=5m&by=ada@bastion"))["breakers"]
        before = to.breaker
        await to.worker.control.active.install(load_text(HEADER + app_routes(9)).snapshot)
        assert to.breaker is not before
        (one,) = (await hand.get("/breakers/app"))["breakers"]
        assert (one["state"], one["generation"], one["override_seconds_left"]) == ("forced_open", 0, 300.0)
        kept = ("override_by", "override_since", "override_until", "why")
        assert [one[key] for key in kept] == [begun[key] for key in kept]
        assert one["override_by"] == "ada@bastion"
        assert (await to.ask()).status == 503
        await asyncio.sleep(301)
        assert to.breaker.state is State.CLOSED


async def test_an_override_is_for_every_upstream_of_the_route_but_not_for_its_fallback() -> None:
    async with raw_upstream(saying(OK)) as app, raw_upstream(saying(OK)) as spare:
        routes = f"""\
upstreams:
  app: {{endpoints: ["127.0.0.1:{app.port}"]}}
  canary: {{endpoints: ["127.0.0.1:{app.port}"]}}
  spare: {{endpoints: ["127.0.0.1:{spare.port}"]}}
routes: [{{name: shop, weights: {{app: 1, canary: 1}}, fallback: {{upstream: spare}}}}]
"""
        async with serving(load_text(HEADER + routes).snapshot) as worker:
            hand = operator(worker)
            told = await hand.post("/breakers/shop/open")
            assert {one["upstream"]: one["state"] for one in told["breakers"]} == {
                "app": "forced_open", "canary": "forced_open",
            }  # fmt: skip
            async with raw_client(port(worker)) as client:
                await client.send(get())
                (served,) = await client.responses([b"GET"])
            assert served.status == 200
            assert len(spare.requests) == 1
            told = await hand.post("/breakers/shop/open?upstream=spare")
            assert [one["upstream"] for one in told["breakers"]] == ["spare"]
            listed = (await hand.get("/breakers/shop"))["breakers"]
            assert [(one["upstream"], one["is_fallback"]) for one in listed] == [
                ("app", False), ("canary", False), ("spare", True),
            ]  # fmt: skip


# Transitions are told


async def test_each_transition_is_a_line_in_the_log_and_an_event_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with raw_upstream(saying(*[FAILURE] * 5, OK)) as app:
        async with serving(load_text(HEADER + app_routes(app.port)).snapshot, log) as worker:
            hand = operator(worker)
            async with hand.events() as events, raw_client(port(worker)) as client:
                await client.send(get() * 5)
                await client.responses([b"GET"] * 5)
                await asyncio.sleep(5.01)
                await client.send(get())
                await client.responses([b"GET"] * 6)
                await hand.post("/breakers/app/open?for=10s")
                await asyncio.sleep(12)
                heard = [await events.next() for _ in range(5)]
            history = worker.assembly.breakers["app", "app"].history
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    expected = [
        ("closed", "open", "consecutive_failures"),
        ("open", "half_open", "wait_elapsed"),
        ("half_open", "closed", "probe_succeeded"),
        ("closed", "forced_open", "forced"),
        ("forced_open", "closed", "forced"),
    ]
    transitions = [line for line in lines if line["kind"] == "circuit_breaker.transition"]
    for told in ([data for _, data in heard], transitions):
        assert [(one["from"], one["to"], one["reason"]) for one in told] == expected
        assert [one["sequence"] for one in told] == [1, 2, 3, 4, 5]
    assert {kind for kind, _ in heard} == {"transition"}
    assert [one.sequence for one in history] == [1, 2, 3, 4, 5]
    opened = heard[0][1]
    assert len(opened["causes"]) == 5
    assert opened["window"] == {
        "total": 5, "failed": 5, "slow": 0, "consecutive_failures": 5, "failure_rate": 1.0, "slow_rate": 0.0,
    }  # fmt: skip
    assert opened["wait_seconds"] == 5.0
    (audit,) = [line for line in lines if line["kind"] == "admin.change"]
    assert (audit["path"], audit["status"]) == ("/breakers/app/open", 200)
    assert audit["query"] == {"for": "10s"}
