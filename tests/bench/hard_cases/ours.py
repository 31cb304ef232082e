"""Our breaker under test, told what the data path tells it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from sidecar.core.breaker import Breaker
from sidecar.core.breaker_admission import Admission
from sidecar.core.outcome import Kind, Outcome, judge
from sidecar.core.snapshot import BreakerPolicy
from tests.bench.hard_cases.world import Attempt, Ended, Subject

KINDS = {
    Ended.ANSWERED: Kind.ANSWERED,
    Ended.REFUSED: Kind.CONNECT_FAILED,
    Ended.RESET: Kind.RESET,
    Ended.TIMED_OUT: Kind.TIMED_OUT,
    Ended.QUEUED: Kind.TIMED_OUT,
    Ended.LEFT: Kind.ABANDONED,
    Ended.NEIGHBOUR: Kind.ANSWERED,
}


@dataclass
class Pass:
    admission: Admission
    began: float
    paused_at: float | None = None
    paused: float = 0.0


class Ours(Subject):
    name = "sidecar"

    def __init__(self, policy: dict[str, Any], seed: int) -> None:
        known = {key: value for key, value in policy.items() if key in BreakerPolicy.__dataclass_fields__}
        self.breaker = Breaker("route", "upstream", BreakerPolicy(**known), random.Random(seed), 0.0)

    def admit(self, attempt: Attempt, now: float) -> object | None:
        admission = self.breaker.admit(now)
        return Pass(admission, now) if admission.is_admitted else None

    def turn(self, token: Pass, is_clients: bool, now: float) -> None:
        if is_clients:
            token.paused_at = now
        elif token.paused_at is not None:
            token.paused += now - token.paused_at
            token.paused_at = None

    def ended(self, token: Pass, attempt: Attempt, how: Ended, now: float) -> None:
        kind = KINDS[how]
        if token.paused_at is not None:
            self.turn(token, False, now)
            if kind is Kind.TIMED_OUT:
                kind = Kind.ABANDONED
        allowed = min(attempt.call.budget, attempt.proxy.timeout)
        policy = self.breaker.policy
        verdict = judge(Outcome(kind, attempt.status, allowed), policy)
        self.breaker.settle(token.admission, verdict, now - token.began - token.paused, now)

    def tick(self, now: float) -> None:
        self.breaker.tick(now)

    def state(self) -> str:
        return self.breaker.state.value

    def retry_after(self, now: float) -> float:
        due = self.breaker.numbers(now).next_probe_at
        return 1.0 if due is None else max(0.0, due - now)
