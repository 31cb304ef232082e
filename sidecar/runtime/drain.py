"""The end of a process's life (SPEC 9): stop being ready, stop accepting, let finish, then cut.

Inbound listeners end first, and outbound ones when those are done: the app still needs its own calls for what it
answers. Decides the order and the times; the composition root then takes everything apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from sidecar.core import snapshot
from sidecar.core.snapshot import Direction
from sidecar.downstream.phase import LAST_CALL_SECONDS
from sidecar.forwarding.service import Service
from sidecar.runtime.listeners import Listeners

_LOG = logging.getLogger("sidecar.runtime")
FORCED_EXIT_CODE = 1
"""Of a second signal: what was under way was cut."""


class Drain:
    """One drain, begun at most once."""

    def __init__(self, service: Service, listeners: Listeners, policy: snapshot.Drain) -> None:
        self.policy = policy
        self._service = service
        self._listeners = listeners
        self._announced_at = 0.0
        self._begun = asyncio.Event()
        self._begun_at = 0.0
        self.asked_by = ""
        """Who began it, for people."""
        self.signal: str | None = None
        """The name of the one that came last."""
        self._is_urgent = asyncio.Event()
        self.on_announced: Callable[[], None] = lambda: None
        """Called once, when this process stops being ready."""
        self.on_cut: Callable[[], None] = lambda: None
        """Called before a second signal ends the process at once."""
        self.is_last: Callable[[Direction], bool] = lambda _: True
        """Told that this process lets nobody else in by listeners of this direction; says whether no other one does
        that has the same sockets."""

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    @property
    def is_announced(self) -> bool:
        """And has not begun."""
        return self._service.is_draining and not self.has_begun

    @property
    def seconds(self) -> float:
        """Since it began; 0 before."""
        return self._service.clock() - self._begun_at if self.has_begun else 0.0

    def announce(self) -> None:
        """Stop being ready, and let each client's connection end with its next answer.

        The delay is counted from the first call: a preStop hook that announces the end spends it while the app is
        still there, so that SIGTERM, which comes to a native sidecar after the app has gone, need not.
        """
        if not self._service.is_draining:
            self._announced_at = self._service.clock()
            self._service.is_draining = True
            for socket in self._listeners.all():
                socket.is_ending = True
            self.on_announced()

    def begin(self, asked_by: str) -> None:
        """Announce the end and begin it. A second call changes nothing."""
        self.announce()
        if not self._begun.is_set():
            self.asked_by = asked_by
            self._begun_at = self._service.clock()
            self._begun.set()

    def terminated(self) -> None:
        """SIGTERM: begin, or hold on if the admin API has begun it. A second signal ends the process at once."""
        self._signalled("SIGTERM")

    def interrupted(self) -> None:
        """SIGINT: as SIGTERM without the delay. Ctrl-C comes from a terminal, and no load balancer has to notice."""
        self._is_urgent.set()
        self._signalled("SIGINT")

    def _signalled(self, name: str) -> None:
        is_second = self.signal is not None
        self.signal = name
        if is_second:
            try:
                self.on_cut()
            finally:
                os._exit(FORCED_EXIT_CODE)
        self.begin(name)

    def ordered(self, *, is_urgent: bool, by: str | None = None) -> None:
        """By the process that started this one, which got the signal `by`: begin; said again with `is_urgent`, the
        delay is left out."""
        self.signal = by or self.signal
        if is_urgent:
            self._is_urgent.set()
        self.begin(by or "the process that started it")

    def replaced(self) -> None:
        """Another process serves in this one's place: begin, without the delay."""
        self._is_urgent.set()
        self.begin("its successor")

    async def begun(self) -> None:
        """Wait for the beginning."""
        await self._begun.wait()

    async def wait(self) -> None:
        """Wait for the beginning, then see it through: returns when nothing is under way or time is up."""
        await self._begun.wait()
        exchanges = self._service.exchanges
        _LOG.info("draining: %d exchanges under way", len(exchanges))
        await self._delay()
        try:
            async with asyncio.timeout(self.policy.timeout_seconds):
                await self._end(Direction.INBOUND)
                await self._end(Direction.OUTBOUND)
                # Connections once more: a neighbour that dies may leave some that wait in its sockets.
                await self._until(lambda: not exchanges and not self._has_connections())
        except TimeoutError:
            _LOG.warning("drain timeout: %d exchanges are cut", len(exchanges))

    async def _end(self, direction: Direction) -> None:
        """Let nobody else in, and wait for those who are: until all have their answers, and have taken them."""
        sockets = [one for one in self._listeners.all() if one.policy.direction is direction]
        names = frozenset(one.name for one in sockets)
        is_last = self.is_last(direction)
        for one in sockets:
            one.stop_accepting(is_last=is_last)
        closing = self._service.loop.call_later(LAST_CALL_SECONDS, self._close_to_new, names)
        try:
            # Tunnels are exchanges whose connection is no listener's any more.
            await self._until(
                lambda: (
                    not any(one.connection_count for one in sockets)
                    and not any(one.request.listener in names for one in self._service.exchanges)
                )
            )
        finally:
            closing.cancel()

    def _has_connections(self) -> bool:
        return any(one.connection_count for one in self._listeners.all())

    def _close_to_new(self, names: frozenset[str]) -> None:
        self._service.shut.close_to_new(names)

    async def _until(self, is_done: Callable[[], bool]) -> None:
        departed = self._service.departed
        while not is_done():
            departed.clear()
            await departed.wait()

    async def _delay(self) -> None:
        left = self._announced_at + self.policy.delay_seconds - self._service.clock()
        if left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._is_urgent.wait()
