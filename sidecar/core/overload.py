"""When a loop cannot keep up, and how much new work it takes then (SPEC-UPSTREAM, "Overload").

Decides by the turns of the loop alone: `LeastTurn` tells a standing queue from a spike, `Overload` is the state of
one listener, `Refusals` bounds what saying no may cost. Pure: `now` is in seconds on the monotonic clock.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import Final

WINDOW_SECONDS: Final = 0.1
MIN_TURNS: Final = 3
"""Fewer in a window are a spike: one long stop is no queue. The window then goes on."""
LATE_SECONDS: Final = 0.02
"""Overload begins when every turn of a window took longer."""
CALM_SECONDS: Final = 0.01
"""It ends when the least turn stayed under this, and nobody waited, for `CALM_FOR_SECONDS`."""
CALM_FOR_SECONDS: Final = 0.5
STEP: Final = 0.1
LEAST: Final = 0.1

REFUSING_SHARE: Final = 0.1
"""Of the time, for answers that say no: at a cost of a fifth of a forward, refusing all of a fivefold load would
leave nothing for the others."""
SAVED_SECONDS: Final = 0.01
"""Of that share, at most so much is saved up."""
FIRST_COST_SECONDS: Final = 30e-6
"""Of one refusal, until it is known what a forward costs."""
MOST_COST_SECONDS: Final = 200e-6
COST_SHARE: Final = 0.5
"""Of a forward's cost; measured: a third, with the reading of its bytes."""


class Change(Enum):
    """Of a listener's state."""

    BEGAN = auto()
    ENDED = auto()


class LeastTurn:
    """The shortest turn of each 100 ms."""

    __slots__ = ("_count", "_least", "_since")

    def __init__(self) -> None:
        self._since = -inf
        self._restart(-inf)

    def _restart(self, now: float) -> None:
        self._since = now
        self._least = inf
        self._count = 0

    def add(self, seconds: float, now: float) -> float | None:
        """One turn that ended `now`. At the end of a window the shortest of it, otherwise None."""
        if now - seconds - self._since > WINDOW_SECONDS and not self._count:
            self._restart(now - seconds)
        self._count += 1
        self._least = min(self._least, seconds)
        if now - self._since < WINDOW_SECONDS or self._count < MIN_TURNS:
            return None
        least = self._least
        self._restart(now)
        return least


class Overload:
    """The state of one listener. `window` alone changes it."""

    __slots__ = ("_calm_since", "admission", "began", "is_on")

    def __init__(self) -> None:
        self.is_on = False
        self.admission = 1.0
        """The share of the usual that is taken of new work in one turn, in steps of a tenth, never nothing."""
        self.began = -inf
        """The last time; on the monotonic clock."""
        self._calm_since = inf

    def __repr__(self) -> str:
        return f"<Overload {'on' if self.is_on else 'off'}, admission {self.admission:.1f}>"

    def begin(self, now: float) -> Change | None:
        """New work has to wait from now on."""
        if self.is_on:
            return None
        self.is_on = True
        self.began = now
        self.admission = 1.0
        self._calm_since = inf
        return Change.BEGAN

    def window(self, least: float, now: float, *, is_anybody_waiting: bool) -> Change | None:
        """100 ms have passed, whose shortest turn was `least`. While it is off, nothing happens here."""
        if not self.is_on:
            return None
        if least > LATE_SECONDS:
            self.admission = max(LEAST, round(self.admission - STEP, 1))
        elif least < CALM_SECONDS:
            self.admission = min(1.0, round(self.admission + STEP, 1))
        if least >= CALM_SECONDS or is_anybody_waiting:
            self._calm_since = inf
            return None
        self._calm_since = min(self._calm_since, now)
        if now - self._calm_since < CALM_FOR_SECONDS:
            return None
        self.is_on = False
        return Change.ENDED


class Refusals:
    """How many answers that say no there is time for."""

    __slots__ = ("_cost", "_credit", "_then", "count")

    def __init__(self, now: float, cost_seconds: float = FIRST_COST_SECONDS) -> None:
        """`cost_seconds`: of one, until `costs` says another."""
        self._then = now
        self._credit = 0.0
        self._cost = cost_seconds
        self.count = 0
        """Refused so far."""

    def take(self, wanted: int, now: float) -> int:
        """Up to `wanted` of them, as far as there is time; paid for at once."""
        self._credit = min(self._credit + (now - self._then) * REFUSING_SHARE, SAVED_SECONDS)
        self._then = now
        granted = min(wanted, max(0, int(self._credit / self._cost)))
        self._credit -= granted * self._cost
        self.count += granted
        return granted

    def costs(self, *, seconds_of_a_forward: float) -> None:
        """What a request costs that is forwarded; one that is refused is taken to cost the half at most.

        Where upstreams are slow few are forwarded in a second, which says nothing of the cost: hence the bound.
        """
        self._cost = min(COST_SHARE * seconds_of_a_forward, MOST_COST_SECONDS)
