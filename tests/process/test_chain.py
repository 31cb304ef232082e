"""A call tree's time is handed over by what OpenTelemetry's instrumentation forwards, and by nothing else.

The apps are instrumented by the real packages and contain no code of this project (see `service.py`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from tests.process.chain import HOPS, Chain, Request, running_chain

pytestmark = pytest.mark.process

BUDGET_MS = 2000
"""What the client gives the tree: enough to reach its end on a busy machine too."""
TOO_LONG_SECONDS = 20.0
"""What the last service takes for its work: whoever is not stopped answers 200 in the end, and no clock is needed."""

ENDS = {"answered 504", "answered 503"}
"""How a call in between ends: at its deadline, or because its own caller came to its deadline a moment before."""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    for package in ("aiohttp_server", "aiohttp_client"):
        try:
            found = importlib.util.find_spec(f"opentelemetry.instrumentation.{package}")
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"opentelemetry-instrumentation-{package.replace('_', '-')} is not installed")
    with running_chain(tmp_path_factory.mktemp("chain")) as chain:
        yield chain


async def given_too_little(chain: Chain, path: str, seconds: float) -> tuple[int, list[Request]]:
    """The status of a request that the last service is too slow for, and all of its tree once nobody works on."""
    run = chain.new_run()
    target, limit = f"{path}?run={run}&seconds={seconds}", f"x-request-timeout-ms: {BUDGET_MS}\r\n"
    async with chain.client("GET", target, limit) as answer:
        status = int((await answer.readline()).split()[1])
    return status, await chain.is_over(run)


async def test_the_time_falls_at_every_hop_and_the_whole_tree_stops_with_it(chain: Chain) -> None:
    status, requests = await given_too_little(chain, "/work", TOO_LONG_SECONDS)

    assert status == 504
    *between, last = [one.end for one in requests]
    assert len(between) == HOPS - 1
    assert set(between) <= ENDS
    assert last == "cancelled"
    budgets = [one.budget_ms for one in requests]
    assert budgets == sorted(set(budgets), reverse=True), "each hop has less than the one before"
    assert budgets[0] < BUDGET_MS
    assert budgets[-1] > 0


async def test_nothing_but_trace_context_was_forwarded(chain: Chain) -> None:
    run = chain.new_run()
    limit = "x-request-timeout-ms: 30000\r\n"
    async with chain.client("GET", f"/work?run={run}&seconds=0", limit) as answer:
        assert int((await answer.readline()).split()[1]) == 200
    requests = await chain.is_over(run)

    assert "x-request-timeout-ms" in requests[0].headers
    for one in requests[1:]:
        assert "x-request-timeout-ms" not in one.headers
    trace_ids = {one.headers["traceparent"].split("-")[1] for one in requests}
    assert len(trace_ids) == 1
    members = {one.headers["tracestate"] for one in requests}
    assert len(members) == HOPS, "each sidecar's own span id stands in it, one for each request"


async def test_without_recovery_the_same_tree_works_on_for_nobody(chain: Chain) -> None:
    status, requests = await given_too_little(chain, "/unaided", 2 * BUDGET_MS / 1000)

    assert status == 504
    assert [one.end for one in requests] == ["answered 200"] * HOPS
    assert all(one.budget_ms > 10_000 for one in requests[1:])


async def test_a_client_that_closes_its_socket_closes_every_connection_of_its_tree(chain: Chain) -> None:
    run = chain.new_run()
    async with chain.client("GET", f"/work?run={run}&seconds={TOO_LONG_SECONDS}"):
        await chain.reached_the_end(run)
    await chain.until(run, lambda requests: not any(one.is_connected for one in requests))
    requests = await chain.is_over(run)
    assert requests[-1].end == "cancelled"


async def test_a_tree_of_posts_runs_to_its_end_without_its_client(chain: Chain) -> None:
    run = chain.new_run()
    async with chain.client("POST", f"/work?run={run}&seconds=0.6"):
        await chain.reached_the_end(run)
    requests = await chain.is_over(run)

    assert [one.end for one in requests] == ["answered 200"] * HOPS
