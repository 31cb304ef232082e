"""`GET /events`: in order, without gaps that are not told, bounded for those who are slow, many or away."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from sidecar.admin.events import CAPACITY, MAX_READERS, Events
from sidecar.admin.stream import WRITE_SECONDS
from sidecar.core.transition import Cause, State, Transition, TransitionReason, WindowNumbers
from tests.scenarios.operator import Operator, operator
from tests.scenarios.stage import app_routes
from tests.support.proxy import running

NOBODY = app_routes(9)


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


@pytest.mark.parametrize(
    "last_id",
    [
        *("0badc0de-1", "nonsense", "-", "", "LIFE-3", "LIFE--1", "LIFE-", "LIFE-\xb2"),
        *("LIFE-" + "0" * 18 + "9", "LIFE-" + "0" * 18 + "9" * 5000),
    ],
)
async def test_a_listener_of_another_life_or_of_the_future_gets_what_is_there_and_is_told(
    last_id: str,
) -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        last_id = last_id.replace("LIFE", worker.control.events.last_id.partition("-")[0])
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


async def test_listeners_are_bounded_and_one_that_leaves_makes_room_at_once() -> None:
    async with running(NOBODY) as worker, contextlib.AsyncExitStack() as stack:
        hand = operator(worker)
        for _ in range(MAX_READERS - 1):
            await stack.enter_async_context(hand.events())
        async with hand.events():
            assert (await hand.get("/status"))["events"]["readers"] == MAX_READERS
            refused = await hand.send("GET", "/events")
            assert (refused.status, refused.value(b"retry-after")) == (503, b"15")
        now = asyncio.get_running_loop().time()
        await stack.enter_async_context(hand.events())
        assert asyncio.get_running_loop().time() - now < 1.0
        assert (await hand.send("GET", "/events")).status == 503
    assert worker.control.events.readers == set()


async def test_the_end_of_the_process_ends_a_stream_in_order() -> None:
    async with running(NOBODY) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.control.admin.port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"retry: 2000\nid: " in await reader.readuntil(b"\n\n")
    assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_client_that_has_left_before_it_was_answered_is_no_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(NOBODY) as worker:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", worker.control.admin.port)
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await writer.drain()
            writer.transport.abort()
        await trip(operator(worker))
        assert (await operator(worker).get("/status"))["events"]["cut"] == 0
    assert caplog.records == []


def transition(number: int) -> Transition:
    reason = TransitionReason.FORCED
    causes = (Cause(b"a" * 32, b"b" * 16, b"c" * 128),) * 32
    return Transition(
        number, "r", "u", State.CLOSED, State.OPEN, reason, float(number), WindowNumbers(), causes=causes
    )


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


async def test_a_listener_that_takes_nothing_is_cut_and_holds_nobody_up() -> None:
    async with running(NOBODY) as worker:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", worker.control.admin.port))
        deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with operator(worker).events() as listening:
            for number in range(1, 4 * CAPACITY + 1):  # more than the buffers of the kernel take
                worker.control.events.transitioned(transition(number))
                assert (await listening.next())[1]["sequence"] == number
            await asyncio.sleep(WRITE_SECONDS + 1.0)
            numbers = (await operator(worker).get("/status"))["events"]
            assert (numbers["readers"], numbers["cut"]) == (1, 1)
        deaf.close()
