"""What one slow endpoint costs by each way to balance.

    python -m tests.bench.policies [--rate 200] [--seconds 60]

Ten endpoints that answer within about 10 ms, of which one takes ten times as long, and never fails. The clock is
virtual and chance is seeded (`virtual_load.py`). With `ejection.slower_than_peers` it would be left out; that is off
here.
"""

from __future__ import annotations

import argparse
import random

from tests.bench.virtual_load import run, table

ENDPOINTS = 10
POLICIES = ("round_robin", "least_request", "peak_ewma")


def usual(rng: random.Random) -> float:
    """Seconds for one answer."""
    return rng.uniform(0.008, 0.012)


def slow(rng: random.Random) -> float:
    return usual(rng) * 10.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policies", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    rows = [("policy", "p50", "p95", "p99", "failed")]
    for policy in POLICIES:
        services = [slow, *[usual] * (ENDPOINTS - 1)]
        upstream = f"load_balancing: {{policy: {policy}}}"
        found = run(services, options.rate, options.seconds, upstream=upstream)
        times = [f"{found.quantile(share) * 1000:.1f} ms" for share in (0.5, 0.95, 0.99)]
        rows.append((f"`{policy}`", *times, str(found.failed)))
    print(table(rows))


if __name__ == "__main__":
    main()
