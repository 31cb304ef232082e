"""The next try of one exchange, between two attempts: what stands until then, and the timer.

Made by the race at the first failure that may be mended; `core/retry.py` says what may. Owned by the race.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from sidecar.forwarding.given_up import GivenUp

if TYPE_CHECKING:
    from sidecar.core.head import ResponseHead
    from sidecar.forwarding.attempt import Attempt


class Answered(NamedTuple):
    """An answer that another try may better."""

    head: ResponseHead
    body: bytes


class Retrying:
    """What the client gets if no further try is made."""

    __slots__ = ("attempt", "count", "stands", "timer")

    def __init__(self) -> None:
        self.count = 0
        """Retries that were planned."""
        self.timer: asyncio.TimerHandle | None = None
        self.attempt: Attempt | None = None
        """The last one that failed."""
        self.stands: Answered | GivenUp | None = None

    def __repr__(self) -> str:
        return f"<Retrying {self.count}{', waits' if self.timer is not None else ''}>"

    def cancel(self) -> None:
        """Nothing is tried any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
