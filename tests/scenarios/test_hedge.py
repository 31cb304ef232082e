"""A second try beside one that is slow: where it goes, who wins, what it counts for, and what bounds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from sidecar.core.ejection.change import Health
from sidecar.core.transition import TransitionReason
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.settings import Http2Settings
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import OK, get, post, scraped
from tests.scenarios.websockets import http2_app
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, RawUpstream, Response, ask, raw_client, raw_upstream, turns

Script = Callable[[RawPeer], Awaitable[None]]
BAD = b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nbad"
HEDGE = "hedge: {after: 100ms}"
HANGS = 1e6


class Stage:
    """Endpoints that take turns (`round_robin`): the first request goes to `apps[0]`, its hedge to `apps[1]`."""

    def __init__(self, worker: Worker, apps: list[RawUpstream]) -> None:
        self.worker = worker
        self.apps = apps

    async def ask(self, data: bytes = get(b"/")) -> Response:
        return await ask(port(self.worker), data)

    async def seconds(self, data: bytes = get(b"/"), status: int = 200) -> float:
        """How long it took."""
        begun = self.worker.service.clock()
        assert (await self.ask(data)).status == status
        return round(self.worker.service.clock() - begun, 6)

    @property
    def requests(self) -> list[int]:
        return [len(app.requests) for app in self.apps]

    def metric(self, start: str) -> float:
        return scraped(self.worker, start)


@asynccontextmanager
async def stage(
    *scripts: Script, hedge: str = HEDGE, route: str = "", upstream: str = "", asks: str = "app"
) -> AsyncIterator[Stage]:
    """`asks`: the upstream that the route asks first; nobody listens at `dead`."""
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream(script)) for script in scripts]
        endpoints = ", ".join(f'"127.0.0.1:{app.port}"' for app in apps)
        more = f", {upstream}" if upstream else ""
        routes = f"""\
upstreams:
  app: {{endpoints: [{endpoints}], load_balancing: {{policy: round_robin}}{more}}}
  dead: {{endpoints: ["127.0.0.1:1"]}}
routes: [{{name: app, upstream: {asks}, {hedge}{route and ", " + route}}}]
"""
        worker = await stack.enter_async_context(running(routes))
        await asyncio.sleep(0.01)  # the health part looks at new upstreams once, and their turns begin anew
        (group,) = worker.assembly.clusters["app"].balancer._groups
        assert group._turns is not None
        count = len(apps)
        group._turns._due = [(number / count, number) for number in range(count)]  # in the order of the file
        yield Stage(worker, apps)
        await assert_clean(worker)
        assert len(worker.service.beside.hedges) == 0


def after(seconds: float, answer: bytes = OK) -> Script:
    """An endpoint that takes so long for each answer."""

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            ended = asyncio.create_task(peer.read_some())
            await asyncio.wait([ended], timeout=seconds)
            if ended.done():
                return
            ended.cancel()
            await asyncio.wait([ended])
            await peer.send(answer)

    return script


def lasting(*seconds: float) -> Script:
    """The same for answer after answer, the last one for ever; over all connections."""
    left = list(seconds)

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(left.pop(0) if len(left) > 1 else left[0])
            await peer.send(OK)

    return script


async def hang(peer: RawPeer) -> None:
    while await peer.read_some():
        pass


async def test_a_slow_one_is_overtaken_by_another_endpoint_and_cut_at_once() -> None:
    async with stage(hang, after(0.02)) as to:
        assert 0.12 <= await to.seconds() < 0.14
        assert to.requests == [0, 1]  # what hangs reads no request to its end
        cluster = to.worker.assembly.clusters["app"]
        assert (cluster.in_flight, [pool.in_flight for pool in cluster.pools]) == (0, [0, 0])
        assert to.metric('sidecar_hedge_attempts_total{sidecar_route="app"') == 1
        assert to.metric("sidecar_retry_attempts_total{") == 0
        assert len(to.apps[1].requests) == 1


async def test_one_that_is_fast_enough_is_not_hedged() -> None:
    async with stage(after(0.09), after(0.0)) as to:
        assert 0.09 <= await to.seconds() < 0.1
        await asyncio.sleep(1.0)
        assert to.requests == [1, 0]
        assert to.metric("sidecar_hedge_attempts_total{") == 0


async def test_the_first_one_may_win_after_all() -> None:
    async with stage(after(0.15), after(0.5)) as to:
        assert 0.15 <= await to.seconds() < 0.16
        assert to.requests == [1, 1]
        breaker = to.worker.assembly.breakers["app", "app"]
        assert (breaker.tally.successful, breaker.tally.failed, breaker.tally.ignored) == (1, 0, 1)
        # Nobody was overtaken, so nobody has failed.
        assert [pool.standing.failed for pool in to.worker.assembly.clusters["app"].pools] == [0, 0]


async def test_what_a_fallback_is_asked_is_hedged_too() -> None:
    async with stage(hang, after(0.02), asks="dead", route="fallback: {upstream: app}") as to:
        assert 0.12 <= await to.seconds() < 0.14
        assert to.metric('sidecar_hedge_attempts_total{sidecar_route="app"') == 1


@pytest.mark.parametrize("is_meant", [False, True])
async def test_in_a_tunnel_a_request_is_hedged_unless_it_was_going_to_one_endpoint(is_meant: bool) -> None:
    async with stage(after(0.5), after(0.02), route="listener: outbound") as to:
        host = b"127.0.0.1:%d" % to.apps[0].port if is_meant else b"named.test:80"
        async with raw_client(port(to.worker, "outbound")) as client:
            await client.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
            await client.send(get(b"/"))
            assert [one.status for one in await client.responses([b"GET"])] == [200]
        assert to.requests == [1, int(not is_meant)]


async def test_a_hedge_says_what_it_is_and_how_much_time_is_left() -> None:
    async with stage(after(0.5), after(0.0), route="timeouts: {request: 2s}") as to:
        await to.seconds()
        first, hedge = to.apps[0].requests[0], to.apps[1].requests[0]
        assert first.value(b"x-sidecar-retry") is None
        assert hedge.value(b"x-sidecar-retry") == b"1"
        left = [int(one.value(b"x-envoy-expected-rq-timeout-ms") or b"") for one in (first, hedge)]
        assert 99 <= left[0] - left[1] <= 103
        spans = [(one.value(b"traceparent") or b"").split(b"-") for one in (first, hedge)]
        assert spans[0][1] == spans[1][1]
        assert spans[0][2] != spans[1][2]


@pytest.mark.parametrize(
    ("data", "more", "hedges"),
    [
        (get(b"/"), "", 1),
        (post(b"x"), "", 0),
        (post(b"x"), "retry: {non_idempotent: true}", 1),
        (post(b"x").replace(b"POST", b"PUT"), "", 1),
        (get(b"/", b"x-sidecar-retry: 1"), "", 0),
        (get(b"/", b"x-sidecar-retry: 1"), "retry: {nested: true}", 1),
        (get(b"/", b"Connection: upgrade", b"Upgrade: x"), "", 0),
    ],
)
async def test_only_what_does_no_harm_twice_is_hedged(data: bytes, more: str, hedges: int) -> None:
    async with stage(after(0.5), after(0.0), route=more) as to:
        await to.seconds(data)
        assert to.requests == [1, hedges]


async def test_each_byte_of_a_body_goes_to_both() -> None:
    body = bytes(range(256)) * 200
    async with stage(after(0.5), after(0.0), route="retry: {non_idempotent: true}") as to:
        async with raw_client(port(to.worker)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for begin in range(0, len(body), 7000):
                piece = body[begin : begin + 7000]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await asyncio.sleep(0.03)  # longer in all than until a hedge, which waits for the last of it
            await client.send(b"0\r\n\r\n")
            (response,) = await client.responses([b"POST"])
        assert response.status == 200
        assert [app.requests[0].body for app in to.apps] == [body, body]


async def test_a_body_longer_than_the_buffer_is_not_sent_twice() -> None:
    body = b"x" * 5000
    async with stage(after(0.5), after(0.0), route="retry: {non_idempotent: true, buffer: 4KiB}") as to:
        assert await to.seconds(post(body)) >= 0.5
        assert to.requests == [1, 0]


async def test_nor_is_one_of_which_nothing_had_come_when_its_head_was_sent() -> None:
    body = b"x" * 5000
    route = "retry: {non_idempotent: true, buffer: 4KiB}"
    async with stage(lasting(0.0, 0.5), lasting(0.0), route=route) as to:
        for _ in to.apps:
            await to.ask()  # for connections that take a head at once
        async with raw_client(port(to.worker)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not to.worker.service.exchanges:
                await turns()
            for piece in (body[:2500], body[2500:]):
                await client.send(b"9c4\r\n%b\r\n" % piece)
                await turns()
            await client.send(b"0\r\n\r\n")
            (response,) = await client.responses([b"POST"])
        assert response.status == 200
        assert [[request.body for request in app.requests] for app in to.apps] == [[b"", body], [b""]]


async def test_what_fails_fast_does_not_win_a_race() -> None:
    async with stage(after(0.2), after(0.0, BAD)) as to:
        assert 0.2 <= await to.seconds() < 0.22
        assert to.requests == [1, 1]


async def test_where_the_other_fails_too_the_client_gets_the_bad_answer() -> None:
    async with stage(after(0.2, BAD), after(0.0, BAD.replace(b"bad", b"two"))) as to:
        response = await to.ask()
        assert (response.status, response.body) == (500, b"bad")


async def test_a_bad_answer_is_better_than_none_when_the_time_is_up() -> None:
    async with stage(hang, after(0.0, BAD), route="timeouts: {request: 1s}") as to:
        begun = to.worker.service.clock()
        response = await to.ask()
        assert (response.status, response.body) == (500, b"bad")
        assert to.worker.service.clock() - begun < 1.01


async def test_a_bad_answer_beside_one_that_breaks_off_is_tried_again_where_the_route_says_so() -> None:
    async def breaks(peer: RawPeer) -> None:
        await peer.request()
        await asyncio.sleep(0.2)

    route = "retry: {attempts: 1, on: [5xx]}"
    async with stage(breaks, after(0.0, BAD), after(0.0), route=route) as to:
        assert (await to.ask()).status == 200
        assert to.requests == [1, 1, 1]


async def test_a_hung_endpoint_does_not_hide_behind_hedges() -> None:
    """It has lost five times in a row, and is ejected; the breaker has counted nothing."""
    route = "retry: {budget: {ratio: 1.0}}"
    async with stage(hang, after(0.01), upstream="ejection: {base: 60s}", route=route) as to:
        for _ in range(12):
            await to.seconds()
        cluster = to.worker.assembly.clusters["app"]
        healths = [pool.standing.health for pool in cluster.pools]
        assert healths == [Health.EJECTED, Health.USABLE]
        assert "lost to a hedge" in cluster.pools[0].standing.why
        tally = to.worker.assembly.breakers["app", "app"].tally
        assert (tally.failed, tally.ignored) == (0, 5)
        assert await to.seconds() < 0.05


async def test_an_upstream_that_hangs_as_a_whole_opens_its_breaker_all_the_same() -> None:
    route = "timeouts: {request: 1s}"
    async with stage(hang, hang, route=route, upstream="ejection: {consecutive_failures: 0}") as to:
        statuses = [(await to.ask()).status for _ in range(10)]
        assert statuses[:2] == [504, 504]
        assert statuses[-1] == 503


async def test_where_there_is_one_endpoint_nothing_is_hedged_and_it_is_counted() -> None:
    async with stage(after(0.5)) as to:
        await to.seconds()
        assert to.requests == [1]
        assert to.metric('sidecar_hedge_not_sent_total{sidecar_route="app",sidecar_listener="inbound",') == 1


async def test_a_client_that_leaves_ends_both() -> None:
    async with stage(hang, hang) as to:
        async with raw_client(port(to.worker)) as client:
            await client.send(get(b"/"))
            await asyncio.sleep(0.2)
            assert to.worker.assembly.clusters["app"].in_flight == 2
        await asyncio.sleep(0.1)
        assert to.worker.assembly.clusters["app"].in_flight == 0


async def test_in_an_overload_of_the_sidecar_nothing_is_hedged() -> None:
    async with stage(after(0.5), after(0.0)) as to:
        asked = asyncio.create_task(to.seconds())
        await asyncio.sleep(0.05)
        to.worker.service.shut.press(frozenset({"inbound"}))
        assert await asked >= 0.5
        assert to.requests == [1, 0]
        to.worker.service.shut.press(frozenset())


async def test_two_hedges_where_the_route_says_so() -> None:
    async with stage(hang, hang, after(0.0), hedge="hedge: {after: 100ms, max: 2}") as to:
        assert 0.2 <= await to.seconds() < 0.22


async def test_the_budget_of_retries_bounds_hedges() -> None:
    route = "retry: {budget: {ratio: 0.1, min_per_second: 0}}"
    async with stage(after(0.11), after(0.11), route=route) as to:
        for _ in range(100):
            await to.seconds()
        assert 8 <= sum(to.requests) - 100 <= 14
        assert to.metric("sidecar_hedge_not_sent_total{") == 200 - sum(to.requests)


async def test_after_the_p95_under_six_of_a_hundred_are_sent_twice_though_all_become_slow() -> None:
    slow = 0.005

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(slow)
            await peer.send(OK)

    async with stage(script, script, hedge="hedge: {after: p95}") as to:
        for _ in range(400):
            await to.seconds()
        before = sum(to.requests)
        assert before - 400 <= 0.058 * 400 + 10
        slow = 0.05
        for _ in range(400):
            await to.seconds()
        assert sum(to.requests) - before - 400 <= 0.058 * 400 + 10


async def test_nothing_is_hedged_by_the_p95_while_too_few_answers_are_known() -> None:
    async with stage(after(5.0), after(0.0), hedge="hedge: {after: p95}") as to:
        assert await to.seconds() >= 5.0


async def test_a_probe_is_never_hedged() -> None:
    route = "circuit_breaker: {consecutive_failures: 1, open_for: 1s, max_open_for: 1s}"
    slow = 0.0

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(slow)
            await peer.send(OK)

    async with stage(script, script, route=route) as to:
        breaker = to.worker.assembly.breakers["app", "app"]
        breaker.machine.trip(TransitionReason.CONSECUTIVE_FAILURES, to.worker.service.clock())
        await asyncio.sleep(1.5)
        slow = 0.5
        await to.seconds()
        assert sum(to.requests) == 1


async def test_the_loser_enters_the_p95_with_the_time_that_it_had() -> None:
    """Else the p95 would sink with each that is cut, and with it the time until the next hedge."""
    async with stage(lasting(0.01, HANGS), lasting(0.01, 0.02), hedge="hedge: {after: p95}") as to:
        durations = to.worker.assembly.breakers["app", "app"].durations
        for _ in range(25):
            durations.add(0.1)
        await to.seconds()
        await to.seconds()
        known = len(durations)
        assert 0.1 <= await to.seconds() < 0.13
        assert len(durations) == known + 2


def _one_stream_at_a_time() -> Connection:
    return Connection(Role.SERVER, Http2Settings(max_concurrent_streams=1))


@pytest.mark.parametrize(
    ("time", "route"),
    [(b"x-request-timeout-ms: 300", ""), (b"grpc-timeout: 205500u", ", timeouts: {attempt: 200ms}")],
    ids=["deadline", "attempt_just_before_it"],
)
async def test_a_hedge_that_waits_in_line_when_the_time_is_up_is_not_given_the_place_of_the_first(
    time: bytes, route: str
) -> None:
    """The place that the first one leaves would go to the hedge in the middle of their common end."""
    loop = asyncio.get_running_loop()
    with Complaints(loop) as complaints:
        async with AsyncExitStack() as stack:
            hanging = [http2_app(_one_stream_at_a_time, lambda *_: None, lambda _: None) for _ in range(2)]
            ports = [await stack.enter_async_context(one) for one in hanging]
            endpoints = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
            routes = f"""\
upstreams:
  app:
    endpoints: [{endpoints}]
    protocol: http2
    load_balancing: {{policy: round_robin}}
    limits: {{max_connections: 2}}
routes:
- {{name: app, upstream: app, {HEDGE}{route}}}
- {{name: holder, match: {{path: {{exact: /holder}}}}, upstream: app}}
"""
            worker = await stack.enter_async_context(running(routes))
            (cluster,) = worker.assembly.clusters.values()
            holder = await stack.enter_async_context(raw_client(port(worker)))
            await holder.send(get(b"/holder"))
            await asyncio.sleep(0.05)
            client = await stack.enter_async_context(raw_client(port(worker)))
            await client.send(get(b"/", time))
            await asyncio.sleep(0.15)
            assert (cluster.in_flight, cluster.pending) == (3, 1), "its hedge stands in line"
            (response,) = await client.responses([b"GET"])
            assert (response.status, cluster.in_flight, cluster.pending) == (504, 1, 0)
    assert complaints.found == []
