"""One permit for all attempts, as long as the breaker is closed and nothing of a single attempt is of interest.

Most attempts have a whole answer in good time, of which a counter, a window and a quantile want to know and nothing
else. A permit of its own would cost each of them 1 µs; this takes 0.3. Whatever else happens to an attempt is said to
a permit that `own` makes.
"""

from __future__ import annotations

from math import inf

from sidecar.core.breaker.durations import Durations
from sidecar.core.breaker.numbers import Tally
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal, Keeper
from sidecar.core.breaker.rows import Rows
from sidecar.core.breaker.triggers import Triggers
from sidecar.core.breaker.window import TimeWindow, Window
from sidecar.core.transition import State, Transition


class Door:
    """It identifies no attempt. Owned by one breaker, for one state period and one policy at most."""

    __slots__ = (
        "_by_time", "_durations", "_keeper", "_rows", "_tally", "_triggers", "_window", "generation",
        "is_current", "is_looking", "judge_after_seconds", "looks_after", "slow_seconds", "state", "twin",
    )  # fmt: skip

    is_admitted = True
    is_probe = False
    is_waved_through = False
    transition: Transition | None = None
    refused_by: Transition | None = None

    def __init__(
        self,
        keeper: Keeper,
        generation: int,
        state: State,
        tally: Tally,
        durations: Durations,
        rows: Rows,
        window: Window,
        triggers: Triggers,
        twin: Door | None = None,
    ) -> None:
        self._keeper = keeper
        self.generation = generation
        self.state = state
        self.twin = twin
        """The door of a second policy that sees the same attempts."""
        self.is_current = state is State.CLOSED
        """What is said to it moves the machine; False once another answer has taken its place."""
        self.slow_seconds = keeper.slow_seconds
        self.looks_after: float = (
            self.slow_seconds if twin is None else min(self.slow_seconds, twin.looks_after)
        )
        """An attempt that is without a head after this much of the upstream's time needs a permit of its own, and is
        to be looked at; `inf`: never."""
        self.is_looking = self.looks_after < inf
        self.judge_after_seconds = keeper.policy.judge_after_seconds
        """After a good final head, an attempt that still runs is judged by it."""
        self._tally = tally
        self._durations = durations
        self._rows = rows
        self._window = window
        self._by_time = window if isinstance(window, TimeWindow) else None
        self._triggers = triggers

    def __repr__(self) -> str:
        return f"<Door of generation {self.generation}, {'current' if self.is_current else 'replaced'}>"

    def head(self, now: float) -> None:
        """A final head with a status below 400 has come, and the answer goes on. One that goes on for
        `judge_after_seconds` needs a permit of its own, to be judged by its head."""
        if self.is_current and self._rows.is_begun:
            self._rows.head()
        if self.twin is not None:
            self.twin.head(now)

    def succeed(self, seconds: float, now: float) -> Transition | None:
        """An attempt had a whole answer with a status below 400 after `seconds` of the upstream's time; it is
        over."""
        if self.twin is not None:
            self.twin.succeed(seconds, now)
        if not self.is_current or seconds >= self.slow_seconds:
            return self._keeper.succeed_apart(self.generation, seconds, now)
        self._tally.successful += 1
        self._durations.add(seconds)
        rows = self._rows
        if rows.is_begun:
            rows.end()
        window, by_time = self._window, self._by_time
        if by_time is not None and now < by_time.bucket_ends:
            by_time.total += 1  # `add`, without the call
        else:
            window.add(now, 0)
        if (window.failed or window.slow) and self._triggers.check_rates(window) is not None:
            return self._keeper.check_rates(now)
        return None

    def own(self) -> BreakerPermit:
        """A permit of its own for one attempt, of which `succeed` will not be said here. `catch_up` tells it
        what is past."""
        twin = None if self.twin is None else self.twin.own()
        return BreakerPermit(self._keeper, self.generation, self.state, twin=twin)

    def next_look(self, sent_at: float) -> float:
        """When an attempt that was sent at `sent_at`, and has no head yet, is to be looked at."""
        return sent_at + self.looks_after


Answer = Door | BreakerPermit | BreakerRefusal
"""What a breaker says to one attempt."""
