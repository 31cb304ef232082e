"""Priorities and zones take over from one another by degrees."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.snapshot import Endpoint
from sidecar.core.tiers import divide
from tests.support.places import Place, endpoints


def places(*groups: list[Endpoint]) -> list[Place]:
    return [Place(endpoint) for group in groups for endpoint in group]


def shares(found: list[tuple[list[Place], float]]) -> list[tuple[int, float]]:
    return [(len(group), round(share, 3)) for group, share in found]


def test_all_goes_to_the_first_priority_while_enough_of_it_is_usable() -> None:
    every = places(endpoints(10), endpoints(10, priority=1))
    assert shares(divide(every, every, None)) == [(10, 1.0), (10, 0.0)]
    assert shares(divide(every, every[2:], None)) == [(8, 1.0), (10, 0.0)]


def test_what_the_first_cannot_take_goes_to_the_next() -> None:
    every = places(endpoints(10), endpoints(10, priority=1), endpoints(10, priority=7))
    assert shares(divide(every, every[5:], None)) == [(5, 0.7), (10, 0.3), (10, 0.0)]
    assert shares(divide(every, every[10:], None)) == [(10, 1.0), (10, 0.0)]
    assert shares(divide(every, every[8:10] + every[29:], None)) == [(2, 0.667), (1, 0.333)]


def test_a_weight_of_0_is_used_where_its_priority_has_nobody_else() -> None:
    every = places(endpoints(2), endpoints(1, weight=0), endpoints(2, priority=1))
    assert shares(divide(every, every, None)) == [(2, 1.0), (2, 0.0)]
    assert shares(divide(every, every[1:], None)) == [(1, 0.7), (2, 0.3)]
    assert shares(divide(every, every[2:], None)) == [(1, 0.467), (2, 0.533)], "one of three is left"
    assert shares(divide(every, every[2:3], None)) == [(1, 1.0)]
    reserve = places(endpoints(2, weight=0), endpoints(2, priority=1))
    assert shares(divide(reserve, reserve, None)) == [(2, 1.0), (2, 0.0)]


def test_our_own_zone_goes_first_where_all_zones_are_known() -> None:
    every = places(endpoints(2, zones=("a",)), endpoints(4, zones=("b",)), endpoints(1, zones=("a", "b")))
    assert shares(divide(every, every, "a")) == [(3, 1.0), (4, 0.0)]
    assert shares(divide(every, every, "b")) == [(5, 1.0), (2, 0.0)]
    assert shares(divide(every, every, "c")) == [(7, 1.0)]
    assert shares(divide(every, every, None)) == [(7, 1.0)]
    assert shares(divide(every, [one for one in every if one is not every[0]], "a"))[0] == (2, 0.933)


def test_one_endpoint_without_a_zone_makes_all_alike() -> None:
    every = places(endpoints(2, zones=("a",)), endpoints(1))
    assert shares(divide(every, every, "a")) == [(3, 1.0)]
    assert shares(divide(every, every[:2], "a")) == [(2, 1.0)]


ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        st.integers(1, 250).map(lambda n: f"10.0.0.{n}"),
        st.just(80),
        weight=st.integers(0, 3),
        priority=st.integers(0, 2),
        zones=st.sampled_from([(), ("a",), ("b",), ("a", "b")]),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(ENDPOINTS, st.sampled_from([None, "a", "b"]), st.data())
def test_shares_add_up_and_only_usable_endpoints_get_one(
    found: list[Endpoint], zone: str | None, data: st.DataObject
) -> None:
    every = [Place(endpoint) for endpoint in found]
    usable = [one for one in every if data.draw(st.booleans())]
    groups = divide(every, usable, zone)
    chosen = [one for group, _ in groups for one in group]
    assert len(chosen) == len(set(chosen))
    assert set(chosen) <= set(usable)
    assert all(share >= 0.0 for _, share in groups)
    if usable:
        assert sum(share for _, share in groups) == pytest.approx(1.0)
        least = min(one.endpoint.priority for one in usable)
        assert groups[0][1] > 0.0
        assert groups[0][0][0].endpoint.priority == least
    else:
        assert groups == []
