"""The ring of one cluster: made anew with each change of its endpoints, in a thread where they are many.

The old ring stays in use until the new one is whole; what is not on it yet gets no keys until then. Owned by the
event loop's thread; what the other one makes cannot change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from sidecar.core import ring
from sidecar.core.ring import Ring

AT_ONCE = 16
"""Members of a ring that is made without a thread: about 2 ms."""


class RingKeeper:
    def __init__(self, use: Callable[[Ring | None], None]) -> None:
        """`use` is called on the loop with each new ring, and with None when there is to be none any more."""
        self._use = use
        self._wanted: Mapping[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RingKeeper of {len(self._wanted)} members{', builds' if self._task is not None else ''}>"

    def keep(self, members: Mapping[str, int]) -> None:
        """The ring is to be of these endpoints, with these weights; of none, there is to be none."""
        if members == self._wanted:
            return
        self._wanted = members
        if self._task is not None:
            return  # it looks again when it has made the one that it is at
        if len(members) <= AT_ONCE:
            self._use(ring.build(members) if members else None)
        else:
            self._task = asyncio.get_running_loop().create_task(self._build(), name="ring")

    def close(self) -> None:
        """Nobody needs a new one any more; the last one stays in use."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _build(self) -> None:
        try:
            made: Mapping[str, int] | None = None
            while made != self._wanted:
                made = self._wanted
                new = await asyncio.to_thread(ring.build, made, _let_others_go_on) if made else None
                self._use(new)
        finally:
            self._task = None


def _let_others_go_on() -> None:
    time.sleep(0)
