"""Who else is asked where an exchange's own upstream does not take it: those that have a share of the route's weights
(`shift.py`), and those that take over by `failover` (`standby.py`).

Decides in which order they are asked, each once, and which request is a trial: one that is to find out whether an
upstream that gets none is well again. Asks their breakers; sends nothing. Made by the race at the first refusal, or
at once where others may take over, and owned by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sidecar.core.errors import Reason
from sidecar.core.retry import REPEATABLE
from sidecar.forwarding.permit import Permit, Refusal
from sidecar.forwarding.shift import Shift, shift_around, shift_from
from sidecar.forwarding.standby import Detour, Standby, supply_of

if TYPE_CHECKING:
    from sidecar.forwarding.live import Destination, LiveRoute
    from sidecar.forwarding.story import Story


class Takers:
    """Of one exchange."""

    __slots__ = ("_detour", "_route", "_shift", "asked", "is_trial")

    def __init__(self, route: LiveRoute) -> None:
        self._route = route
        self._shift: Shift | None = None
        """From the first refusal of a weighted upstream on."""
        self._detour: Detour[Destination] | None = None
        """Where its upstream has others to take over."""
        self.asked: list[Destination] = []
        """Those that did not take it."""
        self.is_trial = False
        """The request is to find out whether the upstream is well again."""

    def __repr__(self) -> str:
        return f"<Takers {self._shift!r} {self._detour!r}{' of a trial' if self.is_trial else ''}>"

    def first(
        self, story: Story, home: Destination, standby: Standby[Destination], now: float
    ) -> Destination:
        """The upstream itself, or one that takes over."""
        rng = story.service.rng
        self._detour = Detour(home, standby)
        if standby.keeps(rng):
            return home
        may_be_sent_again = story.request.method in REPEATABLE and story.body is None
        if may_be_sent_again and standby.takes_trial(home, now):
            self.is_trial = True
            return home
        if home.breaker.is_shut:
            self._shift = shift_around(self._route, home, rng)
            if self._shift is not None:
                self.asked.append(home)
                member = self._shift.next(home)
                if member is not None:
                    return member
        return standby.taker(supply_of(home), rng) or home

    def ask(
        self, story: Story, refused: Destination, refusal: Refusal, now: float
    ) -> tuple[Destination, Permit | Refusal]:
        """One has refused: ask the others. Returns who takes it, with its permit; or who is to be asked again once
        all of the request's body is here, with its refusal.

        Raises:
            GivenUp: nobody takes it.
        """
        asked, answer = refused, cast("Permit | Refusal", refusal)
        while isinstance(answer, Refusal) and not answer.is_postponed:
            if answer.transition is not None:
                story.service.transitioned(answer.transition)
            self.asked.append(asked)
            other = self._next(story, asked, answer)
            if other is None:
                story.refused(refusal if self._shift is None else self._shift.first or refusal)
            asked, answer = other, other.admit(now, story)
        return asked, answer

    def _next(self, story: Story, refused: Destination, refusal: Refusal) -> Destination | None:
        rng = story.service.rng
        if self._shift is None:
            self._shift = shift_from(self._route, refused, refusal, rng)
        other = None if self._shift is None else self._shift.next(refused)
        detour = self._detour
        if detour is not None:
            is_moved = refusal.reason is Reason.CIRCUIT_OPEN or self.is_trial
            self.is_trial = False
            if other is None and is_moved:
                other = detour.next(refused, rng)
        return other

    def has_other(self) -> bool:
        """Whether somebody takes it if the trial fails."""
        return self._detour is not None and self._detour.has_next()

    def after_trial(self, story: Story, failed: Destination) -> Destination | None:
        """The trial has failed: who takes it then. None: nobody."""
        self.is_trial = False
        self.asked.append(failed)
        return None if self._detour is None else self._detour.next(failed, story.service.rng)
