"""An app that behaves otherwise from one moment to the next, and callers who come by themselves: what the situations
are made of in which breakers go wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sidecar.core.transition import State, TransitionReason
from tests.scenarios.stage import GET, OK, Stage
from tests.support.raw import RawPeer, Request, raw_client

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"5\r\nevent\r\n"

Act = Callable[[RawPeer, Request], Awaitable[None]]
"""What the app does with one request."""


class App:
    """A script whose `act` may be changed at any time: it is what the next request meets."""

    def __init__(self, act: Act) -> None:
        self.act = act

    async def __call__(self, peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await self.act(peer, request)


def answers(answer: bytes = OK, after: float = 0.0) -> Act:
    """This answer, after so many seconds."""

    async def act(peer: RawPeer, request: Request) -> None:
        if after:
            await asyncio.sleep(after)
        await peer.send(answer)

    return act


FAILS = answers(FAILURE)


async def hangs(peer: RawPeer, request: Request) -> None:
    """Nothing, until the sidecar closes the connection."""
    while await peer.read_some():
        pass


async def resets(peer: RawPeer, request: Request) -> None:
    peer.writer.transport.abort()


def is_gone(peer: RawPeer) -> bool:
    """Whether the sidecar has closed the connection."""
    return peer.reader.at_eof() or peer.writer.transport.is_closing()


def streams(head: bytes = ENDLESS, piece: bytes = EVENT, *, every: float = 1.0, after: float = 0.0) -> Act:
    """A head after `after` seconds, then a piece each `every` seconds for as long as somebody is there."""

    async def act(peer: RawPeer, request: Request) -> None:
        await asyncio.sleep(after)
        await peer.send(head)
        while not is_gone(peer):
            await peer.send(piece)
            await asyncio.sleep(every)

    return act


def breaks_after(seconds: float) -> Act:
    """A good head at once, a piece each half second, and a reset after `seconds`."""

    async def act(peer: RawPeer, request: Request) -> None:
        await peer.send(ENDLESS)
        for _ in range(int(seconds * 2)):
            await peer.send(EVENT)
            await asyncio.sleep(0.5)
        peer.writer.transport.abort()

    return act


@dataclass
class Heard:
    """What callers have heard so far: seconds on the loop's clock, and a status."""

    answers: list[tuple[float, int]] = field(default_factory=list)

    @property
    def statuses(self) -> list[int]:
        return [status for _, status in self.answers]

    def first(self, status: int) -> float | None:
        """When the first answer with this status came."""
        return next((at for at, one in self.answers if one == status), None)


@asynccontextmanager
async def asking(
    port: int, data: bytes = GET, *, pause: float, callers: int = 1, method: bytes = b"GET"
) -> AsyncIterator[Heard]:
    """Callers who ask, wait for the answer and `pause` seconds more, and ask again; they leave at the end."""
    heard = Heard()
    tasks = [asyncio.create_task(_ask_on(port, data, pause, method, heard)) for _ in range(callers)]
    try:
        yield heard
    finally:
        await ended(*tasks)


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Let these end; a mistake in one of them is raised."""
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, BaseException) and not isinstance(found, asyncio.CancelledError):
            raise found


async def _ask_on(port: int, data: bytes, pause: float, method: bytes, heard: Heard) -> None:
    loop = asyncio.get_running_loop()
    while True:
        async with raw_client(port) as client:
            await client.send(data)
            for response in await client.responses([method]):
                heard.answers.append((loop.time(), response.status))
        await asyncio.sleep(pause)


@asynccontextmanager
async def in_the_background(*coroutines: Awaitable[None]) -> AsyncIterator[None]:
    """Run these beside the block, and end them with it."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        yield
    finally:
        await ended(*tasks)


async def seconds_until(is_so: Callable[[], bool], within: float) -> float:
    """Virtual seconds until it is so.

    Raises:
        AssertionError: it is not within so many seconds.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not is_so():
        assert loop.time() - began <= within, f"not within {within} s"
        await asyncio.sleep(0.01)
    return loop.time() - began


async def open_it(to: Stage, calls: int = 5) -> None:
    """Trip the breaker of an app that fails."""
    for _ in range(calls):
        await to.ask()
    assert to.breaker.state is State.OPEN


def is_closed(to: Stage) -> Callable[[], bool]:
    return lambda: to.breaker.state is State.CLOSED


def is_open(to: Stage) -> Callable[[], bool]:
    return lambda: to.breaker.state is State.OPEN


def openings(to: Stage) -> list[TransitionReason]:
    """Why the breaker has opened, each time."""
    return [one.reason for one in to.breaker.history if one.to_state is State.OPEN]
