"""A Redis that is killed, hangs, is slow, wants another password, is flushed or is cut off: no request is harmed,
each replica goes on alone and says so, and all are one again when it is back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.core.transition import State
from tests.process.fleet import (
    LONG,
    Flaky,
    Replica,
    app,
    are_one,
    configuration,
    fails,
    replica,
    replicas,
    server,
    under_load,
    until,
)
from tests.support.redis_server import RedisServer, needs_redis, redis_server
from tests.support.relay import relay

__all__ = ["app", "server"]
pytestmark = [pytest.mark.process, needs_redis]


def are_alone(fleet: list[Replica], reason: str) -> bool:
    return all(one.told["is_alone"] and one.told["reason"] == reason for one in fleet)


async def are_heard(fleet: list[Replica]) -> None:
    """What is said to one reaches the other."""
    await fleet[0].ask("POST", "/breakers/pay/open?fleet=true")
    await until(lambda: fleet[1].state is State.FORCED_OPEN)


async def test_killed_and_started_again(server: RedisServer, app: Flaky) -> None:
    async with replicas(2, configuration(app.port, server.port, LONG)) as fleet:
        async with under_load(fleet) as answers:
            await server.kill()
            await until(lambda: are_alone(fleet, "unreachable"))
            await until(lambda: len(answers) > 20)
            await server.start()
            await until(lambda: are_one(fleet))
        assert set(answers) == {200}
        await are_heard(fleet)


async def test_an_outage_while_it_is_away_is_seen_by_each_and_told_when_it_is_back(
    server: RedisServer, app: Flaky
) -> None:
    async with replicas(2, configuration(app.port, server.port, LONG)) as fleet:
        await server.kill()
        await until(lambda: are_alone(fleet, "unreachable"))
        await fails(fleet[0], app)
        assert fleet[1].state is State.CLOSED
        assert fleet[0].shared["told"].startswith("alone")
        await server.start()
        await until(lambda: fleet[1].state is State.OPEN)


async def test_hung_and_going_on(server: RedisServer, app: Flaky) -> None:
    async with replicas(2, configuration(app.port, server.port, LONG)) as fleet:
        async with under_load(fleet) as answers:
            server.hang()
            try:
                await until(lambda: are_alone(fleet, "slow"))
                before = len(answers)
                await until(lambda: len(answers) > before + 20)
            finally:
                server.go_on()
            await until(lambda: are_one(fleet))
        assert set(answers) == {200}
        await are_heard(fleet)


async def test_slow_is_good_enough(server: RedisServer, app: Flaky) -> None:
    async with relay(server.port) as between:
        between.delay_seconds = 0.1
        async with replicas(2, configuration(app.port, between.port, LONG)) as fleet:
            await until(lambda: are_one(fleet))
            async with under_load(fleet) as answers:
                await until(lambda: len(answers) > 20)
            assert set(answers) == {200}
            await fails(fleet[0], app)
            await until(lambda: fleet[1].state is State.OPEN)
            await until(lambda: are_one(fleet))


async def test_cut_off_and_let_through_again(server: RedisServer, app: Flaky) -> None:
    """One of three is on the other side of a partition, with an outage that it alone does not hear of."""
    async with relay(server.port) as between:
        near, far = configuration(app.port, server.port, LONG), configuration(app.port, between.port, LONG)
        async with replicas(2, near) as fleet, replica("far", far) as lonely:
            await until(lambda: are_one([*fleet, lonely]))
            between.is_cut = True
            await until(lambda: are_alone([lonely], "slow"))
            await fails(fleet[0], app)
            await until(lambda: fleet[1].state is State.OPEN)
            assert lonely.state is State.CLOSED
            between.is_cut = False
            await until(lambda: lonely.is_linked)
            await until(lambda: lonely.state is State.OPEN)


async def test_flushed_closes_nothing_and_is_written_again(server: RedisServer, app: Flaky) -> None:
    text = configuration(app.port, server.port, LONG)
    async with replicas(2, text) as fleet:
        await fails(fleet[0], app)
        await until(lambda: fleet[1].state is State.OPEN)
        assert await server.ask("FLUSHALL") == b"+OK"
        while await server.ask("EXISTS", state(fleet[0])) != b":1":
            assert [one.state for one in fleet] == [State.OPEN, State.OPEN]
        assert [one.state for one in fleet] == [State.OPEN, State.OPEN]
        async with replica("late", text) as late:
            assert late.state is State.OPEN


def state(one: Replica) -> str:
    """The key of the breaker's state."""
    return f"sidecar::{{shop}}:state:{one.shared['key']}:state"


async def test_a_wrong_password_is_told_and_the_right_one_is_used_without_a_restart(
    tmp_path: Path, app: Flaky
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    async with redis_server(tmp_path, "--requirepass", "right") as server:
        text = configuration(app.port, server.port, LONG, f", password_file: {file}")
        async with replicas(2, text) as fleet:
            assert are_alone(fleet, "password")
            assert "wrong" not in str([one.told for one in fleet]).replace("WRONGPASS", "")
            assert [await one.call() for one in fleet] == [200, 200]
            status = await fleet[0].ask("GET", "/status")
            assert status["fleet"]["failures"]["password"] >= 1
            file.write_text("right")
            await until(lambda: are_one(fleet))


async def test_what_others_wrote_there_is_counted_and_changes_nothing(
    server: RedisServer, app: Flaky
) -> None:
    async with replicas(1, configuration(app.port, server.port, LONG)) as (one,):
        stream = "sidecar::{shop}:stream"
        await server.ask("XADD", stream, "*", "b", "nonsense")
        await until(lambda: one.told["refused"] == 1)
        await server.ask("XADD", stream, "*", "no", "body")
        await until(lambda: one.told["refused"] == 2)
        assert one.is_linked
    async with replicas(1, configuration(app.port, server.port, LONG)) as (late,):
        await until(lambda: late.told["refused"] == 2)
        assert late.is_linked
        assert await late.call() == 200
