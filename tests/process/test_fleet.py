"""Breakers of three replicas act as one over a real Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidecar.core.transition import State, TransitionReason
from sidecar.runtime.fleet import redis_client, side, store
from tests.process.fleet import Flaky, app, configuration, fails, install, replica, replicas, server, until
from tests.support.redis_server import RedisServer, needs_redis

__all__ = ["app", "server"]
pytestmark = [pytest.mark.process, needs_redis]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second is not enough for a link where the machine has much else to do, nor is one for a connection."""
    monkeypatch.setattr(side, "MEET_SECONDS", 60.0)
    monkeypatch.setattr(redis_client, "CONNECT_SECONDS", 60.0)
    monkeypatch.setattr(store, "ANSWER_SECONDS", 60.0)


async def test_an_outage_that_one_sees_first_protects_all_and_one_probe_ends_it(
    server: RedisServer, app: Flaky
) -> None:
    async with replicas(3, configuration(app.port, server.port)) as fleet:
        assert all(one.is_linked for one in fleet), "before the first request"
        app.status = 500
        for _ in range(5):
            assert await fleet[0].call() == 500
        await until(lambda: all(one.state is State.OPEN for one in fleet))
        assert app.calls == 5
        assert [await one.call() for one in fleet] == [503, 503, 503]
        assert app.calls == 5
        assert fleet[1].breaker.history[-1].reason is TransitionReason.PEERS
        assert fleet[1].shared["told"] == "1 of 1 replicas sees it failing"
        app.status = 200
        app.seen.clear()
        answers: list[int] = []
        while not any(one.state is State.CLOSED for one in fleet):
            answers += await asyncio.gather(*(one.call() for one in fleet))
        assert answers.count(200) == 1
        assert app.seen == [200], "one probe in all"
        await until(lambda: all(one.state is State.CLOSED for one in fleet))
        assert [await one.call() for one in fleet] == [200, 200, 200]


async def test_a_new_replica_begins_with_the_state_of_its_peers(server: RedisServer, app: Flaky) -> None:
    text = configuration(app.port, server.port, "open_for: 60s")
    async with replicas(1, text) as (first,):
        await fails(first, app)
        await until(lambda: first.worker.control.fleet.side().link.numbers.written)
        async with replica("late", text) as late:
            assert late.state is State.OPEN
            assert await late.call() == 503
            left = (late.breaker.numbers(late.worker.service.clock()).next_probe_at or 0.0) - (
                first.breaker.numbers(first.worker.service.clock()).next_probe_at or 0.0
            )
            assert abs(left) < 5.0, "the wait is that of the first"
    assert app.calls == 5


async def test_an_override_is_for_all_until_it_ends(server: RedisServer, app: Flaky) -> None:
    async with replicas(2, configuration(app.port, server.port)) as (one, two):
        told = await one.ask("POST", "/breakers/pay/open?fleet=true&by=ada")
        assert told["breakers"][0]["state"] == "forced_open"
        await until(lambda: two.state is State.FORCED_OPEN)
        assert await two.call() == 503
        (row,) = (await two.ask("GET", "/breakers"))["breakers"]
        assert row["override_by"] == "ada"
        assert 1700 < row["override_seconds_left"] <= 1800
        await two.ask("POST", "/breakers/pay/auto?fleet=true")
        await until(lambda: one.state is State.CLOSED)
        assert await one.call() == 200
        assert (await one.ask("POST", "/breakers/pay/open?fleet=maybe"))["status"] == 400
        await one.ask("POST", "/breakers/pay/open")
        assert two.state is State.CLOSED, "without `fleet` it is for one"


async def test_what_acts_for_itself_takes_no_override_for_all(server: RedisServer, app: Flaky) -> None:
    text = configuration(app.port, server.port).replace("scope: fleet, ", "")
    async with replicas(1, text) as (one,):
        refused = await one.ask("POST", "/breakers/pay/open?fleet=true")
        assert refused["status"] == 409
        assert "scope: fleet" in refused["detail"]
        assert one.state is State.CLOSED


async def test_two_versions_are_two_fleets(server: RedisServer, app: Flaky) -> None:
    old = configuration(app.port, server.port, "open_for: 60s")
    new = configuration(app.port, server.port, "open_for: 50s")
    async with replicas(3, [old, old, new]) as (one, two, other):
        await until(lambda: all(each.shared["versions"] == 2 for each in (one, two, other)))
        assert other.shared["told"] == "2 versions"
        await fails(one, app)
        await until(lambda: two.state is State.OPEN)
        assert other.state is State.CLOSED
        app.status = 200
        assert await other.call() == 200
        assert (await other.ask("GET", "/status"))["fleet"]["versions"] == 2


async def test_a_reload_lets_breakers_join_and_leave(server: RedisServer, app: Flaky, tmp_path: Path) -> None:
    joined = configuration(app.port, server.port, "open_for: 60s")
    alone = joined.replace("scope: fleet, ", "")
    async with replicas(2, [joined, alone]) as (one, two):
        assert (await two.ask("GET", "/breakers"))["breakers"][0]["fleet"] is None
        await fails(one, app)
        await install(two, joined)
        await until(lambda: two.state is State.OPEN)
        await install(two, alone)
        assert (await two.ask("GET", "/breakers"))["breakers"][0]["fleet"] is None
        nobody = alone[alone.index("upstreams:") :]
        await install(two, nobody)
        assert (await two.ask("GET", "/status"))["fleet"] is None
        await until(lambda: not two.is_linked)
