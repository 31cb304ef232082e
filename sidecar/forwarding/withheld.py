"""An answer that another try may better, kept until it is known whether one is made.

It is charged to the memory of all connections, and what comes too slowly is not kept for long: an answer whose end
never comes would wait for the deadline, with its client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.core.head import ResponseHead
from sidecar.core.memory_budget import Account, MemoryBudget

MOST_BYTES: Final = 64 * 1024
"""Of its body; a longer one goes to the client as it comes."""
MOST_SECONDS: Final = 1.0
"""From its head to its end; then it goes to the client as it comes, too."""
HEAD_SECONDS: Final = 0.05
"""The same for the head of a gRPC answer alone: of most calls the message, or the status, comes with it."""


class Withheld:
    """What has come of it so far."""

    __slots__ = ("_account", "_memory", "_timer", "body")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        memory: MemoryBudget,
        now: float,
        seconds: float,
        on_late: Callable[[], None],
    ) -> None:
        """`on_late` is called after so many seconds, unless it is released before."""
        self.body = bytearray()
        self._memory = memory
        self._account = Account(memory, now)
        self._timer = loop.call_later(seconds, on_late)

    def __repr__(self) -> str:
        return f"<Withheld {len(self.body)} bytes>"

    def add(self, data: bytes | memoryview) -> bool:
        """One more piece. False: it is too long by now, or memory is short; `body` has all that came even then."""
        self.body += data
        if len(self.body) > MOST_BYTES or self._memory.is_full:
            return False
        self._account.hold(len(self.body))
        return True

    def release(self) -> None:
        """It is kept no more, or by somebody else."""
        self._timer.cancel()
        self._account.hold(0)


class Answered:
    """A whole one, which waits until a further try is made or not."""

    __slots__ = ("_account", "body", "head")

    def __init__(
        self, head: ResponseHead, body: bytes | memoryview, memory: MemoryBudget, now: float
    ) -> None:
        self.head = head
        self.body = body
        self._account = Account(memory, now)
        self._account.hold(len(body))

    def __repr__(self) -> str:
        return f"<Answered {self.head.status}, {len(self.body)} bytes>"

    def release(self) -> None:
        """Another one takes its place, or it goes to the client."""
        self._account.hold(0)
