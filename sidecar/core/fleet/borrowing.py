"""How one process gets permits of half-open, of which all processes together have `max_calls`.

They are asked for when a request was refused after the wait, never on a request's path: the one that asked is refused
as before, and the first that comes once the permit is there is the probe. Many processes that are refused at the same
moment ask one after the other, each at its own place within a spread, so that most of them have heard of the first
one's probe before it is their turn."""

from __future__ import annotations

from math import inf
from typing import Final

from sidecar.core.fleet.messages import PermitAnswer, PermitAsk, PermitReturn

IDLE_SECONDS: Final = 1.0
"""Without a request, and the permit goes back."""
WANT_SECONDS: Final = 1.0
"""How long a refused request is reason to ask."""
UNANSWERED_SECONDS: Final = 2.0
"""Without an answer, and the question is put again."""
AGAIN_SECONDS: Final = 1.0
"""After a refusal; times the spread's scale in a large fleet."""


class Borrower:
    """The permits of one breaker in this process. Times are monotonic seconds."""

    __slots__ = (
        "_asked_at", "_asks", "_breaker", "_is_in_flight", "_is_open", "_last_used", "_next_ask", "_process",
        "_seconds", "_until", "_wanted_at", "held", "is_wanted",
    )  # fmt: skip

    def __init__(self, breaker: str, process: str) -> None:
        self._breaker = breaker
        self._process = process
        self.held = 0
        self.is_wanted = False
        """A request was refused for want of a permit, and `tick` has not seen it yet."""
        self._wanted_at = -inf
        self._asks = 0
        self._is_open = False
        """The last ask has no answer yet."""
        self._asked_at = 0.0
        self._seconds = 0.0
        self._is_in_flight = False
        self._until = -inf
        self._last_used = -inf
        self._next_ask = -inf

    def permits(self, now: float) -> int:
        """How many it holds."""
        return self.held if now < self._until else 0

    def hear(self, answer: PermitAnswer, now: float, again_seconds: float) -> None:
        """An answer, if it is that of the last ask. Its time has run since the ask, whenever it was granted."""
        if answer.process != self._process or answer.number_of_ask != self._asks or not self._is_open:
            return
        self._is_open = False
        if answer.number:
            if not self.held:
                self._last_used = now
            self.held = answer.number
            self._until = self._asked_at + self._seconds
        else:
            self.held = 0
            self._next_ask = now + again_seconds

    def hurry(self, at: float) -> None:
        """A permit may be free from then on: do not wait until the last refusal is over."""
        self._next_ask = min(self._next_ask, at)

    def tick(
        self, most: int, seconds: float, in_flight: int, delay_seconds: float, now: float
    ) -> PermitAsk | PermitReturn | None:
        """What to say now. `most`: permits for all; 0: none is to be had or wanted at present. `delay_seconds`: the
        place of this process among those that ask at the same moment."""
        if self.is_wanted:
            self.is_wanted = False
            if now - self._wanted_at > WANT_SECONDS:
                self._next_ask = max(self._next_ask, now + delay_seconds)
            self._wanted_at = now
        if self.held and now >= self._until:
            self.held = 0
        if not most:
            return self._give_back()
        self._is_in_flight = in_flight > 0
        if in_flight:
            self._last_used = now
        if self.held and not in_flight and now - self._last_used >= IDLE_SECONDS:
            return self._give_back()
        if self._is_open:
            if now < self._asked_at + UNANSWERED_SECONDS:
                return None
            self._is_open = False
        if self.held:
            is_short = in_flight >= self.held and now - self._wanted_at <= WANT_SECONDS
            if self.held < most and is_short and now >= self._next_ask:
                return self._ask(self.held + 1, most, seconds, now)
            is_old = in_flight and now >= self._asked_at + self._seconds / 2.0
            return self._ask(self.held, most, seconds, now) if is_old else None
        if now - self._wanted_at > WANT_SECONDS or now < self._next_ask:
            return None
        return self._ask(1, most, seconds, now)

    def due(self, now: float) -> float:
        """When `tick` has something to say, if nothing else happens; `inf`: not before something does."""
        if self.is_wanted:
            return now
        if self._is_open:
            return self._asked_at + UNANSWERED_SECONDS
        if self.held:
            is_due = (
                self._asked_at + self._seconds / 2.0 if self._is_in_flight else self._last_used + IDLE_SECONDS
            )
            return min(is_due, self._until)
        return self._next_ask if max(now, self._next_ask) - self._wanted_at <= WANT_SECONDS else inf

    def forget(self) -> None:
        """The link is down: whatever was lent, others may have it by the time that it is back."""
        self.held = 0
        self._is_open = False
        self._wanted_at = self._next_ask = -inf

    def _ask(self, number: int, most: int, seconds: float, now: float) -> PermitAsk:
        self._asks += 1
        self._is_open = True
        self._asked_at, self._seconds = now, seconds
        return PermitAsk(self._breaker, self._process, number, most, seconds, self._asks)

    def _give_back(self) -> PermitReturn | None:
        self._wanted_at = -inf
        if not self.held and not self._is_open:
            return None
        self.held = 0
        self._is_open = False
        return PermitReturn(self._breaker, self._process, self._asks)
