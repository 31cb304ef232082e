"""Who waits for the addresses of names hears of them at once, and does not wait for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import cast

from sidecar.config.load import load_text
from sidecar.core.numbers import Numbers
from sidecar.core.observe import Observe
from sidecar.core.snapshot import Endpoint
from sidecar.runtime.datapath import RESOLUTION_SECONDS, DataPath
from tests.support.proxy import HEADER

NONE = "upstreams: {}\nroutes: []\n"
NAMED = """\
upstreams:
  a: {endpoints: ["a.test:80"]}
  b: {endpoints: ["b.test:80"]}
routes: [{name: a, upstream: a}, {name: b, match: {path: {prefix: /b}}, upstream: b}]
"""
A, B = Endpoint("a.test", 80), Endpoint("b.test", 80)


class Names:
    """Knows nothing until it is told."""

    def __init__(self) -> None:
        self.watched: list[Endpoint] = []

    def watch(self, endpoint: Endpoint) -> tuple[Endpoint, ...]:
        self.watched.append(endpoint)
        return ()

    def unwatch(self, endpoint: Endpoint) -> None:
        self.watched.remove(endpoint)


def datapath_of(names: Names) -> DataPath:
    """A data path alone: nobody controls it, and nobody is told anything."""
    return DataPath(
        clock=asyncio.get_running_loop().time,
        rng=random.Random(0),
        names=names,
        numbers=Numbers(),
        observe=cast(Observe, None),
        decide=lambda _flag, _trace_id: False,
        live=set(),
        max_open_connections=100,
    )


def learns(datapath: DataPath, name: Endpoint, host: str) -> Callable[[], None]:
    return lambda: datapath.assembly.addresses_changed(name, (Endpoint(host, 80),))


async def test_the_start_goes_on_as_soon_as_the_last_name_is_known() -> None:
    loop, names = asyncio.get_running_loop(), Names()
    datapath = datapath_of(names)
    datapath.apply(load_text(HEADER + NAMED).snapshot)
    assert names.watched == [A, B]
    began = loop.time()
    loop.call_later(0.3, learns(datapath, A, "127.0.0.1"))
    loop.call_later(0.7, learns(datapath, B, "127.0.0.2"))
    await datapath.first_addresses()
    assert round(loop.time() - began, 3) == 0.7
    datapath.retire()


async def test_a_name_that_is_never_known_holds_the_start_up_for_two_seconds() -> None:
    loop = asyncio.get_running_loop()
    datapath = datapath_of(Names())
    datapath.apply(load_text(HEADER + NAMED).snapshot)
    began = loop.time()
    loop.call_later(0.5, learns(datapath, A, "127.0.0.1"))
    await datapath.first_addresses()
    assert round(loop.time() - began, 3) == 2.0
    datapath.retire()


async def test_an_upstream_without_names_has_nothing_to_wait_for() -> None:
    loop = asyncio.get_running_loop()
    datapath = datapath_of(Names())
    datapath.apply(load_text(HEADER + "upstreams: {a: {endpoints: [original]}}\nroutes: []\n").snapshot)
    began = loop.time()
    await datapath.first_addresses()
    assert loop.time() == began
    datapath.retire()


async def test_a_new_snapshot_waits_for_its_new_names_alone() -> None:
    loop, names = asyncio.get_running_loop(), Names()
    datapath = datapath_of(names)
    both = load_text(HEADER + NAMED).snapshot
    first = load_text(HEADER + 'upstreams: {a: {endpoints: ["a.test:80"]}}\nroutes: []\n').snapshot
    datapath.apply(first)
    began = loop.time()
    loop.call_later(0.2, learns(datapath, B, "127.0.0.2"))
    await datapath.install(both)
    assert round(loop.time() - began, 3) == 0.2
    assert set(datapath.assembly.routes) == {"a", "b"}
    datapath.close()
    datapath.retire()


async def test_a_new_snapshot_whose_names_are_never_known_is_put_in_place_after_a_second() -> None:
    loop = asyncio.get_running_loop()
    datapath = datapath_of(Names())
    datapath.apply(load_text(HEADER + NONE).snapshot)
    began = loop.time()
    await datapath.install(load_text(HEADER + NAMED).snapshot)
    assert round(loop.time() - began, 3) == RESOLUTION_SECONDS
    assert set(datapath.assembly.routes) == {"a", "b"}
    datapath.close()
    datapath.retire()
