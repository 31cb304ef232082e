"""What a second try beside a slow one does to the slowest answers, and to the load.

    python -m tests.bench.hedging [--rate 200] [--seconds 60]

Ten endpoints, each of whose answers takes around 10 ms, and one of twenty ten times as long, by chance. The clock is
virtual and chance is seeded (`virtual_load.py`).
"""

from __future__ import annotations

import argparse
import random

from tests.bench.virtual_load import run, table

ENDPOINTS = 10
SLOW_SHARE = 0.05
CASES = {
    "none": "",
    "`after: p95`": "hedge: {after: p95}",
    "`after: 20ms`": "hedge: {after: 20ms}",
}


def service(rng: random.Random) -> float:
    """Seconds for one answer."""
    usual = rng.uniform(0.008, 0.012)
    return usual * 10.0 if rng.random() < SLOW_SHARE else usual


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hedging", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    rows = [("hedge", "p50", "p95", "p99", "p99.9", "more load", "failed")]
    for name, route in CASES.items():
        found = run([service] * ENDPOINTS, options.rate, options.seconds, route=route)
        times = [f"{found.quantile(share) * 1000:.1f} ms" for share in (0.5, 0.95, 0.99, 0.999)]
        rows.append((name, *times, f"{found.more:.1%}", str(found.failed)))
    print(table(rows))


if __name__ == "__main__":
    main()
