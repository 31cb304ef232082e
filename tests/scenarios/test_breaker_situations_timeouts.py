"""Situations in which a timeout says something of the upstream, of its caller, or of nobody but ourselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.transition import State, TransitionReason
from sidecar.runtime.worker import Worker
from tests.scenarios.changing import App, answers, hangs, openings
from tests.scenarios.stage import GET, OK, Stage, app_routes, get, hang, inbound, stage
from tests.support.clean import assert_clean
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, Request, Response, raw_client, raw_upstream, turns

BUDGET = b"x-request-timeout-ms: %d"
GATEWAY_TIMEOUT = b"HTTP/1.1 504 X\r\nContent-Length: 0\r\n\r\n"
STRANGERS = inbound("trust: none")
FIELDS = [
    (b"x-request-timeout-ms", b"1150", 504),
    (b"grpc-timeout", b"1150m", 504),
    (b"l5d-timeout", b"1150ms", 504),
    (b"x-envoy-expected-rq-timeout-ms", b"1150", 200),
    (b"x-envoy-upstream-rq-timeout-ms", b"1150", 200),
]
"""What a stranger may say, and what comes of it: fields of the mesh's own are not believed."""


async def ask_with(to: Stage, milliseconds: int, count: int) -> Counter[int]:
    """The statuses of so many requests at once, each with this budget."""
    request = get(b"/", BUDGET % milliseconds)
    return Counter([one.status for one in await asyncio.gather(*(to.ask(request) for _ in range(count)))])


@dataclass
class Out:
    """An outbound route of one sidecar, to the inbound listener of another."""

    worker: Worker

    @property
    def breaker(self) -> Breaker:
        return self.worker.assembly.breakers["out", "next"]

    async def ask(self) -> Response:
        async with raw_client(port(self.worker, "outbound")) as client:
            await client.send(GET)
            (response,) = await client.responses([b"GET"])
            return response


@asynccontextmanager
async def calling(called: Worker, timeouts: str) -> AsyncIterator[Out]:
    out = f"""\
upstreams: {{next: {{endpoints: ["127.0.0.1:{port(called)}"]}}}}
routes: [{{name: out, listener: outbound, upstream: next, timeouts: {{{timeouts}}}}}]
"""
    async with running(out) as worker:
        yield Out(worker)
        await assert_clean(worker)


async def statuses(out: Out, count: int) -> list[int]:
    return [(await out.ask()).status for _ in range(count)]


# How long a timeout must have lasted


@pytest.mark.parametrize("milliseconds", [800, 1000, 1005, 5000])
async def test_callers_who_say_a_second_trip_a_hung_upstream(milliseconds: int) -> None:
    async with stage(hang) as to:
        assert await ask_with(to, milliseconds, 5) == {504: 5}
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_callers_of_half_a_second_say_nothing_of_an_unknown_upstream() -> None:
    async with stage(hang) as to:
        assert await ask_with(to, 500, 5) == {504: 5}
        assert to.breaker.state is State.CLOSED


async def test_where_answers_take_ten_milliseconds_callers_of_a_tenth_of_a_second_trip_a_hang() -> None:
    app = App(answers(OK, after=0.01))
    async with stage(app) as to:
        for _ in range(20):
            assert (await to.ask()).status == 200
        app.act = hangs
        assert await ask_with(to, 40, 10) == {504: 10}
        assert to.breaker.state is State.CLOSED, "50 ms are the least that counts"
        assert await ask_with(to, 100, 5) == {504: 5}
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_a_limit_of_the_calling_sidecar_opens_the_breaker_of_the_called_one() -> None:
    """The README's own example: `attempt: 800ms` outbound. What arrives inbound is a little less."""
    async with raw_upstream(hang) as app, running(app_routes(app.port)) as called:
        async with calling(called, "attempt: 800ms") as out:
            assert await statuses(out, 5) == [504] * 5
            assert out.breaker.state is State.OPEN
        assert called.assembly.breakers["app", "app"].state is State.OPEN


async def test_a_limit_to_the_head_is_no_limit_to_what_the_next_sidecar_may_take() -> None:
    """The body may take longer: who is told 200 ms would cut it."""

    async def late(peer: RawPeer, request: Request) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await asyncio.sleep(2.0)
        await peer.send(b"ok")

    async with raw_upstream(App(late)) as app, running(app_routes(app.port)) as called:
        async with calling(called, "head: 200ms, request: 10s") as out:
            assert (await out.ask()).body == b"ok"
        (request,) = app.requests
        assert 9_900 <= int(request.value(b"x-envoy-expected-rq-timeout-ms") or b"0") <= 10_000


async def test_a_second_passed_on_by_three_sidecars_still_trips_the_last_one() -> None:
    """Each takes its offset off: what says 1,000 ms arrives with 985, and what says 800 with 785."""
    async with (
        raw_upstream(hang) as app,
        running(app_routes(app.port)) as third,
        running(app_routes(port(third), upstream="mesh: true")) as second,
        running(app_routes(port(second), upstream="mesh: true")) as first,
    ):
        async with raw_client(port(first)) as client:
            await client.send(get(b"/", BUDGET % 800) * 5)
            assert {one.status for one in await client.responses([b"GET"] * 5)} == {504}
        assert third.assembly.breakers["app", "app"].state is State.OPEN


@pytest.mark.parametrize("key", ["request", "attempt", "head"])
async def test_the_routes_own_limit_counts_however_short_it_is(key: str) -> None:
    async with stage(hang, route=f"timeouts: {{{key}: 50ms}}") as to:
        for _ in range(5):
            assert (await to.ask()).status == 504
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


# Strangers


@pytest.mark.parametrize(("name", "value", "status"), FIELDS, ids=[name.decode() for name, *_ in FIELDS])
async def test_five_strangers_with_a_budget_do_not_open_the_route_for_everybody(
    name: bytes, value: bytes, status: int
) -> None:
    async with stage(App(answers(OK, after=1.3)), header=STRANGERS) as to:
        request = get(b"/slow", name + b": " + value)
        answered = await asyncio.gather(*(to.ask(request) for _ in range(5)))
        assert [one.status for one in answered] == [status] * 5
        assert to.breaker.state is State.CLOSED
        assert (await to.ask(get(b"/slow"))).status == 200


async def test_strangers_do_open_it_by_the_routes_own_limit() -> None:
    async with stage(hang, header=STRANGERS, route="timeouts: {request: 1s}") as to:
        assert await ask_with(to, 5000, 5) == {504: 5}
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_strangers_alone_before_a_hang_open_it_by_silence() -> None:
    async with stage(hang, header=STRANGERS) as to:
        assert await ask_with(to, 1150, 19) == {504: 19}
        assert to.breaker.state is State.CLOSED
        assert await ask_with(to, 1150, 1) == {504: 1}
        assert openings(to) == [TransitionReason.FAILURE_RATE]


async def test_strangers_before_a_slow_path_open_nothing_while_others_are_served() -> None:
    async def act(peer: RawPeer, request: Request) -> None:
        if request.target == b"/slow":
            await asyncio.sleep(1.3)
        await peer.send(OK)

    async with stage(App(act), header=STRANGERS) as to:
        for _ in range(4):
            assert (await to.ask()).status == 200
            request = get(b"/slow", BUDGET % 1150)
            answered = await asyncio.gather(*(to.ask(request) for _ in range(25)))
            assert [one.status for one in answered] == [504] * 25
        assert to.breaker.state is State.CLOSED


# A 504 of the upstream


@pytest.mark.parametrize("policy", ["", "circuit_breaker: {failure_on: [504]}"], ids=["5xx", "504"])
@pytest.mark.parametrize("after", [0.0, 0.5])
async def test_a_genuine_504_counts_whatever_budget_its_caller_had(policy: str, after: float) -> None:
    async with stage(App(answers(GATEWAY_TIMEOUT, after)), route=policy) as to:
        assert await ask_with(to, 2000, 5) == {504: 5}
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_a_504_at_the_end_of_a_long_budget_counts_as_our_own_timeout_would() -> None:
    """An app that hangs behind another sidecar, which says so a moment before us."""
    async with stage(App(answers(GATEWAY_TIMEOUT, 1.99))) as to:
        assert await ask_with(to, 2000, 5) == {504: 5}
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


@pytest.mark.parametrize(
    ("policy", "is_counted"),
    [("", False), ("circuit_breaker: {failure_on: [504]}", True)],
    ids=["5xx", "504 by name"],
)
async def test_a_504_at_the_end_of_a_short_budget_counts_only_by_name(policy: str, is_counted: bool) -> None:
    async with stage(App(answers(GATEWAY_TIMEOUT, 0.285)), route=policy) as to:
        assert await ask_with(to, 300, 5) == {504: 5}
        assert to.breaker.state is (State.OPEN if is_counted else State.CLOSED)


# A quota


async def test_429_counts_in_the_rate_of_an_outbound_route_and_in_no_row() -> None:
    """There it is our own quota that is used up; inbound it is some caller's (`test_breaking`)."""
    quota = answers(b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n")
    async with raw_upstream(App(quota)) as app:
        routes = f"""\
upstreams: {{next: {{endpoints: ["127.0.0.1:{app.port}"]}}}}
routes: [{{name: out, listener: outbound, upstream: next}}]
"""
        async with running(routes) as worker:
            out = Out(worker)
            assert await statuses(out, 21) == [429] * 20 + [503]
            assert [one.reason for one in out.breaker.history] == [TransitionReason.FAILURE_RATE]


# Our own queue


async def test_forty_in_our_line_for_one_connection_are_not_the_upstreams_slowness() -> None:
    policy = "circuit_breaker: {slow_call_duration: 500ms, slow_call_rate_threshold: 50%}"
    app = App(answers(OK, after=0.1))
    async with stage(app, route=policy, upstream="limits: {max_connections: 1}") as to:
        answered = await asyncio.gather(*(to.ask() for _ in range(40)))
        assert Counter(one.status for one in answered) == {200: 40}
        assert (to.breaker.state, to.breaker.tally.slow) == (State.CLOSED, 0)


async def test_timeouts_in_our_line_are_not_the_upstreams() -> None:
    app = App(answers(OK, after=0.1))
    route = "timeouts: {request: 1s}"
    async with stage(app, route=route, upstream="limits: {max_connections: 1}") as to:
        answered = await asyncio.gather(*(to.ask() for _ in range(40)))
        counted = Counter(one.status for one in answered)
        assert counted[200] + counted[504] == 40
        assert counted[504] >= 29
        assert len(to.requests) <= 11
        tally = to.breaker.tally
        assert (to.breaker.state, tally.failed, tally.successful) == (State.CLOSED, 0, counted[200])


async def test_a_full_line_is_not_the_upstreams_failure() -> None:
    limits = "limits: {max_connections: 1, max_pending: 2}"
    async with stage(App(answers(OK, after=0.1)), upstream=limits) as to:
        answered = await asyncio.gather(*(to.ask() for _ in range(40)))
        assert Counter(one.status for one in answered) == {200: 3, 503: 37}
        assert (to.breaker.state, to.breaker.tally.failed) == (State.CLOSED, 0)


async def test_what_the_upstream_did_with_the_one_connection_does_count() -> None:
    """The line is ours, but the one that was sent had its whole second there."""
    limits = "limits: {max_connections: 1}"
    async with stage(hang, route="timeouts: {request: 1s}", upstream=limits) as to:
        for _ in range(5):
            answered = await asyncio.gather(*(to.ask() for _ in range(3)))
            assert {one.status for one in answered} == {504}
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


@asynccontextmanager
async def _unaccepting() -> AsyncIterator[int]:
    """The port of somebody who accepts no connection: those in the kernel's queue fill it, and further ones wait."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listening, contextlib.ExitStack() as held:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        fillers = [held.enter_context(socket.socket()) for _ in range(8)]
        for one in fillers:
            one.setblocking(False)
        waiting = [asyncio.ensure_future(loop.sock_connect(one, address)) for one in fillers]
        await turns(20)
        yield address[1]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_connection_that_nobody_accepts_is_the_upstreams_time() -> None:
    policy = "circuit_breaker: {slow_call_duration: 300ms, slow_call_rate_threshold: 50%}"
    async with _unaccepting() as full, running(app_routes(full, route=policy)) as worker:
        breaker = worker.assembly.breakers["app", "app"]
        async with raw_client(port(worker)) as one:
            clients = [asyncio.create_task(_ask(port(worker))) for _ in range(20)]
            await asyncio.sleep(0.4)
            assert [found.reason for found in breaker.history] == [TransitionReason.SLOW_CALL_RATE]
            await one.send(GET)
            assert [found.status for found in await one.responses([b"GET"])] == [503]
        assert set(await asyncio.gather(*clients)) == {504}
        await assert_clean(worker)


async def _ask(to: int) -> int:
    """The status of one request at the inbound listener on this port."""
    async with raw_client(to) as client:
        await client.send(GET)
        (response,) = await client.responses([b"GET"])
        return response.status
