"""What is tried again, on which endpoint, with which body, and what the client gets, through real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from sidecar.core.override import Override
from sidecar.core.transition import State
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import OK, get, post, scraped, tried_again
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, RawUpstream, Response, ask, raw_client, raw_upstream, turns

Script = Callable[[RawPeer], Awaitable[None]]
BAD = b"HTTP/1.1 503 X\r\nContent-Length: 3\r\nx-try: 1\r\n\r\nbad"
CHUNKED = b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n"
RETRY = "retry: {attempts: 2, on: [connect_failure, refused, reset, attempt_timeout, 5xx]}"


class Stage:
    def __init__(self, worker: Worker, apps: list[RawUpstream]) -> None:
        self.worker = worker
        self.apps = apps

    async def ask(self, data: bytes = get(b"/")) -> Response:
        return await ask(port(self.worker), data)

    @property
    def requests(self) -> int:
        return sum(len(app.requests) for app in self.apps)


@asynccontextmanager
async def stage(*scripts: Script, retry: str = RETRY, route: str = "", dead: int = 0) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream(script)) for script in scripts]
        ports = [*(app.port for app in apps), *free_ports(dead)]
        endpoints = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
        routes = f"""\
upstreams: {{app: {{endpoints: [{endpoints}]}}}}
routes: [{{name: app, upstream: app, {retry}{route and ", " + route}}}]
"""
        worker = await stack.enter_async_context(running(routes))
        yield Stage(worker, apps)
        await assert_clean(worker)


def then(*answers: bytes) -> Script:
    """These in turn, whatever the connection; the last one again and again."""
    left = list(answers)

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


@pytest.mark.parametrize("bad", [BAD, CHUNKED], ids=["whole", "in pieces"])
async def test_a_bad_answer_is_bettered_by_another_try(bad: bytes) -> None:
    async with stage(then(bad, OK)) as to:
        assert (await to.ask()).status == 200
        assert to.requests == 2
        assert scraped(to.worker, "sidecar_retry_attempts_total{") == 1
        assert tried_again(to.worker) == {"status": 1}


async def test_why_something_may_be_tried_again_has_its_series_before_it_is() -> None:
    async with stage(then(OK)) as to:
        (route,) = [one for one in to.worker.numbers.routes() if one.name == "app"]
        causes = (
            "connect_failure",
            "refused",
            "stale_connection",
            "suspect",
            "reset",
            "attempt_timeout",
            "status",
            "grpc_status",
        )
        assert {(name, cause.value): count for (name, cause), count in route.retries.items()} == {
            ("app", cause): 0 for cause in causes
        }


async def test_a_second_try_goes_to_another_endpoint_and_says_what_it_is() -> None:
    async with stage(then(BAD), then(BAD), retry=RETRY.replace("2", "1")) as to:
        for _ in range(2):
            assert (await to.ask()).status == 503
        assert [len(app.requests) for app in to.apps] == [2, 2]
        marks = [request.value(b"x-sidecar-retry") for app in to.apps for request in app.requests]
        assert sorted(marks, key=bool) == [None, None, b"1", b"1"]


async def test_without_retry_nothing_is_tried_again() -> None:
    async with stage(then(BAD, OK), retry="retry: {attempts: 0, on: [5xx]}") as to:
        assert (await to.ask()).status == 503
        assert to.requests == 1


async def test_the_last_answer_is_the_clients_when_tries_are_used_up() -> None:
    async with stage(then(BAD)) as to:
        response = await to.ask()
        assert (response.status, response.body) == (503, b"bad")
        assert to.requests == 3


@pytest.mark.parametrize(("more", "requests"), [("", 1), (", non_idempotent: true", 2)])
async def test_a_post_is_tried_again_only_where_the_route_says_so(more: str, requests: int) -> None:
    async with stage(then(BAD, OK), retry=RETRY.replace("}", more + "}")) as to:
        await to.ask(post(b"x" * 100))
        assert to.requests == requests


async def test_each_byte_of_a_body_is_sent_again() -> None:
    body = bytes(range(256)) * 200
    async with stage(then(BAD, BAD, OK), retry=RETRY.replace("}", ", non_idempotent: true}")) as to:
        async with raw_client(port(to.worker)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            for begin in range(0, len(body), 7000):
                await client.send(body[begin : begin + 7000])
                await asyncio.sleep(0.001)
            (response,) = await client.responses([b"POST"])
        assert response.status == 200
        assert [request.body for request in to.apps[0].requests] == [body] * 3


async def test_a_body_longer_than_the_buffer_is_not_sent_again() -> None:
    body = b"x" * 5000
    retry = RETRY.replace("}", ", non_idempotent: true, buffer: 4KiB}")
    async with stage(then(BAD, OK), retry=retry) as to:
        assert (await to.ask(post(body))).status == 503
        assert to.requests == 1
        assert (await to.ask(post(body[:4000]))).status == 200


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_nor_is_one_of_which_nothing_had_come_when_its_head_was_sent(*, is_chunked: bool) -> None:
    body = b"x" * 5000
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 5000"
    retry = RETRY.replace("}", ", non_idempotent: true, buffer: 4KiB}")
    async with stage(then(OK, BAD, OK), retry=retry) as to:
        await to.ask()  # for the connection that takes the head at once
        async with raw_client(port(to.worker)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing)
            while not to.worker.service.exchanges:
                await turns()
            for piece in (body[:2500], body[2500:]):
                await client.send(b"9c4\r\n%b\r\n" % piece if is_chunked else piece)
                await turns()
            if is_chunked:
                await client.send(b"0\r\n\r\n")
            (response,) = await client.responses([b"POST"])
        assert (response.status, response.body) == (503, b"bad")
        assert [request.body for request in to.apps[0].requests] == [b"", body]


async def test_what_is_a_retry_already_is_not_tried_again() -> None:
    marked = get(b"/", b"x-sidecar-retry: 1")
    async with stage(then(BAD)) as to:
        assert (await to.ask(marked)).status == 503
        assert to.requests == 1
        assert to.apps[0].requests[0].value(b"x-sidecar-retry") == b"1"
    async with stage(then(BAD), retry=RETRY.replace("}", ", nested: true}")) as to:
        assert (await to.ask(marked)).status == 503
        assert to.requests == 3


async def test_an_attempts_own_timeout_leads_to_another_try() -> None:
    slow = True

    async def script(peer: RawPeer) -> None:
        nonlocal slow
        while await peer.request() is not None:
            if slow:
                slow = False
                await asyncio.sleep(10.0)
            await peer.send(OK)

    async with stage(script, route="timeouts: {request: 5s, attempt: 1s}") as to:
        begun = to.worker.service.clock()
        assert (await to.ask()).status == 200
        assert 1.0 <= to.worker.service.clock() - begun < 1.2
        assert tried_again(to.worker) == {"attempt_timeout": 1}


async def test_nothing_is_tried_beyond_the_deadline() -> None:
    slow = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nRetry-After: 10\r\n\r\n"
    async with stage(then(slow, OK), route="timeouts: {request: 5s}") as to:
        begun = to.worker.service.clock()
        assert (await to.ask()).status == 503
        assert to.worker.service.clock() - begun < 1.0
        assert to.requests == 1


@pytest.mark.parametrize(
    "fields",
    [
        b"Retry-After: 2",
        # By the upstream's own clock, whatever that shows.
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:39 GMT",
    ],
)
async def test_what_an_answer_asks_to_wait_is_waited(fields: bytes) -> None:
    asking = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n%b\r\n\r\n" % fields
    async with stage(then(asking, OK), route="timeouts: {request: 5s}") as to:
        begun = to.worker.service.clock()
        assert (await to.ask()).status == 200
        assert 2.0 <= to.worker.service.clock() - begun < 2.1


@pytest.mark.parametrize(
    "fields",
    [
        b"Retry-After: Sun, 06 Nov 1994 08:49:39 GMT",
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:36 GMT",
        b"Date: now\r\nRetry-After: Sun, 06 Nov 1994 08:49:39 GMT",
        b"Retry-After: soon",
    ],
)
async def test_what_says_no_time_to_wait_is_not_waited_for(fields: bytes) -> None:
    asking = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n%b\r\n\r\n" % fields
    async with stage(then(asking, OK), route="timeouts: {request: 5s}") as to:
        begun = to.worker.service.clock()
        assert (await to.ask()).status == 200
        assert to.worker.service.clock() - begun < 0.5


async def test_while_the_breaker_is_not_closed_nothing_is_tried_again() -> None:
    async with stage(then(BAD), route="circuit_breaker: {consecutive_failures: 1}") as to:
        assert (await to.ask()).status == 503
        assert to.requests == 1
        breaker = to.worker.assembly.breakers["app", "app"]
        assert breaker.state is State.OPEN
        assert breaker.tally.rejected == 0


async def test_a_breaker_that_opens_in_the_wait_leaves_the_client_the_first_answer() -> None:
    async with stage(then(BAD), retry=RETRY.replace("}", ", backoff: {base: 1s, max: 1s}}")) as to:
        asked = asyncio.create_task(to.ask())
        await turns(50)
        assert (to.requests, asked.done()) == (1, False)
        breaker = to.worker.assembly.breakers["app", "app"]
        breaker.override(Override.OPEN, to.worker.service.clock(), 10.0)
        response = await asked
        assert (response.status, response.body) == (503, b"bad")
        assert to.requests == 1
        assert breaker.tally.rejected == 0


async def test_a_client_that_leaves_in_the_wait_ends_it() -> None:
    async with stage(then(BAD), retry=RETRY.replace("}", ", backoff: {base: 10s, max: 10s}}")) as to:
        async with raw_client(port(to.worker)) as client:
            await client.send(get(b"/"))
            await turns(50)
            assert to.requests == 1
        await asyncio.sleep(20.0)
        assert to.requests == 1


async def test_the_budget_bounds_what_is_tried_again_and_what_it_forbids_is_counted() -> None:
    policy = "circuit_breaker: {mode: disabled}"
    async with stage(then(BAD), retry=RETRY.replace("2", "1"), route=policy) as to:
        for _ in range(100):
            await to.ask()
        assert 103 <= to.requests <= 130
        forbidden = scraped(to.worker, "sidecar_retry_budget_exhausted_total{")
        assert forbidden == 200 - to.requests


async def test_a_reset_is_tried_again_where_the_route_names_it() -> None:
    first = True

    async def script(peer: RawPeer) -> None:
        nonlocal first
        while await peer.request() is not None:
            if first:
                first = False
                peer.writer.transport.abort()
                return
            await peer.send(OK)

    async with stage(script) as to:
        assert (await to.ask()).status == 200
        assert to.requests == 2
        assert tried_again(to.worker) == {"reset": 1}


async def test_endpoints_that_refuse_are_passed_over_as_long_as_tries_are_left() -> None:
    async with stage(then(OK), dead=2, retry="retry: {attempts: 3}") as to:
        for _ in range(10):
            assert (await to.ask()).status == 200
            await asyncio.sleep(1.0)
        assert set(tried_again(to.worker)) == {"connect_failure"}


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_endpoints_and_clients_do_no_permit_is_lost(seed: int) -> None:
    rng = random.Random(seed)

    async def moody(peer: RawPeer) -> None:
        while await peer.request() is not None:
            mood = rng.random()
            if mood < 0.2:
                peer.writer.transport.abort()
                return
            await asyncio.sleep(2.0 if mood < 0.3 else 0.01)
            await peer.send(rng.choice([OK, BAD, CHUNKED]))

    async def ask(to: Stage) -> None:
        async with raw_client(port(to.worker)) as client:
            await client.send(get(b"/") if rng.random() < 0.5 else post(b"x" * 3000))
            await asyncio.sleep(rng.choice([0.0, 0.02, 5.0]))  # and leaves, whether it was answered or not

    retry = RETRY.replace("}", ", non_idempotent: true, budget: {ratio: 100%}}")
    async with stage(
        moody, moody, moody, retry=retry, route="timeouts: {request: 4s, attempt: 1s}", dead=1
    ) as to:
        for _ in range(20):
            await asyncio.gather(*(ask(to) for _ in range(8)))
        await asyncio.sleep(60.0)
        cluster = to.worker.assembly.clusters["app"]
        tally = to.worker.assembly.breakers["app", "app"].tally
        assert (cluster.in_flight, [pool.in_flight for pool in cluster.pools]) == (0, [0] * 4)
        assert tally.total == tally.successful + tally.failed + tally.ignored + tally.rejected
        assert scraped(to.worker, "sidecar_retry_attempts_total{") > 3


async def test_what_the_next_sidecars_breaker_refused_is_tried_on_another_endpoint() -> None:
    refusal = (
        b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nRetry-After: 30\r\nVia: 1.1 sidecar\r\n"
        b'Proxy-Status: sidecar; error=destination_unavailable; details="circuit_open: x"\r\n\r\n'
    )
    async with stage(then(refusal), then(OK), retry="retry: {attempts: 1}") as to:
        for _ in range(8):
            assert (await to.ask(post(b"x" * 100))).status == 200
            await asyncio.sleep(1.0)
        assert to.apps[0].requests
        assert to.worker.assembly.breakers["app", "app"].tally.failed == 0
        assert set(tried_again(to.worker)) == {"refused"}


async def test_a_bad_answer_that_never_ends_goes_to_the_client_as_it_comes() -> None:
    async def endless(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n")
        while await peer.read_some():
            pass

    async with stage(endless, route="timeouts: {request: 10s}") as to:
        async with raw_client(port(to.worker)) as client:
            begun = to.worker.service.clock()
            await client.send(get(b"/"))
            await client.read_some()
            assert client.received.startswith(b"HTTP/1.1 503")
            assert 1.0 <= to.worker.service.clock() - begun < 1.1
        assert to.requests == 1


async def test_what_is_withheld_counts_in_the_budget_of_memory() -> None:
    body = b"x" * 40_000
    bad = b"HTTP/1.1 503 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    route = "timeouts: {request: 30s}"
    retry = RETRY.replace("}", ", backoff: {base: 10s, max: 10s}}")

    async def in_two(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(bad[:30_000])
        await asyncio.sleep(0.5)
        await peer.send(bad[30_000:])
        await peer.request()
        await peer.send(OK)

    async with stage(in_two, retry=retry, route=route) as to:
        memory = to.worker.service.memory
        asked = asyncio.create_task(to.ask())
        await asyncio.sleep(0.1)
        waiting = memory.used_bytes
        assert waiting > 28_000
        await asyncio.sleep(0.5)
        assert memory.used_bytes > 40_000
        assert (await asked).status == 200
        await turns(20)
        assert memory.used_bytes < 20_000


@pytest.mark.parametrize("how", ["breaker", "client"])
async def test_a_retry_that_is_not_sent_gives_its_token_back(how: str) -> None:
    retry = RETRY.replace("}", ", budget: {ratio: 0, min_per_second: 3}, backoff: {base: 1ms, max: 1ms}}", 1)
    retry = retry.replace("backoff: {base: 1ms, max: 1ms}", "backoff: {base: 50ms, max: 50ms}")
    async with stage(then(BAD), retry=retry) as to:
        to.worker.service.rng = random.Random(1)
        breaker = to.worker.assembly.breakers["app", "app"]
        async with raw_client(port(to.worker)) as client:
            await client.send(get(b"/"))
            await turns(50)
            assert to.requests == 1
            if how == "breaker":
                breaker.override(Override.OPEN, to.worker.service.clock(), 0.5)
                await client.responses([b"GET"])
        await turns(50)
        budget = to.worker.assembly.routes["app"].destinations[0].retry_budget
        assert budget is not None
        now = to.worker.service.clock()
        taken = [budget.take(now, 0) for _ in range(4)]
        assert taken == [True, True, True, False]
