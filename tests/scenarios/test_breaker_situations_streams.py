"""Situations with streams and long downloads: they say something when they begin, and our own cuts say nothing."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.transition import State, TransitionReason
from tests.scenarios.changing import (
    ENDLESS,
    EVENT,
    FAILURE,
    App,
    asking,
    breaks_after,
    hangs,
    openings,
    seconds_until,
    streams,
)
from tests.scenarios.stage import GET, OK, Stage, get, stage
from tests.support.raw import RawClient, RawPeer, Request, raw_client

NO_LIMIT = "timeouts: {request: off, idle: off}"
DOWNLOAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
FLOWING = streams()


async def by_target(peer: RawPeer, request: Request) -> None:
    """`/500` fails, `/stream` flows, all else is answered."""
    if request.target == b"/500":
        await peer.send(FAILURE)
    elif request.target == b"/stream":
        await FLOWING(peer, request)
    else:
        await peer.send(OK)


class Streams:
    """Clients that take part in a stream each, until the end of the block."""

    def __init__(self, to: Stage) -> None:
        self.to = to
        self.clients: list[RawClient] = []
        self._contexts: list[object] = []

    async def __aenter__(self) -> Streams:
        return self

    async def begin(self, count: int = 1) -> None:
        """Begin so many more, and wait for their heads."""
        for _ in range(count):
            context = raw_client(self.to.port)
            client = await context.__aenter__()
            self._contexts.append(context)
            self.clients.append(client)
            await client.send(get(b"/stream"))
            while b"\r\n\r\n" not in client.received:
                assert not client.is_ended, client.received
                await client.read_some()

    async def __aexit__(self, *_: object) -> None:
        for context in self._contexts:
            await context.__aexit__(None, None, None)  # type: ignore[attr-defined]


# A row, and what ends it


async def test_five_500s_among_beginning_streams_are_no_row() -> None:
    async with stage(App(by_target), route=NO_LIMIT) as to, Streams(to) as running:
        await running.begin(95)
        for _ in range(5):
            assert (await to.ask(get(b"/500"))).status == 500
            await running.begin()
        assert to.breaker.state is State.CLOSED
        assert to.breaker.numbers(to.worker.service.clock()).consecutive_failures == 0


async def test_five_500s_with_nothing_good_between_them_are_a_row_beside_a_hundred_streams() -> None:
    async with stage(App(by_target), route=NO_LIMIT) as to, Streams(to) as running:
        await running.begin(100)
        for _ in range(5):
            assert (await to.ask(get(b"/500"))).status == 500
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_running_streams_stand_in_the_window() -> None:
    """A second after its head a stream is a success: 30 of them, and 20 failures, are a rate of 40 %."""
    policy = "circuit_breaker: {consecutive_failures: 0, minimum_calls: 20, failure_rate_threshold: 50%}"
    async with stage(App(by_target), route=f"{NO_LIMIT}, {policy}") as to, Streams(to) as running:
        await running.begin(30)
        await asyncio.sleep(1.1)
        for _ in range(20):
            assert (await to.ask(get(b"/500"))).status == 500
        assert to.breaker.state is State.CLOSED
        assert (to.breaker.tally.successful, to.breaker.tally.failed) == (30, 20)


# Streams that are lost


async def test_a_hundred_streams_of_one_pod_that_are_cut_at_once_open_nothing() -> None:
    async with stage(App(by_target), route=NO_LIMIT) as to:
        async with asking(to.port, pause=0.2, callers=10) as others, Streams(to) as running:
            await running.begin(100)
            await asyncio.sleep(4.0)
            for peer in to.app.peers:
                if peer.requests and peer.requests[-1].target == b"/stream":
                    peer.writer.transport.abort()
            for client in running.clients:
                await client.read_to_end()
            await asyncio.sleep(2.0)
        assert openings(to) == []
        assert set(others.statuses) == {200}
        assert to.breaker.tally.failed_late == 100


async def test_an_upstream_that_breaks_every_long_answer_opens_it_and_the_waits_grow() -> None:
    policy = "circuit_breaker: {open_for: 500ms, max_open_for: 2s}"
    async with stage(App(breaks_after(1.5)), route=f"{NO_LIMIT}, {policy}") as to:
        async with asking(to.port, pause=0.1, callers=5):
            await seconds_until(lambda: len(openings(to)) >= 6, within=60.0)
        waits = [one.wait_seconds for one in to.breaker.history if one.to_state is State.OPEN]
        assert waits[:5] == pytest.approx([0.5, 1.0, 2.0, 2.0, 2.0], rel=0.11)
        assert set(openings(to)[1:]) == {TransitionReason.PROBE_FAILED}


# Our own cuts


@pytest.mark.parametrize(
    ("route", "lines"),
    [
        ("", ()),
        ("timeouts: {request: 3s}", ()),
        ("timeouts: {request: off, idle: off, attempt: 3s}", ()),
        ("", (b"x-request-timeout-ms: 2000",)),
    ],
    ids=["15 s built in", "request", "attempt", "the caller's budget"],
)
async def test_five_streams_that_we_cut_open_nothing(route: str, lines: tuple[bytes, ...]) -> None:
    async with stage(App(streams()), route=route) as to:

        async def cut() -> None:
            async with raw_client(to.port) as client:
                await client.send(get(b"/", *lines))
                await client.read_to_end()
                assert client.received.startswith(b"HTTP/1.1 200 OK")

        await asyncio.gather(*(cut() for _ in range(6)))
        assert to.breaker.state is State.CLOSED
        assert (to.breaker.tally.failed, to.breaker.tally.failed_late, to.breaker.tally.successful) == (
            0,
            0,
            6,
        )


async def test_a_download_that_moves_when_we_cut_it_is_no_failure() -> None:
    async with stage(App(streams(DOWNLOAD, b"0123456789", every=0.5)), route="timeouts: {request: 3s}") as to:
        for _ in range(6):
            async with raw_client(to.port) as client:
                await client.send(GET)
                await client.read_to_end()
        assert (to.breaker.tally.failed_late, to.breaker.tally.successful) == (0, 6)


async def test_a_body_of_known_length_that_stalls_is_the_upstreams_failure() -> None:
    async def stalls(peer: RawPeer, request: Request) -> None:
        await peer.send(DOWNLOAD + b"0123456789")
        await hangs(peer, request)

    async with stage(App(stalls), route="timeouts: {request: 3s}") as to:
        for number in range(5):
            assert to.breaker.state is State.CLOSED, number
            async with raw_client(to.port) as client:
                await client.send(GET)
                await client.read_to_end()
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_a_body_of_known_length_whose_client_does_not_read_is_no_failure() -> None:
    async def act(peer: RawPeer, request: Request) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 48000000\r\n\r\n" + bytes(47_000_000))
        await hangs(peer, request)

    async with stage(App(act), route="timeouts: {request: 3s}") as to:
        for _ in range(5):
            async with raw_client(to.port) as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await client.send(GET)
                await asyncio.sleep(3.1)
        assert to.breaker.state is State.CLOSED


async def test_events_that_rest_when_we_cut_them_are_no_failure() -> None:
    """Nobody knows whether there is anything to tell."""

    async def rests(peer: RawPeer, request: Request) -> None:
        await peer.send(ENDLESS + EVENT)
        await hangs(peer, request)

    async with stage(App(rests), route="timeouts: {request: 3s}") as to:
        for _ in range(6):
            async with raw_client(to.port) as client:
                await client.send(GET)
                await client.read_to_end()
        assert to.breaker.state is State.CLOSED


@pytest.mark.parametrize("head", [ENDLESS, DOWNLOAD], ids=["events", "download"])
async def test_what_the_idle_timeout_cuts_opens_nothing(head: bytes) -> None:
    async def rests(peer: RawPeer, request: Request) -> None:
        await peer.send(head)
        await hangs(peer, request)

    async with stage(App(rests), route="timeouts: {request: off, idle: 2s}") as to:
        for _ in range(6):
            async with raw_client(to.port) as client:
                await client.send(GET)
                await client.read_to_end()
        assert to.breaker.state is State.CLOSED


# Slow


async def test_a_stream_with_a_head_in_time_is_never_slow() -> None:
    policy = "circuit_breaker: {slow_call_duration: 1s, slow_call_rate_threshold: 50%}"
    async with stage(App(streams(after=0.1)), route=f"timeouts: {{request: 5s}}, {policy}") as to:

        async def watch() -> None:
            async with raw_client(to.port) as client:
                await client.send(GET)
                await client.read_to_end()

        await asyncio.gather(*(watch() for _ in range(25)))
        assert to.breaker.tally.slow == 0
        assert to.breaker.state is State.CLOSED


async def test_a_stream_with_a_late_head_is_slow() -> None:
    policy = "circuit_breaker: {slow_call_duration: 1s, slow_call_rate_threshold: 50%}"
    route = f"timeouts: {{request: 5s}}, {policy}"
    async with stage(App(streams(after=1.5)), route=route) as to, Streams(to) as running:
        begun = [asyncio.create_task(running.begin()) for _ in range(20)]
        await seconds_until(lambda: to.breaker.state is State.OPEN, within=1.2)
        await asyncio.gather(*begun)
        assert openings(to) == [TransitionReason.SLOW_CALL_RATE]
