"""A client connection's phase and the clock of it, for every protocol.

Decides when a phase has lasted too long, and whether a client that is to take something has taken any of it. What
follows then is the connection's own (`_overdue`). The table of phases is in `phase.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Final

from sidecar.core.contract import NO_SLOTS
from sidecar.downstream.phase import THEN, Phase, Then
from sidecar.forwarding.sweep import Expiring, Sweep
from sidecar.transport.link import Link

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

UNSEEN: Final = -1
"""Nobody has looked yet at what waits for the client."""


class PhaseClock(ABC):
    """A connection that has one phase at a time, and an entry in the sweep for it. Whoever extends it sets all of
    its fields; `phase` has one writer, `_enter`."""

    __slots__ = NO_SLOTS

    link: Link
    phase: Phase
    due: float
    """When the sweep is to look here, in seconds on the loop's clock."""
    bucket: set[Expiring] | None
    listener: ListenerTerms
    _since: float
    """When the phase's clock started."""
    _untaken: int
    """What waited for the client at the last look, in bytes, or UNSEEN."""

    @abstractmethod
    def _overdue(self, then: Then, now: float) -> None:
        """Its phase has lasted too long, and `then` is what the table says to that."""

    def _enter(self, phase: Phase, now: float) -> None:
        """The one place where the phase changes, but for what the measured path does in its place."""
        self.phase = phase
        self._since = now
        due = now + self.listener.phase_seconds[phase]
        if due < self.due:
            self._watch(due, now)

    def _watch(self, due: float, now: float) -> None:
        if self.bucket is not None:
            Sweep.remove(self)
        self.due = due
        if due < inf:
            self.listener.service.sweep.add(self, now)

    def expire(self, now: float) -> None:
        """`due` has passed; the phase may have changed since it was set."""
        self.due = inf
        then = THEN[self.phase]
        if then is Then.CUT_IF_STUCK and self._untaken == UNSEEN:
            self._untaken = self.link.untaken_bytes()  # from here on it can be seen whether anything moves
            self._since = now
        due = self._since + self.listener.phase_seconds[self.phase]
        if due > now:
            self._watch(due, now)
        elif then is Then.CUT_IF_STUCK:
            self._cut_if_stuck(now)
        elif then is not Then.NOTHING:
            self._overdue(then, now)

    def _cut_if_stuck(self, now: float) -> None:
        untaken = self.link.untaken_bytes()
        is_moving = untaken and untaken != self._untaken
        self._untaken = untaken
        if is_moving:
            self._enter(self.phase, now)
        else:
            self.link.reset()

    def abandon(self) -> None:
        """A mistake of ours: end it."""
        self.link.reset()

    def abort(self) -> None:
        """Cut it, whatever is under way."""
        self.link.abort()
