"""An error of our own in one deadline, one look at a client or one queued request ends that one and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest

from sidecar.core.observe import ObservedExchange
from sidecar.forwarding.sweep import Expiring, Sweep
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import app_routes, get, hang, inbound, saying
from tests.support.broken import Broken, Transports, transports
from tests.support.clean import Complaints, assert_clean
from tests.support.loop import JumpingLoop
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawClient, RawUpstream, Script, raw_client, raw_upstream, turns
from tests.support.silent import Silent


class Item:
    """Something with a deadline; `is_broken` makes its expiry raise."""

    def __init__(self, due: float, *, is_broken: bool = False) -> None:
        self.due = due
        self.bucket: set[Expiring] | None = None
        self.is_broken = is_broken
        self.late_seconds: float | None = None

    def expire(self, now: float) -> None:
        self.late_seconds = now - self.due
        if self.is_broken:
            raise Broken("this expiry does not work")

    def abandon(self) -> None:
        """Nothing belongs to it."""


@pytest.fixture
async def jumping() -> JumpingLoop:
    """The test's loop: a `jump` of its clock is what a loop that was held for so long looks like."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    return loop


@contextmanager
def complaining() -> Iterator[Complaints]:
    """What goes wrong within the block is told once. (llhttp wraps what its callbacks raise.)"""
    with Complaints(asyncio.get_running_loop()) as complaints:
        yield complaints
    assert len(complaints.found) == 1, complaints.found
    assert "Broken" in complaints.found[0] or "HttpParserCallbackError" in complaints.found[0]


@pytest.mark.parametrize("held_seconds", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("broken_in_seconds", [0.0, 0.03, 0.5, 0.51, 0.524])
async def test_a_broken_expiry_stops_no_other_deadline(
    broken_in_seconds: float, held_seconds: float, jumping: JumpingLoop
) -> None:
    """Those of the same 25 ms, of the next, and those added later; also where the loop was held meanwhile, so that
    many have passed at the next look."""
    loop = jumping
    sweep = Sweep(loop, loop.time)
    start = loop.time()
    broken = Item(start + broken_in_seconds, is_broken=True)
    others = [Item(start + number * 0.0037) for number in range(300)]
    with complaining():
        for item in (*others[:150], broken, *others[150:]):
            sweep.add(item, start)
        await asyncio.sleep(0.4)
        loop.jump(held_seconds)
        await asyncio.sleep(2)
        later = [Item(loop.time() + seconds) for seconds in (0.05, 1.0, 3.0)]
        for item in later:
            sweep.add(item, loop.time())
        await asyncio.sleep(4)
    assert [item.due - start for item in (*others, *later) if item.late_seconds is None] == []
    assert max(item.late_seconds or 0.0 for item in others) < held_seconds + 0.001
    assert max(item.late_seconds or 0.0 for item in later) < 0.001
    assert len(sweep) == 0


async def test_several_broken_expiries_of_one_moment_are_each_told(jumping: JumpingLoop) -> None:
    loop = jumping
    sweep = Sweep(loop, loop.time)
    due = loop.time() + 0.5
    items = [Item(due, is_broken=number % 2 == 0) for number in range(10)]
    with Complaints(loop) as complaints:
        for item in items:
            sweep.add(item, loop.time())
        loop.jump(0.6)
        await asyncio.sleep(1)
    assert [item for item in items if item.late_seconds is None] == []
    assert len(complaints.found) == 5


async def test_a_broken_item_in_a_worker_leaves_the_deadlines_of_requests_alone(jumping: JumpingLoop) -> None:
    loop = jumping
    async with raw_upstream(hang) as app, running(app_routes(app.port, route=ONE_SECOND)) as worker:
        with complaining():
            worker.service.sweep.add(Item(loop.time() + 0.5, is_broken=True), loop.time())
            loop.jump(0.6)
            for _ in range(2):
                async with raw_client(port(worker)) as client:
                    assert await seconds_until_answer(client, get(), 504) == pytest.approx(1, abs=0.03)
        await assert_clean(worker)


# The same with real requests, one of which cannot be answered

ONE_SECOND = "timeouts: {request: 1s}"


@dataclass
class Trouble:
    """A sidecar, the app behind it, and the transports on which writing can be broken."""

    worker: Worker
    app: RawUpstream
    transports: Transports

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RawClient]:
        async with raw_client(port(self.worker)) as client:
            await turns(5)
            yield client

    @asynccontextmanager
    async def broken_client(self, *, after: int = 0) -> AsyncIterator[RawClient]:
        """A client whom the sidecar cannot write to after so many writes: its connection is closed."""
        async with self.client() as client:
            self.transports.break_writing(client, after=after)
            yield client
            await asyncio.wait_for(client.read_to_end(), 5)


@asynccontextmanager
async def trouble(script: Script, *, route: str = "", header: str = HEADER) -> AsyncIterator[Trouble]:
    with transports() as made:
        async with (
            raw_upstream(script) as app,
            running(app_routes(app.port, route=route), header) as worker,
        ):
            yield Trouble(worker, app, made)
            await assert_clean(worker)


async def seconds_until_answer(client: RawClient, data: bytes, status: int) -> float:
    began = asyncio.get_running_loop().time()
    await client.send(data)
    (response,) = await client.responses([b"GET"])
    assert response.status == status
    return asyncio.get_running_loop().time() - began


async def test_a_deadline_whose_answer_cannot_be_written_leaves_the_others_alone() -> None:
    async with trouble(hang, route=ONE_SECOND) as to:
        with complaining():
            async with to.broken_client() as broken, to.client() as other:
                await broken.send(get())
                assert await seconds_until_answer(other, get(), 504) == pytest.approx(1, abs=0.03)
        async with to.client() as later:
            assert await seconds_until_answer(later, get(), 504) == pytest.approx(1, abs=0.03)


STALLING = {
    "head": b"GET / HTTP/1.1\r\nHo",
    "body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
    "chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
}


@pytest.mark.parametrize("stalling", STALLING)
async def test_a_client_timeout_whose_answer_cannot_be_written_leaves_the_others_alone(stalling: str) -> None:
    header = inbound("timeouts: {head: 2s, body: 2s, idle: 3s}")
    async with trouble(hang, header=header) as to:
        with complaining():
            async with to.broken_client() as broken, to.client() as other:
                await broken.send(STALLING[stalling])
                await seconds_until_answer(other, STALLING[stalling], 408)
        async with to.client() as later, to.client() as idle:
            await seconds_until_answer(later, STALLING[stalling], 408)
            await idle.read_to_end()
            assert idle.received == b""


@pytest.mark.parametrize("first", [b"/", b"/no-route"])
async def test_a_queued_request_that_cannot_be_answered_leaves_the_others_alone(first: bytes) -> None:
    """The first answer goes out, the second of the same client cannot be written; the app hears nothing of it."""
    route = "match: {path: {exact: /}}"
    async with trouble(saying(b"HTTP/1.1 204 X\r\n\r\n"), route=route) as to:
        with complaining():
            async with to.client() as other:
                async with to.broken_client(after=1) as broken:
                    await broken.send(get(first) + get(b"/no-route"))
                assert broken.received.startswith(b"HTTP/1.1 204" if first == b"/" else b"HTTP/1.1 404")
                assert broken.received.count(b"HTTP/1.1 ") == 1
                assert await seconds_until_answer(other, get(), 204) < 1
        assert len(to.app.peers) == 1


class Raising(Silent):
    """An observer that breaks the promise never to raise, for one path."""

    def finished(self, exchange: ObservedExchange) -> None:
        if exchange.request.target == b"/broken":
            raise Broken("it cannot be told")


async def test_an_observer_that_raises_at_a_deadline_leaves_the_others_alone() -> None:
    async with trouble(hang, route=ONE_SECOND) as to:
        to.worker.service.observe = Raising()
        with complaining():
            async with to.client() as broken, to.client() as other:
                await broken.send(get(b"/broken"))
                assert await seconds_until_answer(other, get(), 504) == pytest.approx(1, abs=0.03)
                await asyncio.wait_for(broken.read_to_end(), 5)
        async with to.client() as later:
            assert await seconds_until_answer(later, get(), 504) == pytest.approx(1, abs=0.03)
