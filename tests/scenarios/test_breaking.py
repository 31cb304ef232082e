"""The circuit breaker as its callers and its upstream feel it: trips, refuses, probes once, closes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from sidecar.core.transition import State, TransitionReason
from tests.scenarios.stage import OK, Stage, app_routes, get, hang, saying, stage
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import port, running
from tests.support.raw import RawPeer, Script, raw_client, turns

FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
FAILING = saying(FAILURE)


class Patient:
    """An app that fails until told otherwise, and can be made to hold its answers back."""

    def __init__(self) -> None:
        self.answer = FAILURE
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, peer: RawPeer) -> None:
        while await peer.request() is not None:
            await self.gate.wait()
            await peer.send(self.answer)


async def trip(to: Stage, calls: int = 5) -> None:
    for _ in range(calls):
        await to.ask()
    assert to.breaker.state is State.OPEN


def reasons(to: Stage) -> list[TransitionReason]:
    return [transition.reason for transition in to.breaker.history]


@pytest.mark.parametrize(("policy", "calls"), [("", 5), ("circuit_breaker: {consecutive_failures: 3}", 3)])
async def test_a_row_of_failures_trips_it(policy: str, calls: int) -> None:
    async with stage(FAILING, route=policy) as to:
        for number in range(calls):
            assert to.breaker.state is State.CLOSED
            assert (await to.ask()).status == 500, number
        assert to.breaker.state is State.OPEN
        assert reasons(to) == [TransitionReason.CONSECUTIVE_FAILURES]


async def test_one_success_ends_a_row_of_failures() -> None:
    async with stage(saying(*[FAILURE] * 4, OK, *[FAILURE] * 4, OK)) as to:
        await to.ask_all(get() * 10, [b"GET"] * 10)
        assert to.breaker.state is State.CLOSED


async def test_the_failure_rate_trips_it_once_there_are_enough_calls() -> None:
    policy = "circuit_breaker: {consecutive_failures: 0, minimum_calls: 10, failure_rate_threshold: 50%}"
    async with stage(saying(*[FAILURE, OK] * 20), route=policy) as to:
        answers = await to.ask_all(get() * 12, [b"GET"] * 12)
        assert [answer.status for answer in answers] == [500, 200] * 5 + [503, 503]
        assert reasons(to) == [TransitionReason.FAILURE_RATE]


async def test_slow_calls_trip_it() -> None:
    async def slow(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(0.3)
            await peer.send(OK)

    policy = "circuit_breaker: {minimum_calls: 5, slow_call_duration: 200ms, slow_call_rate_threshold: 80%}"
    async with stage(slow, route=policy) as to:
        answers = await to.ask_all(get() * 6, [b"GET"] * 6)
        assert [answer.status for answer in answers] == [200] * 5 + [503]
        assert reasons(to) == [TransitionReason.SLOW_CALL_RATE]


async def test_an_open_breaker_answers_at_once_and_the_upstream_gets_nothing() -> None:
    loop = asyncio.get_running_loop()
    async with stage(FAILING) as to:
        await trip(to)
        before = to.app.received
        began = loop.time()
        for _ in range(20):
            assert (await to.ask()).status == 503
        assert loop.time() == began
        assert to.app.received == before
        assert len(to.app.peers) == 1


@pytest.mark.parametrize(
    ("waited", "told"), [(0.0, b"5"), (0.5, b"5"), (1.1, b"4"), (2.5, b"3"), (4.2, b"1"), (4.99, b"1")]
)
async def test_retry_after_is_the_time_that_is_left(waited: float, told: bytes) -> None:
    async with stage(FAILING) as to:
        await trip(to)
        await asyncio.sleep(waited)
        assert (await to.ask()).value(b"retry-after") == told


async def test_exactly_one_probe_goes_through_under_fifty_requests_and_closes_it() -> None:
    app = Patient()
    async with stage(app) as to:
        await trip(to)
        app.answer = OK
        app.gate.clear()
        await asyncio.sleep(5.01)
        before = len(to.requests)
        asked = [asyncio.create_task(to.ask()) for _ in range(50)]
        while to.breaker.numbers(to.worker.service.clock()).rejected < 49:
            await turns()
        await turns(50)
        assert len(to.requests) == before + 1
        assert to.breaker.state is State.HALF_OPEN
        app.gate.set()
        answers = await asyncio.gather(*asked)
        assert Counter(answer.status for answer in answers) == {503: 49, 200: 1}
        assert {answer.value(b"retry-after") for answer in answers if answer.status == 503} == {b"1"}
        assert to.breaker.state is State.CLOSED
        assert (await to.ask()).status == 200
        assert reasons(to) == [
            TransitionReason.CONSECUTIVE_FAILURES,
            TransitionReason.WAIT_ELAPSED,
            TransitionReason.PROBE_SUCCEEDED,
        ]


async def test_a_failed_probe_opens_it_for_twice_as_long() -> None:
    async with stage(FAILING) as to:
        await trip(to)
        await asyncio.sleep(5.01)
        assert (await to.ask()).status == 500
        refused = await to.ask()
        assert (refused.status, to.breaker.state) == (503, State.OPEN)
        assert 10 <= int(refused.value(b"retry-after") or b"0") <= 11
        assert reasons(to)[-1] is TransitionReason.PROBE_FAILED


async def test_a_client_that_leaves_gives_its_probe_back() -> None:
    app = Patient()
    async with stage(app) as to:
        await trip(to)
        app.gate.clear()
        await asyncio.sleep(5.01)
        async with raw_client(to.port) as client:
            await client.send(get())
            while to.breaker.state is not State.HALF_OPEN:
                await turns()
        await turns(20)
        app.answer = OK
        app.gate.set()
        assert (await to.ask()).status == 200
        assert to.breaker.state is State.CLOSED


@pytest.mark.parametrize("milliseconds", [1, 5])
async def test_a_thousand_callers_without_patience_do_not_trip_it(milliseconds: int) -> None:
    calls = 1000 if milliseconds == 1 else 150
    async with stage(hang) as to:
        request = get(b"/", b"x-request-timeout-ms: %d" % milliseconds)
        statuses = Counter([(await to.ask(request)).status for _ in range(calls)])
        assert statuses == {504: calls}
        assert to.breaker.state is State.CLOSED
        assert to.breaker.numbers(to.worker.service.clock()).failed == 0


async def test_a_hung_upstream_trips_it_when_every_caller_brings_less_than_the_route() -> None:
    async with stage(hang, route="timeouts: {request: 15s}") as to:
        request = get(b"/", b"x-request-timeout-ms: 1200")
        answers = await asyncio.gather(*(to.ask(request) for _ in range(5)))
        assert [answer.status for answer in answers] == [504] * 5
        assert to.breaker.state is State.OPEN
        assert (await to.ask(request)).status == 503


@pytest.mark.parametrize("milliseconds", [100, 300, 400, 700, 800, 900])
@pytest.mark.parametrize("key", ["request", "attempt"])
async def test_a_hung_upstream_trips_it_whatever_the_routes_timeout(key: str, milliseconds: int) -> None:
    """The budget of an attempt is a difference of two instants, which may be a little less than the timeout."""
    async with stage(hang, route=f"timeouts: {{{key}: {milliseconds}ms}}") as to:
        for _ in range(5):
            assert (await to.ask()).status == 504
        assert to.breaker.state is State.OPEN


async def test_clients_that_leave_do_not_count() -> None:
    async with stage(hang) as to:
        for _ in range(10):
            async with raw_client(to.port) as client:
                await client.send(get())
                while not to.app.open_count:
                    await turns()
            while to.worker.service.exchanges:
                await turns()
        numbers = to.breaker.numbers(to.worker.service.clock())
        assert (to.breaker.state, numbers.failed, numbers.successful) == (State.CLOSED, 0, 0)


@pytest.mark.parametrize("sent", [b"", b"begun", bytes(200_000)], ids=["nothing", "something", "much"])
async def test_clients_that_do_not_send_the_rest_of_their_body_do_not_count(sent: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n"
    async with stage(hang, route="timeouts: {request: 2s}") as to:
        for _ in range(6):
            async with raw_client(to.port) as client:
                await client.send(head + sent)
                (response,) = await client.responses([b"POST"])
            assert response.status == 504
        numbers = to.breaker.numbers(to.worker.service.clock())
        assert (to.breaker.state, numbers.failed, numbers.total) == (State.CLOSED, 0, 6)


async def test_clients_that_do_not_take_their_answer_do_not_count() -> None:
    size = 48 * 1024 * 1024

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await peer.read_some()

    async with stage(script, route="timeouts: {request: 2s}") as to:
        for _ in range(6):
            async with raw_client(to.port) as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await client.send(get())
                await asyncio.sleep(2.1)
        # Each was judged by its head, a second after that.
        assert (to.breaker.state, to.breaker.tally.failed, to.breaker.tally.successful) == (
            State.CLOSED,
            0,
            6,
        )


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"all of it"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", b""),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 48000000\r\n\r\n", bytes(47_000_000)),
    ],
    ids=["whole", "expected", "not taken"],
)
async def test_an_upstream_that_hangs_counts_though_the_request_has_a_body(head: bytes, sent: bytes) -> None:
    async def script(peer: RawPeer) -> None:
        await over.wait()  # nothing is read

    over = asyncio.Event()
    async with stage(script, route="timeouts: {request: 2s}") as to:
        for _ in range(5):
            async with raw_client(to.port) as client:
                client.writer.write(head + sent)
                (response,) = await client.responses([b"POST"])
            assert response.status == 504
        assert to.breaker.state is State.OPEN
        over.set()


async def reset(peer: RawPeer) -> None:
    await peer.request()


async def cut_short(peer: RawPeer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")


@pytest.mark.parametrize(
    "script",
    [
        reset,
        cut_short,
        saying(b"nonsense\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ],
    ids=["reset", "cut_short", "malformed_head", "malformed_body"],
)
async def test_every_kind_of_broken_answer_counts(script: Script) -> None:
    async with stage(script) as to:
        for _ in range(5):
            async with raw_client(to.port) as client:
                await client.send(get(b"/", b"Connection: close"))
                await client.read_to_end()
        assert to.breaker.state is State.OPEN


async def test_a_refused_connection_counts() -> None:
    (dead,) = free_ports(1)
    async with running(app_routes(dead, route="circuit_breaker: {warm_up: off}")) as worker:
        async with raw_client(port(worker)) as client:
            await client.send(get() * 6)
            answers = await client.responses([b"GET"] * 6)
        assert [answer.status for answer in answers] == [502] * 5 + [503]
        await assert_clean(worker)


async def test_an_app_that_does_not_listen_yet_opens_nothing() -> None:
    (dead,) = free_ports(1)
    async with running(app_routes(dead)) as worker:
        async with raw_client(port(worker)) as client:
            await client.send(get() * 20)
            answers = await client.responses([b"GET"] * 20)
        assert {answer.status for answer in answers} == {502}


async def test_what_the_policy_does_not_name_does_not_count() -> None:
    async with stage(FAILING, route="circuit_breaker: {failure_on: [connect_failure]}") as to:
        await to.ask_all(get() * 8, [b"GET"] * 8)
        assert to.breaker.state is State.CLOSED


async def test_429_counts_nothing_on_an_inbound_route() -> None:
    """It is some caller's own quota."""
    policy = "circuit_breaker: {minimum_calls: 10}"
    async with stage(saying(b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n"), route=policy) as to:
        answers = await to.ask_all(get() * 11, [b"GET"] * 11)
        assert [answer.status for answer in answers] == [429] * 11
        assert to.breaker.tally.failed == 0


async def test_answers_of_the_sidecars_own_do_not_count() -> None:
    async with stage(route="match: {path: {exact: /app}}") as to:
        await to.ask_all(get(b"/other") * 20, [b"GET"] * 20)
        assert to.breaker.numbers(to.worker.service.clock()).total == 0


async def test_an_outcome_of_an_earlier_period_changes_nothing() -> None:
    app = Patient()
    async with stage(app) as to:
        app.gate.clear()
        late = [asyncio.create_task(to.ask()) for _ in range(20)]
        while len(to.requests) < 20:
            await turns()
        app.gate.set()
        assert {answer.status for answer in await asyncio.gather(*late)} == {500}
        assert (to.breaker.state, to.breaker.generation) == (State.OPEN, 1)


@pytest.mark.parametrize(
    ("mode", "state", "status"), [("disabled", State.DISABLED, 500), ("forced_open", State.FORCED_OPEN, 503)]
)
async def test_a_mode_stands_above_what_happens(mode: str, state: State, status: int) -> None:
    async with stage(FAILING, route=f"circuit_breaker: {{mode: {mode}}}") as to:
        answers = await to.ask_all(get() * 10, [b"GET"] * 10)
        assert {answer.status for answer in answers} == {status}
        assert to.breaker.state is state


async def test_metrics_only_counts_and_lets_everything_through() -> None:
    async with stage(FAILING, route="circuit_breaker: {mode: metrics_only}") as to:
        answers = await to.ask_all(get() * 10, [b"GET"] * 10)
        assert {answer.status for answer in answers} == {500}
        assert to.breaker.state is State.OPEN
