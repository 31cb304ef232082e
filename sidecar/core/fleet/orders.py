"""Overrides for all replicas: the last word of an operator, whoever heard it first."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from sidecar.core.breaker import Breaker, Override
from sidecar.core.fleet.member import FleetMember
from sidecar.core.fleet.messages import MAX_NAME, MOST_NUMBER, FleetOrder
from sidecar.core.transition import Transition


class LastOrder:
    """The last override of one breaker. Times are monotonic seconds."""

    __slots__ = ("_until", "known")

    def __init__(self) -> None:
        self.known: FleetOrder | None = None
        self._until = inf

    def hear(self, order: FleetOrder, at: float) -> bool:
        """Take it over if it is later than what is known; whether it is. `at`: when its time was true."""
        if (self.known is not None and order.rank <= self.known.rank) or order.sequence > MOST_NUMBER:
            return False
        self.known = order
        self._until = inf if order.left_seconds is None else at + order.left_seconds
        return True

    def told(self, now: float) -> FleetOrder | None:
        """With the time that is left; None: there is none, or it is over."""
        if self.known is None or now >= self._until:
            return None
        return replace(self.known, left_seconds=None if self._until == inf else self._until - now)


class Orders:
    """Of one breaker. An override that an operator gives to one process alone is not told here."""

    __slots__ = ("_breaker", "_key", "_last", "_member", "_must_tell")

    def __init__(self, key: str, breaker: Breaker, member: FleetMember) -> None:
        self._key = key
        self._breaker = breaker
        self._member = member
        self._last = LastOrder()
        self._must_tell = False

    def order(self, action: Override, now: float, seconds: float | None, by: str) -> Transition | None:
        """Say it here, and let it be told to all. Raises ValueError: `seconds` is zero or less."""
        by = "".join(filter(str.isprintable, by))[:MAX_NAME]
        seconds = None if action is Override.AUTO else seconds
        transition = self._breaker.override(action, now, seconds, by)
        known = self._last.known
        sequence = 1 if known is None else known.sequence + 1
        self._last.hear(FleetOrder(self._key, sequence, self._member.process, action, seconds, by), now)
        self._must_tell = True
        return transition

    def hear(self, order: FleetOrder, at: float, now: float) -> list[Transition]:
        """Of another process."""
        known = self._last.known
        if not self._last.hear(order, at):
            self._must_tell = self._must_tell or (known is not None and order.rank < known.rank)
            return []
        current = self._last.told(now)
        if current is None:
            return []
        transition = self._breaker.override(order.action, now, current.left_seconds, order.by)
        return [] if transition is None else [transition]

    def told(self, now: float) -> FleetOrder | None:
        """The last one, with the time that is left; None: there is none, or it is over."""
        return self._last.told(now)

    def take_out(self, now: float) -> list[FleetOrder]:
        """What is to be told now."""
        order = self.told(now) if self._must_tell else None
        self._must_tell = False
        return [] if order is None else [order]

    def joined(self) -> None:
        """The link is up: say it again."""
        self._must_tell = self._last.known is not None
