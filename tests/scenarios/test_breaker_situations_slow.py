"""Situations in which a hang hides: behind callers without patience, or in calls that are still under way."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.transition import State, TransitionReason
from tests.scenarios.changing import (
    Act,
    App,
    answers,
    asking,
    hangs,
    in_the_background,
    is_open,
    openings,
    seconds_until,
)
from tests.scenarios.stage import OK, Stage, get, hang, post, stage
from tests.support.raw import RawPeer, Request, raw_client, turns

SLOW = 0.5
POLICY = "circuit_breaker: {slow_call_duration: 500ms, slow_call_rate_threshold: 80%}"


async def leave_after(to: Stage, seconds: float, data: bytes = get()) -> None:
    """One client that asks, waits so long, and goes away."""
    async with raw_client(to.port) as client:
        await client.send(data)
        await asyncio.sleep(seconds)


# Calls that are still under way


@pytest.mark.parametrize("data", [get(), post(b"whole")], ids=["GET", "POST"])
async def test_fifty_hanging_calls_open_it_while_they_hang(data: bytes) -> None:
    async with (
        stage(hang, route=POLICY) as to,
        in_the_background(*(leave_after(to, 30.0, data) for _ in range(50))),
    ):
        seconds = await seconds_until(is_open(to), within=2 * SLOW)
        assert seconds == pytest.approx(SLOW, abs=0.05)
        assert openings(to) == [TransitionReason.SLOW_CALL_RATE]
        assert (await to.ask()).status == 503
        assert to.breaker.tally.slow == 50


async def test_hanging_calls_open_it_as_soon_as_there_are_enough_of_them() -> None:
    """Four a second, and `minimum_calls: 20`: 5 s until there are 20, and one `slow_call_duration`."""
    async with stage(hang, route=POLICY) as to:

        async def come() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(30):
                    group.create_task(leave_after(to, 60.0))
                    await asyncio.sleep(0.25)
                await asyncio.sleep(60.0)

        async with in_the_background(come()):
            assert await seconds_until(is_open(to), within=4.75 + 2 * SLOW) >= 4.75
        assert openings(to) == [TransitionReason.SLOW_CALL_RATE]


async def test_nineteen_hanging_calls_are_too_few_for_a_rate() -> None:
    async with (
        stage(hang, route=POLICY) as to,
        in_the_background(*(leave_after(to, 30.0) for _ in range(19))),
    ):
        await asyncio.sleep(3.0)
        assert (to.breaker.state, to.breaker.tally.slow) == (State.CLOSED, 19)


async def test_hanging_calls_among_many_good_ones_open_nothing() -> None:
    async def act(peer: RawPeer, request: Request) -> None:
        await (hangs if request.target == b"/hang" else answers())(peer, request)

    async with stage(App(act), route=POLICY) as to:
        async with (
            in_the_background(*(leave_after(to, 30.0, get(b"/hang")) for _ in range(20))),
            asking(to.port, pause=0.05, callers=2) as others,
        ):
            await asyncio.sleep(5.0)
        assert set(others.statuses) == {200}
        assert openings(to) == []


async def test_a_call_without_a_budget_is_looked_at_in_time() -> None:
    """By the millisecond, whatever else the exchange is watched for."""
    loop = asyncio.get_running_loop()
    policy = "circuit_breaker: {slow_call_duration: 120ms, slow_call_rate_threshold: 1%, minimum_calls: 1}"
    async with stage(hang, route=policy) as to:
        began = loop.time()
        async with in_the_background(leave_after(to, 5.0)):
            await seconds_until(is_open(to), within=0.2)
        (opened,) = to.breaker.history
        assert opened.at - began == pytest.approx(0.12, abs=0.002)


# Callers without patience


async def test_thirty_clients_one_after_the_other_who_leave_after_2_5_s_are_thirty_slow_calls() -> None:
    async with stage(hang, route=POLICY) as to:
        for _ in range(30):
            await leave_after(to, 2.5)
        await turns(20)
        tally = to.breaker.tally
        # A window of 10 s holds four of them, too few for a rate of 20 calls.
        assert (to.breaker.state, tally.slow, tally.ignored) == (State.CLOSED, 30, 30)


async def test_four_of_them_open_it_where_four_calls_are_enough() -> None:
    async with stage(hang, route=POLICY.replace("}", ", minimum_calls: 4}")) as to:
        for _ in range(3):
            await leave_after(to, 2.5)
        async with in_the_background(leave_after(to, 2.5)):
            await seconds_until(is_open(to), within=2 * SLOW)
        assert openings(to) == [TransitionReason.SLOW_CALL_RATE]


@pytest.mark.parametrize("patience", [0.6, 2.5])
async def test_clients_at_once_who_leave_are_slow_calls(patience: float) -> None:
    async with stage(hang, route=POLICY) as to:
        async with in_the_background(*(leave_after(to, patience) for _ in range(30))):
            await seconds_until(is_open(to), within=2 * SLOW)
        assert openings(to) == [TransitionReason.SLOW_CALL_RATE]
        assert to.breaker.tally.slow == 30


async def test_clients_who_leave_before_a_call_is_slow_hide_nothing_either() -> None:
    """Without one answer, 0.4 s each: shorter than any rule, and so the one thing that nobody can tell apart."""
    async with stage(hang, route=POLICY) as to:
        await asyncio.gather(*(leave_after(to, 0.4) for _ in range(60)))
        assert (to.breaker.state, to.breaker.tally.slow) == (State.CLOSED, 0)


async def test_clients_who_leave_after_a_second_open_it_by_silence_without_any_slow_calls() -> None:
    async with stage(hang) as to:
        await asyncio.gather(*(leave_after(to, 1.0) for _ in range(20)))
        await seconds_until(is_open(to), within=0.1)
        assert openings(to) == [TransitionReason.FAILURE_RATE]


async def test_clients_who_leave_open_nothing_while_others_are_served() -> None:
    async def act(peer: RawPeer, request: Request) -> None:
        if request.target == b"/report":
            await asyncio.sleep(5.0)
        await peer.send(OK)

    async with stage(App(act)) as to, asking(to.port, pause=0.5) as others:
        for _ in range(5):
            await asyncio.gather(*(leave_after(to, 1.0, get(b"/report")) for _ in range(20)))
        assert set(others.statuses) == {200}
        assert openings(to) == []


# What is not the upstream's time


@pytest.mark.parametrize("act", [answers(), hangs], ids=["answers", "hangs"])
async def test_uploads_that_take_their_time_are_not_slow(act: Act) -> None:
    async with stage(App(act), route=POLICY) as to:

        async def drip() -> None:
            async with raw_client(to.port) as client:
                await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
                for _ in range(9):
                    await client.send(b"x")
                    await asyncio.sleep(0.3)

        await asyncio.gather(*(drip() for _ in range(25)))
        assert (to.breaker.state, to.breaker.tally.slow) == (State.CLOSED, 0)
