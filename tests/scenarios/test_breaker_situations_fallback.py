"""Situations with a fallback: who may serve in the other's place, and what must not be sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from sidecar.config.load import load_text
from sidecar.core.breaker import Breaker
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.changing import FAILS, Act, App, answers, hangs, resets
from tests.scenarios.stage import GET, post
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawUpstream, Response, raw_client, raw_upstream, turns


@dataclass
class Pair:
    """A route with an app, and another upstream to fall back to."""

    worker: Worker
    app: RawUpstream
    spare: RawUpstream

    def breaker(self, upstream: str) -> Breaker:
        return self.worker.assembly.breakers["shop", upstream]

    async def ask(self, data: bytes = GET) -> Response:
        method = data.partition(b" ")[0]
        async with raw_client(port(self.worker)) as client:
            await client.send(data)
            (response,) = await client.responses([method])
            return response

    async def reload(self, mode: str) -> None:
        snapshot = load_text(HEADER + written(self.app.port, self.spare.port, breaker(mode))).snapshot
        await self.worker.control.active.install(snapshot)


def written(app: int, spare: int, route: str) -> str:
    return f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}, spare: {{endpoints: ["127.0.0.1:{spare}"]}}}}
routes: [{{name: shop, upstream: app, fallback: {{upstream: spare}}{f", {route}" if route else ""}}}]
"""


def breaker(mode: str) -> str:
    return f"circuit_breaker: {{mode: {mode}}}"


@asynccontextmanager
async def pair(app: App, route: str = "", *, spare: App | None = None) -> AsyncIterator[Pair]:
    async with (
        raw_upstream(app) as first,
        raw_upstream(spare or App(answers())) as second,
        running(written(first.port, second.port, route)) as worker,
    ):
        yield Pair(worker, first, second)
        await assert_clean(worker)


def bare(method: bytes) -> bytes:
    """A request without any body."""
    return method + b" / HTTP/1.1\r\nHost: x\r\n\r\n"


# A breaker that is forced open


async def test_a_route_that_is_forced_open_is_served_by_its_fallback() -> None:
    async with pair(App(answers()), breaker("forced_open")) as to:
        assert [(await to.ask()).status for _ in range(10)] == [200] * 10
        assert (len(to.app.requests), len(to.spare.requests)) == (0, 10)
        assert to.breaker("app").state is State.FORCED_OPEN
        assert to.breaker("spare").state is State.CLOSED


async def test_the_fallbacks_breaker_of_such_a_route_opens_by_itself() -> None:
    async with pair(App(answers()), breaker("forced_open"), spare=App(FAILS)) as to:
        assert [(await to.ask()).status for _ in range(6)] == [500] * 5 + [503]
        assert to.breaker("spare").state is State.OPEN


async def test_a_reload_forces_the_route_open_and_not_its_fallback() -> None:
    async with pair(App(answers())) as to:
        await to.reload("forced_open")
        assert (to.breaker("app").state, to.breaker("spare").state) == (State.FORCED_OPEN, State.CLOSED)
        assert (await to.ask()).status == 200
        assert (len(to.app.requests), len(to.spare.requests)) == (0, 1)
        await to.reload("enforce")
        assert (to.breaker("app").state, to.breaker("spare").state) == (State.CLOSED, State.CLOSED)
        assert (await to.ask()).status == 200
        assert (len(to.app.requests), len(to.spare.requests)) == (1, 1)


async def test_disabled_is_said_of_the_fallback_as_well() -> None:
    async with pair(App(FAILS), breaker("disabled"), spare=App(FAILS)) as to:
        assert (to.breaker("app").state, to.breaker("spare").state) == (State.DISABLED, State.DISABLED)


# What may have reached the upstream


@pytest.mark.parametrize("act", [hangs, resets], ids=["hangs", "resets"])
@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"ORDER"])
async def test_a_request_without_a_body_that_may_have_acted_is_sent_once(method: bytes, act: Act) -> None:
    async with pair(App(act), "timeouts: {request: 3s, attempt: 1s}") as to:
        assert (await to.ask(bare(method))).status in (502, 504)
        assert (len(to.app.requests), len(to.spare.requests)) == (1, 0)


@pytest.mark.parametrize("act", [hangs, resets], ids=["hangs", "resets"])
@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE", b"OPTIONS"])
async def test_an_idempotent_request_without_a_body_goes_to_the_fallback(method: bytes, act: Act) -> None:
    async with pair(App(act), "timeouts: {request: 3s, attempt: 1s}") as to:
        assert (await to.ask(bare(method))).status == 200
        assert (len(to.app.requests), len(to.spare.requests)) == (1, 1)


async def test_a_post_that_has_reached_nobody_goes_to_the_fallback() -> None:
    (nobody,) = free_ports(1)
    async with raw_upstream(App(answers())) as spare, running(written(nobody, spare.port, "")) as worker:
        to = Pair(worker, spare, spare)
        assert (await to.ask(bare(b"POST"))).status == 200
        assert (await to.ask(post(b"with a body"))).status == 200
        assert [one.body for one in spare.requests] == [b"", b"with a body"]


async def test_a_post_that_the_breaker_refuses_goes_to_the_fallback() -> None:
    async with pair(App(FAILS)) as to:
        for _ in range(5):
            assert (await to.ask()).status == 500
        assert (await to.ask(bare(b"POST"))).status == 200
        assert (len(to.app.requests), len(to.spare.requests)) == (5, 1)
        numbers = to.breaker("app").numbers(to.worker.service.clock())
        assert (numbers.total, numbers.rejected) == (6, 1)


async def test_a_post_on_a_connection_that_was_closed_meanwhile_is_sent_once() -> None:
    """The app closes its idle connection at the moment when the next request comes."""
    async with pair(App(answers())) as to:
        assert (await to.ask()).status == 200
        for peer in to.app.peers:
            peer.writer.transport.abort()
        asked = asyncio.create_task(to.ask(bare(b"POST")))
        await turns(20)
        status = (await asked).status
        posts = [one for one in (*to.app.requests, *to.spare.requests) if one.method == b"POST"]
        assert (status, len(posts)) == (200, 1)


# Another endpoint


@pytest.mark.parametrize(("act", "status"), [(answers(), 200), (FAILS, 500)], ids=["good", "bad"])
async def test_a_refused_attempt_and_the_second_try_are_judged_each(act: Act, status: int) -> None:
    (nobody,) = free_ports(1)
    policy = "circuit_breaker: {mode: metrics_only, warm_up: off}"
    async with raw_upstream(App(act)) as app:
        routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{nobody}", "127.0.0.1:{app.port}"], ejection: {{mode: off}}}}}}
routes: [{{name: app, upstream: app, {policy}}}]
"""
        async with running(routes) as worker:
            for _ in range(30):
                async with raw_client(port(worker)) as client:
                    await client.send(bare(b"POST"))
                    assert [one.status for one in await client.responses([b"POST"])] == [status]
            numbers = worker.assembly.breakers["app", "app"].numbers(worker.service.clock())
            refusals = numbers.total - 30
            assert refusals > 0
            assert len(app.requests) == 30
            expected = (30, refusals) if status == 200 else (0, 30 + refusals)
            assert (numbers.successful, numbers.failed) == expected
            await assert_clean(worker)
