"""`GET /tap`: requests as they end, those that were asked for and no others; bounded; nothing while nobody reads."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sidecar.admin.tap import CAPACITY, MAX_TAPS
from sidecar.core.transition import State
from tests.scenarios.changing import FAILS, App, answers, seconds_until
from tests.scenarios.operator import operator
from tests.scenarios.stage import app_routes, get, post
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, raw_client, raw_upstream

ROUTES = "match: {path: {regex: '/|/slow|/a|/secret'}}"


async def ask(worker_port: int, *requests: bytes) -> None:
    for request in requests:
        async with raw_client(worker_port) as client:
            await client.send(request)
            await client.responses([request.partition(b" ")[0]])


async def test_a_request_is_told_with_all_that_its_log_line_has_but_for_its_query() -> None:
    async with (
        raw_upstream(App(answers())) as app,
        running(app_routes(app.port, route=ROUTES)) as worker,
        operator(worker).stream("/tap") as tap,
    ):
        await ask(port(worker), get(b"/secret?token=hush", b"User-Agent: me", b"X-Request-Timeout-Ms: 900"))
        kind, told = await tap.next()
    assert kind == "request"
    assert (told["method"], told["path"], told["status"], told["route"]) == ("GET", "/secret", 200, "app")
    assert (told["breaker"], told["attempts"], told["user_agent"]) == ("closed", 1, "me")
    assert 800 < told["budget_ms"] <= 900
    assert told["endpoint"] == f"127.0.0.1:{app.port}"
    assert "hush" not in str(told)


async def test_what_no_route_takes_is_told_too() -> None:
    async with (
        running(app_routes(9, route="match: {path: {exact: /only}}")) as worker,
        operator(worker).stream("/tap") as tap,
    ):
        await ask(port(worker), get(b"/other"))
        _, told = await tap.next()
    assert (told["status"], told["reason"]) == (404, "no_route")
    assert "route" not in told


SLOW = 0.3


async def slow(peer: RawPeer) -> None:
    while request := await peer.request():
        if request.target == b"/slow":
            await asyncio.sleep(SLOW)
        await peer.send(b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("", ["/", "/slow", "/a"]),
        ("?route=app", ["/", "/slow", "/a"]),
        ("?slow=200ms", ["/slow"]),
        ("?slow=400ms", []),
        ("?header=x-tenant:%20blue", ["/a"]),
        ("?header=X-Tenant:blue", ["/a"]),
        ("?header=x-tenant:blu", []),
        ("?header=x-tenant:blue&header=x-other:1", []),
        ("?open=true", []),
        ("?open=false", ["/", "/slow", "/a"]),
    ],
)
async def test_only_what_was_asked_for_is_told(query: str, seen: list[str]) -> None:
    async with (
        raw_upstream(slow) as app,
        running(app_routes(app.port, route=ROUTES)) as worker,
        operator(worker).stream(f"/tap{query}") as tap,
        operator(worker).stream("/tap") as every,
    ):
        await ask(port(worker), get(b"/"), get(b"/slow"), get(b"/a", b"X-Tenant: blue"))
        for _ in range(3):
            await every.next()
        assert [(await tap.next())[1]["path"] for _ in seen] == seen
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await tap.next()


async def test_what_an_open_breaker_refuses_is_told_from_the_rest() -> None:
    async with (
        raw_upstream(App(FAILS)) as app,
        running(app_routes(app.port, route=ROUTES)) as worker,
        operator(worker).stream("/tap?open=true") as tap,
    ):
        await ask(port(worker), *[get(b"/")] * 7)
        assert worker.assembly.breakers["app", "app"].state is State.OPEN
        told = [(await tap.next())[1] for _ in range(2)]
    assert [(one["status"], one["reason"], one["breaker"]) for one in told] == [
        (503, "circuit_open", "open")
    ] * 2


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("rout=app", 400, "did you mean 'route'?"),
        ("route=ap", 404, "did you mean 'app'?"),
        ("slow=200", 400, "slow: "),
        ("open=yes", 400, "say true or false"),
        ("header=blue", 400, "say NAME: VALUE"),
        ("header=a%0d%0ab:%20c", 400, "say NAME: VALUE"),
        ("route=app&route=app", 400, "more than once"),
        ("&".join(["header=a:b"] * 9), 400, "at most 8"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_remedy(query: str, status: int, says: str) -> None:
    async with running(app_routes(9)) as worker:
        hand = operator(worker)
        answer = await hand.get(f"/tap?{query}")
        assert (hand.status, says in answer["detail"]) == (status, True), answer


async def test_while_nobody_reads_the_data_path_reports_as_ever() -> None:
    async with running(app_routes(9)) as worker:
        usual = worker.service.observe
        async with operator(worker).stream("/tap"), operator(worker).stream("/tap"):
            assert worker.service.observe is not usual
        await seconds_until(lambda: not worker.control.taps.readers, within=20.0)
        assert worker.service.observe is usual


async def test_readers_are_bounded_and_one_that_leaves_makes_room_at_once() -> None:
    async with running(app_routes(9)) as worker, contextlib.AsyncExitStack() as stack:
        hand = operator(worker)
        for _ in range(MAX_TAPS - 1):
            await stack.enter_async_context(hand.stream("/tap"))
        async with hand.stream("/tap"):
            refused = await hand.send("GET", "/tap")
            assert (refused.status, refused.value(b"retry-after")) == (503, b"15")
            assert (await hand.get("/status"))["taps"] == {"readers": MAX_TAPS, "lost": 0, "refused": 1}
        await stack.enter_async_context(hand.stream("/tap"))
    assert worker.control.taps.readers == set()


async def test_more_than_can_be_shown_is_counted_and_told() -> None:
    """In one turn of the loop, so that none is sent in between."""
    async with (
        raw_upstream(App(answers())) as app,
        running(app_routes(app.port, route=ROUTES)) as worker,
        operator(worker).stream("/tap") as tap,
    ):
        (reader,) = worker.control.taps.readers
        ended: list[object] = []
        observe = worker.service.observe

        class Keeping:
            def finished(self, exchange: object) -> None:
                ended.append(exchange)
                for _ in range(CAPACITY + 10):
                    reader.look(exchange)  # type: ignore[arg-type]

            def __getattr__(self, name: str) -> object:
                return getattr(observe, name)

        worker.service.observe = Keeping()  # type: ignore[assignment]
        await ask(port(worker), post(b"body", b"/a"))
        worker.service.observe = observe
        assert await tap.next() == ("lost", {"count": 10})
        assert [(await tap.next())[0] for _ in range(CAPACITY)] == ["request"] * CAPACITY
        assert worker.control.taps.lost == 10


async def test_the_end_of_the_process_ends_a_stream_in_order() -> None:
    async with running(app_routes(9)) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.control.admin.port)
        writer.write(b"GET /tap HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b": tapping\n\n" in await reader.readuntil(b"\n\n")
    assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_heartbeat_where_nothing_happens() -> None:
    loop = asyncio.get_running_loop()
    async with running(app_routes(9)) as worker, operator(worker).stream("/tap") as tap:
        began = loop.time()
        assert await tap.block() == {"": "still here"}
        assert loop.time() - began == pytest.approx(15.0, abs=0.5)
