"""A gRPC call tree has one deadline and one end, by what its apps forward of trace context, and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import grpc
import pytest
import pytest_asyncio

from tests.process.grpc_row import METHOD, Context, Row, as_it_came, instrumented, running_row

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_SECONDS = 60.0
"""Against hanging."""
BUDGET_SECONDS = 0.5
TRIES = 40
"""A busy machine may take all of that up before the last service is reached: then another call shows it."""
WAYS = pytest.mark.parametrize("context", [as_it_came, instrumented])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm_row(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Row]:
    """Its connections are there: a call has gone through."""
    async with running_row(tmp_path_factory.mktemp("row"), as_it_came) as row:
        row.services[-1].is_slow = False
        assert await asyncio.to_thread(row.client.unary_unary(METHOD), b"x", PATIENCE_SECONDS) == b"x"
        yield row


@pytest.fixture
def row(warm_row: Row) -> Row:
    """The last service is slow, and none has seen anything."""
    warm_row.services[-1].is_slow = True
    warm_row.forget()
    return warm_row


def pass_on(row: Row, context: Context) -> None:
    """What the apps do with their metadata."""
    for service in row.services:
        service.context = context


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what happens in the services' threads."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110  # those threads set no event of this loop
            await asyncio.sleep(0.002)


async def nothing_is_left(row: Row) -> None:
    """Wait until no service works and no sidecar has a request under way."""
    await until(lambda: row.at_work == 0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for sidecar in row.sidecars:
            while await active(sidecar) > 0:  # asking again takes a few milliseconds
                pass


async def active(sidecar: Any) -> float:
    _, text = await sidecar.process.get("/metrics")
    lines = [line for line in text.splitlines() if line.startswith("http_server_active_requests{")]
    assert lines, "nothing says how many requests are under way"
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def failure(row: Row) -> tuple[grpc.StatusCode, bool]:
    """What a call with `BUDGET_SECONDS` comes to, and whether the last service has seen it."""
    with pytest.raises(grpc.RpcError) as raised:
        row.client.unary_unary(METHOD)(b"", timeout=BUDGET_SECONDS)
    error: Any = raised.value
    return error.code(), bool(row.services[-1].calls)


@WAYS
async def test_the_deadline_falls_in_grpc_timeout_and_ends_the_whole_tree(row: Row, context: Context) -> None:
    pass_on(row, context)
    for _ in range(TRIES):
        row.forget()
        code, is_reached = await asyncio.to_thread(failure, row)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await nothing_is_left(row)
        if is_reached:
            break
    calls = [service.calls for service in row.services]
    assert [len(one) for one in calls] == [1, 1, 1]
    first, second, third = (one[0] for one in calls)
    assert BUDGET_SECONDS > first.left > second.left > third.left > 0
    told = [int(one.metadata["x-envoy-expected-rq-timeout-ms"]) for one in (first, second, third)]
    assert all(above > below for above, below in pairwise(told))


@WAYS
async def test_a_client_that_cancels_ends_the_whole_tree(row: Row, context: Context) -> None:
    pass_on(row, context)
    call = row.client.unary_unary(METHOD).future(b"", timeout=PATIENCE_SECONDS)
    await until(lambda: row.is_reached)
    assert row.at_work == len(row.services)
    call.cancel()
    await nothing_is_left(row)
    assert [len(service.calls) for service in row.services] == [1, 1, 1]
    # The connections go on.
    row.services[-1].is_slow = False
    assert await asyncio.to_thread(row.client.unary_unary(METHOD), b"on", PATIENCE_SECONDS) == b"on"


async def test_one_trace_goes_through_the_row(row: Row) -> None:
    pass_on(row, instrumented)
    row.services[-1].is_slow = False
    await asyncio.to_thread(row.client.unary_unary(METHOD), b"", PATIENCE_SECONDS)
    [ids] = [{service.calls[0].metadata["traceparent"].split("-")[1] for service in row.services}]
    members = {service.calls[0].metadata["tracestate"] for service in row.services}
    assert len(ids) == 1
    assert len(members) == len(row.services)
