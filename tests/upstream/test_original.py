"""An upstream whose endpoints are wherever its clients were going: each for itself, and not without end."""

from __future__ import annotations

import random
from dataclasses import replace

from sidecar.core.snapshot import ORIGINAL, Upstream
from sidecar.transport.turns import Turns
from sidecar.upstream.original import OriginalCluster
from tests.support.by_hand import HandLoop


def cluster(most: int) -> OriginalCluster:
    made = OriginalCluster(
        Upstream("wherever", (ORIGINAL,)), random.Random(0), lambda: 0.0, Turns(HandLoop())
    )  # type: ignore[arg-type]
    made.most = most
    return made


def test_an_endpoint_comes_when_somebody_is_on_the_way_to_it() -> None:
    made = cluster(10)
    assert (made.pick(), made.single, made.names()) == (None, None, [])
    one = made.meant("10.0.0.1", 80)
    assert one is not None
    assert str(one.endpoint) == "10.0.0.1:80"
    assert made.meant("10.0.0.1", 80) is one
    assert made.meant("10.0.0.1", 81) is not one
    assert made.meant("a.name", 80) is None
    assert (made.pick(), made.single) == (None, None), "nobody is sent to where he was not going"


def test_nobody_is_an_endpoint_but_who_was_asked_for() -> None:
    made = cluster(10)
    assert made.pools == []
    one = made.meant("10.0.0.1", 80)
    assert made.pools == [one]
    assert (made.peers.usable, made.peers.is_judging) == (1, False), "its failures are the upstream's"


def test_who_was_asked_longest_ago_leaves_for_the_next() -> None:
    made = cluster(3)
    for number in range(3):
        pool = made.meant(f"10.0.0.{number}", 80)
        assert pool is not None
        pool.begun_at = float(number)
    busy = made.meant("10.0.0.0", 80)
    assert busy is not None
    busy.in_flight = 1
    made.meant("10.0.0.9", 80)
    assert sorted(pool.endpoint.host for pool in made.pools) == ["10.0.0.0", "10.0.0.2", "10.0.0.9"]


def test_a_reload_keeps_the_endpoints_that_came() -> None:
    made = cluster(10)
    one = made.meant("10.0.0.1", 80)
    made.adopt(replace(made.policy, connect_seconds=0.5))
    assert made.meant("10.0.0.1", 80) is one
    assert one is not None
    assert not one.is_retired
