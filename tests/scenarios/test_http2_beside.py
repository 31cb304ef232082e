"""A second try and a copy where both sides speak HTTP/2: each is a stream, and to end one harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import RequestReceived
from sidecar.runtime.worker import Worker
from tests.scenarios.stage import scraped
from tests.scenarios.websockets import http2_app
from tests.support.clean import Complaints, assert_clean
from tests.support.http2_ends import Http2End, Pairs, Stream, http2_client
from tests.support.proxy import port, running

NEVER = 1e6
BODY = bytes(range(256)) * 200


@dataclass
class App:
    """An upstream that answers each request `seconds` after its end, in order to tell what became of it."""

    seconds: float
    status: int = 200
    pairs: Pairs = ()
    """Of the answer's head."""
    port: int = 0
    connections: int = 0
    streams: list[Stream] = field(default_factory=list)
    heads: list[dict[bytes, bytes]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[App]:
        def on_request(event: RequestReceived, stream: Stream) -> None:
            self.streams.append(stream)
            self.heads.append(dict(event.head.lookup))
            self.bodies.append(b"")
            self.tasks.append(asyncio.create_task(self._answer(len(self.bodies) - 1, stream, event.is_end)))

        def on_connection(_: Http2End) -> None:
            self.connections += 1

        async with http2_app(lambda: Connection(Role.SERVER), on_request, on_connection) as self.port:
            try:
                yield self
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _answer(self, number: int, stream: Stream, is_whole: bool) -> None:
        while not is_whole and (data := await stream.read()):
            self.bodies[number] += data
        await asyncio.sleep(self.seconds)
        end = stream._connection
        end.codec.send_head(stream._stream, self.status, (), pairs=self.pairs, is_end=True)
        end.flush()

    @property
    def cuts(self) -> list[str]:
        """How each request was ended before its answer; empty if it was not."""
        return [stream.was_cut for stream in self.streams]


@asynccontextmanager
async def sidecar(upstreams: str, route: str) -> AsyncIterator[Worker]:
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with running(
            f"upstreams:\n{upstreams}\nroutes: [{{name: app, upstream: app, {route}}}]"
        ) as worker:
            yield worker
            worker.service.beside.stop_copies()
            await assert_clean(worker)
    assert complaints.found == []


@asynccontextmanager
async def hedging(*apps: App, route: str = "") -> AsyncIterator[Worker]:
    """The first request goes to the first one."""
    async with AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(app.serving())).port for app in apps]
        endpoints = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
        upstream = (
            f"  app: {{endpoints: [{endpoints}], protocol: http2, load_balancing: {{policy: round_robin}}}}"
        )
        worker = await stack.enter_async_context(
            sidecar(upstream, f"hedge: {{after: 100ms}}{route and ', ' + route}")
        )
        await asyncio.sleep(0.01)  # the health part looks at new upstreams once, and their turns begin anew
        (group,) = worker.assembly.clusters["app"].balancer._groups
        assert group._turns is not None
        group._turns._due = [(number / len(ports), number) for number in range(len(ports))]
        yield worker


@asynccontextmanager
async def copying(app: App, shadow: App, mirror: str = "") -> AsyncIterator[Worker]:
    async with app.serving(), shadow.serving():
        upstreams = f"""\
  app: {{endpoints: ["127.0.0.1:{app.port}"], protocol: http2}}
  shadow: {{endpoints: ["127.0.0.1:{shadow.port}"], protocol: http2}}"""
        route = f"mirror: {{upstream: shadow, methods: [GET, POST]{mirror and ', ' + mirror}}}"
        async with sidecar(upstreams, route) as worker:
            yield worker


def opened(client: Http2End, method: bytes = b"GET", pairs: Pairs = (), *, is_end: bool = True) -> Stream:
    pseudo = ((b":method", method), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x"))
    stream = Stream(client, client.codec.open_stream(pseudo, (), pairs=pairs, is_end=is_end))
    client.flush()
    return stream


async def posted(client: Http2End) -> Stream:
    """A request with `BODY`, in pieces."""
    stream = opened(client, b"POST", is_end=False)
    for begin in range(0, len(BODY), 7000):
        await stream.send(BODY[begin : begin + 7000])
        await asyncio.sleep(0.001)
    await stream.end()
    return stream


async def until_no_copy(worker: Worker) -> None:
    while worker.service.beside.copies:  # noqa: ASYNC110 - on a clock that jumps
        await asyncio.sleep(0.01)


async def test_the_loser_of_a_race_is_one_stream_that_is_cut_and_its_connection_goes_on() -> None:
    slow, fast = App(NEVER), App(0.02)
    async with hedging(slow, fast) as worker, http2_client(port(worker)) as client:
        begun = worker.service.clock()
        assert await opened(client).head() == 200
        assert 0.12 <= worker.service.clock() - begun < 0.14
        await asyncio.sleep(0.01)
        assert (slow.cuts, fast.cuts) == (["CANCEL"], [""])
        assert fast.heads[0][b"x-sidecar-retry"] == b"1"
        slow.seconds = 0.02
        assert [await opened(client).head() for _ in range(4)] == [200] * 4
        assert len(slow.streams) == 3
        assert (slow.connections, fast.connections) == (1, 1)


async def test_each_byte_of_a_body_goes_to_both_streams() -> None:
    slow, fast = App(0.5), App(0.0)
    async with (
        hedging(slow, fast, route="retry: {non_idempotent: true}") as worker,
        http2_client(port(worker)) as client,
    ):
        assert await (await posted(client)).head() == 200
        assert [slow.bodies, fast.bodies] == [[BODY], [BODY]]


async def test_a_client_that_resets_its_stream_ends_both_and_no_other() -> None:
    first, second = App(NEVER), App(NEVER)
    async with hedging(first, second) as worker, http2_client(port(worker)) as client:
        left, stays = opened(client), opened(client)
        await asyncio.sleep(0.2)
        assert worker.assembly.clusters["app"].in_flight == 4
        await left.cut()
        await asyncio.sleep(0.1)
        assert worker.assembly.clusters["app"].in_flight == 2
        assert sorted(first.cuts + second.cuts) == ["", "", "CANCEL", "CANCEL"]
        await stays.cut()
        await asyncio.sleep(0.1)


async def test_what_fails_fast_on_a_stream_does_not_win_a_race() -> None:
    bad = App(0.0, 503)
    async with hedging(App(0.3), bad) as worker, http2_client(port(worker)) as client:
        assert await opened(client).head() == 200
        assert len(bad.streams) == 1


async def test_a_call_of_grpc_that_fails_fast_does_not_win_a_race() -> None:
    grpc: Pairs = ((b"content-type", b"application/grpc"),)
    good = App(0.3, 200, (*grpc, (b"grpc-status", b"0")))
    bad = App(0.0, 200, (*grpc, (b"grpc-status", b"14")))
    route = "retry: {non_idempotent: true}, circuit_breaker: {failure_on: ['grpc:UNAVAILABLE']}"
    async with hedging(good, bad, route=route) as worker, http2_client(port(worker)) as client:
        stream = opened(client, b"POST", (*grpc, (b"te", b"trailers")))
        assert await stream.head() == 200
        assert stream.fields[b"grpc-status"] == b"0"
        assert len(bad.streams) == 1


async def test_a_copy_has_each_byte_and_says_what_it_is() -> None:
    app, shadow = App(0.0), App(0.0, 500)
    async with copying(app, shadow) as worker, http2_client(port(worker)) as client:
        assert await (await posted(client)).head() == 200
        await until_no_copy(worker)
        assert [app.bodies, shadow.bodies] == [[BODY], [BODY]]
        told = [heads[0].get(b"x-sidecar-mirror") for heads in (app.heads, shadow.heads)]
        assert told == [None, b"1"]
        assert worker.assembly.breakers["app", "app"].tally.failed == 0


async def test_a_shadow_that_hangs_loses_its_stream_alone_and_delays_nobody() -> None:
    app, shadow = App(0.0), App(NEVER)
    async with copying(app, shadow, "attempt: 2s") as worker, http2_client(port(worker)) as client:
        begun = worker.service.clock()
        assert await opened(client).head() == 200
        assert worker.service.clock() - begun < 0.05
        await until_no_copy(worker)
        assert 2.0 <= worker.service.clock() - begun < 2.1
        await asyncio.sleep(0.01)
        assert shadow.cuts == ["CANCEL"]
        shadow.seconds = 0.0
        assert await opened(client).head() == 200
        await until_no_copy(worker)
        assert (shadow.cuts, shadow.connections) == (["CANCEL", ""], 1)
        assert scraped(worker, "sidecar_mirror_requests_total{") == 2


async def test_a_client_that_resets_in_its_body_cuts_the_copy() -> None:
    app, shadow = App(NEVER), App(NEVER)
    async with copying(app, shadow) as worker, http2_client(port(worker)) as client:
        stream = opened(client, b"POST", is_end=False)
        await stream.send(b"begun")
        await asyncio.sleep(0.05)
        assert len(worker.service.beside.copies) == 1
        await stream.cut()
        await until_no_copy(worker)
        await asyncio.sleep(0.01)
        assert (app.cuts, shadow.cuts) == (["CANCEL"], ["CANCEL"])
