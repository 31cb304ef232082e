"""An event loop whose clock jumps: when nothing is ready, time goes to the next timer at once.

Real loopback sockets work on it, because the kernel delivers to a local socket within the call that sends. So a
scenario of minutes runs in milliseconds, and a timeout fires exactly when it is due. Before each jump it asks
`tests/support/outside.py` whether something may yet come by itself. While a thread or a child process is at work for
the loop the clock stands: how much virtual time passes does not depend on how busy the machine is.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import subprocess
import time
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Callable, Iterable
from typing import Any

from sidecar.runtime import first_loading
from tests.support.outside import Outside

PATIENCE_SECONDS = 0.002
"""Real time that a stranger gets before each jump of the clock: nothing tells whether it is about to speak."""
LOOK_SECONDS = 0.001
"""Real time between two looks at whether somebody is still at work."""
STUCK_SECONDS = 20.0


class _JumpingSelector(selectors.DefaultSelector):
    loop: JumpingLoop

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self.outside = outside

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        if not self.outside.is_transport(key.fd):
            self.outside.seen(key.fd)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self.outside.gone(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(STUCK_SECONDS)
        ready = self._select_patiently(timeout)
        if not ready:
            self.loop.jump(timeout)
        return ready

    def _select_patiently(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        """What shows up in real time, as long as something may."""
        outside = self.outside
        stuck = time.monotonic() + STUCK_SECONDS
        while outside.is_at_work() or outside.is_owed_bytes():
            ready = super().select(LOOK_SECONDS)
            if ready or time.monotonic() > stuck:
                return ready
            outside.looked()
        return super().select(min(PATIENCE_SECONDS, timeout) if outside.has_stranger() else 0)


class _Transport(_SelectorSocketTransport):  # type: ignore[misc]  # typeshed has no private names
    def writelines(self, list_of_data: Iterable[bytes]) -> None:
        """As uvloop's: asyncio's own does not tell its protocol to pause, from Python 3.12 on."""
        super().writelines(list_of_data)
        self._maybe_pause_protocol()


class JumpingLoop(asyncio.SelectorEventLoop):
    """Virtual time in `time()`; starts where the real monotonic clock is, and never falls behind whole nanoseconds.

    Steps of 25 ms that a float can't hold add up, upwards or downwards by how long the machine has been up. Downwards
    was wrong: a timer takes along another that is due in less than a nanosecond, and that one came too early.
    """

    def __init__(self) -> None:
        self.outside = Outside()
        selector = _JumpingSelector(self.outside)
        selector.loop = self
        self._now = round(time.monotonic(), 9)
        super().__init__(selector)
        # After a hundred days of uptime a float has no nanoseconds: nothing would ever be due.
        self._clock_resolution = max(1e-9, 2 * math.ulp(self._now))
        self.outside.transports = self._transports  # type: ignore[attr-defined]
        self.outside.gone(self._ssock.fileno())  # type: ignore[attr-defined]  # what threads write to wake it

    def time(self) -> float:
        return self._now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        job = super().run_in_executor(executor, func, *args)
        self.outside.job_began(job)
        return job

    async def _make_subprocess_transport(self, *args: Any, **options: Any) -> asyncio.SubprocessTransport:
        child: asyncio.SubprocessTransport = await super()._make_subprocess_transport(*args, **options)  # type: ignore[misc]
        self.outside.child_began(child)
        return child

    def child_began(self, child: subprocess.Popen[bytes]) -> None:
        """One that was started without the loop, and speaks to it by pipes."""
        self.outside.child_began(_Child(child))

    def _make_socket_transport(self, *args: Any, **options: Any) -> _Transport:
        return _Transport(self, *args, **options)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Without the limit of Python 3.12 and later: threads live in real time, and this clock would jump it."""
        await super().shutdown_default_executor()

    def jump(self, seconds: float) -> None:
        then = self._now + seconds
        self._now = max(then, round(then, 9))


class _Child:
    """As a transport tells of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def get_pid(self) -> int:
        return self._process.pid

    def get_returncode(self) -> int | None:
        return self._process.poll()


_start_loading = first_loading.started


def _started(niceness: int) -> subprocess.Popen[bytes]:
    """The loading process, which a loop whose clock jumps must know of."""
    process = _start_loading(niceness)
    loop = asyncio._get_running_loop()
    if isinstance(loop, JumpingLoop):
        loop.child_began(process)
    return process


first_loading.started = _started
