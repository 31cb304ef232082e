"""A budget comes in, shrinks on its way, reaches the upstream, and ends the exchange when it is spent."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.scenarios.stage import OK, Stage, get, hang, post, saying, stage
from tests.support.raw import RawPeer, raw_client, turns

EXPECTED = b"x-envoy-expected-rq-timeout-ms"


async def budget_of(to: Stage, *lines: bytes) -> int:
    """What the upstream was told, in milliseconds."""
    assert (await to.ask(get(b"/", *lines))).status == 200
    return int(to.requests[-1].value(EXPECTED) or b"0")


async def test_the_upstream_gets_what_the_caller_has_less_the_offset() -> None:
    async with stage(saying(OK), route="timeouts: {request: 2s}") as to:
        assert await budget_of(to, EXPECTED + b": 300") in (294, 295)


@pytest.mark.parametrize("first", [b"300", b"600"])
@pytest.mark.parametrize("name", [b"x-request-timeout-ms", b"X-Envoy-Expected-Rq-Timeout-Ms"])
async def test_of_two_lines_of_one_field_the_smaller_counts_and_one_goes_on(
    name: bytes, first: bytes
) -> None:
    second = b"600" if first == b"300" else b"300"
    async with stage(saying(OK), route="timeouts: {request: 2s}") as to:
        assert await budget_of(to, name + b": " + first, name + b": " + second) in (294, 295)
        (sent,) = to.requests[0].values(name.lower())
        assert sent in (b"294", b"295")


async def test_a_line_that_makes_no_sense_does_not_take_the_other_with_it() -> None:
    async with stage(saying(OK), route="timeouts: {request: 2s}") as to:
        lines = (b"grpc-timeout: soon", b"grpc-timeout: 300m")
        assert await budget_of(to, *lines) in (294, 295)
        assert to.metric("sidecar_deadline_invalid_total{") == 1


async def test_the_upstream_gets_what_is_left_when_the_request_had_to_wait() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(0.1)
            await peer.send(OK)

    async with stage(script, route="timeouts: {request: 2s}", upstream="limits: {max_connections: 1}") as to:
        first = asyncio.create_task(to.ask())
        while not to.requests:
            await turns()
        assert await budget_of(to, EXPECTED + b": 300") in range(190, 196)
        await first


async def test_an_upstream_that_needs_a_second_is_cut_at_300_ms_and_sees_its_connection_closed() -> None:
    loop = asyncio.get_running_loop()
    seen_closed: list[float] = []

    async def slow(peer: RawPeer) -> None:
        await peer.request()
        answering = loop.call_later(1.0, peer.writer.write, OK)
        while await peer.read_some():
            pass
        answering.cancel()
        seen_closed.append(loop.time())

    async with stage(slow, route="timeouts: {request: 2s}") as to:
        began = loop.time()
        response = await to.ask(get(b"/", EXPECTED + b": 300"))
        answered = loop.time() - began
        assert (response.status, to.metric("sidecar_deadline_exceeded_total{")) == (504, 1)
        assert to.numbers.exceeded == {"timeout": 1, "late": 0}
        assert 0.29 <= answered <= 0.3
        await turns(10)
        assert len(seen_closed) == 1
        assert seen_closed[0] - began <= 0.3


@pytest.mark.parametrize("stage_of_life", ["waiting", "streaming", "sending"])
async def test_when_the_client_goes_its_upstream_connection_is_closed_within_50_ms(
    stage_of_life: str,
) -> None:
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[float] = loop.create_future()

    async def script(peer: RawPeer) -> None:
        await peer.head()
        if stage_of_life == "streaming":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        while await peer.read_some():
            pass
        closed.set_result(loop.time())

    async with stage(script) as to:
        async with raw_client(to.port) as client:
            await client.send(post(b"half") if stage_of_life == "sending" else get())
            while not to.app.received or (stage_of_life == "streaming" and b"half" not in client.received):
                await (client.read_some() if stage_of_life == "streaming" else turns())
            left = loop.time()
        assert await closed - left <= 0.05
        await turns(10)
        assert to.metric("sidecar_cancellations_total{") == 1
        assert to.breaker.numbers(to.worker.service.clock()).ignored == 1


async def test_a_client_that_goes_while_its_request_waits_for_a_connection_leaves_the_line() -> None:
    async with stage(hang, upstream="limits: {max_connections: 1}") as to, raw_client(to.port) as first:
        await first.send(get())
        while not to.app.received:
            await turns()
        async with raw_client(to.port) as second:
            await second.send(get())
            while not to.cluster.pending:
                await turns()
        await turns(20)
        assert (to.cluster.pending, to.cluster.in_flight) == (0, 1)


async def test_a_client_that_resets_while_its_body_is_held_back_is_noticed_all_the_same() -> None:
    """Nobody reads from a client whose upstream takes nothing.

    Only a reset gets through a full window; a FIN waits in the client's kernel behind what it still has to send.
    """
    may_end = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.head()
        await may_end.wait()

    async with stage(script) as to:
        async with raw_client(to.port) as client:
            await client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
            (exchange,) = to.worker.service.exchanges
            before = -1
            while before != exchange.request_bytes:
                before = exchange.request_bytes
                for _ in range(200):
                    if client.writer.transport.get_write_buffer_size() < 1024 * 1024:
                        client.writer.write(bytes(65536))
                    await turns()
            sock = client.writer.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
        await asyncio.sleep(0.05)
        assert to.worker.service.exchanges == set()
        may_end.set()


@pytest.mark.parametrize(
    ("line", "told", "milliseconds"),
    [
        (b"grpc-timeout: 400m", b"grpc-timeout", 395),
        (b"grpc-timeout: 1S", b"grpc-timeout", 995),
        (b"x-envoy-upstream-rq-timeout-ms: 400", b"x-envoy-upstream-rq-timeout-ms", 395),
        (b"x-request-timeout-ms: 400", b"x-request-timeout-ms", 395),
        (b"l5d-timeout: 400ms", b"l5d-timeout", 395),
        (b"baggage: a=b,deadline-ms=400", b"baggage", 395),
    ],
)
async def test_each_header_is_read_and_goes_on_in_its_own_unit(
    line: bytes, told: bytes, milliseconds: int
) -> None:
    async with stage(saying(OK)) as to:
        assert milliseconds - 1 <= await budget_of(to, line) <= milliseconds
        value = to.requests[0].value(told) or b""
    if told == b"grpc-timeout":
        assert value[-1:] in b"um"
        number = int(value[:-1]) / (1000 if value[-1:] == b"u" else 1)
    else:
        number = float(value.removeprefix(b"a=b,deadline-ms=").removesuffix(b"ms"))
    assert milliseconds - 1 <= number <= milliseconds


@pytest.mark.parametrize("others", [[], [b"grpc-timeout: 3S"], [b"Connection: x-hop", b"x-hop: 1"]])
async def test_the_smallest_of_all_counts_and_all_are_rewritten(others: list[bytes]) -> None:
    """However the head is put together: in milliseconds alone, with another unit, with other things to leave out."""
    async with stage(saying(OK)) as to:
        told = await budget_of(to, b"x-request-timeout-ms: 900", b"l5d-timeout: 200ms", *others)
        (seen,) = to.requests
    assert told in (194, 195)
    assert seen.value(b"x-request-timeout-ms") == b"%d" % told
    assert seen.value(b"l5d-timeout") == b"%dms" % told
    assert seen.value(b"x-envoy-upstream-rq-timeout-ms") is None


@pytest.mark.parametrize(
    ("route", "line", "told"),
    [
        ("timeouts: {request: 2s}", b"x-request-timeout-ms: 60000", 2000),
        ("timeouts: {request: 2s}", b"x-none: 1", 2000),
        ("timeouts: {request: 2s, attempt: 800ms}", b"x-none: 1", 800),
        ("timeouts: {request: 2s, attempt: 800ms}", b"x-request-timeout-ms: 400", 395),
        ("deadline: {max: 1s}", b"x-request-timeout-ms: 5000", 1000),
        ("deadline: {offset: 20ms}", b"x-request-timeout-ms: 400", 380),
        ("deadline: {offset: 20ms}", b"x-request-timeout-ms: 100", 90),
        ("deadline: {headers: [x-mine]}", b"x-mine: 400", 395),
        ("deadline: {headers: [x-mine]}", b"x-request-timeout-ms: 400", 15000),
    ],
)
async def test_the_route_says_what_bounds_it(route: str, line: bytes, told: int) -> None:
    async with stage(saying(OK), route=route) as to:
        assert told - 1 <= await budget_of(to, line) <= told


async def test_an_invalid_header_is_ignored_and_counted() -> None:
    async with stage(saying(OK)) as to:
        told = await budget_of(to, b"x-request-timeout-ms: soon", b"grpc-timeout: 999999999S")
        assert 14_999 <= told <= 15_000
        assert to.metric("sidecar_deadline_invalid_total{") >= 1


@pytest.mark.parametrize("value", [b"0", b"-5"])
async def test_a_budget_that_is_spent_on_arrival_sends_nothing(value: bytes) -> None:
    async with stage(saying(OK)) as to:
        assert (await to.ask(get(b"/", b"x-request-timeout-ms: " + value))).status == 504
        assert to.app.received == b""
        assert to.metric("sidecar_deadline_rejected_total{") == 1
        assert to.numbers.rejected == {"spent": 1, "too_small": 0, "not_sent": 0}


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_a_mode_that_does_not_act_leaves_the_callers_header_as_it_is(mode: str) -> None:
    async def slow(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(0.6)
            await peer.send(OK)

    async with stage(slow, route=f"deadline: {{mode: {mode}}}") as to:
        response = await to.ask(get(b"/", b"x-request-timeout-ms: 300"))
        assert (response.status, to.requests[0].value(b"x-request-timeout-ms")) == (200, b"300")
        assert to.requests[0].value(EXPECTED) is None


async def test_a_deadline_that_passes_while_connecting_answers_in_time() -> None:
    loop = asyncio.get_running_loop()
    async with stage(hang, upstream="limits: {max_connections: 1}") as to, raw_client(to.port) as first:
        await first.send(get())
        while not to.app.received:
            await turns()
        began = loop.time()
        assert (await to.ask(get(b"/", b"x-request-timeout-ms: 300"))).status == 504
        assert 0.29 <= loop.time() - began <= 0.3


async def test_a_body_that_trickles_is_cut_at_the_deadline() -> None:
    async def trickle(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await asyncio.sleep(0.05)
            await peer.send(b"x")

    loop = asyncio.get_running_loop()
    async with stage(trickle) as to, raw_client(to.port) as client:
        began = loop.time()
        await client.send(get(b"/", b"x-request-timeout-ms: 500"))
        await client.read_to_end()
        assert 0.49 <= loop.time() - began <= 0.5
        (response,) = await client.responses([b"GET"])
        assert (response.status, response.is_cut) == (200, True)


async def test_a_second_try_has_all_the_time_that_is_left() -> None:
    connections = 0

    async def script(peer: RawPeer) -> None:
        """The pooled connection ends after half a second without an answer, the next one needs 0.4 s."""
        nonlocal connections
        connections += 1
        await peer.request()
        if connections == 1:
            await peer.send(OK)
            await peer.request()
            await asyncio.sleep(0.5)
            return
        await asyncio.sleep(0.4)
        await peer.send(OK)

    async with stage(script, route="timeouts: {request: 1s, attempt: 800ms}") as to:
        assert (await to.ask()).status == 200
        assert (await to.ask()).status == 200
