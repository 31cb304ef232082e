"""Nanoseconds for one route look-up, by table size and kind of route: `python tests/bench/routing_cost.py`.

The best of several rounds, so that other work on the machine counts little.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from sidecar.core.routing import RoutingTable
from sidecar.core.snapshot import Match, PathKind, PathMatch, Route, ValueMatch

SIZES = (1, 10, 1_000, 10_000)
LOOKUPS = 100_000
ROUNDS = 7
FIELDS = {b"host": b"svc-0", b"x-tenant": b"gold"}


def prefix(value: str) -> PathMatch:
    return PathMatch(PathKind.PREFIX, value)


MATCHES: dict[str, Callable[[int], Match]] = {
    "catch-all, last of many hosts": lambda i: Match() if i == 0 else Match(hosts=(f"other-{i}",)),
    "by host": lambda i: Match(hosts=(f"svc-{i}",)),
    "by host with a port": lambda i: Match(hosts=(f"svc-{i}",)),
    "by wildcard": lambda i: Match(hosts=(f"*.ns-{i}.svc",)),
    "by prefix, one segment": lambda i: Match(path=prefix(f"/v{i}")),
    "by prefix, up to three": lambda i: Match(path=prefix(f"/v{i}" + "/orders" * (i % 3))),
    "by exact path": lambda i: Match(path=PathMatch(PathKind.EXACT, f"/v{i}/orders/12345")),
    "by host, prefix, method, header": lambda i: Match(
        hosts=(f"svc-{i}",),
        path=prefix("/v0"),
        methods=frozenset({"GET"}),
        headers=(ValueMatch("x-tenant", exact="gold"),),
    ),
    "by prefix and query": lambda i: Match(path=prefix(f"/v{i}"), query=(ValueMatch("beta", exact="1"),)),
    "by prefix, an escape in the path": lambda i: Match(path=prefix(f"/v{i}")),
    "no route": lambda i: Match(hosts=(f"other-{i}",)),
}
HOSTS = {"by host with a port": b"svc-0:8080", "by wildcard": b"pay.ns-0.svc"}
PATHS = {"by prefix, an escape in the path": b"/v0/orders/a%20b"}


def nanoseconds(kind: str, size: int) -> float:
    make = MATCHES[kind]
    table = RoutingTable([(Route(f"r{i}", "outbound", (make(i),), (("up", 1),)), i) for i in range(size)])
    find, host, path = table.find_entry, HOSTS.get(kind, b"svc-0"), PATHS.get(kind, b"/v0/orders/12345")
    found = find(host, path, b"GET", FIELDS, b"beta=1")
    if (found is None) is not (kind == "no route") or (found is not None and found.order != 0):
        raise AssertionError(f"{kind}, {size} routes: wrong route")
    rounds = timeit.repeat(lambda: find(host, path, b"GET", FIELDS, b"beta=1"), number=LOOKUPS, repeat=ROUNDS)
    empty = timeit.repeat(lambda: None, number=LOOKUPS, repeat=ROUNDS)
    return (min(rounds) - min(empty)) / LOOKUPS * 1e9


def main() -> None:
    print(f"{'ns for one look-up':34}" + "".join(f"{size:>10,}" for size in SIZES) + "  routes")
    for kind in MATCHES:
        print(f"{kind:34}" + "".join(f"{nanoseconds(kind, size):>10.0f}" for size in SIZES))


if __name__ == "__main__":
    main()
