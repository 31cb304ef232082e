"""Deadlines and cancellation where requests come through one worker of the pod and the app calls through another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sidecar.forwarding import notices
from sidecar.runtime.crossing import Crossing
from tests.scenarios.pod import (
    OK,
    App,
    Forward,
    Pod,
    answering_after,
    copying,
    instrumented,
    instrumented_without_tracestate,
    pod,
)
from tests.support.raw import Request

ONE_SECOND = b"x-request-timeout-ms: 1000"
CALLER_GONE = b'sidecar; error=connection_terminated; details="caller gone"'


@pytest.fixture
def crossing() -> Iterator[Crossing]:
    crossing = Crossing(2)
    yield crossing
    crossing.close()


def calling(*, after: float = 0.0, method: bytes = b"GET", forward: Forward = instrumented) -> App:
    async def app(at: Pod, request: Request) -> bytes:
        await asyncio.sleep(after)
        await at.call(request, method=method, forward=forward)
        return OK

    return app


@pytest.mark.parametrize("forward", [instrumented, instrumented_without_tracestate, copying])
async def test_a_call_through_another_worker_gets_what_is_left_of_its_callers_time(
    crossing: Crossing, forward: Forward
) -> None:
    async with pod(calling(after=0.2, forward=forward), crossing=crossing) as at:
        response = await at.ask(ONE_SECOND)

    assert at.budgets == pytest.approx([790], abs=1)
    assert (at.answers[0].status, at.answers[0].at) == (504, 0.99)
    assert response.status == 200
    assert at.other.service.callers.ties.tied == 1


@pytest.mark.parametrize("forward", [instrumented, copying])
async def test_a_client_that_leaves_one_worker_ends_the_call_that_left_through_another(
    crossing: Crossing, forward: Forward
) -> None:
    async with pod(calling(forward=forward), crossing=crossing) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: bool(at.answers))

        assert at.answers[0].why == CALLER_GONE
        assert at.seconds < 0.05
        assert repr(at.other.datapath.notices) == "<Notices told=0 lost=0>"
        assert repr(at.worker.datapath.notices) == "<Notices told=1 lost=0>"


async def test_a_call_known_by_its_trace_id_alone_is_bounded_and_never_cancelled(crossing: Crossing) -> None:
    app = calling(forward=instrumented_without_tracestate)
    async with pod(app, answering_after(0.5), crossing=crossing) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
        await at.until(lambda: bool(at.answers))

    assert at.budgets == pytest.approx([990], abs=1)
    assert (at.answers[0].status, at.answers[0].at) == (200, 0.5)


async def test_a_call_after_the_client_has_left_the_other_worker_is_refused_at_once(
    crossing: Crossing,
) -> None:
    async with pod(calling(after=0.3), crossing=crossing) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.served))
        await at.until(lambda: bool(at.answers))

    assert at.calls == []
    assert (at.answers[0].why, at.answers[0].at) == (CALLER_GONE, 0.3)


@pytest.mark.plain
async def test_a_lost_message_is_made_up_for_within_25_milliseconds(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = crossing.join(0).others[1]
    with suppress(BlockingIOError):
        while True:
            told.send(b"?")
    monkeypatch.setattr(notices.Notices, "_read", notices.Notices.close)
    async with pod(calling(), crossing=crossing) as at:
        async with at.asking(ONE_SECOND):
            await at.until(lambda: bool(at.calls))
        left = at.seconds
        await at.until(lambda: bool(at.answers))

        assert at.answers[0].why == CALLER_GONE
        assert at.answers[0].at - left <= notices.LOOK_SECONDS
        assert at.worker.datapath.notices is not None
        assert at.worker.datapath.notices.lost == 1


async def test_what_hangs_on_a_worker_that_died_ends(crossing: Crossing) -> None:
    async with pod(calling(after=0.0), crossing=crossing) as at, at.asking(ONE_SECOND):
        await at.until(lambda: bool(at.calls))
        crossing.bury(0, asyncio.get_running_loop().time())
        await at.until(lambda: bool(at.answers))
        assert at.answers[0].why == CALLER_GONE
        assert at.seconds < 0.05


async def test_work_that_outlives_a_request_that_the_other_worker_answered_is_not_touched(
    crossing: Crossing,
) -> None:
    async def app(at: Pod, request: Request) -> bytes:
        background.append(asyncio.create_task(at.call(request)))
        await at.until(lambda: bool(at.calls))
        return OK

    background: list[asyncio.Task[object]] = []
    async with pod(app, answering_after(0.8), crossing=crossing) as at:
        assert (await at.ask(b"x-request-timeout-ms: 5000")).status == 200
        crossing.bury(0, asyncio.get_running_loop().time())  # makes the other one look again
        await at.until(lambda: bool(at.answers))
        assert (at.answers[0].status, at.answers[0].at) == (200, 0.8)
