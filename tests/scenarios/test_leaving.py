"""Requests at endpoints that fail often are sent on to others, where that does no harm: their clients see no
failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from sidecar.core.ejection.change import Health
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import OK, get, post, saying, scraped, tried_again
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, RawUpstream, raw_client, raw_upstream

BAD = b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nbad"
FAILING = saying(BAD)
LONG = ", ejection: {base: 250s}"
"""What is ejected stays out, so that only trials reach bad endpoints."""


async def stream_badly(peer: RawPeer) -> None:
    """500, and its body later."""
    while await peer.request() is not None:
        await peer.send(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0.01)
        await peer.send(b"3\r\nbad\r\n0\r\n\r\n")


async def reset(peer: RawPeer) -> None:
    await peer.request()
    peer.writer.transport.abort()


async def hang(peer: RawPeer) -> None:
    while await peer.request() is not None:
        pass


class Stage:
    """Good apps, bad apps, and a sidecar before them."""

    def __init__(self, worker: Worker, good: list[RawUpstream], bad: list[RawUpstream]) -> None:
        self.worker, self.good, self.bad = worker, good, bad
        self.peers = worker.assembly.clusters["app"].peers

    async def ask(self, request: bytes = get(b"/")) -> int:
        """Later than what failed before counts in the load of its endpoint."""
        await asyncio.sleep(0.11)
        async with raw_client(port(self.worker)) as client:
            await client.send(request)
            (response,) = await client.responses([request.split(b" ")[0]])
            return response.status

    async def failures(self, count: int, request: bytes = get(b"/")) -> int:
        """Of so many requests, those that were not answered by 200."""
        return sum([await self.ask(request) != 200 for _ in range(count)])

    def healths(self) -> list[Health]:
        return sorted([one.health for one in self.peers.members.values()], key=lambda one: one.value)

    @property
    def asked_of_bad(self) -> int:
        return sum(len(app.requests) for app in self.bad)


@asynccontextmanager
async def stage(
    good: int,
    bad: int,
    script: Callable[[RawPeer], Awaitable[None]] = FAILING,
    *,
    route: str = "",
    upstream: str = "",
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        well = [await stack.enter_async_context(raw_upstream()) for _ in range(good)]
        ill = [await stack.enter_async_context(raw_upstream(script)) for _ in range(bad)]
        endpoints = ", ".join(f'"127.0.0.1:{one.port}"' for one in (*well, *ill))
        routes = f"""\
upstreams: {{app: {{endpoints: [{endpoints}]{upstream}}}}}
routes: [{{name: app, upstream: app{route}}}]
"""
        worker = await stack.enter_async_context(running(routes))
        yield Stage(worker, well, ill)
        await assert_clean(worker)


@pytest.mark.parametrize("script", [FAILING, stream_badly, reset], ids=["whole", "in pieces", "reset"])
async def test_of_the_row_that_ejects_an_endpoint_one_failure_is_a_clients(
    script: Callable[[RawPeer], Awaitable[None]],
) -> None:
    async with stage(2, 1, script) as to:
        assert await to.failures(60) == 1
        assert to.healths() == [Health.EJECTED, Health.USABLE, Health.USABLE]
        assert to.asked_of_bad == 5
        assert tried_again(to.worker) == {"suspect": 4}


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x"),
        get(b"/", b"x-sidecar-retry: 1"),
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok",
        b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["not idempotent", "a retry already", "a body that is not kept", "idempotent alone"],
)
async def test_what_may_not_be_sent_twice_is_not(request_: bytes) -> None:
    async with stage(2, 1) as to:
        assert await to.failures(60, request_) == 5
        assert to.asked_of_bad == 5
        assert tried_again(to.worker) == {}


@pytest.mark.parametrize("request_", [b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", get(b"/")])
async def test_where_a_route_tries_again_an_idempotent_request_leaves_too(request_: bytes) -> None:
    async with stage(2, 1, route=", retry: {attempts: 1, on: [refused]}") as to:
        assert await to.failures(60, request_) == 1
        assert tried_again(to.worker) == {"suspect": 4}


@pytest.mark.parametrize(
    ("route", "upstream"),
    [
        (", retry: {budget: {ratio: 0, min_per_second: 0}}", ""),
        ("", ", ejection: {mode: off}"),
    ],
    ids=["no budget", "no ejection"],
)
async def test_it_can_be_switched_off(route: str, upstream: str) -> None:
    async with stage(2, 1, route=route, upstream=upstream) as to:
        failures = await to.failures(60)
        assert failures == to.asked_of_bad >= 5
        assert tried_again(to.worker) == {}


async def test_what_is_sent_on_says_that_it_is_a_retry_and_has_a_body_of_its_own() -> None:
    async with stage(1, 1) as to:
        assert await to.failures(30) == 1
        marked = [one for one in to.good[0].requests if one.value(b"x-sidecar-retry") == b"1"]
        assert len(marked) == 4


async def test_where_all_fail_nothing_is_sent_on_for_long_and_the_breaker_opens() -> None:
    async with stage(0, 4) as to:
        assert await to.failures(40) == 40
        assert to.worker.assembly.breakers["app", "app"].state is State.OPEN
        assert to.asked_of_bad <= 12


async def test_an_upstream_that_fails_at_times_everywhere_gets_hardly_more_for_it() -> None:
    """One of three answers of each endpoint is bad: nobody is worse than the others."""

    async def script(peer: RawPeer) -> None:
        nonlocal answered
        while await peer.request() is not None:
            answered += 1
            await peer.send(OK if answered % 3 else BAD)

    answered = 0
    async with stage(0, 4, script) as to:
        await to.failures(300)
        assert to.asked_of_bad < 1.1 * 300


async def test_a_trial_of_a_spared_endpoint_costs_its_client_nothing() -> None:
    async with stage(1, 2) as to:
        await to.failures(60)
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        before = to.asked_of_bad
        assert await to.failures(250) == 0
        assert 1 <= to.asked_of_bad - before <= 15


async def test_a_trial_that_hangs_costs_its_client_a_second_at_most() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            if is_hanging:
                await hang(peer)
            else:
                await peer.send(BAD)

    is_hanging = False
    async with stage(1, 2, script, upstream=LONG) as to:
        await to.failures(60)
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        is_hanging = True
        before, began = to.asked_of_bad, asyncio.get_running_loop().time()
        assert await to.failures(250) == 0
        tried = to.asked_of_bad - before
        assert tried >= 1
        assert asyncio.get_running_loop().time() - began < 250 * 0.12 + tried * 1.0


async def test_a_trial_that_hangs_behind_a_stale_connection_costs_its_client_a_second_at_most() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            if is_hanging:
                await hang(peer)
                return
            await peer.send(BAD)
            if await peer.read_some() and is_hanging:  # a connection from before dies of its next request
                peer.writer.transport.abort()
                return

    is_hanging = False
    async with stage(1, 2, script, upstream=LONG) as to:
        await to.failures(60)
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        is_hanging = True
        loop = asyncio.get_running_loop()
        for _ in range(500):
            began = loop.time()
            assert await to.ask() == 200
            assert loop.time() - began < 1.0
        assert tried_again(to.worker)["stale_connection"] >= 1


@pytest.mark.parametrize("has_budget", [True, False])
async def test_a_slow_trial_that_nobody_else_can_be_asked_for_has_its_whole_time(has_budget: bool) -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            if is_slow:
                await asyncio.sleep(1.2)
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            await peer.send(BAD)

    is_slow = False
    route = "" if has_budget else ", retry: {budget: {ratio: 0, min_per_second: 0}}"
    async with stage(1, 2, script, route=route, upstream=LONG) as to:
        await to.failures(60)
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        (usable,) = (one for one in to.peers.members.values() if one.health is Health.USABLE)
        if has_budget:
            usable.good_at_failure = usable.good + 1000  # it has failed, too, and is suspect from here on
        is_slow = True
        before = to.asked_of_bad
        assert await to.failures(250) == 0
        assert to.asked_of_bad > before
        told = {one.value(b"x-envoy-expected-rq-timeout-ms") for app in to.bad for one in app.requests}
        assert all(int(one or b"") > 10_000 for one in told), "the route's time, and not the trial's"


async def test_a_spared_endpoint_that_is_well_again_is_found_by_requests_without_a_second_chance() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(OK if is_well else BAD)

    is_well = False
    async with stage(1, 2, script, upstream=LONG) as to:
        await to.failures(60, post(b"x"))
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        before = to.asked_of_bad
        assert await to.failures(300, post(b"x")) == to.asked_of_bad - before <= 4, "within 33 s"
        is_well = True
        for _ in range(1_500):
            await to.ask(post(b"x"))
            if Health.SPARED not in to.healths():
                break
        assert to.healths() == [Health.EJECTED, Health.USABLE, Health.USABLE]


async def test_a_trial_that_waits_in_line_is_made_where_it_was_to_be() -> None:
    """There are always fewer connections than requests, and those to usable endpoints come free."""

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.target == b"/slow":
                await asyncio.sleep(0.05)
            await peer.send(OK if is_well else BAD)

    is_well = False
    async with stage(0, 3, script, upstream=f"{LONG}, limits: {{max_connections: 2}}") as to:
        peers = to.peers
        for one in list(peers.members)[1:]:
            for _ in range(5):
                peers.failed(one, "500", asyncio.get_running_loop().time())
        to.worker.assembly.clusters["app"].settle(asyncio.get_running_loop().time())
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        is_well = True

        async def many() -> None:
            async with raw_client(port(to.worker)) as client:
                for _ in range(500):
                    await client.send(get(b"/slow"))
                    (answer,) = await client.responses([b"GET"])
                    assert answer.status == 200
                    client.received = b""

        await asyncio.gather(*[many() for _ in range(6)])
        assert to.healths() == [Health.EJECTED, Health.USABLE, Health.USABLE]


async def test_copies_take_no_trial_since_nobody_counts_what_comes_of_them() -> None:
    """An endpoint that is well again is found as soon beside them, by the requests."""

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(OK if is_well else BAD)

    is_well = False
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream(*one)) for one in ((), (), (script,), (script,))]
        other, *endpoints = (f'"127.0.0.1:{app.port}"' for app in apps)
        routes = f"""\
upstreams:
  other: {{endpoints: [{other}]}}
  app: {{endpoints: [{", ".join(endpoints)}]{LONG}}}
routes:
  - {{name: copied, match: {{path: {{prefix: /copied}}}}, upstream: other, mirror: {{upstream: app}}}}
  - {{name: app, upstream: app}}
"""
        worker = await stack.enter_async_context(running(routes))
        to = Stage(worker, apps[:2], apps[2:])
        await to.failures(60, post(b"x"))
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        is_well, before = True, to.asked_of_bad
        for _ in range(900):
            assert await to.ask(get(b"/copied")) == 200
            await to.ask(post(b"x"))
            if Health.SPARED not in to.healths():
                break
        assert to.healths() == [Health.EJECTED, Health.USABLE, Health.USABLE]
        assert to.asked_of_bad - before == 5
        await assert_clean(worker)


async def test_a_hedged_route_and_one_that_retries_go_by_their_own_rules() -> None:
    async with stage(2, 1, route=", retry: {attempts: 1, on: [500]}") as to:
        assert await to.failures(60) == 0
        assert tried_again(to.worker) == {"status": 5}


@pytest.mark.parametrize("route", ["", ", retry: {attempts: 1, on: [503]}"], ids=["alone", "with retry"])
async def test_how_long_a_suspect_endpoint_asks_to_wait_is_not_said_of_one_that_is_well(route: str) -> None:
    waits = saying(b"HTTP/1.1 503 X\r\nRetry-After: 60\r\nContent-Length: 3\r\n\r\nbad")
    async with stage(1, 2, waits, route=route, upstream=LONG) as to:
        assert await to.failures(60) == 2, "of each the first one"
        assert to.healths() == [Health.EJECTED, Health.SPARED, Health.USABLE]
        before = to.asked_of_bad
        assert await to.failures(250) == 0
        assert to.asked_of_bad > before, "in trials"


async def test_budget_that_is_spent_is_counted() -> None:
    async with stage(2, 1, route=", retry: {budget: {ratio: 0, min_per_second: 0}}") as to:
        await to.failures(60)
        assert scraped(to.worker, "sidecar_retry_budget_exhausted_total{") == 4


async def statuses_by_connect(to: Worker, endpoint: int) -> list[int]:
    """Of some requests that were on their way to this port."""
    target, told = b"127.0.0.1:%d" % endpoint, []
    for _ in range(8):
        async with raw_client(port(to, "outbound")) as client:
            await client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
            await client.send(get(b"/"))
            told += [one.status for one in await client.responses([b"GET"])]
    return told


async def test_where_one_endpoint_was_meant_no_other_one_is_asked_for_it() -> None:
    async with stage(1, 1, route=", listener: outbound") as to:
        assert await statuses_by_connect(to.worker, to.bad[0].port) == [500] * 8
        assert (len(to.good[0].requests), to.asked_of_bad) == (0, 8)


async def test_who_waits_in_line_for_the_endpoint_that_was_meant_gets_no_connection_to_another() -> None:
    async def slowly(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(1.0)
            await peer.send(OK)

    async def by_connect(worker: Worker, endpoint: int) -> int:
        target = b"127.0.0.1:%d" % endpoint
        async with raw_client(port(worker, "outbound")) as client:
            await client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target))
            await client.reader.readuntil(b"\r\n\r\n")
            await client.send(get(b"/"))
            (answer,) = await client.responses([b"GET"])
            return answer.status

    async with raw_upstream(slowly) as one, raw_upstream(slowly) as two:
        routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{one.port}", "127.0.0.1:{two.port}"], limits: {{max_connections: 1}}}}}}
routes: [{{name: app, upstream: app, listener: outbound}}]
"""
        async with running(routes) as worker:
            asked = [by_connect(worker, app.port) for app in (one, two, one, two)]
            assert await asyncio.gather(*asked) == [200] * 4
            assert (len(one.requests), len(two.requests)) == (2, 2)
            await assert_clean(worker)


async def test_where_one_that_refuses_was_meant_it_is_asked_once() -> None:
    (dead,) = free_ports(1)
    async with raw_upstream() as good:
        routes = f"""\
upstreams: {{app: {{endpoints: ["127.0.0.1:{good.port}", "127.0.0.1:{dead}"]}}}}
routes: [{{name: app, upstream: app, listener: outbound}}]
"""
        async with running(routes) as worker:
            assert set(await statuses_by_connect(worker, dead)) == {502}
            assert tried_again(worker) == {}
        assert len(good.requests) == 0
