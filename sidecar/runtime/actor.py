"""Supervised parts: each long-lived part of a process has its own state, a bounded mailbox, and one who watches.

A part is a coroutine over its mailbox, so it handles one message at a time and nobody else touches its state. A
crash ends that coroutine; a new one, with new state and the same mailbox, starts after a back-off. A part that
crashes too often (`restarts.py`) is given up: `Parts.failure` says which one, and
the process is to end. Owned by the event loop; no method but `run` and `stop` awaits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Generic, TypeVar

from sidecar.core.dataclass import dataclass
from sidecar.runtime.restarts import Restarts

M = TypeVar("M")

MAILBOX_CAPACITY = 64

_LOG = logging.getLogger("sidecar.runtime")


class PartState(Enum):
    NEW = "new"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    """It crashed, and is started again in a moment."""
    FAILED = "failed"
    """It crashed too often and is not started again."""
    STOPPED = "stopped"


class PartFailed(Exception):
    """A part crashed too often; the text names it and its last error."""


class Mailbox(Generic[M]):
    """What waits for one part. Sending never blocks: what does not fit is refused and counted."""

    __slots__ = ("_arrived", "_waiting", "capacity", "overflows")

    def __init__(self, capacity: int = MAILBOX_CAPACITY) -> None:
        self.capacity = capacity
        self.overflows = 0
        """Messages refused because the mailbox was full."""
        self._waiting: deque[M] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: M) -> bool:
        """Leave a message; False, and counted, when there is no room."""
        if len(self._waiting) >= self.capacity:
            self.overflows += 1
            return False
        self._waiting.append(message)
        self._arrived.set()
        return True

    def take_all(self) -> list[M]:
        """Empty it: what its part did not come to, for whoever has to answer for it."""
        left = list(self._waiting)
        self._waiting.clear()
        return left

    async def get(self, timeout_seconds: float | None = None) -> M | None:
        """Wait for the next message, first in first out; None when none came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
        return self._waiting.popleft() if self._waiting else None

    def __aiter__(self) -> Mailbox[M]:
        return self

    async def __anext__(self) -> M:
        message = None
        while message is None:
            message = await self.get()
        return message


Run = Callable[[Mailbox[M]], Awaitable[None]]
"""A part's whole life. Its state is what the coroutine holds; its cleaning up is in `finally`. It never returns."""


@dataclass(frozen=True, slots=True)
class PartView:
    """One part at one moment, for `/status`."""

    name: str
    state: PartState
    restarts: int
    last_error: str | None
    mailbox: int
    """Messages that wait."""
    mailbox_capacity: int
    mailbox_overflows: int


class Part(Generic[M]):
    """One supervised part."""

    def __init__(self, name: str, run: Run[M], *, capacity: int = MAILBOX_CAPACITY) -> None:
        """`run` is called anew for each life of the part."""
        self.name = name
        self.run = run
        self.mailbox: Mailbox[M] = Mailbox(capacity)
        self.state = PartState.NEW
        self.restarts = 0
        self.last_error: str | None = None
        self._deaths = Restarts()

    def __repr__(self) -> str:
        return f"<Part {self.name} {self.state.value} restarts={self.restarts} waiting={len(self.mailbox)}>"

    def tell(self, message: M) -> bool:
        """Leave a message; False, and counted, when the mailbox is full. Never blocks."""
        return self.mailbox.put(message)

    def view(self) -> PartView:
        box = self.mailbox
        return PartView(
            self.name, self.state, self.restarts, self.last_error, len(box), box.capacity, box.overflows
        )

    async def live(self) -> None:
        """Run, and run again after each crash, until cancelled.

        Raises:
            PartFailed: it crashed too often.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                self.state = PartState.RUNNING
                error = await self._one_life()
                self.last_error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                wait = self._deaths.backoff(loop.time())
                if wait is None:
                    self.state = PartState.FAILED
                    raise PartFailed(self._obituary()) from error
                _LOG.error("part %s crashed: %s", self.name, self.last_error, exc_info=error)
                self.state = PartState.BACKING_OFF
                await asyncio.sleep(wait)
                self.restarts += 1
        finally:
            if self.state is not PartState.FAILED:
                self.state = PartState.STOPPED

    async def _one_life(self) -> Exception:
        try:
            await self.run(self.mailbox)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return RuntimeError("something that it waited for was cancelled")
        except Exception as error:
            return error
        return RuntimeError("it ended by itself")

    def _obituary(self) -> str:
        return f"part {self.name} crashed {self._deaths.told()}, the last time with {self.last_error}"


class Parts:
    """All parts of one process, in the order they were started; stopped in reverse."""

    def __init__(self, on_failure: Callable[[PartFailed], None]) -> None:
        """`on_failure` is called once, for the first part that is given up."""
        self._on_failure = on_failure
        self._parts: dict[str, Part[Any]] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self.failure: PartFailed | None = None

    def __getitem__(self, name: str) -> Part[Any]:
        return self._parts[name]

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def add(self, part: Part[M]) -> Part[M]:
        """Take a part in; it runs from `start` on.

        Raises:
            ValueError: there is one of this name.
        """
        if part.name in self._parts:
            raise ValueError(f"there is a part {part.name!r} already")
        self._parts[part.name] = part
        return part

    def start(self, name: str) -> None:
        """Let a part live."""
        self._parts[name].state = PartState.RUNNING
        life = asyncio.get_running_loop().create_task(self._parts[name].live(), name=f"part {name}")
        life.add_done_callback(self._ended)
        self._lives[name] = life

    def views(self) -> tuple[PartView, ...]:
        """Each part, in the order they were added."""
        return tuple(part.view() for part in self._parts.values())

    async def stop(self) -> None:
        """End all of them, the last one started first; each has ended when the next is told."""
        for name in reversed(list(self._lives)):
            await self.end(name)

    async def end(self, name: str) -> None:
        """End one part, if it runs."""
        life = self._lives.pop(name, None)
        if life is not None:
            life.cancel()
            await asyncio.wait([life])

    def _ended(self, life: asyncio.Task[None]) -> None:
        error = None if life.cancelled() else life.exception()
        if error is None:
            return
        failure = error if isinstance(error, PartFailed) else PartFailed(f"{life.get_name()}: {error!r}")
        _LOG.critical("%s", failure)
        if self.failure is None:
            self.failure = failure
            self._on_failure(failure)
