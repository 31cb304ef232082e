"""Our breaker under test, told what the data path tells it."""

from __future__ import annotations

import random
from math import inf
from typing import Any

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal, Turn
from sidecar.core.breaker.warmup import WarmUp
from sidecar.core.outcome import Kind, Limit, Outcome, could_count
from sidecar.core.snapshot import BreakerPolicy
from tests.bench.hard_cases.upstreams import OFFSET
from tests.bench.hard_cases.world import LATER, Attempt, Ended, Subject

KINDS = {
    Ended.ANSWERED: Kind.ANSWERED,
    Ended.REFUSED: Kind.CONNECT_REFUSED,
    Ended.RESET: Kind.RESET,
    Ended.TIMED_OUT: Kind.TIMED_OUT,
    Ended.QUEUED: Kind.ABANDONED,
    Ended.LEFT: Kind.LEFT,
    Ended.NEIGHBOUR: Kind.REFUSED_BELOW,
}
STALLED_SECONDS = 1.0


class Ours(Subject):
    name = "sidecar"

    def __init__(self, policy: dict[str, Any], seed: int) -> None:
        warm = WarmUp(0.0) if "warm_up_seconds" in policy else None
        self.breaker = Breaker(
            "route", "upstream", BreakerPolicy(**policy), random.Random(seed), 0.0, warm=warm
        )

    def admit(self, attempt: Attempt, now: float) -> object | None:
        is_firm = could_count(min(attempt.call.budget, attempt.proxy.timeout), Limit(attempt.limit.value))
        answer = self.breaker.admit(now, is_firm=is_firm, is_whole=attempt.is_whole)
        if isinstance(answer, BreakerRefusal):
            return LATER if answer.is_postponed else None
        return answer.own()

    def sent(self, token: BreakerPermit, attempt: Attempt, now: float) -> None:
        token.sent(attempt.endpoint, now)

    def turn(self, token: BreakerPermit, is_clients: bool, now: float) -> None:
        token.turn(Turn.CLIENT if is_clients else Turn.UPSTREAM, now)

    def head(self, token: BreakerPermit, attempt: Attempt, now: float) -> None:
        token.head(attempt.status, now, retry_after_seconds=attempt.retry_after)

    def next_look(self, token: BreakerPermit) -> float:
        return token.next_look

    def look(self, token: BreakerPermit, now: float) -> None:
        token.look(now)

    def ended(self, token: BreakerPermit, attempt: Attempt, how: Ended, now: float) -> None:
        kind = KINDS[how]
        if kind is Kind.TIMED_OUT and token.is_clients_turn:
            kind = Kind.ABANDONED
        limit = Limit(attempt.limit.value)
        is_ours = kind is Kind.TIMED_OUT or kind is Kind.LEFT
        outcome = Outcome(
            kind,
            attempt.status,
            0.0 if attempt.allowed == inf else attempt.allowed,
            limit=limit,
            own_seconds=attempt.proxy.timeout - OFFSET if limit is Limit.ROUTE else 0.0,
            is_after_head=is_ours and attempt.head_at < inf,
            is_stalled=attempt.has_length and now - attempt.moved_at >= STALLED_SECONDS,
            retry_after_seconds=attempt.retry_after,
        )
        token.judge(outcome, now)
        token.close(now)

    def tick(self, now: float) -> None:
        self.breaker.tick(now)

    def check(self, now: float) -> object | None:
        if self.breaker.next_check(now) > now:
            return None
        answer = self.breaker.admit_check(now)
        return None if isinstance(answer, BreakerRefusal) else answer

    def state(self) -> str:
        return self.breaker.state.value

    def retry_after(self, now: float) -> float:
        due = self.breaker.numbers(now).next_probe_at
        return 1.0 if due is None else max(0.0, due - now)
