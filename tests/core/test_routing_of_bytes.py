"""Which route takes what is no request: one that asks for nothing but host and port."""

from __future__ import annotations

import pytest

from sidecar.core.routing import RoutingTable
from sidecar.core.snapshot import Match, PathKind, PathMatch, Route, ValueMatch


def table(**matches: Match) -> RoutingTable[str]:
    routes = [Route(name, "outbound", (match,), (("app", 1),)) for name, match in matches.items()]
    return RoutingTable([(route, route.name) for route in routes])


@pytest.mark.parametrize(
    "match",
    [
        Match(("db",), path=PathMatch(PathKind.PREFIX, "/v1")),
        Match(("db",), methods=frozenset({"GET"})),
        Match(("db",), headers=(ValueMatch("x-a", exact="b"),)),
        Match(("db",), query=(ValueMatch("a", exact="b"),)),
        Match(("db",), clients=("somebody",)),
        Match(("db",), port=5433),
    ],
)
def test_a_route_that_asks_for_more_takes_no_bytes(match: Match) -> None:
    routes = table(more=match)
    assert routes.find_bytes(b"db", 5432) is None
    assert table(more=match, all=Match()).find_bytes(b"db", 5432) == "all"


@pytest.mark.parametrize("host", [b"db", b"DB", b"db.", b"db:5432"])
def test_a_route_for_the_host_takes_all_that_goes_there(host: bytes) -> None:
    assert table(all=Match(), db=Match(("db",))).find_bytes(host, 5432) == "db"
    assert table(db=Match(("*.db",))).find_bytes(host, 5432) is None


def test_a_route_for_the_port_comes_first() -> None:
    routes = table(db=Match(("db",)), other=Match(("db",), port=5433))
    assert routes.find_bytes(b"db", 5433) == "other"
    assert routes.find_bytes(b"db", 5432) == "db"


def test_a_connect_is_taken_where_any_route_may_take_a_request() -> None:
    routes = table(v1=Match(("api",), path=PathMatch(PathKind.PREFIX, "/v1")), only=Match(("db",), port=5433))
    assert routes.takes_host(b"api:80", 80)
    assert routes.takes_host(b"db:5433", 5433)
    assert not routes.takes_host(b"db:5432", 5432)
    assert not routes.takes_host(b"elsewhere:80", 80)
    assert table(regex=Match(path=PathMatch(PathKind.EXACT, "/a"))).takes_host(b"any:1", 1)
