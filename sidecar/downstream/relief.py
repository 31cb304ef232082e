"""Gives memory back when all connections together hold too much (`core/memory_budget.py` says when and who).

First what nobody misses: idle connections with upstreams. Then clients are closed, those first that hold most for
longest without a byte; a request that arrived whole and is not answered is left alone. Where that is not enough,
nothing more is let in until something comes free. Works in slices, so that it never holds the loop. Owned by the data
path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from sidecar.core.memory_budget import Claim, MemoryBudget, choose
from sidecar.downstream.listener import AnyClient

SLICE: Final = 500
"""Connections that are looked at in one turn of the loop: about half a millisecond."""
CLOSES_A_TURN: Final = 100
"""An end costs about 20 µs."""
AGAIN_SECONDS: Final = 0.05
"""Until somebody is looked for again, where there was nobody to close."""


class Relief:
    """At most one is under way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        budget: MemoryBudget,
        connections: Callable[[], list[AnyClient]],
        close_idle_upstreams: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._budget = budget
        self._connections = connections
        self._close_idle_upstreams = close_idle_upstreams
        self._is_under_way = False
        self._has_found = False
        """The last look found somebody to close."""
        self._steps: Iterator[None] = iter(())

    def begin(self) -> None:
        """The budget has been passed. Nobody is closed within the call: who called is in the midst of something."""
        if not self._is_under_way:
            self._is_under_way = True
            self._steps = self._relieve()
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        try:
            next(self._steps)
        except StopIteration:
            if self._has_found:
                self._loop.call_soon(self._look_again)
            else:
                self._loop.call_later(AGAIN_SECONDS, self._look_again)
        except BaseException:
            self._loop.call_later(AGAIN_SECONDS, self._look_again)
            raise
        else:
            self._loop.call_soon(self._step)

    def _look_again(self) -> None:
        self._is_under_way = False
        if self._budget.is_over:
            self.begin()
        else:
            self._budget.is_full = False

    def _relieve(self) -> Iterator[None]:
        budget = self._budget
        if budget.is_over and self._close_idle_upstreams():
            yield
        claims: list[Claim] = []
        connections = self._connections()
        for start in range(0, len(connections), SLICE):
            now = self._clock()
            claims += filter(None, (one.claim(now) for one in connections[start : start + SLICE]))
            yield
        self._has_found = False
        for number, claim in enumerate(choose(claims, budget.needed_bytes, budget.limit_bytes)):
            held = claim.holder.end_for_memory()
            if held is not None:
                budget.closed[held] += 1
                self._has_found = True
            if number % CLOSES_A_TURN == CLOSES_A_TURN - 1:
                yield
        budget.is_full = budget.has_none_left and not self._has_found
