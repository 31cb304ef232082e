"""`timeouts: {request: off}`: a route for streams, which last as long as somebody listens."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.pod import OK, Pod, answering_after, pod
from tests.scenarios.stage import get, stage
from tests.support.raw import RawPeer, Request, Script

BUILT_IN_SECONDS = 15.0
"""What `timeouts.request` is where a file says nothing."""
SECONDS = BUILT_IN_SECONDS + 3.0
EVENT = b"data: x\n\n"
OFF = "timeouts: {request: off}"


def events(every_seconds: float, total_seconds: float) -> Script:
    """Server-sent events, and an end."""

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(round(total_seconds / every_seconds)):
            await asyncio.sleep(every_seconds)
            await peer.send(b"9\r\n%b\r\n" % EVENT)
        await peer.send(b"0\r\n\r\n")
        await peer.read_some()

    return script


@pytest.mark.parametrize("off", ["off", "0s"])
async def test_events_go_on_beyond_the_built_in_limit(off: str) -> None:
    async with stage(events(3.0, SECONDS), route=f"timeouts: {{request: {off}}}") as to:
        response = await to.ask()
        assert response.body == EVENT * 6
        assert to.metric("sidecar_deadline_exceeded_total") == 0


async def test_a_long_poll_without_a_byte_goes_on_where_idleness_is_off_too() -> None:
    async with stage(answering_after(SECONDS), route="timeouts: {request: off, idle: off}") as to:
        assert (await to.ask()).status == 200


async def test_a_stream_that_falls_silent_ends_by_the_idle_timeout() -> None:
    async with stage(answering_after(SECONDS), route="timeouts: {request: off, idle: 2s}") as to:
        response = await to.ask()
        assert response.status == 504
        assert b"no byte either way" in response.body


@pytest.mark.parametrize("lines", [[], [b"content-type: application/grpc"], [b"te: trailers"]])
@pytest.mark.parametrize("more", ["", ", deadline: {inject_baggage: true}"])
async def test_an_upstream_is_told_no_limit_where_there_is_none(lines: list[bytes], more: str) -> None:
    async with stage(answering_after(0.0), route=OFF + more) as to:
        await to.ask(get(b"/", *lines))
        (request,) = to.requests
        told = [
            request.value(name) for name in (b"x-envoy-expected-rq-timeout-ms", b"grpc-timeout", b"baggage")
        ]
        assert told == [None, None, None]
        assert to.metric("sidecar_deadline_budget_seconds_count") == 0


async def test_an_attempts_own_limit_is_told_and_kept() -> None:
    async with stage(answering_after(2.0), route="timeouts: {request: off, attempt: 1s}") as to:
        assert (await to.ask()).status == 504
        (request,) = to.requests
        assert request.value(b"x-envoy-expected-rq-timeout-ms") == b"1000"


async def test_a_caller_may_still_set_a_limit() -> None:
    async with stage(answering_after(2.0), route=OFF) as to:
        assert (await to.ask(get(b"/", b"x-request-timeout-ms: 500"))).status == 504
        (request,) = to.requests
        assert int(request.value(b"x-request-timeout-ms") or 0) in (494, 495)


async def test_a_call_below_an_exchange_without_a_limit_keeps_its_own() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request)
        return OK

    async with pod(app, answering_after(0.1), inbound=OFF, outbound="timeouts: {request: 3s}") as at:
        await at.ask()
        assert at.budgets == pytest.approx([3000], abs=1)


async def test_a_call_without_a_limit_below_one_without_has_none() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request)
        return OK

    async with pod(app, answering_after(0.1), inbound=OFF, outbound=OFF) as at:
        assert (await at.ask()).status == 200
        assert at.calls[0].value(b"x-envoy-expected-rq-timeout-ms") is None
