"""Control's side of all channels: who is there, what they report, and how to tell and ask all of them.

Its part (`exchange.py`) handles what workers say; `handlers` is where a kind of message gets its handler. Owned by
control's event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from sidecar.core.override import Command
from sidecar.runtime.actor import Part
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.channel import Message, NoAnswer, WorkerChannel
from sidecar.runtime.workers.exchange import CAPACITY, Arrived, handling
from sidecar.runtime.workers.figures import Figures, Report
from sidecar.runtime.workers.kinds import Hello

ASK_SECONDS: Final = 2.0
"""A worker that has not answered by then is left out of what is shown."""
SILENCE_SECONDS: Final = 10.0
"""Of a worker, after which it is taken to hang (its loop does not turn), and is killed."""


class WorkerLink:
    """One life of one worker, as control knows it."""

    def __init__(self, number: int, pid: int, now: float) -> None:
        self.number = number
        self.pid = pid
        self.channel: WorkerChannel
        self.heard_at = now
        self.digest: str | None = None
        """Of its configuration; None: it has not said hello."""
        self.is_serving = False
        """It has said that it takes traffic."""
        self.is_announced = False
        """It knew of the end of the pod when it said hello."""
        self.commands: Sequence[Command] = ()
        """The operators' orders that it held to when it said hello."""

    def __repr__(self) -> str:
        return f"<WorkerLink {self.number} pid={self.pid}>"


Handler = Callable[[WorkerLink, Any], Awaitable[Any]]


class Hub:
    """All workers."""

    def __init__(self, count: int, figures: Figures, clock: Callable[[], float]) -> None:
        self.count = count
        """Of workers that there should be."""
        self.figures = figures
        self.links: dict[int, WorkerLink] = {}
        """By number: those with a channel."""
        self.handlers: dict[str, Handler] = {
            kinds.HELLO: self._hello,
            kinds.SERVING: self._serving,
            kinds.REPORT: self._report,
        }
        self.on_joined: list[Callable[[WorkerLink], None]] = []
        """Called when a worker has said hello."""
        self.on_serving: list[Callable[[WorkerLink], None]] = []
        """Called when it takes traffic as well; after that, where it does already."""
        self.on_left: list[Callable[[WorkerLink], None]] = []
        self.part: Part[Arrived] = Part("hub", handling(self._handle), capacity=CAPACITY)
        self.died = dict.fromkeys(range(1, count + 1), 0)
        """How often each has died."""
        self._clock = clock
        self._by_channel: dict[WorkerChannel, WorkerLink] = {}

    @property
    def present(self) -> list[WorkerLink]:
        """Those that have said hello, by number."""
        found = [one for one in self.links.values() if one.digest is not None]
        return sorted(found, key=lambda one: one.number)

    async def connect(self, number: int, pid: int, end: socket.socket) -> None:
        """A worker has come, or is to be talked to anew."""
        link = WorkerLink(number, pid, self._clock())
        link.channel = await WorkerChannel.over(end, self._arrived, self._lost)
        before = self.links.get(number)
        self.links[number] = self._by_channel[link.channel] = link
        if before is not None:
            before.channel.close()

    def close(self) -> None:
        for link in list(self.links.values()):
            link.channel.close()

    # All of them

    def tell_all(self, kind: str, body: Any = None) -> None:
        for link in self.present:
            link.channel.tell(kind, body)

    async def ask_all(self, kind: str, body: Any = None, seconds: float = ASK_SECONDS) -> dict[int, Any]:
        """Ask everybody at once: the answers that came in time, by number."""
        links = self.present
        answers = await asyncio.gather(*(self._ask(link, kind, body, seconds) for link in links))
        return {link.number: answer[0] for link, answer in zip(links, answers, strict=True) if answer}

    @staticmethod
    async def _ask(link: WorkerLink, kind: str, body: Any, seconds: float) -> tuple[Any] | None:
        try:
            return (await link.channel.ask(kind, body, seconds),)
        except NoAnswer:
            return None

    async def refresh(self) -> None:
        """Have everybody report now."""
        for number, packed in (await self.ask_all(kinds.NUMBERS)).items():
            await self._take(number, packed)

    def silent(self) -> Collection[WorkerLink]:
        """Those that have said nothing for too long."""
        limit = self._clock() - SILENCE_SECONDS
        return [link for link in self.links.values() if link.heard_at < limit]

    # What workers say

    def _arrived(self, channel: WorkerChannel, message: Message) -> None:
        link = self._by_channel.get(channel)
        if link is not None:
            link.heard_at = self._clock()
        if not self.part.tell(Arrived(channel, message)):
            channel.fail(message, "control has too much to do")

    async def _handle(self, channel: WorkerChannel, message: Message) -> Any:
        link, handler = self._by_channel.get(channel), self.handlers.get(message.kind)
        if link is None or handler is None:  # it has gone meanwhile
            return None
        return await handler(link, message.body)

    async def _hello(self, link: WorkerLink, hello: Hello) -> None:
        link.digest, link.commands, link.is_announced = hello.digest, hello.commands, hello.is_announced
        for tell in self.on_joined:
            tell(link)
        if hello.is_serving:
            await self._serving(link, None)

    async def _serving(self, link: WorkerLink, _: None) -> None:
        link.is_serving = True
        for tell in self.on_serving:
            tell(link)

    async def _report(self, link: WorkerLink, packed: list[bytes]) -> None:
        await self._take(link.number, packed)

    async def _take(self, number: int, packed: list[bytes]) -> None:
        report = await asyncio.to_thread(Report.unpacked, packed)
        link = self.links.get(number)
        if link is not None and link.pid == report.pid:  # else it has died meanwhile
            self.figures.reported(number, report)

    def _lost(self, channel: WorkerChannel) -> None:
        link = self._by_channel.pop(channel, None)
        if link is None or self.links.get(link.number) is not link:
            return
        del self.links[link.number]
        self.figures.gone(link.number)
        if link.digest is not None:
            for tell in self.on_left:
                tell(link)
