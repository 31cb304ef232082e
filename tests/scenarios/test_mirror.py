"""Copies of requests for another upstream: what is copied, and that the request never notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from sidecar.core.mirrored import CopyOutcome, Mirrored
from sidecar.runtime.worker import Worker
from sidecar.upstream.cluster import Cluster
from tests.scenarios.stage import OK, get, hang, post, saying, scraped
from tests.support.clean import Complaints, assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, RawUpstream, Response, ask, raw_client, raw_upstream, turns
from tests.support.silent import Silent

Script = Callable[[RawPeer], Awaitable[None]]
BAD = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
GOOD = saying(OK)
WRITES = "methods: [GET, POST]"


class Stage:
    def __init__(self, worker: Worker, app: RawUpstream, shadow: RawUpstream) -> None:
        self.worker = worker
        self.app = app
        self.shadow = shadow

    async def ask(self, data: bytes = get(b"/")) -> Response:
        return await ask(port(self.worker), data)

    async def copied(self) -> None:
        """Until no copy is under way."""
        for _ in range(10_000):
            if not self.worker.service.beside.copies:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a copy never ends")

    def outcomes(self) -> dict[str, float]:
        """What became of all copies that were due, as a scrape shows it."""
        where = 'sidecar_route="app",sidecar_listener="inbound",sidecar_upstream="shadow"'
        starts = {
            one.value: f'sidecar_mirror_requests_total{{{where},sidecar_mirror_outcome="{one.value}"'
            for one in CopyOutcome
        }
        counts = {name: scraped(self.worker, start) for name, start in starts.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def cluster(self) -> Cluster:
        return self.worker.assembly.clusters["shadow"]


@asynccontextmanager
async def stage(
    script: Script = GOOD,
    shadow: Script = GOOD,
    *,
    mirror: str = "",
    route: str = "",
    upstream: str = "",
    is_dead: bool = False,
) -> AsyncIterator[Stage]:
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream(script) as app, raw_upstream(shadow) as other:
            to = free_ports(1)[0] if is_dead else other.port
            routes = f"""\
upstreams:
  app: {{endpoints: ["127.0.0.1:{app.port}"]}}
  shadow: {{endpoints: ["127.0.0.1:{to}"]{upstream and ", " + upstream}}}
routes: [{{name: app, upstream: app, mirror: {{upstream: shadow{mirror and ", " + mirror}}}{route and ", " + route}}}]
"""
            async with running(routes) as worker:
                stage = Stage(worker, app, other)
                yield stage
                worker.service.beside.stop_copies()
                await assert_clean(worker)
                copying = worker.assembly.routes["app"].destinations[0].copying
                assert copying is not None
                assert (copying.in_flight, worker.service.beside.copies) == (0, set())
    assert complaints.found == []


async def test_a_copy_is_what_the_upstream_gets_and_says_what_it_is() -> None:
    match = "match: {path: {prefix: /api}}, rewrite: {prefix: /}"
    async with stage(route=f"request_headers: {{set: {{x-mesh: a}}}}, {match}") as to:
        assert (await to.ask(get(b"/api/a?b=c", b"x-mine: 1"))).status == 200
        await to.copied()
        sent, copy = to.app.requests[0], to.shadow.requests[0]
        assert copy.target == sent.target == b"/a?b=c"
        assert (copy.value(b"x-sidecar-mirror"), sent.value(b"x-sidecar-mirror")) == (b"1", None)
        for name in (b"host", b"x-mine", b"x-mesh", b"x-request-id"):
            assert copy.value(name) == sent.value(name)
        ids = [(one.value(b"traceparent") or b"").split(b"-")[1] for one in (sent, copy)]
        assert ids[0] != ids[1]
        assert copy.value(b"x-envoy-expected-rq-timeout-ms") == b"5000"
        assert to.outcomes() == {"answered": 1}


async def test_nobody_gets_the_answer_and_a_bad_one_counts_nowhere() -> None:
    async with stage(shadow=saying(BAD)) as to:
        for _ in range(20):
            assert (await to.ask()).status == 200
        await to.copied()
        assert len(to.shadow.requests) == 20
        assert to.outcomes() == {"answered": 20}
        assert list(to.worker.assembly.breakers) == [("app", "app")]
        assert to.worker.assembly.breakers["app", "app"].tally.failed == 0


async def test_a_share_of_the_requests_is_copied() -> None:
    async with stage(mirror="share: 20%") as to:
        to.worker.service.rng.seed(3)
        for _ in range(200):
            await to.ask()
        await to.copied()
        assert 20 <= len(to.shadow.requests) <= 60


@pytest.mark.parametrize(
    ("data", "more", "copies"),
    [
        (get(b"/"), "", 1),
        (get(b"/").replace(b"GET", b"OPTIONS"), "", 1),
        (post(b"x"), "", 0),
        (post(b"x"), WRITES, 1),
        (get(b"/", b"x-sidecar-mirror: 1"), "", 0),
        (get(b"/", b"Connection: upgrade", b"Upgrade: x"), "", 0),
    ],
)
async def test_safe_methods_alone_are_copied_unless_the_route_says_more(
    data: bytes, more: str, copies: int
) -> None:
    async with stage(mirror=more) as to:
        assert (await to.ask(data)).status == 200
        await to.copied()
        assert len(to.shadow.requests) == copies


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("pause", [0.0, 0.01])
async def test_each_byte_of_a_body_is_copied_as_it_comes(pause: float, *, is_chunked: bool) -> None:
    body = bytes(range(256)) * 2000  # more than the buffer: what its upstream takes does not wait
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    async with stage(mirror=f"{WRITES}, buffer: 256KiB") as to:
        async with raw_client(port(to.worker)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing)
            for begin in range(0, len(body), 50_000):
                piece = body[begin : begin + 50_000]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
                await asyncio.sleep(pause)
            if is_chunked:
                await client.send(b"0\r\n\r\n")
            (response,) = await client.responses([b"POST"])
        assert response.status == 200
        await to.copied()
        assert to.app.requests[0].body == body
        assert to.shadow.requests[0].body == body


async def test_a_shadow_that_hangs_delays_nobody_and_is_given_up() -> None:
    async with stage(shadow=hang, mirror="attempt: 2s") as to:
        begun = to.worker.service.clock()
        assert (await to.ask()).status == 200
        assert to.worker.service.clock() - begun < 0.05
        await to.copied()
        assert 2.0 <= to.worker.service.clock() - begun < 2.1
        assert to.outcomes() == {"timed_out": 1}


async def test_a_shadow_that_takes_no_body_is_cut_and_the_request_goes_on() -> None:
    async def takes_nothing(peer: RawPeer) -> None:
        await asyncio.sleep(1000.0)

    body = b"x" * 20_000_000
    async with stage(shadow=takes_nothing, mirror=WRITES) as to:
        begun = to.worker.service.clock()
        assert (await to.ask(post(body))).status == 200
        assert to.worker.service.clock() - begun < 1.0
        assert to.app.requests[0].body == body
        assert to.outcomes() == {"slow": 1}
        assert to.worker.service.memory.used_bytes < 100_000


async def test_a_shadow_that_is_not_there_fails_nothing() -> None:
    async with stage(is_dead=True) as to:
        assert (await to.ask()).status == 200
        await to.copied()
        assert to.outcomes() == {"failed": 1}


async def test_copies_at_a_time_are_bounded_and_what_is_left_out_is_counted() -> None:
    async with stage(shadow=hang, mirror="max_in_flight: 3") as to:
        for _ in range(5):
            assert (await to.ask()).status == 200
        assert len(to.worker.service.beside.copies) == 3
        assert scraped(to.worker, "sidecar_mirror_in_flight{") == 3
        assert to.outcomes() == {"crowded": 2}


async def test_in_an_overload_of_the_sidecar_nothing_is_copied() -> None:
    async with stage() as to:
        to.worker.service.shut.press(frozenset({"inbound"}))
        assert (await to.ask()).status == 200
        to.worker.service.shut.press(frozenset())
        assert (await to.ask()).status == 200
        await to.copied()
        assert to.outcomes() == {"crowded": 1, "answered": 1}


@pytest.mark.parametrize("hash_on", ["{header: x-user}", "{cookie: user}", "{client: true}"])
async def test_copies_of_one_key_go_to_one_endpoint(hash_on: str) -> None:
    async with AsyncExitStack() as stack:
        app, *shadows = [await stack.enter_async_context(raw_upstream(GOOD)) for _ in range(5)]
        endpoints = ", ".join(f'"127.0.0.1:{one.port}"' for one in shadows)
        keyed = f"load_balancing: {{policy: ring_hash, hash_on: {hash_on}}}"
        worker = await stack.enter_async_context(
            running(f"""\
upstreams:
  app: {{endpoints: ["127.0.0.1:{app.port}"]}}
  shadow: {{endpoints: [{endpoints}], {keyed}}}
routes: [{{name: app, upstream: app, mirror: {{upstream: shadow}}}}]
""")
        )
        to = Stage(worker, app, shadows[0])
        for _ in range(8):
            assert (await to.ask(get(b"/", b"x-user: a", b"Cookie: user=a"))).status == 200
            await to.copied()
        assert sorted(len(one.requests) for one in shadows) == [0, 0, 0, 8]


async def test_limits_of_its_upstream_hold_for_copies() -> None:
    async with stage(shadow=hang, upstream="limits: {max_requests: 1}") as to:
        for _ in range(3):
            assert (await to.ask()).status == 200
        await turns(20)
        assert len(to.worker.service.beside.copies) == 1
        assert to.outcomes() == {"crowded": 2}


async def test_for_want_of_memory_copies_stop_first_and_none_is_begun() -> None:
    async with stage(shadow=hang) as to:
        assert (await to.ask()).status == 200
        await turns(20)
        assert len(to.worker.service.beside.copies) == 1
        memory = to.worker.service.memory
        held = memory.limit_bytes - memory.used_bytes
        memory.charge(held)
        await turns(20)
        assert to.worker.service.beside.copies == set()
        assert (await to.ask()).status == 200
        assert to.outcomes() == {"no_memory": 2}
        assert sum(memory.closed.values()) == 0
        memory.charge(-held)
        await asyncio.sleep(0.2)


async def test_a_request_that_the_breaker_refuses_is_not_copied() -> None:
    async with stage(saying(BAD)) as to:
        for _ in range(5):
            assert (await to.ask()).status == 500
        assert (await to.ask()).status == 503
        await to.copied()
        assert len(to.shadow.requests) == 5
        assert to.outcomes() == {"answered": 5}


async def test_a_client_that_leaves_in_its_body_cuts_the_copy() -> None:
    async with stage(shadow=hang, mirror=WRITES) as to:
        async with raw_client(port(to.worker)) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegun")
            await turns(50)
            assert len(to.worker.service.beside.copies) == 1
        await to.copied()
        assert to.outcomes() == {"cut": 1}


async def test_a_copy_goes_on_when_its_request_is_over() -> None:
    async def late(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(1.0)
            await peer.send(OK)

    async with stage(shadow=late) as to:
        assert (await to.ask()).status == 200
        assert to.worker.service.exchanges == set()
        await to.copied()
        assert to.outcomes() == {"answered": 1}
        assert to.cluster.pools[0].idle_count == 1


@pytest.mark.plain
async def test_a_mistake_of_ours_in_a_copy_is_told_and_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    async with stage() as to:
        loop = asyncio.get_running_loop()
        told: list[Any] = []
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        monkeypatch.setattr("sidecar.forwarding.copy.Copy._head", broken)
        assert (await to.ask()).status == 200
        await to.copied()
        monkeypatch.setattr("sidecar.forwarding.copying.Copy", broken)
        assert (await to.ask()).status == 200
        loop.set_exception_handler(before)
        assert [type(error) for error in told] == [ZeroDivisionError, ZeroDivisionError]
        copying = to.worker.assembly.routes["app"].destinations[0].copying
        assert copying is not None
        assert copying.in_flight == 0


async def test_the_trace_of_a_copy_is_linked_to_that_of_its_request() -> None:
    async with stage() as to:
        told: list[Mirrored] = []

        class Told(Silent):
            def mirrored(self, copy: Mirrored) -> None:
                told.append(copy)

        to.worker.service.observe = Told()
        parent = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        assert (await to.ask(get(b"/", parent))).status == 200
        await to.copied()
        (copy,) = told
        assert copy.of_trace_id == b"4bf92f3577b34da6a3ce929d0e0e4736"
        assert copy.trace_id != copy.of_trace_id
        assert copy.outcome is CopyOutcome.ANSWERED
        assert copy.status == 200
        value = to.shadow.requests[0].value(b"traceparent")
        assert value == b"00-%b-%b-03" % (copy.trace_id, copy.span_id)
