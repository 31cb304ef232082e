"""Gives memory back when all connections together hold too much (`core/memory_budget.py` says when and who).

First what nobody misses: idle connections with upstreams. Then clients are closed, those first that hold most
for longest without a byte; a request that arrived whole and is not answered is left alone. Where that is not enough,
nothing more is let in until something comes free. Works in slices, so that it never holds the loop.

One turn of the loop reads whatever has come on thousands of connections, a buffer full from each, before anybody can
be closed. So once more than all is held, nobody is read any more by HTTP/1.1 until the next look is over; then they
go on, a few in a turn. Owned by the data path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

from sidecar.core.memory_budget import Claim, MemoryBudget, choose
from sidecar.downstream.http1 import ClientConnection

SLICE: Final = 500
"""Connections that are looked at in one turn of the loop: about half a millisecond."""
CLOSES_A_TURN: Final = 100
"""An end costs about 20 µs."""
GO_ON_A_TURN: Final = 64
"""Of those that were not read, with at most two buffers each: about 1 MiB."""
TURNS_TO_END: Final = 32
"""Turns of the loop that ends are waited for: two thousand of them."""
AGAIN_SECONDS: Final = 0.05
"""Until somebody is looked for again, where there was nobody to close."""


class Relief:
    """At most one is under way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        budget: MemoryBudget,
        connections: Callable[[], list[Any]],
        with_upstreams: Callable[[], list[Any]],
        close_idle_upstreams: Callable[[], int],
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """`connections`: with clients (`connected.AnyClient`); `with_upstreams`: those that can be held. `is_ending`:
        not all has ended yet that was to end."""
        self._loop = loop
        self._clock = clock
        self._budget = budget
        self._connections = connections
        self._with_upstreams = with_upstreams
        self._close_idle_upstreams = close_idle_upstreams
        self._is_ending = is_ending
        self._is_under_way = False
        self._has_found = False
        """The last look found somebody to close."""
        self._steps: Iterator[None] = iter(())
        self._held: list[Any] | None = None
        """Who is not read, which may be nobody; None: it was not asked yet, or all have gone on."""

    def begin(self) -> None:
        """More is held than may be, and more than before. Nobody is closed within the call: who called is in the
        midst of something."""
        self._begin()
        if self._budget.has_none_left and self._held is None:
            self._hold_all()

    def _begin(self) -> None:
        if not self._is_under_way:
            self._is_under_way = True
            self._steps = self._relieve()
            self._loop.call_soon(self._step)

    def _hold_all(self) -> None:
        """A microsecond each."""
        clients = [one for one in self._connections() if isinstance(one, ClientConnection)]
        self._held = clients + self._with_upstreams()
        for one in self._held:
            one.hold_for_memory()

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
        if self._budget.is_over or self._held is not None:
            self._begin()
        else:
            self._budget.is_full = False

    def _relieve(self) -> Iterator[None]:
        budget = self._budget
        if budget.is_over and self._close_idle_upstreams():
            yield
            yield from self._ends()
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
        yield from self._ends()
        budget.is_full = budget.has_none_left and not self._has_found
        yield from self._let_go()

    def _ends(self) -> Iterator[None]:
        """Until what was closed has given back what it held: nobody else is to be closed for it."""
        for _ in range(TURNS_TO_END):
            if not self._is_ending():
                return
            yield

    def _let_go(self) -> Iterator[None]:
        """As long as that brings no new want; in any case a few, since some must come to their end."""
        while self._held:
            for one in self._held[-GO_ON_A_TURN:]:
                one.go_on()
            del self._held[-GO_ON_A_TURN:]
            self._held = self._held or None
            yield
            if self._budget.is_over:
                return
        self._held = None
