"""An event loop whose clock jumps: when nothing is ready, time goes to the next timer at once.

Real loopback sockets work on it, because the kernel delivers to a local socket within the call that sends. So a
scenario of minutes runs in milliseconds, and a timeout fires exactly when it is due. What runs in threads (DNS,
the telemetry exporters) is invisible to the jump: scenarios do without.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Iterable
from typing import Any

PATIENCE_SECONDS = 0.002
"""Real time that I/O gets to show up before the clock jumps."""
STUCK_SECONDS = 20.0


class _JumpingSelector(selectors.DefaultSelector):
    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(STUCK_SECONDS)
        ready = super().select(min(PATIENCE_SECONDS, timeout))
        if not ready:
            self.loop.jump(timeout)
        return ready


class _Transport(_SelectorSocketTransport):  # type: ignore[misc]  # typeshed has no private names
    def writelines(self, list_of_data: Iterable[bytes]) -> None:
        """As uvloop's: asyncio's own does not tell its protocol to pause, from Python 3.12 on."""
        super().writelines(list_of_data)
        self._maybe_pause_protocol()


class JumpingLoop(asyncio.SelectorEventLoop):
    """Virtual time in `time()`; starts where the real monotonic clock is."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._now = time.monotonic()
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def _make_socket_transport(self, *args: Any, **options: Any) -> _Transport:
        return _Transport(self, *args, **options)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Without the limit of Python 3.12 and later: threads live in real time, and this clock would jump it."""
        await super().shutdown_default_executor()

    def jump(self, seconds: float) -> None:
        self._now += seconds
