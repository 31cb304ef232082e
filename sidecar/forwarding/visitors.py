"""Clients whom there is nothing left to serve: no open file, no memory, or no place among the connections that their
listener may have. Each is answered 503 and closed.

Better than to leave them in the kernel's queue: a client that is told can go elsewhere, and whoever is behind it is
heard. They are few at a time, over all listeners, since each takes a file and some memory too; the limit of open
files has room for them beside everybody who is served. Where nonetheless no file can be opened at all, one of a few
that were kept open for it is closed: a client takes its number. Owned by the event loop.
"""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from sidecar.core.errors import Reason
from sidecar.forwarding.given_up import GivenUp

MOST_VISITORS: Final = 32
"""At a time. Each is gone with the first bytes that it sends."""
VISIT_SECONDS: Final = 1.0
"""How long one may keep its place from others: for a request that comes in pieces, and for a handshake."""
SILENT_SECONDS: Final = 0.02
"""The same for one of which no byte has come. What a client sends at once is mostly here when it is accepted."""


class Lack(Enum):
    """What there is none of."""

    MEMORY = "no memory left for another request"
    FILES = "no open file left for another connection"
    CONNECTIONS = "this listener has as many connections as its limits.connections allows"

    def refusal(self) -> GivenUp:
        """What the client is told."""
        return GivenUp(Reason.OVERLOADED, self.value, retry_after_seconds=1.0)


class Visitor(Protocol):
    """A client's connection, before or after its handshake."""

    @property
    @abstractmethod
    def is_silent(self) -> bool:
        """No byte of it has come."""

    @abstractmethod
    def turn_away(self, lack: Lack) -> None:
        """Its first request is answered no, and it ends."""

    @abstractmethod
    def abort(self) -> None: ...


class Visitors:
    """Those of one process."""

    __slots__ = ("_clock", "_files", "_places", "_wanted_files", "at", "most", "without_file")

    def __init__(self, clock: Callable[[], float], most: int = MOST_VISITORS) -> None:
        self._clock = clock
        self.most = most
        self._places: dict[Visitor, tuple[float, Lack, str]] = {}
        """Since when each has its place, what it lacks, and its listener; the oldest first."""
        self.at = Counter[str]()
        """How many there are now, by listener."""
        self._files: list[int] = []
        """Kept open for clients who come when none can be opened."""
        self._wanted_files = 0
        self.without_file = Counter[str]()
        """Who was one for lack of a file, so far, by listener."""

    def __repr__(self) -> str:
        return f"<Visitors {len(self)} of {self.most}>"

    def __len__(self) -> int:
        return len(self._places)

    def has_place(self, coming: int) -> bool:
        """Whether there is one beside those and `coming` more; otherwise who has had one for long enough loses it."""
        if len(self._places) + coming < self.most:
            return True
        now = self._clock()
        for one, (since, _, _) in list(self._places.items()):
            if now - since > (SILENT_SECONDS if one.is_silent else VISIT_SECONDS):
                one.abort()
        return False

    @property
    def is_crowded(self) -> bool:
        """There are twice as many as there should be: of those who come without being asked whether there is a place,
        as in a drain, no more can be told."""
        return len(self._places) >= 2 * self.most

    def came(self, one: Visitor, listener: str, lack: Lack) -> None:
        self._places[one] = self._clock(), lack, listener
        self.at[listener] += 1
        if lack is Lack.FILES:
            self.without_file[listener] += 1
        one.turn_away(lack)

    def replaced(self, one: Visitor, by: Visitor) -> None:
        """It goes on as another protocol's, if it was one at all."""
        place = self._places.pop(one, None)
        if place is not None:
            self._places[by] = place
            by.turn_away(place[1])

    def left(self, one: Visitor) -> None:
        place = self._places.pop(one, None)
        if place is not None:
            self.at[place[2]] -= 1

    # The files that are kept

    @property
    def is_short_of_files(self) -> bool:
        """One that was kept had to be given, and could not be had again."""
        return len(self._files) < self._wanted_files

    def keep_files(self) -> None:
        """Open them, once; or those again that were given. As many as can be had."""
        self._wanted_files = self.most
        with contextlib.suppress(OSError):
            while len(self._files) < self._wanted_files:
                self._files.append(os.open(os.devnull, os.O_RDONLY))

    def give_file(self) -> bool:
        """Close one, so that a client can be accepted. Returns whether there was one."""
        if not self._files:
            return False
        os.close(self._files.pop())
        return True

    def close(self) -> None:
        """Nobody is accepted any more."""
        self._wanted_files = 0
        while self.give_file():
            pass
