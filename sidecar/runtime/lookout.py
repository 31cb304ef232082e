"""A thread that looks at files while nothing happens, and tells the loop when they are not as they were.

To look from the loop wakes it, hands the look to a thread and wakes it again: half a millisecond of CPU, four times a
second, in every pod that has nothing to do. Here the thread wakes itself, once a second where nothing has changed for
a minute, and the loop hears of news alone.

A file system may hang, and with it all that one `Lookout` looks at: each part that watches files has its own, and of
endpoint files each directory. The thread has what it looks at, and takes orders; the loop never waits for it. It is a
daemon, and ends with `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable
from queue import Empty, SimpleQueue
from typing import Any

from sidecar.core.dataclass import dataclass

CALM_AFTER_SECONDS = 60.0
"""What has not changed for so long is hardly about to: who edits a file looks at what comes of it, and goes on."""
CALM_SECONDS = 1.0
"""Between two looks from then on (SPEC: a poll each second)."""

_LOG = logging.getLogger("sidecar.runtime")


@dataclass(frozen=True, slots=True)
class _Job:
    look: Callable[[float], Any]
    known: Any
    tell: Callable[[], object]
    calm_at: float


class Lookout:
    """Made and called on the loop's thread. What is watched is told of once, and then no longer watched."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: between two looks, until what is looked at has been as it is for a while."""
        self._seconds = seconds
        self._orders: SimpleQueue[tuple[Hashable, _Job | None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread: threading.Thread | None = None

    def watch(
        self, key: Hashable, look: Callable[[float], Any], known: Any, tell: Callable[[], object]
    ) -> None:
        """Have `tell` called on the loop when `look` finds something else than `known`; in the place of what `key`
        was watched for before. `look` is given the monotonic time, may block, and is called in the thread alone;
        None: it could not see anything.

        `tell` may come after `rest` still, and says no more than that it is worth looking. Where no thread is to be
        had it comes after a while.
        """
        if not self._has_thread():
            self._loop.call_later(self._seconds, tell)
            return
        self._orders.put((key, _Job(look, known, tell, time.monotonic() + CALM_AFTER_SECONDS)))

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="sidecar-watch", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more for us
                return False
            self._thread = thread
        return True

    def rest(self, key: Hashable) -> None:
        """Watch this no longer."""
        if self._thread is not None:
            self._orders.put((key, None))

    def close(self) -> None:
        """Watch nothing any more."""
        self._orders.put(None)

    def _run(self) -> None:
        jobs: dict[Hashable, _Job] = {}
        looked_at = time.monotonic()
        while True:
            now = time.monotonic()
            pause = self._pause(jobs.values(), now)
            try:
                order = self._orders.get(timeout=None if pause is None else max(0.0, looked_at + pause - now))
            except Empty:
                self._look_at_all(jobs)
                looked_at = time.monotonic()
                continue
            if order is None:
                return
            if pause is None:
                looked_at = time.monotonic()
            key, job = order
            jobs.pop(key, None)
            if job is not None and not self._has_news(job):
                jobs[key] = job

    def _pause(self, jobs: Collection[_Job], now: float) -> float | None:
        """Until the next look; None: nobody wants one."""
        if not jobs:
            return None
        is_calm = all(now >= job.calm_at for job in jobs)
        return max(self._seconds, CALM_SECONDS) if is_calm else self._seconds

    def _look_at_all(self, jobs: dict[Hashable, _Job]) -> None:
        for key, job in list(jobs.items()):
            if self._has_news(job):
                del jobs[key]

    def _has_news(self, job: _Job) -> bool:
        try:
            found = job.look(time.monotonic())
        except Exception:  # a mistake of ours: whoever is told looks for himself, and is supervised
            _LOG.exception("an error in looking at files")
            found = object()
        if found is None or found == job.known:
            return False
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(job.tell)
        return True
