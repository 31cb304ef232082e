"""How long a breaker stays open, and how traffic comes back after that. Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Final, Protocol

from sidecar.core.snapshot import BreakerPolicy, WindowType

JITTER: Final = 0.1
"""Share of a wait that chance may add (or, at the cap, take off), so that many sidecars do not probe
together."""
FIRST_SHARE: Final = 0.1
"""What a ramp admits at its beginning: from nothing at all, a route with few requests would be refused for
seconds."""
_RECENT_SECONDS: Final = 60.0
"""With a window of calls: how old a failure may be whose `Retry-After` is heeded."""
_MANY: Final = 64
"""Endpoints whose `Retry-After` is remembered."""


class Chance(Protocol):
    """The one thing needed of `random.Random`."""

    def random(self) -> float:
        """At least 0, below 1."""


class Waits:
    """The waits of one breaker: how often they have doubled, and until when the present one lasts.

    A wait is `open_for`, doubled by each failed recovery up to `max_open_for`. The doubling is forgotten once
    the breaker has stayed closed for as long as it last waited and at least one window, so an upstream that
    cannot bear its load is tried at longer and longer intervals although each probe is good."""

    __slots__ = (
        "_asked", "_closed_at", "_doublings", "_floor", "_is_borrowed", "_opened_at", "_spread", "seconds", "until",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.until = now
        """When the present wait ends, or the last one did."""
        self.seconds = 0.0
        """The length of that wait."""
        self._doublings = 0
        self._spread = 0.0
        self._floor = 0.0
        """What an upstream asked for by `Retry-After`."""
        self._is_borrowed = False
        """It is the wait of the next sidecar's breaker."""
        self._opened_at = now
        self._closed_at = -inf
        self._asked: dict[Hashable, tuple[float, float, float]] = {}
        """For each endpoint that failed: when it did last, and when it asked to be left alone until when."""

    @property
    def doublings(self) -> int:
        """How often the present wait, or the last one, has been doubled."""
        return self._doublings

    @property
    def is_borrowed(self) -> bool:
        """The present wait is that of the next sidecar's breaker, and says nothing of this upstream."""
        return self._is_borrowed

    def is_longest(self, policy: BreakerPolicy) -> bool:
        """Whether the present wait has grown as long as it may, but for chance."""
        return self.seconds >= policy.max_open_seconds * (1.0 - JITTER)

    def failed(
        self, policy: BreakerPolicy, endpoint: Hashable, retry_after_seconds: float, now: float
    ) -> None:
        """A failure that may lead to an opening, with its answer's `Retry-After`; 0 where it had none."""
        asked = self._asked
        if len(asked) >= _MANY and endpoint not in asked:
            asked.clear()
        _, said_at, until = asked.get(endpoint, (now, now, now))
        if said_at < _recent(policy, now) or until < now + retry_after_seconds:
            said_at, until = now, now + retry_after_seconds
        asked[endpoint] = now, said_at, until

    def open(self, policy: BreakerPolicy, now: float, chance: Chance, *, is_recovery: bool) -> None:
        """Begin a wait; `is_recovery`: a probe failed, or the breaker opened in its ramp."""
        if is_recovery or now - self._closed_at < self._trial_seconds(policy):
            if _nominal(policy, self._doublings) < policy.max_open_seconds:
                self._doublings += 1
            self._spread = JITTER * chance.random()
        else:
            self._doublings = 0
            self._spread = 0.0
        self._floor = max(0.0, self._asked_for(policy, now) - now)
        self._asked.clear()
        self._begin(policy, now)

    def again(self, policy: BreakerPolicy, now: float) -> None:
        """Begin the same wait once more: a probe has failed, and whether that doubles it is for others to say."""
        self._floor = max(0.0, self._asked_for(policy, now) - now)
        self._asked.clear()
        self._begin(policy, now)

    def take_over(self, doublings: int, seconds: float, left_seconds: float, now: float) -> None:
        """The present wait is what other processes have decided: doubled so often, so long, and so much is left."""
        self._doublings = doublings
        self._spread = self._floor = 0.0
        self._is_borrowed = False
        self._opened_at = now + left_seconds - seconds
        self._asked.clear()
        self._end_at(seconds)

    def open_after_refusal(self, policy: BreakerPolicy, now: float, retry_after_seconds: float) -> None:
        """Begin a wait that says nothing of this upstream: the next sidecar's breaker was open."""
        self._opened_at = now
        self._is_borrowed = True
        wait = retry_after_seconds if retry_after_seconds > 0.0 else policy.open_seconds
        self._end_at(min(wait, policy.open_seconds, policy.max_open_seconds))

    def close(self, now: float) -> None:
        """The breaker has closed after a good probe."""
        self._closed_at = now
        self._asked.clear()

    def forget(self) -> None:
        """The breaker has left an operator's hands: nothing is known of earlier waits."""
        self._doublings = 0
        self._closed_at = -inf
        self._asked.clear()

    def adopt(self, policy: BreakerPolicy) -> None:
        """Let a changed `open_for` act on the present wait at once, as often doubled as it was."""
        if self._is_borrowed:
            self._end_at(min(self.seconds, policy.open_seconds, policy.max_open_seconds))
        else:
            self._begin(policy, self._opened_at)

    def _trial_seconds(self, policy: BreakerPolicy) -> float:
        """How long a closed breaker is on trial: as long as it last waited, and at least one window of time.

        An upstream that bears half its load fails again only when its queue is full. With the wait alone, one of 1 s
        would begin anew each time (`hard_cases`: 22 openings in 600 s instead of 14).
        """
        window = policy.window
        return max(self.seconds, window.size if window.type is WindowType.TIME else 0.0)

    def _asked_for(self, policy: BreakerPolicy, now: float) -> float:
        """Until when the upstream asked to be left alone. Of several endpoints the smallest: one that is back
        earlier is enough. What failed longer ago than a window has no part in this opening."""
        recent = _recent(policy, now)
        return min(
            (
                until if said_at >= recent else now
                for at, said_at, until in self._asked.values()
                if at >= recent
            ),
            default=now,
        )

    def _begin(self, policy: BreakerPolicy, now: float) -> None:
        self._opened_at = now
        self._is_borrowed = False
        nominal = _nominal(policy, self._doublings)
        cap = policy.max_open_seconds
        spread = self._spread
        wait = max(nominal, self._floor) * (1.0 + spread)
        self._end_at(wait if wait <= cap else cap * (1.0 - spread))

    def _end_at(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = self._opened_at + seconds


def _recent(policy: BreakerPolicy, now: float) -> float:
    """Since when a failure may have had a part in an opening."""
    window = policy.window
    return now - (window.size if window.type is WindowType.TIME else _RECENT_SECONDS)


def _nominal(policy: BreakerPolicy, doublings: int) -> float:
    return min(policy.open_seconds * 2.0**doublings, policy.max_open_seconds)


def ramp_share(started: float | None, policy: BreakerPolicy, now: float) -> float | None:
    """What share a ramp that began at `started` admits, 0.1 to 1, or None: there is none, or it is over."""
    if started is None or now - started >= policy.ramp_seconds:
        return None
    return FIRST_SHARE + (1.0 - FIRST_SHARE) * max(0.0, now - started) / policy.ramp_seconds
