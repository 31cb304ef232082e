"""One place to watch any entry; who is told of what."""

from __future__ import annotations

from typing import Any

from sidecar.core.listing import EndpointsChange, Listing
from sidecar.core.snapshot import Endpoint, Source
from sidecar.runtime.endpoint_sources import EndpointSources, endpoint_sources

NAME = Endpoint("payments", 80)
FILE = Endpoint("/etc/a.yaml", 0, source=Source.FILE)
ONE, TWO = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)


class Lists:
    def __init__(self) -> None:
        self.watched: list[Endpoint] = []

    def watch(self, entry: Endpoint) -> tuple[Endpoint, ...]:
        self.watched.append(entry)
        return (ONE,)

    def unwatch(self, entry: Endpoint) -> None:
        self.watched.remove(entry)

    def listing(self, entry: Endpoint) -> Listing | None:
        return Listing(entry, "dns", 1, None, 0, None) if entry in self.watched else None

    async def run(self) -> None: ...


def made() -> tuple[EndpointSources, Lists, list[Any], list[EndpointsChange]]:
    changes: list[Any] = []
    told: list[EndpointsChange] = []
    sources = EndpointSources(lambda entry, found: changes.append((entry, found)))
    sources.tell = told.append
    lists = Lists()
    sources.use("lists", lists, Source.ADDRESS, Source.FILE)
    return sources, lists, changes, told


def test_each_kind_is_asked_where_it_belongs_and_literals_have_no_listing() -> None:
    sources, lists, _, _ = made()
    assert sources.watch(NAME) == sources.watch(FILE) == (ONE,)
    assert lists.watched == [NAME, FILE]
    assert sources.listing(NAME) is not None
    assert sources.listing(ONE) is None
    sources.unwatch(NAME)
    assert (lists.watched, sources.listing(NAME)) == ([FILE], None)


def test_what_came_and_went_is_told_and_a_changed_weight_is_not() -> None:
    sources, _, changes, told = made()
    sources.watch(NAME)
    sources.resolved(NAME, (ONE,))
    sources.resolved(NAME, (TWO,))
    heavier = (Endpoint("10.0.0.2", 80, weight=5),)
    sources.resolved(NAME, heavier)
    assert changes == [(NAME, (ONE,)), (NAME, (TWO,)), (NAME, heavier)]
    assert told == [
        EndpointsChange("payments:80", ("10.0.0.1:80",), (), 1),
        EndpointsChange("payments:80", ("10.0.0.2:80",), ("10.0.0.1:80",), 1),
    ]
    assert told[1].told == "payments:80: 1 endpoints came, 1 went, 1 are there"


def test_what_dns_is_asked_for_kubernetes_is_told_to_it_alone() -> None:
    sources, _, changes, told = made()
    others: list[Any] = []
    sources.also_resolved = lambda entry, found: others.append((entry, found))
    sources.resolved(NAME, (ONE,))
    assert (others, changes, told) == ([(NAME, (ONE,))], [], [])
    sources.watch(NAME)
    sources.watch(NAME)
    sources.unwatch(NAME)
    sources.resolved(NAME, (TWO,))
    assert (len(others), changes) == (2, [(NAME, (TWO,))])


def test_a_process_has_all_kinds_as_parts() -> None:
    sources = endpoint_sources({}, lambda _, __: None)
    assert list(sources.parts) == ["resolver", "endpoint_files", "endpoint_slices"]
