"""The end of a process's life (SPEC 9): stop being ready, stop accepting, let finish, then cut.

Decides the order and the times; `worker.py` then takes everything apart.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

from sidecar.core import snapshot
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding.service import Service

_LOG = logging.getLogger("sidecar.runtime")
FORCED_EXIT_CODE = 1
"""Of a second signal: what was under way was cut."""


class Drain:
    """One drain, begun at most once."""

    def __init__(
        self, service: Service, listeners: Mapping[str, ListenerSocket], policy: snapshot.Drain
    ) -> None:
        self.policy = policy
        self._service = service
        self._listeners = listeners
        self._begun = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    def begin(self) -> None:
        """Begin, from a signal or the admin API; the second call ends the process at once."""
        if self.has_begun:
            os._exit(FORCED_EXIT_CODE)
        self._service.is_draining = True
        self._begun.set()

    async def begun(self) -> None:
        """Wait for the beginning."""
        await self._begun.wait()

    async def wait(self) -> None:
        """Wait for the beginning, then see it through: returns when nothing is under way or time is up."""
        await self._begun.wait()
        _LOG.info("draining: %d exchanges under way", len(self._service.exchanges))
        if self.policy.delay_seconds > 0:
            await asyncio.sleep(self.policy.delay_seconds)
        self._service.is_closed_to_new = True
        for listener in self._listeners.values():
            listener.stop_accepting()
        try:
            async with asyncio.timeout(self.policy.timeout_seconds):
                while self._service.exchanges:  # noqa: ASYNC110  (an event would cost each exchange)
                    await asyncio.sleep(0.01)
        except TimeoutError:
            _LOG.warning("drain timeout: %d exchanges are cut", len(self._service.exchanges))
