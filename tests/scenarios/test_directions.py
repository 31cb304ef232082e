"""A listener's `direction` says whose calls it takes; what it is called decides nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.pod import OK, Pod, answering_after, pod
from tests.support.raw import Request, raw_client

ONE_SECOND = b"x-request-timeout-ms: 1000"
NAMES = ["outbound", "egress"]


async def calls_once(at: Pod, request: Request) -> bytes:
    await asyncio.sleep(0.2)
    await at.call(request)
    return OK


@pytest.mark.parametrize("name", NAMES)
async def test_a_call_gets_what_is_left_of_its_callers_time(name: str) -> None:
    async with pod(calls_once, answering_after(0.1), listener=name) as at:
        await at.ask(ONE_SECOND)
        assert at.budgets == pytest.approx([790], abs=1)


@pytest.mark.parametrize("name", NAMES)
async def test_a_call_ends_with_the_client_that_caused_it(name: str) -> None:
    async with pod(calls_once, listener=name) as at:
        async with raw_client(at.inbound) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            await at.until(lambda: len(at.calls) == 1)
        await at.until(lambda: bool(at.answers))
        assert (at.answers[0].status, at.answers[0].why) == (
            503,
            b'sidecar; error=connection_terminated; details="caller gone"',
        )
