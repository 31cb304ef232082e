"""Workers tell each other which inbound exchanges were cut short: in few messages, in slices, whatever goes wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any, cast

import pytest

from sidecar.core.across.notice import MOST_IN_A_DATAGRAM, notice, read_notices
from sidecar.core.callers import Callers
from sidecar.core.errors import Reason
from sidecar.core.tracecontext import IdSource
from sidecar.forwarding.notices import Notices
from sidecar.forwarding.story import Story
from sidecar.runtime.crossing import Crossing
from sidecar.transport.turns import ENDS_A_TURN, Turns
from tests.support.raw import turns

pytestmark = pytest.mark.plain
"""Its calls are no exchanges, which a compiled module would ask for."""

GONE = Reason.CLIENT_GONE


class Call:
    """An outbound exchange, as far as it can be ended."""

    def __init__(self, ended: list[Call], *, is_broken: bool = False) -> None:
        self.ended = ended
        self.is_broken = is_broken
        self.is_abandoned = False

    def caller_gone(self) -> None:
        self.ended.append(self)
        if self.is_broken:
            raise RuntimeError("planted")

    def abandon(self) -> None:
        self.is_abandoned = True
        if self.is_broken:
            raise RuntimeError("planted too")


class Side:
    """One worker's table and notices."""

    def __init__(self, crossing: Crossing, worker: int) -> None:
        loop = asyncio.get_running_loop()
        joined = self.joined = crossing.join(worker)
        self.across = joined.across
        self.callers = Callers(others=joined.across)
        self.notices = Notices(loop, loop.time, Turns(loop), joined.across, joined.own, joined.others)

    def bury(self, span_id: bytes) -> None:
        self.callers.bury(span_id, 1.0, GONE)
        self.notices.tell(span_id, GONE)

    def hang(self, span_id: bytes, call: Call) -> None:
        found = self.callers.find(span_id, None, b"1" * 32, 0.0)
        assert found is not None
        assert found.entry is not None
        self.callers.attach(found.entry, cast(Story, call))
        self.notices.watch()


@pytest.fixture
def crossing() -> Iterator[Crossing]:
    crossing = Crossing(2)
    yield crossing
    crossing.close()


@pytest.fixture
async def sides(crossing: Crossing) -> Any:
    both = Side(crossing, 0), Side(crossing, 1)
    yield both
    for side in both:
        side.notices.close()


def fill(told: socket.socket) -> None:
    """Until its queue takes no more."""
    with suppress(BlockingIOError):
        while True:
            told.send(b"?")


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


def enter(side: Side, count: int) -> list[bytes]:
    ids = IdSource()
    spans = [ids.span_id() for _ in range(count)]
    for span_id in spans:
        side.callers.enter(span_id, b"1" * 32, 99.0, 0.0)
    return spans


async def test_a_thousand_calls_end_in_slices_of_a_turn_each_once(sides: tuple[Side, Side]) -> None:
    here, there = sides
    ended: list[Call] = []
    spans = enter(here, 1000)
    for span_id in spans:
        there.hang(span_id, Call(ended))

    for span_id in spans:
        here.bury(span_id)
    counts = [0]
    while len(ended) < 1000:
        await asyncio.sleep(0)
        counts.append(len(ended))

    assert max(after - before for before, after in pairwise(counts)) <= ENDS_A_TURN
    assert len(set(map(id, ended))) == 1000
    assert (here.notices.told, here.notices.lost) == (1000, 0)
    assert not there.across.is_attached


async def test_what_ended_in_one_turn_goes_in_one_message(sides: tuple[Side, Side]) -> None:
    here, there = sides
    there.notices.close()
    spans = enter(here, MOST_IN_A_DATAGRAM + 2)
    for span_id in spans:
        here.bury(span_id)
    await turns(2)

    own = there.joined.own
    assert [read_notices(own.recv(4096)) for _ in range(2)] == [
        [(span_id, GONE) for span_id in spans[:MOST_IN_A_DATAGRAM]],
        [(span_id, GONE) for span_id in spans[MOST_IN_A_DATAGRAM:]],
    ]


async def test_a_worker_whose_queue_is_full_is_not_told_and_looks_by_itself(sides: tuple[Side, Side]) -> None:
    here, there = sides
    ended: list[Call] = []
    (span_id,) = enter(here, 1)
    there.hang(span_id, Call(ended))
    asyncio.get_running_loop().remove_reader(there.joined.own.fileno())
    fill(here.joined.others[1])

    here.bury(span_id)
    await until(lambda: bool(ended))
    assert here.notices.lost == 1
    assert not there.across.has_news()


async def test_an_error_in_ending_one_call_is_told_and_stops_no_other(sides: tuple[Side, Side]) -> None:
    here, there = sides
    told: list[Exception] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what["exception"]))
    ended: list[Call] = []
    (span_id,) = enter(here, 1)
    calls = [Call(ended, is_broken=n == 0) for n in range(3)]
    for call in calls:
        there.hang(span_id, call)

    here.bury(span_id)
    await until(lambda: len(ended) == 3)

    assert ended == calls
    assert [call.is_abandoned for call in calls] == [True, False, False]
    (error,) = told
    assert (str(error.__context__), str(error)) == ("planted", "planted too")


async def test_garbage_ends_nothing(sides: tuple[Side, Side]) -> None:
    here, there = sides
    ended: list[Call] = []
    (span_id,) = enter(here, 1)
    there.hang(span_id, Call(ended))
    whole = notice(span_id, GONE)

    for garbage in (b"x", whole[:-1], whole[:-1] + b"\0", whole[:-1] + b"\xff", b"?" * 4096):
        here.joined.others[1].send(garbage)
    await turns(5)
    assert ended == []
    here.joined.others[1].send(b"z" * 9 + whole)
    await until(lambda: bool(ended))
