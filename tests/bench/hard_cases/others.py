"""Three other breakers as small models, written from their documentation, with their defaults.

Of each model only the wait while open is set to the situation's `open_for`, since that is a setting and no rule.

* resilience4j 2 `CircuitBreaker`: a window of the last 100 calls, 50 % of at least 100, judged at a call's end; ten
  calls in HALF_OPEN, then their rate decides; no limit to HALF_OPEN (`maxWaitDurationInHalfOpenState: 0`). A call
  that its caller cancels gives its permission back.
* gobreaker: more than five failures in a row; one call in HALF_OPEN, its success closes, its failure opens. A call
  whose context its caller cancelled returns an error, which is a failure by default.
* Envoy outlier detection: five 5xx in a row of a host, judged at the head; a time-out, a reset and a refused
  connection are as a 5xx. The host is ejected for `base_ejection_time` times the ejections so far (at most 300 s),
  looked at each 10 s, and one that is back has all traffic at once. `healthy_panic_threshold: 0`, or an ejected
  single host would go on being used; `max_ejection_percent: 100`, or of two hosts just one could go. Ejected hosts
  are skipped; a request is refused when all are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from math import inf

from tests.bench.hard_cases.world import Attempt, Ended, Subject


def has_failed(attempt: Attempt, how: Ended) -> bool:
    return how is not Ended.ANSWERED or attempt.status >= 500


class ThreeStates(Subject):
    """What resilience4j and gobreaker have in common."""

    def __init__(self, open_seconds: float) -> None:
        self.open_seconds = open_seconds
        self.is_open = self.is_half_open = False
        self.until = 0.0
        self.generation = 0
        self.probes = 0

    @property
    @abstractmethod
    def permitted(self) -> int:
        """Calls in HALF_OPEN."""

    def admit(self, attempt: Attempt, now: float) -> object | None:
        if self.is_open:
            if now < self.until:
                return None
            self.is_open, self.is_half_open = False, True
            self.begin()
        if self.is_half_open:
            if self.probes >= self.permitted:
                return None
            self.probes += 1
        return self.generation + 1

    def begin(self) -> None:
        """A new period."""
        self.generation += 1
        self.probes = 0

    def open(self, now: float) -> None:
        self.is_open, self.is_half_open, self.until = True, False, now + self.open_seconds
        self.begin()

    def close(self) -> None:
        self.is_half_open = False
        self.begin()

    def state(self) -> str:
        return "open" if self.is_open else "half_open" if self.is_half_open else "closed"

    def retry_after(self, now: float) -> float:
        return max(0.0, self.until - now) if self.is_open else 1.0


class Resilience4j(ThreeStates):
    name = "resilience4j"
    permitted = 10

    def __init__(self, open_seconds: float) -> None:
        super().__init__(open_seconds)
        self.calls: deque[bool] = deque(maxlen=100)

    def begin(self) -> None:
        super().begin()
        self.calls = deque(maxlen=self.permitted if self.is_half_open else 100)

    def ended(self, token: int, attempt: Attempt, how: Ended, now: float) -> None:
        if token != self.generation + 1:
            return
        if how is Ended.LEFT:
            self.probes -= self.is_half_open
            return
        calls = self.calls
        calls.append(has_failed(attempt, how))
        if len(calls) < (calls.maxlen or 0) or self.is_open:
            return
        if sum(calls) / len(calls) >= 0.5:
            self.open(now)
        elif self.is_half_open:
            self.close()


class Gobreaker(ThreeStates):
    name = "gobreaker"
    permitted = 1

    def __init__(self, open_seconds: float) -> None:
        super().__init__(open_seconds)
        self.row = 0

    def begin(self) -> None:
        super().begin()
        self.row = 0

    def ended(self, token: int, attempt: Attempt, how: Ended, now: float) -> None:
        if token != self.generation + 1:
            return
        if not has_failed(attempt, how):
            self.row = 0
            if self.is_half_open:
                self.close()
            return
        self.row += 1
        if self.is_half_open or (not self.is_open and self.row > 5):
            self.open(now)


@dataclass
class Host:
    row: int = 0
    ejected_until: float = -inf
    ejections: int = 0


class Envoy(Subject):
    name = "Envoy outlier detection"

    def __init__(self, open_seconds: float) -> None:
        self.base = open_seconds
        self.hosts: dict[str, Host] = {}
        self.now = 0.0
        self.looked = 0.0

    def admit(self, attempt: Attempt, now: float) -> object | None:
        self.now = now
        endpoints = attempt.proxy.upstream.endpoints
        for endpoint in endpoints:
            self.hosts.setdefault(endpoint, Host())
        usable = [one for one in endpoints if self.hosts[one].ejected_until == -inf]
        if not usable:
            return None
        attempt.endpoint = usable[attempt.proxy.next_turn() % len(usable)]
        return attempt

    def head(self, token: Attempt, attempt: Attempt, now: float) -> None:
        self._judge(attempt.endpoint, attempt.status >= 500, now)

    def ended(self, token: Attempt, attempt: Attempt, how: Ended, now: float) -> None:
        if how in (Ended.TIMED_OUT, Ended.RESET, Ended.REFUSED):
            self._judge(attempt.endpoint, True, now)

    def _judge(self, endpoint: str, is_bad: bool, now: float) -> None:
        host = self.hosts[endpoint]
        host.row = host.row + 1 if is_bad else 0
        if host.row >= 5 and host.ejected_until == -inf:
            host.ejections += 1
            host.ejected_until = now + min(self.base * host.ejections, max(300.0, self.base))
            host.row = 0

    def tick(self, now: float) -> None:
        self.now = now
        if now - self.looked < 10.0:
            return
        self.looked = now
        for host in self.hosts.values():
            if now >= host.ejected_until > -inf:
                host.ejected_until = -inf
            elif host.ejected_until == -inf and host.ejections and not host.row:
                host.ejections -= 1

    def state(self) -> str:
        return "open" if self.hosts and all(h.ejected_until > -inf for h in self.hosts.values()) else "closed"
