"""Bad endpoints among good ones, through real sockets: they are left out, and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from sidecar.admin import views
from sidecar.config.load import load_text
from sidecar.core.ejection.change import EndpointChange, Health
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import OK, get, saying, scraped
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, RawUpstream, raw_client, raw_upstream

FAILING = saying(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")


async def ask(to: int) -> int:
    """Later than what failed before counts in the load of its endpoint."""
    await asyncio.sleep(0.11)
    async with raw_client(to) as client:
        await client.send(get(b"/"))
        (response,) = await client.responses([b"GET"])
        return response.status


async def ask_to_the_end(to: int) -> None:
    """Whatever the answer is, until the connection closes."""
    await asyncio.sleep(0.11)
    async with raw_client(to) as client:
        await client.send(get(b"/", b"Connection: close"))
        await client.read_to_end()


def routes_to(*ports: int, more: str = "") -> str:
    endpoints = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
    return f"""\
upstreams: {{app: {{endpoints: [{endpoints}]{more}}}}}
routes: [{{name: app, upstream: app}}]
"""


class Stage:
    """Good apps, bad apps, and a sidecar before them."""

    def __init__(self, worker: Worker, good: list[RawUpstream], bad: list[RawUpstream]) -> None:
        self.worker = worker
        self.good, self.bad = good, bad
        self.cluster = worker.assembly.clusters["app"]
        self.told: list[EndpointChange] = []
        tell = self.cluster.on_endpoint

        def told(change: EndpointChange) -> None:
            self.told.append(change)
            tell(change)

        self.cluster.on_endpoint = told

    async def ask(self, count: int = 1) -> list[int]:
        return [await ask(port(self.worker)) for _ in range(count)]

    async def until_ejected(self) -> int:
        """Returns how many requests failed until an endpoint was left out."""
        failed = 0
        for _ in range(200):
            failed += (await ask(port(self.worker))) >= 500
            if self.worker.assembly.clusters["app"].peers.ejected:
                return failed
        raise AssertionError("no endpoint was ejected")

    def health_of(self, app: RawUpstream) -> Health:
        pools = self.worker.assembly.clusters["app"].pools
        return next(pool.standing.health for pool in pools if pool.endpoint.port == app.port)


@asynccontextmanager
async def stage(
    good: int, bad: int, script: Callable[[RawPeer], Awaitable[None]] = FAILING, more: str = ""
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        well = [await stack.enter_async_context(raw_upstream()) for _ in range(good)]
        ill = [await stack.enter_async_context(raw_upstream(script)) for _ in range(bad)]
        ports = [one.port for one in (*well, *ill)]
        worker = await stack.enter_async_context(running(routes_to(*ports, more=more)))
        yield Stage(worker, well, ill)
        await assert_clean(worker)


async def test_a_failing_endpoint_is_left_out_after_five_failures_of_which_its_clients_see_one() -> None:
    async with stage(2, 1) as to:
        assert await to.until_ejected() == 1
        served = len(to.bad[0].requests)
        assert await to.ask(100) == [200] * 100
        assert len(to.bad[0].requests) == served == 5
        assert to.worker.assembly.breakers["app", "app"].state is State.CLOSED
        assert to.worker.assembly.breakers["app", "app"].numbers(0.0).window.failed == 0
        (change,) = to.told
        assert change.told == (
            f"app: 127.0.0.1:{to.bad[0].port} is left out for 30 s: 5 failures in a row, the last one: 500"
        )


async def test_it_is_taken_back_after_its_time_and_left_out_for_longer_if_it_still_fails() -> None:
    async with stage(2, 1) as to:
        await to.until_ejected()
        await asyncio.sleep(29.9)
        assert to.health_of(to.bad[0]) is Health.EJECTED
        await asyncio.sleep(0.2)
        assert to.health_of(to.bad[0]) is Health.USABLE
        await asyncio.sleep(10.0)  # its slow start is over
        assert await to.until_ejected() == 0, "it is suspect until it has answered well for a while"
        assert len(to.bad[0].requests) == 10
        assert [change.health for change in to.told] == [Health.EJECTED, Health.USABLE, Health.EJECTED]
        assert to.told[-1].seconds == 60.0


async def test_what_is_back_begins_with_a_tenth_of_its_share() -> None:
    async with stage(2, 1) as to:
        await to.until_ejected()
        await asyncio.sleep(30.1)
        before = len(to.bad[0].requests)
        await to.ask(100)
        assert len(to.bad[0].requests) - before < 15


async def test_where_all_fail_the_breaker_opens_and_where_all_are_well_again_all_are_used() -> None:
    is_well = False

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(OK if is_well else b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")

    async with stage(0, 4, script) as to:
        await to.ask(40)
        assert to.worker.assembly.breakers["app", "app"].state is State.OPEN
        is_well = True
        await asyncio.sleep(6.0)
        assert set(await to.ask(200)) == {200}
        assert [to.health_of(app) for app in to.bad] == [Health.USABLE] * 4
        assert min(len(app.requests) for app in to.bad) > 20


async def test_a_reload_with_another_list_of_endpoints_keeps_who_is_left_out() -> None:
    async with stage(2, 1) as to, raw_upstream() as further:
        await to.until_ejected()
        served = len(to.bad[0].requests)
        ports = [one.port for one in (*to.good, *to.bad)]
        snapshot = load_text(HEADER + routes_to(*ports, further.port)).snapshot
        await to.worker.control.active.install(snapshot)
        assert to.health_of(to.bad[0]) is Health.EJECTED
        assert await to.ask(100) == [200] * 100
        assert len(to.bad[0].requests) == served
        assert len(further.requests) > 10
        await asyncio.sleep(30.1)
        assert to.health_of(to.bad[0]) is Health.USABLE


async def test_a_reload_that_switches_it_off_takes_all_back() -> None:
    async with stage(2, 1) as to:
        await to.until_ejected()
        ports = [one.port for one in (*to.good, *to.bad)]
        snapshot = load_text(HEADER + routes_to(*ports, more=", ejection: {mode: off}")).snapshot
        await to.worker.control.active.install(snapshot)
        assert to.health_of(to.bad[0]) is Health.USABLE
        assert 500 in await to.ask(400)


async def test_admin_and_metrics_say_who_is_left_out_why_and_for_how_long() -> None:
    async with stage(2, 1) as to:
        await to.until_ejected()
        now = to.worker.service.clock()
        told = views.upstream(to.cluster, views.Moment(now, 0.0), lambda _: None)["endpoints"]
        assert [(one["state"], one["failures_in_row"], one["ejections"]) for one in told] == [
            ("usable", 0, 0), ("usable", 0, 0), ("ejected", 5, 1),
        ]  # fmt: skip
        assert told[2]["why"] == "5 failures in a row, the last one: 500"
        assert 29.0 < told[2]["ejected_seconds_left"] <= 30.0
        endpoints = 'sidecar_ejection_endpoints{sidecar_upstream="app",sidecar_endpoint_state="%s"}'
        assert [scraped(to.worker, endpoints % state) for state in ("usable", "ejected", "spared")] == [
            2,
            1,
            0,
        ]
        reason = 'sidecar_ejection_ejections_total{sidecar_upstream="app",sidecar_ejection_reason="%s"}'
        assert scraped(to.worker, reason % "consecutive_failures") == 1
        assert scraped(to.worker, reason % "failure_rate") == 0


async def test_an_endpoint_that_refuses_costs_nobody_anything_and_is_left_out() -> None:
    (dead,) = free_ports(1)
    async with (
        raw_upstream() as one,
        raw_upstream() as two,
        running(routes_to(one.port, two.port, dead)) as worker,
    ):
        assert {await ask(port(worker)) for _ in range(60)} == {200}
        assert worker.assembly.clusters["app"].peers.ejected == 1
        await assert_clean(worker)


async def test_an_answer_that_stands_still_counts_for_its_endpoint_alone() -> None:
    async def stalls(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            await asyncio.sleep(1000.0)

    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(raw_upstream())
        bad = await stack.enter_async_context(raw_upstream(stalls))
        routes = routes_to(good.port, bad.port).replace(
            "upstream: app}", "upstream: app, timeouts: {request: off, idle: 5s}}"
        )
        worker = await stack.enter_async_context(running(routes))
        for _ in range(40):
            await ask_to_the_end(port(worker))
        assert len(bad.requests) == 5
        assert worker.assembly.clusters["app"].peers.ejected == 1
        assert worker.assembly.breakers["app", "app"].numbers(0.0).failed == 0
        await assert_clean(worker)
