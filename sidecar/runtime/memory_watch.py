"""Keeps the budget of memory in step with the container: its limit, its sockets, and what goes back to the system.

The part `memory`. Reading takes some 100 µs and giving back some milliseconds, so both are done in a thread.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from sidecar.core.memory_budget import MemoryBudget
from sidecar.core.snapshot import ProcessLimits
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.container import Container

WITHOUT_CONTAINER_BYTES: Final = 64 * 1024 * 1024
CONTAINER_SHARE: Final = 4
"""A container's limit divided by this is for connections: Python, the sidecar and its telemetry take about 60 MiB."""
LOOK_SECONDS: Final = 1.0
TELL_SECONDS: Final = 10.0
TRIM_SECONDS: Final = 10.0
"""Between two trims at least."""
SHORT_TRIM_SECONDS: Final = 2.0
"""The same while connections are closed to give memory back. What they held lies in pieces among what others hold,
where objects of Python find no place: without a trim a process takes what its buffers have at their height and what
its objects have at theirs, and these are not the same moments."""
BURST_BYTES: Final = 8 * 1024 * 1024
"""What must have been given back since the last trim to make one worth its while."""

ARENAS: Final = 2
_M_ARENA_MAX: Final = -8  # malloc.h

FIXED_BYTES: Final = 72 * 1024 * 1024
"""Of the proxy and its loading process, each without a route (50 and 35 MiB, of which they share 13)."""
ROUTE_BYTES: Final = 16 * 1024
"""Of one small route: 9 KiB where it serves, and 7 KiB in the process that loads it."""


def budget_bytes(limits: ProcessLimits, container: Container | None) -> int:
    """What all connections may hold: as configured, else a share of the container's limit."""
    if limits.memory_bytes is not None:
        return limits.memory_bytes
    return WITHOUT_CONTAINER_BYTES if container is None else container.limit_bytes // CONTAINER_SHARE


def most_routes(container: Container | None) -> int | None:
    """How many small routes fit into the container; None without a limit."""
    return None if container is None else max(0, container.limit_bytes - FIXED_BYTES) // ROUTE_BYTES


class Trimming:
    """Decides when much has come free: a burst is over, or connections are closed to make room."""

    def __init__(self) -> None:
        self._peak = 0
        self._closed = 0
        self._trimmed_at = -TRIM_SECONDS

    def is_due(self, used_bytes: int, closed: int, now: float) -> bool:
        """Whether to give memory back to the system now. True at most each 10 s, or 2 s while memory is short.

        Args:
            closed: connections that were closed to give memory back, so far.
        """
        self._peak = max(self._peak, used_bytes)
        has_burst = self._peak - used_bytes >= max(BURST_BYTES, used_bytes)
        is_short = closed > self._closed
        seconds = SHORT_TRIM_SECONDS if is_short else TRIM_SECONDS
        if not (has_burst or is_short) or now - self._trimmed_at < seconds:
            return False
        self._peak, self._closed, self._trimmed_at = used_bytes, closed, now
        return True


class MemoryWatch:
    """The part `memory`."""

    def __init__(
        self,
        budget: MemoryBudget,
        container: Container | None,
        clock: Callable[[], float],
        tell: Callable[[str, dict[str, int]], None],
    ) -> None:
        """`tell` hears, at most each 10 s, how many connections were closed: in a sentence, and by what they held."""
        self._tell = tell
        self._told: dict[str, int] = {}
        self._told_at = -TELL_SECONDS
        self._budget = budget
        self._container = container
        self._clock = clock
        self._trimming = Trimming()

    async def run(self, mailbox: Mailbox[Any]) -> None:
        while True:
            if self._container is not None:
                await self.look(self._container)
            closed = sum(self._budget.closed.values())
            if self._trimming.is_due(self._budget.used_bytes, closed, self._clock()):
                await asyncio.to_thread(give_back)
            self.tell_closed()
            await mailbox.get(LOOK_SECONDS)

    def tell_closed(self) -> None:
        """Whom that cost something finds the reason in the log."""
        now, budget = self._clock(), self._budget
        closed = {held.value: count for held, count in budget.closed.items() if count}
        if closed == self._told or now - self._told_at < TELL_SECONDS:
            return
        news = {held: count - self._told.get(held, 0) for held, count in closed.items()}
        self._told, self._told_at = closed, now
        text = f"closed {sum(news.values())} connections to give memory back; {budget.limit_bytes} bytes are for all"
        self._tell(text, {held: count for held, count in news.items() if count})

    async def look(self, container: Container) -> None:
        """Read it once, and tell the budget."""
        try:
            usage = await asyncio.to_thread(container.usage)
        except (OSError, ValueError):  # the files are another kernel's: the budget's own count is left
            self._container = None
            self._budget.observe(0, is_pressed=False)
        else:
            self._budget.observe(usage.sockets, is_pressed=container.is_pressed(usage))


def share_arenas() -> None:
    """Let all threads but the first share one of malloc's arenas (mallopt(3), M_ARENA_MAX); before any is started.

    glibc gives each thread one of its own, up to eight for each core, and each keeps what its thread has freed: 6 MiB
    with the dozen threads of a sidecar. The loop is the first thread, and keeps its own. Does nothing where the C
    library has no such call (musl).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free memory to the system (malloc_trim(3)); does nothing where the C library has no such call (musl)."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """Looked for once: each look makes types of ctypes' own, which point at each other."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
