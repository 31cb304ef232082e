"""EndpointSlices → endpoints, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.snapshot import Endpoint, Source
from sidecar.kubernetes import slices
from sidecar.kubernetes.slices import Malformed, Service, SliceBook, read_slice
from tests.support.fake_kubernetes import endpoint, sliced

SERVICE = Service.of(Endpoint("payments.shop:http", 0, source=Source.KUBERNETES))


def book(*found: dict[str, Any], service: Service = SERVICE, family: int = 4) -> SliceBook:
    made = SliceBook(service, family)
    made.replace(map(read_slice, found))
    return made


def addresses(found: SliceBook) -> list[str]:
    return [str(one) for one in found.endpoints()]


def test_an_entry_names_service_namespace_and_port() -> None:
    assert (SERVICE.name, SERVICE.namespace, SERVICE.port) == ("payments", "shop", "http")
    assert SERVICE.domain == "payments.shop.svc"


def test_all_slices_are_joined_each_with_its_own_number_of_the_port() -> None:
    found = book(sliced("a", "10.0.0.2", "10.0.0.1"), sliced("b", "10.0.0.3", port=9090))
    assert addresses(found) == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:9090"]
    assert {one.name for one in found.endpoints()} == {"payments.shop.svc"}


def test_a_port_may_be_named_by_its_number() -> None:
    service = Service("payments", "shop", "9090")
    found = book(sliced("a", "10.0.0.1"), sliced("b", "10.0.0.2", port=9090), service=service)
    assert addresses(found) == ["10.0.0.2:9090"]


def test_a_port_that_no_slice_has_is_told_with_those_there_are() -> None:
    found = book(sliced("a", "10.0.0.1", port_name="web"), sliced("b", "10.0.0.1", port_name="admin"))
    assert found.endpoints() == ()
    assert found.missing_port() == "Service payments in shop has no port http: it has admin, web"
    assert book().missing_port() is None


def test_what_is_not_said_of_readiness_is_true() -> None:
    found = book(
        sliced(
            "a",
            endpoint("10.0.0.1"),
            endpoint("10.0.0.2", ready=None),
            endpoint("10.0.0.3", ready=False, serving=True, terminating=True),
            endpoint("10.0.0.4", ready=False),
            endpoint("10.0.0.5", ready=True, terminating=True),
        )
    )
    assert addresses(found) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_without_a_ready_one_those_that_end_and_still_serve_are_used() -> None:
    ending = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    gone = endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    started = endpoint("10.0.0.3", ready=False, serving=False)
    assert addresses(book(sliced("a", ending, gone, started))) == ["10.0.0.1:8080"]
    assert book(sliced("a", gone, started)).endpoints() == ()
    assert not book(sliced("a", gone, started)).has_usable()


def test_a_pod_that_moves_from_slice_to_slice_is_one_endpoint() -> None:
    found = book(sliced("a", endpoint("10.0.0.1", ready=False)), sliced("b", endpoint("10.0.0.1")))
    assert addresses(found) == ["10.0.0.1:8080"]


def test_another_pod_on_an_old_address_is_another_endpoint() -> None:
    (old,) = book(sliced("a", endpoint("10.0.0.1", uid="old"))).endpoints()
    (new,) = book(sliced("a", endpoint("10.0.0.1", uid="new"))).endpoints()
    assert (str(old), old == new) == (str(new), False)


def test_one_family_is_used_and_the_other_only_without_it() -> None:
    both = sliced("a", "10.0.0.1"), sliced("b", "fd00::1", family="IPv6")
    assert addresses(book(*both)) == ["10.0.0.1:8080"]
    assert addresses(book(*both, family=6)) == ["[fd00::1]:8080"]
    assert addresses(book(sliced("a"), both[1])) == ["[fd00::1]:8080"]


def test_zones_count_only_if_every_usable_endpoint_has_one() -> None:
    hinted, bare = endpoint("10.0.0.1", zones=["a", "b"]), endpoint("10.0.0.2")
    assert [one.zones for one in book(sliced("a", hinted)).endpoints()] == [("a", "b")]
    assert [one.zones for one in book(sliced("a", hinted, bare)).endpoints()] == [(), ()]
    not_ready = endpoint("10.0.0.3", ready=False)
    assert [one.zones for one in book(sliced("a", hinted, not_ready)).endpoints()] == [("a", "b")]


def test_names_are_no_endpoints() -> None:
    assert book(sliced("a", "host.example", family="FQDN")).endpoints() == ()


def test_more_slices_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_SLICES", 2)
    found = book(sliced("a", "10.0.0.1"), sliced("b", "10.0.0.2"))
    found.put(read_slice(sliced("b", "10.0.0.3")))
    with pytest.raises(Malformed, match="more than 2 slices"):
        found.put(read_slice(sliced("c", "10.0.0.4")))
    assert addresses(found) == ["10.0.0.1:8080", "10.0.0.3:8080"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PARTS = ["metadata", "addressType", "ports", "endpoints"]
OF_ENDPOINT = ["addresses", "conditions", "targetRef", "hints"]


@settings(deadline=None)
@given(JSON, st.sampled_from(PARTS + OF_ENDPOINT))
def test_whatever_stands_in_the_place_of_a_member_is_read_or_refused(value: Any, part: str) -> None:
    data = sliced("a", endpoint("10.0.0.1"))
    if part in PARTS:
        data[part] = value
    else:
        data["endpoints"][0][part] = value
    assert refused_or_sound(data)


@settings(deadline=None)
@given(JSON)
def test_no_json_at_all_breaks_the_reader(value: Any) -> None:
    assert refused_or_sound(value)


def refused_or_sound(data: Any) -> bool:
    try:
        found = SliceBook(SERVICE, 4)
        found.put(read_slice(data))
    except Malformed:
        return True
    return all(one.is_literal and 0 < one.port < 65536 for one in found.endpoints())


POD = st.builds(
    lambda number, ready, serving, terminating: endpoint(
        f"10.0.0.{number}", ready=ready, serving=serving, terminating=terminating
    ),
    st.integers(1, 9),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, True, False]),
)


@settings(deadline=None)
@given(st.lists(st.lists(POD, max_size=5), max_size=4))
def test_a_look_for_any_endpoint_agrees_with_the_list_of_them(pods: list[list[dict[str, Any]]]) -> None:
    found = book(*(sliced(f"s{number}", *one) for number, one in enumerate(pods)))
    assert found.has_usable() == bool(found.endpoints())


NAMES = st.sampled_from(["a", "b", "c", "d"])


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.none() | st.lists(POD, max_size=4)), max_size=20))
def test_changes_one_by_one_end_where_a_list_would(
    changes: list[tuple[str, list[dict[str, Any]] | None]],
) -> None:
    step_by_step, there = book(), {}
    for name, pods in changes:
        if pods is None:
            step_by_step.remove(name)
            there.pop(name, None)
        else:
            there[name] = sliced(name, *pods)
            step_by_step.put(read_slice(there[name]))
    # A pod that two slices show alike stands in any of them: which one makes no difference.
    assert step_by_step.endpoints() == book(*there.values()).endpoints()
