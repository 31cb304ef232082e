"""What a breaker costs each request: nanoseconds for `admit` and the success together, best of several rounds.

Run: python -m tests.bench.breaker_cost
"""

from __future__ import annotations

import random
import time
import timeit

from sidecar.core.breaker import Breaker, Override
from sidecar.core.breaker.permit import BreakerRefusal
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, CandidatePolicy, WindowPolicy, WindowType

ROUNDS = 7
CALLS = 200_000
FAILED = Outcome(Kind.ANSWERED, 500)
WHOLE = """
for _ in range({calls}):
    now += 0.0001
    door = breaker.admit(now)
    door.head(now)
    door.succeed(0.01, now)
"""
LOOP = """
for _ in range({calls}):
    now += 0.0001
    permit = breaker.admit(now)
    if permit.is_admitted:
        permit.succeed(0.01, now)
"""
MOMENTS = """
for _ in range({calls}):
    now += 0.0001
    permit = breaker.admit(now).own()
    permit.sent(None, now)
    permit.head(200, now)
    permit.judge(ANSWERED, now)
    permit.close(now)
"""


def cost_ns(policy: BreakerPolicy, *, is_open: bool = False, failures: int = 0, loop: str = LOOP) -> float:
    """Nanoseconds for one request, less the cost of the loop itself."""
    breaker = Breaker("route", "upstream", policy, random.Random(1), 0.0)
    if is_open:
        breaker.override(Override.OPEN, 0.0)
    for _ in range(failures):
        permit = breaker.admit(0.0)
        assert not isinstance(permit, BreakerRefusal)
        permit.own().judge(FAILED, 0.0)
    names = {"breaker": breaker, "now": 0.0, "ANSWERED": Outcome(Kind.ANSWERED, 200)}
    full = min(
        timeit.repeat(
            loop.format(calls=CALLS),
            setup="now = 0.0",
            globals=names,
            number=1,
            repeat=ROUNDS,
            timer=time.process_time,
        )
    )
    empty = min(
        timeit.repeat(
            f"for _ in range({CALLS}): now += 0.0001",
            setup="now = 0.0",
            number=1,
            repeat=ROUNDS,
            timer=time.process_time,
        )
    )
    return (full - empty) / CALLS * 1e9


def main() -> None:
    count = WindowPolicy(WindowType.COUNT, 100)
    rows = {
        "disabled": cost_ns(BreakerPolicy(mode=BreakerMode.DISABLED)),
        "closed, time window": cost_ns(BreakerPolicy()),
        "closed, time window with failures": cost_ns(
            BreakerPolicy(window=WindowPolicy(size=1e6), failure_rate_threshold=0.9), failures=4
        ),
        "closed, count window": cost_ns(BreakerPolicy(window=count)),
        "closed with candidate": cost_ns(
            BreakerPolicy(candidate=CandidatePolicy(failure_rate_threshold=0.3))
        ),
        "closed, slow_call_duration": cost_ns(BreakerPolicy(slow_call_seconds=1.0)),
        "closed, head and end": cost_ns(BreakerPolicy(), loop=WHOLE),
        "closed, every moment of a stream": cost_ns(BreakerPolicy(), loop=MOMENTS),
        "forced open, refuses": cost_ns(BreakerPolicy(), is_open=True),
        "open, refuses": cost_ns(BreakerPolicy(open_seconds=1e9, max_open_seconds=1e9), failures=5),
    }
    for name, nanoseconds in rows.items():
        print(f"{name:36}{nanoseconds:7.0f} ns")


if __name__ == "__main__":
    main()
