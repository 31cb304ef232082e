"""How a breaker comes back: how long it stays open, how its probes are kept, how traffic returns after
closing.

Decides; holds no state of the breaker but the probes of one HALF_OPEN period. Times are monotonic seconds.
"""

from __future__ import annotations

from typing import Final, Protocol

from sidecar.core.breaker_admission import Admission
from sidecar.core.snapshot import BreakerPolicy

JITTER: Final = 0.1
"""Share of a wait that chance may add (or, at the cap, take off), so that many sidecars do not probe
together."""


class Chance(Protocol):
    """The one thing needed of `random.Random`."""

    def random(self) -> float:
        """At least 0, below 1."""


def first_wait(policy: BreakerPolicy) -> float:
    """Seconds to stay open after a trip out of ordinary operation: `open_for`, to the letter."""
    return min(policy.open_seconds, policy.max_open_seconds)


def doubled_wait(nominal_seconds: float, policy: BreakerPolicy) -> float:
    """The nominal wait after a failed recovery, before `jittered`."""
    return min(2.0 * nominal_seconds, policy.max_open_seconds)


def jittered(nominal_seconds: float, policy: BreakerPolicy, chance: Chance) -> float:
    """Spread a wait: up to a tenth longer, but at the cap up to a tenth shorter.

    So a doubled wait is never less than doubled, none is beyond `max_open_for`, and breakers that reached the
    cap still do not move in step.
    """
    spread = JITTER * chance.random()
    wait = nominal_seconds * (1.0 + spread)
    cap = policy.max_open_seconds
    return wait if wait <= cap else cap * (1.0 - spread)


def is_ramping(started: float | None, policy: BreakerPolicy, now: float) -> bool:
    """Whether a ramp that began at `started` (None: there is none) still holds requests back."""
    return started is not None and now - started < policy.ramp_seconds


def is_let_in(started: float, policy: BreakerPolicy, now: float, chance: Chance) -> bool:
    """Whether a ramp that is on lets this request in: with a probability that grows linearly from 0 to 1."""
    return chance.random() * policy.ramp_seconds < now - started


class Probes:
    """The permits and verdicts of one HALF_OPEN period.

    Each probe in flight is held by identity, so a permit comes back once however often it is given back, and
    the oldest one is known. Bounded by `half_open_max_calls`.
    """

    __slots__ = ("_heard", "_in_flight", "good", "slow")

    def __init__(self, now: float) -> None:
        self._in_flight: dict[Admission, float] = {}
        self._heard = now
        self.good = 0
        """Verdicts for the upstream, in good time."""
        self.slow = 0
        """Successes that took `slow_call_duration` or longer."""

    def __len__(self) -> int:
        return len(self._in_flight)

    def has_permit(self, policy: BreakerPolicy) -> bool:
        """Whether one more probe may go. At least one may, or a limit of zero would keep the breaker open."""
        return len(self._in_flight) < max(1, policy.half_open_max_calls)

    def take(self, probe: Admission, now: float) -> None:
        self._in_flight[probe] = now

    def give_back(self, probe: Admission) -> None:
        self._in_flight.pop(probe, None)

    def hear(self, now: float) -> None:
        """Some verdict came: the wait for the next one starts again."""
        self._heard = now

    def is_overdue(self, policy: BreakerPolicy, patience: float, now: float) -> bool:
        """Whether a probe is out and `patience` times `max_wait` went by since then without any verdict.

        Without a probe in flight nothing is awaited: the next request is one.
        """
        if not self._in_flight:
            return False
        oldest = next(iter(self._in_flight.values()))
        return now - max(oldest, self._heard) >= patience * policy.half_open_max_wait_seconds

    def has_recovered(self, policy: BreakerPolicy) -> bool:
        return self.good >= policy.half_open_successes

    def is_too_slow(self, policy: BreakerPolicy) -> bool:
        """Whether as many probes as would close the breaker show it slow by the policy's own rate.

        One slow probe of many says no more than one slow call of many, so the same threshold applies.
        """
        heard = self.good + self.slow
        return (
            self.slow > 0
            and heard >= policy.half_open_successes
            and self.slow / heard >= policy.slow_call_rate_threshold
        )
