"""Situations around the time that a breaker stays open, and around the start of an app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.core.transition import State, TransitionReason
from tests.scenarios.changing import (
    FAILS,
    FAILURE,
    App,
    answers,
    asking,
    ended,
    is_closed,
    open_it,
    openings,
    seconds_until,
)
from tests.scenarios.stage import GET, app_routes, stage
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, Script, raw_client, raw_upstream


def unavailable(seconds: bytes) -> bytes:
    return b"HTTP/1.1 503 X\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % seconds


# Retry-After


@pytest.mark.parametrize(
    ("said", "told"),
    [(b"30", 30), (b"3", 5), (b"900", 60), (b"0", 5), (b"Fri, 31 Dec 1999 23:59:59 GMT", 5), (b"-5", 5)],
    ids=["30 s", "shorter than open_for", "longer than max_open_for", "none", "a date", "nonsense"],
)
async def test_the_retry_after_of_the_failures_lengthens_the_wait(said: bytes, told: int) -> None:
    async with stage(App(answers(unavailable(said)))) as to:
        await open_it(to)
        assert (await to.ask()).value(b"retry-after") == b"%d" % told
        assert to.breaker.history[-1].wait_seconds == pytest.approx(told, abs=0.01)


async def test_the_retry_after_of_a_failed_probe_lengthens_the_next_wait() -> None:
    app = App(FAILS)
    async with stage(app) as to:
        await open_it(to)
        app.act = answers(unavailable(b"40"))
        await asyncio.sleep(5.01)
        assert (await to.ask()).status == 503
        assert openings(to)[-1] is TransitionReason.PROBE_FAILED
        assert 40.0 <= (to.breaker.history[-1].wait_seconds or 0.0) <= 44.0


async def test_the_retry_after_of_a_failure_long_ago_is_not_heeded() -> None:
    app = App(answers(unavailable(b"50")))
    async with stage(app) as to:
        await to.ask()
        app.act = answers()
        await to.ask()
        await asyncio.sleep(15.0)
        app.act = FAILS
        await open_it(to)
        assert to.breaker.history[-1].wait_seconds == 5.0


async def test_of_several_endpoints_the_smallest_counts() -> None:
    """One that is back earlier is enough."""
    async with (
        raw_upstream(App(answers(unavailable(b"50"), after=0.1))) as first,
        raw_upstream(App(answers(unavailable(b"20"), after=0.1))) as second,
    ):
        routes = app_routes(first.port).replace("]", f', "127.0.0.1:{second.port}"]', 1)
        async with running(routes) as worker:
            breaker = worker.assembly.breakers["app", "app"]
            async with asking(port(worker), pause=0.1, callers=4):
                await seconds_until(lambda: breaker.state is State.OPEN, within=1.0)
            assert first.requests
            assert second.requests
            assert breaker.history[-1].wait_seconds == pytest.approx(20.0, abs=0.5)
            await assert_clean(worker)


# Waits that grow, and are forgotten


async def test_an_app_that_fails_again_at_once_waits_twice_as_long_though_its_probe_was_good() -> None:
    app = App(FAILS)
    async with stage(app) as to:
        waits = []
        for _ in range(4):
            app.act = FAILS
            await open_it(to)
            waits.append(to.breaker.history[-1].wait_seconds)
            app.act = answers()
            await asyncio.sleep((waits[-1] or 0.0) + 0.01)
            assert (await to.ask()).status == 200
        assert waits == pytest.approx([5.0, 10.0, 20.0, 40.0], rel=0.11)


async def test_a_wait_is_as_short_as_ever_after_the_app_was_well_for_as_long() -> None:
    app = App(FAILS)
    async with stage(app) as to:
        await open_it(to)
        await asyncio.sleep(5.01)
        assert (await to.ask()).status == 500
        app.act = answers()
        await asyncio.sleep(11.01)
        assert (await to.ask()).status == 200
        await asyncio.sleep(12.0)
        app.act = FAILS
        await open_it(to)
        assert to.breaker.history[-1].wait_seconds == 5.0


# A start is no outage


@asynccontextmanager
async def listening_late(number: int, after: float, script: Script) -> AsyncIterator[float]:
    """An app that listens on this port after so many seconds, and is gone at the end; when it will listen."""
    loop = asyncio.get_running_loop()
    peers: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(loop.create_task(serve(RawPeer(len(peers), reader, writer))))

    async def serve(peer: RawPeer) -> None:
        try:
            await script(peer)
        finally:
            peer.writer.transport.abort()

    async def listen() -> None:
        await asyncio.sleep(after)
        async with await asyncio.start_server(accept, "127.0.0.1", number):
            await asyncio.Event().wait()

    listening = loop.create_task(listen())
    try:
        yield loop.time() + after
    finally:
        await ended(listening, *peers)


async def test_an_app_that_listens_after_11_s_serves_the_first_request_after_that() -> None:
    (later,) = free_ports(1)
    async with running(app_routes(later)) as worker:
        breaker = worker.assembly.breakers["app", "app"]
        async with listening_late(later, 11.0, App(answers())) as begins:
            async with asking(port(worker), pause=0.25, callers=2) as callers:
                await seconds_until(lambda: 200 in callers.statuses, within=12.0)
            first = callers.first(200)
            assert first is not None
            assert first - begins <= 0.3
            assert set(callers.statuses) == {502, 200}
            assert (breaker.history, breaker.tally.failed) == ((), 0)
            await assert_clean(worker)


@pytest.mark.parametrize(("warm_up", "after"), [("off", 0.0), ("3s", 3.0)])
async def test_warm_up_says_how_long_that_is_excused(warm_up: str, after: float) -> None:
    loop = asyncio.get_running_loop()
    (nobody,) = free_ports(1)
    async with running(app_routes(nobody, route=f"circuit_breaker: {{warm_up: {warm_up}}}")) as worker:
        began = loop.time()
        breaker = worker.assembly.breakers["app", "app"]
        async with asking(port(worker), pause=0.1):
            await seconds_until(lambda: breaker.state is State.OPEN, within=after + 1.0)
        (opened,) = breaker.history
        assert after <= opened.at - began <= after + 0.6
        await assert_clean(worker)


async def test_after_the_first_answer_a_refused_connection_is_a_failure() -> None:
    (here,) = free_ports(1)
    async with running(app_routes(here)) as worker:
        breaker = worker.assembly.breakers["app", "app"]
        async with asking(port(worker), pause=0.1) as callers:
            async with listening_late(here, 1.0, App(answers(FAILURE))):
                await seconds_until(lambda: 500 in callers.statuses, within=2.0)
            await seconds_until(lambda: breaker.state is State.OPEN, within=1.0)
        assert 503 not in callers.statuses[: callers.statuses.index(500)]
        await assert_clean(worker)


async def test_an_answer_of_one_route_ends_the_warm_up_of_all() -> None:
    """It is the upstream that starts, and not the route."""
    (here,) = free_ports(1)
    routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{here}"]}}}}
routes:
- {{name: app, upstream: app}}
- {{name: other, upstream: app, match: {{path: {{exact: /other}}}}}}
"""
    async with running(routes) as worker:
        async with listening_late(here, 0.0, App(answers())):
            await asyncio.sleep(0.1)
            async with raw_client(port(worker)) as client:
                await client.send(b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert [one.status for one in await client.responses([b"GET"])] == [200]
        async with raw_client(port(worker)) as client:
            await client.send(GET * 6)
            answered = await client.responses([b"GET"] * 6)
        assert [one.status for one in answered] == [502] * 5 + [503]
        await assert_clean(worker)


async def test_a_start_that_resets_connections_is_an_outage() -> None:
    """Somebody listens already: what is excused is that nobody does."""

    async def reset(peer: RawPeer) -> None:
        await peer.request()
        peer.writer.transport.abort()

    async with stage(reset) as to:
        assert [(await to.ask()).status for _ in range(6)] == [502] * 5 + [503]


async def test_an_opening_in_the_first_seconds_ends_with_the_first_good_probe() -> None:
    app = App(FAILS)
    async with stage(app) as to:
        await open_it(to)
        app.act = answers()
        async with asking(to.port, pause=0.2):
            await seconds_until(is_closed(to), within=5.3)
