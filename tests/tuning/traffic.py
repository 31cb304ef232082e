"""Calls as a sidecar would have seen them: a breaker on virtual time, before an upstream that is ill now and then."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.permit import BreakerRefusal
from sidecar.core.outcome import Kind, Outcome, Verdict
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import State
from sidecar.tuning.replay import SEED
from sidecar.tuning.seen import Call, numbered

Fails = Callable[[random.Random], bool]


def third(rng: random.Random) -> bool:
    """Of an upstream of which 30 % fail."""
    return rng.random() < 0.3


def quarter(rng: random.Random) -> bool:
    """Of an upstream of which 25 % fail: of 64 calls one begins a row of three, and the rate is far from 50 %."""
    return rng.random() < 0.25


def down(rng: random.Random) -> bool:
    return True


def seen(
    fails: Fails,
    *,
    outages: int,
    policy: BreakerPolicy | None = None,
    seed: int = 1,
    rate: float = 10.0,
    ill: float = 25.0,
    well: float = 70.0,
) -> list[Call]:
    """`policy`: of the breaker that decides; None: nothing was refused. The length of each outage differs."""
    rng, at, calls = random.Random(seed), 0.0, []
    spans = []
    for number in range(outages):
        began = 40.0 + number * (ill + well)
        spans.append((began, began + rng.uniform(0.6, 1.0) * ill))
    end = 40.0 + outages * (ill + well)
    breaker: Breaker | None = None
    due: list[tuple[float, int, Callable[[float], object]]] = []
    while (at := at + rng.expovariate(rate)) < end:
        while due and due[0][0] <= at:
            now, _, act = heappop(due)
            act(now)
        is_failure = any(began <= at < over for began, over in spans) and fails(rng)
        seconds = rng.uniform(0.01, 0.03)
        call = Call(at, "up", "10.0.0.7:80", 0, seconds, seconds, 500 if is_failure else 200)
        call = _judged(call, is_failure)
        if policy is not None:
            breaker = breaker or Breaker("r", "up", policy, random.Random(SEED), at)
            answer = breaker.admit(at)
            if isinstance(answer, BreakerRefusal):
                calls.append(Call(at, "up", state=State.OPEN))
                continue
            permit = answer.own()
            permit.sent(call.endpoint, at)
            outcome = Outcome(Kind.ANSWERED, call.status)
            heappush(
                due, (at + seconds, len(calls), lambda now, one=permit, how=outcome: one.judge(how, now))
            )
        calls.append(call)
    return numbered(calls)


def _judged(call: Call, is_failure: bool) -> Call:
    verdict = Verdict.FAILURE if is_failure else Verdict.SUCCESS
    return Call(
        call.at, call.upstream, call.endpoint, 0, call.head_seconds, call.whole_seconds, call.status, verdict
    )
