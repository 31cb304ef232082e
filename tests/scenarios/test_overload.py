"""An overloaded listener: new work waits for its turn, what is under way goes on, and nobody else is stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from sidecar.core.memory_budget import CONNECTION_BYTES, STEP_BYTES
from sidecar.core.overload import CALM_FOR_SECONDS, Change
from sidecar.downstream.http2_stream import GOAWAY_SECONDS
from sidecar.downstream.pressure import Told
from sidecar.downstream.refusing import SILENT_SECONDS
from sidecar.forwarding.visitors import MOST_VISITORS
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import GoawayReceived
from sidecar.http2.preface import PREFACE
from tests.scenarios.stage import GET, OK, Stage, get, stage
from tests.support.http2_ends import Stream, http2_client
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawClient, RawPeer, raw_client, raw_upstream, turns


@dataclass
class App:
    """Answers when the test says so."""

    seen: list[bytes] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def script(self, peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            self.seen.append(request.target)
            self.came.set()
            await self.may_answer.acquire()
            await peer.send(OK)

    async def saw(self, count: int) -> None:
        while len(self.seen) < count:
            self.came.clear()
            await self.came.wait()

    def answer(self, count: int = 1) -> None:
        for _ in range(count):
            self.may_answer.release()


@asynccontextmanager
async def full(most: int, *, route: str = "", header: str = HEADER) -> AsyncIterator[tuple[Stage, App]]:
    """A sidecar with `limits.max_requests`, before an app that answers when the test says so."""
    app = App()
    async with stage(app.script, route=route, header=f"{header}limits: {{max_requests: {most}}}\n") as to:
        yield to, app


async def begin(to: Stage) -> None:
    """What a loop that cannot keep up brings about."""
    to.worker.datapath.pressure.filled("inbound")
    assert to.worker.listeners["inbound"].overload.is_on


async def ended(to: Stage) -> None:
    await asyncio.sleep(CALM_FOR_SECONDS + 0.4)  # virtual
    assert not to.worker.listeners["inbound"].overload.is_on


async def test_beyond_max_requests_one_is_refused_and_those_behind_it_wait() -> None:
    async with (
        full(2) as (to, app),
        raw_client(to.port) as one,
        raw_client(to.port) as two,
        raw_client(to.port) as three,
        raw_client(to.port) as four,
    ):
        await one.send(get(b"/1"))
        await two.send(get(b"/2"))
        await app.saw(2)
        await three.send(get(b"/3"))
        (refused,) = await three.responses([b"GET"])
        assert (refused.status, refused.value(b"retry-after")) == (503, b"1")
        assert b"limits.max_requests" in (refused.value(b"proxy-status") or b"")
        await four.send(get(b"/4"))
        await asyncio.sleep(0.2)  # virtual
        assert (app.seen, four.received) == ([b"/1", b"/2"], b"")
        app.answer()
        await app.saw(3)
        app.answer(2)
        (answer,) = await four.responses([b"GET"])
        assert answer.status == 200
        assert app.seen == [b"/1", b"/2", b"/4"]


async def test_the_apps_own_calls_go_on_when_inbound_requests_are_as_many_as_may_be() -> None:
    async with full(1) as (to, app), raw_client(to.port) as caller:
        await caller.send(get(b"/in"))
        await app.saw(1)
        out = to.worker.listeners["outbound"]
        async with raw_client(port(to.worker, "outbound")) as client:
            await client.send(GET)
            (answer,) = await client.responses([b"GET"])
        assert answer.status == 404  # there is no route: it got as far as that
        assert not out.overload.is_on
        app.answer()
        await caller.responses([b"GET"])


@pytest.mark.parametrize(("route", "most"), [("", 10), ("critical: true", 11)])
async def test_a_critical_route_has_a_tenth_more(route: str, most: int) -> None:
    async with full(10, route=route) as (to, app):
        clients = []
        for number in range(most):
            client = raw_client(to.port)
            clients.append(client)
            await (await client.__aenter__()).send(get(b"/%d" % number))
            await app.saw(number + 1)
        assert (await to.ask()).status == 503
        app.answer(most)
        for client in clients:
            await client.__aexit__(None, None, None)


async def test_a_client_with_many_requests_gets_no_more_than_another() -> None:
    async with full(1) as (to, app), raw_client(to.port) as many, raw_client(to.port) as single:
        await begin(to)
        await many.send(get(b"/a1") + get(b"/a2") + get(b"/a3"))
        await app.saw(1)
        await single.send(get(b"/b1"))
        for count in range(2, 5):
            app.answer()
            await app.saw(count)
        app.answer()
        await many.responses([b"GET"] * 3)
        assert app.seen == [b"/a1", b"/b1", b"/a2", b"/a3"]


async def test_who_would_wait_for_long_in_the_kernel_is_answered_503_and_the_last_come_are_served() -> None:
    async with full(1) as (to, app), raw_client(to.port) as first, AsyncExitStack() as stack:
        await first.send(get(b"/first"))
        await app.saw(1)
        await begin(to)
        await asyncio.sleep(0.3)  # virtual: it is known how few are taken up in a second
        clients = [await stack.enter_async_context(raw_client(to.port)) for _ in range(100)]
        for client in clients:
            await client.send(GET)
        for client in clients[:50]:
            (refused,) = await client.responses([b"GET"])
            assert (refused.status, refused.value(b"retry-after")) == (503, b"1")
            assert refused.value(b"connection") == b"close"
            told = refused.value(b"proxy-status") or b""
            assert told.startswith(b"sidecar; error=connection_limit_reached; ")
            assert b'"urn:sidecar:problem:overloaded"' in refused.body
        app.answer(101)
        (served,) = await clients[-1].responses([b"GET"])
        assert served.status == 200
        assert to.worker.listeners["inbound"].refused_requests >= 50
        assert to.metric("sidecar_overload_turned_away_total") >= 50
        for client in [first, *clients]:
            await client.responses([b"GET"])


@asynccontextmanager
async def long_line(count: int) -> AsyncIterator[tuple[Stage, App, list[RawClient]]]:
    """So many clients stand in the kernel's queue before a sidecar that takes up one of them in a second; none has
    sent anything yet, and the first ones of them are refused."""
    async with full(1) as (to, app), raw_client(to.port) as first, AsyncExitStack() as stack:
        await first.send(get(b"/first"))
        await app.saw(1)
        await begin(to)
        await asyncio.sleep(0.3)  # virtual
        yield to, app, [await stack.enter_async_context(raw_client(to.port)) for _ in range(count)]
        app.answer()
        await first.responses([b"GET"])


async def refused(to: Stage, count: int) -> None:
    while to.worker.listeners["inbound"].refused_requests < count:  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # virtual


async def test_who_is_refused_before_their_request_has_come_is_answered_503_when_it_comes() -> None:
    async with long_line(MOST_VISITORS) as (to, _, clients):
        await refused(to, 5)
        for client in clients[:5]:
            await client.send(GET)
            (answer,) = await client.responses([b"GET"])
            assert (answer.status, answer.value(b"retry-after")) == (503, b"1")
            assert (answer.value(b"proxy-status") or b"").startswith(
                b"sidecar; error=connection_limit_reached; "
            )


async def test_who_is_refused_and_asked_by_head_gets_a_head_alone() -> None:
    async with long_line(MOST_VISITORS) as (to, _, clients):
        await refused(to, 5)
        for client, method in zip(clients[:5], [b"HEAD", b"GET", b"HEAD", b"HEADS", b"head"], strict=True):
            await client.send(method + b" / HTTP/1.1\r\nHost: app\r\n\r\n")
            await client.read_to_end()
            head, _, body = bytes(client.received).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nContent-Length: " in head
            assert bool(body) is (method != b"HEAD")


async def test_who_is_refused_and_says_nothing_is_closed_after_a_moment() -> None:
    async with long_line(MOST_VISITORS) as (to, _, clients):
        loop = asyncio.get_running_loop()
        await refused(to, 5)
        began = loop.time()
        for client in clients[:5]:
            await client.read_to_end()
            assert client.received == b""
        assert SILENT_SECONDS - 0.1 <= loop.time() - began < SILENT_SECONDS + 0.2


async def test_of_those_who_are_refused_and_say_nothing_a_few_are_kept_at_a_time() -> None:
    async with long_line(4 * MOST_VISITORS) as (to, _, clients):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await refused(to, 3 * MOST_VISITORS)
        for client in clients[:MOST_VISITORS]:
            await client.read_to_end()
        assert loop.time() - began < SILENT_SECONDS
        assert to.worker.service.open_connections == 1


async def test_who_is_refused_and_leaves_without_a_word_is_forgotten() -> None:
    async with long_line(MOST_VISITORS) as (to, _, clients):
        await refused(to, 5)
        for client in clients:
            client.writer.close()
        await turns()


async def test_a_listener_may_end_while_it_keeps_some_who_are_refused() -> None:
    async with long_line(MOST_VISITORS) as (to, _, clients):
        await refused(to, 5)
        to.worker.listeners["inbound"].close()
        for client in clients:
            with contextlib.suppress(ConnectionError):
                await client.read_to_end()


async def test_by_http2_who_would_wait_for_long_in_the_kernel_is_told_to_ask_elsewhere() -> None:
    async with full(1) as (to, app), raw_client(to.port) as first, AsyncExitStack() as stack:
        await first.send(get(b"/first"))
        await app.saw(1)
        await begin(to)
        await asyncio.sleep(0.3)  # virtual
        clients = [await stack.enter_async_context(raw_client(to.port)) for _ in range(50)]
        for client in clients:
            await client.send(PREFACE)
        await clients[0].read_to_end()
        codec = Connection(Role.CLIENT)
        codec.take()
        goodbyes = [one for one in codec.receive(clients[0].received, 0.0) if isinstance(one, GoawayReceived)]
        assert [(one.last_stream_id, one.code) for one in goodbyes] == [(0, 0)]
        app.answer()
        await first.responses([b"GET"])


async def test_who_leaves_while_they_wait_is_not_forwarded() -> None:
    async with full(1) as (to, app), raw_client(to.port) as first:
        await begin(to)
        await first.send(get(b"/1"))
        await app.saw(1)
        async with raw_client(to.port) as leaving:
            await leaving.send(get(b"/2"))
        await asyncio.sleep(0.1)  # virtual
        async with raw_client(to.port) as last:
            await last.send(get(b"/3"))
            await turns()
            app.answer(2)
            assert (await last.responses([b"GET"]))[0].status == 200
        assert app.seen == [b"/1", b"/3"]
        assert to.worker.listeners["inbound"].gone_clients == 1


async def test_it_ends_when_it_was_calm_and_is_told_once_each() -> None:
    told: list[Told] = []
    async with full(1) as (to, app), raw_client(to.port) as client, raw_client(to.port) as other:
        to.worker.datapath.pressure.tell = told.append
        await client.send(get(b"/1"))
        await app.saw(1)
        await other.send(get(b"/2"))
        (refused,) = await other.responses([b"GET"])
        assert refused.status == 503
        other.received = b""
        await other.send(get(b"/3"))
        await asyncio.sleep(0.5)  # virtual
        assert [one.change for one in told] == [Change.BEGAN]
        assert to.worker.datapath.is_ready
        app.answer(2)
        await app.saw(2)
        await ended(to)
        assert [one.change for one in told] == [Change.BEGAN, Change.ENDED]
        assert told[1].seconds >= CALM_FOR_SECONDS
        assert to.worker.service.shut.every == frozenset()
        client.received = b""
        app.answer()
        await client.send(get(b"/4"))
        assert (await client.responses([b"GET"]))[0].status == 200


async def test_a_burst_without_anybody_waiting_is_no_news() -> None:
    told: list[Told] = []
    async with full(100) as (to, _):
        to.worker.datapath.pressure.tell = told.append
        await begin(to)
        await ended(to)
        assert told == []


async def test_one_whose_time_would_hardly_do_is_refused_while_it_lasts() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(0.2)  # virtual
            await peer.send(OK)

    async with stage(script) as to:
        for _ in range(20):
            assert (await to.ask()).status == 200
        await begin(to)
        short, long = b"x-request-timeout-ms: 100", b"x-request-timeout-ms: 5000"
        assert (await to.ask(get(b"/", long))).status == 200
        answer = await to.ask(get(b"/", short))
        assert (answer.status, answer.value(b"proxy-status")) == (
            503,
            b"sidecar; error=connection_limit_reached; "
            b'details="overloaded: this sidecar is overloaded, and less time is left than this route usually needs"',
        )
        await ended(to)
        assert (await to.ask(get(b"/", short))).status == 504


async def test_another_upstream_is_not_asked_for_what_there_is_no_room_for() -> None:
    async with (
        raw_upstream() as other,
        full(1, route=f'fallback: {{upstream: "http://127.0.0.1:{other.port}"}}') as (to, app),
        raw_client(to.port) as first,
    ):
        await first.send(get(b"/1"))
        await app.saw(1)
        assert (await to.ask()).status == 503
        assert (app.seen, other.requests) == ([b"/1"], [])
        app.answer()
        await first.responses([b"GET"])


async def test_a_body_that_comes_in_pieces_is_taken_to_its_end() -> None:
    async with full(1) as (to, app), raw_client(to.port) as client, raw_client(to.port) as other:
        await begin(to)
        await client.send(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        await turns(5)
        await other.send(get(b"/2"))
        await turns(5)
        await client.send(b"def")
        await app.saw(1)
        app.answer(2)
        assert (await client.responses([b"POST"]))[0].status == 200
        assert (await other.responses([b"GET"]))[0].status == 200
        assert to.requests[0].body == b"abcdef"


@pytest.mark.plain
async def test_connections_that_are_not_read_are_taken_up_in_turn_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.downstream.gate.HELD_BYTES", -1)
    async with full(1) as (to, app), raw_client(to.port) as one, raw_client(to.port) as two:
        app.answer(2)
        for client in (one, two):
            await client.send(get(b"/0"))
            await client.responses([b"GET"])
        await begin(to)
        app.answer(4)
        for client in (one, two):  # their last request that is read without being asked for
            client.received = b""
            await client.send(get(b"/1"))
            await client.responses([b"GET"])
        for client in (one, two):
            client.received = b""
            await client.send(get(b"/2"))
            (answer,) = await client.responses([b"GET"])
            assert answer.status == 200
        assert app.seen == [b"/0", b"/0", b"/1", b"/1", b"/2", b"/2"]
        two.writer.close()
        await ended(to)
        assert to.worker.listeners["inbound"].connection_count == 1
        app.answer()
        one.received = b""
        await one.send(get(b"/3"))
        assert (await one.responses([b"GET"]))[0].status == 200


async def test_an_answer_that_has_begun_goes_on_to_its_end() -> None:
    go_on = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            await go_on.wait()
            await peer.send(b"2\r\ncd\r\n0\r\n\r\n")

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(GET)
        await client.read_some()
        await begin(to)
        await asyncio.sleep(0.2)  # virtual
        go_on.set()
        (answer,) = await client.responses([b"GET"])
        assert (answer.status, answer.body) == (200, b"abcd")


OUTBOUND = """\
upstreams: {{app: {{endpoints: ["127.0.0.1:{to}"]}}}}
routes: [{{name: in, upstream: app}}, {{name: out, listener: outbound, upstream: app}}]
"""


async def test_a_late_loop_holds_inbound_back_first_and_the_apps_own_calls_only_where_that_does_not_help() -> (
    None
):
    app = App()
    async with (
        raw_upstream(app.script) as upstream,
        running(OUTBOUND.format(to=upstream.port)) as worker,
        raw_client(port(worker)) as caller,
        raw_client(port(worker, "outbound")) as one,
        raw_client(port(worker, "outbound")) as two,
    ):
        for client in (caller, one, two):
            await client.send(GET)
        await app.saw(3)
        inbound, outbound = worker.listeners["inbound"], worker.listeners["outbound"]
        now = worker.service.clock()
        for _ in range(4):
            now += 0.03
            worker.datapath.pressure.turned(0.03, now)
        assert (inbound.overload.is_on, outbound.overload.is_on) == (True, False)
        for _ in range(30):
            now += 0.03
            worker.datapath.pressure.turned(0.03, now)
        assert (inbound.overload.is_on, outbound.overload.is_on) == (True, False)
        for _ in range(10):
            now += 0.03
            worker.datapath.pressure.turned(0.03, now)
        assert (inbound.overload.is_on, outbound.overload.is_on) == (True, True)
        assert inbound.overload.admission < 0.5
        assert worker.datapath.is_ready
        app.answer(3)
        for client in (caller, one, two):
            assert (await client.responses([b"GET"]))[0].status == 200


async def test_what_was_read_of_those_who_wait_counts_as_memory_until_it_is_their_turn() -> None:
    async with full(1) as (to, app), raw_client(to.port) as one, raw_client(to.port) as two:
        memory = to.worker.service.memory
        await begin(to)
        await one.send(get(b"/1"))
        await app.saw(1)
        before = memory.used_bytes
        await two.send(get(b"/2"))
        await asyncio.sleep(0.2)  # virtual
        gate = to.worker.listeners["inbound"].gate
        assert gate is not None
        assert gate.held_bytes == len(get(b"/2"))
        assert memory.used_bytes == before + STEP_BYTES
        app.answer(2)
        for client in (one, two):
            assert (await client.responses([b"GET"]))[0].status == 200
        assert memory.used_bytes == memory.connections * CONNECTION_BYTES


async def test_a_listener_may_end_while_it_is_overloaded() -> None:
    async with full(1) as (to, app), raw_client(to.port) as one, raw_client(to.port) as two:
        await begin(to)
        await one.send(get(b"/1"))
        await app.saw(1)
        await two.send(get(b"/2"))
        await asyncio.sleep(0.2)  # virtual
        socket = to.worker.listeners["inbound"]
        assert socket.gate is not None
        assert socket.gate.waiting == 1
        socket.close()
        await one.read_to_end()
        await two.read_to_end()
        await asyncio.sleep(1.0)  # virtual
        assert (socket.gate, socket.connection_count) == (None, 0)
        assert not socket.overload.is_on


async def test_after_a_second_of_it_a_client_of_http2_is_asked_to_go_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pseudo = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/2"), (b":authority", b"x"))
    async with full(1) as (to, app), raw_client(to.port) as one, http2_client(to.port) as client:
        clock = to.worker.service.clock
        await begin(to)
        began = clock()
        monkeypatch.setattr(
            to.worker.service.rng, "random", lambda: 1.0
        )  # of all that may be refused, each is
        await one.send(get(b"/1"))
        await app.saw(1)
        streams = []
        while client.codec.can_open():
            streams.append(Stream(client, client.codec.open_stream(pseudo, (), is_end=True)))
            client.flush()
            await asyncio.sleep(0.05)  # virtual
            assert clock() - began < 10.0
        assert clock() - began >= GOAWAY_SECONDS
        assert {stream.was_cut for stream in streams} == {"REFUSED_STREAM"}
        app.answer()
        assert (await one.responses([b"GET"]))[0].status == 200
