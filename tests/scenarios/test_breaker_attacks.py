"""Situations in which the breaker of a route was wrong under attack: what asked it, and what it blamed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sidecar.core.transition import State, TransitionReason
from tests.scenarios.changing import (
    FAILS,
    FAILURE,
    App,
    answers,
    asking,
    hangs,
    in_the_background,
    is_closed,
    is_open,
    open_it,
    openings,
    seconds_until,
)
from tests.scenarios.stage import GET, OK, Stage, get, stage
from tests.scenarios.test_breaker_situations_chain import breaker, row
from tests.support.proxy import HEADER, port
from tests.support.raw import RawPeer, Request, raw_client, raw_upstream

SHORT = "circuit_breaker: {open_for: 500ms, max_open_for: 1s}"
GRPC = get(b"/x.S/M", b"Content-Type: application/grpc", b"TE: trailers")
EXPECTING = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Inviting:
    """An app that asks for the body of an upload at once, and takes all of it; or fails everything."""

    def __init__(self) -> None:
        self.is_well = False

    async def __call__(self, peer: RawPeer) -> None:
        while await has_head(peer):
            if not self.is_well:
                await peer.send(FAILURE)
                return
            if b"100-continue" in peer.rest:
                await peer.send(CONTINUE)
                while await peer.read_some():
                    pass
                return
            peer.rest = b""
            await peer.send(OK)


async def has_head(peer: RawPeer) -> bool:
    """Wait for the next one; False: the sidecar has closed the connection."""
    await peer.head()
    return bool(peer.rest)


# Who asks


@pytest.mark.parametrize("loops", [1, 8, 24])
@pytest.mark.parametrize("sent", [b"", b"x"], ids=["nothing", "a byte"])
async def test_invited_uploads_that_stall_keep_nobody_out(loops: int, sent: bytes) -> None:
    app = Inviting()

    async def stall(to: Stage) -> None:
        while True:
            async with raw_client(to.port) as client:
                await client.send(EXPECTING)
                await client.read_some()
                if client.received.startswith(CONTINUE):
                    await client.send(sent)
                    await asyncio.sleep(8.0)
            await asyncio.sleep(0.01)

    async with stage(app, route=SHORT) as to:
        await open_it(to)
        async with in_the_background(*(stall(to) for _ in range(loops))):
            app.is_well = True
            await seconds_until(lambda: to.breaker.machine.probes_in_flight > 0, within=1.0)
            async with asking(to.port, pause=0.05):
                await seconds_until(is_closed(to), within=5.0)
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_an_invited_upload_that_stalls_is_never_slow() -> None:
    app = Inviting()
    app.is_well = True
    route = "circuit_breaker: {slow_call_duration: 500ms, minimum_calls: 1}"
    async with stage(app, route=route) as to:
        async with raw_client(to.port) as client:
            await client.send(EXPECTING + b"x")
            await asyncio.sleep(3.0)
        await to.ask()
        assert to.breaker.state is State.CLOSED
        assert to.breaker.tally.slow == 0


async def talk(to: Stage) -> bytes:
    """An upload that goes on when the app has answered its first piece."""
    async with raw_client(to.port) as client:
        await client.send(b"POST /talk HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        async with asyncio.timeout(3.0):
            head = await client.reader.readuntil(b"\r\n\r\n")
        await client.send(b"0\r\n\r\n")
        return head


class Talking:
    """An app that answers when the first piece of a body has come; or fails everything else."""

    def __init__(self) -> None:
        self.act = FAILURE

    async def __call__(self, peer: RawPeer) -> None:
        while await has_head(peer):
            if b"/talk" in peer.rest:
                if not peer.rest.endswith(b"hi\r\n"):
                    await peer.read_some()
                await peer.send(OK)
                return
            peer.rest = b""
            await peer.send(self.act)


async def test_a_breaker_that_only_measures_keeps_no_body_back() -> None:
    app = Talking()
    async with stage(app, route="circuit_breaker: {mode: metrics_only, open_for: 500ms}") as to:
        await open_it(to)
        await asyncio.sleep(0.6)
        assert b" 200 " in await talk(to)


async def test_an_upload_that_waited_as_a_probe_goes_on_when_another_has_closed_the_breaker() -> None:
    app = Talking()
    async with stage(app, route=SHORT) as to:
        await open_it(to)
        await asyncio.sleep(0.6)
        app.act = OK
        waiting = asyncio.create_task(talk(to))
        await asyncio.sleep(0.3)
        assert (await to.ask()).status == 200
        assert to.breaker.state is State.CLOSED
        assert b" 200 " in await waiting


async def test_an_upload_probes_where_memory_is_short() -> None:
    app = App(FAILS)
    header = HEADER + "limits: {memory: 1MiB}\n"
    async with stage(app, route=SHORT, header=header) as to:
        await open_it(to)
        app.act = answers()
        await asyncio.sleep(0.6)
        print(to.worker.service.memory.buffer_bytes)
        to.worker.service.memory.buffer_bytes = 4096
        async with raw_client(to.port) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
            for _ in range(50):
                await client.send(bytes(4000))
                await asyncio.sleep(0.01)
            async with asyncio.timeout(3.0):
                (response,) = await client.responses([b"POST"])
        assert response.status == 200


# What is blamed


async def test_a_grpc_refusal_by_the_next_sidecar_opens_nothing() -> None:
    async with raw_upstream(App(FAILS)) as app, row(app.port, 2) as (first, last):
        async with raw_client(port(last)) as client:
            await client.send(GET * 5)
            await client.responses([b"GET"] * 5)
        assert breaker(last).state is State.OPEN
        for _ in range(10):
            async with raw_client(port(first)) as client:
                await client.send(GRPC)
                (response,) = await client.responses([b"GET"])
                assert response.value(b"grpc-status") == b"14"
        assert breaker(first).state is State.CLOSED
        assert breaker(first).tally.failed == 0


async def test_a_callers_leaving_is_no_cause() -> None:
    async def act(peer: RawPeer, request: Request) -> None:
        await (hangs(peer, request) if request.target == b"/slow" else peer.send(FAILURE))

    async with stage(App(act)) as to:
        for _ in range(5):
            for _ in range(3):
                async with raw_client(to.port) as client:
                    await client.send(get(b"/slow"))
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.01)
            await to.ask()
        assert to.breaker.state is State.OPEN
        assert {cause.error_type for cause in to.breaker.history[-1].causes} == {"500"}
        why = to.breaker.why(asyncio.get_running_loop().time())
        assert why.startswith("open: 5 × 500 127.0.0.1:")


async def test_answers_that_fail_by_their_heads_are_named_as_causes() -> None:
    async def act(peer: RawPeer, request: Request) -> None:
        await peer.send(b"HTTP/1.1 500 X\r\nContent-Length: 10\r\n\r\n")
        await asyncio.sleep(2.0)
        await peer.send(bytes(10))

    async with stage(App(act)) as to:
        async with asking(to.port, pause=1.0, callers=5):
            await seconds_until(is_open(to), within=5.0)
        why = to.breaker.why(asyncio.get_running_loop().time())
        assert why.startswith("open: 5 × 500 127.0.0.1:")


async def test_the_calls_whose_slowness_opened_it_are_named_while_they_run() -> None:
    route = "circuit_breaker: {slow_call_duration: 1s, minimum_calls: 5, consecutive_failures: 0}"
    async with stage(App(hangs), route=route) as to:
        async with asking(to.port, pause=1.0, callers=5):
            await seconds_until(is_open(to), within=5.0)
        why = to.breaker.why(asyncio.get_running_loop().time())
        assert why.startswith("open: 5 of 5 slow (5 × slow 127.0.0.1:")


async def test_what_counts_in_the_rate_alone_is_no_cause_of_a_row() -> None:
    async def act(peer: RawPeer, request: Request) -> None:
        limited = b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n"
        await peer.send(limited if request.target == b"/limited" else FAILURE)

    async with stage(App(act), route="listener: outbound") as to:
        to.port = port(to.worker, "outbound")
        for _ in range(5):
            await to.ask(get(b"/limited"))
            await to.ask()
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]
        why = to.breaker.why(asyncio.get_running_loop().time())
        assert why.startswith("open: 5 × 500 127.0.0.1:")


@pytest.mark.parametrize("loops", [8, 24, 60])
@pytest.mark.parametrize("kind", ["grpc", "upload"])
async def test_many_that_stall_keep_a_recovered_app_down_for_less_than_five_seconds(
    kind: str, loops: int
) -> None:
    app = App(FAILS)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
    data = head + (
        b"\r\n" + bytes(100_000) if kind == "upload" else b"Content-Type: application/grpc\r\n\r\n"
    )

    async def stall(to: Stage) -> None:
        while True:
            async with raw_client(to.port) as client:
                await client.send(data)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(8.0):
                        await client.read_some()
            await asyncio.sleep(0.01)

    async with stage(app, route=SHORT) as to:
        await open_it(to)
        async with in_the_background(*(stall(to) for _ in range(loops))):
            app.act = answers()
            await seconds_until(lambda: to.breaker.machine.probes_in_flight > 0, within=1.0)
            async with asking(to.port, pause=0.05):
                seconds = await seconds_until(is_closed(to), within=5.0)
                print(seconds)
        assert openings(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_callers_with_little_time_are_firm_where_the_head_has_less() -> None:
    app = App(FAILS)
    async with stage(app, route="timeouts: {head: 300ms}, circuit_breaker: {open_for: 500ms}") as to:
        await open_it(to)
        await asyncio.sleep(0.6)
        app.act = hangs
        async with raw_client(to.port) as client:
            await client.send(get(b"/", b"x-request-timeout-ms: 500"))
            await asyncio.sleep(0.1)
            (probe,) = to.breaker.machine._probes._in_flight
            assert probe.is_firm
