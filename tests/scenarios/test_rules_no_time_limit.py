"""Timeouts that are `off`, or `0s`, which means the same: streams have no end by time, and nobody is told of one."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.scenarios.pod import OK as ANSWER
from tests.scenarios.pod import Pod, answering_after, instrumented, pod
from tests.scenarios.stage import GET, OK, get, hang, stage
from tests.support.proxy import HEADER
from tests.support.raw import RawPeer, Request, Script, raw_client

OFF = pytest.mark.parametrize("off", ["off", "0s"])
TIMEOUT_FIELDS = (
    b"x-envoy-expected-rq-timeout-ms", b"x-envoy-upstream-rq-timeout-ms", b"x-request-timeout-ms", b"l5d-timeout",
    b"grpc-timeout",
)  # fmt: skip
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def told(request: Request) -> dict[bytes, bytes]:
    """The timeouts that an upstream was told."""
    return {name: b",".join(request.values(name)) for name in TIMEOUT_FIELDS if request.values(name)}


def events(gap_seconds: float) -> Script:
    """Seven events, the first at once, each of the others this long after the last; then the end."""

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(EVENTS)
        for number in range(7):
            if number:
                await asyncio.sleep(gap_seconds)
            await peer.send(b"data: %d\n\n" % number)

    return script


SEVEN = b"".join(b"data: %d\n\n" % number for number in range(7))


@OFF
async def test_events_of_a_minute_come_whole_and_nobody_was_told_of_a_limit(off: str) -> None:
    loop = asyncio.get_running_loop()
    async with stage(events(10), route=f"timeouts: {{request: {off}}}") as to:
        began = loop.time()
        answer = await to.ask()
        assert (answer.status, answer.is_cut, answer.body) == (200, False, SEVEN)
        assert round(loop.time() - began) == 60
        assert told(to.requests[0]) == {}


async def test_events_of_a_minute_are_cut_where_there_is_a_limit() -> None:
    """The same stream within the default of 15 s: so the tests above would notice."""
    async with stage(events(10)) as to, raw_client(to.port) as client:
        await client.send(GET)
        await client.read_to_end()
        assert client.is_reset
        assert told(to.requests[0]) == {b"x-envoy-expected-rq-timeout-ms": b"15000"}


@OFF
async def test_a_long_poll_is_waited_for(off: str) -> None:
    async def slow(peer: RawPeer) -> None:
        await peer.request()
        await asyncio.sleep(20)
        await peer.send(OK)
        await hang(peer)

    async with stage(slow, route=f"timeouts: {{request: {off}}}") as to:
        answer = await to.ask()
        assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.parametrize("off", ["off", '"off"', "0s", "0ms"])
async def test_a_long_upload_is_taken(off: str) -> None:
    async with stage(route=f"timeouts: {{request: {off}}}") as to, raw_client(to.port) as client:
        await client.send(b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n")
        for _ in range(7):
            await asyncio.sleep(3)
            await client.send(b"x")
        (answer,) = await client.responses([b"POST"])
        assert (answer.status, answer.body, to.requests[0].body) == (200, b"POST /up", b"x" * 7)


@OFF
async def test_silence_ends_nothing_where_idle_is_off_too(off: str) -> None:
    async def silent(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(EVENTS + b"data: 1\n\n")
        await asyncio.sleep(30)
        await peer.send(b"data: 2\n\n")

    header = HEADER + "defaults: {timeouts: {idle: 20s}}\n"
    route = f"timeouts: {{request: {off}, idle: {off}}}"
    async with stage(silent, route=route, header=header) as to, raw_client(to.port) as client:
        await client.send(GET)
        await client.reader.readuntil(b"data: 1\n\n")
        await client.reader.readuntil(b"data: 2\n\n")


@OFF
@pytest.mark.parametrize("field", [b"x-request-timeout-ms: 300", b"l5d-timeout: 300ms"])
async def test_a_callers_own_limit_still_counts(field: bytes, off: str) -> None:
    loop = asyncio.get_running_loop()
    async with stage(hang, route=f"timeouts: {{request: {off}}}") as to:
        began = loop.time()
        answer = await to.ask(get(b"/", field))
        assert answer.status == 504
        assert 0.28 <= loop.time() - began <= 0.3
        assert b"\r\nx-envoy-expected-rq-timeout-ms: 29" in to.app.received
        assert field.partition(b":")[0] + b": 29" in to.app.received


@OFF
@pytest.mark.parametrize("key", ["attempt", "head"])
async def test_off_for_a_part_leaves_the_whole_as_it_is(key: str, off: str) -> None:
    loop = asyncio.get_running_loop()
    async with stage(hang, route=f"timeouts: {{request: 2s, {key}: {off}}}") as to:
        began = loop.time()
        assert (await to.ask()).status == 504
        assert round(loop.time() - began, 2) == 2.0
        assert b"\r\nx-envoy-expected-rq-timeout-ms: 2000\r\n" in to.app.received


@OFF
async def test_an_attempt_has_its_own_limit_where_the_whole_has_none(off: str) -> None:
    loop = asyncio.get_running_loop()
    async with stage(hang, route=f"timeouts: {{request: {off}, attempt: 1s}}") as to:
        began = loop.time()
        assert (await to.ask()).status == 504
        assert round(loop.time() - began, 2) == 1.0
        assert b"\r\nx-envoy-expected-rq-timeout-ms: 1000\r\n" in to.app.received


@OFF
async def test_a_route_may_have_none_where_all_others_have_one(off: str) -> None:
    header = HEADER + "defaults: {timeouts: {request: 2s}}\n"
    async with stage(events(1), route=f"timeouts: {{request: {off}}}", header=header) as to:
        assert (await to.ask()).body == SEVEN


@OFF
async def test_a_route_may_have_one_where_all_others_have_none(off: str) -> None:
    loop = asyncio.get_running_loop()
    header = HEADER + f"defaults: {{timeouts: {{request: {off}}}}}\n"
    async with stage(hang, route="timeouts: {request: 2s}", header=header) as to:
        began = loop.time()
        assert (await to.ask()).status == 504
        assert round(loop.time() - began, 2) == 2.0


@OFF
async def test_what_all_routes_have_none_of_is_none(off: str) -> None:
    header = HEADER + f"defaults: {{timeouts: {{request: {off}}}}}\n"
    async with stage(events(3), header=header) as to:
        assert (await to.ask()).body == SEVEN
        assert told(to.requests[0]) == {}


@OFF
async def test_no_limit_is_written_into_baggage(off: str) -> None:
    route = f"timeouts: {{request: {off}}}, deadline: {{inject_baggage: true}}"
    async with stage(route=route) as to:
        assert (await to.ask(get(b"/", b"baggage: a=1"))).status == 200
        assert to.requests[0].values(b"baggage") == [b"a=1"]
        assert (await to.ask()).status == 200
        assert to.requests[1].values(b"baggage") == []


@OFF
async def test_a_grpc_call_without_a_timeout_is_told_of_none(off: str) -> None:
    async with stage(route=f"timeouts: {{request: {off}}}") as to:
        data = b"POST /s/M HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\nTE: trailers\r\n"
        assert (await to.ask(data + b"Content-Length: 0\r\n\r\n", b"POST")).status == 200
        assert told(to.requests[0]) == {}


@OFF
async def test_a_budget_without_an_end_is_no_number_in_the_metrics(off: str) -> None:
    async with stage(route=f"timeouts: {{request: {off}}}") as to:
        assert (await to.ask()).status == 200
        assert (await to.ask(get(b"/", b"x-request-timeout-ms: 400"))).status == 200
        total = to.metric("sidecar_deadline_budget_seconds_sum")
        assert math.isfinite(total)
        assert 0.38 <= total <= 0.4


@OFF
async def test_an_upgrade_is_made_and_kept_without_a_limit(off: str) -> None:
    async def late(peer: RawPeer) -> None:
        await peer.request()
        await asyncio.sleep(16)
        await peer.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await asyncio.sleep(20)
        await peer.send(b"late")

    async with stage(late, route=f"timeouts: {{request: {off}}}") as to, raw_client(to.port) as client:
        await client.send(get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"))
        await client.read_to_end()
        assert client.received.startswith(b"HTTP/1.1 101 ")
        assert client.received.endswith(b"\r\n\r\nlate")


# Through the app


async def calling(at: Pod, request: Request) -> bytes:
    await at.call(request, forward=instrumented)
    return ANSWER


@OFF
async def test_a_call_for_a_request_without_a_limit_has_that_of_its_own_route(off: str) -> None:
    async with pod(calling, answering_after(1), inbound=f"timeouts: {{request: {off}}}") as at:
        assert (await at.ask()).status == 200
    assert told(at.served[0]) == {}
    assert at.budgets == [15_000]


@OFF
async def test_a_call_has_no_limit_where_neither_side_has_one(off: str) -> None:
    limits = f"timeouts: {{request: {off}}}"
    async with pod(calling, answering_after(16), inbound=limits, outbound=limits) as at:
        assert (await at.ask()).status == 200
    assert at.budgets == [-1]


@OFF
async def test_a_call_has_what_is_left_of_its_caller_where_its_own_route_has_no_limit(off: str) -> None:
    async with pod(calling, outbound=f"timeouts: {{request: {off}}}") as at:
        assert (await at.ask(b"x-request-timeout-ms: 1000")).status == 200
        assert at.answers[0].status == 504
    assert at.budgets == pytest.approx([990], abs=1)
