"""The probes of one HALF_OPEN period: who may be one, and what they have shown so far.

There are two kinds of permits. A *firm* request is one whose timeout could count; any other is *brief*: its
success closes the breaker, but it holds no permit against a firm one, or callers with 100 ms would keep a
patient one from ever asking an upstream that needs 200 ms. At most `max_calls` of each kind are held at once.

A permit is held while it is the upstream's turn. In the client's turn another request may take it, at most 8 ×
`max_calls` of a kind at once: a slow upload or a client that does not read keeps nobody out. Where so many are out,
the one whose client has had its turn for longest makes room: at once for a request that has come whole, after 1 s
for another upload. Else eight stalled uploads would keep the breaker half-open for as long as they like, and of many
one would take each place that comes free. Its verdict still counts, if one comes. A firm probe that
has had no head for three times the p95 (at least 1 s) lets one more go beside it, five in all: one slow report
among the probes says nothing of the upstream. And each success that was slow lets one more of a kind go at
once: an upstream that is cold after its start needs calls to become warm, and one at a time it would get few.

Times are monotonic seconds; what is measured of a probe is the upstream's own time.
"""

from __future__ import annotations

from typing import Final, Protocol

from sidecar.core.snapshot import BreakerPolicy

AT_ONCE: Final = 8
"""Times `max_calls`: probes of one kind in flight, those whose client has its turn included."""
BESIDE: Final = 5
"""Firm probes at most that are held at once because the earlier ones do not answer."""


STALLED_SECONDS: Final = 1.0
"""In the client's turn: then it may make room for another one."""


class Probe(Protocol):
    """What is asked of a probe in flight: a `BreakerPermit`."""

    @property
    def is_firm(self) -> bool: ...
    @property
    def is_clients_turn(self) -> bool: ...
    @property
    def has_head(self) -> bool: ...
    def seconds(self, now: float) -> float:
        """Of the upstream's own time until `now`."""

    def client_seconds(self, now: float) -> float:
        """How long it has been the client's turn without a break; 0 in another's."""


class Probes:
    """Each probe in flight is held by identity, so a permit comes back once however often it is given back."""

    __slots__ = ("_heard", "_in_flight", "good", "slow")

    def __init__(self, now: float) -> None:
        self._in_flight: dict[Probe, float] = {}
        """With the seconds that it had had when a verdict was last heard."""
        self._heard = now
        self.good = 0
        """Verdicts for the upstream, in good time."""
        self.slow = 0
        """Successes that took `slow_call_duration` or longer."""

    def __len__(self) -> int:
        return len(self._in_flight)

    def has_permit(
        self,
        limit: int,
        now: float,
        yields_after: float,
        *,
        is_firm: bool,
        is_complete: bool = False,
    ) -> bool:
        """Whether one more probe of this kind may go: `take` is to follow, since a stalled one may have made room. At
        least one may: `limit` is above 0. `is_complete`: its client has nothing more to send, so it need not wait
        until another has stalled for long."""
        most = AT_ONCE * limit
        limit = min(limit + self.slow, most)
        if len(self._in_flight) < limit:
            return True
        held = yielding = at_all = 0
        for probe in self._in_flight:
            if probe.is_firm is not is_firm:
                continue
            at_all += 1
            if not probe.is_clients_turn:
                held += 1
                yielding += is_firm and not probe.has_head and probe.seconds(now) >= yields_after
        if held >= max(limit, min(limit + yielding, BESIDE)):
            return False
        stalled_seconds = 0.0 if is_complete else STALLED_SECONDS
        return at_all < most or self._makes_room(now, stalled_seconds, is_firm=is_firm)

    def _makes_room(self, now: float, stalled_seconds: float, *, is_firm: bool) -> bool:
        waiting = [probe for probe in self._in_flight if probe.is_firm is is_firm and probe.is_clients_turn]
        if not waiting:
            return False
        stalled = max(waiting, key=lambda probe: probe.client_seconds(now))
        if stalled.client_seconds(now) < stalled_seconds:
            return False
        self.give_back(stalled)
        return True

    def take(self, probe: Probe) -> None:
        self._in_flight[probe] = 0.0

    def give_back(self, probe: Probe) -> None:
        self._in_flight.pop(probe, None)

    def answered(self, *, is_slow: bool) -> None:
        """One has succeeded."""
        if is_slow:
            self.slow += 1
        else:
            self.good += 1

    def hear(self, now: float) -> None:
        """Some verdict came: the wait for the next one starts again."""
        self._heard = now
        for probe in self._in_flight:
            self._in_flight[probe] = probe.seconds(now)

    def is_overdue(self, policy: BreakerPolicy, patience: float, now: float) -> bool:
        """Whether a firm probe has had `patience` times `max_wait` of the upstream's time without any verdict.

        Without a firm probe in flight nothing is awaited: the next request is one.
        """
        return bool(self._in_flight) and self.seconds_left(policy, patience, now) <= 0.0

    def seconds_left(self, policy: BreakerPolicy, patience: float, now: float) -> float:
        """Until `is_overdue`, if it goes on being the upstream's turn; `max_wait` if nothing is awaited."""
        limit = patience * policy.half_open_max_wait_seconds
        return limit - max(
            (probe.seconds(now) - since for probe, since in self._in_flight.items() if probe.is_firm),
            default=0.0,
        )

    def shows_life_alone(self, policy: BreakerPolicy, now: float) -> bool:
        """A 4xx has come. Whether it closes the breaker: for `max_wait` nothing else has, and nothing is awaited.

        It proves that somebody is there, but a service whose database hangs answers 404 as well.
        """
        if now - self._heard < policy.half_open_max_wait_seconds:
            return False
        return not any(probe.is_firm and not probe.has_head for probe in self._in_flight)

    def has_recovered(self, policy: BreakerPolicy, elsewhere: int = 0) -> bool:
        """`elsewhere`: good probes of other processes."""
        return self.good + elsewhere >= policy.half_open_successes

    def is_too_slow(self, policy: BreakerPolicy) -> bool:
        """Whether so many probes were slow that a closed breaker would open.

        One slow probe of an upstream that has just started says no more than one slow call of many.
        """
        heard = self.good + self.slow
        return (
            self.slow > 0
            and heard >= max(1, policy.minimum_calls)
            and self.slow / heard >= policy.slow_call_rate_threshold
        )
