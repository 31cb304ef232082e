"""Situations around a reload or an operator: what a breaker keeps, and when another value acts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from sidecar.config.load import load_text
from sidecar.config.problems import ConfigError
from sidecar.config.tell.diff import diff
from sidecar.core.breaker import Breaker
from sidecar.core.snapshot import Snapshot
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.changing import FAILS, App, answers, open_it
from tests.scenarios.operator import operator
from tests.scenarios.stage import GET, app_routes, stage
from tests.support.clean import assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawUpstream, Response, raw_client, raw_upstream

OTHERS = ("127.0.0.2:9", "127.0.0.3:9")
"""Endpoints that nobody is meant to reach."""


@dataclass
class Listed:
    """A route to an app whose upstream has several endpoints, as a reload may list them."""

    worker: Worker
    app: RawUpstream

    @property
    def breaker(self) -> Breaker:
        return self.worker.assembly.breakers["app", "app"]

    async def ask(self) -> Response:
        async with raw_client(port(self.worker)) as client:
            await client.send(GET)
            (response,) = await client.responses([b"GET"])
            return response

    def snapshot(self, *endpoints: str) -> Snapshot:
        return load_text(HEADER + listing(*endpoints)).snapshot

    async def reload(self, *endpoints: str) -> None:
        await self.worker.control.active.install(self.snapshot(*endpoints))


def listing(*endpoints: str) -> str:
    names = ", ".join(f'"{one}"' for one in endpoints)
    """Endpoints are not told apart here: what one of them did counts, though another is usable."""
    upstream = f"{{endpoints: [{names}], ejection: {{mode: off}}}}"
    return f"upstreams: {{app: {upstream}}}\nroutes: [{{name: app, upstream: app}}]\n"


@asynccontextmanager
async def listed(app: App) -> AsyncIterator[tuple[Listed, str]]:
    async with raw_upstream(app) as upstream:
        here = f"127.0.0.1:{upstream.port}"
        async with running(listing(here)) as worker:
            yield Listed(worker, upstream), here
            await assert_clean(worker)


# What a reload keeps


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["here", OTHERS[0]], [OTHERS[0], "here"]),
        (["here"], ["here", OTHERS[0]]),
        (["here"], [OTHERS[0], "here"]),
        (["here", OTHERS[0]], ["here", OTHERS[1]]),
        (["here", OTHERS[0]], [OTHERS[0]]),
    ],
    ids=["another order", "one more", "one more before it", "another one of two", "one of two"],
)
async def test_as_long_as_one_endpoint_stays_the_breaker_stays(before: list[str], after: list[str]) -> None:
    async with listed(App(FAILS)) as (to, here):
        for _ in range(5):
            assert (await to.ask()).status == 500
        first, second = ([here if one == "here" else one for one in names] for names in (before, after))
        opened = to.breaker
        await to.reload(*first)
        await to.reload(*second)
        assert to.breaker is opened
        refused = await to.ask()
        assert (refused.status, refused.value(b"retry-after")) == (503, b"5")
        found = diff(to.snapshot(*first), to.snapshot(*second))
        assert (found.breakers_kept, found.breakers_reset) == (1, 0)


async def test_the_window_and_the_row_go_on_through_another_order() -> None:
    async with listed(App(FAILS)) as (to, here):
        for _ in range(4):
            assert (await to.ask()).status == 500
        await to.reload(OTHERS[0], here)
        await to.reload(here)
        assert to.breaker.numbers(to.worker.service.clock()).window.failed == 4
        assert (await to.ask()).status == 500
        assert to.breaker.state is State.OPEN


async def test_a_call_in_flight_through_a_reload_counts_in_the_breaker_that_stays() -> None:
    app = App(answers(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", after=1.0))
    async with listed(app) as (to, here):
        asked = [asyncio.create_task(to.ask()) for _ in range(5)]
        await asyncio.sleep(0.5)
        await to.reload(here, OTHERS[0])
        assert [one.status for one in await asyncio.gather(*asked)] == [500] * 5
        assert to.breaker.state is State.OPEN


async def test_where_no_endpoint_stays_the_breaker_begins_anew() -> None:
    async with listed(App(FAILS)) as (to, here):
        for _ in range(5):
            await to.ask()
        opened = to.breaker
        async with raw_upstream(App(answers())) as other:
            await to.reload(f"127.0.0.1:{other.port}")
            assert to.breaker is not opened
            assert (await to.ask()).status == 200
            found = diff(to.snapshot(here), to.snapshot(f"127.0.0.1:{other.port}"))
            assert (found.breakers_kept, found.breakers_reset) == (0, 1)


# Other values


def open_for(seconds: str, *, longest: str = "60s") -> str:
    return f"circuit_breaker: {{open_for: {seconds}, max_open_for: {longest}}}"


async def test_a_lowered_open_for_acts_on_the_present_wait() -> None:
    app = App(FAILS)
    async with stage(app, route=open_for("30s")) as to:
        await open_it(to)
        app.act = answers()
        await asyncio.sleep(0.5)
        assert (await to.ask()).value(b"retry-after") == b"30"
        changed = app_routes(to.app.port, route=open_for("1s"))
        await to.worker.control.active.install(load_text(HEADER + changed).snapshot)
        assert (await to.ask()).value(b"retry-after") == b"1"
        await asyncio.sleep(0.6)
        assert (await to.ask()).status == 200
        assert to.breaker.state is State.CLOSED


async def test_a_raised_open_for_acts_on_the_present_wait_as_well() -> None:
    async with stage(App(FAILS), route=open_for("1s")) as to:
        await open_it(to)
        changed = app_routes(to.app.port, route=open_for("30s"))
        await to.worker.control.active.install(load_text(HEADER + changed).snapshot)
        await asyncio.sleep(2.0)
        refused = await to.ask()
        assert (refused.status, refused.value(b"retry-after")) == (503, b"28")


async def test_a_lowered_open_for_is_doubled_as_often_as_the_old_one_was() -> None:
    app = App(FAILS)
    async with stage(app, route=open_for("8s")) as to:
        await open_it(to)
        await asyncio.sleep(8.01)
        assert (await to.ask()).status == 500
        changed = app_routes(to.app.port, route=open_for("1s"))
        await to.worker.control.active.install(load_text(HEADER + changed).snapshot)
        assert (await to.ask()).value(b"retry-after") in (b"2", b"3")


async def test_the_end_of_an_override_of_a_second_is_shown_at_once() -> None:
    async with stage(App(answers())) as to:
        hand = operator(to.worker)
        await hand.post("/breakers/app/open?for=1s")
        assert (await to.ask()).status == 503
        await asyncio.sleep(1.001)
        (one,) = (await hand.get("/breakers/app"))["breakers"]
        assert (one["state"], one["is_overridden"]) == ("closed", False)
        assert (await to.ask()).status == 200


async def test_an_override_holds_until_its_last_moment() -> None:
    async with stage(App(answers())) as to:
        hand = operator(to.worker)
        await hand.post("/breakers/app/open?for=1s")
        await asyncio.sleep(0.99)
        (one,) = (await hand.get("/breakers/app"))["breakers"]
        assert (one["state"], one["is_overridden"]) == ("forced_open", True)
        assert (await to.ask()).status == 503


@pytest.mark.parametrize("key", ["request", "attempt"])
def test_check_tells_a_count_timeout_after_longer_than_a_timeout(key: str) -> None:
    routes = app_routes(9, route=f"timeouts: {{{key}: 1s}}, circuit_breaker: {{count_timeout_after: 2s}}")
    with pytest.raises(ConfigError) as raised:
        load_text(HEADER + routes)
    told = str(raised.value)
    assert f"circuit_breaker.count_timeout_after (2s) is over timeouts.{key} (1s" in told


def test_check_has_no_word_against_one_that_is_as_long() -> None:
    routes = app_routes(9, route="timeouts: {request: 1s}, circuit_breaker: {count_timeout_after: 1s}")
    assert load_text(HEADER + routes).snapshot.routes[0].breaker.count_timeout_after_seconds == 1.0
