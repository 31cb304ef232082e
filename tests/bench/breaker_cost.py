"""What a breaker costs each request: nanoseconds for `admit` and `settle` together, best of several rounds.

Run: python tests/bench/breaker_cost.py
"""

from __future__ import annotations

import random
import timeit

from sidecar.core.breaker import Breaker, Override
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import BreakerMode, BreakerPolicy, CandidatePolicy, WindowPolicy, WindowType

ROUNDS = 7
CALLS = 200_000
LOOP = """
for _ in range({calls}):
    now += 0.0001
    admission = breaker.admit(now)
    if admission.is_admitted:
        breaker.settle(admission, SUCCESS, 0.01, now)
"""


def cost_ns(policy: BreakerPolicy, *, is_open: bool = False, failures: int = 0) -> float:
    """Nanoseconds for one request, less the cost of the loop itself."""
    breaker = Breaker("route", "upstream", policy, random.Random(1), 0.0)
    if is_open:
        breaker.override(Override.OPEN, 0.0)
    for _ in range(failures):
        breaker.settle(breaker.admit(0.0), Verdict.FAILURE, 0.01, 0.0)
    names = {"breaker": breaker, "now": 0.0, "SUCCESS": Verdict.SUCCESS}
    full = min(
        timeit.repeat(LOOP.format(calls=CALLS), setup="now = 0.0", globals=names, number=1, repeat=ROUNDS)
    )
    empty = min(
        timeit.repeat(f"for _ in range({CALLS}): now += 0.0001", setup="now = 0.0", number=1, repeat=ROUNDS)
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
        "forced open, refuses": cost_ns(BreakerPolicy(), is_open=True),
        "open, refuses": cost_ns(BreakerPolicy(open_seconds=1e9, max_open_seconds=1e9), failures=5),
    }
    for name, nanoseconds in rows.items():
        print(f"{name:36}{nanoseconds:7.0f} ns")


if __name__ == "__main__":
    main()
