"""What becomes of a weighted upstream's share while its breaker refuses, and that no upstream is asked twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.snapshot import BreakerMode
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import OK, get, post, saying
from tests.support.clean import assert_clean
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, RawUpstream, Response, Script, raw_client, raw_upstream

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
GOOD, BAD = saying(OK), saying(FAILURE)


@dataclass
class Weighted:
    """A route with weights, and the upstreams by their names."""

    worker: Worker
    apps: dict[str, RawUpstream]

    def breaker(self, name: str) -> Breaker:
        return self.worker.assembly.breakers["app", name]

    def asked(self, name: str) -> int:
        """Requests that an upstream has had."""
        return len(self.apps[name].requests)

    async def ask(self, count: int, pause: float = 0.0, data: bytes = b"") -> list[Response]:
        """The answers to so many requests, one after another, with a pause behind each."""
        answers = []
        for _ in range(count):
            async with raw_client(port(self.worker)) as client:
                await client.send(data or get())
                answers += await client.responses([(data or b"GET").split()[0]])
            await asyncio.sleep(pause)
        return answers

    async def open(self, *names: str) -> None:
        """Let traffic open the breakers of these, which fail."""
        while not all(self.breaker(name).state is State.OPEN for name in names):
            await self.ask(1)


@asynccontextmanager
async def weighted(weights: str, route: str = "", **scripts: Script) -> AsyncIterator[Weighted]:
    """`weights` of the upstreams in `scripts`; `route`: further keys, in flow style."""
    async with AsyncExitStack() as stack:
        apps = {
            name: await stack.enter_async_context(raw_upstream(script)) for name, script in scripts.items()
        }
        upstreams = ", ".join(
            f'{name}: {{endpoints: ["127.0.0.1:{app.port}"]}}' for name, app in apps.items()
        )
        extra = f", {route}" if route else ""
        routes = f"upstreams: {{{upstreams}}}\nroutes: [{{name: app, weights: {{{weights}}}{extra}}}]\n"
        worker = await stack.enter_async_context(running(routes))
        worker.service.rng.seed(5)
        yield Weighted(worker, apps)
        await assert_clean(worker)


def statuses(answers: Sequence[Response]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


async def test_the_share_of_an_open_canary_goes_to_the_other() -> None:
    async with weighted("main: 50, canary: 50", main=GOOD, canary=BAD) as to:
        await to.open("canary")
        before = to.asked("canary")
        assert statuses(await to.ask(40)) == {200: 40}
        assert to.asked("canary") == before
        assert to.breaker("canary").tally.rejected > 0


async def test_a_probe_still_goes_to_the_canary_and_only_one_each_wait() -> None:
    async with weighted(
        "main: 50, canary: 50", "circuit_breaker: {max_open_for: 5s}", main=GOOD, canary=BAD
    ) as to:
        await to.open("canary")
        before = to.asked("canary")
        answers = statuses(await to.ask(300, pause=0.1))
        # 30 s of waits of 4.5 to 5 s: six probes at most, and each is a request that has failed.
        probes = to.asked("canary") - before
        assert 5 <= probes <= 6
        assert answers == {200: 300 - probes, 500: probes}


async def test_a_canary_that_is_well_again_gets_its_share_back() -> None:
    async with weighted("main: 50, canary: 50", main=GOOD, canary=saying(*[FAILURE] * 5, OK)) as to:
        # The script counts by connection, and the answers above leave each one open.
        while to.breaker("canary").state is not State.OPEN:
            await to.ask(1)
        await asyncio.sleep(5)
        assert statuses(await to.ask(20)) == {200: 20}
        assert to.breaker("canary").state is State.CLOSED
        before = to.asked("canary")
        await to.ask(100)
        assert 30 < to.asked("canary") - before < 70


async def test_a_small_one_takes_no_more_than_twice_its_share() -> None:
    """The breaker of 90 % is open: the canary of 10 % gets 20 % of the requests, and the rest is refused."""
    async with weighted("main: 90, canary: 10", main=BAD, canary=GOOD) as to:
        await to.open("main")
        before = to.asked("canary")
        answers = statuses(await to.ask(500))
        assert answers.keys() == {200, 503}
        assert 70 < answers[200] < 130
        assert to.asked("canary") - before == answers[200]


@pytest.mark.parametrize(("up_to", "least", "most"), [("1", 30, 70), ("5", 210, 290), ("100", 500, 500)])
async def test_how_much_more_is_configured(up_to: str, least: int, most: int) -> None:
    async with weighted("main: 90, canary: 10", f"shift_up_to: {up_to}", main=BAD, canary=GOOD) as to:
        await to.open("main")
        assert least <= statuses(await to.ask(500))[200] <= most


async def test_a_share_that_is_kept_is_refused() -> None:
    async with weighted("main: 50, canary: 50", "weights_when_open: keep", main=GOOD, canary=BAD) as to:
        await to.open("canary")
        answers = await to.ask(40)
        assert 10 < statuses(answers)[503] < 30
        refused = next(answer for answer in answers if answer.status == 503)
        assert b"canary" in (refused.value(b"proxy-status") or b"")


async def test_the_shares_of_two_go_to_the_third() -> None:
    """Two thirds are refused; at most as much again as the third has anyway is taken over: two thirds in all."""
    async with weighted("a: 1, b: 1, c: 1", a=BAD, b=BAD, c=GOOD) as to:
        await to.open("a", "b")
        answers = statuses(await to.ask(300))
        assert 160 < answers[200] < 240
        assert answers[503] == 300 - answers[200]


async def test_where_all_are_open_one_breaker_refuses_and_the_others_are_not_asked() -> None:
    async with weighted("a: 1, b: 1", a=BAD, b=BAD) as to:
        await to.open("a", "b")
        before = [to.breaker(name).tally.rejected for name in "ab"]
        answers = await to.ask(20)
        after = [to.breaker(name).tally.rejected for name in "ab"]
        assert statuses(answers) == {503: 20}
        assert sum(after) - sum(before) == 20
        assert all(now > then for now, then in zip(after, before, strict=True))


async def test_one_that_only_measures_takes_over_though_it_would_refuse() -> None:
    async with weighted("a: 1, b: 1", a=BAD, b=BAD) as to:
        await to.open("a", "b")
        assert to.breaker("b").is_shut
        policy = replace(to.breaker("b").policy, mode=BreakerMode.METRICS_ONLY)
        to.breaker("b").reconfigure(policy, to.worker.service.clock())
        assert not to.breaker("b").is_shut
        assert statuses(await to.ask(20)) == {500: 20}


async def test_what_the_others_have_no_room_for_is_refused_too() -> None:
    """The share goes to the others within their limits."""

    async def slowly(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(1)
            await peer.send(OK)

    async with weighted("main: 50, canary: 50", main=slowly, canary=BAD) as to:
        await to.open("canary")
        cluster = to.worker.assembly.clusters["main"]
        cluster.in_flight += cluster.policy.limits.max_requests - 2
        answers = [
            answer for asked in await asyncio.gather(*[to.ask(1) for _ in range(10)]) for answer in asked
        ]
        cluster.in_flight -= cluster.policy.limits.max_requests - 2
        assert statuses(answers) == {200: 2, 503: 8}


async def test_a_fallback_that_was_asked_already_is_not_asked_again() -> None:
    """The canary is a member and the fallback: its breaker refuses each request once."""
    async with weighted(
        "main: 50, canary: 50", "weights_when_open: keep, fallback: {upstream: canary}", main=GOOD, canary=BAD
    ) as to:
        await to.open("canary")
        tally = to.breaker("canary").tally
        before = tally.rejected
        answers = statuses(await to.ask(40))
        assert answers[503] == tally.rejected - before
        assert answers[200] == 40 - answers[503]


async def test_an_upstream_that_is_its_own_fallback_is_asked_once() -> None:
    async def hang(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async with weighted(
        "main: 1", "timeouts: {request: 2s, attempt: 500ms}, fallback: {upstream: main}", main=hang
    ) as to:
        assert statuses(await to.ask(1, data=post(b""))) == {504: 1}
        assert statuses(await to.ask(1)) == {504: 1}
        assert to.breaker("main").tally.total == 2


async def test_a_fallback_beside_the_weights_serves_what_nobody_takes() -> None:
    async with weighted("a: 1, b: 1", "fallback: {upstream: spare}", a=BAD, b=BAD, spare=GOOD) as to:
        await to.open("a", "b")
        before = to.asked("spare")
        assert statuses(await to.ask(20)) == {200: 20}
        assert to.asked("spare") == before + 20
