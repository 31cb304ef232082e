"""Microseconds for one choice of an endpoint, by policy and number: `python -m tests.bench.balance_cost`.

The best of several rounds, so that other work on the machine counts little. The last lines are what a ring takes to
make, in a thread, when endpoints come or go.
"""

from __future__ import annotations

import itertools
import time
import timeit

from sidecar.core.ejection.change import Health
from sidecar.core.ring import build, key_of
from sidecar.core.snapshot import Balancing, Endpoint
from tests.support.places import Choice

COUNTS = (10, 100, 1_000)
PICKS = 20_000
ROUNDS = 5


def endpoints(count: int, weights: tuple[int, ...]) -> list[Endpoint]:
    return [
        Endpoint(f"10.0.{n // 250}.{n % 250}", 80, weight=weights[n % len(weights)]) for n in range(count)
    ]


def microseconds(policy: Balancing, count: int, weights: tuple[int, ...], *, are_all_well: bool) -> float:
    choice = Choice(endpoints(count, weights), policy)
    if not are_all_well:
        choice.set_health(lambda one: Health.EJECTED if one.endpoint.host.endswith("3") else Health.USABLE)
    keys = itertools.cycle([key_of(b"%d" % n) for n in range(997)])
    pick = choice.balancer.pick

    def by_key() -> None:
        pick((), next(keys), 1)

    timer = timeit.Timer(by_key if policy is Balancing.RING_HASH else pick)
    return min(timer.repeat(ROUNDS, PICKS)) / PICKS * 1e6


def main() -> None:
    print(f"{'':44}" + "".join(f"{count:>9}" for count in COUNTS))
    for policy in Balancing:
        for weights, are_all_well in (((1,), True), ((1, 2, 3), True), ((1,), False)):
            what = "weighted" if len(weights) > 1 else "even" if are_all_well else "even, some out"
            costs = [microseconds(policy, count, weights, are_all_well=are_all_well) for count in COUNTS]
            print(f"{policy.value + ', ' + what:44}" + "".join(f"{cost:9.2f}" for cost in costs))
    for count in COUNTS:
        members = {str(one): one.weight for one in endpoints(count, (1,))}
        began = time.perf_counter()
        ring = build(members)
        print(
            f"a ring of {count} endpoints, {len(ring)} points: {(time.perf_counter() - began) * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main()
