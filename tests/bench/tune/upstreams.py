"""Upstreams that are ill now and then, each in its own way, and say how a request that never came had ended."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BAD = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
TIMEOUT_SECONDS = 1.0
"""`timeouts.request` of the route: what takes longer has failed."""


@dataclass
class Upstream(ABC):
    """Answers within 10 to 30 ms while it is well."""

    rng: random.Random
    clock: Callable[[], float]
    outages: list[tuple[float, float]]
    """Begin and end of each, in seconds on the clock."""
    taken: int = 0
    """Requests in outages."""
    in_flight: int = 0
    name: ClassVar[str] = ""

    def ill_since(self, now: float) -> float | None:
        """When the present outage began; None: there is none."""
        return next((began for began, ended in self.outages if began <= now < ended), None)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The requests of one connection."""
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                since = self.ill_since(self.clock())
                self.taken += since is not None
                self.in_flight += 1
                try:
                    answer = await self.answer(since)
                finally:
                    self.in_flight -= 1
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, ill_since: float | None) -> bytes | None:
        """To one request; None: the connection is closed."""
        if ill_since is not None:
            return await self.answer_ill(self.clock() - ill_since)
        await asyncio.sleep(self.rng.uniform(0.01, 0.03))
        return GOOD

    @abstractmethod
    async def answer_ill(self, seconds: float) -> bytes | None:
        """`seconds`: since the outage began."""

    @abstractmethod
    def share_good(self, seconds: float) -> float:
        """How likely a request would be answered well, so long after the outage began."""

    def would_be_good(self) -> float:
        """The same of a request now."""
        now = self.clock()
        since = self.ill_since(now)
        return 1.0 if since is None else self.share_good(now - since)


class HardDown(Upstream):
    """Closes each connection."""

    name = "hard down"

    async def answer_ill(self, seconds: float) -> bytes | None:
        return None

    def share_good(self, seconds: float) -> float:
        return 0.0


class ThirtyPercent(Upstream):
    """Three of ten answers are errors, which come at once."""

    name = "30 % errors"

    async def answer_ill(self, seconds: float) -> bytes | None:
        await asyncio.sleep(self.rng.uniform(0.01, 0.03))
        return BAD if self.rng.random() < 0.3 else GOOD

    def share_good(self, seconds: float) -> float:
        return 0.7


class Slow(Upstream):
    """Answers take from 0.6 to 3 s: one of six is in time."""

    name = "slow"

    async def answer_ill(self, seconds: float) -> bytes | None:
        await asyncio.sleep(self.rng.uniform(0.6, 3.0))
        return GOOD

    def share_good(self, seconds: float) -> float:
        return (TIMEOUT_SECONDS - 0.6) / 2.4


class Flapping(Upstream):
    """Closes connections for 4 s and is well for 4 s, again and again."""

    name = "flapping"

    async def answer_ill(self, seconds: float) -> bytes | None:
        if self.share_good(seconds) == 0.0:
            return None
        await asyncio.sleep(self.rng.uniform(0.01, 0.03))
        return GOOD

    def share_good(self, seconds: float) -> float:
        return 0.0 if seconds % 8.0 < 4.0 else 1.0


@dataclass
class Overloaded(Upstream):
    """One queue whose server needs the longer for each request the more of them wait: 30 ms, and 3 ms for each. With
    more than a few it does less than comes, and what its clients have given up is worked off all the same."""

    name = "capacity falls with load"
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer_ill(self, seconds: float) -> bytes | None:
        async with self._turn:
            await asyncio.sleep(0.03 + 0.003 * self.in_flight)
        return GOOD

    def share_good(self, seconds: float) -> float:
        wait = self.in_flight * (0.03 + 0.003 * self.in_flight)
        return 1.0 if wait < TIMEOUT_SECONDS else 0.0


KINDS: tuple[type[Upstream], ...] = (HardDown, ThirtyPercent, Slow, Flapping, Overloaded)
