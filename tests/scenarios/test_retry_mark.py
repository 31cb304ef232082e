"""A request that is a further try says so, and what an app calls for it says so too: retries do not multiply."""

from __future__ import annotations

import pytest

from tests.scenarios.pod import OK, Forward, Pod, copying, instrumented, pod, silent
from tests.support.raw import RawPeer, Request

BAD = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
MARK = b"x-sidecar-retry"
RETRY = "retry: {attempts: 2, on: [5xx]}"


async def failing(peer: RawPeer) -> None:
    while await peer.request() is not None:
        await peer.send(BAD)


@pytest.mark.parametrize(("forward", "calls"), [(instrumented, 1), (copying, 1), (silent, 3)])
async def test_a_call_that_is_made_for_a_retry_is_marked_and_not_tried_again(
    forward: Forward, calls: int
) -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request, forward=forward)
        return OK

    async with pod(app, failing, outbound=RETRY) as at:
        await at.ask(MARK + b": 1")
    assert len(at.calls) == calls
    marks = [request.value(MARK) for request in at.calls]
    assert marks == ([b"1"] if calls == 1 else [None, b"1", b"1"])


async def test_a_call_that_is_made_for_a_first_try_is_tried_again() -> None:
    async def app(at: Pod, request: Request) -> bytes:
        await at.call(request)
        return OK

    async with pod(app, failing, outbound=RETRY) as at:
        await at.ask()
    assert [request.value(MARK) for request in at.calls] == [None, b"1", b"1"]


async def test_an_inbound_sidecars_own_further_try_marks_what_its_app_calls() -> None:
    tries = 0

    async def app(at: Pod, request: Request) -> bytes:
        nonlocal tries
        tries += 1
        await at.call(request)
        return BAD if tries == 1 else OK

    async with pod(app, failing, inbound=RETRY, outbound=RETRY) as at:
        assert (await at.ask()).status == 200
    assert tries == 2
    # Three calls for the first try, which is none, and one for the second.
    assert [request.value(MARK) for request in at.calls] == [None, b"1", b"1", b"1"]
